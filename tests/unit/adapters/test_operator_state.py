import json
import os
import stat
from pathlib import Path

import pytest

from mullet.adapters.state import StateError, StateFile
from mullet.domain.facility import Mode
from mullet.domain.feeds import Cause, Curtailment
from mullet.domain.snapshot import Hold, HoldKind, OperatorState

STATE = OperatorState(
    Mode.AUTO,
    (
        Hold("h1", "asic-001", HoldKind.OFF, "ann", "fan noise", 1_780_000_000.5),
        Hold("h2", "feeder-a", HoldKind.ON, "bob", "é test", 1_780_000_001.0),
    ),
    (Curtailment("shed-1", "feeder-a", 2e5, 1_780_000_000.0, 1_880_000_000.0, Cause.EMERGENCY, 1_780_000_000.0),),
)


def test_what_was_saved_is_loaded_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    StateFile(path).save(STATE)
    again = StateFile(path)
    assert again.load() == STATE
    assert again.problem is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["operator.json"]


def test_a_first_start_is_observe_unless_told_otherwise(tmp_path: Path) -> None:
    assert StateFile(tmp_path / "operator.json").load() == OperatorState(Mode.OBSERVE)
    assert StateFile(tmp_path / "operator.json", first_mode=Mode.AUTO).load() == OperatorState(Mode.AUTO)


def test_any_damage_gives_observe_and_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    StateFile(path).save(STATE)
    good = path.read_bytes()
    cases = [good[: len(good) // 2], b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version":1,"state":NaN}']
    for position in range(0, len(good), 7):
        cases.append(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
    for damaged in cases:
        path.write_bytes(damaged)
        file = StateFile(path, first_mode=Mode.AUTO)
        assert file.load().mode is Mode.OBSERVE, damaged
        assert file.problem is not None
        assert str(path) in file.problem
        with pytest.raises(StateError, match="not saved"):
            file.save(STATE)
        assert path.read_bytes() == damaged


def test_holds_that_can_still_be_read_stay(tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    StateFile(path).save(STATE)
    data = json.loads(path.read_bytes())
    data["state"]["holds"][0]["kind"] = "sideways"
    path.write_text(json.dumps(data))
    file = StateFile(path)
    assert file.load() == OperatorState(Mode.OBSERVE, STATE.holds[1:], STATE.orders)
    aside = file.set_aside()
    assert json.loads(aside.read_bytes()) == data
    file.save(STATE)
    assert StateFile(path).load() == STATE


def test_a_failed_save_leaves_the_old_orders(tmp_path: Path) -> None:
    path = tmp_path / "operator.json"
    file = StateFile(path)
    file.save(STATE)
    (tmp_path / "operator.json.new").mkdir()
    with pytest.raises(StateError):
        file.save(OperatorState(Mode.OBSERVE))
    assert StateFile(path).load() == STATE


def test_a_file_that_cannot_be_read_gives_observe(tmp_path: Path) -> None:
    (tmp_path / "operator.json").mkdir()
    file = StateFile(tmp_path / "operator.json", first_mode=Mode.AUTO)
    assert file.load() == OperatorState(Mode.OBSERVE)
    assert file.problem is not None
