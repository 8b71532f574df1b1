"""A demo that is given no usable broker starts nothing and says why."""

from __future__ import annotations

from cli_kit import run


def test_a_broker_that_is_none_is_told_in_one_line() -> None:
    ended = run("demo", "--seconds", "30", "--json", "--port", "0", "--broker", "localhost")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == "mullet: 'localhost' is no broker; write it as mqtt://127.0.0.1:1883\n"
