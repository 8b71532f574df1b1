"""How fast requests arrive at an inference service, from what its counters say.

Arrivals follow from conservation: what finished, plus how much fuller the server became. They tell a step in demand
while the server still works at its old rate, before any request has to wait.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

SHORT_WINDOWS_S = (3.0, 6.0)
LONG_WINDOW_S = 20.0
MEAN_WINDOW_S = 300.0
STEP_SIGMAS = 3.0
"""A short window speaks for itself once its count is this far from what the long one expects (Poisson)."""
LEAST_REQUESTS = 10.0
"""Requests that must have been served before their mean size is believed."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a service has done since it began to be watched, and what is in it now."""

    at: float
    """Seconds that only elapse."""
    tokens: float
    """Prefilled and generated."""
    finished: float | None
    running: float | None
    waiting: float | None
    """All that wait, whatever for."""

    @property
    def inside(self) -> float | None:
        """Requests in the server."""
        return None if self.running is None or self.waiting is None else self.running + self.waiting


class ArrivalEstimate:
    """Rates over the last few scrapes of one service."""

    def __init__(self) -> None:
        self._window: deque[Totals] = deque()
        self._served: deque[tuple[float, float, float]] = deque()
        self._mean: float | None = None
        self._began_at = 0.0

    def add(self, totals: Totals) -> None:
        """Take the newest totals; `at` must have grown."""
        if not self._window:
            self._began_at = totals.at
        self._window.append(totals)
        while len(self._window) > 2 and self._window[1].at <= totals.at - LONG_WINDOW_S:
            self._window.popleft()
        self._update_mean(totals)

    def restart(self) -> None:
        """Forget the rates, because a server restarted or another set of engines answers; keep the mean size."""
        self._window.clear()
        self._served.clear()

    def watched_s(self) -> float:
        """Return for how long the totals have come without a break."""
        return self._window[-1].at - self._began_at if self._window else 0.0

    def tokens_per_s(self) -> float | None:
        """Return tokens prefilled and generated per second over the shortest window."""
        first = self._first(SHORT_WINDOWS_S[0])
        return None if first is None else (self._window[-1].tokens - first.tokens) / self._since(first)

    def requests_per_s(self) -> float | None:
        """Return the rate of arrivals: of the long window, or of a short one where that shows a step."""
        long = self._first(LONG_WINDOW_S)
        counted = None if long is None else self._arrived(long)
        if long is None or counted is None:
            return None
        rate = counted / self._since(long)
        for window_s in SHORT_WINDOWS_S:
            first = self._first(window_s)
            arrived = None if first is None else self._arrived(first)
            if first is None or arrived is None:
                continue
            expected = rate * self._since(first)
            if abs(arrived - expected) > STEP_SIGMAS * math.sqrt(max(expected, 1.0)):
                return arrived / self._since(first)
        return rate

    def tokens_per_request(self) -> float | None:
        """Return the mean size of a request, or None before enough were served."""
        return self._mean

    def _first(self, window_s: float) -> Totals | None:
        if len(self._window) < 2:
            return None
        now = self._window[-1].at
        for totals in reversed(self._window):
            if totals.at <= now - window_s:
                return totals
        return self._window[0]

    def _since(self, first: Totals) -> float:
        return self._window[-1].at - first.at

    def _arrived(self, first: Totals) -> float | None:
        last = self._window[-1]
        if last.finished is None or last.inside is None or first.finished is None or first.inside is None:
            return None
        return max(0.0, last.finished - first.finished + last.inside - first.inside)

    def _update_mean(self, totals: Totals) -> None:
        if totals.finished is None or totals.running is None:
            return
        # A running request has had half of its tokens, on average.
        served = totals.finished + 0.5 * totals.running
        self._served.append((totals.at, totals.tokens, served))
        while len(self._served) > 2 and self._served[1][0] <= totals.at - MEAN_WINDOW_S:
            self._served.popleft()
        _, first_tokens, first_served = self._served[0]
        if served - first_served >= LEAST_REQUESTS:
            self._mean = (totals.tokens - first_tokens) / (served - first_served)
        elif self._mean is None and served >= LEAST_REQUESTS:
            self._mean = totals.tokens / served
