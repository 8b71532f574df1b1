"""Demand from vLLM's metrics page, against pages that are right, odd and wrong."""

import logging
from pathlib import Path
from typing import Any

import pytest
from adapters_kit import Hands, Web, no_secrets
from hypothesis import given
from hypothesis import strategies as st

from mullet.adapters.feeds.exposition import NotMetrics, read_page
from mullet.adapters.feeds.inference import VLLM_NAMES, VllmDemandFeed
from mullet.ports import DriverContext, Feed, FeedError

T0 = 1_780_000_000.0
RECORDED = (
    Path(__file__).parents[4] / "shared" / "data" / "payloads" / "vllm" / "vllm_metrics_scrape_v0_aibrix_docs.txt"
)
TYPES = "".join(
    f"# TYPE vllm:{name} {kind}\n"
    for name, kind in [
        ("num_requests_running", "gauge"),
        ("num_requests_waiting", "gauge"),
        ("num_requests_waiting_by_reason", "gauge"),
        ("prompt_tokens_total", "counter"),
        ("generation_tokens_total", "counter"),
        ("request_success_total", "counter"),
        ("time_to_first_token_seconds", "histogram"),
    ]
)


def engine(number: int = 0, model: str = "m", **values: float) -> str:
    """Samples of one engine; `finished` counts stops, `ttft_*` is the histogram, `capacity` and `deferred` reasons."""
    labels = f'engine="{number}",model_name="{model}"'
    names = {
        "running": f"num_requests_running{{{labels}}}",
        "waiting": f"num_requests_waiting{{{labels}}}",
        "capacity": f'num_requests_waiting_by_reason{{{labels},reason="capacity"}}',
        "deferred": f'num_requests_waiting_by_reason{{{labels},reason="deferred"}}',
        "prompt": f"prompt_tokens_total{{{labels}}}",
        "generated": f"generation_tokens_total{{{labels}}}",
        "finished": f'request_success_total{{{labels},finished_reason="stop"}}',
        "aborted": f'request_success_total{{{labels},finished_reason="abort"}}',
        "ttft_sum": f"time_to_first_token_seconds_sum{{{labels}}}",
        "ttft_count": f"time_to_first_token_seconds_count{{{labels}}}",
    }
    return "".join(f"vllm:{names[name]} {value}\n" for name, value in values.items())


class Bench:
    """A feed whose server and clock a test moves."""

    def __init__(self, web: Web, **options: Any) -> None:
        self.web = web
        self.clock = Hands(T0)
        context = DriverContext({"demand-chat": {"url": web.url} | options}, no_secrets, self.clock)
        self.feed = VllmDemandFeed(context, "demand-chat")

    async def scrape(self, *engines: str, seconds: float = 1.0) -> Any:
        self.clock.at += seconds
        self.web.page(TYPES + "".join(engines))
        return await self.feed.fetch(1.0)


async def test_absent_is_unknown_not_zero(web: Web) -> None:
    bench = Bench(web)
    feed: Feed = bench.feed
    demand = await bench.scrape()
    assert demand.service == "chat"
    assert demand.at == T0 + 1.0
    everything = (demand.running, demand.waiting, demand.tokens_per_s, demand.offered_tokens_per_s, demand.ttft_s)
    assert everything == (None,) * 5
    demand = await bench.scrape(engine(running=0, waiting=0))
    assert (demand.running, demand.waiting, demand.tokens_per_s) == (0.0, 0.0, None)
    await feed.close()


async def test_rates_engines_reasons_and_latency(web: Web) -> None:
    bench = Bench(web)
    first = await bench.scrape(
        engine(0, running=4, waiting=9, capacity=2, deferred=7, prompt=1000, generated=500, finished=50),
        engine(1, running=6, waiting=3, prompt=100, generated=50, finished=5, ttft_sum=10.0, ttft_count=5),
    )
    assert (first.running, first.waiting) == (10.0, 5.0), "capacity where an engine tells reasons, else all"
    assert (first.tokens_per_s, first.ttft_s) == (None, None)
    second = await bench.scrape(
        engine(0, running=4, waiting=9, capacity=2, deferred=7, prompt=1400, generated=600, finished=60),
        engine(1, running=6, waiting=3, prompt=200, generated=150, finished=15, ttft_sum=14.0, ttft_count=13),
        seconds=2.0,
    )
    assert second.tokens_per_s == pytest.approx((400 + 100 + 100 + 100) / 2.0)
    assert second.ttft_s == pytest.approx(4.0 / 8.0)
    third = await bench.scrape(
        engine(0, running=4, waiting=9, capacity=2, deferred=7, prompt=1400, generated=600, finished=60)
        + engine(0, ttft_sum=3.0, ttft_count=1),
        engine(1, running=6, waiting=3, prompt=200, generated=150, finished=15, ttft_sum=14.0, ttft_count=13),
    )
    assert third.ttft_s == pytest.approx(3.0), "that of the slowest engine"
    await bench.feed.close()


async def test_a_steady_server_is_offered_what_it_serves_and_a_step_shows_at_once(web: Web) -> None:
    bench = Bench(web)
    finished, tokens, waiting = 100.0, 50_000.0, 0.0
    for _ in range(25):
        finished, tokens = finished + 10, tokens + 5_000
        demand = await bench.scrape(
            engine(running=20, waiting=waiting, prompt=tokens * 0.4, generated=tokens * 0.6, finished=finished)
        )
    assert demand.tokens_per_s == pytest.approx(5_000.0)
    assert demand.offered_tokens_per_s == pytest.approx(5_000.0, rel=0.1)
    for _ in range(3):
        finished, tokens, waiting = finished + 10, tokens + 5_000, waiting + 20
        demand = await bench.scrape(
            engine(running=20, waiting=waiting, prompt=tokens * 0.4, generated=tokens * 0.6, finished=finished)
        )
    assert demand.tokens_per_s == pytest.approx(5_000.0)
    assert demand.offered_tokens_per_s == pytest.approx(15_000.0, rel=0.1)
    await bench.feed.close()


async def test_requests_that_fill_the_batch_count_before_any_has_to_wait(web: Web) -> None:
    bench = Bench(web)
    for second in range(25):
        served = 100.0 + 10 * second
        running = 20 + max(0, second - 21) * 15
        demand = await bench.scrape(
            engine(running=running, waiting=0, prompt=0, generated=500 * served, finished=served)
        )
    assert demand.offered_tokens_per_s == pytest.approx(12_500.0, rel=0.15)
    await bench.feed.close()


async def test_a_restarted_server_gives_no_negative_or_absurd_rate(web: Web) -> None:
    bench = Bench(web)
    for second in range(3):
        await bench.scrape(
            engine(running=5, waiting=5, prompt=1e6 + 100 * second, generated=1e6 + 100 * second, finished=1e4 + second)
        )
    after = await bench.scrape(engine(running=1, waiting=0, prompt=30, generated=10, finished=0))
    assert after.tokens_per_s is None
    assert after.offered_tokens_per_s is None
    again = await bench.scrape(engine(running=1, waiting=0, prompt=130, generated=60, finished=1))
    assert again.tokens_per_s == pytest.approx(150.0)
    assert 0.0 <= (again.offered_tokens_per_s or 0.0) < 1e4
    await bench.feed.close()


async def test_another_set_of_engines_begins_anew(web: Web) -> None:
    bench = Bench(web)
    counters = {"running": 5.0, "waiting": 0.0, "prompt": 1e6, "generated": 1e6, "finished": 1e3}
    await bench.scrape(engine(0, "m", **counters))
    assert (await bench.scrape(engine(0, "m", **counters))).tokens_per_s == 0.0
    joined = await bench.scrape(engine(0, "m", **counters), engine(1, "m", **counters))
    assert joined.running == 10.0
    assert joined.tokens_per_s is None
    assert (await bench.scrape(engine(0, "m", **counters), engine(1, "m", **counters))).tokens_per_s == 0.0
    assert (await bench.scrape(engine(1, "m", **counters))).tokens_per_s is None
    await bench.feed.close()


async def test_old_and_renamed_names_are_read_and_lookalikes_are_not(web: Web) -> None:
    bench = Bench(web)
    web.page(
        "# TYPE vllm:prompt_tokens counter\n"
        'vllm_num_requests_running{model_name="m"} 3\n'
        'vllm:num_requests_waiting_by_reason{model_name="m",reason="deferred"} 4\n'
        'vllm:num_requests_running_before{model_name="m"} 99\n'
        'vllm:prompt_tokens_created{model_name="m"} 1.7e9\n'
        'vllm:prompt_tokens{model_name="m"} 10\n'
    )
    demand = await bench.feed.fetch(1.0)
    assert demand.running == 3.0
    assert demand.waiting == 0.0, "what is deferred does not wait for room"
    await bench.feed.close()


async def test_a_metric_that_disappeared_is_told_once(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(web)
    caplog.set_level(logging.WARNING, "mullet")
    await bench.scrape()
    assert not caplog.records
    for _ in range(3):
        bench.web.page(TYPES.replace("# TYPE vllm:num_requests_waiting gauge\n", "") + engine(running=1))
        assert (await bench.feed.fetch(1.0)).waiting is None
    assert [record.getMessage() for record in caplog.records] == [
        "feed demand-chat: metrics that are not there (any more): vllm:num_requests_waiting"
    ]
    await bench.feed.close()


async def test_one_model_of_several(web: Web) -> None:
    bench = Bench(web, model="b", service="other")
    demand = await bench.scrape(engine(model="a", running=3), engine(model="b", running=4))
    assert (demand.running, demand.service) == (4.0, "other")
    with pytest.raises(FeedError, match="no series of model 'b'; there are a, c"):
        await bench.scrape(engine(model="a", running=3), engine(model="c", running=4))
    await bench.feed.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<html>sign in</html>", "a web page"),
        ("", "no metrics that are known"),
        ("hello world\n", "no metrics that are known"),
        ("# TYPE node_load1 gauge\nnode_load1 0.5\n", "no metrics that are known"),
        ("vllm:num_requests_running 3\n", "no label model_name"),
        ('vllm:num_requests_running{pod="x"} 3\n', "no label model_name"),
        (engine(running=float("nan")), "is nan"),
        (engine(running=float("inf")), "is inf"),
        (engine(running=-1), "is -1"),
        (engine(running=1) * 2, "same labels twice"),
        ('vllm:num_requests_running{model_name="m} 3\n', "no metric"),
        ('vllm:num_requests_running{model_name="m"} many\n', "no metric"),
        ('vllm:num_requests_running{model_name="m"}\n', "no metric"),
        ("".join(engine(number, running=1) for number in range(10_001)), "more than 10000 series"),
        ("# TYPE vllm:num_requests_running gauge\n" + " " * 5_000_000, "larger than"),
        (b"\x00\x9f\x92vllm:num_requests_running{model_name=\xff 12 12 12\n", "not UTF-8"),
    ],
)
async def test_wrong_pages_are_feed_errors(web: Web, body: str | bytes, reason: str) -> None:
    bench = Bench(web)
    web.page(body)
    with pytest.raises(FeedError, match="feed demand-chat: ") as caught:
        await bench.feed.fetch(5.0)
    assert reason in str(caught.value)
    web.page("x", "500 Internal Server Error")
    with pytest.raises(FeedError, match="500"):
        await bench.feed.fetch(1.0)
    assert (await bench.scrape(engine(running=2))).running == 2.0
    await bench.feed.close()


def test_a_scrape_has_a_second_at_most() -> None:
    assert VllmDemandFeed.options_schema["timeout_s"][1] == 1.0


line = st.tuples(
    st.sampled_from(["vllm:num_requests_running", "vllm:prompt_tokens_total", "# TYPE vllm:num_requests_waiting"]),
    st.text(alphabet='{}",=\\ \tabm_.e0159-+#', max_size=24),
)


@given(st.lists(line, max_size=4))
def test_any_text_is_a_page_or_no_page(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(name + rest for name, rest in lines)
    try:
        page = read_page(text, VLLM_NAMES)
    except NotMetrics:
        return
    assert page.known


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded scrape is kept outside the project")
async def test_a_recorded_scrape_of_an_old_engine(web: Web) -> None:
    bench = Bench(web)
    web.page(RECORDED.read_bytes())
    demand = await bench.feed.fetch(1.0)
    assert (demand.running, demand.waiting) == (0.0, 0.0)
    bench.clock.at += 1.0
    assert (await bench.feed.fetch(1.0)).tokens_per_s == 0.0
    await bench.feed.close()
