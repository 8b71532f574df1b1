"""The operator's page in a real browser: it draws what is live, its orders arrive, and it talks to nobody else."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from chromium import EXECUTABLE, MISSING, Page, open_page

from mullet.adapters.api_server import ApiServer
from mullet.adapters.clock import SystemClock
from mullet.testing.desk import MadeUpDesk

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(EXECUTABLE is None, reason=MISSING)]

TOKEN = "a-token-that-is-long-enough"
FILLED = "document.querySelectorAll('#loads tbody tr').length > 10 && +document.querySelector('#power').dataset.points"

# How many pixels of the chart's canvas have about this colour; the chart is drawn with half-transparent fills.
COLOURED = """(() => {
  const canvas = document.querySelector('#power canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let gpu = 0, miner = 0, limit = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b, a] = [data[i], data[i + 1], data[i + 2], data[i + 3]];
    if (a < 30) continue;
    if (b > r + 60 && g > r + 60) gpu += 1;
    else if (r > b + 60 && g > b + 30) miner += 1;
    else if (r > g + 90 && r > b + 90) limit += 1;
  }
  return { gpu, miner, limit, share: (gpu + miner) / (canvas.width * canvas.height) };
})()"""


class Site:
    """A made-up facility behind the real server, ticking ten times as fast as a real one."""

    def __init__(self, desk: MadeUpDesk, url: str) -> None:
        self.desk = desk
        self.url = url


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    clock = SystemClock()
    desk = MadeUpDesk(clock.now() - 240.0, "west-texas")
    server = ApiServer("west-texas", desk, TOKEN, None, "127.0.0.1", 0, clock=clock)
    await server.start()
    ticking = asyncio.create_task(_tick(desk), name="ticking")
    yield Site(desk, server.url)
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    await server.close()


async def _tick(desk: MadeUpDesk) -> None:
    while True:
        desk.tick()
        await asyncio.sleep(0.1)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    profile = tmp_path / "profile"
    profile.mkdir()
    async with open_page(profile) as tab:
        await tab.resize(1280, 900, dark=True)
        yield tab
    await asyncio.to_thread(shutil.rmtree, profile, ignore_errors=True)


async def test_the_page_draws_what_is_live_and_asks_nobody_else(site: Site, page: Page) -> None:
    await page.open(site.url)
    points = await page.wait_for(f"({FILLED}) >= 20 && ({FILLED})")
    drawn: dict[str, Any] = await page.evaluate(COLOURED)
    assert drawn["gpu"] > 1_000, drawn
    assert drawn["miner"] > 5_000, drawn
    assert drawn["limit"] > 50, drawn
    # It goes on: more points, and other numbers.
    await page.wait_for(f"({FILLED}) > {points} + 10")
    assert (await page.evaluate(COLOURED))["share"] > drawn["share"]
    assert await page.evaluate("document.querySelector('#live').dataset.state") == "live"
    assert await page.evaluate("document.querySelectorAll('#circuits .circuit').length") == 5
    assert "of 480 kW" in await page.evaluate("document.querySelector('#figures').textContent")
    assert {url.split("/")[2] for url in page.requests} == {site.url.split("/")[2]}
    assert page.complaints == []


async def test_a_hold_from_the_page_reaches_operations_and_is_released_again(site: Site, page: Page) -> None:
    await page.open(f"{site.url}#token={TOKEN}")
    await page.wait_for(FILLED)
    # The token does not stay where a screenshot or the browser's history would show it.
    assert await page.evaluate("location.href") == site.url
    await page.evaluate("localStorage.setItem('mullet.owner', 'Ana')")
    row = "#loads tbody tr:nth-child(3)"
    await page.click(f"{row} td.act button")
    await page.wait_for("document.querySelector('#dialog[open]') !== null")
    await page.type("#dialog input[name=reason]", "fan swap")
    await page.click("#dialog button[type=submit]")
    await page.wait_for(f"document.querySelector('{row}').dataset.held === 'off'")
    assert site.desk.orders == [("hold", "hall-a-002", "off", "Ana", "fan swap")]
    await page.wait_for("document.querySelector('#standing').textContent.includes('hall-a-002 held off')")
    await page.click("#standing button")
    await page.click("#dialog button[type=submit]")
    await page.wait_for("!document.querySelector('#standing').textContent.includes('hall-a-002')")
    assert site.desk.orders[1] == ("release", "hold-1", "Ana")
    assert not any(TOKEN in url for url in page.requests if "#" not in url)
    assert page.complaints == []


async def test_without_a_token_the_page_asks_and_says_when_it_is_wrong(site: Site, page: Page) -> None:
    await page.open(site.url)
    await page.wait_for(FILLED)
    await page.click("#modes button[data-mode=observe]")
    await page.type("#dialog input[name=owner]", "Ana")
    await page.type("#dialog input[name=token]", "not the token at all")
    await page.click("#dialog button[type=submit]")
    await page.wait_for("document.querySelector('#dialog .problem').textContent.includes('token')")
    await page.evaluate("document.querySelector('#dialog input[name=token]').value = ''")
    await page.type("#dialog input[name=token]", TOKEN)
    await page.click("#dialog button[type=submit]")
    await page.wait_for("document.querySelector('#dialog-title').textContent === 'Switch to observe?'")
    await page.click("#dialog button[type=submit]")
    await page.wait_for("document.querySelector('#modes [data-mode=observe]').getAttribute('aria-pressed') === 'true'")
    assert site.desk.orders == [("mode", "observe", "Ana")]


async def test_what_a_device_says_never_becomes_markup(site: Site, page: Page) -> None:
    site.desk.alarms["<img src=x onerror=alert(1)>"] = ("<script>document.title='taken'</script>", site.desk.at)
    await page.open(site.url)
    await page.wait_for(f"({FILLED}) && document.querySelector('#alarms').textContent.includes('<script>')")
    assert await page.evaluate("document.querySelectorAll('#alarms img, #alarms script').length") == 0
    assert await page.evaluate("document.title") == "west-texas · mullet"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
async def test_it_fits_a_desk_and_a_pocket(site: Site, page: Page, width: int, dark: bool) -> None:
    await page.resize(width, 844, dark=dark)
    await page.open(site.url)
    await page.wait_for(FILLED)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = await page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter(n => !(n.textContent.trim()"
        " || n.getAttribute('aria-label') || n.closest('label')?.textContent.trim())).map(n => n.outerHTML)"
    )
    assert unnamed == []


async def test_the_page_says_when_the_daemon_is_gone(page: Page) -> None:
    clock = SystemClock()
    desk = MadeUpDesk(clock.now(), "west-texas")
    server = ApiServer("west-texas", desk, TOKEN, None, "127.0.0.1", 0, clock=clock)
    await server.start()
    ticking = asyncio.create_task(_tick(desk), name="ticking")
    try:
        await page.open(server.url)
        await page.wait_for(FILLED)
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await server.close()
    await page.wait_for("document.querySelector('#live').dataset.state === 'lost'")
