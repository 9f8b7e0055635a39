"""Commands as they are appended to the append-only file: their effects, in Redis's forms.

SET and its relatives become ``SET key value [PXAT ms]``, MSETNX becomes MSET, a relative time
becomes PEXPIREAT, GETDEL becomes DEL. INCR, APPEND and SETRANGE stay as they are, unless the log is
being rewritten: then a key may not be in the new log yet, so its whole value is written. EXEC's
commands are between MULTI and EXEC, from the first one that changes something.

A command that has changed nothing may be logged, as executing it again changes nothing. `log` is
the address of `colobench.guest.append_only_file`'s area. A command is executed only if there is
room for its record (`has_room`), so a record always fits.
"""

from __future__ import annotations

import errno

import numpy as np

from colobench.guest.append_only_file import (
    ACTIVE,
    ALLOWANCE,
    APPENDED,
    CAPACITY,
    DUMPING,
    HEADER_BYTES,
    LOADING,
    NO_REWRITE,
    OFF,
    PHASE,
    READING,
    REWRITE,
    REWRITE_STATUS,
    STAMP,
    STATUS,
    TIMED,
    TRANSACTION,
    UNUSABLE,
    WANTED,
    current,
    is_logging,
    is_written,
    make_room,
    set_used,
    used,
    words_of,
)
from colobench.guest.command_table import ALL_NAMES, COMMANDS, NAME_BEGINS, index
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    EXPIRING,
    NOW,
    find,
    key_length,
    value,
    value_length,
)
from colobench.guest.region import EXPIRES, KEY, apart, get_number, put_number
from colobench.guest.resp import (
    ARRAY,
    argument,
    put_bulk,
    put_bulk_decimal,
    put_decimal,
    put_head,
    put_part,
    put_text,
)
from colobench.kernels.jit import Bytes, Words, inlined

#: Forms of a record: none; as it is; as it is unless its reply is 0; the key's value; all pairs;
#: the key's expiry; the same, for GETEX; DEL.
_NONE, _SAME, _UNLESS_ZERO, _CHANGED, _VALUE, _PAIRS, _EXPIRY, _GETEX, _DELETED = range(9)
_FORMS = {
    _SAME: ("flushall", "flushdb"),
    _UNLESS_ZERO: ("del", "unlink", "persist"),
    _CHANGED: ("incr", "decr", "incrby", "decrby", "append", "setrange"),
    _VALUE: ("set", "setnx", "getset", "setex", "psetex"),
    _PAIRS: ("mset", "msetnx"),
    _EXPIRY: ("expire", "pexpire", "expireat", "pexpireat"),
    _GETEX: ("getex",),
    _DELETED: ("getdel",),
}
#: The form of each command's record, int64[commands].
FORMS = np.zeros(len(COMMANDS), dtype=np.int64)
for _form, _names in _FORMS.items():
    for _name in _names:
        FORMS[index(_name)] = _form
#: 1 for each command that is answered while the store is loaded. WATCH and EXEC are not, in
#: contrast to Redis, because they would look at keys.
_ANSWERED = {"config", "client"}
ANSWERED = np.array(
    [
        (command.name in _ANSWERED or "loading" in command.flags)
        and command.name not in ("watch", "unwatch", "exec", "multi", "discard")
        for command in COMMANDS
    ],
    dtype=np.int64,
)
_EXEC, _PING, _SETNX, _MSET, _MSETNX = (
    index(name) for name in ("exec", "ping", "setnx", "mset", "msetnx")
)
#: Reasons for which a command is refused.
REFUSED_LOADING, REFUSED_ERROR, REFUSED_LENGTH = 1, 2, 3
_EPERM, _EIO, _ENOMEM, _EINVAL, _ENOSPC = (
    np.int64(number)
    for number in (errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC)
)
#: Values of the word TRANSACTION: no EXEC; EXEC has changed nothing yet; it has.
OUTSIDE, INSIDE, BEGUN = ZERO, np.int64(1), np.int64(2)
_COLON, _NIL, _BULK, _MINUS, _DIGIT_0 = ord(":"), ord("_"), ord("$"), ord("-"), ord("0")
_THREE, _FIVE, _DOLLAR = np.int64(3), np.int64(5), np.int64(ord("$"))


@inlined
def put_set(memory: Bytes, bitmap: Words, at: int, limit: int, entry: int) -> int:
    """Write SET for an entry of the store, with its time if it expires."""
    apart()
    when = get_number(memory, entry + EXPIRES)
    at = put_head(memory, bitmap, at, limit, ARRAY, _FIVE if when else _THREE)
    at = put_text(memory, bitmap, at, limit, b"$3\r\nSET\r\n")
    at = put_bulk(memory, bitmap, at, limit, entry + KEY, key_length(memory, entry))
    at = put_bulk(memory, bitmap, at, limit, value(memory, entry), value_length(memory, entry))
    if when:
        at = put_text(memory, bitmap, at, limit, b"$4\r\nPXAT\r\n")
        at = put_bulk_decimal(memory, bitmap, at, limit, when)
    return at


@inlined
def _put_on_key(
    memory: Bytes, bitmap: Words, at: int, limit: int, name: bytes, key: int, length: int
) -> int:
    """Write a command whose only argument is a key."""
    apart()
    at = put_text(memory, bitmap, at, limit, name)
    return put_bulk(memory, bitmap, at, limit, key, length)


@inlined
def _put_expiry(
    memory: Bytes, bitmap: Words, at: int, limit: int, entry: int, key: int, length: int
) -> int:
    """Write the time at which a key expires, that it does not, or that it is no more."""
    if not entry:
        return _put_on_key(memory, bitmap, at, limit, b"*2\r\n$3\r\nDEL\r\n", key, length)
    when = get_number(memory, entry + EXPIRES)
    if when == 0:
        return _put_on_key(memory, bitmap, at, limit, b"*2\r\n$7\r\nPERSIST\r\n", key, length)
    at = _put_on_key(memory, bitmap, at, limit, b"*3\r\n$9\r\nPEXPIREAT\r\n", key, length)
    return put_bulk_decimal(memory, bitmap, at, limit, when)


@inlined
def _put_same(
    memory: Bytes,
    bitmap: Words,
    at: int,
    limit: int,
    request: int,
    cursor: int,
    arguments: int,
    command: int,
) -> int:
    """Write a command with its arguments; MSETNX is written as MSET."""
    apart()
    name = _MSET if command == _MSETNX else command
    first, last = NAME_BEGINS[name], NAME_BEGINS[name + 1]
    at = put_head(memory, bitmap, at, limit, ARRAY, arguments + 1)
    at = put_head(memory, bitmap, at, limit, _DOLLAR, last - first)
    at = put_part(memory, bitmap, at, limit, ALL_NAMES, first, last)
    at = put_text(memory, bitmap, at, limit, b"\r\n")
    for _ in range(arguments):
        begin, length, cursor = argument(memory, request, cursor)
        at = put_bulk(memory, bitmap, at, limit, begin, length)
    return at


@inlined
def _put_effect(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    form: int,
    dumping: bool,
    request: int,
    cursor: int,
    arguments: int,
    command: int,
    at: int,
    limit: int,
) -> int:
    """Write the effect of a command that was executed."""
    apart()
    if form in (_SAME, _UNLESS_ZERO, _PAIRS) or (form == _CHANGED and not dumping):
        return _put_same(memory, bitmap, at, limit, request, cursor, arguments, command)
    key, length, _ = argument(memory, request, cursor)
    if form == _DELETED:
        return _put_on_key(memory, bitmap, at, limit, b"*2\r\n$3\r\nDEL\r\n", key, length)
    _, entry = find(memory, bitmap, kv, key, length)
    if form in (_EXPIRY, _GETEX):
        return _put_expiry(memory, bitmap, at, limit, entry, key, length)
    return put_set(memory, bitmap, at, limit, entry) if entry else at


@inlined
def _put_stamp(
    memory: Bytes, bitmap: Words, log: int, number: int, now: int, at: int, limit: int
) -> int:
    """Write the time, unless it is that of the command before, or no key has ever expired."""
    words = words_of(log, number)
    if get_number(memory, log + TIMED) == 0 or get_number(memory, words + STAMP) == now:
        return at
    put_number(memory, bitmap, words + STAMP, now)
    at = put_text(memory, bitmap, at, limit, b"#MS:")
    at = put_decimal(memory, bitmap, at, limit, now)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _note_lack(memory: Bytes, bitmap: Words, log: int, number: int) -> int:
    """Note that a record had no room: the rewriting fails, or the log has to be rewritten."""
    if number != current(memory, log):
        put_number(memory, bitmap, log + REWRITE, NO_REWRITE)
        return put_number(memory, bitmap, log + REWRITE_STATUS, _ENOMEM)
    put_number(memory, bitmap, log + WANTED, np.int64(1))
    return put_number(memory, bitmap, log + STATUS, _ENOMEM)


@inlined
def _append(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    log: int,
    form: int,
    request: int,
    cursor: int,
    arguments: int,
    command: int,
) -> int:
    """Append a command's effect to the logs that are written."""
    now, capacity = get_number(memory, kv + NOW), get_number(memory, log + CAPACITY)
    first = get_number(memory, log + TRANSACTION) == INSIDE
    grown = ZERO
    for number in range(2):
        if not is_written(memory, log, number):
            continue
        begin, end = used(memory, log, number, capacity)
        base = log + HEADER_BYTES + number * capacity
        limit, place = base + capacity, base + end
        is_current = number == current(memory, log)
        dumping = not is_current and get_number(memory, log + REWRITE) == DUMPING
        at = _put_stamp(memory, bitmap, log, number, now, place, limit)
        if first:
            at = put_text(memory, bitmap, at, limit, b"*1\r\n$5\r\nMULTI\r\n")
        at = _put_effect(
            memory, bitmap, kv, form, dumping, request, cursor, arguments, command, at, limit
        )
        if at > limit:
            _note_lack(memory, bitmap, log, number)
            continue
        set_used(memory, bitmap, log, number, begin, at - base)
        if is_current or get_number(memory, log + ACTIVE) == 0:
            grown = at - place
    if first:
        put_number(memory, bitmap, log + TRANSACTION, BEGUN)
    return put_number(memory, bitmap, log + APPENDED, get_number(memory, log + APPENDED) + grown)


@inlined
def propagate(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    log: int,
    request: int,
    cursor: int,
    arguments: int,
    command: int,
    reply: int,
) -> int:
    """Append a command that was executed, and whose reply is at an address, to the logs."""
    apart()
    form = FORMS[command]
    kind, digit = memory[reply], memory[reply + 1]
    if form == _NONE or kind == _MINUS or not is_logging(memory, log):
        return 0
    zero = kind == _COLON and digit == _DIGIT_0
    nil = kind == _NIL or (kind == _BULK and digit == _MINUS)
    conditional = form in (_UNLESS_ZERO, _EXPIRY) or command in (_SETNX, _MSETNX)
    if (zero and conditional) or (nil and form in (_GETEX, _DELETED)):
        return 0
    if form == _GETEX and arguments < 2:
        return 0
    if get_number(memory, kv + EXPIRING) > 0:
        put_number(memory, bitmap, log + TIMED, np.int64(1))
    return _append(memory, bitmap, kv, log, form, request, cursor, arguments, command)


@inlined
def begin_transaction(memory: Bytes, bitmap: Words, log: int) -> int:
    """Note that the commands of EXEC follow."""
    return put_number(memory, bitmap, log + TRANSACTION, INSIDE)


@inlined
def end_transaction(memory: Bytes, bitmap: Words, log: int) -> int:
    """Append EXEC if its commands have changed something."""
    capacity = get_number(memory, log + CAPACITY)
    if get_number(memory, log + TRANSACTION) == BEGUN:
        for number in range(2):
            if not is_written(memory, log, number):
                continue
            begin, end = used(memory, log, number, capacity)
            base = log + HEADER_BYTES + number * capacity
            text = b"*1\r\n$4\r\nEXEC\r\n"
            at = put_text(memory, bitmap, base + end, base + capacity, text)
            if at > base + capacity:
                _note_lack(memory, bitmap, log, number)
                continue
            set_used(memory, bitmap, log, number, begin, at - base)
            if number == current(memory, log) or get_number(memory, log + ACTIVE) == 0:
                appended = get_number(memory, log + APPENDED) + at - base - end
                put_number(memory, bitmap, log + APPENDED, appended)
    return put_number(memory, bitmap, log + TRANSACTION, OUTSIDE)


@inlined
def changes_store(command: int) -> bool:
    """Say whether a command may change the store."""
    return FORMS[command] != _NONE


@inlined
def record_bytes(
    memory: Bytes, log: int, command: int, length: int, arguments: int, queued: int, longest: int
) -> int:
    """Return a limit of the bytes of a command's record.

    `length` is that of the command, `queued` that of the commands that EXEC executes.
    """
    if command == _EXEC:
        # An argument is at least 6 bytes of the queue.
        return 4 * queued + ALLOWANCE
    needed = length + 16 * arguments + ALLOWANCE
    if FORMS[command] == _CHANGED and get_number(memory, log + REWRITE) == DUMPING:
        needed += longest
    return needed


@inlined
def has_room(memory: Bytes, bitmap: Words, log: int, needed: int) -> bool:
    """Say whether the buffers of the logs that are written have room for a record."""
    if not is_logging(memory, log):
        return True
    capacity = get_number(memory, log + CAPACITY)
    for number in range(2):
        if is_written(memory, log, number) and not make_room(
            memory, bitmap, log, number, capacity, needed
        ):
            return False
    return True


@inlined
def refusal(memory: Bytes, log: int, command: int, needed: int) -> int:
    """Return the reason for which a command is refused, or 0."""
    phase = get_number(memory, log + PHASE)
    if READING <= phase <= LOADING:
        return 0 if ANSWERED[command] else REFUSED_LOADING
    changes = FORMS[command] != _NONE or (command == _EXEC and needed > ALLOWANCE)
    if phase == OFF or not (changes or command == _PING):
        return 0
    if phase == UNUSABLE or get_number(memory, log + STATUS) != 0:
        return REFUSED_ERROR
    return REFUSED_LENGTH if changes and needed > get_number(memory, log + CAPACITY) else 0


@inlined
def put_refusal(
    memory: Bytes, bitmap: Words, log: int, reason: int, command: int, at: int, limit: int
) -> int:
    """Write the error for a refused command, with Redis's texts."""
    apart()
    if reason == REFUSED_LOADING:
        text = b"-LOADING Redis is loading the dataset in memory\r\n"
        return put_text(memory, bitmap, at, limit, text)
    text = b"-EXECABORT Transaction discarded because of: " if command == _EXEC else b"-"
    at = put_text(memory, bitmap, at, limit, text)
    if reason == REFUSED_LENGTH:
        text = b"ERR command is longer than the append only file's buffer\r\n"
        return put_text(memory, bitmap, at, limit, text)
    at = put_text(memory, bitmap, at, limit, b"MISCONF Errors writing to the AOF file: ")
    at = put_errno(memory, bitmap, at, limit, get_number(memory, log + STATUS))
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def put_errno(memory: Bytes, bitmap: Words, at: int, limit: int, error: int) -> int:
    """Write the C library's text for an errno."""
    text = b"Unknown error"
    if error == _EPERM:
        text = b"Operation not permitted"
    elif error == _EIO:
        text = b"Input/output error"
    elif error == _ENOMEM:
        text = b"Cannot allocate memory"
    elif error == _EINVAL:
        text = b"Invalid argument"
    elif error == _ENOSPC:
        text = b"No space left on device"
    return put_text(memory, bitmap, at, limit, text)
