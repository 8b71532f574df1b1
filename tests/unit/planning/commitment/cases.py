"""Every case whose optimum is known by hand, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from golden_circuits import CIRCUITS
from golden_inference import INFERENCE
from golden_kit import Case
from golden_market import MARKET
from golden_mining import MINING
from golden_promises import PROMISES

CASES: Mapping[str, Callable[[], Case]] = {
    made.__name__: made for made in (*MINING, *CIRCUITS, *INFERENCE, *MARKET, *PROMISES)
}
