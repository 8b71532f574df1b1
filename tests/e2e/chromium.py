"""A headless Chromium driven through its own debugging pipe: nothing to install but the Debian package `chromium`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

EXECUTABLE = shutil.which("chromium")
MISSING = "needs the Debian package chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
DEADLINE_S = 20.0


class BrowserError(AssertionError):
    """The browser refused, failed, or did not come to show what was expected in time."""


class Page:
    """One tab: what it asked for, what it complained about, and how to use it."""

    def __init__(self, send: Any, session: str) -> None:
        self._send = send
        self._session = session
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the debugging protocol to this tab."""
        result: dict[str, Any] = await self._send(method, params, self._session)
        return result

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Take one event of this tab."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(str(details.get("exception", {}).get("description", details["text"])))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} ({params['entry'].get('url', '')})")

    async def open(self, url: str) -> None:
        """Go to `url`."""
        answer = await self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")

    async def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(f"{script}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    async def wait_for(self, script: str, deadline_s: float = DEADLINE_S) -> Any:
        """Return the value of an expression once it is true."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while True:
                    value = await self.evaluate(script)
                    if value:
                        return value
                    await asyncio.sleep(0.05)
        shown = await self.evaluate("document.body.innerText.slice(0, 600)")
        raise BrowserError(f"never came true: {script}\ncomplaints: {self.complaints}\nthe page shows: {shown}")

    async def click(self, selector: str) -> None:
        """Click the middle of the first element that fits, with a real mouse event."""
        find = f"document.querySelector({json.dumps(selector)})"
        await self.wait_for(f"{find} !== null")
        place = await self.evaluate(
            f"(() => {{ const node = {find}; node.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            " const box = node.getBoundingClientRect();"
            " return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    async def type(self, selector: str, text: str) -> None:
        """Put `text` into a field as if typed."""
        await self.click(selector)
        await self.call("Input.insertText", text=text)

    async def resize(self, width: int, height: int, dark: bool | None = None) -> None:
        """Set the size of the window in CSS pixels, and which colours it prefers."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        if dark is not None:
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write what the tab shows as PNG; `whole` takes the page beyond the window too."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))


@asynccontextmanager
async def open_page(profile: Path) -> AsyncIterator[Page]:
    """Start a browser with an empty profile in `profile`, and end it with all its processes."""
    if EXECUTABLE is None:
        raise BrowserError(MISSING)
    # The browser speaks on descriptors 3 and 4, which a shell makes of the two ordinary pipes.
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null',
        EXECUTABLE,
        *FLAGS,
        f"--user-data-dir={profile}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=64 * 1024 * 1024,
        start_new_session=True,
        env={**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)},
    )
    pipe = _Pipe(process)
    listening = asyncio.create_task(pipe.listen(), name="browser")
    try:
        target = await pipe.send("Target.createTarget", {"url": "about:blank"}, None)
        attached = await pipe.send("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}, None)
        page = Page(pipe.send, attached["sessionId"])
        pipe.page = page
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.call(f"{domain}.enable")
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(OSError):
                await process.stdin.wait_closed()
        process._transport.close()  # type: ignore[attr-defined]


class _Pipe:
    """Commands and answers, NUL after each."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._out, self._in = process.stdin, process.stdout
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self.page: Page | None = None

    async def send(self, method: str, params: dict[str, Any], session: str | None) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = answer
        self._out.write(json.dumps(message).encode() + b"\0")
        await self._out.drain()
        try:
            return await asyncio.wait_for(answer, DEADLINE_S)
        except TimeoutError:
            raise BrowserError(f"no answer to {method} within {DEADLINE_S:.0f} s") from None

    async def listen(self) -> None:
        while True:
            try:
                raw = await self._in.readuntil(b"\0")
            except asyncio.IncompleteReadError:
                for answer in self._waiting.values():
                    if not answer.done():
                        answer.set_exception(BrowserError("the browser ended"))
                return
            message = json.loads(raw[:-1])
            answer_to = self._waiting.pop(message.get("id", 0), None)
            if answer_to is not None and not answer_to.done():
                if "error" in message:
                    answer_to.set_exception(BrowserError(str(message["error"]["message"])))
                else:
                    answer_to.set_result(message["result"])
            elif "method" in message and self.page is not None:
                self.page.heard(message["method"], message["params"])
