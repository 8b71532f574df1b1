"""Marathon's firmware (MaraFW, KaonSu) on an Antminer: /kaonsu/v1 behind digest authentication, reading RPC on 4028.

Shapes after what pyasic 0.79 and asic-rs read and write; no capture. The realm is stock Antminer's, as pyasic
expects it of this firmware; what it says on refusing is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from mullet_simulators.faults import Fault
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.http import DigestGuard, HttpProtocol, HttpReply, HttpRequest
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import Listener, SimMiner
from mullet_simulators.miners.rpc import RPC_PORT, Reply, RpcProtocol, encode_rpc
from mullet_simulators.plant import Plant

REALM = "antMiner Configuration"
USERNAME = "root"
PREFIX = "/kaonsu/v1/"
SLEEP = "Sleep"
MODES = ("Auto", "Fixed", "Stock", SLEEP)
MOST_HISTORY = 50


class Marathon(SimMiner):
    """An Antminer with Marathon's firmware: modes, a power target, estimated watts; it keeps whatever is posted."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self.mac = "02:3A:5A:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))
        self._nonce_seed = f"{identity.getrandbits(64):016x}"
        self._guard = DigestGuard(REALM, USERNAME)
        self._awake_mode = "Stock"
        self._history: list[dict[str, Any]] = []
        self._conf: dict[str, Any] = {
            "mode": {
                "work-mode-selector": "Stock",
                "concorde": {"mode-select": "PowerTarget", "power-target": round(model.watts * 0.8), "hash-target": 80},
                "fixed": {"frequency": "525", "voltage": 13.2},
            },
            "general-config": {"environment-profile": "AirCooling"},
            "advance-config": {"override-fan-control": False, "fan-fixed-percent": 0},
            "pool-group": [{"gid": 0, "alias": "", "percent": 100}],
        }

    def listeners(self) -> tuple[Listener, ...]:
        """RPC and web."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)), Listener(self.web_port, partial(HttpProtocol, self)))

    def truth(self) -> dict[str, Any]:
        """Physics and the mode that it tells."""
        return {**super().truth(), "work_mode": self._work_mode()}

    def forget_sessions(self) -> None:
        """A reboot forgets the nonces and the sleep."""
        self._guard.forget()
        if self._selector == SLEEP:
            self._conf["mode"]["work-mode-selector"] = self._awake_mode

    # Web

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """Answer one request of the web interface."""
        if self.fault is Fault.HANG:
            if request.method == "POST":
                self.log_request("unreadable", "none")
            return None
        password = self._password + ("-changed" if self.fault is Fault.WRONG_PASSWORD else "")
        if not self._guard.admits(request, password):
            return self._guard.challenge(self._nonce_seed)
        if request.target == "/":
            return HttpReply(200, b"<html><head><title>Miner</title></head></html>", "text/html")
        command = request.target.removeprefix(PREFIX)
        if command == "miner_config" and self.fault is Fault.HTTP500_CONFIG:
            return HttpReply(500, b"<html>500 Internal Server Error</html>", "text/html")
        if request.method == "POST" and command == "miner_config":
            return self._set_conf(request)
        pages: dict[str, Callable[[], Any]] = {
            "brief": self._brief,
            "overview": self._overview,
            "hashboards": self._hashboards,
            "fans": self._fans,
            "miner_config": self._reported_conf,
            "log?type=miner_config_history": lambda: self._history,
        }
        if request.method != "GET" or not request.target.startswith(PREFIX) or command not in pages:
            return HttpReply(404, b"<html>404 Not Found</html>", "text/html")
        return _json(pages[command]())

    def _set_conf(self, request: HttpRequest) -> HttpReply:
        try:
            posted = json.loads(request.body)
        except ValueError:
            posted = None
        mode = posted.get("mode") if isinstance(posted, dict) else None
        selector = mode.get("work-mode-selector") if isinstance(mode, dict) else None
        if not isinstance(posted, dict) or selector not in MODES:
            self.log_request("unreadable", "refused")
            return _json({"error": True, "msg": "invalid config"})
        was = self._work_mode()
        verb = "sleep" if selector == SLEEP else "wake" if was == SLEEP else "power"
        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return _json({"error": True, "msg": "permission denied"})
        self.log_request(verb, "ok")
        if self.fault is not Fault.IGNORE:
            self._store(posted, was, str(selector))
        return _json({"error": False, "msg": "success"})

    def _store(self, posted: dict[str, Any], was: str, selector: str) -> None:
        """Keep exactly what was posted, empty pools included, and do as the mode says."""
        self.pools = posted.pop("pools", [])
        self._conf = posted
        if selector != was:
            change = {"type": "update", "path": ["Mode", "WorkModeSelector"], "from": was, "to": selector}
            self._history = [*self._history[-MOST_HISTORY:], {str(int(self.now())): [change]}]
        if selector == SLEEP:
            self._awake_mode = was if was != SLEEP else self._awake_mode
            self.command_stop()
            return
        self._awake_mode = selector
        tuned_w = self._tuned_w()
        if self.readings().mining:
            if selector != was or tuned_w != self.limit_w:
                self.command_limit(tuned_w)
        else:
            self.command_limit(tuned_w)
            self.command_wake()

    def _tuned_w(self) -> float:
        """Watts of the present mode; the tuner alone keeps to a target, here above a least one."""
        tuner = self._conf["mode"].get("concorde", {})
        if self._selector == "Auto" and tuner.get("mode-select") == "PowerTarget":
            return max(
                self.model.min_limit_w, min(self.model.watts, float(tuner.get("power-target", self.model.watts)))
            )
        return self.model.watts

    @property
    def _selector(self) -> str:
        return str(self._conf["mode"]["work-mode-selector"])

    def _work_mode(self) -> str:
        """A miner that says it does not mine says it sleeps."""
        if not self.readings().mining:
            return SLEEP
        return self._awake_mode if self._selector == SLEEP else self._selector

    def _reported_conf(self) -> dict[str, Any]:
        mode = {**self._conf["mode"], "work-mode-selector": self._work_mode()}
        return {**self._conf, "mode": mode, "pools": self.pools}

    def _brief(self) -> dict[str, Any]:
        said = self.readings()
        return {
            "status": "Mining" if said.th_per_s_5s > 0.1 else "Initializing" if said.mining else "Sleeping",
            "elapsed": said.elapsed_s,
            "hashrate_realtime": round(said.th_per_s_5s, 3),
            "hashrate_average": round(said.th_per_s_1m, 3),
            "hashrate_ideal": self.model.th_per_s * 1000,
            "power_consumption_estimated": round(said.watts, 1),
            "temperature_max": round(said.board_c) if said.mining else 0,
        }

    def _overview(self) -> dict[str, Any]:
        return {
            "mac": self.mac.lower(),
            "model": self.model.wire_name,
            "control_board": "AMLogic",
            "version_firmware": "1.0.3",
        }

    def _hashboards(self) -> dict[str, Any]:
        """A sleeping one powers no board, and so finds no chips."""
        said, boards = self.readings(), self.model.boards
        board_c = round(said.board_c) if said.mining else 0
        chip_c = board_c + 12 if said.mining else 0
        found = [
            {
                "index": slot,
                "hashrate_average": round(said.th_per_s_5s / boards * 1000, 2),
                "hashrate_ideal": round(self.model.th_per_s / boards * 1000, 2),
                "asic_num": self.model.chips_per_board if said.mining else 0,
                "temperature_pcb": [board_c] * 4,
                "temperature_chip": [chip_c] * 4,
                "serial_number": f"MARA{slot}",
            }
            for slot in range(boards)
        ]
        return {"hashboards": found}

    def _fans(self) -> dict[str, Any]:
        rpm = fan_rpm(self.readings())
        return {"fans": [{"index": place, "current_speed": rpm} for place in range(4)]}

    # RPC

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request of the cgminer RPC."""
        if self.fault is Fault.HANG:
            return None
        said = self.readings()
        version = {"BMMiner": "1.0.0", "API": "3.1", "Miner": "kaonsu", "Type": self.model.wire_name}
        sections = {
            "version": ("VERSION", version),
            "summary": ("SUMMARY", {"Elapsed": said.elapsed_s, "GHS 5s": round(said.th_per_s_5s * 1000, 2)}),
        }
        name = str(request.get("command", ""))
        status = {"STATUS": "S", "When": int(self.now()), "Code": 11, "Description": "cgminer 1.0.0"}
        if name not in sections:
            status |= {"STATUS": "E", "Code": 14, "Msg": "Invalid command"}
            return Reply(encode_rpc({"STATUS": [status], "id": 1}))
        section, body = sections[name]
        return Reply(encode_rpc({"STATUS": [{**status, "Msg": name}], section: [body], "id": 1}))


def _json(value: Any) -> HttpReply:
    return HttpReply(200, json.dumps(value).encode())
