"""Profiles of LuxOS: what each draws and hashes, as an S19k Pro with LuxOS 2025.4.8 told (captured by asic-rs)."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile of the S19k Pro; other models have the same curve in proportion."""

    step: int
    mhz: int
    volts: float
    th_per_s: float
    watts: float

    @property
    def name(self) -> str:
        """Its name on the wire."""
        return f"{self.mhz}MHz" if self.step else DEFAULT


CURVE = (
    Profile(-16, 190, 11.88, 39.2, 784.0),
    Profile(-15, 215, 11.88, 44.4, 879.0),
    Profile(-14, 240, 11.88, 49.5, 978.0),
    Profile(-13, 265, 11.88, 54.7, 1080.0),
    Profile(-12, 290, 11.88, 59.8, 1188.0),
    Profile(-11, 315, 11.88, 65.0, 1299.0),
    Profile(-10, 340, 12.0, 70.2, 1414.0),
    Profile(-9, 365, 12.15, 75.3, 1533.0),
    Profile(-8, 390, 12.3, 80.5, 1657.0),
    Profile(-7, 415, 12.45, 85.7, 1785.0),
    Profile(-6, 440, 12.6, 90.8, 1916.0),
    Profile(-5, 465, 12.75, 96.0, 2052.0),
    Profile(-4, 490, 12.9, 101.1, 2192.0),
    Profile(-3, 515, 13.05, 106.3, 2336.0),
    Profile(-2, 540, 13.2, 111.5, 2485.0),
    Profile(-1, 565, 13.35, 116.6, 2637.0),
    Profile(0, 590, 13.5, 121.8, 2794.0),
    Profile(1, 615, 13.65, 127.0, 2954.0),
    Profile(2, 640, 13.8, 132.1, 3119.0),
    Profile(3, 665, 13.95, 137.3, 3288.0),
    Profile(4, 690, 14.1, 142.4, 3461.0),
    Profile(5, 715, 14.25, 147.6, 3638.0),
    Profile(6, 740, 14.4, 152.8, 3820.0),
    Profile(7, 765, 14.55, 157.9, 4005.0),
    Profile(8, 790, 14.7, 163.1, 4195.0),
)
PROFILES = {profile.name: profile for profile in CURVE}
NOMINAL = PROFILES[DEFAULT]
