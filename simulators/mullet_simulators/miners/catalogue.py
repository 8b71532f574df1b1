"""Which device speaks which protocol."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mullet_simulators.miners.antminer import Antminer
from mullet_simulators.miners.antminer_old import AntminerOld
from mullet_simulators.miners.auradine import Auradine
from mullet_simulators.miners.avalon import Avalon
from mullet_simulators.miners.axeos import AxeOs
from mullet_simulators.miners.braiins import Braiins
from mullet_simulators.miners.epic import Epic
from mullet_simulators.miners.luxos import LuxOs
from mullet_simulators.miners.marathon import Marathon
from mullet_simulators.miners.physics import SimMiner
from mullet_simulators.miners.vnish import Vnish
from mullet_simulators.miners.whatsminer_v2 import Whatsminer
from mullet_simulators.miners.whatsminer_v3 import WhatsminerV3

DEVICES: Mapping[str, type[SimMiner]] = MappingProxyType(
    {
        "antminer": Antminer,
        "antminer_old": AntminerOld,
        "auradine": Auradine,
        "avalon": Avalon,
        "axeos": AxeOs,
        "braiins": Braiins,
        "epic": Epic,
        "marathon": Marathon,
        "vnish": Vnish,
        "luxos": LuxOs,
        "whatsminer_v2": Whatsminer,
        "whatsminer_v3": WhatsminerV3,
    }
)
