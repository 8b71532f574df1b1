"""Auradine (FluxOS): web interface behind a token, and the reading RPC on port 4028.

Shapes after what pyasic 0.79 reads and sends; neither document nor capture of a device. How long a token lives and in
which words it is refused are not documented.
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

API_PORT = 8080
"""The maker's own, beyond the ports that need a privilege: never moved."""
USERNAME = "admin"
TOKEN_LIFE_S = 3600.0
TOKENS_KEPT = 8
FIRMWARE = "1.9.2"
OK, INVALID, BAD_TOKEN, BAD_ARGUMENT = 0, 14, 401, 400
SHARES = {"eco": 0.75, "normal": 0.9, "turbo": 1.0}
"""Power of its modes as a share of the nameplate, which is turbo's."""
MODE_FIELDS = frozenset({"command", "mode", "sleep", "tune", "power", "ths"})


class Auradine(SimMiner):
    """An Auradine miner."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        self._identity = plant.random(f"{load_id}/identity")
        self.mac = "02:AD:1E:" + ":".join(f"{self._identity.randrange(256):02x}" for _ in range(3))
        self.serial = f"AT{self._identity.randrange(10**10):010d}"
        self._tokens: dict[str, tuple[float, str]] = {}
        self._mode = "turbo"
        self._power_w: int | None = None

    def listeners(self) -> tuple[Listener, ...]:
        """RPC and web."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)), Listener(API_PORT, partial(HttpProtocol, self)))

    def forget_sessions(self) -> None:
        """A reboot loses all tokens."""
        self._tokens.clear()

    # Web

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """Answer one request of the web interface."""
        command = request.target.strip("/")
        if self.fault is Fault.HANG:
            if request.method == "POST" and command != "token":
                self.log_request("unreadable", "none")
            return None
        if request.method == "GET" and not command:
            return HttpReply(200, b"<html><head><title>Miner UI</title></head></html>", "text/html")
        posted = _object(request.body) if request.method == "POST" else {}
        if command == "token":
            return self._give_token(posted)
        if not self._knows(request.headers.get("token", "")):
            return self._refuse_token()
        pages: dict[str, Callable[[], dict[str, Any]]] = {
            "mode": self._mode_now,
            "psu": self._psu,
            "ipreport": self._report,
            "fan": self._fans,
            "led": lambda: self._listed("LED", [{"Code": 2, "LED1": 1, "LED2": 0, "Msg": ""}]),
            "pools": self._pool_list,
            "summary": self._summary,
        }
        if request.method == "GET" and command in pages:
            return _json(pages[command]())
        if request.method == "POST" and command in ("mode", "restart", "updatepools"):
            return _json(self._order(command, posted))
        return HttpReply(404, b"<html>404 Not Found</html>", "text/html")

    def _give_token(self, posted: dict[str, Any]) -> HttpReply:
        password = self._password_now()
        if posted.get("user") != USERNAME or posted.get("password") != password:
            return self._refuse_token()
        token = f"{self._identity.getrandbits(128):032x}"
        self._tokens[token] = (self.now(), password)
        if len(self._tokens) > TOKENS_KEPT:
            self._tokens.pop(next(iter(self._tokens)))
        return _json(self._listed("Token", [{"Name": USERNAME, "When": int(self.now()), "Token": token}]))

    def _refuse_token(self) -> HttpReply:
        return HttpReply(401, json.dumps(self._said("E", BAD_TOKEN, "Unauthorized: invalid token")).encode())

    def _knows(self, token: str) -> bool:
        """A token lives as long as the password that it was given for."""
        given_at, password = self._tokens.get(token, (0.0, None))
        return password == self._password_now() and self.now() - given_at < TOKEN_LIFE_S

    def _password_now(self) -> str:
        return self._password + ("-changed" if self.fault is Fault.WRONG_PASSWORD else "")

    # Orders

    def _order(self, command: str, posted: dict[str, Any]) -> dict[str, Any]:
        verb = _verb(command, posted)
        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return self._said("E", BAD_ARGUMENT, "Not possible now")
        if command == "restart":
            self.command_reboot()
            problem = ""
        elif command == "updatepools":
            self.lose_pools()
            problem = ""
        else:
            problem = self._set_mode(posted)
        self.log_request(verb, "refused" if problem else "ok")
        return self._said("E", BAD_ARGUMENT, problem) if problem else self._said("S", OK, f"{command} accepted")

    def _set_mode(self, posted: dict[str, Any]) -> str:
        """Carry out what was posted: what is wrong with it, if anything."""
        sleep, mode, power = posted.get("sleep"), posted.get("mode"), posted.get("power")
        if set(posted) - MODE_FIELDS or (sleep is None and mode is None):
            return "Invalid parameter"
        if mode == "custom":
            if posted.get("tune") != "power" or not isinstance(power, int):
                return "Invalid tune"
            if not self.model.min_limit_w <= power <= self.model.watts:
                return "Power out of range"
            self._draw(mode, power, power / self.model.watts)
        elif mode in SHARES:
            self._draw(mode, None, SHARES[mode])
        elif mode is not None:
            return "Invalid mode"
        if sleep == "on":
            self.command_stop()
        elif sleep == "off":
            self.command_wake()
        elif sleep is not None:
            return "Invalid sleep"
        return ""

    def _draw(self, mode: str, power_w: int | None, share: float) -> None:
        if self.fault is not Fault.IGNORE:
            self._mode, self._power_w = mode, power_w
        self.command_share(share)

    # Answers

    def _said(self, status: str, code: int, message: str) -> dict[str, Any]:
        told = {"STATUS": status, "When": int(self.now()), "Code": code, "Msg": message, "Description": "gcminer 1.0"}
        return {"STATUS": [told], "id": 1}

    def _listed(self, section: str, entries: list[dict[str, Any]], message: str = "") -> dict[str, Any]:
        return {**self._said("S", OK, message or section), section: entries}

    def _mode_now(self) -> dict[str, Any]:
        body: dict[str, Any] = {"Mode": self._mode, "Sleep": "off" if self.readings().mining else "on"}
        if self._power_w is not None:
            body |= {"Tune": "power", "Power": self._power_w}
        return self._listed("Mode", [body])

    def _psu(self) -> dict[str, Any]:
        said = self.readings()
        body = {
            "ID": "PSU",
            "Model": "AURA-4500",
            "PowerIn": f"{said.watts:.1f}W",
            "PowerOut": f"{0.95 * said.watts:.1f}W",
            "PoutMax": f"{self.model.watts:.0f}W",
            "Temperature": 40.0,
        }
        return self._listed("PSU", [body])

    def _report(self) -> dict[str, Any]:
        body = {
            "ip": "",
            "mac": self.mac,
            "model": self.model.wire_name,
            "version": FIRMWARE,
            "hostname": self.id,
            "SerialNo": self.serial,
            "CBSerialNo": f"C{self.serial}",
            "HBSerialNo": [f"H{self.serial}{slot}" for slot in range(self.model.boards)],
        }
        return self._listed("IPReport", [body])

    def _fans(self) -> dict[str, Any]:
        speed = fan_rpm(self.readings())
        return self._listed("Fan", [{"ID": fan, "Max": 7700, "Speed": speed} for fan in range(1, 5)])

    # RPC

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request of the RPC, which only reads, or several joined."""
        if self.fault is Fault.HANG:
            return None
        name = str(request.get("command", ""))
        if "+" in name:
            return Reply(encode_rpc({**{part: [self._read(part)] for part in name.split("+")}, "id": 1}))
        return Reply(encode_rpc(self._read(name)))

    def _read(self, name: str) -> dict[str, Any]:
        readers = {
            "version": lambda: self._listed(
                "VERSION", [{"GCMiner": "1.0", "API": "3.7", "Type": self.model.wire_name}]
            ),
            "devdetails": self._devdetails,
            "summary": self._summary,
            "devs": self._devs,
            "pools": self._pool_list,
        }
        return readers[name]() if name in readers else self._said("E", INVALID, "Invalid command")

    def _devdetails(self) -> dict[str, Any]:
        kind = {"Name": "AUR", "Driver": "gcminer", "Kernel": "", "Model": self.model.wire_name}
        return self._listed(
            "DEVDETAILS", [{"DEVDETAILS": slot, "ID": slot, **kind} for slot in range(self.model.boards)]
        )

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        mean = round(said.th_per_s_1m * 1e6, 2)
        body = {
            "Elapsed": said.elapsed_s,
            **{f"MHS {span}": mean for span in ("av", "1m", "5m", "15m", "24h")},
            "MHS 5s": round(said.th_per_s_5s * 1e6, 2),
            "Accepted": said.elapsed_s // 5,
            "Rejected": 0,
            "Hardware Errors": 0,
        }
        return self._listed("SUMMARY", [body], "Summary")

    def _devs(self) -> dict[str, Any]:
        said = self.readings()
        boards = self.model.boards
        entries = [
            {
                "ASC": slot,
                "ID": slot + 1,
                "Enabled": "Y",
                "Status": "Alive",
                "Temperature": round(said.board_c, 1),
                "MHS 5s": round(said.th_per_s_5s / boards * 1e6, 2),
                "MHS av": round(said.th_per_s_1m / boards * 1e6, 2),
            }
            for slot in range(boards)
        ]
        return self._listed("DEVS", entries, f"{boards} ASC(s)")

    def _pool_list(self) -> dict[str, Any]:
        pools = [
            {
                "POOL": index,
                "URL": pool["url"],
                "Status": "Alive" if pool["url"] else "Dead",
                "Priority": index,
                "User": pool["user"],
                "Stratum Active": index == 0 and bool(pool["url"]),
            }
            for index, pool in enumerate(self.pools)
        ]
        return self._listed("POOLS", pools, f"{len(pools)} Pool(s)")


def _verb(command: str, posted: dict[str, Any]) -> str:
    if command != "mode":
        return {"restart": "reboot", "updatepools": "pools"}[command]
    if "mode" in posted:
        return "power"
    return {"on": "sleep", "off": "wake"}.get(str(posted.get("sleep")), "unknown")


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(value: dict[str, Any]) -> HttpReply:
    return HttpReply(200, json.dumps(value).encode())
