"""RESP, Redis's protocol: it finds requests among received bytes, and writes replies.

The protocol is described at https://redis.io/docs/latest/develop/reference/protocol-spec/. Requests
are accepted, and malformed ones answered, as by Redis 7.0, with two exceptions. A line that does
not end within BUFFER_BYTES is refused, sooner than by Redis. A zero byte does not hide the end of
its line.

A request is identified by the address of its first byte, which shows its kind: ``*`` begins an
array of bulk strings, any other byte an inline request. A cursor moves over its arguments, see
`argument`; no other state of them is kept. `colobench.guest.quoting` rewrites an inline request
with quotes as an array.

Replies are written from `at` on, as far as they fit before `limit`. The writers always return the
address after the whole reply. An address greater than `limit` means that there was no room: nothing
was written from the first part on that did not fit. If RESP3 differs from RESP2, an argument says
which of them the client speaks.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.heap import ZERO
from colobench.guest.region import apart
from colobench.guest.store import copy_bytes, keep_bytes, mark_bytes
from colobench.kernels.jit import Bytes, Words, inlined

#: Limit of a request's elements: INT_MAX.
MOST_ELEMENTS = 2**31 - 1
#: Characters of the longest integer, with its sign.
INTEGER_DIGITS = 20
#: Bytes of an unknown word that an error quotes, as in Redis.
QUOTED_BYTES = np.int64(128)

#: Results of `find_request` in place of a number of arguments: more bytes are needed; protocol
#: errors; an inline request with quotes, which must be rewritten.
INCOMPLETE, INVALID_COUNT, INVALID_LENGTH, NO_DOLLAR, LONG_LINE = -1, -2, -3, -4, -5
LONG_COUNT, LONG_LENGTH, UNBALANCED_QUOTES, QUOTED = -6, -7, -8, -9
#: Texts of the protocol errors, in that order, and the offset of each, then the end of the last.
_TEXTS = (
    b"invalid multibulk length",
    b"invalid bulk length",
    b"expected '$', got '",
    b"too big inline request",
    b"too big mbulk count string",
    b"too big bulk count string",
    b"unbalanced quotes in request",
)
_ERROR_TEXTS = b"".join(_TEXTS)
_ERROR_BEGINS = np.cumsum([0, *map(len, _TEXTS)], dtype=np.int64)

_NUL, _TAB, _NEWLINE, _RETURN, _SPACE = ZERO, 9, np.int64(10), np.int64(13), 32
_DOUBLE_QUOTE, _QUOTE, _BACKSLASH, _DOLLAR, _STAR = 34, 39, 92, np.int64(36), 42
#: First bytes of replies with a number.
INTEGER, ARRAY, _BULK = np.int64(ord(":")), np.int64(ord("*")), np.int64(ord("$"))
_MAP, _SET, _VERBATIM = np.int64(ord("%")), np.int64(ord("~")), np.int64(ord("="))
_MINUS, _ZERO, _UPPER_A, _UPPER_Z = 45, 48, 65, 90
_U0, _U10, _U48 = np.uint64(0), np.uint64(10), np.uint64(48)
_MAX = np.uint64(2**64 - 1)
_MAX_TENTH = np.uint64((2**64 - 1) // 10)
_MAX_POSITIVE, _MAX_NEGATIVE = np.uint64(2**63 - 1), np.uint64(2**63)


@inlined
def parse_integer(memory: Bytes, begin: int, length: int) -> tuple[bool, int]:
    """Parse an int64 in the only form that Redis accepts; return success, and the number."""
    apart()
    if length < 1 or length > INTEGER_DIGITS:
        return False, 0
    at, end = begin, begin + length
    negative = memory[at] == _MINUS
    if negative:
        at += 1
    if at == end or memory[at] == _ZERO:
        return length == 1 and not negative, 0
    value = _U0
    while at < end:
        digit = np.uint64(memory[at]) - _U48
        if digit >= _U10 or value > _MAX_TENTH or value * _U10 > _MAX - digit:
            return False, 0
        value = value * _U10 + digit
        at += 1
    if negative:
        return value <= _MAX_NEGATIVE, np.int64(_U0 - value)
    return value <= _MAX_POSITIVE, np.int64(value)


@inlined
def find_byte(memory: Bytes, at: int, end: int, byte: int) -> int:
    """Return the address of a byte's first occurrence before `end`, or `end`."""
    while at < end and memory[at] != byte:
        at += 1
    return at


@inlined
def _word(memory: Bytes, at: int) -> tuple[int, int, int]:
    """Return address and length of an inline request's next word, and the address after it.

    INCOMPLETE in place of the length means that there is no word, QUOTED that the word has quotes.
    The line must be complete; a zero byte ends it, too, as in Redis.
    """
    while memory[at] == _SPACE or (_TAB <= memory[at] <= _RETURN and memory[at] != _NEWLINE):
        at += 1
    first = memory[at]
    if first in (_NEWLINE, _NUL):
        return at, INCOMPLETE, at
    begin = at
    while True:
        byte = memory[at]
        if byte in (_SPACE, _NEWLINE, _RETURN, _TAB, _NUL):
            return begin, at - begin, at
        if byte in (_QUOTE, _DOUBLE_QUOTE):
            return begin, QUOTED, at
        at += 1


@inlined
def _find_line(memory: Bytes, begin: int, end: int) -> tuple[int, int, int]:
    """Find an inline request; arguments and result are those of `find_request`."""
    apart()
    newline = find_byte(memory, begin, end, _NEWLINE)
    if newline == end:
        return INCOMPLETE, begin, begin
    count, at = 0, begin
    while True:
        _, length, at = _word(memory, at)
        if length == INCOMPLETE:
            return count, begin, newline + 1
        if length < 0:
            return length, begin, newline + 1
        count += 1


@inlined
def find_bulk(memory: Bytes, at: int, end: int, longest: int) -> tuple[int, int]:
    """Find the head of a bulk string among bytes up to `end`.

    Returns the string's length and the address of its first byte. INCOMPLETE in place of the length
    means that the head is incomplete; another negative number is a protocol error.
    """
    line = find_byte(memory, at, end, _RETURN)
    if line >= end - 1:
        return LONG_LENGTH if end - at >= BUFFER_BYTES else INCOMPLETE, at
    if memory[at] != _DOLLAR:
        return NO_DOLLAR, at
    valid, length = parse_integer(memory, at + 1, line - at - 1)
    if not valid or length < 0 or length > longest:
        return INVALID_LENGTH, at
    return length, line + 2


@inlined
def find_head(memory: Bytes, begin: int, end: int) -> tuple[int, int]:
    """Find the head of an array; return its number of elements and the address of the first one.

    The number is at least 0, or negative as in `find_bulk`.
    """
    line = find_byte(memory, begin, end, _RETURN)
    if line >= end - 1:
        return LONG_COUNT if end - begin >= BUFFER_BYTES else INCOMPLETE, begin
    valid, count = parse_integer(memory, begin + 1, line - begin - 1)
    if not valid or count > MOST_ELEMENTS:
        return INVALID_COUNT, begin
    return max(count, 0), line + 2


@inlined
def _find_array(memory: Bytes, begin: int, end: int, longest: int) -> tuple[int, int, int]:
    """Find an array of bulk strings; arguments and result are those of `find_request`."""
    apart()
    count, first = find_head(memory, begin, end)
    if count < 0:
        return count, begin, begin
    at = first
    for _ in range(count):
        length, at = find_bulk(memory, at, end, longest)
        if length < 0:
            return length, at, begin
        at += length + 2
        if at > end:
            return INCOMPLETE, begin, begin
    return count, first, at


@inlined
def find_request(memory: Bytes, begin: int, end: int, longest: int) -> tuple[int, int, int]:
    """Find the request that begins at an address, among at least one byte up to `end`.

    No argument may be longer than `longest`.

    Returns
    -------
    count, cursor, following
        Number of arguments, the command's name included (0 is an empty request); cursor of the
        first one, for `argument`; address after the request. If count is INCOMPLETE, more bytes are
        needed; if it is QUOTED, see above; another negative number is a protocol error, and with
        NO_DOLLAR the cursor is the address of the wrong byte.
    """
    if memory[begin] == _STAR:
        return _find_array(memory, begin, end, longest)
    return _find_line(memory, begin, end)


@inlined
def argument(memory: Bytes, request: int, cursor: int) -> tuple[int, int, int]:
    """Return address and length of a complete request's next argument, and the cursor after it."""
    apart()
    if memory[request] != _STAR:
        return _word(memory, cursor)
    length = 0
    at = cursor + 1
    while memory[at] != _RETURN:
        length = 10 * length + (np.int64(memory[at]) - _ZERO)
        at += 1
    return at + 2, length, at + 4 + length


@inlined
def lower(byte: int) -> int:
    """Return a letter in lower case, and any other byte as it is."""
    byte = np.int64(byte)
    return byte + 32 if _UPPER_A <= byte <= _UPPER_Z else byte


@inlined
def is_word(memory: Bytes, begin: int, length: int, word: bytes) -> bool:
    """Say whether bytes in any case equal a word, which is given in lower case."""
    apart()
    if length != len(word):
        return False
    for i in range(length):  # noqa: SIM110 (numba has no `all`)
        if lower(memory[begin + i]) != word[i]:
            return False
    return True


@inlined
def digits(number: int) -> int:
    """Return the number of characters of a number."""
    rest = np.uint64(number) if number >= 0 else _U0 - np.uint64(number)
    count = 1 if number >= 0 else 2
    while rest >= _U10:
        rest = rest // _U10
        count += 1
    return count


@inlined
def put_decimal(memory: Bytes, bitmap: Words, at: int, limit: int, number: int) -> int:
    """Write a number."""
    apart()
    end = at + digits(number)
    if end <= limit:
        keep_bytes(memory, bitmap, at, end - at)
        rest = np.uint64(number) if number >= 0 else _U0 - np.uint64(number)
        place = end
        while place > at:
            place -= 1
            memory[place] = np.uint8(_U48 + rest % _U10)
            rest = rest // _U10
        if number < 0:
            memory[at] = _MINUS
        mark_bytes(bitmap, at, end - at)
    return end


@inlined
def put_text(memory: Bytes, bitmap: Words, at: int, limit: int, text: bytes) -> int:
    """Write a text that is a constant of the program."""
    apart()
    end = at + len(text)
    if end <= limit and end > at:
        keep_bytes(memory, bitmap, at, end - at)
        for i in range(len(text)):
            memory[at + i] = text[i]
        mark_bytes(bitmap, at, end - at)
    return end


@inlined
def put_part(
    memory: Bytes, bitmap: Words, at: int, limit: int, text: bytes, first: int, last: int
) -> int:
    """Write a part, at least one byte, of a text that is a constant of the program."""
    apart()
    end = at + last - first
    if end <= limit:
        keep_bytes(memory, bitmap, at, last - first)
        for i in range(last - first):
            memory[at + i] = text[first + i]
        mark_bytes(bitmap, at, last - first)
    return end


@inlined
def put_copy(memory: Bytes, bitmap: Words, at: int, limit: int, begin: int, length: int) -> int:
    """Write a copy of bytes in RAM."""
    if at + length <= limit:
        copy_bytes(memory, bitmap, at, begin, length)
    return at + length


@inlined
def put_quoted(
    memory: Bytes, bitmap: Words, at: int, limit: int, begin: int, length: int, most: int
) -> int:
    """Write bytes as quoted in an error: at most `most`, up to a zero byte, in one line."""
    apart()
    end = find_byte(memory, begin, begin + min(length, most), _NUL)
    if at + end - begin <= limit and end > begin:
        keep_bytes(memory, bitmap, at, end - begin)
        for i in range(end - begin):
            byte = memory[begin + i]
            memory[at + i] = _SPACE if byte in (_NEWLINE, _RETURN) else byte
        mark_bytes(bitmap, at, end - begin)
    return at + end - begin


@inlined
def put_lower(memory: Bytes, bitmap: Words, at: int, limit: int, begin: int, length: int) -> int:
    """Write a word of at least one byte in lower case."""
    apart()
    if at + length <= limit:
        keep_bytes(memory, bitmap, at, length)
        for i in range(length):
            memory[at + i] = lower(memory[begin + i])
        mark_bytes(bitmap, at, length)
    return at + length


@inlined
def put_head(memory: Bytes, bitmap: Words, at: int, limit: int, kind: int, number: int) -> int:
    """Write a line with a number: an integer (``:``), or the head of an array (``*``)."""
    apart()
    end = at + digits(number) + 3
    if end <= limit:
        keep_bytes(memory, bitmap, at, end - at)
        put_decimal(memory, bitmap, at + 1, end, number)
        memory[at] = kind
        memory[end - 2] = _RETURN
        memory[end - 1] = _NEWLINE
        mark_bytes(bitmap, at, end - at)
    return end


@inlined
def put_bulk(memory: Bytes, bitmap: Words, at: int, limit: int, begin: int, length: int) -> int:
    """Write a bulk string with a copy of bytes in RAM."""
    apart()
    at = put_head(memory, bitmap, at, limit, _DOLLAR, length)
    at = put_copy(memory, bitmap, at, limit, begin, length)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def put_null(memory: Bytes, bitmap: Words, at: int, limit: int, resp3: bool) -> int:
    """Write the null bulk string."""
    return put_text(memory, bitmap, at, limit, b"_\r\n" if resp3 else b"$-1\r\n")


@inlined
def put_map_head(memory: Bytes, bitmap: Words, at: int, limit: int, resp3: bool, pairs: int) -> int:
    """Write the head of a map; in RESP2 it is a flat array."""
    kind, count = (_MAP, pairs) if resp3 else (ARRAY, 2 * pairs)
    return put_head(memory, bitmap, at, limit, kind, count)


@inlined
def put_verbatim_head(
    memory: Bytes, bitmap: Words, at: int, limit: int, resp3: bool, length: int
) -> int:
    """Write the head of a verbatim string; in RESP2 it is a bulk string."""
    if not resp3:
        return put_head(memory, bitmap, at, limit, _BULK, length)
    at = put_head(memory, bitmap, at, limit, _VERBATIM, length + 4)
    return put_text(memory, bitmap, at, limit, b"txt:")


@inlined
def put_bulk_decimal(memory: Bytes, bitmap: Words, at: int, limit: int, number: int) -> int:
    """Write a number as a bulk string."""
    apart()
    at = put_head(memory, bitmap, at, limit, _DOLLAR, digits(number))
    at = put_decimal(memory, bitmap, at, limit, number)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def put_protocol_error(
    memory: Bytes, bitmap: Words, at: int, limit: int, error: int, where: int
) -> int:
    """Write Redis's text of a protocol error, see `find_request`."""
    apart()
    at = put_text(memory, bitmap, at, limit, b"-ERR Protocol error: ")
    number = INVALID_COUNT - error
    at = put_part(
        memory, bitmap, at, limit, _ERROR_TEXTS, _ERROR_BEGINS[number], _ERROR_BEGINS[number + 1]
    )
    if error == NO_DOLLAR:
        byte = memory[where]
        byte = _SPACE if byte in (_NEWLINE, _RETURN) else byte
        if at < limit:
            keep_bytes(memory, bitmap, at, 1)
            memory[at] = byte
            mark_bytes(bitmap, at, 1)
        at = put_text(memory, bitmap, at + 1, limit, b"'")
    return put_text(memory, bitmap, at, limit, b"\r\n")
