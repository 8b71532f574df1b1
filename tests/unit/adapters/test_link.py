"""Queues of the links: bounded, and what is newest survives; what cannot be a topic is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from mullet.adapters.broker import BrokerSettings
from mullet.adapters.clock import SystemClock
from mullet.adapters.link import LatestReadings, NewestQueue, mortal
from mullet.adapters.mqtt import MqttAgentTransport, jittered_backoff
from mullet.domain.message import MessageError, read_telemetry, telemetry_payload
from mullet.domain.telemetry import Telemetry
from mullet.ports import LinkError
from mullet.testing.builders import command, gpu
from mullet.testing.virtual_time import START

T = TypeVar("T")


async def take(items: AsyncIterator[T], count: int) -> list[T]:
    return [await anext(items) for _ in range(count)]


async def test_a_full_queue_gives_up_the_oldest() -> None:
    queue: NewestQueue[int] = NewestQueue(3)
    for number in range(5):
        queue.put(number)
    queue.close()
    assert [number async for number in queue.items()] == [2, 3, 4]
    assert queue.dropped == 2


async def test_a_slow_reader_finds_the_newest_reading_of_each_load() -> None:
    latest = LatestReadings(most_loads=2)
    for at in range(3):
        latest.put([Telemetry("a", float(at)), Telemetry("b", float(at)), Telemetry("c", float(at))])
    assert await take(latest.items(), 2) == [Telemetry("a", 2.0), Telemetry("b", 2.0)]


def test_a_command_lives_no_longer_than_its_sender_waits() -> None:
    order = command(gpu(), at=START)
    assert mortal(order, START, 2.0).not_after == START + 2.0
    assert mortal(order, START, 600.0).not_after == order.not_after
    with pytest.raises(LinkError):
        mortal(order, order.not_after, 2.0)


@pytest.mark.parametrize(
    ("sender_ahead_s", "expected_at"),
    [(0.0, START - 1.0), (30.0, START - 1.0), (-30.0, START - 31.0)],
)
def test_a_wrong_clock_never_makes_a_reading_fresher(sender_ahead_s: float, expected_at: float) -> None:
    sent_at = START + sender_ahead_s
    payload = telemetry_payload([Telemetry("a", sent_at - 1.0, watts=5.0)], sent_at)
    (reading,) = read_telemetry(payload, START)
    assert reading == Telemetry("a", expected_at, watts=5.0)


def test_a_reading_that_is_no_number_is_unknown_and_costs_no_other() -> None:
    payload = telemetry_payload([Telemetry("a", START, watts=float("nan")), Telemetry("b", START, watts=1.0)], START)
    assert [reading.watts for reading in read_telemetry(payload, START)] == [None, 1.0]


def test_a_make_travels_once_for_all_loads_that_have_it() -> None:
    makes = {"a": "Antminer S19j Pro / luxos", "b": None, "c": "Antminer S19j Pro / luxos"}
    readings = [Telemetry(load_id, START, watts=1.0, make=make) for load_id, make in makes.items()]
    payload = telemetry_payload(readings, START)
    assert list(read_telemetry(payload, START)) == readings
    assert payload.count(b"luxos") == 1


def test_telemetry_of_an_agent_that_knows_no_makes_is_read() -> None:
    body = json.loads(telemetry_payload([Telemetry("a", START, watts=5.0)], START))
    del body["makes"]
    assert "make" not in body["readings"][0]
    assert read_telemetry(json.dumps(body).encode(), START) == (Telemetry("a", START, watts=5.0),)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"sent_at": 1, "readings": [{}]}',
        b'{"sent_at": NaN}',
        b'{"sent_at": 1, "readings": [], "makes": ["a"]}',
        b'{"sent_at": 1, "readings": [], "makes": {"a": 5}}',
    ],
)
def test_telemetry_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        read_telemetry(payload, START)


def test_backoff_grows_to_its_limit_and_is_never_the_same_for_two() -> None:
    one, two = jittered_backoff(0.25, 5.0, seed=1), jittered_backoff(0.25, 5.0, seed=2)
    waits = [one(attempt) for attempt in range(1, 40)]
    assert all(0.0 < wait_s <= 5.0 for wait_s in waits)
    assert min(waits[10:]) >= 2.5
    assert waits != [two(attempt) for attempt in range(1, 40)]


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#"])
def test_a_name_that_would_change_the_topic_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        MqttAgentTransport("demo", name, BrokerSettings("127.0.0.1"), SystemClock())
