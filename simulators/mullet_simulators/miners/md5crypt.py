"""MD5-crypt, the password scheme with which Whatsminer V2 derives its keys (after P.-H. Kamp, FreeBSD)."""

from __future__ import annotations

import hashlib

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ROUNDS = 1000
_ORDER = ((0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5))


def md5crypt(password: str, salt: str) -> str:
    """The 22 characters after `$1$salt$`."""
    word, grain = password.encode(), salt.encode()[:8]
    inner = _digest(word + grain + word)
    start = word + b"$1$" + grain
    start += (inner * (len(word) // 16 + 1))[: len(word)]
    bits = len(word)
    while bits:
        start += b"\0" if bits & 1 else word[:1]
        bits >>= 1
    digest = _digest(start)
    for turn in range(ROUNDS):
        mixed = word if turn & 1 else digest
        if turn % 3:
            mixed += grain
        if turn % 7:
            mixed += word
        digest = _digest(mixed + (digest if turn & 1 else word))
    groups = [digest[a] << 16 | digest[b] << 8 | digest[c] for a, b, c in _ORDER]
    return "".join(_letters(group, 4) for group in groups) + _letters(digest[11], 2)


def _digest(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _letters(value: int, count: int) -> str:
    return "".join(ALPHABET[value >> 6 * place & 0x3F] for place in range(count))
