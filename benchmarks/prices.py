"""Prices at 5-minute steps: a seeded synthetic market, and the recorded ones that lie beside the project."""

from __future__ import annotations

import csv
import gzip
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import ROOT

Floats = NDArray[np.float64]

STEPS_PER_DAY = 288
RECORDED = "ercot_rt15_hub_2024.csv.gz"
_COLUMN = "HB_WEST"


def synthetic(days: int, seed: int) -> Floats:
    """Return (days * 288,) prices per MWh with a daily shape, noise that lasts, spikes and negative hours."""
    draw = np.random.default_rng(seed)
    count = days * STEPS_PER_DAY
    hour = np.arange(count) / 12.0
    shape = 32.0 + 14.0 * np.sin((hour - 9.0) * math.pi / 12.0) + 9.0 * np.sin((hour - 5.0) * math.pi / 6.0)
    noise = np.zeros(count)
    steps = draw.normal(0.0, 2.2, count)
    for k in range(1, count):
        noise[k] = 0.985 * noise[k - 1] + steps[k]
    price = shape + noise
    for day in range(days):
        for _ in range(int(draw.poisson(1.6))):
            start = day * STEPS_PER_DAY + int(draw.integers(84, 264))
            length = int(draw.integers(3, 15))
            price[start : start + length] += draw.lognormal(5.0, 0.9)
        if draw.random() < 0.7:
            start = day * STEPS_PER_DAY + int(draw.integers(110, 160))
            length = int(draw.integers(12, 48))
            price[start : start + length] -= draw.uniform(35.0, 75.0)
    return np.asarray(np.clip(price, -60.0, 5000.0))


def data_directory() -> Path:
    """Return where recorded series are looked for: `MULLET_DATA`, or `../shared/data` beside the project."""
    return Path(os.environ.get("MULLET_DATA", ROOT.parent / "shared" / "data"))


def recorded(days: int, first_day: int) -> Floats | None:
    """Return (days * 288,) real-time prices per MWh of ERCOT HB_WEST in 2024, each quarter hour three times.

    `first_day` counts from the first of the file. None where the file is not there.
    """
    path = data_directory() / "prices" / RECORDED
    if not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        heads = next(reader)
        column = next(k for k, head in enumerate(heads) if _COLUMN.lower() in head.lower())
        quarter_hours = [float(row[column]) for row in reader if row[column]]
    start = first_day * STEPS_PER_DAY // 3
    part = quarter_hours[start : start + days * STEPS_PER_DAY // 3]
    if len(part) < days * STEPS_PER_DAY // 3:
        return None
    return np.repeat(np.asarray(part), 3)
