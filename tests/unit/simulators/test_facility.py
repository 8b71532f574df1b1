"""The facility as servers and as a process: script, control port, start and stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mullet_simulators.control_port import ControlPort
from mullet_simulators.facility import AddressInUse, Facility
from mullet_simulators.main import main
from mullet_simulators.scenario import load_scenario
from mullet_simulators.testing import find_subnet, simulated_facility

SCENARIO: dict[str, Any] = {
    "cycle_s": 1.5,
    "circuits": [{"id": "poi", "limit_w": 9000}],
    "banks": [{"id": "wm", "number": 1, "circuit": "poi", "model": "whatsminer-m50s", "count": 1, "ramp_scale": 0.1}],
    "services": [
        {
            "id": "chat",
            "circuit": "poi",
            "bank": "gpu",
            "gpus": 1,
            "gpu": {},
            "demand": [{"at": 0, "requests_per_s": 5}, {"at": 0.4, "requests_per_s": 9}],
        }
    ],
    "price": {"base_per_mwh": 38.0, "spikes": [{"start": 0.2, "end": 0.4, "price_per_mwh": 95.0}]},
    "limit_cuts": [{"id": "cut", "circuit": "poi", "limit_w": 4000, "announced": 0.5, "notice": 0.1, "end": 0.8}],
    "faults": [{"load": "wm-001", "fault": "ignore", "at": 0.1}],
}


def read_truth(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def until_logged(path: Path, count: int, **wanted: Any) -> None:
    """Wait until that many records have these fields."""
    async with asyncio.timeout(8.0):
        while sum(wanted.items() <= record.items() for record in read_truth(path)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_script_plays_at_its_instants_and_repeats(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    async with simulated_facility(SCENARIO, truth=truth, servers=()) as facility:
        started_at = facility.plant.started_at
        await until_logged(truth, 2, kind="limit_cut")
        await until_logged(truth, 3, type="limit")
    records = read_truth(truth)
    assert records[-1]["type"] == "footer"
    expected = [
        ("fault", 0.15),
        ("price_spike", 0.3),
        ("demand_step", 0.6),
        ("limit_cut", 0.75),
        ("demand_step", 1.5),
        ("price_spike", 1.8),
        ("demand_step", 2.1),
        ("limit_cut", 2.25),
    ]
    events = [record for record in records if record["type"] == "event"][: len(expected)]
    assert [event["kind"] for event in events] == [kind for kind, _ in expected]
    for event, (_, at_s) in zip(events, expected, strict=True):
        assert event["t"] - started_at == pytest.approx(at_s, abs=0.25)
    limits = [record for record in records if record["type"] == "limit"]
    assert [limit["limit_w"] for limit in limits[:2]] == [4000.0, 9000.0]
    assert limits[0]["t"] - limits[0]["announced_at"] == pytest.approx(0.15, abs=0.1)


async def test_the_control_port_tells_the_truth_and_makes_faults() -> None:
    async with simulated_facility(SCENARIO, servers=()) as facility:
        reader, writer = await asyncio.open_connection(f"127.{facility.subnet}.0.5", 8705)

        async def ask(line: str) -> dict[str, Any]:
            writer.write(line.encode() + b"\n")
            answer: dict[str, Any] = json.loads(await asyncio.wait_for(reader.readline(), 5.0))
            return answer

        truth = await ask('{"op": "truth", "load": "wm-001"}')
        assert truth["state"] == "hashing"
        assert truth["watts"] > 3000.0
        assert len(truth["pools"]) == 3
        assert await ask('{"op": "fault", "load": "wm-001", "fault": "dead"}') == {"ok": True}
        assert (await ask('{"op": "truth", "load": "wm-001"}'))["watts"] == 0.0
        status = await ask('{"op": "status"}')
        assert status["faults"] == {"wm-001": "dead"}
        assert status["states"] == {"dead": 1}
        cut = '{"op": "event", "kind": "limit_cut", "circuit": "poi", "limit_w": 1, "seconds": 9}'
        assert (await ask(cut))["ok"]
        assert facility.plant.world.limit_notices(facility.plant.now())[0].limit_w == 1.0
        spike = '{"op": "event", "kind": "price_spike", "price_per_mwh": 500, "seconds": 9}'
        assert (await ask(spike))["ok"]
        assert facility.plant.world.price_at(facility.plant.now()) == 500.0
        for wrong in ("what", "{}", '{"op": "truth", "load": "x"}', '{"op": "event", "kind": "x"}'):
            assert "error" in await ask(wrong)
        writer.close()
        await writer.wait_closed()


async def test_the_control_port_makes_faults_of_servers() -> None:
    async with simulated_facility(SCENARIO, servers=("grid",)) as facility:
        control = facility.components[-1]
        assert isinstance(control, ControlPort)
        order = {"op": "fault", "server": "grid", "target": "/price", "fault": "500"}
        assert control.answer(order) == {"ok": True}
        assert "error" in control.answer({**order, "target": "/nothing"})
        assert "error" in control.answer({**order, "server": "modbus"})


async def test_an_address_in_use_is_named_and_nothing_stays_open() -> None:
    async with simulated_facility(SCENARIO, servers=()) as facility:
        second = Facility(load_scenario(SCENARIO), facility.subnet, servers=())
        with pytest.raises(AddressInUse, match=f"127.{facility.subnet}.1.1"):
            await second.start()
    again = Facility(load_scenario(SCENARIO), facility.subnet, servers=())
    await again.start()
    await again.stop()


def start_process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mullet_simulators", *arguments]
    for server in ("nvml", "inference", "grid", "modbus"):
        command += ["--without", server]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ask_rpc(host: str, command: str) -> dict[str, Any]:
    """One request to a miner of a process, which runs on uvloop where there is one."""
    with socket.create_connection((host, 4028), timeout=5.0) as connection:
        connection.sendall(json.dumps({"command": command}).encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    said: dict[str, Any] = json.loads(answer.rstrip(b"\0"))
    return said


def test_a_process_says_where_it_answers_and_ends_cleanly_on_a_signal(tmp_path: Path) -> None:
    scenario, truth = tmp_path / "small.yaml", tmp_path / "truth.jsonl"
    scenario.write_text(json.dumps(SCENARIO))
    subnet = find_subnet()
    with start_process(str(scenario), "--subnet", str(subnet), "--truth", str(truth)) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["ready"] is True
        assert ready["subnet"] == subnet
        assert ready["miners"]["wm"]["hosts"] == [f"127.{subnet}.1.1"]
        assert ask_rpc(f"127.{subnet}.1.1", "summary")["SUMMARY"][0]["Power"] > 3000
        with start_process(str(scenario), "--subnet", str(subnet)) as second:
            _, said = second.communicate(timeout=20)
            assert second.returncode == 2
            assert f"127.{subnet}.1.1" in said
            assert len(said.splitlines()) == 1
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")
    assert read_truth(truth)[-1]["type"] == "footer"


def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    scenario = tmp_path / "small.yaml"
    scenario.write_text(json.dumps(SCENARIO))
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as parent:
        arguments = (str(scenario), "--subnet", str(find_subnet()), "--parent-pid", str(parent.pid))
        with start_process(*arguments) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["ready"]
            parent.kill()
            parent.wait()
            process.communicate(timeout=20)
            assert process.returncode == 0
    assert os.getpid() != parent.pid


def test_usage_errors_are_one_line_and_exit_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/nowhere.yaml"]) == 2
    assert main(["demo", "--seconds", "5"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
