"""What goes out to those who watch: newest states for the slow, decisions grouped in words."""

from __future__ import annotations

from control_kit import decided

from mullet.control.announce import MOST_QUEUED, MOST_RECENT, Announcer
from mullet.control.planning_cycle import Adopted, build_request
from mullet.domain.command import Evidence, Outcome, OutcomeKind
from mullet.planning.accounting import account
from mullet.planning.greedy import plan_merit_order
from mullet.testing.builders import facility, snapshot
from mullet.testing.virtual_time import START


def test_a_slow_subscriber_loses_the_oldest_and_a_quick_one_nothing() -> None:
    announcer = Announcer()
    slow, quick = announcer.subscribe(), announcer.subscribe()
    got = []
    for number in range(10):
        announcer.publish({"tick": number})
        got.append(quick.get_nowait()["tick"])
    assert got == list(range(10))
    kept = [slow.get_nowait()["tick"] for _ in range(slow.qsize())]
    assert kept == list(range(10 - MOST_QUEUED, 10))


def test_who_left_gets_nothing() -> None:
    announcer = Announcer()
    queue = announcer.subscribe()
    announcer.unsubscribe(queue)
    announcer.unsubscribe(queue)
    announcer.publish({})
    assert queue.empty()


def test_events_are_newest_first_and_bounded() -> None:
    announcer = Announcer()
    for number in range(MOST_RECENT + 5):
        announcer.note(float(number), "operator", str(number))
    assert [event["text"] for event in announcer.recent[:2]] == [str(MOST_RECENT + 4), str(MOST_RECENT + 3)]
    assert len(announcer.recent) == MOST_RECENT


def test_commands_are_grouped_by_verb_and_cause() -> None:
    site = facility()
    announcer = Announcer()
    announcer.note_decision(decided(site, snapshot(site), {"miners-001": "off"}))
    assert announcer.recent == [{"at": START, "kind": "command", "text": "sleep 1 load, -3.444 kW, economic: as told"}]
    assert announcer.counts["commands"] == {"economic": 1}


def test_outcomes_are_told_and_counted_but_converging_is_only_counted() -> None:
    site = facility()

    def outcome(load_id: str, kind: OutcomeKind) -> Outcome:
        return Outcome("c1", load_id, START, kind, None, None, Evidence.NONE, None, "no answer")

    found = (
        outcome("miners-001", OutcomeKind.UNREACHABLE),
        outcome("miners-002", OutcomeKind.UNREACHABLE),
        outcome("miners-003", OutcomeKind.CONVERGING),
    )
    announcer = Announcer()
    announcer.note_decision(decided(site, snapshot(site), outcomes=found))
    assert [event["text"] for event in announcer.recent] == ["unreachable: 2 loads, miners-001: no answer"]
    assert announcer.counts["outcomes"] == {"unreachable": 2, "converging": 1, "applied": 0, "refused": 0}


def test_a_plan_is_told_with_why_better_ones_were_passed_over() -> None:
    site = facility()
    seen = snapshot(site)
    request = build_request(site, seen, account(site, seen), frozenset(site.load_by_id))
    announcer = Announcer()
    announcer.note_plan(Adopted(plan_merit_order(request), request, ("worker died", "shifted: too old")))
    assert announcer.recent[0]["text"] == "merit order plan (worker died)"
