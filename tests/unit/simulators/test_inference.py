"""The simulated inference services: queues that follow power, and metrics pages that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mullet_simulators.inference import InferenceServers
from mullet_simulators.nvml import NvmlService
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

SUBNET = 142


def scenario(prompt: int = 900, rate: float = 15.0, gpus: int = 8) -> dict[str, Any]:
    return {
        "circuits": [{"id": "pdu", "limit_w": 40_000}],
        "services": [
            {
                "id": "code",
                "circuit": "pdu",
                "bank": "code-gpu",
                "gpus": gpus,
                "gpu": {},
                "prompt_tokens_per_request": prompt,
                "output_tokens_per_request": 300,
                "demand": [{"requests_per_s": rate}],
            }
        ],
        "price": {"base_per_mwh": 40},
    }


class Bench:
    """One service whose time moves by hand."""

    def __init__(self, **shape: Any) -> None:
        self.t = 1_760_000_000.0
        loaded = load_scenario(scenario(**shape))
        self.plant = Plant(loaded, lambda: self.t, TruthLog(lambda: self.t))
        self.gpus = NvmlService(self.plant, loaded, f"127.{SUBNET}.0.2", port=0).gpus
        self.servers = InferenceServers(self.plant, loaded, SUBNET, first_port=0)
        self.server = self.servers.servers["code"]
        self.service = self.server.service

    def run(self, seconds: float, dt: float = 0.05) -> None:
        for _ in range(round(seconds / dt)):
            self.t += dt
            self.servers.step(dt, self.t)
            for gpu in self.gpus:
                gpu.step(dt, self.t)

    def demand(self, rate: float) -> None:
        self.plant.world.requests_per_s["code"] = rate

    def cap(self, watts: float) -> None:
        for gpu in self.gpus:
            gpu.set_limit(watts)

    def watts(self) -> float:
        return sum(gpu.watts for gpu in self.gpus)

    def series(self) -> dict[str, float]:
        """Sample values by name and the labels that are no model or engine."""
        found: dict[str, float] = {}
        text = self.server.metrics.page(self.service).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
                found[sample.name + "".join(f"/{v}" for v in labels.values())] = sample.value
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_service_with_enough_power_keeps_up(bench: Bench) -> None:
    bench.run(60)
    done = bench.series()
    finished = done["vllm:request_success_total/stop"] + done["vllm:request_success_total/length"]
    assert finished == pytest.approx(15 * 60, rel=0.12)
    assert bench.service.waiting == 0
    assert done["vllm:prompt_tokens_total"] == pytest.approx(900 * finished, rel=0.1)
    assert done["vllm:generation_tokens_total"] == pytest.approx(300 * finished, rel=0.1)
    assert done["vllm:num_requests_running"] == bench.service.running
    assert 0 < done["vllm:kv_cache_usage_perc"] < 1


def test_without_power_the_queue_grows_and_with_it_the_queue_drains(bench: Bench) -> None:
    bench.cap(200)
    bench.run(20)
    assert bench.service.waiting == 0
    bench.demand(56)
    bench.run(12)
    assert bench.service.waiting > 50
    assert bench.watts() <= 8 * 200 * 1.02
    assert bench.service.capacity_per_s() < 25
    bench.cap(700)
    bench.run(60)
    assert bench.service.waiting == 0
    assert bench.watts() > 4000


def test_the_power_said_to_be_needed_is_enough_and_a_tenth_less_is_not(bench: Bench) -> None:
    needed_w = bench.service.power_needed_w(56)
    assert 8 * 500 < needed_w < 8 * 700
    bench.demand(56)
    bench.cap(needed_w / 8)
    bench.run(90)
    assert bench.service.waiting == 0
    bench.cap(0.9 * needed_w / 8)
    bench.run(90)
    assert bench.service.waiting > 0


def test_a_decode_service_does_not_need_more_than_its_natural_draw() -> None:
    bench = Bench(prompt=300, rate=60.0)
    bench.run(20)
    before = bench.watts()
    assert before < 8 * 305
    bench.cap(320)
    bench.run(20)
    assert bench.watts() == pytest.approx(before, rel=0.05)
    assert bench.service.waiting == 0


def test_a_lost_gpu_takes_its_share_of_the_capacity_with_it(bench: Bench) -> None:
    whole = bench.service.capacity_per_s()
    bench.gpus[0].set_fault("lost", bench.t)
    assert bench.service.capacity_per_s() == pytest.approx(whole * 7 / 8)
    for gpu in bench.gpus:
        gpu.set_fault("lost", bench.t)
    bench.run(5)
    assert bench.service.capacity_per_s() == 0
    assert bench.service.power_needed_w(10) == 0


def test_latency_grows_as_power_falls(bench: Bench) -> None:
    def mean_latency() -> float:
        before = bench.series()
        bench.run(40)
        after = bench.series()
        name = "vllm:e2e_request_latency_seconds"
        return (after[f"{name}_sum"] - before[f"{name}_sum"]) / (after[f"{name}_count"] - before[f"{name}_count"])

    bench.demand(24)
    bench.run(20)
    fast = mean_latency()
    bench.cap(200)
    bench.run(20)
    assert mean_latency() > 1.3 * fast


def test_series_are_absent_until_the_first_request() -> None:
    bench = Bench(rate=0.0)
    bench.run(5)
    assert bench.series() == {}
    bench.demand(10)
    bench.run(5)
    found = bench.series()
    assert found["vllm:num_requests_waiting"] == 0
    assert found["vllm:num_requests_waiting_by_reason/capacity"] == 0
    assert found["vllm:num_preemptions_total"] == 0
    for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency", "request_queue_time"):
        assert found[f"vllm:{name}_seconds_count"] > 0


def test_labels_are_those_of_vllm(bench: Bench) -> None:
    bench.run(5)
    page = bench.server.metrics.page(bench.service).decode()
    assert 'vllm:num_requests_running{engine="0",model_name="sim/code"}' in page
    assert "# TYPE vllm:generation_tokens_total counter" in page


def test_a_restart_begins_the_counters_again(bench: Bench) -> None:
    bench.run(20)
    assert bench.series()["vllm:prompt_tokens_total"] > 0
    bench.servers.set_fault("code", "reset")
    assert bench.series() == {}
    bench.run(5)
    assert bench.server.fault == "ok"
    assert 0 < bench.series()["vllm:prompt_tokens_total"] < 15 * 900 * 10


def test_unknown_faults_and_services_are_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="melted"):
        bench.servers.set_fault("code", "melted")
    with pytest.raises(KeyError):
        bench.servers.set_fault("nobody", "html")


@pytest.fixture
async def served(bench: Bench) -> AsyncIterator[Bench]:
    bench.run(5)
    await bench.servers.start()
    try:
        yield bench
    finally:
        await bench.servers.stop()


async def test_the_page_is_served_and_each_fault_shows(served: Bench) -> None:
    url = served.servers.addresses()["inference"]["code"]
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        good = await client.get(url)
        assert good.status_code == 200
        assert good.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert list(text_string_to_metric_families(good.text))
        served.servers.set_fault("code", "html")
        assert "<html>" in (await client.get(url)).text
        served.servers.set_fault("code", "500")
        assert (await client.get(url)).status_code == 500
        served.servers.set_fault("code", "garbage")
        assert b"\x00" in (await client.get(url)).content
        served.servers.set_fault("code", "hang")
        with pytest.raises(httpx.ReadTimeout):
            await client.get(url, timeout=0.2)
        served.servers.set_fault("code", "ok")
        assert (await client.get(url)).status_code == 200
        assert (await client.get(url.replace("/metrics", "/elsewhere"))).status_code == 404
        assert (await client.post(url)).status_code == 405


async def test_what_is_no_http_is_dropped_and_does_no_harm(served: Bench) -> None:
    host, _, port = served.server.web.address.rpartition(":")
    for line in (b"\x16\x03\x01 what\r\n\r\n", b"x" * 40_000):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line)
        writer.write_eof()
        async with asyncio.timeout(2):
            await reader.read()
        writer.close()
        await writer.wait_closed()
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        assert (await client.get(f"http://{served.server.web.address}/health")).status_code == 200
