"""The miners' authentication and their answers under faults, without sockets."""

from __future__ import annotations

import hashlib
import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullet_simulators.faults import Fault, distort
from mullet_simulators.miners.http import DigestGuard, HttpRequest
from mullet_simulators.miners.md5crypt import ALPHABET, md5crypt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from passlib.hash import md5_crypt

REALM, USER, PASSWORD, TARGET = "antMiner Configuration", "root", "root", "/cgi-bin/stats.cgi"


@settings(max_examples=15, deadline=None)
@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    st.text(ALPHABET, min_size=1, max_size=8),
)
def test_md5crypt_agrees_with_another_implementation(password: str, salt: str) -> None:
    assert md5_crypt.using(salt=salt).hash(password) == f"$1${salt}${md5crypt(password, salt)}"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def signed(guard: DigestGuard, **changes: str) -> HttpRequest:
    """A request signed as RFC 7616 says, with some fields changed."""
    header = guard.challenge("seed").headers["WWW-Authenticate"]
    nonce = header.split('nonce="')[1].split('"')[0]
    fields = {"username": USER, "realm": REALM, "nonce": nonce, "uri": TARGET, "qop": "auth"}
    fields |= {"nc": "00000001", "cnonce": "abc"} | changes
    password = fields.pop("password", PASSWORD)
    ha1 = md5(f"{fields['username']}:{fields['realm']}:{password}")
    ha2 = md5(f"GET:{fields['uri']}")
    parts = (ha1, fields["nonce"], fields["nc"], fields["cnonce"], fields["qop"], ha2)
    fields.setdefault("response", md5(":".join(parts)))
    text = ", ".join(f'{name}="{value}"' for name, value in fields.items())
    return HttpRequest("GET", TARGET, {"authorization": f"Digest {text}"}, b"")


def test_digest_admits_the_right_password() -> None:
    guard = DigestGuard(REALM, USER)
    assert guard.admits(signed(guard), PASSWORD)


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "admin"},
        {"username": "admin"},
        {"nonce": "0" * 32},
        {"uri": "/cgi-bin/other.cgi"},
        {"qop": "auth-int"},
        {"realm": "elsewhere"},
        {"response": "0" * 32},
    ],
)
def test_digest_refuses_whatever_is_wrong(changes: dict[str, str]) -> None:
    guard = DigestGuard(REALM, USER)
    assert not guard.admits(signed(guard, **changes), PASSWORD)


def test_digest_forgets_its_nonces_with_a_reboot() -> None:
    guard = DigestGuard(REALM, USER)
    request = signed(guard)
    guard.forget()
    assert not guard.admits(request, PASSWORD)
    assert not guard.admits(HttpRequest("GET", TARGET, {}, b""), PASSWORD)


def test_distorted_answers_are_not_what_was_asked() -> None:
    body = json.dumps({"STATUS": "S", "Msg": "fine"}).encode()
    assert distort(body, Fault.OK) == body
    assert json.loads(distort(body, Fault.WRONG_SHAPE)) == {"foo": 1}
    for fault in (Fault.TRUNCATED, Fault.GARBAGE):
        with pytest.raises(ValueError):
            json.loads(distort(body, fault))
