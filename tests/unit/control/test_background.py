"""What a meter is held against: nobody's word, and nothing that may have changed since it was learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from control_kit import asleep, entry_of, ledger_of
from hypothesis import given
from hypothesis import strategies as st

from mullet.control.background import SAMPLES_WITH_ASIDE
from mullet.control.observe import Observatory
from mullet.control.verify import verify
from mullet.domain.command import CommandLedger, OutcomeKind, Verb
from mullet.domain.facility import Facility, Mode
from mullet.domain.load import Load
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import Background, Telemetry
from mullet.testing.builders import circuit, command, facility, meter_reading, miner, telemetry
from mullet.testing.virtual_time import START


def plant() -> Facility:
    """Return four miners that tell no watts on one metered circuit."""
    names = [f"miners-{k:03d}" for k in (1, 2, 3, 4)]
    loads = [miner(name, "grid") for name in names]
    blind = [replace(load, capability=replace(load.capability, measures_watts=False)) for load in loads]
    grid = replace(circuit("grid", None, 20_000.0, meter="grid"), meter_error=0.01)
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
    """Four blind miners whose true draw and what they tell are set by hand; a second at a time."""

    def __init__(self, fans: float = FANS) -> None:
        self.seen = Observatory(SITE)
        self.at = START
        self.fans = fans
        self.draws = {load.id: FULL for load in SITE.loads}
        self.told: dict[str, str] = {load.id: "hashing" for load in SITE.loads}
        self.ledger = CommandLedger()

    def run(self, seconds: int) -> Snapshot:
        for _ in range(seconds):
            self.at += 1.0
            for load in SITE.loads:
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
            self.draws[load.id] = OFF if truly else FULL
        self.ledger = replace(ledger_of(*entries.values()), next_seq=100)

    @property
    def background(self) -> Background | None:
        return self.run(1).residuals["grid"].background


def asleep_blind(load: Load, at: float) -> Telemetry:
    return replace(asleep(load, at), watts=None)


def credited(snapshot: Snapshot) -> set[str]:
    return {found.load_id for found in verify(SITE, snapshot) if found.kind is OutcomeKind.APPLIED}


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
    # Once it does sleep, the meter leaves nothing for it to hide in, although nothing could ever be learnt.
    site.draws[ONE.id] = OFF
    assert credited(site.run(3)) == {ONE.id, TWO.id}


def test_one_dead_since_before_keeps_the_others_proven() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id], site.draws[FOUR.id] = "silent", 0.0
    site.run(SAMPLES_WITH_ASIDE + 5)
    site.stop(ONE, TWO)
    assert credited(site.run(15)) == {ONE.id, TWO.id}


def test_one_never_read_keeps_the_others_proven() -> None:
    site = Site()
    site.told[FOUR.id], site.draws[FOUR.id] = "silent", 0.0
    site.run(SAMPLES_WITH_ASIDE + 5)
    site.stop(ONE, TWO)
    assert credited(site.run(15)) == {ONE.id, TWO.id}


def test_one_that_hangs_and_hashes_on_is_a_part_of_the_background() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id] = "silent"
    site.run(SAMPLES_WITH_ASIDE + 5)
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
    site.run(SAMPLES_WITH_ASIDE + 5)
    # It takes the order and does not say so; who lies draws just what it no longer does.
    site.stop(FOUR)
    site.told[FOUR.id] = "silent"
    site.stop(ONE, truly=not lies)
    assert credited(site.run(15)) == (set() if lies else {ONE.id})


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
    site.run(SAMPLES_WITH_ASIDE + 5)
    site.stop(ONE, truly=False)
    # It comes back asleep: what it no longer draws is not what ONE says that it no longer draws.
    site.told[FOUR.id], site.draws[FOUR.id] = "asleep", OFF
    for _ in range(20):
        assert ONE.id not in credited(site.run(10))


def test_one_on_its_way_off_as_it_falls_silent_leaves_a_spread_that_proves_nothing() -> None:
    site = Site()
    site.run(30)
    site.told[FOUR.id] = "silent"
    for second in range(SAMPLES_WITH_ASIDE + 5):
        site.draws[FOUR.id] = FULL * (1.0 - second / (SAMPLES_WITH_ASIDE + 5))
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
