r"""Patterns of keys and names with Redis's syntax: ``*``, ``?``, ``[a-z]``, ``[^a]``, ``\x``.

A pattern is in RAM; the text is in RAM or a constant of the program. With `fold`, letters match in
any case. After a mismatch the last ``*`` takes one more character, so the number of steps is at
most the product of the two lengths.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.resp import lower
from colobench.kernels.jit import Bytes, inlined

_STAR, _ANY, _OPEN, _CLOSE = ord("*"), ord("?"), ord("["), ord("]")
_CARET, _DASH, _BACKSLASH = ord("^"), ord("-"), ord("\\")


@inlined
def _folded(byte: int, fold: bool) -> int:
    """Return a byte as it is compared, with `fold` in lower case."""
    return lower(byte) if fold else np.int64(byte)


@inlined
def _match_class(pattern: Bytes, at: int, end: int, byte: int, fold: bool) -> tuple[bool, int]:
    """Match a byte with the class whose ``[`` is before `at`; the pattern's end may end it."""
    negated = at < end and pattern[at] == _CARET
    if negated:
        at += 1
    found = False
    while at < end and pattern[at] != _CLOSE:
        if pattern[at] == _BACKSLASH and at + 1 < end:
            at += 1
            found = found or pattern[at] == byte
        elif at + 2 < end and pattern[at + 1] == _DASH:
            one, other = _folded(pattern[at], fold), _folded(pattern[at + 2], fold)
            found = found or min(one, other) <= _folded(byte, fold) <= max(one, other)
            at += 2
        else:
            found = found or _folded(pattern[at], fold) == _folded(byte, fold)
        at += 1
    return found != negated, min(at + 1, end)


@inlined
def _match_one(pattern: Bytes, at: int, end: int, byte: int, fold: bool) -> tuple[bool, int]:
    """Match a byte with a pattern's next element; also return the address after that element."""
    if pattern[at] == _ANY:
        return True, at + 1
    if pattern[at] == _OPEN:
        return _match_class(pattern, at + 1, end, byte, fold)
    if pattern[at] == _BACKSLASH and at + 1 < end:
        at += 1
    return _folded(pattern[at], fold) == _folded(byte, fold), at + 1


@inlined
def matches(
    pattern: Bytes, begin: int, length: int, text: Bytes, first: int, size: int, fold: bool
) -> bool:
    """Say whether a pattern matches a whole text.

    Parameters
    ----------
    pattern, begin, length
        Bytes that contain the pattern, its offset, and its length.
    text, first, size
        The same for the text. As in Redis, only the empty pattern matches an empty text.
    fold
        True if letters match in any case.
    """
    if size == 0:
        return length == 0
    at, end, place, last = begin, begin + length, first, first + size
    star, retry = np.int64(-1), first
    while at < end or place < last:
        if at < end and pattern[at] == _STAR:
            star, retry = at, place
            at += 1
            continue
        matched = False
        if at < end and place < last:
            matched, following = _match_one(pattern, at, end, text[place], fold)
        if matched:
            at, place = following, place + 1
        elif star >= 0 and retry < last:
            retry += 1
            at, place = star + 1, retry
        else:
            return False
    return True


@inlined
def is_plain(pattern: Bytes, begin: int, length: int) -> bool:
    """Say whether a pattern has none of ``*``, ``?`` and ``[``, and so is a name."""
    for at in range(begin, begin + length):  # noqa: SIM110 (numba has no `all`)
        if pattern[at] in (_STAR, _ANY, _OPEN):
            return False
    return True
