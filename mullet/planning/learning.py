"""Learning what miners draw, hash and how fast they move, from readings while nothing moves. No clock, no I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mullet.domain.command import CommandLedger, LedgerEntry, Outcome, OutcomeKind, Verb
from mullet.domain.facility import Facility
from mullet.domain.load import Load, LoadKind, OperatingPoint
from mullet.domain.snapshot import Snapshot
from mullet.domain.telemetry import LoadState, Telemetry
from mullet.domain.units import format_watts
from mullet.planning.fold import MakeFold
from mullet.planning.learned import LearnedMake, by_name
from mullet.planning.stance import came_back, running_point, truthful_watts

ROUND_TICKS = 30
"""In so many ticks every load is looked at once."""
STEADY_VISITS = 2
"""Visits at the same point before what is read there counts."""
JUDGED_VISITS = 5
"""Visits that count before a load is compared with its group."""
WEIGHT = 0.1
"""Of the newest reading in a load's own mean."""
FAR_DEVIATIONS = 5.0
FAR_FRACTION = 0.05
FAR_WATTS = 10.0
"""Differences below this are noise, however alike the others are."""
LEAST_GROUP = 5


@dataclass(slots=True)
class _Track:
    """One load while it stands at one point."""

    point: str = ""
    read_at: float = 0.0
    visits: int = 0
    watts: float | None = None
    th_per_s: float | None = None

    def settle(self, point: str, reading: Telemetry) -> bool:
        """Note a visit; return whether the load has stood there long enough for its reading to count."""
        if reading.at <= self.read_at:
            return False
        if point != self.point:
            self.point, self.visits, self.watts, self.th_per_s = point, 0, None, None
        self.read_at = reading.at
        self.visits += 1
        return self.visits > STEADY_VISITS


class Learner:
    """Folds what is observed into a few numbers per make of each bank; which loads are far from their group comes too.

    Loads whose make is not known yet count as one make more, None. Alike are loads of one make of one bank.
    """

    def __init__(self, facility: Facility, kept: Mapping[str, Any] | None = None) -> None:
        """`facility` is as the policy has it, by nameplate; `kept` is what `kept()` returned once.

        Raises:
            ValueError: `kept` does not have that shape.
        """
        self._plates: dict[str, tuple[OperatingPoint, ...]] = {}
        self._folds: dict[str, dict[str | None, MakeFold]] = {}
        self._makes: dict[str, str] = {}
        self._tracks: dict[str, _Track] = {}
        self._rounds: list[str] = []
        self._next = 0
        self.far: dict[str, str] = {}
        """Loads far from their group, and in which respect."""
        self.adopt(facility, kept)

    @property
    def makes(self) -> Mapping[str, str]:
        """The makes of the loads that told theirs, by load."""
        return self._makes

    def adopt(self, facility: Facility, kept: Mapping[str, Any] | None = None) -> None:
        """Go on with a reloaded facility, by nameplate; points that are no longer the same are learnt anew."""
        known = self.kept() if kept is None else kept
        makes = _makes_of(known)
        self._rounds = [load.id for load in facility.loads if load.kind is LoadKind.MINER]
        self._makes = {load_id: makes[load_id] for load_id in self._rounds if load_id in makes}
        self._folds, self._plates = {}, {}
        for bank, loads in facility.banks.items():
            if loads[0].kind is not LoadKind.MINER:
                continue
            points = self._plates[bank] = loads[0].points
            known_folds = _folds_of(points, known, bank)
            folds = self._folds[bank] = {}
            for load in loads:
                make = self._makes.get(load.id)
                fold = folds[make] = folds.get(make) or known_folds.get(make) or MakeFold(points)
                fold.members += 1
        self._tracks = {load_id: self._tracks.get(load_id, _Track()) for load_id in self._rounds}
        self._next = 0
        self.far = {load_id: words for load_id, words in self.far.items() if load_id in self._tracks}

    def observe(
        self, facility: Facility, snapshot: Snapshot, ledger: CommandLedger, outcomes: Iterable[Outcome]
    ) -> None:
        """Take in one tick: the ramps that ended in it, and the readings of the loads whose turn it is."""
        for outcome in outcomes:
            self._ramp(facility, ledger, outcome)
        count = -(-len(self._rounds) // ROUND_TICKS)
        turn, self._next = self._rounds[self._next : self._next + count], self._next + count
        done = set()
        for load_id in turn:
            load = facility.load_by_id.get(load_id)
            if load is not None:
                self._visit(load, ledger.entry(load_id), snapshot.telemetry.get(load_id), snapshot.at)
                done.add(load.bank)
        if self._next >= len(self._rounds):
            self._next = 0
        for bank in done:
            members = facility.banks.get(bank, ())
            if members and turn and members[-1].id in turn:
                self._compare(bank, members)

    def _visit(self, load: Load, entry: LedgerEntry, reading: Telemetry | None, at: float) -> None:
        if reading is not None and reading.make is not None and reading.make != self._makes.get(load.id):
            self._turn_out(load, reading.make)
        track = self._tracks[load.id]
        point = _steady_point(load, entry, reading, at)
        found = self._fold_of(load).points.get(point.name) if point is not None else None
        if point is None or found is None or reading is None:
            track.point = ""
            return
        if not track.settle(point.name, reading):
            return
        watts = truthful_watts(load, reading)
        if watts is not None:
            found.watts.add(watts)
            found.who.add(load.id)
            track.watts = watts if track.watts is None else track.watts + WEIGHT * (watts - track.watts)
        rate = reading.th_per_s
        if rate is not None and point is not load.lowest:
            found.rates.add(rate)
            found.who.add(load.id)
            track.th_per_s = rate if track.th_per_s is None else track.th_per_s + WEIGHT * (rate - track.th_per_s)

    def _turn_out(self, load: Load, make: str) -> None:
        """Let a load be of `make` from now on: none was known, or the machine is another or runs another firmware.

        What was learnt of a make goes with the last load of it: there are never more than loads. What was learnt of
        loads that were not known is their make's where all of them turned out to be of one.
        """
        folds, before = self._folds[load.bank], self._makes.get(load.id)
        if make not in folds:
            # By nameplate: the facility that is observed has points as they were learnt.
            folds[make] = MakeFold(self._plates[load.bank])
        left, taken = folds[before], folds[make]
        left.members -= 1
        taken.members += 1
        self._makes[load.id] = make
        if before is None:
            left.became.add(make)
        if not left.members:
            del folds[before]
            if before is None and left.became == {make}:
                taken.take_in(left)
        self._tracks[load.id] = _Track()
        self.far.pop(load.id, None)

    def _fold_of(self, load: Load) -> MakeFold:
        return self._folds[load.bank][self._makes.get(load.id)]

    def _ramp(self, facility: Facility, ledger: CommandLedger, outcome: Outcome) -> None:
        load, command = facility.load_by_id.get(outcome.load_id), ledger.entry(outcome.load_id).command
        if outcome.kind is not OutcomeKind.APPLIED or load is None or load.bank not in self._folds or command is None:
            return
        # A load without truthful watts is believed after its ramp at the earliest, so that its time tells nothing.
        if command.id != outcome.command_id or not load.capability.measures_watts:
            return
        fold = self._fold_of(load)
        if command.verb is Verb.SLEEP:
            fold.ramp_down.add(outcome.at - command.issued_at)
        elif command.verb is Verb.WAKE:
            fold.ramp_up.add(outcome.at - command.issued_at)

    def _compare(self, bank: str, members: Sequence[Load]) -> None:
        """Find who is far from its group: the loads of its bank that are of its make and at the same point."""
        groups: dict[tuple[str | None, str], list[tuple[str, _Track]]] = {}
        for load in members:
            track = self._tracks[load.id]
            self.far.pop(load.id, None)
            if track.point and track.visits >= STEADY_VISITS + JUDGED_VISITS:
                groups.setdefault((self._makes.get(load.id), track.point), []).append((load.id, track))
        for (make, name), group in groups.items():
            fold = self._folds[bank][make]
            point = fold.points[name]
            means = [track.watts for _, track in group if track.watts is not None]
            if means:
                everyone = len(group) >= fold.members / 2
                kept = 0.0 if everyone or point.most_watts is None else point.most_watts
                point.most_watts = max(kept, *means, 0.0)
            if len(group) < LEAST_GROUP:
                continue
            drawn = {load_id: track.watts for load_id, track in group if track.watts is not None}
            hashed = {load_id: track.th_per_s for load_id, track in group if track.th_per_s is not None}
            spent = {load_id: watts / rate for load_id, watts in drawn.items() if (rate := hashed.get(load_id))}
            # What says most of what is wrong is said: the last that is written stands.
            self._mark(
                drawn, FAR_WATTS, lambda own, group: f"draws {format_watts(own)}, its group {format_watts(group)}"
            )
            self._mark(hashed, 0.0, lambda own, group: f"hashes {own:.1f} TH/s, its group {group:.1f}")
            self._mark(spent, 0.0, lambda own, group: f"takes {own:.1f} J/TH, its group {group:.1f}")

    def _mark(self, values: Mapping[str, float], least: float, words: Any) -> None:
        if len(values) < LEAST_GROUP:
            return
        middle = statistics.median(values.values())
        deviation = statistics.median(abs(value - middle) for value in values.values())
        far = max(FAR_DEVIATIONS * deviation, FAR_FRACTION * abs(middle), least)
        for load_id, value in values.items():
            if abs(value - middle) > far:
                told = words(value, middle)
                known = self.far.get(load_id)
                self.far[load_id] = told if known is None else f"{known}; {told}"

    def learned(self) -> tuple[LearnedMake, ...]:
        """Return what has been learnt so far, in the policy's order of banks, the makes of each by name."""
        return tuple(
            folds[make].learned(bank, make)
            for bank, folds in self._folds.items()
            for make in sorted(folds, key=by_name)
        )

    def kept(self) -> dict[str, Any]:
        """Return what a later run goes on from, as plain JSON data."""
        makes: dict[str, list[str]] = {}
        for load_id, make in self._makes.items():
            makes.setdefault(make, []).append(load_id)
        banks = {
            bank: [{"make": make, **folds[make].kept()} for make in sorted(folds, key=by_name)]
            for bank, folds in self._folds.items()
        }
        return {"makes": makes, "banks": banks}


def _steady_point(load: Load, entry: LedgerEntry, reading: Telemetry | None, at: float) -> OperatingPoint | None:
    """Return the point at which the load stands with nothing moving; None where that is not known."""
    if reading is None or reading.fault is not None or entry.pending:
        return None
    moved_at = max(entry.last_change_at or 0.0, entry.confirmed_at or 0.0)
    if at - moved_at < load.capability.ramp_up_s or came_back(load.lowest.name, entry, reading):
        return None
    if reading.state is LoadState.ASLEEP:
        return load.lowest
    if reading.state is not LoadState.ACTIVE:
        return None
    return running_point(load, entry, reading) if load.steps_between else load.highest


def _makes_of(kept: Mapping[str, Any]) -> dict[str, str]:
    """Return the makes of loads that `Learner.kept` named.

    Raises:
        ValueError: it did not name them so.
    """
    try:
        return {str(load_id): str(make) for make, load_ids in kept.get("makes", {}).items() for load_id in load_ids}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"what was learnt cannot be read: {error!r}") from error


def _folds_of(points: Sequence[OperatingPoint], kept: Mapping[str, Any], bank: str) -> dict[str | None, MakeFold]:
    """Return the folds of a bank's makes that `Learner.kept` returned.

    Raises:
        ValueError: it did not return them so.
    """
    try:
        return {found["make"]: MakeFold.restored(points, found) for found in kept.get("banks", {}).get(bank, ())}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"what was learnt cannot be read: {error!r}") from error
