"""A sensor over HTTP: a number in the unit asked for, measured just now, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from adapters_kit import Hands, Web, no_secrets

from mullet.adapters.feeds.sensor import HttpSensorFeed
from mullet.ports import DriverContext, FeedError

T0 = 1_780_000_000.0  # 2026-05-28T20:26:40Z
NOW = "2026-05-28T20:26:40Z"


def feed(web: Web, **options: Any) -> HttpSensorFeed:
    return HttpSensorFeed(DriverContext({"ambient": {"url": web.url, **options}}, no_secrets, Hands(T0)), "ambient")


def page(**fields: Any) -> str:
    return json.dumps({"measured_at": NOW, "unit": "degC", "value": -12.5, **fields})


async def test_a_fresh_value_is_read(web: Web) -> None:
    web.page(page())
    sensor = feed(web)
    assert await sensor.fetch(5.0) == -12.5
    web.page(page(measured_at="2026-05-28T20:26:36Z", value=3))
    assert await sensor.fetch(5.0) == 3.0
    await sensor.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (page(measured_at="2026-05-28T20:26:34Z"), "measured 6 s ago"),
        (page(unit="degF"), "unit 'degF' is not 'degC'"),
        (page(value="12"), "'value' must be a number"),
        (page(value=None), "'value' must be a number"),
        ('{"value": 1.0}', "'measured_at' must be a text"),
        ("[]", "expected an object"),
    ],
)
async def test_anything_else_is_no_reading(web: Web, body: str, reason: str) -> None:
    web.page(body)
    sensor = feed(web)
    with pytest.raises(FeedError, match=reason):
        await sensor.fetch(5.0)
    await sensor.close()
