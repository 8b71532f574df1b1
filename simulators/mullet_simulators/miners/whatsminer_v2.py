"""Whatsminer API V2 on port 4028: plain reads, AES-encrypted writes under a token.

Shapes after MicroBT's public API document 2.0.5 and what pyasic 0.79 reads; no capture of a device.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from Crypto.Cipher import AES

from mullet_simulators.faults import Fault
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.md5crypt import ALPHABET, md5crypt
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import Listener, SimMiner
from mullet_simulators.miners.rpc import RPC_PORT, Reply, RpcProtocol, encode_rpc
from mullet_simulators.plant import Plant

TOKEN_LIFE_S = 1800.0
TOKENS_KEPT = 16
SALT = "BQ5hoXV9"
FIRMWARE = "20230216.01.REL"
API_VERSION = "2.0.5"
OK, COMMAND_ERROR, INVALID, BAD_JSON, DENIED, BAD_TOKEN, TOKEN_GIVEN = 131, 132, 14, 23, 45, 135, 134
VERBS = {
    "power_off": "sleep",
    "power_on": "wake",
    "adjust_power_limit": "power",
    "set_power_pct": "power",
    "set_power_pct_v2": "power",
    "set_low_power": "power",
    "set_normal_power": "power",
    "set_high_power": "power",
    "update_pools": "pools",
    "reboot": "reboot",
    "restart_btminer": "restart",
    "set_led": "led",
}
MODE_SHARES = {"set_low_power": 0.8, "set_normal_power": 1.0, "set_high_power": 1.0}
MODE_NAMES = {"set_low_power": "Low", "set_normal_power": "Normal", "set_high_power": "High"}


@dataclass(frozen=True, slots=True)
class Token:
    """A token as issued; its signature is computed when it is first used."""

    time: str
    newsalt: str
    issued_at: float


class Whatsminer(SimMiner):
    """A Whatsminer with V2 firmware."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self._identity = identity
        self.mac = "C4:08:28:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))
        self.serial = f"HTM{identity.randrange(10**11):011d}"
        self._tokens: list[Token] = []
        self._signatures: dict[Token, str] = {}
        self._power_mode = "Normal"
        self._mode_share = 1.0
        self._led = "auto"

    def listeners(self) -> tuple[Listener, ...]:
        """The RPC."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)),)

    def forget_sessions(self) -> None:
        """A reboot loses all tokens."""
        self._tokens.clear()
        self._signatures.clear()

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request, plain or encrypted."""
        if "enc" in request:
            return self._answer_encrypted(request)
        name = str(request.get("command", request.get("cmd", "")))
        if self.fault is Fault.HANG:
            return None
        if "+" in name:
            parts = {part: [self._read(part)] for part in name.split("+")}
            return Reply(encode_rpc({**parts, "id": 1}))
        if name in VERBS:
            self.log_request(VERBS[name], "refused")
            return Reply(encode_rpc(self._status("E", DENIED, "permission denied")))
        return Reply(encode_rpc(self._read(name)))

    # Writes

    def _answer_encrypted(self, request: dict[str, Any]) -> Reply | None:
        key = self._key()
        try:
            data = base64.b64decode(str(request.get("data", "")), validate=False)
            plain = AES.new(key, AES.MODE_ECB).decrypt(data).rstrip(b"\0")
            order = json.loads(plain)
        except (binascii.Error, ValueError):
            self.log_request("unreadable", "none" if self.fault is Fault.HANG else "refused")
            if self.fault is Fault.HANG:
                return None
            return Reply(encode_rpc(self._status("E", BAD_TOKEN, "check token error")))
        name = str(order.get("cmd", order.get("command", "")))
        verb = VERBS.get(name, name)
        if self.fault is Fault.HANG:
            self.log_request(verb, "none")
            return None
        if not self._knows(str(order.get("token", ""))):
            self.log_request(verb, "refused")
            return Reply(encode_rpc(self._status("E", BAD_TOKEN, "check token error")))
        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return self._sealed(key, self._status("E", DENIED, "can't access write cmd"))
        problem, after_s = self._obey(name, order)
        self.log_request(verb, "refused" if problem else "ok")
        if problem:
            return self._sealed(key, self._status("E", COMMAND_ERROR, problem))
        return self._sealed(key, self._status("S", OK, "API command OK"), after_s)

    def _obey(self, name: str, order: dict[str, Any]) -> tuple[str, float]:
        """Carry out a privileged command: what is wrong with it, if anything, and the seconds it takes."""
        if name == "power_off":
            was_on = self.state in ("hashing", "starting")
            self.command_stop()
            before = str(order.get("respbefore", "true")) == "true"
            return "", 0.0 if before or not was_on else self.model.stop_ramp_s
        if name == "power_on":
            self.command_wake()
        elif name == "adjust_power_limit":
            limit_w = _number(order.get("power_limit"))
            if limit_w is None or not self.model.min_limit_w <= limit_w <= self.model.watts:
                return "power_limit out of range", 0.0
            self.command_limit(limit_w)
        elif name in ("set_power_pct", "set_power_pct_v2"):
            percent = _number(order.get("percent"))
            if percent is None or not 0 <= percent <= 100:
                return "percent out of range", 0.0
            if self.state not in ("hashing", "starting"):
                return "miner is off", 0.0
            if self.fault not in (Fault.IGNORE,):
                self.percent = int(percent)
            self.command_share(self._mode_share * percent / 100.0)
        elif name in MODE_SHARES:
            if self.fault is not Fault.IGNORE:
                self._power_mode, self._mode_share = MODE_NAMES[name], MODE_SHARES[name]
                self.percent = 100
            self.command_share(self._mode_share)
            self.command_restart()
        elif name == "update_pools":
            if self.fault is not Fault.IGNORE:
                self.pools = [
                    {
                        "url": str(order.get(f"pool{n}") or ""),
                        "user": str(order.get(f"worker{n}") or ""),
                        "pass": str(order.get(f"passwd{n}") or ""),
                    }
                    for n in (1, 2, 3)
                ]
        elif name == "reboot":
            self.command_reboot()
        elif name == "restart_btminer":
            self.command_restart()
        elif name == "set_led":
            self._led = "auto" if order.get("param") == "auto" else "manual"
        else:
            return "invalid API command or data", 0.0
        return "", 0.0

    def _key_words(self) -> str:
        password = self._password
        if self.fault is Fault.WRONG_PASSWORD:
            password += "-changed"
        return md5crypt(password, SALT)

    def _key(self) -> bytes:
        return hashlib.sha256(self._key_words().encode()).digest()

    def _issue_token(self) -> dict[str, str]:
        identity = self._identity
        newsalt = "".join(identity.choice(ALPHABET) for _ in range(8))
        token = Token(f"{int(self.now()) % 10000:04d}", newsalt, self.now())
        self._tokens.append(token)
        if len(self._tokens) > TOKENS_KEPT:
            self._signatures.pop(self._tokens.pop(0), None)
        return {"time": token.time, "salt": SALT, "newsalt": newsalt}

    def _knows(self, signature: str) -> bool:
        now = self.now()
        self._tokens = [token for token in self._tokens if now - token.issued_at < TOKEN_LIFE_S]
        for token in reversed(self._tokens):
            if token not in self._signatures:
                self._signatures[token] = md5crypt(self._key_words() + token.time, token.newsalt)
            if self._signatures[token] == signature:
                return True
        return False

    def _sealed(self, key: bytes, answer: dict[str, Any], after_s: float = 0.0) -> Reply:
        text = json.dumps(answer).encode()
        padded = text + b"\0" * (-len(text) % 16)
        sealed = base64.b64encode(AES.new(key, AES.MODE_ECB).encrypt(padded)).decode()
        return Reply(encode_rpc({"enc": sealed}), after_s)

    # Reads

    def _status(self, status: str, code: int, message: Any) -> dict[str, Any]:
        return {
            "STATUS": status,
            "When": int(self.now()),
            "Code": code,
            "Msg": message,
            "Description": "whatsminer v1.1",
        }

    def _listed(self, code: int, message: str) -> dict[str, Any]:
        status = {"STATUS": "S", "When": int(self.now()), "Code": code, "Msg": message, "Description": ""}
        return {"STATUS": [status], "id": 1}

    def _read(self, name: str) -> dict[str, Any]:
        readers: dict[str, Callable[[], dict[str, Any]]] = {
            "summary": self._summary,
            "status": self._miner_status,
            "devs": self._devs,
            "edevs": self._devs,
            "pools": self._pool_list,
            "devdetails": self._devdetails,
            "get_token": lambda: self._status("S", TOKEN_GIVEN, self._issue_token()),
            "get_version": self._version,
            "get_psu": self._psu,
            "get_miner_info": self._info,
            "get_error_code": lambda: self._status("S", OK, {"error_code": []}),
        }
        reader = readers.get(name)
        return reader() if reader else self._status("E", INVALID, "invalid API command or data")

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        spinning = fan_rpm(said)
        body = {
            "Elapsed": said.elapsed_s,
            "MHS av": round(said.th_per_s_1m * 1e6, 2),
            "MHS 5s": round(said.th_per_s_5s * 1e6, 2),
            "MHS 1m": round(said.th_per_s_1m * 1e6, 2),
            "MHS 5m": round(said.th_per_s_1m * 1e6, 2),
            "MHS 15m": round(said.th_per_s_1m * 1e6, 2),
            "HS RT": round(said.th_per_s_5s * 1e6, 2),
            "Accepted": said.elapsed_s // 5,
            "Rejected": 0,
            "Total MH": round(said.th_per_s_1m * 1e6 * said.elapsed_s, 2),
            "Temperature": round(said.board_c, 1),
            "freq_avg": 620 if said.th_per_s_5s else 0,
            "Fan Speed In": spinning,
            "Fan Speed Out": spinning,
            "Power": round(said.watts),
            "Power Rate": round(said.watts / said.th_per_s_5s, 2) if said.th_per_s_5s > 1.0 else 0,
            "Power Limit": round(said.limit_w),
            "Power Mode": self._power_mode,
            "Power Fanspeed": 8000 if said.mining else 0,
            "Factory GHS": round(self.model.th_per_s * 1000),
            "Hash Stable": said.th_per_s_1m > 0.9 * said.th_per_s_5s > 0,
            "Upfreq Complete": 1 if self.state == "hashing" else 0,
            "Env Temp": 25.0,
            "Chip Temp Avg": round(said.board_c + 8.0, 1),
            "Error Code Count": 0,
            "Uptime": int(self.now() - self._started_at),
            "MAC": self.mac,
            "Firmware Version": f"'{FIRMWARE}'",
        }
        return {**self._listed(11, "Summary"), "SUMMARY": [body]}

    def _miner_status(self) -> dict[str, Any]:
        said = self.readings()
        message = {
            "mineroff": "false" if said.mining else "true",
            "mineroff_reason": "",
            "mineroff_time": "",
            "FirmwareVersion": FIRMWARE,
            "power_mode": self._power_mode,
            "power_limit_set": str(round(said.limit_w)),
            "hash_percent": f"{said.percent}%",
        }
        return self._status("S", OK, message)

    def _devs(self) -> dict[str, Any]:
        said = self.readings()
        boards = self.model.boards
        devices = [
            {
                "ASC": slot,
                "Slot": slot,
                "Enabled": "Y",
                "Status": "Alive",
                "Temperature": round(said.board_c, 1),
                "Chip Temp Avg": round(said.board_c + 8.0, 1),
                "Chip Temp Max": round(said.board_c + 15.0, 1),
                "Fan Speed In": fan_rpm(said),
                "Fan Speed Out": fan_rpm(said),
                "MHS 5s": round(said.th_per_s_5s / boards * 1e6, 2),
                "MHS 1m": round(said.th_per_s_1m / boards * 1e6, 2),
                "Effective Chips": self.model.chips_per_board,
                "PCB SN": f"{self.serial}{slot}",
                "Upfreq Complete": 1 if self.state == "hashing" else 0,
            }
            for slot in range(boards)
        ]
        return {**self._listed(9, f"{boards} ASC(s)"), "DEVS": devices}

    def _pool_list(self) -> dict[str, Any]:
        pools = [
            {
                "POOL": index + 1,
                "URL": pool["url"],
                "Status": "Alive" if pool["url"] else "Dead",
                "Priority": index,
                "User": pool["user"],
                "Accepted": 100 if index == 0 else 0,
                "Rejected": 0,
                "Get Failures": 0,
                "Remote Failures": 0,
                "Stratum Active": index == 0 and bool(pool["url"]),
            }
            for index, pool in enumerate(self.pools)
        ]
        return {**self._listed(7, f"{len(pools)} Pool(s)"), "POOLS": pools}

    def _devdetails(self) -> dict[str, Any]:
        details = [
            {"DEVDETAILS": slot, "Name": "SM", "ID": slot, "Driver": "bitmicro", "Model": self.model.wire_name}
            for slot in range(self.model.boards)
        ]
        return {**self._listed(69, "Device Details"), "DEVDETAILS": details}

    def _version(self) -> dict[str, Any]:
        message = {"rpc_ver": API_VERSION, "api_ver": f"whatsminer v{API_VERSION}", "fw_ver": FIRMWARE}
        return self._status("S", OK, {**message, "platform": "H6OS", "chip": "K1000010"})

    def _psu(self) -> dict[str, Any]:
        said = self.readings()
        message = {
            "name": "P221B",
            "hw_version": "V01",
            "model": "P221B",
            "iin": round(said.watts / 230.0 * 1000),
            "vin": 23000,
            "fan_speed": 8000 if said.mining else 0,
            "serial_no": f"P{self.serial}",
            "temp0": 35.0,
        }
        return self._status("S", OK, message)

    def _info(self) -> dict[str, Any]:
        message = {
            "hostname": self.id,
            "mac": self.mac,
            "minersn": self.serial,
            "powersn": f"P{self.serial}",
            "ledstat": self._led,
            "proto": "dhcp",
        }
        return self._status("S", OK, message)


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
