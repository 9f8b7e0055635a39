"""Commands about the append-only file: BGREWRITEAOF, CONFIG SET, and fields of INFO.

`commands` describes the arguments of these functions. Texts are Redis 7.0's.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.append_only_file import (
    ACTIVE,
    ALWAYS,
    AREA_BYTES,
    BASE,
    CAPACITY,
    EVERYSEC,
    LOADING,
    NEVER,
    NEXT,
    NO_REWRITE,
    OFF,
    PHASE,
    POLICY,
    READING,
    RELEASE,
    REWRITE,
    REWRITE_STATUS,
    SERVING,
    STATUS,
    SWITCHING,
    UNUSABLE,
    WANTED,
    current,
    log_of,
    set_used,
    used,
    words_of,
)
from colobench.guest.client_commands import put_subcommand_arity_error
from colobench.guest.commands import REPLY_ROOM
from colobench.guest.heap import ZERO
from colobench.guest.region import apart, get_number, put_number
from colobench.guest.resp import (
    QUOTED_BYTES,
    argument,
    is_word,
    put_decimal,
    put_quoted,
    put_text,
)
from colobench.kernels.jit import Bytes, Words, inlined

_ONE = np.int64(1)
_YES, _NO = np.int64(1), ZERO
#: Results of reading a parameter and its value: valid; no such parameter; it cannot be set; it is
#: there twice; a wrong value of appendonly or of appendfsync; the file cannot be turned on.
_VALID, _UNKNOWN, _FIXED, _TWICE, _NOT_BOOLEAN, _NOT_POLICY, _CANNOT = (
    np.int64(n) for n in range(7)
)


@inlined
def is_on(memory: Bytes, log: int) -> bool:
    """Say whether appendonly is yes."""
    return get_number(memory, log + PHASE) != OFF


@inlined
def rewrite(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """BGREWRITEAOF."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    log = log_of(memory, kv)
    if log < 0 or get_number(memory, log + PHASE) != SERVING:
        return put_text(
            memory, bitmap, at, limit, b"-ERR there is no append only file to rewrite\r\n"
        )
    busy = get_number(memory, log + REWRITE) != NO_REWRITE
    if busy or get_number(memory, log + WANTED) != 0:
        text = b"-ERR Background append only file rewriting already in progress\r\n"
        return put_text(memory, bitmap, at, limit, text)
    put_number(memory, bitmap, log + WANTED, _ONE)
    text = b"+Background append only file rewriting started\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def _bit_of(memory: Bytes, name: int, letters: int) -> int:
    """Return the bit of a parameter that can be set; 0 for any other."""
    if is_word(memory, name, letters, b"appendonly"):
        return 1
    return 2 if is_word(memory, name, letters, b"appendfsync") else 0


@inlined
def _check_name(memory: Bytes, name: int, letters: int, seen: int) -> int:
    """Check the name of a parameter of CONFIG SET; `seen` has the bits of those before it."""
    bit = _bit_of(memory, name, letters)
    if bit:
        return _TWICE if seen & bit else _VALID
    fixed = (
        is_word(memory, name, letters, b"save")
        or is_word(memory, name, letters, b"databases")
        or is_word(memory, name, letters, b"maxmemory")
        or is_word(memory, name, letters, b"maxmemory-policy")
        or is_word(memory, name, letters, b"proto-max-bulk-len")
    )
    return _FIXED if fixed else _UNKNOWN


@inlined
def _check_value(
    memory: Bytes, log: int, name: int, letters: int, value: int, length: int, last: bool
) -> int:
    """Check the value of a parameter of CONFIG SET; only the `last` check looks at the disk."""
    if _bit_of(memory, name, letters) == 2:
        return _NOT_POLICY if _policy(memory, value, length) < 0 else _VALID
    yes = is_word(memory, value, length, b"yes")
    if not yes and not is_word(memory, value, length, b"no"):
        return _NOT_BOOLEAN
    return _CANNOT if last and yes and get_number(memory, log + AREA_BYTES) == 0 else _VALID


@inlined
def _policy(memory: Bytes, value: int, length: int) -> int:
    """Return the number of a value of appendfsync, or -1."""
    if is_word(memory, value, length, b"everysec"):
        return EVERYSEC
    if is_word(memory, value, length, b"always"):
        return ALWAYS
    return NEVER if is_word(memory, value, length, b"no") else np.int64(-1)


@inlined
def _turn(memory: Bytes, bitmap: Words, log: int, on: bool) -> int:
    """Begin to log commands, with a rewriting as in Redis, or end it."""
    phase = get_number(memory, log + PHASE)
    if on and phase == OFF:
        put_number(memory, bitmap, log + PHASE, SERVING)
        put_number(memory, bitmap, log + ACTIVE, ZERO)
        put_number(memory, bitmap, log + WANTED, _ONE)
    if not on and phase in (SERVING, UNUSABLE):
        put_number(memory, bitmap, log + PHASE, OFF)
        put_number(memory, bitmap, log + ACTIVE, ZERO)
        put_number(memory, bitmap, log + WANTED, ZERO)
        put_number(memory, bitmap, log + STATUS, ZERO)
        put_number(memory, bitmap, log + RELEASE, _ONE)
        if get_number(memory, log + REWRITE) < SWITCHING:
            put_number(memory, bitmap, log + REWRITE, NO_REWRITE)
        for number in range(2):
            set_used(memory, bitmap, log, number, ZERO, ZERO)
    return 0


@inlined
def _put_wrong(
    memory: Bytes, bitmap: Words, at: int, limit: int, result: int, name: int, letters: int
) -> int:
    """Write the error for a parameter of CONFIG SET."""
    if result == _UNKNOWN:
        text = b"-ERR Unknown option or number of arguments for CONFIG SET - '"
        at = put_text(memory, bitmap, at, limit, text)
        at = put_quoted(memory, bitmap, at, limit, name, letters, QUOTED_BYTES)
        return put_text(memory, bitmap, at, limit, b"'\r\n")
    text = b"-ERR CONFIG SET failed (possibly related to argument '"
    at = put_text(memory, bitmap, at, limit, text)
    at = put_quoted(memory, bitmap, at, limit, name, letters, QUOTED_BYTES)
    text = b"') - can't set immutable config\r\n"
    if result == _NOT_BOOLEAN:
        text = b"') - argument must be 'yes' or 'no'\r\n"
    elif result == _NOT_POLICY:
        text = b"') - argument(s) must be one of the following: everysec, always, no\r\n"
    elif result == _TWICE:
        text = b"') - duplicate parameter\r\n"
    elif result == _CANNOT:
        text = b"') - Unable to turn on AOF. Check server logs.\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def config_set(
    memory: Bytes,
    bitmap: Words,
    log: int,
    word: int,
    letters: int,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> int:
    """CONFIG SET parameter value..., `count` arguments; all are checked before one is set.

    As in Redis, all names are checked before the first value, and the disk after all values.
    """
    if at + 3 * REPLY_ROOM > limit:
        return at + 3 * REPLY_ROOM
    if count < 2 or count % 2:
        return put_subcommand_arity_error(memory, bitmap, at, limit, word, letters, b"config|")
    seen = 0
    for turn in range(3):
        place = cursor
        for _ in range(count // 2):
            name, size, place = argument(memory, request, place)
            value, length, place = argument(memory, request, place)
            if turn == 0:
                result = _check_name(memory, name, size, seen)
                seen |= _bit_of(memory, name, size)
            else:
                result = _check_value(memory, log, name, size, value, length, turn == 2)
            if result != _VALID:
                return _put_wrong(memory, bitmap, at, limit, result, name, size)
    for _ in range(count // 2):
        name, size, cursor = argument(memory, request, cursor)
        value, length, cursor = argument(memory, request, cursor)
        if is_word(memory, name, size, b"appendonly"):
            _turn(memory, bitmap, log, is_word(memory, value, length, b"yes"))
        else:
            put_number(memory, bitmap, log + POLICY, _policy(memory, value, length))
            put_number(memory, bitmap, log + RELEASE, _ONE)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def put_appendonly(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """Write the value of appendonly."""
    log = log_of(memory, kv)
    text = b"$2\r\nno\r\n"
    if log >= 0 and is_on(memory, log):
        text = b"$3\r\nyes\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def put_appendfsync(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """Write the value of appendfsync, of a store with an append-only file."""
    policy = get_number(memory, log_of(memory, kv) + POLICY)
    text = b"$8\r\neverysec\r\n"
    if policy == ALWAYS:
        text = b"$6\r\nalways\r\n"
    elif policy == NEVER:
        text = b"$2\r\nno\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def _put_line(memory: Bytes, bitmap: Words, at: int, limit: int, name: bytes, number: int) -> int:
    """Write a line of INFO with a number."""
    apart()
    at = put_text(memory, bitmap, at, limit, name)
    at = put_decimal(memory, bitmap, at, limit, number)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _put_status(memory: Bytes, bitmap: Words, at: int, limit: int, name: bytes, error: int) -> int:
    """Write a line of INFO with ok or err."""
    apart()
    at = put_text(memory, bitmap, at, limit, name)
    return put_text(memory, bitmap, at, limit, b"err\r\n" if error else b"ok\r\n")


@inlined
def put_persistence(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """Write the fields of INFO's section Persistence."""
    log = log_of(memory, kv)
    if log < 0:
        return put_text(memory, bitmap, at, limit, b"loading:0\r\naof_enabled:0\r\n")
    phase = get_number(memory, log + PHASE)
    loading = _YES if READING <= phase <= LOADING else _NO
    at = _put_line(memory, bitmap, at, limit, b"loading:", loading)
    enabled = _YES if is_on(memory, log) else _NO
    at = _put_line(memory, bitmap, at, limit, b"aof_enabled:", enabled)
    busy = _YES if get_number(memory, log + REWRITE) != NO_REWRITE else _NO
    at = _put_line(memory, bitmap, at, limit, b"aof_rewrite_in_progress:", busy)
    wanted = get_number(memory, log + WANTED)
    at = _put_line(memory, bitmap, at, limit, b"aof_rewrite_scheduled:", wanted)
    error = get_number(memory, log + REWRITE_STATUS)
    at = _put_status(memory, bitmap, at, limit, b"aof_last_bgrewrite_status:", error)
    error = get_number(memory, log + STATUS)
    at = _put_status(memory, bitmap, at, limit, b"aof_last_write_status:", error)
    if not enabled:
        return at
    number, capacity = current(memory, log), get_number(memory, log + CAPACITY)
    begin, end = used(memory, log, number, capacity)
    size = get_number(memory, words_of(log, number) + NEXT)
    at = _put_line(memory, bitmap, at, limit, b"aof_current_size:", size)
    at = _put_line(memory, bitmap, at, limit, b"aof_base_size:", get_number(memory, log + BASE))
    return _put_line(memory, bitmap, at, limit, b"aof_buffer_length:", end - begin)
