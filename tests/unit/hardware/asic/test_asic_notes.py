"""What the driver says of a bank's password before anything runs: silent, warning, or read-only."""

from __future__ import annotations

from typing import Any

import pytest

from mullet.app.build import known_names
from mullet.domain.load import Steering
from mullet.ports import BankNotes
from mullet.registry import Registry
from mullet_hardware.asic.capability import FIRMWARES, Firmware
from mullet_hardware.asic.driver import AsicDriver
from mullet_hardware.asic.options import DEFAULT_ACCEPTED, DEFAULT_REFUSED


def has_default(firmware: Firmware) -> bool:
    return firmware.password is not None and firmware.capability.steering is not Steering.MONITOR


@pytest.mark.parametrize("firmware", FIRMWARES.values(), ids=FIRMWARES)
def test_each_firmware_with_a_default_password_is_read_only_until_that_is_acknowledged(firmware: Firmware) -> None:
    def notes(**options: Any) -> BankNotes:
        return AsicDriver.notes_for({"class": firmware.name, **options})

    asks = has_default(firmware)
    assert notes() == BankNotes(barred=DEFAULT_REFUSED if asks else None)
    assert notes(accept_default_password=True) == BankNotes(warnings=(DEFAULT_ACCEPTED,) if asks else ())
    assert notes(credential="site") == BankNotes()


def test_of_a_bank_without_a_class_nothing_is_known_and_it_is_only_watched() -> None:
    assert AsicDriver.notes_for({}) == BankNotes()
    assert AsicDriver.capability_for({}).steering is Steering.MONITOR
    with pytest.raises(ValueError, match="no class"):
        AsicDriver.notes_for({"class": "toaster"})


def test_the_policy_hears_it_and_other_drivers_need_say_nothing() -> None:
    known = known_names(Registry())
    assert known.notes_of("asic", {"class": "vnish"}).barred == DEFAULT_REFUSED
    assert known.notes_of("gpu", {}) == BankNotes()
