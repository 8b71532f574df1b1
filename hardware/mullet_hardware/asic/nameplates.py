"""What makers' data sheets say of models that do not tell watts themselves: estimates for a first policy.

Watts at the wall and TH/s of a common variant, as Bitmain published them with the model (+-5 % by the maker's own
word); none was compared with a device here. A model is built in several variants, so whatever a device tells of itself
comes first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_ANTMINERS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "S9": (1323.0, 13.5),
        "S17": (2385.0, 53.0),
        "S17 PRO": (2094.0, 53.0),
        "T17": (2200.0, 40.0),
        "T19": (3150.0, 84.0),
        "S19": (3250.0, 95.0),
        "S19 PRO": (3250.0, 110.0),
        "S19J PRO": (3068.0, 104.0),
        "S19K PRO": (2760.0, 120.0),
        "S19 XP": (3010.0, 140.0),
        "T21": (3610.0, 190.0),
        "S21": (3500.0, 200.0),
        "S21 PRO": (3510.0, 234.0),
        "S21 XP": (3645.0, 270.0),
        "S21+": (3564.0, 216.0),
    }
)


def nameplate(model: str) -> tuple[float, float] | None:
    """Return (watts, TH/s) of a model as a device names it ("Antminer S19 Pro (Vnish 1.2.6)"), None if not known."""
    text = re.sub(r"\(.*?\)", "", model.upper()).replace("BITMAIN", "").replace("ANTMINER", "")
    return _ANTMINERS.get(" ".join(text.split()))
