"""Whatsminer API V3 on port 4433: framed JSON, open reads, writes signed with salt and time.

Shapes after MicroBT's API document 3.0 (apidoc.whatsminer.com) and what pyasic 0.79 reads; no capture of a device.
How old a signature may be and in which words it is refused are not documented.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from mullet_simulators.faults import Fault
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.framed import FramedProtocol
from mullet_simulators.miners.md5crypt import ALPHABET
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import Listener, SimMiner
from mullet_simulators.plant import Plant

PORT = 4433
SIGNATURE_LIFE_S = 60.0
ACCOUNT = "super"
FIRMWARE = "20250214.16.Rel"
API_VERSION = "3.0.1"
OK, FAIL, INVALID_COMMAND, INVALID_JSON, DENIED = 0, -1, -2, -3, -4
VERBS = {
    "set.miner.power_limit": "power",
    "set.miner.power_percent": "power",
    "set.miner.power": "power",
    "set.miner.power_mode": "power",
    "set.miner.pools": "pools",
    "set.system.reboot": "reboot",
    "set.system.led": "led",
}
SERVICES = {"stop": "sleep", "start": "wake", "restart": "restart"}


class WhatsminerV3(SimMiner):
    """A Whatsminer with V3 firmware."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        self._identity = plant.random(f"{load_id}/identity")
        self.mac = "C4:08:29:" + ":".join(f"{self._identity.randrange(256):02X}" for _ in range(3))
        self.serial = f"HTM{self._identity.randrange(10**11):011d}"
        self._salt = self._new_salt()
        self._led = "auto"
        self.takes_orders = True
        """Whether WhatsMinerTool has switched write access on."""
        self.clock_ahead_s = 0.0

    def listeners(self) -> tuple[Listener, ...]:
        """The API."""
        return (Listener(PORT, partial(FramedProtocol, self)),)

    def forget_sessions(self) -> None:
        """A reboot makes a new salt, so that no signature from before holds."""
        self._salt = self._new_salt()

    def answer_framed(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Answer one request."""
        command = str(request.get("cmd", ""))
        parameter = request.get("param")
        if command.startswith("set."):
            return self._answer_write(command, parameter, request)
        if self.fault is Fault.HANG:
            return None
        readers: dict[str, Callable[[Any], dict[str, Any] | None]] = {
            "get.device.info": self._device_info,
            "get.miner.status": self._miner_status,
            "get.miner.setting": lambda _: {"power-mode": "normal", "upfreq-speed": 0, "fast-boot": "disable"},
        }
        if command not in readers:
            return self._says(command, INVALID_COMMAND, "invalid command")
        found = readers[command](parameter)
        return self._says(command, FAIL, "fail") if found is None else self._says(command, OK, found)

    # Writes

    def _answer_write(self, command: str, parameter: Any, request: dict[str, Any]) -> dict[str, Any] | None:
        if command == "set.miner.service":
            verb = SERVICES.get(str(parameter), "service")
        else:
            verb = VERBS.get(command, command)
        if self.fault is Fault.HANG:
            self.log_request(verb, "none")
            return None
        if not self.takes_orders:
            self.log_request(verb, "refused")
            return self._says(command, DENIED, "no permission")
        if not self._is_signed(command, request):
            self.log_request(verb, "refused")
            return self._says(command, DENIED, "permission denied")
        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return self._says(command, FAIL, "fail")
        code, text = self._obey(command, parameter)
        self.log_request(verb, "ok" if code == OK else "refused")
        return self._says(command, code, text)

    def _obey(self, command: str, parameter: Any) -> tuple[int, str]:
        if command == "set.miner.service":
            orders = {"stop": self.command_stop, "start": self.command_wake, "restart": self.command_restart}
            if parameter not in orders:
                return FAIL, "invalid param"
            orders[parameter]()
        elif command == "set.miner.power_percent":
            return self._set_percent(parameter)
        elif command == "set.miner.power_limit":
            if not isinstance(parameter, int) or not self.model.min_limit_w <= parameter <= self.model.watts:
                return FAIL, "invalid param"
            self.command_limit(float(parameter))
        elif command == "set.miner.pools":
            # Its argument is encrypted on a real one; whoever gets as far as here has spoilt the pools already.
            self.lose_pools()
        elif command == "set.system.reboot":
            self.command_reboot()
        elif command == "set.system.led":
            self._led = "auto" if parameter == "auto" else "manual"
        else:
            return INVALID_COMMAND, "invalid command"
        return OK, "ok"

    def _set_percent(self, parameter: Any) -> tuple[int, str]:
        given = parameter if isinstance(parameter, dict) else {}
        told = given.get("percent")
        if given.get("mode") not in ("fast", "normal") or not isinstance(told, str) or not told.isdigit():
            return INVALID_JSON, "invalid json item"
        if int(told) > 100:
            return FAIL, "invalid param"
        # It says yes while it tunes, too, and forgets it.
        if self.state == "hashing" and self.fault is not Fault.IGNORE:
            self.percent = int(told)
            self.command_share(int(told) / 100.0)
        return OK, "ok"

    def _boot(self) -> None:
        """A boot tunes anew, without a percentage."""
        self.share, self.percent = 1.0, 100
        super()._boot()

    def _is_signed(self, command: str, request: dict[str, Any]) -> bool:
        at = request.get("ts")
        if request.get("account") != ACCOUNT or not isinstance(at, int):
            return False
        if abs(self._clock() - at) > SIGNATURE_LIFE_S:
            return False
        password = self._password + ("-changed" if self.fault is Fault.WRONG_PASSWORD else "")
        digest = hashlib.sha256(f"{command}{password}{self._salt}{at}".encode()).digest()
        return request.get("token") == base64.b64encode(digest).decode()[:8]

    def _clock(self) -> float:
        return self.now() + self.clock_ahead_s

    def _new_salt(self) -> str:
        return "".join(self._identity.choice(ALPHABET) for _ in range(8))

    # Reads

    def _says(self, command: str, code: int, message: Any) -> dict[str, Any]:
        return {"code": code, "when": int(self._clock()), "msg": message, "desc": command}

    def _device_info(self, section: Any) -> dict[str, Any] | None:
        said = self.readings()
        boards = range(self.model.boards)
        sections: dict[str, Any] = {
            "network": {
                "ip": "",
                "proto": "dhcp",
                "netmask": "255.255.0.0",
                "dns": "",
                "mac": self.mac,
                "gateway": "",
                "hostname": self.id,
            },
            "miner": {
                "working": "true" if said.mining else "false",
                "type": self.model.wire_name,
                "cointype": "BTC",
                "pool-strategy": "FAILOVER",
                "heatmode": "normal",
                "hash-percent": "",
                "fast-boot": "disable",
                "board-num": str(self.model.boards),
                "miner-sn": self.serial,
                **{f"pcbsn{slot}": f"{self.serial}{slot}" for slot in boards},
                "power-limit-set": str(round(said.limit_w)),
                "web-pool": 1,
            },
            "system": {
                "api": API_VERSION,
                "platform": "H616",
                "fwversion": FIRMWARE,
                "control-board-version": "CB6V10",
                "btrom": "1",
                "apiswitch": "1" if self.takes_orders else "0",
                "ledstatus": self._led,
            },
            "power": {
                "type": "P462A",
                "mode": "1",
                "model": "P46-12-3600",
                "iin": round(said.watts / 230.0, 2),
                "vin": 230.0,
                "vout": 1209 if said.mining else 0,
                "pin": round(said.watts),
                "fanspeed": 6112 if said.mining else 0,
                "temp0": 35.0,
                "sn": f"P{self.serial}",
            },
            "salt": self._salt,
            "error-code": [],
        }
        if section is None:
            return sections
        return {section: sections[section]} if section in sections else None

    def _miner_status(self, sections: Any) -> dict[str, Any] | None:
        readers: dict[str, Callable[[], Any]] = {
            "summary": self._summary,
            "pools": self._pool_list,
            "edevs": self._boards,
        }
        names = str(sections).split("+")
        if not all(name in readers for name in names):
            return None
        return {name: readers[name]() for name in names}

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        board_c, chip_c = round(said.board_c, 1), round(said.board_c + 20.0, 1)
        rate, mean = round(said.th_per_s_5s, 3), round(said.th_per_s_1m, 3)
        return {
            "elapsed": said.elapsed_s,
            "bootup-time": int(self.now() - self._started_at),
            "freq-avg": 788 if rate else 0,
            "target-freq": 788,
            "factory-hash": self.model.th_per_s,
            "hash-average": mean,
            "hash-1min": mean,
            "hash-15min": mean,
            "hash-realtime": rate,
            "power-rate": round(said.watts / rate, 3) if rate > 1.0 else 0.0,
            "power-5min": round(said.watts, 3),
            "power-realtime": round(said.watts, 1),
            "environment-temperature": 25.0,
            "board-temperature": [board_c] * self.model.boards,
            "chip-temp-min": chip_c - 5.0,
            "chip-temp-avg": chip_c,
            "chip-temp-max": chip_c + 5.0,
            "power-limit": round(said.limit_w),
            "up-freq-finish": 1 if self.state == "hashing" else 0,
            "fan-speed-in": fan_rpm(said),
            "fan-speed-out": fan_rpm(said),
        }

    def _pool_list(self) -> list[dict[str, Any]]:
        return [
            {
                "id": index + 1,
                "url": pool["url"],
                "status": "alive" if pool["url"] else "dead",
                "account": pool["user"],
                "stratum-active": index == 0 and bool(pool["url"]),
                "reject-rate": 0.0,
                "last-share-time": 0.0,
            }
            for index, pool in enumerate(self.pools)
        ]

    def _boards(self) -> list[dict[str, Any]]:
        said = self.readings()
        boards, chip_c = self.model.boards, round(said.board_c + 20.0, 1)
        return [
            {
                "id": slot,
                "slot": slot,
                "hash-average": round(said.th_per_s_1m / boards, 3),
                "factory-hash": round(self.model.th_per_s / boards, 3),
                "freq": 788 if said.th_per_s_5s else 0,
                "effective-chips": self.model.chips_per_board,
                "chip-temp-min": chip_c - 5.0,
                "chip-temp-avg": chip_c,
                "chip-temp-max": chip_c + 5.0,
            }
            for slot in range(boards)
        ]
