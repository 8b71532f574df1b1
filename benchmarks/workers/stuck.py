"""A planner that never answers, for what must happen then."""

from __future__ import annotations

import time
from typing import NoReturn

from mullet.domain.plan import PlanRequest


def plan(request: PlanRequest, limit_s: float) -> NoReturn:
    """Keep the processor busy for ever, whatever the limit."""
    del request, limit_s
    while True:
        time.perf_counter()
