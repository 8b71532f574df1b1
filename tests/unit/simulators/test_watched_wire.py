"""The simulated Antminer of old and AxeOS on their wire: what they answer, and what they log of orders."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mullet_simulators.faults import Fault
from mullet_simulators.miners.antminer_old import AntminerOld
from mullet_simulators.miners.axeos import AxeOs
from mullet_simulators.miners.http import HttpRequest
from mullet_simulators.miners.models import MODELS
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.truth import TruthLog

SCENARIO: dict[str, Any] = {"circuits": [{"id": "pdu", "limit_w": 9000}], "price": {"base_per_mwh": 38.0}}


class Bench:
    """One miner, and the orders that it logged."""

    def __init__(self, kind: type[AntminerOld] | type[AxeOs], model: str) -> None:
        truth = TruthLog(lambda: 1000.0, None)
        self.orders: list[tuple[str, str]] = []
        truth.request = lambda load, verb, answer: self.orders.append((verb, answer))  # type: ignore[method-assign]
        plant = Plant(load_scenario(SCENARIO), lambda: 1000.0, truth)
        self.miner = kind(plant, MODELS[model], "m-001", "m", "pdu", "root")
        self.miner.begin_hashing()


def request(method: str, target: str) -> HttpRequest:
    return HttpRequest(method, target, {}, b"{}")


def test_stats_of_an_old_antminer_lack_their_comma() -> None:
    miner = Bench(AntminerOld, "antminer-s9").miner
    reply = miner.answer_rpc({"command": "stats"})
    assert reply is not None
    with pytest.raises(ValueError):
        json.loads(reply.body.strip(b"\0"))
    stats = json.loads(reply.body.strip(b"\0").replace(b"}{", b"},{"))["STATS"]
    assert stats[0]["Type"] == "Antminer S9"
    assert float(stats[1]["GHS 5s"]) == pytest.approx(13_500.0, rel=0.01)
    assert [stats[1][f"chain_acn{chain}"] for chain in (5, 6, 8, 9)] == [0, 63, 63, 0]


def test_an_old_antminer_takes_no_order_and_tells_nothing_without_its_password() -> None:
    bench = Bench(AntminerOld, "antminer-s9")
    for target in ("/cgi-bin/set_miner_conf.cgi", "/cgi-bin/reboot.cgi"):
        reply = bench.miner.answer_http(request("POST", target))
        assert reply is not None
        assert reply.status == 401
    assert bench.orders == [("unknown", "refused")] * 2
    reply = bench.miner.answer_http(request("GET", "/cgi-bin/get_system_info.cgi"))
    assert reply is not None
    assert reply.status == 401


def test_axeos_tells_all_on_one_page_and_restarts_for_anybody() -> None:
    bench = Bench(AxeOs, "bitaxe-gamma")
    reply = bench.miner.answer_http(request("GET", "/api/system/info"))
    assert reply is not None
    info = json.loads(reply.body)
    assert info["hashRate"] == pytest.approx(1200.0, rel=0.01)
    assert info["power"] == pytest.approx(17.0, rel=0.01)
    assert info["ASICModel"] == "BM1370"
    assert "deviceModel" not in info
    boots = bench.miner.boots
    bench.miner.answer_http(request("POST", "/api/system/restart"))
    assert bench.miner.boots == boots + 1
    bench.miner.answer_http(request("PATCH", "/api/system"))
    bench.miner.answer_http(request("POST", "/api/system/OTA"))
    bench.miner.fault = Fault.HANG
    assert bench.miner.answer_http(request("PATCH", "/api/system")) is None
    assert bench.orders == [("reboot", "ok"), ("settings", "ok"), ("unknown", "refused"), ("settings", "none")]


def test_a_nerdaxe_tells_its_model_and_all_its_chips() -> None:
    reply = Bench(AxeOs, "nerdqaxe-plus-plus").miner.answer_http(request("GET", "/api/system/info"))
    assert reply is not None
    info = json.loads(reply.body)
    assert (info["deviceModel"], info["ASICModel"], info["asicCount"]) == ("NerdQAxe++", "BM1370", 4)
