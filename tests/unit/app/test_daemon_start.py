"""What a daemon finds when it starts: a record that is not its own, half a token, and a signal too early."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mullet.adapters.clock import SystemClock
from mullet.adapters.journal import SqliteJournal
from mullet.app.daemon import DaemonOptions, _ledger_at_start, _own_token, run_daemon
from mullet.control import record
from mullet.policy import LoadedPolicy, PolicyErrors
from mullet.ports import JournalError
from mullet.testing.builders import facility


async def test_the_record_of_another_facility_is_not_taken_over(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", SystemClock())
    try:
        own = cast("LoadedPolicy", SimpleNamespace(facility=facility(id="north")))
        assert _ledger_at_start(journal, own).epoch == 1
        await journal.append([(record.START, {"epoch": 1}), (record.FACILITY, record.facility_body(own.facility))])
        assert _ledger_at_start(journal, own).epoch == 2
        other = cast("LoadedPolicy", SimpleNamespace(facility=facility(id="south")))
        with pytest.raises(JournalError, match=r"the record of 'north': 'south' needs a state folder of its own"):
            _ledger_at_start(journal, other)
    finally:
        await journal.close()


def test_the_token_is_kept_and_half_a_one_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    path.touch()
    (tmp_path / "api-token.new").write_text("half")
    token = _own_token(tmp_path)
    assert len(token) >= 16
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _own_token(tmp_path) == token
    assert [item.name for item in tmp_path.iterdir()] == ["api-token"]


async def test_a_request_to_reload_before_it_is_up_does_not_end_it(tmp_path: Path) -> None:
    policy = tmp_path / "site.yaml"
    policy.write_text("x: 1\n")

    def rewrite(text: str) -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        return text

    with pytest.raises(PolicyErrors):
        await run_daemon(DaemonOptions(policy, state=tmp_path / "state", rewrite=rewrite))
