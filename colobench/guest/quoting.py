r"""Inline requests with quotes and escapes, rewritten as arrays: ``"a\x41\n"``, ``'it\'s'``.

The syntax is that of Redis's sdssplitargs. The line begins at `at` and ends at `end`, without its
newline and a carriage return before that; a zero byte ends it, too.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.region import apart
from colobench.guest.resp import (
    ARRAY,
    UNBALANCED_QUOTES,
    lower,
    put_head,
    put_text,
)
from colobench.guest.store import keep_bytes, mark_bytes
from colobench.kernels.jit import Bytes, Words, inlined

_BULK = np.int64(ord("$"))
_TAB, _NEWLINE, _RETURN, _SPACE = 9, 10, 13, 32
_DOUBLE_QUOTE, _QUOTE, _BACKSLASH, _X = 34, 39, 92, ord("x")
_ZERO, _NINE, _A, _F = ord("0"), ord("9"), ord("a"), ord("f")
_N, _R, _T, _B = ord("n"), ord("r"), ord("t"), ord("b")


@inlined
def _byte(memory: Bytes, at: int, end: int) -> int:
    """Return a byte of the line, or 0 after its end."""
    return np.int64(memory[at]) if at < end else 0


@inlined
def _is_space(byte: int) -> bool:
    return byte == _SPACE or _TAB <= byte <= _RETURN


@inlined
def _hexadecimal(byte: int) -> int:
    """Return the value of a hexadecimal digit, or -1."""
    if _ZERO <= byte <= _NINE:
        return byte - _ZERO
    byte = lower(byte)
    return byte - _A + 10 if _A <= byte <= _F else -1


@inlined
def _escaped(memory: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return the byte that an escape sequence stands for, and the address after the sequence."""
    kind = _byte(memory, at + 1, end)
    high = _hexadecimal(_byte(memory, at + 2, end))
    low = _hexadecimal(_byte(memory, at + 3, end))
    if kind == _X and high >= 0 and low >= 0:
        return 16 * high + low, at + 4
    if kind == _N:
        kind = _NEWLINE
    elif kind == _R:
        kind = _RETURN
    elif kind == _T:
        kind = _TAB
    elif kind == _B:
        kind = 8
    elif kind == _A:
        kind = 7
    return kind, at + 2


@inlined
def _copy_word(memory: Bytes, at: int, end: int, to: int, limit: int) -> tuple[int, int]:
    """Write the word that begins at `at` to `to`, as far as it fits before `limit`.

    Returns its length, or UNBALANCED_QUOTES, and the address after it in the line.
    """
    apart()
    length, quote = 0, 0
    while True:
        byte = _byte(memory, at, end)
        following = at + 1
        if quote:
            if byte == 0:
                return UNBALANCED_QUOTES, at
            after = _byte(memory, following, end)
            if byte == quote:
                if after != 0 and not _is_space(after):
                    return UNBALANCED_QUOTES, at
                return length, following
            if byte == _BACKSLASH and quote == _DOUBLE_QUOTE and after != 0:
                byte, following = _escaped(memory, at, end)
            elif byte == _BACKSLASH and quote == _QUOTE and after == _QUOTE:
                byte, following = _QUOTE, at + 2
        elif byte == 0 or byte in (_SPACE, _NEWLINE, _RETURN, _TAB):
            return length, at
        elif byte in (_QUOTE, _DOUBLE_QUOTE):
            quote, at = byte, following
            continue
        if to + length < limit:
            memory[to + length] = np.uint8(byte)
        length += 1
        at = following


@inlined
def _count_words(memory: Bytes, at: int, end: int) -> int:
    """Count a line's words, or return UNBALANCED_QUOTES."""
    count = 0
    while True:
        while _is_space(_byte(memory, at, end)):
            at += 1
        if _byte(memory, at, end) == 0:
            return count
        length, at = _copy_word(memory, at, end, 0, 0)
        if length < 0:
            return length
        count += 1


@inlined
def put_line(
    memory: Bytes, bitmap: Words, to: int, limit: int, at: int, end: int
) -> tuple[int, int]:
    """Write a line as an array, from `to` on, like the writers of `resp`.

    Line and array must not overlap. Returns the number of words, or UNBALANCED_QUOTES, and the
    address after the array.
    """
    apart()
    count = _count_words(memory, at, end)
    if count < 0:
        return count, to
    to = put_head(memory, bitmap, to, limit, ARRAY, count)
    for _ in range(count):
        while _is_space(_byte(memory, at, end)):
            at += 1
        length, _ = _copy_word(memory, at, end, 0, 0)
        to = put_head(memory, bitmap, to, limit, _BULK, length)
        fits = length > 0 and to + length <= limit
        if fits:
            keep_bytes(memory, bitmap, to, length)
        _, at = _copy_word(memory, at, end, to, limit if fits else 0)
        if fits:
            mark_bytes(bitmap, to, length)
        to = put_text(memory, bitmap, to + length, limit, b"\r\n")
    return count, to
