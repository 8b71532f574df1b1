"""A raise of a limit counts in part only where the limit rose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from control_kit import entry_of, ledger_of

from mullet.control.verify import verify
from mullet.domain.command import OutcomeKind, Receipt
from mullet.testing.builders import circuit, command, facility, gpu, snapshot, telemetry
from mullet.testing.virtual_time import START

SITE = facility(circuits=(circuit("grid", None, 40_000.0, meter="grid"),), miners=[], gpus=[gpu("gpus-001", "grid")])
GPU = SITE.load_by_id["gpus-001"]
RAISE = command(GPU, watts=700.0, most_before_watts=231.0, most_after_watts=700.0)
YES = Receipt(RAISE.id, GPU.id, START, True, "set")
LOST = Receipt(RAISE.id, GPU.id, START, None, "LinkError: no answer", unreachable=True)
LATE = START + 60.0


@pytest.mark.parametrize(
    ("limit", "receipt", "kind", "most"),
    [
        (700.0, YES, OutcomeKind.APPLIED, 700.0),
        (700.0, LOST, OutcomeKind.APPLIED, 700.0),
        (300.0, YES, OutcomeKind.APPLIED, 300.0),
        (231.0, YES, OutcomeKind.REFUSED, None),
        (200.0, YES, OutcomeKind.REFUSED, None),
        (231.0, LOST, OutcomeKind.UNREACHABLE, None),
        (200.0, LOST, OutcomeKind.UNREACHABLE, None),
    ],
)
def test_what_a_late_readback_says(limit: float, receipt: Receipt, kind: OutcomeKind, most: float | None) -> None:
    reading = replace(telemetry(GPU, LATE), limit_watts=limit, watts=150.0)
    seen = replace(
        snapshot(SITE, LATE), telemetry={GPU.id: reading}, ledger=ledger_of(entry_of(RAISE, receipt=receipt))
    )
    (found,) = verify(SITE, seen)
    assert (found.kind, found.most_watts) == (kind, most)
