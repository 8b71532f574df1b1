"""The simulated miners' own protobuf codec, held against another implementation and against broken messages."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullet_simulators.miners.protobuf import Value, bytes_in, decode, encode, number_in

_root = logging.getLogger()
_before = (list(_root.handlers), _root.level)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pyasic.web.braiins_os.proto.braiins.bos.v1 import (
        FanState,
        GigaHashrate,
        LoginRequest,
        LoginResponse,
        Power,
        SaveAction,
        SetPowerTargetRequest,
    )
_root.handlers[:], _root.level = _before

TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=200)
UINT64 = st.integers(0, 2**64 - 1)
NUMBERS = st.integers(1, 2**29 - 1)


@given(TEXTS, st.integers(0, 2**32 - 1))
def test_scalars_agree_with_another_implementation(text: str, number: int) -> None:
    ours = encode([(1, text), (2, number)])
    assert ours == bytes(LoginResponse(token=text, timeout_s=number))
    theirs = decode(bytes(LoginRequest(username=text, password="x")))
    assert bytes_in(theirs, 1).decode() == text


@given(UINT64, st.sampled_from(list(SaveAction)))
def test_nested_messages_agree_with_another_implementation(watts: int, action: int) -> None:
    request = bytes(SetPowerTargetRequest(save_action=SaveAction(action), power_target=Power(watt=watts)))
    fields = decode(request)
    assert number_in(fields, 1) == int(action)
    assert number_in(decode(bytes_in(fields, 2)), 1) == watts


@given(st.floats(allow_nan=False))
def test_doubles_agree_with_another_implementation(rate: float) -> None:
    parsed = GigaHashrate().parse(encode([(1, rate)]))
    assert parsed.gigahash_per_second == rate


@given(st.lists(st.tuples(NUMBERS, UINT64.filter(bool) | st.binary(max_size=40)), max_size=20))
def test_what_is_encoded_is_decoded(fields: list[tuple[int, int | bytes]]) -> None:
    found = decode(encode(fields))
    for number in {number for number, _ in fields}:
        assert found[number] == [value for other, value in fields if other == number]


@given(st.lists(st.tuples(NUMBERS, UINT64.filter(bool) | st.binary(max_size=40)), min_size=1, max_size=5), st.data())
def test_half_a_message_is_refused_or_a_shorter_one(fields: list[tuple[int, Value]], data: st.DataObject) -> None:
    whole = encode(fields)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        found = decode(cut)
    except ValueError:
        return
    # Cut between two fields it is a whole message of fewer.
    assert sum(len(values) for values in found.values()) < len(fields)


@given(st.binary(max_size=100))
def test_whatever_comes_is_decoded_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        return


def test_defaults_are_left_out_and_an_empty_message_is_not() -> None:
    assert encode([(1, 0), (2, 0.0), (3, False), (4, ""), (5, None)]) == b""
    assert encode([(1, b"")]) == b"\x0a\x00"


def test_unknown_fields_are_passed_over() -> None:
    fan = FanState().parse(encode([(2, 5400), (1000, 7), (1001, b"more"), (1002, 1.5)]))
    assert fan.rpm == 5400
    assert decode(b"\x15\x01\x00\x00\x00") == {2: [1]}


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x08\xff", b"\x0a\x05ab", b"\x09\x00", b"\x0b", b"\x00\x00", b"\x08" + b"\xff" * 10 + b"\x01"]
)
def test_broken_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)


def test_a_field_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError):
        number_in(decode(encode([(1, b"text")])), 1)
    with pytest.raises(ValueError):
        bytes_in(decode(encode([(1, 5)])), 1)
    with pytest.raises(ValueError):
        encode([(1, -1)])


def test_a_facility_without_such_miners_loads_no_http2() -> None:
    check = "import sys, mullet_simulators.facility; sys.exit('h2' in sys.modules or 'grpclib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
