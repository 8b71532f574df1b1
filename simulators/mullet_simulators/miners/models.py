"""Miner models that can be simulated: nameplate figures from the makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class MinerModel:
    """Nameplate and timing of one model; ramps are typical values, spread per unit by a seed."""

    name: str
    protocol: str
    wire_name: str
    pyasic_key: str
    pyasic_class: str
    watts: float
    th_per_s: float
    boards: int
    chips_per_board: int
    standby_w: float
    stop_ramp_s: float
    boot_s: float
    wake_ramp_s: float
    password: str
    min_limit_w: float

    def scaled(self, ramp_scale: float) -> MinerModel:
        """The same model with all its ramps and boots so many times as long."""
        return replace(
            self,
            stop_ramp_s=self.stop_ramp_s * ramp_scale,
            boot_s=self.boot_s * ramp_scale,
            wake_ramp_s=self.wake_ramp_s * ramp_scale,
        )


def _whatsminer(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    return MinerModel(
        name=name,
        protocol="whatsminer_v2",
        wire_name=wire,
        pyasic_key=wire.replace("_", ""),
        pyasic_class=f"BTMiner{wire.replace('_', '')}",
        watts=watts,
        th_per_s=th_per_s,
        boards=boards,
        chips_per_board=chips,
        standby_w=15.0,
        stop_ramp_s=2.5,
        boot_s=4.0,
        wake_ramp_s=8.0,
        password="admin",
        min_limit_w=round(watts * 0.5),
    )


def _whatsminer_v3(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    return replace(_whatsminer(name, wire, watts, th_per_s, boards, chips), protocol="whatsminer_v3", password="super")


def _antminer(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    return MinerModel(
        name=name,
        protocol="antminer",
        wire_name=wire,
        pyasic_key=wire.upper(),
        pyasic_class=f"BMMiner{wire.split()[1]}",
        watts=watts,
        th_per_s=th_per_s,
        boards=boards,
        chips_per_board=chips,
        standby_w=25.0,
        stop_ramp_s=9.0,
        boot_s=15.0,
        wake_ramp_s=15.0,
        password="root",
        min_limit_w=watts,
    )


def _antminer_old(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    modern = _antminer(name, wire, watts, th_per_s, boards, chips)
    return replace(modern, protocol="antminer_old")


def _axeos(name: str, wire: str, key: str, kind: str, watts: float, th_per_s: float, chips: int) -> MinerModel:
    return MinerModel(
        name=name,
        protocol="axeos",
        wire_name=wire,
        pyasic_key=key,
        pyasic_class=kind,
        watts=watts,
        th_per_s=th_per_s,
        boards=1,
        chips_per_board=chips,
        standby_w=2.0,
        stop_ramp_s=1.0,
        boot_s=5.0,
        wake_ramp_s=5.0,
        password="none",
        min_limit_w=watts,
    )


def _braiins(name: str, wire: str, pyasic_class: str, watts: float, th_per_s: float, chips: int) -> MinerModel:
    stock = _antminer(name, wire, watts, th_per_s, 3, chips)
    return replace(stock, protocol="braiins", pyasic_class=pyasic_class, min_limit_w=round(watts * 0.4))


def _vnish(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    """An Antminer with another firmware: at its highest tuned preset."""
    stock = _antminer(name, wire, watts, th_per_s, boards, chips)
    kind = f"VNish{wire.split()[1]}"
    return replace(stock, protocol="vnish", pyasic_class=kind, password="admin", min_limit_w=1700.0)


def _epic(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    """An Antminer with another firmware."""
    stock = _antminer(name, wire, watts, th_per_s, boards, chips)
    kind = f"ePIC{wire.split()[1]}"
    return replace(stock, protocol="epic", pyasic_class=kind, password="letmein")


def _auradine(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    return MinerModel(
        name=name,
        protocol="auradine",
        wire_name=wire,
        pyasic_key=wire,
        pyasic_class=f"AuradineFlux{wire}",
        watts=watts,
        th_per_s=th_per_s,
        boards=boards,
        chips_per_board=chips,
        standby_w=30.0,
        stop_ramp_s=5.0,
        boot_s=12.0,
        wake_ramp_s=15.0,
        password="admin",
        min_limit_w=round(watts * 0.5),
    )


def _luxos(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    stock = _antminer(name, wire, watts, th_per_s, boards, chips)
    kind = f"LUXMiner{wire.split(' ', 1)[1].replace(' ', '')}"
    return replace(stock, protocol="luxos", pyasic_class=kind, stop_ramp_s=3.0, boot_s=12.0, min_limit_w=0.28 * watts)


def _marathon(name: str, wire: str, watts: float, th_per_s: float, boards: int, chips: int) -> MinerModel:
    """An Antminer with another firmware."""
    stock = _antminer(name, wire, watts, th_per_s, boards, chips)
    kind = f"Mara{wire.split()[1]}"
    return replace(stock, protocol="marathon", pyasic_class=kind, min_limit_w=round(watts * 0.4))


def _avalon(name: str, wire: str, pyasic_class: str, watts: float, th_per_s: float, chips: int) -> MinerModel:
    return MinerModel(
        name=name,
        protocol="avalon",
        wire_name=wire,
        pyasic_key=wire.upper(),
        pyasic_class=pyasic_class,
        watts=watts,
        th_per_s=th_per_s,
        boards=1,
        chips_per_board=chips,
        standby_w=17.0,
        stop_ramp_s=8.0,
        boot_s=15.0,
        wake_ramp_s=20.0,
        password="none",
        min_limit_w=watts,
    )


MODELS = MappingProxyType(
    {
        model.name: model
        for model in (
            _marathon("marathon-s19", "Antminer S19", 3250.0, 95.0, 3, 76),
            _epic("epic-s19", "Antminer S19", 3250.0, 95.0, 3, 76),
            _vnish("vnish-s19", "Antminer S19", 3200.0, 102.0, 3, 76),
            _whatsminer("whatsminer-m50s", "M50S_VH50", 3276.0, 126.0, 3, 135),
            _whatsminer("whatsminer-m60s", "M60S_VK30", 3422.0, 186.0, 3, 245),
            _whatsminer_v3("whatsminer-m60s-v3", "M60S_VK30", 3422.0, 186.0, 3, 245),
            _luxos("antminer-s19kpro-luxos", "Antminer S19k Pro", 2794.0, 121.8, 3, 77),
            # As announced (260 TH/s at 16 J/TH); chips are a guess, nothing depends on them.
            _auradine("auradine-at2880", "AT2880", 4160.0, 260.0, 3, 132),
            _antminer("antminer-s19", "Antminer S19", 3250.0, 95.0, 3, 76),
            _antminer_old("antminer-s9", "Antminer S9", 1323.0, 13.5, 3, 63),
            _antminer_old("antminer-s17", "Antminer S17", 2385.0, 53.0, 3, 48),
            _axeos("bitaxe-gamma", "BM1370", "BM1370", "BitAxeGamma", 17.0, 1.2, 1),
            _axeos("nerdqaxe-plus-plus", "NerdQAxe++", "", "", 72.0, 4.8, 4),
            _antminer("antminer-s21", "Antminer S21", 3500.0, 200.0, 3, 108),
            _braiins("braiins-s19j-pro", "Antminer S19j Pro", "BOSMinerS19jPro", 3068.0, 104.0, 126),
            _avalon("avalon-q", "Avalon Q", "CGMinerAvalonQHome", 1674.0, 90.0, 160),
            _braiins("braiins-s19-xp", "Antminer S19 XP", "BOSMinerS19XP", 3010.0, 140.0, 110),
        )
    }
)
