"""Stock Antminer (X19, X21): CGI behind digest authentication, and the reading RPC on port 4028.

Shapes after Bitmain's firmware as pyasic 0.79 reads it; no capture of a device.
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
NORMAL, SLEEP, LOW = "0", "1", "3"
VERBS = {NORMAL: "wake", SLEEP: "sleep", LOW: "power"}
LOW_SHARE = 0.8
FIRMWARE = "Fri Nov 17 17:37:49 CST 2023"


class Antminer(SimMiner):
    """An Antminer with its maker's firmware: three modes, no watt limit, no measured watts."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self.mac = "02:AC:1D:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))
        self.serial = f"SMTTYRHB{identity.randrange(10**9):09d}"
        self._nonce_seed = f"{identity.getrandbits(64):016x}"
        self._guard = DigestGuard(REALM, USERNAME)
        self._blink = False
        self._address = ""
        self._conf: dict[str, Any] = {
            "api-listen": True,
            "api-network": True,
            "api-groups": "A:stats:pools:devs:summary:version",
            "api-allow": "A:0/0,W:*",
            "bitmain-fan-ctrl": False,
            "bitmain-fan-pwm": "100",
            "bitmain-use-vil": True,
            "bitmain-freq": "675",
            "bitmain-voltage": "1380",
            "bitmain-ccdelay": "1",
            "bitmain-pwth": "0",
            "bitmain-work-mode": NORMAL,
            "bitmain-freq-level": "100",
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
        if self._conf["bitmain-work-mode"] == SLEEP:
            self._conf["bitmain-work-mode"] = NORMAL

    # Web

    def answer_http(self, request: HttpRequest) -> HttpReply | None:
        """Answer one request of the web interface."""
        if self.fault is Fault.HANG:
            if request.target.endswith("/set_miner_conf.cgi"):
                self.log_request("unreadable", "none")
            return None
        password = self._password + ("-changed" if self.fault is Fault.WRONG_PASSWORD else "")
        if not self._guard.admits(request, password):
            return self._guard.challenge(self._nonce_seed)
        pages: dict[str, Callable[[], dict[str, Any]]] = {
            "/cgi-bin/get_system_info.cgi": self._system_info,
            "/cgi-bin/get_network_info.cgi": self._network_info,
            "/cgi-bin/get_miner_conf.cgi": self._reported_conf,
            "/cgi-bin/summary.cgi": self._web_summary,
            "/cgi-bin/stats.cgi": self._web_stats,
            "/cgi-bin/get_blink_status.cgi": lambda: {"blink": self._blink},
        }
        if request.target == "/cgi-bin/get_miner_conf.cgi" and self.fault is Fault.HTTP500_CONFIG:
            return HttpReply(500, b"<html>500 Internal Server Error</html>", "text/html")
        if request.target in pages:
            return _json(pages[request.target]())
        if request.target == "/cgi-bin/set_miner_conf.cgi":
            return self._set_conf(request)
        if request.target == "/cgi-bin/blink.cgi":
            return self._set_blink(request)
        if request.target == "/cgi-bin/reboot.cgi":
            self.log_request("reboot", "refused" if self.fault is Fault.REFUSE else "ok")
            if self.fault is not Fault.REFUSE:
                self.command_reboot()
            return _json({"stats": "success"})
        if request.target == "/":
            return HttpReply(200, b"<html><head><title>Antminer</title></head></html>", "text/html")
        return HttpReply(404, b"<html>404 Not Found</html>", "text/html")

    def _set_conf(self, request: HttpRequest) -> HttpReply:
        try:
            posted = json.loads(request.body)
        except ValueError:
            posted = None
        if not isinstance(posted, dict):
            self.log_request("unreadable", "refused")
            return _json({"stats": "error", "code": "M001", "msg": "Illegal request!"})
        mode = str(posted.get("miner-mode", self._conf["bitmain-work-mode"]))
        verb = VERBS.get(mode, "unknown")
        if self.fault is Fault.REFUSE or mode not in VERBS:
            self.log_request(verb, "refused")
            return _json({"stats": "error", "code": "M002", "msg": "Not permitted!"})
        self.log_request(verb, "ok")
        if self.fault is not Fault.IGNORE:
            self._store(posted, mode)
        return _json({"stats": "success", "code": "M000", "msg": "OK!"})

    def _store(self, posted: dict[str, Any], mode: str) -> None:
        """Keep exactly what was posted, empty pools included, as the device does."""
        was = self._conf
        self._conf = {**was, "bitmain-work-mode": mode}
        for key, value in posted.items():
            if key == "freq-level":
                self._conf["bitmain-freq-level"] = str(value)
            elif key == "bitmain-fan-pwn":  # the firmware's own spelling
                self._conf["bitmain-fan-pwm"] = str(value)
            elif key == "pools":
                self.pools = value
            elif key != "miner-mode":
                self._conf[key] = value
        if mode == SLEEP:
            self.command_stop()
            return
        self.share = LOW_SHARE if mode == LOW else 1.0
        if self.state in ("hashing", "starting") and (was["bitmain-work-mode"] != mode):
            self.command_restart()
        else:
            self.command_wake()

    def _set_blink(self, request: HttpRequest) -> HttpReply:
        self._blink = b'"true"' in request.body or b"true" in request.body
        return _json({"code": "B000" if self._blink else "B100"})

    def _work_mode(self) -> str:
        """A miner that says it does not mine says it sleeps."""
        stored = str(self._conf["bitmain-work-mode"])
        if not self.readings().mining:
            return SLEEP
        return NORMAL if stored == SLEEP else stored

    def _reported_conf(self) -> dict[str, Any]:
        return {"pools": self.pools, **self._conf, "bitmain-work-mode": self._work_mode()}

    def _system_info(self) -> dict[str, Any]:
        return {
            "minertype": self.model.wire_name,
            "nettype": "DHCP",
            "netdevice": "eth0",
            "macaddr": self.mac,
            "hostname": self.id,
            "ipaddress": self._address,
            "netmask": "255.255.0.0",
            "gateway": "",
            "dnsservers": "",
            "system_mode": "GNU/Linux",
            "system_kernel_version": "Linux 4.6.0-xilinx",
            "system_filesystem_version": FIRMWARE,
            "firmware_type": "Release",
            "serinum": self.serial,
        }

    def _network_info(self) -> dict[str, Any]:
        return {
            "nettype": "DHCP",
            "netdevice": "eth0",
            "macaddr": self.mac,
            "ipaddress": self._address,
            "netmask": "255.255.0.0",
            "conf_nettype": "DHCP",
            "conf_hostname": self.id,
            "conf_ipaddress": "",
            "conf_netmask": "",
            "conf_gateway": "",
            "conf_dnsservers": "",
        }

    def _info(self) -> dict[str, Any]:
        return {
            "miner_version": "uart_trans.1.3",
            "CompileTime": FIRMWARE,
            "type": self.model.wire_name,
        }

    def _web_summary(self) -> dict[str, Any]:
        said = self.readings()
        checks = [{"type": kind, "status": "s", "code": 0, "msg": ""} for kind in ("rate", "network", "fans")]
        body = {
            "elapsed": said.elapsed_s,
            "rate_5s": round(said.th_per_s_5s * 1000, 2),
            "rate_30m": round(said.th_per_s_1m * 1000, 2),
            "rate_avg": round(said.th_per_s_1m * 1000, 2),
            "rate_ideal": self.model.th_per_s * 1000,
            "rate_unit": "GH/s",
            "hw_all": 0,
            "bestshare": 1000000,
            "status": checks,
        }
        return {"STATUS": self._web_status("summary"), "INFO": self._info(), "SUMMARY": [body]}

    def _web_stats(self) -> dict[str, Any]:
        said = self.readings()
        boards = self.model.boards
        board_c, chip_c = round(said.board_c), round(said.board_c + 12.0)
        chains = [
            {
                "index": slot,
                "freq_avg": 675 if said.th_per_s_5s else 0,
                "rate_ideal": round(self.model.th_per_s / boards * 1000, 2),
                "rate_real": round(said.th_per_s_5s / boards * 1000, 2),
                "asic_num": self.model.chips_per_board,
                "temp_pic": [board_c] * 4,
                "temp_pcb": [board_c] * 4,
                "temp_chip": [chip_c] * 4,
                "hw": 0,
                "eeprom_loaded": True,
                "sn": f"{self.serial}{slot}",
                "hwp": 0.0,
            }
            for slot in range(boards)
        ]
        body = {
            "elapsed": said.elapsed_s,
            "rate_5s": round(said.th_per_s_5s * 1000, 2),
            "rate_30m": round(said.th_per_s_1m * 1000, 2),
            "rate_avg": round(said.th_per_s_1m * 1000, 2),
            "rate_ideal": self.model.th_per_s * 1000,
            "rate_unit": "GH/s",
            "chain_num": boards,
            "fan_num": 4,
            "fan": [fan_rpm(said)] * 4,
            "hwp_total": 0.0,
            "miner-mode": int(self._work_mode()),
            "freq-level": 100,
            "chain": chains,
        }
        return {"STATUS": self._web_status("stats"), "INFO": self._info(), "STATS": [body]}

    def _web_status(self, message: str) -> dict[str, Any]:
        return {"STATUS": "S", "when": int(self.now()), "Msg": message, "api_version": "1.0.0"}

    # RPC

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request of the cgminer RPC; joined commands are unknown to this firmware."""
        if self.fault is Fault.HANG:
            return None
        name = str(request.get("command", ""))
        readers = {
            "version": self._version,
            "summary": self._summary,
            "stats": self._stats,
            "pools": self._pool_list,
        }
        if name not in readers:
            status = {"STATUS": "E", "When": int(self.now()), "Code": 14, "Msg": "Invalid command"}
            return Reply(encode_rpc({"STATUS": [{**status, "Description": "cgminer 1.0.0"}], "id": 1}))
        return Reply(encode_rpc(readers[name]()))

    def _listed(self, code: int, message: str) -> dict[str, Any]:
        status = {"STATUS": "S", "When": int(self.now()), "Code": code, "Msg": message}
        return {"STATUS": [{**status, "Description": "cgminer 1.0.0"}], "id": 1}

    def _version(self) -> dict[str, Any]:
        body = {
            "BMMiner": "1.0.0",
            "API": "3.1",
            "Miner": "uart_trans.1.3",
            "CompileTime": FIRMWARE,
            "Type": self.model.wire_name,
        }
        return {**self._listed(22, "BMMiner versions"), "VERSION": [body]}

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        body = {
            "Elapsed": said.elapsed_s,
            "GHS 5s": round(said.th_per_s_5s * 1000, 2),
            "GHS av": round(said.th_per_s_1m * 1000, 2),
            "GHS 30m": round(said.th_per_s_1m * 1000, 2),
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
            "ID": "BTM_SOC0",
            "Elapsed": said.elapsed_s,
            "GHS 5s": round(said.th_per_s_5s * 1000, 2),
            "GHS av": round(said.th_per_s_1m * 1000, 2),
            "rate_30m": round(said.th_per_s_1m * 1000, 2),
            "Mode": int(self._work_mode()),
            "miner_count": boards,
            "frequency": 675,
            "fan_num": 4,
            "total_rateideal": self.model.th_per_s * 1000,
            "rate_unit": "GH",
        }
        for fan in range(1, 5):
            body[f"fan{fan}"] = fan_rpm(said)
        for slot in range(1, boards + 1):
            body[f"temp{slot}"] = round(said.board_c)
            body[f"temp2_{slot}"] = round(said.board_c + 12.0)
            body[f"chain_rate{slot}"] = f"{said.th_per_s_5s / boards * 1000:.2f}"
            body[f"chain_acn{slot}"] = self.model.chips_per_board
            body[f"chain_acs{slot}"] = " ooo"
            body[f"temp_chip{slot}"] = "-".join([str(round(said.board_c + 12.0))] * 4)
        kind = {"BMMiner": "1.0.0", "Miner": "uart_trans.1.3", "CompileTime": FIRMWARE}
        return {**self._listed(70, "BMMiner stats"), "STATS": [{**kind, "Type": self.model.wire_name}, body]}

    def _pool_list(self) -> dict[str, Any]:
        pools = [
            {
                "POOL": index,
                "URL": pool.get("url", ""),
                "Status": "Alive" if pool.get("url") else "Dead",
                "Priority": index,
                "User": pool.get("user", ""),
                "Accepted": 0,
                "Rejected": 0,
                "Get Failures": 0,
                "Remote Failures": 0,
                "Stratum Active": index == 0 and bool(pool.get("url")),
            }
            for index, pool in enumerate(self.pools)
        ]
        return {**self._listed(7, f"{len(pools)} Pool(s)"), "POOLS": pools}


def _json(value: dict[str, Any]) -> HttpReply:
    return HttpReply(200, json.dumps(value).encode())
