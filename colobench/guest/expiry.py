"""Expiry of keys: SET's and GETEX's options, EXPIRE, TTL and related commands.

Times are milliseconds since 1970 by the guest's clock, which is the store's word NOW. Replies, and
the order in which errors are found, are Redis 7.0's. `commands` describes the arguments of these
functions.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.commands import (
    GIVE_OLD,
    IF_ABSENT,
    IF_PRESENT,
    KEEP_EXPIRY,
    REPLY_ROOM,
    put,
    put_not_integer,
    put_syntax_error,
    put_value,
)
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    NOW,
    count_lookup,
    look_up,
    note_change,
    remove,
    set_expiry,
)
from colobench.guest.region import EXPIRES, apart, get_number
from colobench.guest.resp import (
    INTEGER,
    QUOTED_BYTES,
    argument,
    is_word,
    parse_integer,
    put_head,
    put_quoted,
    put_text,
)
from colobench.kernels.jit import Bytes, Words, inlined

#: Units of a time: seconds or milliseconds, from now or since 1970.
SECONDS, MILLISECONDS, UNIX_SECONDS, UNIX_MILLISECONDS = (np.int64(n) for n in range(1, 5))
#: Conditions of EXPIRE: the key does not expire yet; it does; the new time is later; it is sooner.
_IF_NEVER, _IF_EXPIRING, _IF_LATER, _IF_SOONER = 1, 2, 4, 8
#: GETEX's option PERSIST, in addition to the options of SET.
_PERSIST = 32
_HIGHEST, _LOWEST = 2**63 - 1, -(2**63)
#: Results of reading a time.
_VALID, _NOT_INTEGER, _INVALID = (np.int64(n) for n in range(3))


@inlined
def _unit(memory: Bytes, word: int, letters: int) -> int:
    """Return the unit of an option with a time; 0 for any other option."""
    if is_word(memory, word, letters, b"ex"):
        return SECONDS
    if is_word(memory, word, letters, b"px"):
        return MILLISECONDS
    if is_word(memory, word, letters, b"exat"):
        return UNIX_SECONDS
    if is_word(memory, word, letters, b"pxat"):
        return UNIX_MILLISECONDS
    return ZERO


@inlined
def _option(memory: Bytes, word: int, letters: int, getex: bool) -> int:
    """Return the bit of SET's (or with `getex` GETEX's) option without a time; 0 for others."""
    if getex:
        return _PERSIST if is_word(memory, word, letters, b"persist") else 0
    if is_word(memory, word, letters, b"nx"):
        return IF_ABSENT
    if is_word(memory, word, letters, b"xx"):
        return IF_PRESENT
    if is_word(memory, word, letters, b"get"):
        return GIVE_OLD
    return KEEP_EXPIRY if is_word(memory, word, letters, b"keepttl") else 0


@inlined
def _parse_options(
    memory: Bytes, request: int, cursor: int, left: int, getex: bool
) -> tuple[int, int, int, int]:
    """Parse options; return their bits or -1, the unit of a time or 0, and the time's address."""
    apart()
    options, unit, time, length = ZERO, ZERO, ZERO, ZERO
    while left > 0:
        word, letters, cursor = argument(memory, request, cursor)
        left -= 1
        option = _option(memory, word, letters, getex)
        if option:
            options |= option
            continue
        kind = _unit(memory, word, letters)
        if kind == 0 or left == 0 or unit not in (ZERO, kind):
            return np.int64(-1), unit, time, length
        unit = kind
        time, length, cursor = argument(memory, request, cursor)
        left -= 1
    both = options & IF_ABSENT and options & IF_PRESENT
    if both or (unit and options & (KEEP_EXPIRY | _PERSIST)):
        return np.int64(-1), unit, time, length
    return options, unit, time, length


@inlined
def _expiry_of(memory: Bytes, kv: int, unit: int, begin: int, length: int) -> tuple[int, int]:
    """Read a time, which must be after 1970; return the result, and the millisecond."""
    apart()
    valid, time = parse_integer(memory, begin, length)
    if not valid:
        return _NOT_INTEGER, 0
    in_seconds = unit in (SECONDS, UNIX_SECONDS)
    if time <= 0 or (in_seconds and time > _HIGHEST // 1000):
        return _INVALID, 0
    time = time * 1000 if in_seconds else time
    now = get_number(memory, kv + NOW)
    if unit in (SECONDS, MILLISECONDS):
        if time > _HIGHEST - now:
            return _INVALID, 0
        time += now
    return _VALID, time


@inlined
def _put_time_error(
    memory: Bytes, bitmap: Words, at: int, limit: int, status: int, command: bytes
) -> int:
    """Write the error for a wrong time."""
    apart()
    if status == _NOT_INTEGER:
        return put_not_integer(memory, bitmap, at, limit)
    at = put_text(memory, bitmap, at, limit, b"-ERR invalid expire time in '")
    at = put_text(memory, bitmap, at, limit, command)
    return put_text(memory, bitmap, at, limit, b"' command\r\n")


@inlined
def put_with_options(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """SET key value [NX | XX] [GET] [EX time | PX time | EXAT time | PXAT time | KEEPTTL]."""
    key, length, cursor = argument(memory, request, cursor)
    begin, size, cursor = argument(memory, request, cursor)
    options, unit, time, letters = ZERO, ZERO, ZERO, ZERO
    if arguments > 2:
        options, unit, time, letters = _parse_options(memory, request, cursor, arguments - 2, False)
    if options < 0:
        return put_syntax_error(memory, bitmap, at, limit)
    when = ZERO
    if unit:
        status, when = _expiry_of(memory, kv, unit, time, letters)
        if status != _VALID:
            return _put_time_error(memory, bitmap, at, limit, status, b"set")
    return put(memory, bitmap, kv, resp3, key, length, begin, size, options, when, at, limit)


@inlined
def put_with_expiry(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    at: int,
    limit: int,
    milliseconds: bool,
) -> int:
    """SETEX key seconds value, or PSETEX key milliseconds value."""
    key, length, cursor = argument(memory, request, cursor)
    time, letters, cursor = argument(memory, request, cursor)
    begin, size, _ = argument(memory, request, cursor)
    unit = MILLISECONDS if milliseconds else SECONDS
    status, when = _expiry_of(memory, kv, unit, time, letters)
    if status != _VALID:
        command = b"psetex" if milliseconds else b"setex"
        return _put_time_error(memory, bitmap, at, limit, status, command)
    return put(memory, bitmap, kv, resp3, key, length, begin, size, ZERO, when, at, limit)


@inlined
def get_and_expire(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """GETEX key [EX time | PX time | EXAT time | PXAT time | PERSIST]."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, cursor = argument(memory, request, cursor)
    options, unit, time, letters = _parse_options(memory, request, cursor, arguments - 1, True)
    if options < 0:
        return put_syntax_error(memory, bitmap, at, limit)
    link, entry = look_up(memory, bitmap, kv, key, length)
    when = ZERO
    if entry and unit:
        status, when = _expiry_of(memory, kv, unit, time, letters)
        if status != _VALID:
            count_lookup(memory, bitmap, kv, entry)
            return _put_time_error(memory, bitmap, at, limit, status, b"getex")
    end = put_value(memory, bitmap, at, limit, resp3, entry)
    if end > limit:
        return end
    count_lookup(memory, bitmap, kv, entry)
    if entry and (unit or options & _PERSIST):
        if unit in (UNIX_SECONDS, UNIX_MILLISECONDS) and when <= get_number(memory, kv + NOW):
            remove(memory, bitmap, kv, link, entry)
        elif unit or get_number(memory, entry + EXPIRES):
            set_expiry(memory, bitmap, kv, entry, when)
            note_change(memory, bitmap, kv, key, length)
    return end


@inlined
def get_and_delete(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    at: int,
    limit: int,
) -> int:
    """GETDEL key."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, _ = argument(memory, request, cursor)
    link, entry = look_up(memory, bitmap, kv, key, length)
    end = put_value(memory, bitmap, at, limit, resp3, entry)
    if end > limit:
        return end
    count_lookup(memory, bitmap, kv, entry)
    if entry:
        remove(memory, bitmap, kv, link, entry)
    return end


@inlined
def _put_unsupported(
    memory: Bytes, bitmap: Words, at: int, limit: int, word: int, letters: int
) -> int:
    """Write the error for an unknown option of EXPIRE."""
    at = put_text(memory, bitmap, at, limit, b"-ERR Unsupported option ")
    at = put_quoted(memory, bitmap, at, limit, word, letters, QUOTED_BYTES)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _condition(memory: Bytes, word: int, letters: int) -> int:
    """Return the bit of an option of EXPIRE, or 0."""
    if is_word(memory, word, letters, b"nx"):
        return _IF_NEVER
    if is_word(memory, word, letters, b"xx"):
        return _IF_EXPIRING
    if is_word(memory, word, letters, b"gt"):
        return _IF_LATER
    return _IF_SOONER if is_word(memory, word, letters, b"lt") else 0


@inlined
def _is_met(conditions: int, when: int, now: int) -> bool:
    """Say whether a key that expires at `now` (0: never) may be set to expire at `when`."""
    if conditions & _IF_NEVER and now != 0:
        return False
    if conditions & _IF_EXPIRING and now == 0:
        return False
    if conditions & _IF_LATER and (now == 0 or when <= now):
        return False
    return not (conditions & _IF_SOONER and now != 0 and when >= now)


@inlined
def _put_bad_expiry(memory: Bytes, bitmap: Words, at: int, limit: int, unit: int) -> int:
    """Write the error for a time of EXPIRE or a related command that is out of range."""
    command = b"expire"
    if unit == MILLISECONDS:
        command = b"pexpire"
    elif unit == UNIX_SECONDS:
        command = b"expireat"
    elif unit == UNIX_MILLISECONDS:
        command = b"pexpireat"
    return _put_time_error(memory, bitmap, at, limit, _INVALID, command)


@inlined
def expire(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
    unit: int,
) -> int:
    """EXPIRE key time [NX | XX | GT | LT], PEXPIRE, EXPIREAT and PEXPIREAT, by their unit."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, cursor = argument(memory, request, cursor)
    begin, letters, cursor = argument(memory, request, cursor)
    conditions = 0
    for _ in range(arguments - 2):
        word, size, cursor = argument(memory, request, cursor)
        condition = _condition(memory, word, size)
        if condition == 0:
            return _put_unsupported(memory, bitmap, at, limit, word, size)
        conditions |= condition
    if conditions & _IF_NEVER and conditions != _IF_NEVER:
        text = b"-ERR NX and XX, GT or LT options at the same time are not compatible\r\n"
        return put_text(memory, bitmap, at, limit, text)
    if conditions & _IF_LATER and conditions & _IF_SOONER:
        text = b"-ERR GT and LT options at the same time are not compatible\r\n"
        return put_text(memory, bitmap, at, limit, text)
    valid, when = parse_integer(memory, begin, letters)
    if not valid:
        return put_not_integer(memory, bitmap, at, limit)
    if unit in (SECONDS, UNIX_SECONDS):
        if when > _HIGHEST // 1000 or when < -(_HIGHEST // 1000):
            return _put_bad_expiry(memory, bitmap, at, limit, unit)
        when *= 1000
    now = get_number(memory, kv + NOW)
    if unit in (SECONDS, MILLISECONDS):
        if when > _HIGHEST - now:
            return _put_bad_expiry(memory, bitmap, at, limit, unit)
        when += now
    link, entry = look_up(memory, bitmap, kv, key, length)
    if not entry or not _is_met(conditions, when, get_number(memory, entry + EXPIRES)):
        return put_head(memory, bitmap, at, limit, INTEGER, ZERO)
    if when <= now:
        remove(memory, bitmap, kv, link, entry)
    else:
        set_expiry(memory, bitmap, kv, entry, when)
        note_change(memory, bitmap, kv, key, length)
    return put_text(memory, bitmap, at, limit, b":1\r\n")


@inlined
def persist(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, at: int, limit: int
) -> int:
    """PERSIST key."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, _ = argument(memory, request, cursor)
    _, entry = look_up(memory, bitmap, kv, key, length)
    if not entry or get_number(memory, entry + EXPIRES) == 0:
        return put_head(memory, bitmap, at, limit, INTEGER, ZERO)
    set_expiry(memory, bitmap, kv, entry, ZERO)
    note_change(memory, bitmap, kv, key, length)
    return put_text(memory, bitmap, at, limit, b":1\r\n")


@inlined
def time_to_live(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    at: int,
    limit: int,
    unit: int,
) -> int:
    """TTL key, PTTL, EXPIRETIME and PEXPIRETIME, by their unit; -1 for never, -2 for no key."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, _ = argument(memory, request, cursor)
    _, entry = look_up(memory, bitmap, kv, key, length)
    count_lookup(memory, bitmap, kv, entry)
    time = np.int64(-2)
    if entry:
        time = get_number(memory, entry + EXPIRES)
        if time == 0:
            time = np.int64(-1)
        else:
            if unit in (SECONDS, MILLISECONDS):
                time = max(ZERO, time - get_number(memory, kv + NOW))
            if unit in (SECONDS, UNIX_SECONDS):
                # Rounded; the sum may be beyond an int64.
                time = time // 1000 + (1 if time % 1000 >= 500 else 0)
    return put_head(memory, bitmap, at, limit, INTEGER, time)
