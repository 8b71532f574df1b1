"""The miners' pool lists: no change of one goes unrecorded, none of their content is told, and a request is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mullet_simulators.faults import Fault
from mullet_simulators.miners.catalogue import DEVICES
from mullet_simulators.miners.http import HttpRequest
from mullet_simulators.miners.models import MODELS, MinerModel
from mullet_simulators.plant import Plant
from mullet_simulators.scenario import load_scenario
from mullet_simulators.testing import require_pools_kept, simulated_facility
from mullet_simulators.truth import TruthLog

MODEL_OF: dict[str, MinerModel] = {model.protocol: model for model in MODELS.values() if model.protocol in DEVICES}
ELSEWHERE = [{"url": "stratum+tcp://elsewhere.example:3333", "user": "thief", "pass": "sesame"}]
T0 = 1_700_000_000.0


class Watched:
    """One simulated miner and the truth log that it writes."""

    def __init__(self, protocol: str, path: Path) -> None:
        scenario = {"circuits": [{"id": "pdu", "limit_w": 20_000}], "price": {"base_per_mwh": 38.0}}
        self.path = path
        self.truth = TruthLog(lambda: T0, path)
        self.plant = Plant(load_scenario(scenario), lambda: T0, self.truth)
        model = MODEL_OF[protocol]
        self.sim: Any = DEVICES[protocol](self.plant, model, "a-001", "a", "pdu", "secret", 8080)
        self.sim.begin_hashing()
        self.plant.add_load(self.sim)
        self.plant.begin()

    def records(self) -> list[dict[str, Any]]:
        """Changes of pool lists on record."""
        records = map(json.loads, self.path.read_text().splitlines())
        return [record for record in records if record["type"] == "pools"]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[[str], Watched]]:
    opened: list[Watched] = []

    def watch(protocol: str) -> Watched:
        opened.append(Watched(protocol, tmp_path / f"{protocol}.jsonl"))
        return opened[-1]

    yield watch
    for one in opened:
        one.truth.close()


def posted(target: str, body: Any, method: str = "POST") -> HttpRequest:
    return HttpRequest(method, target, {}, json.dumps(body).encode())


def post_marathon(sim: Any, pools: Any) -> None:
    sim._set_conf(posted("/kaonsu/v1/miner_config", {**sim._reported_conf(), "pools": pools}))


REQUESTS: dict[str, Callable[[Any], object]] = {
    "antminer": lambda sim: sim._set_conf(posted("/cgi-bin/set_miner_conf.cgi", {"miner-mode": 1, "pools": []})),
    "auradine": lambda sim: sim._order("updatepools", {}),
    "axeos": lambda sim: sim.answer_http(posted("/api/system", {"stratumUser": "thief"}, "PATCH")),
    "braiins": lambda sim: sim._obey("", "pools", {}),
    "epic": lambda sim: sim.answer_http(posted("/coin", {"param": ELSEWHERE[0]["url"], "password": "secret"})),
    "luxos": lambda sim: sim.answer_rpc({"command": "removepool", "parameter": "0"}),
    "marathon": lambda sim: post_marathon(sim, ELSEWHERE),
    "vnish": lambda sim: sim._save(posted("/api/v1/settings", {"miner": {"pools": ELSEWHERE}})),
    "whatsminer_v2": lambda sim: sim._obey("update_pools", {"pool1": ELSEWHERE[0]["url"]}),
    "whatsminer_v3": lambda sim: sim._obey("set.miner.pools", "x"),
}
"""What changes the pools of each protocol that has such a request."""
WITHOUT = {"antminer_old", "avalon"}


def test_each_protocol_is_asked_or_has_no_such_request() -> None:
    assert REQUESTS.keys() | WITHOUT == DEVICES.keys()


@pytest.mark.parametrize("protocol", REQUESTS)
def test_a_request_that_changes_pools_is_recorded_and_fails_the_run(
    watched: Callable[[str], Watched], protocol: str
) -> None:
    one = watched(protocol)
    assert require_pools_kept(one.path) == {}
    REQUESTS[protocol](one.sim)
    (record,) = one.records()
    assert (record["load"], record["cause"]) == ("a-001", "request")
    one.truth.footer()
    with pytest.raises(AssertionError, match=r"changed by requests.*a-001"):
        require_pools_kept(one.path)


@pytest.mark.parametrize("protocol", DEVICES)
def test_a_fault_that_loses_pools_is_recorded_once_and_is_nobody_s_doing(
    watched: Callable[[str], Watched], protocol: str
) -> None:
    one = watched(protocol)
    one.plant.set_fault("a-001", Fault.POOLS_LOST)
    one.plant.set_fault("a-001", Fault.OK)
    one.plant.set_fault("a-001", Fault.POOLS_LOST)
    (record,) = one.records()
    assert (record["load"], record["cause"], record["count"]) == ("a-001", "fault", 0)
    assert require_pools_kept(one.path) == {"fault": 1}


def test_a_request_after_a_fault_is_seen_too(watched: Callable[[str], Watched]) -> None:
    one = watched("antminer")
    before = one.sim.pools
    one.plant.set_fault("a-001", Fault.POOLS_LOST)
    one.sim.pools = before
    assert [record["cause"] for record in one.records()] == ["fault", "request"]
    with pytest.raises(AssertionError):
        require_pools_kept(one.path)


def test_an_antminer_s_mode_posted_with_its_pools_as_they_were_changes_none(watched: Callable[[str], Watched]) -> None:
    one = watched("antminer")
    pools = [dict(reversed(pool.items())) for pool in one.sim.pools]
    for mode in (1, 0, 3):
        one.sim._set_conf(posted("/cgi-bin/set_miner_conf.cgi", {"miner-mode": mode, "pools": pools}))
    assert one.sim.truth()["work_mode"] == "3"
    assert one.records() == []


@pytest.mark.parametrize("field", ["url", "user", "pass"])
def test_one_field_of_one_pool_is_a_change(watched: Callable[[str], Watched], field: str) -> None:
    one = watched("vnish")
    pools = one.sim.pools
    pools[2][field] += "x"
    assert one.records() == []
    one.sim.pools = pools
    (record,) = one.records()
    assert record["count"] == 3


def test_what_is_handed_out_changes_nothing(watched: Callable[[str], Watched]) -> None:
    one = watched("marathon")
    before = one.sim.pools
    for handed in (one.sim.pools, one.sim.truth()["pools"], one.sim._reported_conf()["pools"]):
        handed[0]["url"] = "elsewhere"
        handed.clear()
    posting = [dict(pool) for pool in ELSEWHERE]
    assert one.sim.pools == before
    one.sim.pools = posting
    posting[0]["user"] = "another"
    assert one.sim.pools == ELSEWHERE
    assert len(one.records()) == 1


def test_the_header_tells_what_a_miner_began_with_and_a_change_what_it_has(watched: Callable[[str], Watched]) -> None:
    one = watched("antminer")
    header = json.loads(one.path.read_text().splitlines()[0])
    began = header["loads"]["a-001"]["pools"]
    assert began["count"] == 3
    first = one.sim.pools
    one.sim.pools = ELSEWHERE
    one.sim.pools = first
    away, back = one.records()
    assert away["digest"] != began["digest"] == back["digest"]
    canonical = json.dumps(ELSEWHERE, sort_keys=True).encode()
    assert away["digest"] == hashlib.sha256(canonical).hexdigest()[:16]


def test_the_log_tells_no_url_user_or_password(watched: Callable[[str], Watched]) -> None:
    one = watched("antminer")
    one.sim.pools = ELSEWHERE
    one.plant.set_fault("a-001", Fault.POOLS_LOST)
    text = one.path.read_text()
    assert text.count('"type":"pools"') == 2
    for secret in ("stratum", "example", "mullet", "thief", "sesame", "elsewhere"):
        assert secret not in text


def test_a_cause_that_nobody_knows_is_not_written(watched: Callable[[str], Watched]) -> None:
    one = watched("antminer")
    with pytest.raises(ValueError, match="chance"):
        one.sim.change_pools(ELSEWHERE, "chance")
    assert one.records() == []


def test_a_log_that_tells_nothing_of_pools_proves_nothing(watched: Callable[[str], Watched]) -> None:
    one = watched("antminer")
    lines = one.path.read_text().splitlines()
    header = json.loads(lines[0])
    header["loads"]["a-001"]["pools"] = None
    one.path.write_text("\n".join([json.dumps(header), *lines[1:]]))
    with pytest.raises(AssertionError, match=r"does not tell the pools of .*a-001"):
        require_pools_kept(one.path)
    one.path.write_text(json.dumps({**header, "loads": {}}))
    with pytest.raises(AssertionError, match="any miner"):
        require_pools_kept(one.path)


async def test_a_running_facility_has_it_on_record_before_its_log_ends(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    scenario = {
        "circuits": [{"id": "pdu", "limit_w": 20_000}],
        "banks": [{"id": "am", "number": 1, "circuit": "pdu", "model": "antminer-s19", "count": 2}],
        "price": {"base_per_mwh": 38.0},
    }
    async with simulated_facility(scenario, servers=(), truth=truth) as facility:
        facility.set_fault("am-001", "pools_lost")
        assert require_pools_kept(truth) == {"fault": 1}
        sim: Any = facility.plant.loads["am-002"]
        sim.pools = ELSEWHERE
        with pytest.raises(AssertionError, match="am-002"):
            require_pools_kept(truth)
