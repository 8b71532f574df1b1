"""The arrival estimate against a small queue with random arrivals."""

import random

import pytest

from mullet.adapters.feeds.arrivals import ArrivalEstimate, Totals

SIZE = 500.0


class Queue:
    """Serves up to `capacity` requests a second, each of SIZE tokens, 20 at a time."""

    def __init__(self, seed: int, capacity: float) -> None:
        self._random = random.Random(seed)
        self._capacity = capacity
        self._next = 0.0
        self._at, self._inside, self._finished, self._progress = 0.0, 0, 0.0, 0.0
        self.estimate = ArrivalEstimate()

    def run(self, seconds: int, rate: float) -> None:
        for _ in range(seconds * 20):
            self._at += 0.05
            while self._next <= self._at:
                self._inside += 1
                self._next += self._random.expovariate(rate)
            self._progress += min(self._capacity * 0.05, self._inside - self._progress)
            done = int(self._progress)
            self._progress -= done
            self._inside -= done
            self._finished += done
            if round(self._at * 20) % 20 == 0:
                running = min(self._inside, 20)
                tokens = SIZE * (self._finished + self._progress)
                self.estimate.add(Totals(self._at, tokens, self._finished, running, self._inside - running))


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_is_right_at_rest_and_a_threefold_step_is_seen_within_seconds(seed: int) -> None:
    queue = Queue(seed, capacity=60.0)
    queue.run(120, rate=30.0)
    at_rest = queue.estimate.requests_per_s()
    assert at_rest is not None
    assert 20.0 < at_rest < 42.0
    assert queue.estimate.tokens_per_request() == pytest.approx(SIZE, rel=0.05)
    queue.run(4, rate=90.0)
    stepped = queue.estimate.requests_per_s()
    served = queue.estimate.tokens_per_s()
    assert stepped is not None
    assert served is not None
    assert stepped > 55.0
    assert served <= 60.0 * SIZE * 1.05, "what is served stays at the capacity"


def test_nothing_is_told_of_one_scrape_or_of_unknown_counts() -> None:
    estimate = ArrivalEstimate()
    estimate.add(Totals(1.0, 100.0, None, None, None))
    assert (estimate.tokens_per_s(), estimate.requests_per_s(), estimate.tokens_per_request()) == (None, None, None)
    estimate.add(Totals(2.0, 150.0, None, 3.0, None))
    assert (estimate.tokens_per_s(), estimate.requests_per_s(), estimate.tokens_per_request()) == (50.0, None, None)


def test_how_long_it_was_watched_begins_again_with_the_server() -> None:
    queue = Queue(0, 20.0)
    assert queue.estimate.watched_s() == 0.0
    queue.run(61, 10.0)
    assert queue.estimate.watched_s() == pytest.approx(60.0)
    queue.estimate.restart()
    assert queue.estimate.watched_s() == 0.0
    queue.run(2, 10.0)
    assert queue.estimate.watched_s() == pytest.approx(1.0)
