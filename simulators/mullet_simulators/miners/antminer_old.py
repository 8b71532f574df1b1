"""Stock Antminer of old (S9, X17): the reading RPC on port 4028, and a few CGI pages behind digest authentication.

Nothing in this interface stops it. Shapes after pyasic 0.79 and published answers of such devices: rates come as
text, and between the two entries of `stats` the comma is missing. No capture of a device.
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
FIRMWARE = "Wed Dec 11 15:15:57 CST 2019"
BMMINER = "2.0.0"
FIRST_CHAIN = 6
"""Boards sit at the connectors from here on."""


class AntminerOld(SimMiner):
    """An S9 or X17 with its maker's firmware: no stop, no watt limit, no measured watts."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self.mac = "02:0A:5E:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))
        self._nonce_seed = f"{identity.getrandbits(64):016x}"
        self._guard = DigestGuard(REALM, USERNAME)

    def listeners(self) -> tuple[Listener, ...]:
        """RPC and web."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)), Listener(self.web_port, partial(HttpProtocol, self)))

    def forget_sessions(self) -> None:
        """A reboot forgets the nonces."""
        self._guard.forget()

    # Web

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """Answer one request of the web interface; what would change something is logged and refused."""
        if request.method != "GET":
            self.log_request("unknown", "none" if self.fault is Fault.HANG else "refused")
        if self.fault is Fault.HANG:
            return None
        password = self._password + ("-changed" if self.fault is Fault.WRONG_PASSWORD else "")
        if not self._guard.admits(request, password):
            return self._guard.challenge(self._nonce_seed)
        pages: dict[str, Callable[[], dict[str, Any]]] = {
            "/cgi-bin/get_system_info.cgi": self._system_info,
            "/cgi-bin/get_miner_conf.cgi": self._conf,
        }
        if request.method == "GET" and request.target in pages:
            return HttpReply(200, json.dumps(pages[request.target]()).encode())
        if request.method == "GET" and request.target == "/":
            return HttpReply(200, b"<html><head><title>Ant Miner</title></head></html>", "text/html")
        return HttpReply(404, b"<html>404 Not Found</html>", "text/html")

    def _system_info(self) -> dict[str, Any]:
        return {
            "minertype": self.model.wire_name,
            "nettype": "DHCP",
            "netdevice": "eth0",
            "macaddr": self.mac,
            "hostname": "antMiner",
            "ipaddress": "",
            "netmask": "255.255.0.0",
            "gateway": "",
            "dnsservers": "",
            "curtime": "",
            "uptime": str(int(self.now() - self._started_at)),
            "loadaverage": "0.45, 0.50, 0.48",
            "mem_total": "1018604",
            "mem_used": "85000",
            "mem_free": "933604",
            "mem_buffers": "0",
            "mem_cached": "0",
            "system_mode": "GNU/Linux",
            "ant_hwv": "26.0.1.3",
            "system_kernel_version": "Linux 3.14.0-xilinx",
            "system_filesystem_version": FIRMWARE,
            "bmminer_version": BMMINER,
        }

    def _conf(self) -> dict[str, Any]:
        return {
            "pools": self.pools,
            "api-listen": True,
            "api-network": True,
            "api-groups": "A:stats:pools:devs:summary:version",
            "api-allow": "A:0/0,W:*",
            "bitmain-fan-ctrl": False,
            "bitmain-fan-pwm": "100",
            "bitmain-use-vil": True,
            "bitmain-freq": "550",
            "bitmain-voltage": "0706",
        }

    # RPC

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request of the cgminer RPC; joined commands are unknown to this firmware."""
        if self.fault is Fault.HANG:
            return None
        name = str(request.get("command", ""))
        readers = {"version": self._version, "summary": self._summary, "pools": self._pool_list}
        if name == "stats":
            return Reply(encode_rpc(self._stats()).replace(b"}, {", b"}{"))
        if name not in readers:
            status = {"STATUS": "E", "When": int(self.now()), "Code": 14, "Msg": "Invalid command"}
            return Reply(encode_rpc({"STATUS": [{**status, "Description": f"bmminer {BMMINER}"}], "id": 1}))
        return Reply(encode_rpc(readers[name]()))

    def _listed(self, code: int, message: str) -> dict[str, Any]:
        status = {"STATUS": "S", "When": int(self.now()), "Code": code, "Msg": message}
        return {"STATUS": [{**status, "Description": f"bmminer {BMMINER}"}], "id": 1}

    def _version(self) -> dict[str, Any]:
        body = {
            "BMMiner": BMMINER,
            "API": "3.1",
            "Miner": "26.0.1.3",
            "CompileTime": FIRMWARE,
            "Type": self.model.wire_name,
        }
        return {**self._listed(22, "BMMiner versions"), "VERSION": [body]}

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        body = {
            "Elapsed": said.elapsed_s,
            "GHS 5s": f"{said.th_per_s_5s * 1000:.2f}",
            "GHS av": round(said.th_per_s_1m * 1000, 2),
            "Found Blocks": 0,
            "Accepted": said.elapsed_s // 5,
            "Rejected": 0,
            "Hardware Errors": 0,
        }
        return {**self._listed(11, "Summary"), "SUMMARY": [body]}

    def _stats(self) -> dict[str, Any]:
        said = self.readings()
        boards = self.model.boards
        body: dict[str, Any] = {
            "STATS": 0,
            "ID": "BC50",
            "Elapsed": said.elapsed_s,
            "GHS 5s": f"{said.th_per_s_5s * 1000:.2f}",
            "GHS av": round(said.th_per_s_1m * 1000, 2),
            "miner_count": boards,
            "frequency": "550",
            "fan_num": 2,
            **{f"fan{place}": fan_rpm(said) if place in (5, 6) else 0 for place in range(1, 9)},
            "temp_num": boards,
        }
        for chain in range(1, 17):
            there = FIRST_CHAIN <= chain < FIRST_CHAIN + boards
            body[f"temp{chain}"] = round(said.board_c) if there else 0
            body[f"temp2_{chain}"] = round(said.board_c + 15.0) if there else 0
            body[f"chain_acn{chain}"] = self.model.chips_per_board if there else 0
            body[f"chain_rate{chain}"] = f"{said.th_per_s_5s / boards * 1000:.2f}" if there else ""
        kind = {"BMMiner": BMMINER, "Miner": "26.0.1.3", "CompileTime": FIRMWARE, "Type": self.model.wire_name}
        return {**self._listed(70, "BMMiner stats"), "STATS": [kind, body]}

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
        return {**self._listed(7, f"{len(pools)} Pool(s)"), "POOLS": pools}
