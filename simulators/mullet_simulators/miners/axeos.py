"""Bitaxe and NerdAxe (AxeOS): one JSON page over HTTP, and no authentication at all.

Shapes after pyasic 0.79, ESP-Miner's own page and a published capture; NerdAxe adds `deviceModel`.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from mullet_simulators.faults import Fault
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.http import HttpProtocol, HttpReply, HttpRequest
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import Listener, SimMiner
from mullet_simulators.plant import Plant

FIRMWARE = "v2.9.0"
SETTINGS = "/api/system"
RESTART = "/api/system/restart"
NERD = "Nerd"
CHIP_OF_NERDS = "BM1370"
MILLIVOLT = 5100.0


class AxeOs(SimMiner):
    """One Bitaxe or NerdAxe: whoever reaches it may set it, so that it is best left alone."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self.mac = "02:A8:E0:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))

    def listeners(self) -> tuple[Listener, ...]:
        """The web interface."""
        return (Listener(self.web_port, partial(HttpProtocol, self)),)

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """Answer one request."""
        if request.method != "GET":
            return self._order(request)
        if self.fault is Fault.HANG:
            return None
        if request.target == "/api/system/info":
            return HttpReply(200, json.dumps(self._info()).encode())
        if request.target == "/":
            return HttpReply(200, b"<html><head><title>AxeOS</title></head></html>", "text/html")
        return HttpReply(404, b"File does not exist", "text/plain")

    def _order(self, request: HttpRequest) -> HttpReply | None:
        verbs = {("PATCH", SETTINGS): "settings", ("POST", RESTART): "reboot"}
        verb = verbs.get((request.method, request.target), "unknown")
        if self.fault is Fault.HANG:
            self.log_request(verb, "none")
            return None
        if verb == "unknown" or self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return HttpReply(400, b"Wrong request", "text/plain")
        self.log_request(verb, "ok")
        if verb == "reboot":
            self.command_reboot()
        elif self.fault is not Fault.IGNORE:
            self._keep(request)
        return HttpReply(200, b"", "text/plain")

    def _keep(self, request: HttpRequest) -> None:
        """Keep what was posted of its pool; nothing else that it takes is simulated."""
        try:
            posted = json.loads(request.body)
        except ValueError:
            return
        fields = {"stratumURL": "url", "stratumUser": "user", "stratumPassword": "pass"}
        if isinstance(posted, dict):
            first, *others = self.pools
            given = {ours: str(posted[theirs]) for theirs, ours in fields.items() if theirs in posted}
            self.pools = [{**first, **given}, *others]

    def _info(self) -> dict[str, Any]:
        said = self.readings()
        nerd = self.model.wire_name.startswith(NERD)
        info: dict[str, Any] = {
            "power": round(said.watts, 3),
            "voltage": MILLIVOLT,
            "current": round(said.watts / MILLIVOLT * 1e6, 1),
            "temp": round(said.board_c, 1),
            "vrTemp": round(said.board_c + 5.0),
            "hashRate": round(said.th_per_s_5s * 1000, 3),
            "bestDiff": "1.2M",
            "bestSessionDiff": "120k",
            "freeHeap": 8400000,
            "coreVoltage": 1150,
            "coreVoltageActual": 1148,
            "frequency": 525,
            "hostname": self.id,
            "macAddr": self.mac,
            "ssid": "miners",
            "wifiStatus": "Connected!",
            "sharesAccepted": said.elapsed_s // 5,
            "sharesRejected": 0,
            "uptimeSeconds": said.elapsed_s,
            "asicCount": self.model.boards * self.model.chips_per_board,
            "smallCoreCount": 2040,
            "ASICModel": CHIP_OF_NERDS if nerd else self.model.wire_name,
            "stratumURL": self.pools[0]["url"].removeprefix("stratum+tcp://").partition(":")[0],
            "stratumPort": 3333,
            "stratumUser": self.pools[0]["user"],
            "version": FIRMWARE,
            "overheat_mode": 0,
            "autofanspeed": 1,
            "fanspeed": 60,
            "fanrpm": fan_rpm(said),
        }
        return {**info, "deviceModel": self.model.wire_name} if nerd else info
