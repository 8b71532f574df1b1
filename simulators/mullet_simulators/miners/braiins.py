"""Braiins OS (BOSer): gRPC on port 50051 under a token, and the cgminer-like RPC on port 4028.

Methods, field numbers and enumerations after Braiins' public API definition (bos.v1), written down here by number; the
RPC's fields after what its public readers use. No capture of the gRPC wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from mullet_simulators.faults import NO_EFFECT, Fault
from mullet_simulators.miners.connections import Connections
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import Listener, SimMiner
from mullet_simulators.miners.protobuf import Value, bytes_in, decode, encode, number_in
from mullet_simulators.miners.rpc import RPC_PORT, Reply, RpcProtocol, encode_rpc
from mullet_simulators.plant import Plant

GRPC_PORT = 50051
TOKEN_LIFE_S = 3600
TOKENS_KEPT = 16
USERNAME = "root"
BOSER = "boser-buildroot 0.1.0-45f356ea"
BOS_VERSION = "2025-06-25-0-45f356ea-25.05.1-plus"
SERVICE = "/braiins.bos.v1."
LOGIN = f"{SERVICE}AuthenticationService/Login"
WRITES = {
    f"{SERVICE}ActionsService/PauseMining": "sleep",
    f"{SERVICE}ActionsService/ResumeMining": "wake",
    f"{SERVICE}ActionsService/Start": "start",
    f"{SERVICE}ActionsService/Stop": "stop",
    f"{SERVICE}ActionsService/Restart": "restart",
    f"{SERVICE}ActionsService/Reboot": "reboot",
    f"{SERVICE}ActionsService/SetLocateDeviceStatus": "led",
    f"{SERVICE}AuthenticationService/SetPassword": "password",
    f"{SERVICE}PerformanceService/SetPowerTarget": "power",
    f"{SERVICE}PoolService/SetPoolGroups": "pools",
    f"{SERVICE}NetworkService/SetNetworkConfiguration": "network",
}
NORMAL, PAUSED = 2, 3
APPLIED = (2, 3)
"""Save actions that act at once; 1 saves only, 0 is none."""


class Braiins(SimMiner):
    """An Antminer that runs Braiins OS."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        self._identity = plant.random(f"{load_id}/identity")
        self.mac = "02:EE:DA:" + ":".join(f"{self._identity.randrange(256):02X}" for _ in range(3))
        self.serial = f"BOS{self._identity.randrange(10**11):011d}"
        self._tokens: dict[str, float] = {}

    def listeners(self) -> tuple[Listener, ...]:
        """The RPC and gRPC."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)), Listener(GRPC_PORT, self._grpc))

    def _grpc(self, connections: Connections, latency_s: float) -> asyncio.Protocol:
        from mullet_simulators.miners.grpc import GrpcProtocol

        return GrpcProtocol(self, connections, latency_s)

    def forget_sessions(self) -> None:
        """A reboot loses all tokens."""
        self._tokens.clear()

    # gRPC

    def answer_grpc(self, path: str, metadata: dict[str, str], message: bytes) -> Any:
        """Answer one call."""
        from mullet_simulators.miners import grpc

        verb = WRITES.get(path)
        if self.fault is Fault.HANG:
            if verb is not None:
                self.log_request(verb, "none")
            return None
        try:
            fields = decode(message)
            if path == LOGIN:
                return self._login(fields)
            if not self._admits(metadata.get("authorization", "")):
                if verb is not None:
                    self.log_request(verb, "refused")
                return grpc.GrpcReply(status=grpc.UNAUTHENTICATED, text="authorization token is missing or not valid")
            if verb is not None:
                return self._obey(path, verb, fields)
        except ValueError as error:
            return grpc.GrpcReply(status=grpc.INVALID_ARGUMENT, text=str(error))
        reader = self._readers().get(path.removeprefix(SERVICE))
        if reader is None:
            return grpc.GrpcReply(status=grpc.UNIMPLEMENTED, text="no such method")
        return grpc.GrpcReply(reader())

    def _login(self, fields: dict[int, list[int | bytes]]) -> Any:
        from mullet_simulators.miners import grpc

        given = (bytes_in(fields, 1).decode(), bytes_in(fields, 2).decode())
        if self.fault is Fault.WRONG_PASSWORD or given != (USERNAME, self._password):
            return grpc.GrpcReply(status=grpc.UNAUTHENTICATED, text="invalid username or password")
        token = f"{self._identity.getrandbits(128):032x}"
        self._tokens[token] = self.now() + TOKEN_LIFE_S
        while len(self._tokens) > TOKENS_KEPT:
            del self._tokens[next(iter(self._tokens))]
        return grpc.GrpcReply(encode([(1, token), (2, TOKEN_LIFE_S)]), metadata={"authorization": token})

    def _admits(self, token: str) -> bool:
        """Is the token in force? Each use prolongs it; another password ends them all."""
        if self.fault is Fault.WRONG_PASSWORD or self._tokens.get(token, 0.0) < self.now():
            return False
        self._tokens[token] = self.now() + TOKEN_LIFE_S
        return True

    def _obey(self, path: str, verb: str, fields: dict[int, list[int | bytes]]) -> Any:
        from mullet_simulators.miners import grpc

        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return grpc.GrpcReply(status=grpc.FAILED_PRECONDITION, text="the miner does not take this at present")
        said = self.readings()
        message = b""
        if verb == "sleep":
            self.command_stop()
            message = encode([(1, not said.mining)])
        elif verb == "wake":
            self.command_wake()
            message = encode([(1, said.mining)])
        elif verb == "power":
            watts = number_in(decode(bytes_in(fields, 2)), 1)
            if number_in(fields, 1) not in (1, *APPLIED) or not self.model.min_limit_w <= watts <= self.model.watts:
                self.log_request(verb, "refused")
                return grpc.GrpcReply(status=grpc.INVALID_ARGUMENT, text=f"power target {watts} W is out of range")
            if number_in(fields, 1) in APPLIED:
                self._aim_at(float(watts))
            message = encode([(1, _power(watts))])
        elif verb == "reboot":
            self.command_reboot()
        elif verb == "pools":
            # Its groups are not taken apart here; whoever gets as far as this has spoilt the pools already.
            self.lose_pools()
        elif verb == "restart":
            self.command_restart()
            message = encode([(1, said.mining)])
        elif verb != "led":
            self.log_request(verb, "refused")
            return grpc.GrpcReply(status=grpc.UNIMPLEMENTED, text=f"{path} is not simulated")
        self.log_request(verb, "ok")
        return grpc.GrpcReply(message)

    def _aim_at(self, watts: float) -> None:
        """Set the tuner's power target: a running miner follows it without a boot."""
        if self.fault not in NO_EFFECT:
            self.limit_w = watts
            self.command_share(self.share)

    def _readers(self) -> dict[str, Callable[[], bytes]]:
        return {
            "MinerService/GetMinerDetails": self._details,
            "MinerService/GetMinerStats": self._stats,
            "MinerService/GetHashboards": self._hashboards,
            "PerformanceService/GetTunerState": self._tuner_state,
            "PerformanceService/GetActivePerformanceMode": self._performance_mode,
            "CoolingService/GetCoolingState": self._cooling,
            "PoolService/GetPoolGroups": self._pool_groups,
            "ActionsService/GetLocateDeviceStatus": lambda: b"",
            "ConfigurationService/GetMinerConfiguration": self._configuration,
        }

    def _details(self) -> bytes:
        said = self.readings()
        uptime_s = int(self.now() - self._started_at)
        identity = encode([(1, 1), (3, self.model.wire_name), (4, self.model.wire_name)])
        version = encode([(1, BOS_VERSION), (2, BOS_VERSION), (3, True)])
        fields: list[tuple[int, Value]] = [
            (1, self.serial[::-1]),
            (2, identity),
            (3, 4),
            (4, 4),
            (5, version),
            (6, self.id),
            (7, self.mac.lower()),
            (9, encode([(1, self.model.th_per_s * 1e3)])),
            (10, said.elapsed_s),
            (11, uptime_s),
            (12, NORMAL if said.mining else PAUSED),
            (13, "4.9.113"),
            (15, 3),
            (16, self.serial),
        ]
        return encode(fields)

    def _stats(self) -> bytes:
        said = self.readings()
        per_joule = said.watts / said.th_per_s_5s if said.th_per_s_5s > 1.0 else 0.0
        power = encode([(1, _power(round(said.watts))), (2, encode([(1, per_joule)]))])
        return encode([(1, b""), (2, self._solver(1)), (3, power)])

    def _solver(self, boards: int) -> bytes:
        said = self.readings()
        last_5s = encode([(1, said.th_per_s_5s * 1e3 / boards)])
        last_1m = encode([(1, said.th_per_s_1m * 1e3 / boards)])
        rates = encode([(1, last_5s), (2, last_5s), (3, last_5s), *((number, last_1m) for number in range(4, 11))])
        return encode([(1, rates), (2, encode([(1, self.model.th_per_s * 1e3 / boards)]))])

    def _hashboards(self) -> bytes:
        said = self.readings()
        boards = []
        for slot in range(1, self.model.boards + 1):
            chip = encode([(2, 1), (3, encode([(1, said.board_c + 8.0)]))])
            board: list[tuple[int, Value]] = [
                (1, str(slot)),
                (2, said.mining),
                (3, encode([(1, self.model.chips_per_board)])),
                (6, chip),
                (7, encode([(1, said.board_c)])),
                (8, self._solver(self.model.boards)),
                (12, f"{self.serial}{slot}"),
            ]
            boards.append((1, encode(board)))
        return encode(boards)

    def _tuner_state(self) -> bytes:
        said = self.readings()
        target = encode([(2, _power(round(said.limit_w)))])
        return encode([(1, 2 if self.state == "hashing" else 3), (2, target)])

    def _performance_mode(self) -> bytes:
        target = encode([(1, _power(round(self.readings().limit_w)))])
        return encode([(2, encode([(1, target)]))])

    def _cooling(self) -> bytes:
        rpm = fan_rpm(self.readings())
        return encode([(1, encode([(1, position), (2, rpm)])) for position in range(4)])

    def _pool_groups(self) -> bytes:
        stats = encode([(1, self.readings().elapsed_s // 5)])
        group: list[tuple[int, Value]] = [(1, "default"), (2, encode([(1, 1)]))]
        for n, pool in enumerate(self.pools):
            alive = bool(pool["url"])
            told: list[tuple[int, Value]] = [(1, f"p{n}"), (2, pool["url"]), (3, pool["user"]), (4, True), (5, alive)]
            group.append((4, encode([*told, (6, alive and n == 0), (7, stats)])))
        return encode([(1, encode(group))])

    def _configuration(self) -> bytes:
        tuner = encode([(1, True), (2, 1), (3, _power(round(self.readings().limit_w)))])
        return encode([(3, tuner)])

    # The RPC, which only reads

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request, of several commands where they are joined."""
        name = str(request.get("command", ""))
        if self.fault is Fault.HANG:
            return None
        if "+" in name:
            return Reply(encode_rpc({**{part: [self._read(part)] for part in name.split("+")}, "id": 1}))
        return Reply(encode_rpc(self._read(name)))

    def _read(self, name: str) -> dict[str, Any]:
        readers: dict[str, Callable[[], dict[str, Any]]] = {
            "version": self._version,
            "summary": self._summary,
            "devs": self._devs,
            "devdetails": self._devdetails,
            "temps": self._temps,
            "fans": self._fans,
            "tunerstatus": self._tunerstatus,
            "pools": self._pool_list,
        }
        reader = readers.get(name)
        if reader is None:
            return {"STATUS": [self._status("E", 14, "Invalid command")], "id": 1}
        return reader()

    def _status(self, status: str, code: int, message: str) -> dict[str, Any]:
        said = {"STATUS": status, "When": int(self.now()), "Code": code, "Msg": message}
        return {**said, "Description": f"BOSer {BOSER}"}

    def _listed(self, code: int, message: str, section: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return {"STATUS": [self._status("S", code, message)], section: entries, "id": 1}

    def _version(self) -> dict[str, Any]:
        return self._listed(22, "BOSer versions", "VERSION", [{"API": "3.7", "BOSer": BOSER}])

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        body = {
            "Elapsed": said.elapsed_s,
            "MHS 5s": round(said.th_per_s_5s * 1e6, 2),
            "MHS 1m": round(said.th_per_s_1m * 1e6, 2),
            "MHS 5m": round(said.th_per_s_1m * 1e6, 2),
            "MHS 15m": round(said.th_per_s_1m * 1e6, 2),
            "MHS av": round(said.th_per_s_1m * 1e6, 2),
            "Accepted": said.elapsed_s // 5,
            "Rejected": 0,
        }
        return self._listed(11, "Summary", "SUMMARY", [body])

    def _devs(self) -> dict[str, Any]:
        said = self.readings()
        boards = self.model.boards
        devices = [
            {
                "ASC": slot,
                "Name": "",
                "ID": slot + 1,
                "Enabled": "Y",
                "Status": "Alive",
                "Temperature": round(said.board_c, 1),
                "MHS 5s": round(said.th_per_s_5s / boards * 1e6, 2),
                "MHS 1m": round(said.th_per_s_1m / boards * 1e6, 2),
                "Nominal MHS": round(self.model.th_per_s / boards * 1e6, 2),
            }
            for slot in range(boards)
        ]
        return self._listed(9, f"{boards} ASC(s)", "DEVS", devices)

    def _devdetails(self) -> dict[str, Any]:
        details = [
            {
                "DEVDETAILS": slot,
                "Name": "",
                "ID": slot + 1,
                "Driver": "",
                "Model": self.model.wire_name,
                "Chips": self.model.chips_per_board,
            }
            for slot in range(self.model.boards)
        ]
        return self._listed(69, "Device Details", "DEVDETAILS", details)

    def _temps(self) -> dict[str, Any]:
        said = self.readings()
        temps = [
            {"TEMP": slot, "ID": slot + 1, "Board": round(said.board_c, 1), "Chip": round(said.board_c + 8.0, 1)}
            for slot in range(self.model.boards)
        ]
        return self._listed(201, f"{len(temps)} Temp(s)", "TEMPS", temps)

    def _fans(self) -> dict[str, Any]:
        rpm = fan_rpm(self.readings())
        fans = [{"FAN": place, "ID": place, "RPM": rpm, "Speed": 60 if rpm else 0} for place in range(4)]
        return self._listed(202, f"{len(fans)} Fan(s)", "FANS", fans)

    def _tunerstatus(self) -> dict[str, Any]:
        said = self.readings()
        chains = [
            {"HashchainIndex": slot + 1, "Status": "Stable", "ApproximatePowerConsumptionWatt": 0}
            for slot in range(self.model.boards)
        ]
        body = {
            "ApproximateChainPowerConsumption": round(said.watts * 0.97),
            "ApproximateMinerPowerConsumption": round(said.watts),
            "PowerLimit": round(said.limit_w),
            "TunerMode": "PowerTarget",
            "TunerRunning": self.state == "hashing",
            "TunerChainStatus": chains,
        }
        return self._listed(203, "Tuner Status", "TUNERSTATUS", [body])

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
        return self._listed(7, f"{len(pools)} Pool(s)", "POOLS", pools)


def _power(watts: int) -> bytes:
    return encode([(1, watts)])
