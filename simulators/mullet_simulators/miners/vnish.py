"""VNish (AnthillOS) on an Antminer: /api/v1 behind a token, and the reading RPC on port 4028.

Shapes after VNish's API document (firmware 1.2, as its users published it) and what pyasic 0.79 reads; no capture.
What it says on refusing is the document's where there is one; which presets are tuned is ours.
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
from mullet_simulators.miners.rpc import RPC_PORT, Reply, RpcProtocol, encode_rpc
from mullet_simulators.plant import Plant

VERSION = "1.2.6"
API = "/api/v1/"
PAGE = b"<html><head><title>AnthillOS</title></head><body><div id=app></div></body></html>"
PRESETS = (
    (1300, 58, False),
    (1700, 68, True),
    (1900, 73, False),
    (2350, 85, True),
    (2620, 91, False),
    (2950, 99, True),
    (3200, 102, True),
    (3750, 110, True),
)
"""Watts, TH/s, and whether this unit has been tuned for it; the last one needs another power supply."""
NEEDS_MODDED_PSU = 3750
CANNOT_PAUSE = "CGMiner err: Cgminer error failed-to-activate-pause-mode "
CANNOT_RESUME = "CGMiner err: Cgminer error failed-to-activate-resume-mode "
STILL_DRAWS_W = 100.0


class Vnish(SimMiner):
    """An Antminer with VNish: presets, a stop that is not forgotten by itself, tokens that a reboot forgets."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self.mac = "02:AC:1E:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))
        self.serial = f"VNSTHRHB{identity.randrange(10**9):09d}"
        self.asks_for_restart = False
        """Whether a saved preset waits for a restart of mining instead of beginning one."""
        self._token_seed = identity
        self._tokens: set[str] = set()
        self._preset = str(round(model.watts))
        self._saved_w: float | None = None
        self.limit_w = model.watts

    def listeners(self) -> tuple[Listener, ...]:
        """RPC and web."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)), Listener(self.web_port, partial(HttpProtocol, self)))

    def truth(self) -> dict[str, Any]:
        """Physics and the preset that it keeps."""
        return {**super().truth(), "preset": self._preset}

    def forget_sessions(self) -> None:
        """A reboot forgets the tokens."""
        self._tokens.clear()

    def set_fault(self, fault: str, now: float) -> None:
        """Begin or end a fault; with another password the tokens go."""
        super().set_fault(fault, now)
        if self.fault is Fault.WRONG_PASSWORD:
            self._tokens.clear()

    # Web

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """Answer one request of the web interface."""
        command = request.target.removeprefix(API)
        if self.fault is Fault.HANG:
            if request.method == "POST" and command != "unlock":
                self.log_request("unreadable", "none")
            return None
        if request.target == "/":
            return HttpReply(200, PAGE, "text/html")
        if not request.target.startswith(API):
            return HttpReply(404, b"<html>404 Not Found</html>", "text/html")
        if request.method == "POST":
            return self._post(command, request)
        pages: dict[str, Callable[[], Any]] = {
            "info": self._info,
            "status": lambda: {**self._status(), "find_miner": False, "unlocked": self._admits(request, command)},
            "summary": self._web_summary,
            "perf-summary": lambda: {"current_preset": self._current(), "preset_switcher": {"enabled": False}},
            "settings": self._settings,
            "autotune/presets": self._presets,
        }
        if command not in pages:
            return _json({"err": "not found"}, 404)
        if command in ("settings", "autotune/presets") and not self._admits(request, command):
            return _json({"err": "Unauthorized"}, 401)
        return _json(pages[command]())

    def _post(self, command: str, request: HttpRequest) -> HttpReply:
        if command == "unlock":
            return self._unlock(request)
        actions: dict[str, Callable[[HttpRequest], HttpReply]] = {
            "mining/stop": self._stop,
            "mining/start": self._start,
            "mining/resume": self._start,
            "mining/restart": self._restart,
            "settings": self._save,
        }
        if command not in actions:
            return _json({"err": "not found"}, 404)
        if not self._admits(request, command):
            return _json({"err": "Unauthorized"}, 401)
        return actions[command](request)

    def _unlock(self, request: HttpRequest) -> HttpReply:
        password = self._password + ("-changed" if self.fault is Fault.WRONG_PASSWORD else "")
        body = _parsed(request.body)
        if body is None or body.get("pw") != password:
            return _json({"unlock_timeout": 0}, 403)
        token = f"{self._token_seed.getrandbits(128):032x}"
        self._tokens.add(token)
        return _json({"token": token})

    def _admits(self, request: HttpRequest, command: str) -> bool:
        """The token alone is expected, after "Bearer" for what concerns the system."""
        given = request.headers.get("authorization", "")
        if command.startswith("system/"):
            return given.startswith("Bearer ") and given.removeprefix("Bearer ") in self._tokens
        return given in self._tokens

    def _stop(self, request: HttpRequest) -> HttpReply:
        if self.fault is Fault.REFUSE or not self.readings().mining:
            self.log_request("sleep", "refused")
            return _json({"err": CANNOT_PAUSE}, 500)
        self.log_request("sleep", "ok")
        self.command_stop()
        return _json({})

    def _start(self, request: HttpRequest) -> HttpReply:
        if self.fault is Fault.REFUSE or self.readings().mining:
            self.log_request("wake", "refused")
            return _json({"err": CANNOT_RESUME}, 500)
        self.log_request("wake", "ok")
        self.command_wake()
        return _json({})

    def _restart(self, request: HttpRequest) -> HttpReply:
        self.log_request("restart", "refused" if self.fault is Fault.REFUSE else "ok")
        if self.fault is Fault.REFUSE:
            return _json({"err": CANNOT_RESUME}, 500)
        if self._saved_w is not None:
            self.command_limit(self._saved_w)
            self._saved_w = None
        else:
            self.command_restart()
        return _json({})

    def _save(self, request: HttpRequest) -> HttpReply:
        """Keep what it knows of what was posted; it says the same whether it kept anything or not."""
        posted = _parsed(request.body)
        if posted is None or self.fault is Fault.REFUSE:
            self.log_request("power", "refused")
            return _json({"err": "invalid config"}, 500)
        self.log_request("power", "ok")
        restart = False
        miner = posted.get("miner")
        if isinstance(miner, dict) and self.fault is not Fault.IGNORE:
            if isinstance(miner.get("pools"), list):
                self.pools = miner["pools"]
            overclock = miner.get("overclock")
            name = overclock.get("preset") if isinstance(overclock, dict) else None
            draws_w = next((watts for watts, _, _ in PRESETS if str(watts) == name), None)
            if draws_w is not None and isinstance(name, str):
                self._preset = name
                restart = self.asks_for_restart and self.readings().mining
                if restart:
                    self._saved_w = float(draws_w)
                else:
                    self.command_limit(float(draws_w))
        return _json({"restart_required": restart, "reboot_required": False})

    def _info(self) -> dict[str, Any]:
        return {
            "miner": self.model.wire_name,
            "model": self.model.wire_name.removeprefix("Antminer ").lower(),
            "fw_name": "Vnish",
            "fw_version": VERSION,
            "platform": "xil",
            "install_type": "nand",
            "build_time": "2025-05-29 19:22:26+00:00",
            "algorithm": "sha256d",
            "hr_measure": "GH/s",
            "system": {
                "os": "GNU/Linux",
                "miner_name": self.id,
                "file_system_version": "",
                "network_status": {"mac": self.mac, "dhcp": True, "ip": "", "hostname": self.id, "dns": []},
                "uptime": "0:06",
            },
            "serial": self.serial,
        }

    def _status(self) -> dict[str, Any]:
        said = self.readings()
        if said.mining:
            state = "mining" if said.th_per_s_5s > 0.1 else "starting"
        else:
            state = "shutting-down" if said.watts > STILL_DRAWS_W else "stopped"
        return {"miner_state": state, "miner_state_time": said.elapsed_s}

    def _web_summary(self) -> dict[str, Any]:
        said = self.readings()
        board_c = round(said.board_c) if said.mining else 0
        chip_c = board_c + 12 if said.mining else 0
        pools = [
            {"id": n, "url": pool.get("url", ""), "pool_type": "UserPool", "user": pool.get("user", "")}
            for n, pool in enumerate(self.pools)
        ]
        miner = {
            "miner_status": self._status(),
            "miner_type": self._type(),
            "hr_stock": self.model.th_per_s * 1000,
            "hr_realtime": round(said.th_per_s_5s * 1000, 2),
            "hr_average": round(said.th_per_s_1m * 1000, 2),
            "hr_nominal": self.model.th_per_s * 1000,
            "pcb_temp": {"min": board_c, "max": board_c},
            "chip_temp": {"min": chip_c, "max": chip_c},
            "power_consumption": round(said.watts),
            "power_usage": round(said.watts),
            "pools": pools,
            "cooling": {"fan_num": 4, "fans": self._fans(), "fan_duty": 60 if said.mining else 0},
            "chains": self._chains(board_c, chip_c),
        }
        return {"miner": miner}

    def _fans(self) -> list[dict[str, Any]]:
        rpm = fan_rpm(self.readings())
        return [{"id": place, "rpm": rpm, "status": "ok", "max_rpm": 6150} for place in range(4)]

    def _chains(self, board_c: int, chip_c: int) -> list[dict[str, Any]]:
        said, boards = self.readings(), self.model.boards
        return [
            {
                "id": number,
                "frequency": 675.0 if said.mining else 0.0,
                "hashrate_ideal": self.model.th_per_s / boards * 1000,
                "hashrate_rt": round(said.th_per_s_5s / boards * 1000, 2),
                "pcb_temp": {"min": board_c, "max": board_c},
                "chip_temp": {"min": chip_c, "max": chip_c},
                "status": {"state": "mining" if said.mining else "stopped"},
            }
            for number in range(1, boards + 1)
        ]

    def _preset_of(self, watts: int, th_per_s: int, tuned: bool) -> dict[str, Any]:
        return {
            "name": str(watts),
            "pretty": f"{watts} watt ~ {th_per_s} TH",
            "status": "tuned" if tuned else "untuned",
            "modded_psu_required": watts >= NEEDS_MODDED_PSU,
        }

    def _presets(self) -> list[dict[str, Any]]:
        manual = {"name": "disabled", "pretty": "Disabled", "status": "untuned", "modded_psu_required": False}
        return [manual, *(self._preset_of(*preset) for preset in PRESETS)]

    def _current(self) -> dict[str, Any] | None:
        return next((preset for preset in self._presets() if preset["name"] == self._preset), None)

    def _settings(self) -> dict[str, Any]:
        overclock = {
            "preset": self._preset,
            "modded_psu": False,
            "globals": {"freq": 675, "volt": 1380},
            "chains": [{"freq": 0, "disabled": False} for _ in range(self.model.boards)],
            "preset_switcher": {"enabled": False, "top_preset": None, "min_preset": None},
        }
        miner = {"cooling": {"mode": {"name": "auto"}}, "misc": {}, "overclock": overclock, "pools": self.pools}
        return {"miner": miner, "network": {"dhcp": True, "hostname": self.id}, "regional": {}, "ui": {}}

    def _type(self) -> str:
        return f"{self.model.wire_name} (Vnish {VERSION})"

    # RPC

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request of the cgminer RPC, or several joined by "+"."""
        if self.fault is Fault.HANG:
            return None
        readers = {
            "version": self._version,
            "summary": self._rpc_summary,
            "stats": self._stats,
            "pools": self._pool_list,
        }
        names = str(request.get("command", "")).split("+")
        if not all(name in readers for name in names):
            status = {"STATUS": "E", "When": int(self.now()), "Code": 14, "Msg": "Invalid command"}
            return Reply(encode_rpc({"STATUS": [{**status, "Description": "cgminer 4.12.1"}], "id": 1}))
        if len(names) == 1:
            return Reply(encode_rpc(readers[names[0]]()))
        return Reply(encode_rpc({**{name: [readers[name]()] for name in names}, "id": 1}))

    def _listed(self, code: int, message: str) -> dict[str, Any]:
        status = {"STATUS": "S", "When": int(self.now()), "Code": code, "Msg": message}
        return {"STATUS": [{**status, "Description": "cgminer 4.12.1"}], "id": 1}

    def _version(self) -> dict[str, Any]:
        # It does not say here what it is: a stock miner would answer likewise.
        body = {"BMMiner": "4.12.1", "API": "3.1", "Miner": "1.0.1.3", "Type": self.model.wire_name}
        return {**self._listed(22, "BMMiner versions"), "VERSION": [body]}

    def _rpc_summary(self) -> dict[str, Any]:
        said = self.readings()
        rates = {"GHS 5s": round(said.th_per_s_5s * 1000, 2), "GHS av": round(said.th_per_s_1m * 1000, 2)}
        return {**self._listed(11, "Summary"), "SUMMARY": [{"Elapsed": said.elapsed_s, **rates}]}

    def _stats(self) -> dict[str, Any]:
        said = self.readings()
        kind = {"BMMiner": "4.12.1", "Miner": "1.0.1.3", "CompileTime": "", "Type": self._type()}
        body = {
            "STATS": 0,
            "ID": "BC50",
            "Elapsed": said.elapsed_s,
            "GHS 5s": round(said.th_per_s_5s * 1000, 2),
            "GHS av": round(said.th_per_s_1m * 1000, 2),
            "miner_count": self.model.boards,
            "total_rateideal": self.model.th_per_s * 1000,
        }
        return {**self._listed(70, "BMMiner stats"), "STATS": [kind, body]}

    def _pool_list(self) -> dict[str, Any]:
        pools = [
            {"POOL": n, "URL": pool.get("url", ""), "Status": "Alive" if pool.get("url") else "Dead", "Priority": n}
            for n, pool in enumerate(self.pools)
        ]
        return {**self._listed(7, f"{len(pools)} Pool(s)"), "POOLS": pools}


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _json(value: Any, status: int = 200) -> HttpReply:
    return HttpReply(status, json.dumps(value).encode())
