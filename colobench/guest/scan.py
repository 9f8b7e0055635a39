"""SCAN and KEYS: walks through the table of chains.

The number of chains never changes, so SCAN's cursor is the number of the next chain: a key that
exists during a whole scan stays in one chain and is returned. Expired keys are skipped. `commands`
describes the arguments of these functions.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.commands import put_not_integer, put_syntax_error
from colobench.guest.glob import matches
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    chain_link,
    follow,
    is_expired,
    key_length,
    most_entries,
)
from colobench.guest.region import CHAIN, KEY, LINK, apart, chains_in, note_damage
from colobench.guest.resp import (
    ARRAY,
    argument,
    is_word,
    parse_integer,
    put_bulk,
    put_bulk_decimal,
    put_head,
    put_text,
)
from colobench.kernels.jit import Bytes, Words, inlined

#: Number of keys that SCAN returns about, without COUNT.
_COUNT = 10
#: Limit of the chains that one SCAN reads, which takes some 2 ms.
_MOST_CHAINS = 1 << 20
_TWO, _NONE = np.int64(2), np.int64(-1)
_STAR = ord("*")
_U0, _U10, _U48, _MAX = (np.uint64(n) for n in (0, 10, 48, 2**64 - 1))
_MAX_TENTH = np.uint64((2**64 - 1) // 10)
_MINUS, _PLUS = ord("-"), ord("+")


@inlined
def _is_wanted(memory: Bytes, kv: int, entry: int, pattern: int, length: int) -> bool:
    """Say whether a key has not expired and matches a pattern (of length -1: any key matches)."""
    if is_expired(memory, kv, entry):
        return False
    if length < 0:
        return True
    size = key_length(memory, entry)
    return matches(memory, pattern, length, memory, entry + KEY, size, False)


@inlined
def _walk_chain(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    chain: int,
    pattern: int,
    length: int,
    at: int,
    limit: int,
) -> tuple[int, int, int]:
    """Write a chain's keys; return the address after them, and the numbers of matches and of keys.

    A negative number of keys means that the chain is a ring; that was noted as damage.
    """
    link, wanted, seen = chain_link(memory, kv, chain), 0, 0
    for _ in range(most_entries(memory, kv)):
        entry = follow(memory, bitmap, kv, link)
        if not entry:
            return at, wanted, seen
        seen += 1  # noqa: SIM113 (numba's `enumerate` is slower)
        if _is_wanted(memory, kv, entry, pattern, length):
            at = put_bulk(memory, bitmap, at, limit, entry + KEY, key_length(memory, entry))
            wanted += 1
        link = entry + LINK
    note_damage(memory, bitmap, kv, CHAIN)
    return at, wanted, -1


@inlined
def _walk(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    chain: int,
    last: int,
    most: int,
    pattern: int,
    length: int,
    at: int,
    limit: int,
) -> tuple[int, int, int]:
    """Write keys from a chain on, up to `most` keys or the chain `last`.

    Returns the address after them, the number of matches, and the next chain.
    """
    apart()
    wanted, seen = 0, 0
    while chain < last and seen < most:
        at, matched, met = _walk_chain(memory, bitmap, kv, chain, pattern, length, at, limit)
        if met < 0:
            break
        wanted, seen, chain = wanted + matched, seen + met, chain + 1
    return at, wanted, chain


@inlined
def _is_everything(memory: Bytes, pattern: int, length: int) -> bool:
    """Say whether a pattern is ``*``, the only one that also matches the empty key."""
    return length == 1 and memory[pattern] == _STAR


@inlined
def keys(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, at: int, limit: int
) -> int:
    """KEYS pattern."""
    pattern, length, _ = argument(memory, request, cursor)
    if _is_everything(memory, pattern, length):
        length = _NONE
    last = chains_in(len(memory) - kv)
    most = np.int64(2**62)
    _, number, _ = _walk(memory, bitmap, kv, ZERO, last, most, pattern, length, at, at - 1)
    at = put_head(memory, bitmap, at, limit, ARRAY, number)
    at, _, _ = _walk(memory, bitmap, kv, ZERO, last, most, pattern, length, at, limit)
    return at


@inlined
def _parse_cursor(memory: Bytes, begin: int, length: int) -> tuple[bool, int]:
    """Parse a cursor like C's strtoul; return success, and the chain's number.

    A cursor may have any value; the chain's number is in its low bits.
    """
    at, end = begin, begin + length
    negative = at < end and memory[at] == _MINUS
    if negative or (at < end and memory[at] == _PLUS):
        at += 1
    if at == end:
        return False, 0
    value = _U0
    while at < end:
        digit = np.uint64(memory[at]) - _U48
        if digit >= _U10 or value > _MAX_TENTH or value * _U10 > _MAX - digit:
            return False, 0
        value = value * _U10 + digit
        at += 1
    return True, np.int64(_U0 - value if negative else value)


@inlined
def scan(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """SCAN cursor [MATCH pattern] [COUNT number] [TYPE type]."""
    begin, letters, cursor = argument(memory, request, cursor)
    valid, chain = _parse_cursor(memory, begin, letters)
    if not valid:
        return put_text(memory, bitmap, at, limit, b"-ERR invalid cursor\r\n")
    pattern, length, most, strings, left = ZERO, _NONE, np.int64(_COUNT), True, arguments - 1
    while left > 0:
        word, letters, cursor = argument(memory, request, cursor)
        if left < 2:
            return put_syntax_error(memory, bitmap, at, limit)
        begin, size, cursor = argument(memory, request, cursor)
        left -= 2
        if is_word(memory, word, letters, b"count"):
            valid, most = parse_integer(memory, begin, size)
            if not valid:
                return put_not_integer(memory, bitmap, at, limit)
            if most < 1:
                return put_syntax_error(memory, bitmap, at, limit)
        elif is_word(memory, word, letters, b"match"):
            everything = _is_everything(memory, begin, size)
            pattern, length = begin, _NONE if everything else size
        elif is_word(memory, word, letters, b"type"):
            strings = is_word(memory, begin, size, b"string")
        else:
            return put_syntax_error(memory, bitmap, at, limit)
    chains = chains_in(len(memory) - kv)
    chain &= chains - 1
    last = min(chains, chain + _MOST_CHAINS)
    _, number, following = _walk(memory, bitmap, kv, chain, last, most, pattern, length, at, at - 1)
    at = put_head(memory, bitmap, at, limit, ARRAY, _TWO)
    at = put_bulk_decimal(memory, bitmap, at, limit, following if following < chains else ZERO)
    at = put_head(memory, bitmap, at, limit, ARRAY, number if strings else ZERO)
    if strings:
        at, _, _ = _walk(memory, bitmap, kv, chain, last, most, pattern, length, at, limit)
    return at
