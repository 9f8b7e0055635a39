"""The key-value store's commands on keys; commands about the server are in `server_commands`.

Replies, texts of errors and counted lookups are those of Redis 7.0. Every command takes the
request, the cursor after its name, the number of arguments and the place of its reply, and returns
the address after the reply. If that address is greater than `limit`, the reply did not fit, and
nothing has changed except that expired keys are deleted. So a command that changes something first
checks that there is room, see `REPLY_ROOM`. `resp3` is True if the client speaks RESP3.

No key and no value is longer than `clients.longest_value`. A write for which there is no memory is
refused, and changes nothing. MSET allocates all of its values before it frees the old ones.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import heap
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import (
    KEYS,
    REFUSED,
    count,
    count_lookup,
    key_length,
    look_up,
    make_room,
    new_entry,
    put_entry,
    remove,
    remove_all,
    set_expiry,
    value,
    value_length,
)
from colobench.guest.region import (
    BLOCK,
    HEAP,
    KEY,
    LINK,
    apart,
    get_number,
    is_entry,
    note_damage,
    put_number,
)
from colobench.guest.resp import (
    ARRAY,
    INTEGER,
    argument,
    digits,
    is_word,
    parse_integer,
    put_bulk,
    put_decimal,
    put_head,
    put_null,
    put_text,
)
from colobench.guest.store import clear_bytes, copy_bytes
from colobench.kernels.jit import Bytes, Words, inlined

#: Bytes of room for the reply that a command needs before it changes something: enough for every
#: reply that is not a value.
REPLY_ROOM = 128
#: Bits of SET's options; AS_NUMBER makes the answer a number.
IF_ABSENT, IF_PRESENT, GIVE_OLD, AS_NUMBER, KEEP_EXPIRY = 1, 2, 4, 8, 16

_LOWEST = -(2**63)


@inlined
def put_syntax_error(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write Redis's syntax error."""
    apart()
    return put_text(memory, bitmap, at, limit, b"-ERR syntax error\r\n")


@inlined
def put_not_integer(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write Redis's error for a text that is not an int64."""
    apart()
    return put_text(memory, bitmap, at, limit, b"-ERR value is not an integer or out of range\r\n")


@inlined
def refuse(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """Write Redis's OOM error, as under the policy noeviction."""
    apart()
    count(memory, bitmap, kv + REFUSED)
    return put_text(
        memory,
        bitmap,
        at,
        limit,
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    )


@inlined
def put_value(memory: Bytes, bitmap: Words, at: int, limit: int, resp3: bool, entry: int) -> int:
    """Write an entry's value as a bulk string, or nil if entry is 0."""
    apart()
    if not entry:
        return put_null(memory, bitmap, at, limit, resp3)
    length = value_length(memory, entry)
    return put_bulk(memory, bitmap, at, limit, value(memory, entry), length)


@inlined
def get(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    at: int,
    limit: int,
) -> int:
    """GET key."""
    key, length, _ = argument(memory, request, cursor)
    _, entry = look_up(memory, bitmap, kv, key, length)
    at = put_value(memory, bitmap, at, limit, resp3, entry)
    if at <= limit:
        count_lookup(memory, bitmap, kv, entry)
    return at


@inlined
def describe_value(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    at: int,
    limit: int,
    kind: bool,
) -> int:
    """TYPE key, or STRLEN key."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, _ = argument(memory, request, cursor)
    _, entry = look_up(memory, bitmap, kv, key, length)
    count_lookup(memory, bitmap, kv, entry)
    if kind:
        text = b"+string\r\n" if entry else b"+none\r\n"
        return put_text(memory, bitmap, at, limit, text)
    size = value_length(memory, entry) if entry else ZERO
    return put_head(memory, bitmap, at, limit, INTEGER, size)


@inlined
def _count_found(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, arguments: int
) -> int:
    """Count the lookups of keys, and return the number of keys that exist."""
    found = 0
    for _ in range(arguments):
        key, length, cursor = argument(memory, request, cursor)
        _, entry = look_up(memory, bitmap, kv, key, length)
        count_lookup(memory, bitmap, kv, entry)
        found += 1 if entry else 0
    return found


@inlined
def exists(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """EXISTS key...; a repeated key counts repeatedly."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    found = _count_found(memory, bitmap, kv, request, cursor, arguments)
    return put_head(memory, bitmap, at, limit, INTEGER, found)


@inlined
def mget(
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
    """MGET key..."""
    first = cursor
    at = put_head(memory, bitmap, at, limit, ARRAY, arguments)
    for _ in range(arguments):
        key, length, cursor = argument(memory, request, cursor)
        _, entry = look_up(memory, bitmap, kv, key, length)
        at = put_value(memory, bitmap, at, limit, resp3, entry)
    if at <= limit:
        _count_found(memory, bitmap, kv, request, first, arguments)
    return at


@inlined
def put(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    key: int,
    length: int,
    begin: int,
    size: int,
    options: int,
    expiry: int,
    at: int,
    limit: int,
) -> int:
    """Set a key to the `size` bytes from `begin` on: SET, SETNX, GETSET, SETEX by their options.

    The key expires after the millisecond `expiry`, or never if that is 0.
    """
    apart()
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    link, entry = look_up(memory, bitmap, kv, key, length)
    end = at
    if options & GIVE_OLD:
        end = put_value(memory, bitmap, at, limit, resp3, entry)
        if end > limit:
            return end
        count_lookup(memory, bitmap, kv, entry)
    done = not (options & IF_ABSENT if entry else options & IF_PRESENT)
    if done:
        entry = make_room(memory, bitmap, kv, link, entry, key, length, size, ZERO)
        if not entry:
            return refuse(memory, bitmap, kv, at, limit)
        copy_bytes(memory, bitmap, entry + KEY + length, begin, size)
        if not options & KEEP_EXPIRY:
            set_expiry(memory, bitmap, kv, entry, expiry)
    if options & GIVE_OLD:
        return end
    if options & AS_NUMBER:
        return put_head(memory, bitmap, at, limit, INTEGER, np.int64(done))
    if not done:
        return put_null(memory, bitmap, at, limit, resp3)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def put_plainly(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    at: int,
    limit: int,
    options: int,
) -> int:
    """SETNX key value, or GETSET key value, by their options."""
    key, length, cursor = argument(memory, request, cursor)
    begin, size, _ = argument(memory, request, cursor)
    return put(memory, bitmap, kv, resp3, key, length, begin, size, options, ZERO, at, limit)


@inlined
def delete(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """DEL key..., or UNLINK key..., which is the same here."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    deleted = 0
    for _ in range(arguments):
        key, length, cursor = argument(memory, request, cursor)
        link, entry = look_up(memory, bitmap, kv, key, length)
        if entry:
            remove(memory, bitmap, kv, link, entry)
            deleted += 1
    return put_head(memory, bitmap, at, limit, INTEGER, deleted)


@inlined
def add(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    key: int,
    length: int,
    amount: int,
    at: int,
    limit: int,
) -> int:
    """Add to the number in a key's value, or to 0 if there is no key."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    link, entry = look_up(memory, bitmap, kv, key, length)
    number = 0
    if entry:
        valid, number = parse_integer(memory, value(memory, entry), value_length(memory, entry))
        if not valid:
            return put_not_integer(memory, bitmap, at, limit)
    total = number + amount
    # The sum has overflowed if both have one sign and the wrapped sum has the other one.
    if ((number ^ total) & (amount ^ total)) < 0:
        text = b"-ERR increment or decrement would overflow\r\n"
        return put_text(memory, bitmap, at, limit, text)
    size = digits(total)
    entry = make_room(memory, bitmap, kv, link, entry, key, length, size, ZERO)
    if not entry:
        return refuse(memory, bitmap, kv, at, limit)
    begin = entry + KEY + length
    put_decimal(memory, bitmap, begin, begin + size, total)
    return put_head(memory, bitmap, at, limit, INTEGER, total)


@inlined
def increment(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
    sign: int,
) -> int:
    """INCR key and INCRBY key amount; with the sign -1 DECR and DECRBY."""
    key, length, cursor = argument(memory, request, cursor)
    amount = 1
    if arguments == 2:
        word, letters, _ = argument(memory, request, cursor)
        valid, amount = parse_integer(memory, word, letters)
        if not valid:
            return put_not_integer(memory, bitmap, at, limit)
        if sign < 0 and amount == _LOWEST:
            return put_text(memory, bitmap, at, limit, b"-ERR decrement would overflow\r\n")
    return add(memory, bitmap, kv, key, length, sign * amount, at, limit)


@inlined
def put_too_long(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write the error for a value that would be too long."""
    text = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def append(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    longest: int,
    request: int,
    cursor: int,
    at: int,
    limit: int,
) -> int:
    """APPEND key value."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, cursor = argument(memory, request, cursor)
    begin, size, _ = argument(memory, request, cursor)
    link, entry = look_up(memory, bitmap, kv, key, length)
    before = value_length(memory, entry) if entry else 0
    if before + size > longest:
        return put_too_long(memory, bitmap, at, limit)
    entry = make_room(memory, bitmap, kv, link, entry, key, length, before + size, before)
    if not entry:
        return refuse(memory, bitmap, kv, at, limit)
    copy_bytes(memory, bitmap, entry + KEY + length + before, begin, size)
    return put_head(memory, bitmap, at, limit, INTEGER, before + size)


@inlined
def _make_entries(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, pairs: int
) -> tuple[int, int]:
    """Make entries of MSET's keys and values, linked in order.

    Returns the number of entries for which there was room, and the first one, or 0.
    """
    first, last = ZERO, ZERO
    for made in range(pairs):
        key, length, cursor = argument(memory, request, cursor)
        begin, size, cursor = argument(memory, request, cursor)
        entry = new_entry(memory, bitmap, kv, key, length, size)
        if not entry:
            return made, first
        copy_bytes(memory, bitmap, entry + KEY + length, begin, size)
        put_number(memory, bitmap, entry + LINK, ZERO)
        if last:
            put_number(memory, bitmap, last + LINK, entry)
        else:
            first = entry
        last = entry
    return pairs, first


@inlined
def _any_is_there(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, pairs: int
) -> bool:
    """Say whether any of the keys of MSETNX exists."""
    for _ in range(pairs):
        key, length, cursor = argument(memory, request, cursor)
        _, _, cursor = argument(memory, request, cursor)
        _, entry = look_up(memory, bitmap, kv, key, length)
        if entry:
            return True
    return False


@inlined
def mset(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
    if_absent: bool,
) -> int:
    """MSET key value..., all of them or none; or MSETNX, if none of the keys exists."""
    if arguments & 1:
        at = put_text(memory, bitmap, at, limit, b"-ERR wrong number of arguments for 'mset")
        at = put_text(memory, bitmap, at, limit, b"nx" if if_absent else b"")
        return put_text(memory, bitmap, at, limit, b"' command\r\n")
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    pairs = arguments // 2
    if if_absent and _any_is_there(memory, bitmap, kv, request, cursor, pairs):
        return put_head(memory, bitmap, at, limit, INTEGER, ZERO)
    made, entry = _make_entries(memory, bitmap, kv, request, cursor, pairs)
    room = made == pairs
    # Counted, and checked again each time, because in a broken heap entries may overlap.
    for _ in range(made):
        if not is_entry(memory, kv, entry):
            note_damage(memory, bitmap, kv, BLOCK)
            break
        following = get_number(memory, entry + LINK)
        if room:
            link, old = look_up(memory, bitmap, kv, entry + KEY, key_length(memory, entry))
            put_entry(memory, bitmap, kv, link, old, entry)
        else:
            heap.release(memory, bitmap, kv + HEAP, entry)
        entry = following
    if not room:
        return refuse(memory, bitmap, kv, at, limit)
    return put_text(memory, bitmap, at, limit, b":1\r\n" if if_absent else b"+OK\r\n")


@inlined
def count_keys(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """DBSIZE."""
    return put_head(memory, bitmap, at, limit, INTEGER, get_number(memory, kv + KEYS))


@inlined
def flush(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """FLUSHALL [ASYNC | SYNC], or FLUSHDB, which is the same, because there is one database."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    if arguments > 0:
        word, letters, _ = argument(memory, request, cursor)
        known = is_word(memory, word, letters, b"sync") or is_word(memory, word, letters, b"async")
        if arguments > 1 or not known:
            return put_syntax_error(memory, bitmap, at, limit)
    remove_all(memory, bitmap, kv)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def get_range(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, at: int, limit: int
) -> int:
    """GETRANGE key start end, or SUBSTR, which is the same."""
    key, length, cursor = argument(memory, request, cursor)
    word, letters, cursor = argument(memory, request, cursor)
    valid, first = parse_integer(memory, word, letters)
    word, letters, _ = argument(memory, request, cursor)
    both, last = parse_integer(memory, word, letters)
    if not (valid and both):
        return put_not_integer(memory, bitmap, at, limit)
    _, entry = look_up(memory, bitmap, kv, key, length)
    begin, size = ZERO, ZERO
    if entry and not (first < 0 and last < 0 and first > last):
        size = value_length(memory, entry)
        first = max(ZERO, first + size if first < 0 else first)
        last = min(size - 1, max(ZERO, last + size if last < 0 else last))
        begin = value(memory, entry) + min(first, size)
        size = max(ZERO, last - first + 1)
    at = put_bulk(memory, bitmap, at, limit, begin, size)
    if at <= limit:
        count_lookup(memory, bitmap, kv, entry)
    return at


@inlined
def set_range(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    longest: int,
    request: int,
    cursor: int,
    at: int,
    limit: int,
) -> int:
    """SETRANGE key offset value; a gap is filled with zero bytes."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, cursor = argument(memory, request, cursor)
    word, letters, cursor = argument(memory, request, cursor)
    begin, size, _ = argument(memory, request, cursor)
    valid, offset = parse_integer(memory, word, letters)
    if not valid:
        return put_not_integer(memory, bitmap, at, limit)
    if offset < 0:
        return put_text(memory, bitmap, at, limit, b"-ERR offset is out of range\r\n")
    link, entry = look_up(memory, bitmap, kv, key, length)
    before = value_length(memory, entry) if entry else ZERO
    if size == 0:
        return put_head(memory, bitmap, at, limit, INTEGER, before)
    if offset > longest - size:
        return put_too_long(memory, bitmap, at, limit)
    after = max(before, offset + size)
    entry = make_room(memory, bitmap, kv, link, entry, key, length, after, before)
    if not entry:
        return refuse(memory, bitmap, kv, at, limit)
    text = entry + KEY + length
    if offset > before:
        clear_bytes(memory, bitmap, text + before, offset - before)
    copy_bytes(memory, bitmap, text + offset, begin, size)
    return put_head(memory, bitmap, at, limit, INTEGER, after)
