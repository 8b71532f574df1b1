"""Avalon Q: cgminer's RPC with the maker's `ascset` options; orders to stop and start come due by its own clock.

Fields after captured answers (an Avalon Q in standby) and what pyasic 0.79 reads. Nothing tells what a device does
with a time that is past: this one refuses it. Nor what it draws at its middle level: that is the data sheet's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mullet_simulators.faults import NO_EFFECT, Fault
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import AMBIENT_C, Listener, SimMiner
from mullet_simulators.miners.rpc import RPC_PORT, Reply, RpcProtocol, encode_rpc
from mullet_simulators.plant import Plant

FIRMWARE = "25052801_14a19a2"
LEVEL_SHARES = (800.0 / 1674.0, 1300.0 / 1674.0, 1.0)
"""What each work mode (eco, standard, super) draws of its nameplate."""
CLOCK_BEHIND_S = 3600.0
SOFT_OFF = 4
VERBS = {"softoff": "sleep", "softon": "wake", "workmode": "power", "worklevel": "power", "reboot": "reboot"}
OPTIONS = "help|workmode|worklevel|reboot|softon|softoff|frequency|loop|password|time|"


class Avalon(SimMiner):
    """An Avalon Q."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        identity = plant.random(f"{load_id}/identity")
        self.mac = "E0:E1:A9:" + ":".join(f"{identity.randrange(256):02X}" for _ in range(3))
        self.dna = f"0201{identity.getrandbits(48):012x}"
        self._levels_w = [round(share * model.watts) for share in LEVEL_SHARES]
        self._due: tuple[float, Callable[[], None]] | None = None
        self._times = {"softoff": 0, "softon": 0}

    def listeners(self) -> tuple[Listener, ...]:
        """The RPC."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)),)

    def forget_sessions(self) -> None:
        """A reboot loses what was to come."""
        self._due = None

    def step(self, dt: float, now: float) -> None:
        """Do what has come due, too."""
        if self._due is not None and self._clock() >= self._due[0]:
            order, self._due = self._due[1], None
            order()
        super().step(dt, now)

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request, of several commands where they are joined."""
        name, parameter = str(request.get("command", "")), str(request.get("parameter", ""))
        if name == "ascset":
            return self._set(parameter)
        if self.fault is Fault.HANG:
            return None
        if "+" in name:
            return Reply(encode_rpc({**{part: [self._read(part)] for part in name.split("+")}, "id": 1}))
        return Reply(encode_rpc(self._read(name)))

    # Writes

    def _set(self, parameter: str) -> Reply | None:
        device, _, rest = parameter.partition(",")
        option, _, value = rest.partition(",")
        if device != "0" or option not in OPTIONS.split("|"):
            return Reply(encode_rpc(self._status("E", 120, f"ASC 0 set failed: Unknown option: {option}")))
        verb = VERBS.get(option, option)
        if self.fault is Fault.HANG:
            self.log_request(verb, "none")
            return None
        if option == "help":
            return Reply(encode_rpc(self._status("I", 118, f"ASC 0 set info: {OPTIONS}")))
        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return Reply(encode_rpc(self._status("E", 45, "Access denied to 'ascset' command")))
        if option in self._times:
            said = self._schedule(option, value)
        elif option in ("workmode", "worklevel"):
            said = self._level(value)
        elif option == "reboot":
            self.command_reboot()
            said = self._status("S", 119, "ASC 0 set OK")
        else:
            said = self._status("E", 120, f"ASC 0 set failed: {option} is not simulated")
        self.log_request(verb, "refused" if said["STATUS"][0]["STATUS"] == "E" else "ok")
        return Reply(encode_rpc(said))

    def _schedule(self, option: str, value: str) -> dict[str, Any]:
        flag, _, at = value.partition(":")
        if flag != "1" or not at.isdigit() or int(at) <= self._clock():
            return self._status("E", 120, f"ASC 0 set failed: {option} parameter invalid")
        self._times[option] = int(at)
        self._due = (float(at), self.command_stop if option == "softoff" else self.command_wake)
        return self._status("I", 118, f"ASC 0 set info: success {option}:{at}")

    def _level(self, value: str) -> dict[str, Any]:
        verb, _, level = value.partition(",")
        if verb != "set" or level not in ("0", "1", "2"):
            return self._status("E", 120, "ASC 0 set failed: parameter invalid")
        if self.fault not in NO_EFFECT:
            self.limit_w = self._levels_w[int(level)]
            self.command_share(self.share)
        return self._status("S", 119, "ASC 0 set OK")

    # Reads

    def _clock(self) -> float:
        """Unix seconds as the device believes them."""
        return self.now() - (CLOCK_BEHIND_S if self.fault is Fault.CLOCK_WRONG else 0.0)

    def _status(self, status: str, code: int, message: str) -> dict[str, Any]:
        said = {"STATUS": status, "When": int(self._clock()), "Code": code, "Msg": message}
        return {"STATUS": [{**said, "Description": "cgminer 4.11.1"}], "id": 1}

    def _read(self, name: str) -> dict[str, Any]:
        readers: dict[str, Callable[[], dict[str, Any]]] = {
            "version": self._version,
            "summary": self._summary,
            "devs": self._devs,
            "devdetails": self._devdetails,
            "litestats": self._stats,
            "estats": self._stats,
            "stats": self._stats,
            "pools": self._pool_list,
        }
        reader = readers.get(name)
        return reader() if reader else self._status("E", 14, "Invalid command")

    def _version(self) -> dict[str, Any]:
        body = {
            "CGMiner": "4.11.1",
            "API": "3.7",
            "PROD": self.model.wire_name,
            "MODEL": self.model.wire_name.removeprefix("Avalon "),
            "HWTYPE": "Q_MM1v1_X1",
            "SWTYPE": "MM319",
            "LVERSION": FIRMWARE,
            "BVERSION": FIRMWARE,
            "CGVERSION": FIRMWARE,
            "DNA": self.dna,
            "MAC": self.mac,
        }
        return {**self._status("S", 22, "CGMiner versions"), "VERSION": [body]}

    def _rates(self) -> dict[str, float]:
        said = self.readings()
        now, mean = round(said.th_per_s_5s * 1e6, 2), round(said.th_per_s_1m * 1e6, 2)
        return {"MHS av": mean, "MHS 5s": now, "MHS 1m": mean, "MHS 5m": mean, "MHS 15m": mean}

    def _summary(self) -> dict[str, Any]:
        body = {"Elapsed": self.readings().elapsed_s, **self._rates(), "Accepted": 890, "Rejected": 2}
        return {**self._status("S", 11, "Summary"), "SUMMARY": [body]}

    def _devs(self) -> dict[str, Any]:
        body = {"ASC": 0, "Name": "AVALON", "ID": 0, "Enabled": "Y", "Status": "Alive", **self._rates()}
        return {**self._status("S", 9, "1 ASC(s)"), "DEVS": [body]}

    def _devdetails(self) -> dict[str, Any]:
        body = {"DEVDETAILS": 0, "Name": "AVALON", "ID": 0, "Driver": "avalon", "Kernel": "", "Model": ""}
        return {**self._status("S", 69, "Device Details"), "DEVDETAILS": [body]}

    def _stats(self) -> dict[str, Any]:
        body = {
            "STATS": 0,
            "ID": "AVALON0",
            "Elapsed": self.readings().elapsed_s,
            "MM ID0:Summary": self._summary_text(),
        }
        return {**self._status("S", 70, "CGMiner stats"), "STATS": [body]}

    def _summary_text(self) -> str:
        said = self.readings()
        on = said.mining
        level = min(range(3), key=lambda number: abs(self._levels_w[number] - said.limit_w))
        out_w = round(said.watts * 0.957) if on else 0
        gh = {"now": said.th_per_s_5s * 1e3, "mean": said.th_per_s_1m * 1e3}
        fan = fan_rpm(said)
        fields = {
            "Ver": f"Q-{FIRMWARE}",
            "DNA": self.dna,
            "STATE": 1 if on else 2,
            "SYSTEMSTATU": f"Work: In {'Work' if on else 'Idle'}, Hash Board: 1",
            "Elapsed": said.elapsed_s,
            "DH": "2.449%",
            "ITemp": round(AMBIENT_C),
            "HBITemp": round(said.board_c),
            "HBOTemp": round(said.board_c) + 2,
            "TMax": round(said.board_c) + 8 if on else 0,
            "TAvg": round(said.board_c) + 3 if on else 0,
            **{f"Fan{number}": fan for number in range(1, 5)},
            "FanErr": 0,
            "SoftOffTime": self._times["softoff"],
            "SoftOnTime": self._times["softon"],
            "PS": f"0 1221 {2421 if on else 4} {round(out_w / 24.21)} {out_w} 2422 {round(said.watts)}",
            "GHSspd": f"{gh['now']:.2f}",
            "GHSmm": f"{self.model.th_per_s * 1e3:.2f}",
            "GHSavg": f"{gh['mean']:.2f}",
            "MGHS": f"{gh['mean']:.2f}",
            "SoftOFF": 0 if on else SOFT_OFF,
            "ECHU": 0,
            "ECMM": 0,
            "WORKMODE": level,
            "WORKLEVEL": 0,
            "MPO": (800, 1250, 1600)[level],
        }
        return "'STATS':{" + " ".join(f"{name}[{value}]" for name, value in fields.items()) + "}"

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
        return {**self._status("S", 7, f"{len(pools)} Pool(s)"), "POOLS": pools}
