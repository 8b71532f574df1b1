"""ePIC PowerPlay: JSON over HTTP on port 4028, a page on the web port; reading is open, writes carry the password.

Shapes after ePIC's API document (epic-dashboard) and what pyasic 0.79 reads; no capture. Its words between "Idling"
and "Mining", and for a wrong password, are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from mullet_simulators.faults import Fault
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.http import HttpProtocol, HttpReply, HttpRequest
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import Listener, SimMiner
from mullet_simulators.plant import Plant

API_PORT = 4028
SOFTWARE = "PowerPlay-BM v1.18.1"
PAGE = b"<html><head><title>Miner Web Dashboard</title></head><body></body></html>"
VERBS = {"stop": "sleep", "autostart": "wake"}
STILL_DRAWS_W = 100.0


class Epic(SimMiner):
    """A miner with ePIC's firmware: it stops and starts, and measures what it draws."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self.mac = "02:EB:1C:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))
        self.serial = f"{identity.getrandbits(64):016x}"

    def listeners(self) -> tuple[Listener, ...]:
        """Its interface, and the port of the page that tells what it is; both answer alike here."""
        spoken = partial(HttpProtocol, self)
        return (Listener(API_PORT, spoken), Listener(self.web_port, spoken))

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """Answer one request of the interface."""
        if self.fault is Fault.HANG:
            if request.method == "POST":
                self.log_request("unreadable", "none")
            return None
        if request.method == "POST":
            return self._post(request)
        pages: dict[str, Callable[[], dict[str, Any]]] = {
            "/summary": self._summary,
            "/capabilities": self._capabilities,
            "/network": lambda: {"dhcp": {"address": "", "netmask": "", "gateway": "", "mac_address": self.mac}},
        }
        if request.target == "/":
            return HttpReply(200, PAGE, "text/html")
        if request.target not in pages:
            return HttpReply(404, b"Not Found", "text/plain")
        return HttpReply(200, json.dumps(pages[request.target]()).encode())

    def _post(self, request: HttpRequest) -> HttpReply:
        try:
            posted = json.loads(request.body)
        except ValueError:
            posted = None
        if not isinstance(posted, dict) or "param" not in posted:
            self.log_request("unreadable", "refused")
            return _result("Invalid request")
        password = self._password + ("-changed" if self.fault is Fault.WRONG_PASSWORD else "")
        verb = VERBS.get(str(posted["param"]).lower(), "unknown")
        if posted.get("password") != password:
            self.log_request(verb, "password")
            return _result("Incorrect password")
        if request.target == "/coin":
            # What its interface takes for pools; nobody here should send it.
            self.log_request("pools", "ok")
            self.pools = [{"url": str(posted["param"]), "user": "", "pass": ""}]
            return _result(None)
        if request.target != "/miner" or verb == "unknown":
            self.log_request(verb, "refused")
            return HttpReply(404, b"Not Found", "text/plain")
        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return _result("Command not available")
        self.log_request(verb, "ok")
        if verb == "sleep":
            self.command_stop()
        elif self.readings().mining:
            self.command_restart()
        else:
            self.command_wake()
        return _result(None)

    def _state(self) -> str:
        said = self.readings()
        if not said.mining:
            return "Idling"
        return "Mining" if said.th_per_s_5s > 0.1 else "Initializing"

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        first = self.pools[0] if self.pools else {}
        return {
            "Status": {"Operating State": self._state(), "Last Command": None, "Last Error": None},
            "Hostname": self.id,
            "Software": SOFTWARE,
            "Mining": {"Coin": "Btc", "Algorithm": "SHA256d"},
            "Stratum": {
                "Current Pool": first.get("url", ""),
                "Current User": first.get("user", ""),
                "Config Id": 0,
                "IsPoolConnected": bool(first.get("url")) and said.mining,
            },
            "StratumConfigs": [
                {"pool": pool.get("url", ""), "login": pool.get("user", ""), "password": pool.get("pass", "")}
                for pool in self.pools
            ],
            "Session": {"Uptime": said.elapsed_s, "Active HBs": self.model.boards if said.mining else 0},
            "HBs": self._boards(),
            "Power Supply Stats": {"Input Power": round(said.watts, 2), "Input Voltage": 240.0, "Output Voltage": 14.2},
            "Fans": {"Fans Speed": 60 if said.mining else 0},
            "Fans Rpm": {f"Fans Speed {fan}": fan_rpm(said) for fan in range(1, 5)},
            "PerpetualTune": {"Running": False, "Algorithm": {}},
            "Misc": {"Locate Miner State": False},
        }

    def _boards(self) -> list[dict[str, Any]] | None:
        """Nothing is told of boards that are switched off."""
        said = self.readings()
        if not said.mining and said.watts < STILL_DRAWS_W:
            return None
        boards = self.model.boards
        return [
            {
                "Index": slot,
                "Hashrate": [round(said.th_per_s_5s / boards * 1e6, 1), 98.0, 99.0],
                "Temperature": round(said.board_c),
                "Input Voltage": 14.2,
                "Core Clock Avg": 525.0,
            }
            for slot in range(boards)
        ]

    def _capabilities(self) -> dict[str, Any]:
        return {
            "Model": self.model.wire_name,
            "Model Subtype": "BHB42801",
            "Default Hashrate": self.model.th_per_s,
            "Control Board Version": {"cpuHardware": "amlogic-a113d", "cpuSerial": self.serial},
            "Performance Estimator": {"Chip Count": self.model.chips_per_board},
            "Coins": ["Btc"],
        }


def _result(error: str | None) -> HttpReply:
    return HttpReply(200, json.dumps({"result": error is None, "error": error}).encode())
