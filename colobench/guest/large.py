"""Requests that are too large for a connection's buffer, whose bytes are kept in the clients' area.

A request counts as large if the buffer is full and the request is incomplete. Then its bytes are
moved from the buffer, element by element, until the request is complete (READY). If there is no
memory for it, the rest is skipped (SKIPPED), the answer is Redis's OOM error, and the connection
goes on. Inline requests that must be rewritten as arrays are moved likewise. See
`colobench.guest.clients` for the words of a slot; `pool` ends with the area and includes the
buffers.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import heap
from colobench.guest.clients import (
    BYTES_LEFT,
    COLLECTING,
    ELEMENTS_LEFT,
    LINE,
    READY,
    REQUEST,
    SKIPPED,
    SKIPPING,
    STAGE,
    drop,
    extend,
    grow,
    piece,
)
from colobench.guest.heap import ZERO
from colobench.guest.quoting import put_line
from colobench.guest.region import HEAP, apart, get_number, put_number
from colobench.guest.resp import INCOMPLETE, LONG_LINE, find_bulk, find_byte, find_head
from colobench.kernels.jit import Bytes, Words, inlined

#: Limit of an inline request, bytes, as in Redis.
LONGEST_LINE = 65536
_STAR, _NEWLINE, _RETURN = ord("*"), np.int64(10), 13


@inlined
def _keep(
    pool: Bytes, bitmap: Words, area: int, client: int, begin: int, length: int, more: int
) -> int:
    """Keep bytes of a request, with room for more; skip the request if there is no memory."""
    if get_number(pool, client + STAGE) != COLLECTING:
        return 0
    _, before = piece(pool, area, client + REQUEST)
    if grow(pool, bitmap, area, client + REQUEST, before + length + more) == 0:
        drop(pool, bitmap, area, client + REQUEST)
        return put_number(pool, bitmap, client + STAGE, SKIPPING)
    extend(pool, bitmap, area, client + REQUEST, begin, length)
    return 0


@inlined
def begin_large(pool: Bytes, bitmap: Words, area: int, client: int, request: int, end: int) -> int:
    """Begin to move a request out of the buffer; return the address at which the buffer goes on."""
    apart()
    if pool[request] != _STAR:
        put_number(pool, bitmap, client + STAGE, LINE)
        return request
    count, first = find_head(pool, request, end)
    put_number(pool, bitmap, client + STAGE, COLLECTING)
    put_number(pool, bitmap, client + ELEMENTS_LEFT, count)
    put_number(pool, bitmap, client + BYTES_LEFT, ZERO)
    _keep(pool, bitmap, area, client, request, first - request, ZERO)
    return first


@inlined
def _take_elements(
    pool: Bytes, bitmap: Words, area: int, client: int, begin: int, end: int, longest: int
) -> tuple[int, int]:
    """Move the bytes of an array out of the buffer; the interface is that of `take`."""
    left = get_number(pool, client + ELEMENTS_LEFT)
    missing = get_number(pool, client + BYTES_LEFT)
    at, error = begin, 0
    while at < end and (left > 0 or missing > 0):
        if missing > 0:
            part = min(missing, end - at)
            at, missing = at + part, missing - part
            continue
        length, following = find_bulk(pool, at, end, longest)
        if length < 0:
            error = length
            break
        at, missing, left = following, length + 2, left - 1
    if error < INCOMPLETE:
        return error, at
    _keep(pool, bitmap, area, client, begin, at - begin, missing)
    put_number(pool, bitmap, client + ELEMENTS_LEFT, left)
    put_number(pool, bitmap, client + BYTES_LEFT, missing)
    if left <= 0 and missing <= 0:
        kept = get_number(pool, client + STAGE) == COLLECTING
        put_number(pool, bitmap, client + STAGE, READY if kept else SKIPPED)
    return 0, at


@inlined
def rewrite(pool: Bytes, bitmap: Words, area: int, client: int, begin: int, end: int) -> int:
    """Make an array of an inline request, up to its newline; return 0 or an error."""
    apart()
    if end > begin and pool[end - 1] == _RETURN:
        end -= 1
    count, length = put_line(pool, bitmap, ZERO, -1, begin, end)
    if count < 0:
        return count
    at = heap.allocate(pool, bitmap, area + HEAP, length)
    if at:
        put_line(pool, bitmap, at, at + length, begin, end)
    drop(pool, bitmap, area, client + REQUEST)
    put_number(pool, bitmap, client + REQUEST, at)
    put_number(pool, bitmap, client + REQUEST + 8, length if at else 0)
    put_number(pool, bitmap, client + STAGE, READY if at else SKIPPED)
    return 0


@inlined
def _take_line(
    pool: Bytes, bitmap: Words, area: int, client: int, begin: int, end: int
) -> tuple[int, int]:
    """Move the bytes of a line out of the buffer; the interface is that of `take`."""
    newline = find_byte(pool, begin, end, _NEWLINE)
    kept = extend(pool, bitmap, area, client + REQUEST, begin, newline - begin)
    at, length = piece(pool, area, client + REQUEST)
    if not kept or length > LONGEST_LINE:
        return LONG_LINE, begin
    if newline == end:
        return 0, end
    return rewrite(pool, bitmap, area, client, at, at + length), newline + 1


@inlined
def take(
    pool: Bytes, bitmap: Words, area: int, client: int, begin: int, end: int, longest: int
) -> tuple[int, int]:
    """Take in the bytes of a large request from `begin` to `end`.

    Returns 0 or a protocol error of `colobench.guest.resp`, and the address after the bytes taken.
    """
    apart()
    if get_number(pool, client + STAGE) == LINE:
        return _take_line(pool, bitmap, area, client, begin, end)
    return _take_elements(pool, bitmap, area, client, begin, end, longest)
