from mullet.adapters.clock import SystemClock


class Hands:
    def __init__(self) -> None:
        self.wall_s = 1_700_000_000.0
        self.monotonic_s = 50.0


def make() -> tuple[Hands, SystemClock]:
    hands = Hands()
    return hands, SystemClock(wall=lambda: hands.wall_s, monotonic=lambda: hands.monotonic_s)


def test_now_follows_the_monotonic_clock_only() -> None:
    hands, clock = make()
    assert clock.now() == 1_700_000_000.0
    hands.monotonic_s += 10.0
    hands.wall_s -= 3_600.0
    assert clock.now() == 1_700_000_010.0
    assert clock.monotonic() == 60.0


def test_offset_tells_how_far_the_wall_was_moved() -> None:
    hands, clock = make()
    hands.monotonic_s += 5.0
    hands.wall_s += 5.0
    assert abs(clock.offset_s()) < 1e-6
    hands.wall_s -= 2.5
    assert abs(clock.offset_s() + 2.5) < 1e-6


async def test_sleep_elapses_and_now_never_steps_back() -> None:
    clock = SystemClock()
    before, begun = clock.now(), clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - begun >= 0.009
    assert clock.now() > before
    assert abs(clock.offset_s()) < 1.0
