"""The inbox: of all that arrives, only what is fresh, new, addressed here and genuine is ever carried out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet.agent.inbox import Inbox, Reason, Rejection
from mullet.domain.command import Command, Verb
from mullet.domain.message import (
    CommandMessage,
    Heartbeat,
    HeartbeatMessage,
    command_payload,
    heartbeat_payload,
    read_object,
)
from mullet.testing.builders import command, gpu
from mullet.testing.virtual_time import START

FACILITY = "demo"
KEY = b"secret of the demo"
LOADS = {load.id: load for load in (gpu("gpus-001"), gpu("gpus-002"))}
GPU = LOADS["gpus-001"]


def inbox(**options: Any) -> Inbox:
    return Inbox(FACILITY, "node-1", LOADS, started_at=START - 1_000.0, **options)


def message(order: Command, key: bytes | None = None, **changes: Any) -> CommandMessage:
    body = read_object(command_payload(FACILITY, order, key))
    body.update(changes)
    return CommandMessage(FACILITY, order.load_id, json.dumps(body).encode())


def reason(verdict: Command | Heartbeat | Rejection) -> Reason | None:
    return verdict.reason if isinstance(verdict, Rejection) else None


def test_a_fresh_command_comes_out_as_it_went_in() -> None:
    order = command(GPU, watts=432.1)
    assert inbox().judge(message(order), START) == order


def test_a_signed_command_comes_out_as_it_went_in() -> None:
    order = command(GPU, watts=432.1)
    assert inbox(key=KEY).judge(message(order, KEY), START) == order


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"verb": "restart"}, Reason.UNKNOWN_VERB),
        ({"verb": ["power"]}, Reason.UNKNOWN_VERB),
        ({"verb": None}, Reason.UNKNOWN_VERB),
        ({"facility": "other"}, Reason.OTHER_FACILITY),
        ({"facility": None}, Reason.OTHER_FACILITY),
        ({"load_id": "gpus-002"}, Reason.UNKNOWN_LOAD),
        ({"seq": "1"}, Reason.GARBLED),
        ({"seq": True}, Reason.GARBLED),
        ({"watts": None}, Reason.GARBLED),
        ({"pool": "stratum+tcp://elsewhere"}, Reason.GARBLED),
        ({"watts": 701.0}, Reason.OUT_OF_RANGE),
        ({"watts": -1.0}, Reason.OUT_OF_RANGE),
        ({"lease_s": 0.0}, Reason.OUT_OF_RANGE),
        ({"issued_at": START - 5.1}, Reason.STALE),
        ({"not_after": START - 0.1}, Reason.STALE),
        ({"issued_at": START + 5.1}, Reason.AHEAD),
    ],
)
def test_what_is_wrong_is_named_and_counted(changed: dict[str, Any], expected: Reason) -> None:
    box = inbox()
    assert reason(box.judge(message(command(GPU), **changed), START)) is expected
    assert box.rejected == {expected: 1}
    assert box.accepted == 0


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b"\xff\xfe", b'{"a": NaN}', b"{}" + b" " * 20_000, b"[" * 9_000])
def test_garbage_is_garbled(payload: bytes) -> None:
    assert reason(inbox().judge(CommandMessage(FACILITY, GPU.id, payload), START)) is Reason.GARBLED


def test_a_number_too_large_for_a_float_is_garbled() -> None:
    payload = command_payload(FACILITY, command(GPU)).replace(b'"not_after":', b'"not_after":1e999,"x":')
    assert reason(inbox().judge(CommandMessage(FACILITY, GPU.id, payload), START)) is Reason.GARBLED


def test_a_retained_command_is_dropped() -> None:
    assert reason(inbox().judge(replace(message(command(GPU)), retained=True), START)) is Reason.RETAINED


def test_a_load_that_is_not_here_is_unknown() -> None:
    order = command(gpu("gpus-009"))
    assert reason(inbox().judge(message(order), START)) is Reason.UNKNOWN_LOAD


def test_a_command_is_taken_once() -> None:
    box, sent = inbox(), message(command(GPU))
    assert reason(box.judge(sent, START)) is None
    assert reason(box.judge(sent, START + 1.0)) is Reason.REPLAYED


def test_sequence_numbers_are_kept_per_load() -> None:
    box = inbox()
    assert reason(box.judge(message(command(GPU, seq=9)), START)) is None
    assert reason(box.judge(message(command(LOADS["gpus-002"], seq=8)), START)) is None
    assert reason(box.judge(message(command(GPU, seq=8)), START)) is Reason.REPLAYED


def test_an_older_epoch_ends_when_a_newer_one_begins() -> None:
    box = inbox()
    assert reason(box.judge(message(command(GPU, seq=9)), START)) is None
    assert reason(box.judge(message(command(GPU, seq=1, epoch=2)), START)) is None
    assert reason(box.judge(message(command(LOADS["gpus-002"], seq=10)), START)) is Reason.OLDER_EPOCH


def test_nothing_from_before_the_start_is_taken() -> None:
    box = Inbox(FACILITY, "node-1", LOADS, started_at=START)
    assert reason(box.judge(message(command(GPU, at=START - 0.1)), START)) is Reason.STALE


def test_another_policy_is_only_counted() -> None:
    box = inbox(policy_hash="1" * 64)
    assert reason(box.judge(message(command(GPU)), START)) is None
    assert box.other_policy == 1


@pytest.mark.parametrize("changed", [{"watts": 699.0}, {"signature": ""}, {"signature": "é"}, {"signature": 7}])
def test_a_changed_signed_command_is_forged(changed: dict[str, Any]) -> None:
    assert reason(inbox(key=KEY).judge(message(command(GPU), KEY, **changed), START)) is Reason.FORGED


def test_an_unsigned_or_otherwise_signed_command_is_forged() -> None:
    box = inbox(key=KEY)
    assert reason(box.judge(message(command(GPU)), START)) is Reason.FORGED
    assert reason(box.judge(message(command(GPU), b"another"), START)) is Reason.FORGED


def test_a_forged_command_changes_nothing_for_the_genuine_one() -> None:
    box = inbox(key=KEY)
    box.judge(message(command(GPU, seq=50, epoch=50), b"another"), START)
    assert reason(box.judge(message(command(GPU), KEY), START)) is None


def beat(at: float = START, *, agent: str = "node-1", epoch: int = 1, key: bytes | None = None) -> HeartbeatMessage:
    return HeartbeatMessage(FACILITY, heartbeat_payload(Heartbeat(FACILITY, agent, epoch, at, 60.0), key))


def test_a_heartbeat_is_judged_like_a_command() -> None:
    box = inbox()
    assert reason(box.judge_heartbeat(beat(START - 6.0), START)) is Reason.STALE
    assert reason(box.judge_heartbeat(beat(agent="node-2"), START)) is Reason.OTHER_AGENT
    assert reason(box.judge_heartbeat(replace(beat(), retained=True), START)) is Reason.RETAINED
    assert reason(box.judge_heartbeat(beat(), START)) is None
    assert reason(box.judge_heartbeat(beat(), START)) is Reason.REPLAYED
    assert reason(box.judge_heartbeat(beat(START + 1.0, epoch=2), START + 1.0)) is None
    assert reason(box.judge_heartbeat(beat(START + 2.0), START + 2.0)) is Reason.OLDER_EPOCH
    assert reason(inbox(key=KEY).judge_heartbeat(beat(), START)) is Reason.FORGED


def test_an_old_controller_is_not_obeyed_once_a_new_one_was_heard() -> None:
    box = inbox()
    assert reason(box.judge_heartbeat(beat(epoch=2), START)) is None
    assert reason(box.judge(message(command(GPU)), START)) is Reason.OLDER_EPOCH


def test_fifty_queued_old_commands_execute_nothing() -> None:
    box = inbox()
    queued = [message(command(GPU, at=START + n, seq=n + 1)) for n in range(50)]
    verdicts = [box.judge(one, START + 60.0) for one in queued]
    assert [reason(verdict) for verdict in verdicts] == [Reason.STALE] * 50


orders = st.builds(
    lambda load, seq, epoch, age_s, life_s: command(
        load, at=START - age_s, seq=seq, epoch=epoch, not_after=START - age_s + life_s
    ),
    st.sampled_from(list(LOADS.values())),
    st.integers(1, 6),
    st.integers(1, 3),
    st.floats(-10.0, 30.0),
    st.floats(0.0, 60.0),
)


@settings(max_examples=200, deadline=None)
@given(sent=st.lists(orders, max_size=30), repeats=st.data())
def test_no_replay_and_nothing_old_is_ever_taken(sent: list[Command], repeats: st.DataObject) -> None:
    box = inbox()
    stream = sent + (repeats.draw(st.lists(st.sampled_from(sent), max_size=30)) if sent else [])
    taken: list[Command] = []
    for order in stream:
        verdict = box.judge(message(order), START)
        if isinstance(verdict, Command):
            taken.append(verdict)
    keys = [(order.load_id, order.epoch, order.seq) for order in taken]
    assert len(set(keys)) == len(keys)
    for load_id in LOADS:
        marks = [(order.epoch, order.seq) for order in taken if order.load_id == load_id]
        assert marks == sorted(marks)
    epochs = [order.epoch for order in taken]
    assert epochs == sorted(epochs)
    assert all(abs(START - order.issued_at) <= 5.0 and order.not_after >= START for order in taken)
    assert box.accepted + sum(box.rejected.values()) == len(stream)


def test_every_verb_that_may_be_asked_is_taken() -> None:
    box = inbox()
    for seq, verb in enumerate(Verb, start=1):
        assert reason(box.judge(message(command(GPU, verb, seq=seq)), START)) is None
