"""Made-up facilities load by load, with a snapshot of each: what allocation and shedding are measured on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mullet.domain.facility import Circuit, Facility
from mullet.domain.load import Load, OperatingPoint
from mullet.domain.snapshot import Snapshot
from mullet.testing.builders import circuit, facility, gpu, miner, snapshot

_SHARES = ((0.60, 0.67), (0.75, 0.81), (0.90, 0.92), (1.00, 1.00), (1.20, 1.12))
_MODELS = ((3_010.0, 17.5), (3_250.0, 21.5), (3_400.0, 25.0), (3_600.0, 29.5))


@dataclass(frozen=True, slots=True)
class Standing:
    """A facility and everything known of it at one instant."""

    plant: Facility
    now: Snapshot


def make_plant(loads: int, seed: int, per_pdu: int = 250, gpu_share: float = 0.02) -> Standing:
    """Return a plant of `loads` loads under a tree of four levels: connection, feeders, PDUs, racks' breakers.

    Miners have six points (sleep and five), GPUs six limits; about 5 % of the loads sleep. Circuits are tight enough
    that feeders, PDUs and breakers bind somewhere.
    """
    draw = np.random.default_rng(seed)
    pdus = max(1, loads // per_pdu)
    feeders = max(1, pdus // 8)
    racks = pdus * 2
    kinds = _kinds(draw)
    places = draw.integers(0, racks, loads)
    made: list[Load] = []
    gpus = int(loads * gpu_share)
    beneath = np.zeros(racks)
    for number in range(loads):
        rack = int(places[number])
        if number < gpus:
            load = gpu(f"gpus-{number:06d}", f"rack-{rack}", service="chat" if number % 2 else "batch")
        else:
            kind = int(draw.integers(0, len(kinds)))
            load = replace(kinds[kind], id=f"miners-{number:06d}", bank=f"miners-{rack}-{kind}", circuit=f"rack-{rack}")
        beneath[rack] += load.highest.watts
        made.append(load)
    plant = facility(circuits=_tree(draw, feeders, pdus, beneath), miners=made[gpus:], gpus=made[:gpus])
    asleep = {load.id: load.lowest.name for load in made[gpus:] if draw.random() < 0.05}
    return Standing(plant, snapshot(plant, points=asleep))


def _kinds(draw: np.random.Generator) -> list[Load]:
    kinds = []
    for watts, j_per_th in _MODELS:
        th_per_s = watts / (j_per_th * (1.0 + draw.uniform(-0.03, 0.03)))
        points = tuple(
            OperatingPoint(f"p{k}", watts * power, th_per_s=th_per_s * hashes)
            for k, (power, hashes) in enumerate(_SHARES, start=1)
        )
        kinds.append(replace(miner(), points=(OperatingPoint("off", 20.0), *points), worst_watts=1.4 * watts))
    return kinds


def _tree(draw: np.random.Generator, feeders: int, pdus: int, racks: np.ndarray) -> tuple[Circuit, ...]:
    pdu_watts = racks.reshape(pdus, 2).sum(axis=1)
    owner = np.minimum(np.arange(pdus) // 8, feeders - 1)
    feeder_watts = np.bincount(owner, weights=pdu_watts, minlength=feeders)
    nodes = [circuit("poi", None, 0.97 * float(pdu_watts.sum()), meter="poi")]
    nodes += [circuit(f"feeder-{k}", "poi", w * draw.uniform(0.95, 1.15)) for k, w in enumerate(feeder_watts)]
    nodes += [circuit(f"pdu-{k}", f"feeder-{owner[k]}", w * draw.uniform(0.95, 1.2)) for k, w in enumerate(pdu_watts)]
    nodes += [circuit(f"rack-{k}", f"pdu-{k // 2}", w * draw.uniform(0.95, 1.25)) for k, w in enumerate(racks)]
    return tuple(nodes)
