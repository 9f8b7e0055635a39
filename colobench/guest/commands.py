"""What the key-value store's commands on keys do; those about the server are in `server_commands`.

Replies, texts of errors and counted lookups are those of Redis 7.0. Every command takes the request
and the cursor behind its name, how many arguments follow, and the room for its reply, and gives
the address behind the reply. If that is behind `limit`, the reply did not fit, and nothing else has
changed; so whatever changes something looks first whether there is room, see `REPLY_ROOM`.

A value is no longer than LONGEST_VALUE, so that GET can always answer; a key is as long as a
request allows. A write is refused for want of memory if what it writes has no room, and then it
changes nothing. MSET makes room for all of its values before it drops the old ones. There is no
expiry.
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
    find,
    key_length,
    make_room,
    new_entry,
    put_entry,
    remove,
    remove_all,
    value,
    value_length,
)
from colobench.guest.region import (
    BLOCK,
    HEAP,
    KEY,
    LINK,
    get_number,
    is_entry,
    note_damage,
    put_number,
)
from colobench.guest.resp import (
    ARRAY,
    BUFFER_BYTES,
    INTEGER,
    argument,
    digits,
    is_word,
    parse_integer,
    put_bulk,
    put_decimal,
    put_head,
    put_text,
)
from colobench.guest.store import copy_bytes
from colobench.kernels.jit import Bytes, Words, inlined

#: A bulk string of so many bytes fills a buffer.
LONGEST_VALUE = BUFFER_BYTES - 10
#: A command that changes something waits for so much room: enough for every reply that is not a
#: value.
REPLY_ROOM = 128
#: What SET may be told, and that its answer is a number.
IF_ABSENT, IF_PRESENT, GIVE_OLD, AS_NUMBER = 1, 2, 4, 8

_LOWEST = -(2**63)


@inlined
def put_syntax_error(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write Redis' answer to options that make no sense."""
    return put_text(memory, bitmap, at, limit, b"-ERR syntax error\r\n")


@inlined
def put_not_integer(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write Redis' answer to what should be an int64."""
    return put_text(memory, bitmap, at, limit, b"-ERR value is not an integer or out of range\r\n")


@inlined
def _refuse(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """Write that memory is full, as Redis does under the policy noeviction."""
    count(memory, bitmap, kv + REFUSED)
    return put_text(
        memory,
        bitmap,
        at,
        limit,
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    )


@inlined
def _put_value(memory: Bytes, bitmap: Words, at: int, limit: int, entry: int) -> int:
    """Write an entry's value as a bulk string, or nil if entry is 0."""
    if not entry:
        return put_text(memory, bitmap, at, limit, b"$-1\r\n")
    length = value_length(memory, entry)
    return put_bulk(memory, bitmap, at, limit, value(memory, entry), length)


@inlined
def get(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, at: int, limit: int
) -> int:
    """GET key."""
    key, length, _ = argument(memory, request, cursor)
    _, entry = find(memory, bitmap, kv, key, length)
    at = _put_value(memory, bitmap, at, limit, entry)
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
    _, entry = find(memory, bitmap, kv, key, length)
    count_lookup(memory, bitmap, kv, entry)
    if kind:
        text = b"+string\r\n" if entry else b"+none\r\n"
        return put_text(memory, bitmap, at, limit, text)
    size = value_length(memory, entry) if entry else ZERO
    return put_head(memory, bitmap, at, limit, INTEGER, size)


@inlined
def _look_up(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, arguments: int
) -> int:
    """Count the lookups of keys, and give how many are there."""
    found = 0
    for _ in range(arguments):
        key, length, cursor = argument(memory, request, cursor)
        _, entry = find(memory, bitmap, kv, key, length)
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
    """EXISTS key...; a key that is named twice counts twice."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    found = _look_up(memory, bitmap, kv, request, cursor, arguments)
    return put_head(memory, bitmap, at, limit, INTEGER, found)


@inlined
def mget(
    memory: Bytes,
    bitmap: Words,
    kv: int,
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
        _, entry = find(memory, bitmap, kv, key, length)
        at = _put_value(memory, bitmap, at, limit, entry)
    if at <= limit:
        _look_up(memory, bitmap, kv, request, first, arguments)
    return at


@inlined
def put(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    key: int,
    length: int,
    begin: int,
    size: int,
    options: int,
    at: int,
    limit: int,
) -> int:
    """Give a key a value, `size` bytes from `begin` on: SET, SETNX and GETSET by their options."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    link, entry = find(memory, bitmap, kv, key, length)
    end = at
    if options & GIVE_OLD:
        end = _put_value(memory, bitmap, at, limit, entry)
        if end > limit:
            return end
        count_lookup(memory, bitmap, kv, entry)
    done = not (options & IF_ABSENT if entry else options & IF_PRESENT)
    if done:
        entry = make_room(memory, bitmap, kv, link, entry, key, length, size, ZERO)
        if not entry:
            return _refuse(memory, bitmap, kv, at, limit)
        copy_bytes(memory, bitmap, entry + KEY + length, begin, size)
    if options & GIVE_OLD:
        return end
    if options & AS_NUMBER:
        return put_head(memory, bitmap, at, limit, INTEGER, np.int64(done))
    return put_text(memory, bitmap, at, limit, b"+OK\r\n" if done else b"$-1\r\n")


@inlined
def put_plainly(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    at: int,
    limit: int,
    options: int,
) -> int:
    """SETNX key value, or GETSET key value, by their options."""
    key, length, cursor = argument(memory, request, cursor)
    begin, size, _ = argument(memory, request, cursor)
    return put(memory, bitmap, kv, key, length, begin, size, options, at, limit)


@inlined
def put_with_options(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """SET key value [NX | XX] [GET] [KEEPTTL]; EX, PX, EXAT and PXAT are refused."""
    key, length, cursor = argument(memory, request, cursor)
    begin, size, cursor = argument(memory, request, cursor)
    options, expiry, keep, left = 0, False, False, arguments - 2
    while left > 0:
        word, letters, cursor = argument(memory, request, cursor)
        left -= 1
        if is_word(memory, word, letters, b"nx"):
            options |= IF_ABSENT
        elif is_word(memory, word, letters, b"xx"):
            options |= IF_PRESENT
        elif is_word(memory, word, letters, b"get"):
            options |= GIVE_OLD
        elif is_word(memory, word, letters, b"keepttl"):
            keep = True
        elif (
            left > 0
            and not expiry
            and (
                is_word(memory, word, letters, b"ex")
                or is_word(memory, word, letters, b"px")
                or is_word(memory, word, letters, b"exat")
                or is_word(memory, word, letters, b"pxat")
            )
        ):
            expiry = True
            _, _, cursor = argument(memory, request, cursor)
            left -= 1
        else:
            return put_syntax_error(memory, bitmap, at, limit)
    if (options & IF_ABSENT and options & IF_PRESENT) or (expiry and keep):
        return put_syntax_error(memory, bitmap, at, limit)
    if expiry:
        text = b"-ERR SET with EX, PX, EXAT or PXAT is not supported: keys do not expire here\r\n"
        return put_text(memory, bitmap, at, limit, text)
    return put(memory, bitmap, kv, key, length, begin, size, options, at, limit)


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
        link, entry = find(memory, bitmap, kv, key, length)
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
    """Add to the number that is a key's value, or to 0 if there is none."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    link, entry = find(memory, bitmap, kv, key, length)
    number = 0
    if entry:
        valid, number = parse_integer(memory, value(memory, entry), value_length(memory, entry))
        if not valid:
            return put_not_integer(memory, bitmap, at, limit)
    total = number + amount
    # It overflows if both have one sign and the sum, which wraps, has the other one.
    if ((number ^ total) & (amount ^ total)) < 0:
        text = b"-ERR increment or decrement would overflow\r\n"
        return put_text(memory, bitmap, at, limit, text)
    size = digits(total)
    entry = make_room(memory, bitmap, kv, link, entry, key, length, size, ZERO)
    if not entry:
        return _refuse(memory, bitmap, kv, at, limit)
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
def append(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, at: int, limit: int
) -> int:
    """APPEND key value."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    key, length, cursor = argument(memory, request, cursor)
    begin, size, _ = argument(memory, request, cursor)
    link, entry = find(memory, bitmap, kv, key, length)
    before = value_length(memory, entry) if entry else 0
    if before + size > LONGEST_VALUE:
        text = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
        return put_text(memory, bitmap, at, limit, text)
    entry = make_room(memory, bitmap, kv, link, entry, key, length, before + size, before)
    if not entry:
        return _refuse(memory, bitmap, kv, at, limit)
    copy_bytes(memory, bitmap, entry + KEY + length + before, begin, size)
    return put_head(memory, bitmap, at, limit, INTEGER, before + size)


@inlined
def _make_entries(
    memory: Bytes, bitmap: Words, kv: int, request: int, cursor: int, pairs: int
) -> tuple[int, int]:
    """Make entries of MSET's keys and values, linked in their order; gives how many had room.

    And the first one, or 0.
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
def mset(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """MSET key value..., all of them or none."""
    if arguments & 1:
        text = b"-ERR wrong number of arguments for 'mset' command\r\n"
        return put_text(memory, bitmap, at, limit, text)
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    made, entry = _make_entries(memory, bitmap, kv, request, cursor, arguments // 2)
    room = made == arguments // 2
    # Counted, and looked at again each time: in a broken heap they may have overwritten each other.
    for _ in range(made):
        if not is_entry(memory, kv, entry):
            note_damage(memory, bitmap, kv, BLOCK)
            break
        following = get_number(memory, entry + LINK)
        if room:
            link, old = find(memory, bitmap, kv, entry + KEY, key_length(memory, entry))
            put_entry(memory, bitmap, kv, link, old, entry)
        else:
            heap.release(memory, bitmap, kv + HEAP, entry)
        entry = following
    if not room:
        return _refuse(memory, bitmap, kv, at, limit)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


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
    """FLUSHALL [ASYNC | SYNC], or FLUSHDB: there is one database."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    if arguments > 0:
        word, letters, _ = argument(memory, request, cursor)
        known = is_word(memory, word, letters, b"sync") or is_word(memory, word, letters, b"async")
        if arguments > 1 or not known:
            return put_syntax_error(memory, bitmap, at, limit)
    remove_all(memory, bitmap, kv)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")
