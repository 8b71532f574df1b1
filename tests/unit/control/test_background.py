"""What a meter is held against: nobody's word, and nothing that may have changed since it was learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from control_kit import asleep, entry_of, ledger_of
from hypothesis import given
from hypothesis import strategies as st

from mullet.control.background import SAMPLES_WITH_SILENT
from mullet.control.observe import Observatory
from mullet.control.verify import verify
from mullet.domain.command import CommandLedger, OutcomeKind, Verb
from mullet.domain.facility import Facility, Mode
from mullet.domain.load import Load
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Background, Telemetry
from mullet.testing.builders import circuit, command, facility, meter_reading, miner, telemetry
from mullet.testing.virtual_time import START


def plant(count: int = 4) -> Facility:
    """Return miners that tell no watts on one metered circuit."""
    names = [f"miners-{k:03d}" for k in range(1, count + 1)]
    loads = [miner(name, "grid") for name in names]
    blind = [replace(load, capability=replace(load.capability, measures_watts=False)) for load in loads]
    grid = replace(circuit("grid", None, 5_000.0 * count, meter="grid"), meter_error=0.01)
    return facility(circuits=(grid,), miners=blind, gpus=0)


SITE = plant()
ONE, TWO, THREE, FOUR = SITE.loads
FULL, OFF = ONE.highest.watts, ONE.lowest.watts
FANS = 400.0


def silent(load: Load, at: float) -> Telemetry:
    return replace(telemetry(load, at), watts=None, state=None, th_per_s=None, fault="no answer")


def hashing(load: Load, at: float) -> Telemetry:
    return replace(telemetry(load, at), watts=None)


class Site:
    """Blind miners whose true draw and what they tell are set by hand; a second at a time.

    `share` is what they draw at full of what their point says.
    """

    def __init__(self, fans: float = FANS, facility: Facility = SITE, share: float = 1.0) -> None:
        self.facility = facility
        self.seen = Observatory(facility)
        self.at = START
        self.fans = fans
        self.full = FULL * share
        self.draws = {load.id: self.full for load in facility.loads}
        self.told: dict[str, str] = {load.id: "hashing" for load in facility.loads}
        self.ledger = CommandLedger()

    def run(self, seconds: int) -> Snapshot:
        for _ in range(seconds):
            self.at += 1.0
            for load in self.facility.loads:
                say = {"hashing": hashing, "asleep": asleep_blind, "silent": silent}[self.told[load.id]]
                self.seen.saw(say(load, self.at))
            # Not the same twice, or it would be taken for frozen.
            shown = sum(self.draws.values()) + self.fans + (self.at % 7.0)
            self.seen.saw_meter(meter_reading("grid", shown, self.at, heartbeat=int(self.at)))
            snapshot = self.seen.snapshot(self.at, self.ledger, (), Mode.AUTO, (), True, True)
        return snapshot

    def stop(self, *loads: Load, truly: bool = True) -> None:
        """Tell loads to sleep; they say that they do."""
        entries = dict(self.ledger.entries)
        for load in loads:
            entries[load.id] = entry_of(command(load, Verb.SLEEP, at=self.at))
            self.told[load.id] = "asleep"
            self.draws[load.id] = OFF if truly else self.full
        self.ledger = replace(ledger_of(*entries.values()), next_seq=100)

    @property
    def background(self) -> Background | None:
        return self.run(1).residuals["grid"].background


def asleep_blind(load: Load, at: float) -> Telemetry:
    return replace(asleep(load, at), watts=None)


def credited(snapshot: Snapshot, facility: Facility = SITE) -> set[str]:
    return {found.load_id for found in verify(facility, snapshot) if found.kind is OutcomeKind.APPLIED}


def test_a_stop_is_proven_against_what_was_learnt_beside_it() -> None:
    site = Site()
    site.run(30)
    site.stop(ONE, TWO)
    assert credited(site.run(15)) == {ONE.id, TWO.id}


def test_a_liar_is_not_learnt_as_background_however_long_it_lies() -> None:
    site = Site()
    site.run(30)
    site.told[ONE.id] = "asleep"  # it draws on, and nobody asked it to sleep
    for _ in range(10):
        assert credited(site.run(60)) == set()
    # It is a part of the background by then, so that others can be proven beside it, and it cannot.
    site.stop(TWO)
    assert credited(site.run(15)) == {TWO.id}


def test_a_liar_found_asleep_at_the_start_is_not_credited_by_its_own_draw() -> None:
    site = Site(fans=0.0)
    site.told[ONE.id] = site.told[TWO.id] = "asleep"
    site.draws[TWO.id] = OFF
    assert credited(site.run(120)) == set()
    # With the others asleep the meter shows what is left; once it does sleep, that is nothing to hide in.
    site.stop(THREE, FOUR)
    assert credited(site.run(15)) == {THREE.id, FOUR.id}, "beside two that vouch for themselves"
    site.draws[ONE.id] = OFF
    assert credited(site.run(3)) == {load.id for load in SITE.loads}


def test_one_dead_since_before_keeps_the_others_proven() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id], site.draws[FOUR.id] = "silent", 0.0
    site.run(SAMPLES_WITH_SILENT + 5)
    site.stop(ONE, TWO)
    assert credited(site.run(15)) == {ONE.id, TWO.id}


def test_one_never_read_keeps_the_others_proven() -> None:
    site = Site()
    site.told[FOUR.id], site.draws[FOUR.id] = "silent", 0.0
    site.run(SAMPLES_WITH_SILENT + 5)
    site.stop(ONE, TWO)
    assert credited(site.run(15)) == {ONE.id, TWO.id}


def test_one_that_hangs_and_hashes_on_is_a_part_of_the_background() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id] = "silent"
    site.run(SAMPLES_WITH_SILENT + 5)
    known = site.background
    assert known is not None
    assert [load_id for load_id, _ in known.aside] == [FOUR.id]
    assert known.mean_watts == pytest.approx(FANS + FULL, abs=10.0)
    site.stop(ONE, TWO)
    assert credited(site.run(15)) == {ONE.id, TWO.id}


def test_one_that_fell_silent_just_now_is_not_yet() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id] = "silent"
    site.run(3)
    site.stop(ONE, TWO)
    assert credited(site.run(15)) == set()


@pytest.mark.parametrize("lies", [False, True])
def test_one_that_was_told_to_stop_and_cannot_be_read_hides_nobody(lies: bool) -> None:
    site = Site(fans=0.0)
    site.run(30)
    site.told[FOUR.id] = "silent"
    site.run(SAMPLES_WITH_SILENT + 5)
    # It takes the order and does not say so; who lies draws just what it no longer does.
    site.stop(FOUR)
    site.told[FOUR.id] = "silent"
    site.stop(ONE, truly=not lies)
    assert credited(site.run(15)) == set()
    # Once nothing runs there that only its point speaks for, what the meter shows is what is left.
    site.stop(TWO, THREE)
    assert credited(site.run(15)) == (set() if lies else {ONE.id, TWO.id, THREE.id})


def test_one_that_dies_as_another_lies_does_not_hide_it() -> None:
    site = Site()
    site.run(30)
    site.stop(ONE, truly=False)
    site.told[FOUR.id], site.draws[FOUR.id] = "silent", 0.0
    for _ in range(20):
        assert credited(site.run(10)) == set()


def test_what_was_learnt_with_one_silent_ends_when_it_is_read_again() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id] = "silent"
    site.run(SAMPLES_WITH_SILENT + 5)
    site.stop(ONE, truly=False)
    # It comes back asleep: what it no longer draws is not what ONE says that it no longer draws.
    site.told[FOUR.id], site.draws[FOUR.id] = "asleep", OFF
    for _ in range(20):
        assert ONE.id not in credited(site.run(10))


THIRTY = plant(30)


@pytest.mark.parametrize("share", [0.96, 1.0, 1.04])
@pytest.mark.parametrize("fans", [0.0, 400.0, 3_000.0])
@pytest.mark.parametrize("lies", [False, True])
def test_no_liar_hides_in_what_many_draw_beyond_their_points(share: float, fans: float, lies: bool) -> None:
    site = Site(fans, THIRTY, share)
    site.run(30)
    site.stop(*THIRTY.loads[1:])
    site.stop(THIRTY.loads[0], truly=not lies)
    found = credited(site.run(15), THIRTY)
    if lies:
        assert found == set()
    elif fans == 0.0 or (fans == 400.0 and share == 1.0):
        assert found == {load.id for load in THIRTY.loads}


def test_a_bound_on_what_they_draw_beyond_their_points_outlives_one_that_hangs() -> None:
    site = Site(0.0, THIRTY)
    site.run(30)
    hung = THIRTY.loads[-1]
    site.told[hung.id] = "silent"
    site.run(SAMPLES_WITH_SILENT + 5)
    site.stop(*THIRTY.loads[:-1])
    assert credited(site.run(15), THIRTY) == {load.id for load in THIRTY.loads[:-1]}


def test_what_they_drew_when_they_were_colder_bounds_nothing() -> None:
    site = Site(0.0, THIRTY, 0.99)
    site.run(60)
    cold = site.background
    site.full = FULL * 1.05
    site.draws = dict.fromkeys(site.draws, site.full)
    site.run(90)
    warm = site.background
    assert cold is not None
    assert warm is not None
    assert cold.bias_watts < 1_000.0
    assert warm.bias_watts > 4_000.0
    site.stop(*THIRTY.loads[1:])
    site.stop(THIRTY.loads[0], truly=False)
    assert credited(site.run(15), THIRTY) == set()


def test_what_was_learnt_at_rest_does_not_bound_what_runs_later() -> None:
    site = Site(3_000.0, THIRTY, 1.04)
    for load in THIRTY.loads:
        site.told[load.id], site.draws[load.id] = "asleep", OFF
    site.run(30)
    for load in THIRTY.loads:
        site.told[load.id], site.draws[load.id] = "hashing", site.full
    site.run(30)
    site.stop(*THIRTY.loads[1:])
    site.stop(THIRTY.loads[0], truly=False)
    assert credited(site.run(15), THIRTY) == set()


def test_one_on_its_way_off_as_it_falls_silent_leaves_a_spread_that_proves_nothing() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id] = "silent"
    for second in range(SAMPLES_WITH_SILENT + 5):
        site.draws[FOUR.id] = FULL * (1.0 - second / (SAMPLES_WITH_SILENT + 5))
        site.run(1)
    site.stop(ONE, truly=False)
    site.draws[FOUR.id] = 0.0
    assert credited(site.run(15)) == set()


MOVES = st.lists(
    st.tuples(
        st.sampled_from([load.id for load in SITE.loads]),
        st.sampled_from(["hashing", "asleep", "silent"]),
        st.sampled_from([0.0, OFF, FULL]),
        st.integers(1, 40),
    ),
    max_size=8,
)


@given(MOVES, st.booleans())
def test_no_liar_is_credited_whatever_was_told_before(moves: list[tuple[str, str, float, int]], fans: bool) -> None:
    site = Site(fans=FANS if fans else 0.0)
    site.run(5)
    for load_id, told, draws, seconds in moves:
        # A load that hashes draws; one that tells nothing new goes on drawing what it drew.
        stays = told in ("silent", site.told[load_id])
        if load_id != ONE.id and not stays:
            site.draws[load_id] = FULL if told == "hashing" else draws
        site.told[load_id] = told
        for _ in range(0, seconds, 5):
            assert ONE.id not in credited(site.run(5))
    site.stop(ONE, truly=False)
    for _ in range(4):
        assert ONE.id not in credited(site.run(10))


@given(
    st.floats(0.0, 6_000.0),
    st.floats(0.95, 1.05),
    st.integers(1, 30),
    st.sampled_from(["none", "dead from the start", "hangs from the start", "dies before", "hangs before"]),
    st.integers(0, 30),
)
def test_no_liar_is_credited_whatever_draws_beside_it(
    fans: float, share: float, claimants: int, other: str, rest_s: int
) -> None:
    site = Site(fans, THIRTY, share)
    apart = THIRTY.loads[-1]
    if other.endswith("from the start"):
        site.told[apart.id] = "silent"
        site.draws[apart.id] = 0.0 if other.startswith("dead") else site.full
    site.run(10 + rest_s)
    if other.endswith("before"):
        site.told[apart.id] = "silent"
        site.draws[apart.id] = 0.0 if other.startswith("dies") else site.full
    site.run(rest_s + 3)
    first, *others = THIRTY.loads[:claimants]
    site.stop(*(load for load in others if load is not apart))
    site.stop(first, truly=False)
    for _ in range(3):
        assert first.id not in credited(site.run(10), THIRTY)


@pytest.mark.parametrize("rested", [True, False])
def test_those_found_asleep_that_have_woken_since_are_no_hindrance_if_they_rested(rested: bool) -> None:
    site = Site(100.0, THIRTY)
    sleepers, others = THIRTY.loads[:6], THIRTY.loads[6:]
    for load in sleepers:
        site.told[load.id], site.draws[load.id] = "asleep", OFF if rested else FULL
    site.run(1)
    # They wake at once, and there is no quiet moment before the order.
    for load in sleepers:
        site.told[load.id], site.draws[load.id] = "hashing", FULL
    site.stop(*others[1:])
    site.stop(others[0], truly=rested)
    found = credited(site.run(15), THIRTY)
    assert found == ({load.id for load in others} if rested else set())
