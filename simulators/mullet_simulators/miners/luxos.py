"""LuxOS: cgminer's RPC with joined reads, one session at a time for orders, profiles, and a thermal management.

Shapes and the profile curve after captured answers of one S19k Pro (LuxOS 2025.4.8, asic-rs); sessions and orders after
Luxor's documentation (docs.luxor.tech), luxos-tooling and pyasic 0.79. Code and words for a lost session are not
documented. A reboot ends the sleep, as in releases of old; newer ones sleep on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mullet_simulators.faults import Fault
from mullet_simulators.miners.cooling import fan_rpm
from mullet_simulators.miners.luxos_profiles import CURVE, DEFAULT, NOMINAL, PROFILES, Profile
from mullet_simulators.miners.models import MinerModel
from mullet_simulators.miners.physics import POWER_CHANGE_S, Listener, SimMiner
from mullet_simulators.miners.rpc import RPC_PORT, Reply, RpcProtocol, encode_rpc
from mullet_simulators.plant import Plant

SESSION_LIFE_S = 60.0
ATM_AFTER_S = 3.0
"""Thermal management moves this long after it was switched on; minutes on a device."""
RELEASE = "2025.4.8.220305"
VERSION = f"{RELEASE}-57b389c7"
TEMPCTRL = {"Mode": "Automatic", "Target": 55.0, "Hot": 70.0, "Dangerous": 80.0}
REST_RPM = 1500
INVALID, LOST_SESSION, TAKEN, BAD_ARGUMENT = 14, 401, 402, 400


class LuxOs(SimMiner):
    """An Antminer with LuxOS."""

    def __init__(
        self, plant: Plant, model: MinerModel, load_id: str, bank: str, circuit: str, password: str, web_port: int = 0
    ) -> None:
        super().__init__(plant, model, load_id, bank, circuit, password, web_port)
        self._identity = plant.random(f"{load_id}/identity")
        self.mac = "02:1C:0F:" + ":".join(f"{self._identity.randrange(256):02X}" for _ in range(3))
        self.serial = f"JYZZ{self._identity.randrange(10**11):011d}"
        self.profile = NOMINAL
        self.atm_enabled = True
        self.atm_highest = DEFAULT
        self.psu_measures = True
        """Whether its power supply tells watts; the firmware estimates them otherwise."""
        self._atm_at = 0.0
        self._session = ""
        self._session_used_at = 0.0

    def listeners(self) -> tuple[Listener, ...]:
        """The RPC."""
        return (Listener(RPC_PORT, partial(RpcProtocol, self)),)

    @property
    def target_w(self) -> float:
        """What its profile draws: more than the nameplate above the default one."""
        return self.model.watts * self.profile.watts / NOMINAL.watts

    def forget_sessions(self) -> None:
        """A reboot ends the session."""
        self._session = ""

    def truth(self) -> dict[str, Any]:
        """Physics, profile and thermal management."""
        return {**super().truth(), "profile": self.profile.name, "atm": self.atm_enabled, "atm_max": self.atm_highest}

    def step(self, dt: float, now: float) -> None:
        """Advance; a cool board lets the thermal management go to its highest profile."""
        super().step(dt, now)
        if self._atm_at and now >= self._atm_at and self.state == "hashing":
            self._atm_at = 0.0
            highest = PROFILES[self.atm_highest]
            if self.atm_enabled and highest.watts > self.profile.watts:
                self._change_to(highest)

    def answer_rpc(self, request: dict[str, Any]) -> Reply | None:
        """Answer one request, or several reads joined."""
        name, parameter = str(request.get("command", "")), request.get("parameter")
        given = str(parameter).split(",") if parameter not in (None, "") else []
        if self.fault is Fault.HANG:
            if verb := self._verb(name, given[1:]):
                self.log_request(verb, "none")
            return None
        if "+" in name:
            if given:
                return Reply(encode_rpc(self._refused(BAD_ARGUMENT, "Joined commands take no parameter")))
            return Reply(encode_rpc({**{part: [self._read(part)] for part in name.split("+")}, "id": 1}))
        if self._verb(name, given[1:]):
            return Reply(encode_rpc(self._ordered(name, given)))
        sessions: dict[str, Callable[[list[str]], dict[str, Any]]] = {"logon": self._logon, "logoff": self._logoff}
        return Reply(encode_rpc(sessions[name](given) if name in sessions else self._read(name)))

    # Sessions

    def open_session(self) -> str:
        """Begin a session, as whoever works with its web page does."""
        self._session = "".join(self._identity.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(8))
        self._session_used_at = self.now()
        return self._session

    def _holds(self, session: str) -> bool:
        if not self._session or self.now() - self._session_used_at > SESSION_LIFE_S:
            self._session = ""
        if session == self._session and session:
            self._session_used_at = self.now()
            return True
        return False

    def _logon(self, given: list[str]) -> dict[str, Any]:
        self._holds("")
        if self._session:
            return self._refused(TAKEN, "Another session is active")
        return self._listed("SESSION", [{"SessionID": self.open_session()}], 316, "Session created")

    def _logoff(self, given: list[str]) -> dict[str, Any]:
        if not given or not self._holds(given[0]):
            return self._refused(LOST_SESSION, "Invalid session id")
        self._session = ""
        return self._said("S", 317, "Session dropped")

    # Orders

    @staticmethod
    def _verb(name: str, given: list[str]) -> str:
        """What a request asks for in the truth log's words, "" for one that asks for no change."""
        if name == "curtail":
            return {"sleep": "sleep", "wakeup": "wake"}.get(given[0] if given else "", "unknown")
        verbs = {"profileset": "power", "atmset": "thermal", "rebootdevice": "reboot", "removepool": "pools"}
        return verbs.get(name, "")

    def _ordered(self, name: str, given: list[str]) -> dict[str, Any]:
        verb = self._verb(name, given[1:])
        # The pools are cgminer's own commands, which ask for no session.
        if name != "removepool" and not (given and self._holds(given[0])):
            self.log_request(verb, "refused")
            return self._refused(LOST_SESSION, "Invalid session id")
        if self.fault is Fault.REFUSE:
            self.log_request(verb, "refused")
            return self._refused(BAD_ARGUMENT, "Not permitted")
        orders = {"curtail": self._curtail, "profileset": self._set_profile, "atmset": self._set_atm}
        if name in orders:
            answer = orders[name](given[1:])
        elif name == "rebootdevice":
            self.command_reboot()
            answer = self._said("S", 328, "Rebooting device")
        else:
            self.lose_pools()
            answer = self._said("S", 68, "Removed pool")
        self.log_request(verb, "ok" if answer["STATUS"][0]["STATUS"] == "S" else "refused")
        return answer

    def _curtail(self, given: list[str]) -> dict[str, Any]:
        if given == ["sleep"]:
            self.command_stop()
        elif given == ["wakeup"]:
            self.command_wake()
        else:
            return self._refused(BAD_ARGUMENT, "Invalid curtail action")
        action = "sleep mode" if given == ["sleep"] else "wake up"
        return self._listed("CURTAIL", [{"Action": action}], 335, "Curtailment command sent")

    def _set_profile(self, given: list[str]) -> dict[str, Any]:
        if self.atm_enabled:
            return self._refused(BAD_ARGUMENT, "Profile cannot be changed while ATM is enabled")
        if len(given) != 1 or given[0] not in PROFILES:
            return self._refused(BAD_ARGUMENT, "Unknown profile")
        if self.fault is not Fault.IGNORE and self.fault is not Fault.MISREPORT:
            self._change_to(PROFILES[given[0]])
        return self._listed("PROFILE", [{"Board": 0, "Profile": given[0]}], 321, "Profile set")

    def _set_atm(self, given: list[str]) -> dict[str, Any]:
        fields = dict(argument.partition("=")[::2] for argument in given)
        if not fields or set(fields) - {"enabled", "max_profile"}:
            return self._refused(BAD_ARGUMENT, "Invalid ATM setting")
        if fields.get("max_profile", DEFAULT) not in PROFILES or fields.get("enabled", "true") not in ("true", "false"):
            return self._refused(BAD_ARGUMENT, "Invalid ATM setting")
        if self.fault is not Fault.IGNORE:
            self.atm_highest = fields.get("max_profile", self.atm_highest)
            self.atm_enabled = fields.get("enabled", str(self.atm_enabled)).lower() == "true"
            self._atm_at = self.now() + ATM_AFTER_S if self.atm_enabled else 0.0
        return self._said("S", 340, "Advanced Thermal Management configuration updated")

    def _change_to(self, profile: Profile) -> None:
        """Change over live."""
        self.profile = profile
        self.share = profile.watts / NOMINAL.watts
        if self.state == "hashing":
            self._ramp_to(self.target_w, POWER_CHANGE_S)
        elif self.state == "starting":
            self._to_w = self.target_w

    # Answers

    def _said(self, status: str, code: int, message: str) -> dict[str, Any]:
        told = {"Code": code, "Description": f"LUXminer {VERSION}", "Msg": message, "STATUS": status}
        return {"STATUS": [{**told, "When": int(self.now())}], "id": 1}

    def _refused(self, code: int, message: str) -> dict[str, Any]:
        return self._said("E", code, message)

    def _listed(self, section: str, entries: list[dict[str, Any]], code: int, message: str) -> dict[str, Any]:
        return {section: entries, **self._said("S", code, message)}

    def _read(self, name: str) -> dict[str, Any]:
        readers: dict[str, Callable[[], dict[str, Any]]] = {
            "version": self._version,
            "summary": self._summary,
            "power": self._power,
            "config": self._config,
            "profiles": self._profile_list,
            "atm": self._atm,
            "temps": self._temps,
            "pools": self._pool_list,
            "session": self._session_info,
            "devdetails": self._devdetails,
            "stats": self._stats,
            "fans": self._fans,
            "devs": self._devs,
            "events": lambda: self._listed("EVENTS", [], 357, "Miner Events"),
            "tempctrl": lambda: self._listed("TEMPCTRL", [dict(TEMPCTRL)], 200, "Temperature control"),
            "groups": lambda: self._listed("GROUPS", [{"GROUP": 0, "Name": "default", "Quota": 1}], 79, "1 Group(s)"),
        }
        return readers[name]() if name in readers else self._refused(INVALID, f"Invalid command '{name}'")

    def _session_info(self) -> dict[str, Any]:
        self._holds("")
        return self._listed("SESSION", [{"SessionID": self._session}], 319, "Session information")

    def _version(self) -> dict[str, Any]:
        body = {"API": "3.7", "CompileTime": "Tue Apr  8 22:05:35 UTC 2025", "LUXminer": VERSION, "Miner": RELEASE}
        return self._listed("VERSION", [{**body, "Type": self.model.wire_name}], 22, "LUXminer versions")

    def _summary(self) -> dict[str, Any]:
        said = self.readings()
        now_ghs, mean_ghs = round(said.th_per_s_5s * 1000, 2), round(said.th_per_s_1m * 1000, 2)
        body = {
            "Accepted": said.elapsed_s // 5,
            "Device Hardware%": 0.0,
            "Elapsed": said.elapsed_s,
            "Found Blocks": 0,
            **{f"GHS {span}": mean_ghs for span in ("1m", "5m", "15m", "30m", "24h", "av")},
            "GHS 5s": now_ghs,
            "Hardware Errors": 0,
            "Rejected": 0,
            "Stale": 0,
            "Total MH": mean_ghs * 1000 * said.elapsed_s,
        }
        return self._listed("SUMMARY", [body], 11, "Summary")

    def _power(self) -> dict[str, Any]:
        watts = round(self.readings().watts)
        return self._listed("POWER", [{"PSU": self.psu_measures, "Watts": watts}], 311, "Power usage")

    def _config(self) -> dict[str, Any]:
        said = self.readings()
        body = {
            "ASC Count": self.model.boards,
            "ControlBoardType": "cvitek",
            "Cooling": "Air",
            "CurtailMode": "None" if said.mining else "Sleep",
            "DHCP": True,
            "GreenLed": "auto",
            "Hostname": self.id,
            "IPAddr": "",
            "IsAtmEnabled": self.atm_enabled,
            "IsPowerSupplyOn": said.mining,
            "IsTuning": False,
            "MACAddr": self.mac.lower(),
            "Model": self.model.wire_name,
            "NameplateTHS": self.model.th_per_s,
            "OS": "LuxOS",
            "Pool Count": len(self.pools),
            "Profile": self.profile.name,
            "ProfileStep": str(self.profile.step),
            "RedLed": "auto",
            "SerialNumber": self.serial,
            "Strategy": "Failover",
            "SystemStatus": "Normal",
        }
        return self._listed("CONFIG", [body], 33, "LUXminer config")

    def _profile_list(self) -> dict[str, Any]:
        watts, th_per_s = self.model.watts / NOMINAL.watts, self.model.th_per_s / NOMINAL.th_per_s
        entries = [
            {
                "CanRestore": True,
                "Frequency": profile.mhz,
                "HasOverrides": False,
                "Hashrate": round(profile.th_per_s * th_per_s, 1),
                "IsDynamic": True,
                "IsTuned": False,
                "Profile Name": profile.name,
                "Step": str(profile.step),
                "Voltage": profile.volts,
                "Watts": round(profile.watts * watts),
            }
            for profile in CURVE
        ]
        return self._listed("PROFILES", entries, 323, "List profiles")

    def _atm(self) -> dict[str, Any]:
        body = {"Enabled": self.atm_enabled, "MaxProfile": self.atm_highest, "MinProfile": ""}
        minutes = {"PostRampMinutes": 15, "StartupMinutes": 15, "TempWindow": 5.0}
        return self._listed("ATM", [{**body, **minutes}], 339, "ATM configuration values")

    def _temps(self) -> dict[str, Any]:
        hot_c = round(self.readings().board_c, 1)
        corners = {"TopLeft": hot_c, "TopRight": hot_c - 13.0, "BottomLeft": hot_c, "BottomRight": hot_c - 13.0}
        boards = [{"ID": slot, "TEMP": slot, **corners} for slot in range(self.model.boards)]
        return self._listed("TEMPS", boards, 201, f"{len(boards)} Temp(s)")

    def _devdetails(self) -> dict[str, Any]:
        kind = {"Driver": "LUXminer", "Kernel": "", "Model": self.model.wire_name, "Device Path": ""}
        boards = [{"DEVDETAILS": slot, "ID": slot, "Name": "", **kind} for slot in range(self.model.boards)]
        return self._listed("DEVDETAILS", boards, 69, "Device Details")

    def _devs(self) -> dict[str, Any]:
        said, boards = self.readings(), self.model.boards
        entries = [
            {
                "ASC": slot,
                "ID": slot,
                "Enabled": "Y",
                "Status": "Alive",
                "Temperature": round(said.board_c, 1),
                "MHS 5s": said.th_per_s_5s / boards * 1e6,
                "MHS av": said.th_per_s_1m / boards * 1e6,
                "Nominal MHS": self.model.th_per_s / boards * 1e6,
                "Profile": self.profile.name,
                "SerialNumber": f"{self.serial}{slot}",
            }
            for slot in range(boards)
        ]
        return self._listed("DEVS", entries, 9, f"{boards} ASC(s)")

    def _fans(self) -> dict[str, Any]:
        rpm = fan_rpm(self.readings(), REST_RPM)
        return self._listed("FANS", [{"FAN": f"FAN{n}", "ID": n, "RPM": rpm, "Speed": 65} for n in range(4)], 202, "")

    def _stats(self) -> dict[str, Any]:
        said = self.readings()
        ghs, hot_c = round(said.th_per_s_5s * 1000, 2), round(said.board_c)
        boards = range(1, self.model.boards + 1)
        temps = f"{hot_c}-{hot_c - 13}-{hot_c - 13}-{hot_c}"
        body = {
            "STATS": 0,
            "ID": "BTM_SOC0",
            "Elapsed": said.elapsed_s,
            "GHS 5s": ghs,
            **{f"chain_acn{slot}": self.model.chips_per_board for slot in boards},
            **{f"chain_rate{slot}": f"{ghs / self.model.boards:.2f}" for slot in boards},
            **{f"temp_{part}{slot}": temps for slot in boards for part in ("chip", "pcb", "pic")},
            "frequency": self.profile.mhz if ghs else 0,
            "miner_count": self.model.boards,
            "rate_unit": "GH",
            "total_rateideal": round(self.model.th_per_s * 1000, 1),
        }
        kind = {"Miner": RELEASE, "Type": self.model.wire_name}
        return self._listed("STATS", [kind, body], 70, "LUXminer stats")

    def _pool_list(self) -> dict[str, Any]:
        pools = [
            {
                "POOL": index,
                "GROUP": 0,
                "URL": pool["url"],
                "Status": "Alive" if pool["url"] else "Dead",
                "Priority": index,
                "User": pool["user"],
                "Accepted": 0,
                "Rejected": 0,
                "Get Failures": 0,
                "Remote Failures": 0,
                "Stratum Active": index == 0 and bool(pool["url"]),
            }
            for index, pool in enumerate(self.pools)
        ]
        return self._listed("POOLS", pools, 7, f"{len(pools)} Pool(s)")
