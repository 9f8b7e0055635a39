"""Commands about the server: PING, TIME, CONFIG, COMMAND, OBJECT, FUNCTION.

`commands` describes the arguments of these functions. There is one database. The configuration is
read-only, but for the append-only file of a guest with a disk, see `persistence_commands`. INFO is
in `information`, commands about the client are in `client_commands`.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import heap, persistence_commands
from colobench.guest.append_only_file import log_of
from colobench.guest.client_commands import put_subcommand_arity_error, put_unknown_subcommand
from colobench.guest.command_table import (
    ALL_NAMES,
    BEGINS,
    DESCRIPTIONS,
    LENGTHS,
    NAME_BEGINS,
    NAME_ENDS,
    NAMES,
)
from colobench.guest.commands import REPLY_ROOM, put_not_integer, put_syntax_error
from colobench.guest.glob import is_plain, matches
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import count_lookup, look_up, value, value_length
from colobench.guest.region import HEAP, get_number
from colobench.guest.resp import (
    ARRAY,
    INTEGER,
    QUOTED_BYTES,
    argument,
    is_word,
    lower,
    parse_integer,
    put_bulk,
    put_bulk_decimal,
    put_head,
    put_lower,
    put_map_head,
    put_null,
    put_part,
    put_quoted,
    put_text,
)
from colobench.kernels.jit import Bytes, Words, inlined

#: Redis's parameters for CONFIG GET, with their values; an empty value is computed.
_TABLE = (
    (b"save", b""),
    (b"appendonly", b""),
    (b"databases", b"1"),
    (b"maxmemory", b""),
    (b"maxmemory-policy", b"noeviction"),
    (b"proto-max-bulk-len", b""),
    (b"appendfsync", b""),
)
_PARAMETERS, _APPENDONLY, _MAXMEMORY, _LONGEST_BULK, _APPENDFSYNC = len(_TABLE), 1, 3, 5, 6
_PARAMETER_NAMES, _PARAMETER_VALUES = (b"".join(part) for part in zip(*_TABLE, strict=True))
_PARAMETER_BEGINS, _VALUE_BEGINS = (
    np.cumsum([0, *map(len, part)], dtype=np.int64) for part in zip(*_TABLE, strict=True)
)
#: Longest string that Redis stores next to its head, bytes.
_LONGEST_EMBEDDED = 44

_BULK, _TWO = np.int64(ord("$")), np.int64(2)
_LOWEST_INT, _HIGHEST_INT = -(2**31), 2**31 - 1
_SECOND, _U0 = np.uint64(1_000_000), np.uint64(0)


@inlined
def _packed(memory: Bytes, begin: int, length: int) -> np.uint64:
    """Pack up to 8 characters in lower case like `command_table.packed`."""
    name = _U0
    for i in range(length):
        name |= np.uint64(lower(memory[begin + i])) << np.uint64(8 * i)
    return name


@inlined
def find_command(memory: Bytes, begin: int, length: int) -> int:
    """Return the index of a command in the table by its name, in any case; -1 if there is none."""
    if length > 16:
        return -1
    name, end = _packed(memory, begin, min(length, 8)), _U0
    if length > 8:
        end = _packed(memory, begin + 8, length - 8)
    for place in range(len(NAMES)):
        if NAMES[place] == name and LENGTHS[place] == length and NAME_ENDS[place] == end:
            return place
    return -1


@inlined
def put_arity_error(
    memory: Bytes, bitmap: Words, at: int, limit: int, name: int, length: int, aborts: bool
) -> int:
    """Write the error for a wrong number of arguments; a later EXEC fails."""
    text = b"-EXECABORT Transaction discarded because of: " if aborts else b"-ERR "
    at = put_text(memory, bitmap, at, limit, text)
    at = put_text(memory, bitmap, at, limit, b"wrong number of arguments for '")
    at = put_lower(memory, bitmap, at, limit, name, length)
    return put_text(memory, bitmap, at, limit, b"' command\r\n")


@inlined
def put_unknown(
    memory: Bytes, bitmap: Words, request: int, cursor: int, count: int, at: int, limit: int
) -> int:
    """Write the error for an unknown command, with its first arguments."""
    name, length, cursor = argument(memory, request, cursor)
    at = put_text(memory, bitmap, at, limit, b"-ERR unknown command '")
    at = put_quoted(memory, bitmap, at, limit, name, length, QUOTED_BYTES)
    at = put_text(memory, bitmap, at, limit, b"', with args beginning with: ")
    first = at
    for _ in range(count - 1):
        if at - first >= QUOTED_BYTES:
            break
        begin, length, cursor = argument(memory, request, cursor)
        most = QUOTED_BYTES - (at - first)
        at = put_text(memory, bitmap, at, limit, b"'")
        at = put_quoted(memory, bitmap, at, limit, begin, length, most)
        at = put_text(memory, bitmap, at, limit, b"' ")
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def ping(
    memory: Bytes, bitmap: Words, request: int, cursor: int, count: int, at: int, limit: int
) -> int:
    """PING [message], or ECHO message."""
    if count == 0:
        return put_text(memory, bitmap, at, limit, b"+PONG\r\n")
    if count > 1:
        text = b"-ERR wrong number of arguments for 'ping' command\r\n"
        return put_text(memory, bitmap, at, limit, text)
    begin, length, _ = argument(memory, request, cursor)
    return put_bulk(memory, bitmap, at, limit, begin, length)


@inlined
def time(memory: Bytes, bitmap: Words, now_us: np.uint64, at: int, limit: int) -> int:
    """TIME: seconds since 1970, and microseconds of the current one."""
    at = put_head(memory, bitmap, at, limit, ARRAY, _TWO)
    at = put_bulk_decimal(memory, bitmap, at, limit, np.int64(now_us // _SECOND))
    return put_bulk_decimal(memory, bitmap, at, limit, np.int64(now_us % _SECOND))


@inlined
def select(memory: Bytes, bitmap: Words, request: int, cursor: int, at: int, limit: int) -> int:
    """SELECT index; database 0 is the only one."""
    begin, length, _ = argument(memory, request, cursor)
    valid, number = parse_integer(memory, begin, length)
    if not valid:
        return put_not_integer(memory, bitmap, at, limit)
    if number < _LOWEST_INT or number > _HIGHEST_INT:
        text = b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
    else:
        text = b"-ERR DB index is out of range\r\n" if number else b"+OK\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def _is_wanted(memory: Bytes, begin: int, length: int, parameter: int) -> bool:
    """Say whether a pattern matches a parameter's name, in any case."""
    first, last = _PARAMETER_BEGINS[parameter], _PARAMETER_BEGINS[parameter + 1]
    return matches(memory, begin, length, _PARAMETER_NAMES, first, last - first, True)


@inlined
def _put_parameter(
    memory: Bytes, bitmap: Words, kv: int, longest: int, parameter: int, at: int, limit: int
) -> int:
    """Write the value of a parameter."""
    if parameter == _MAXMEMORY:
        total = get_number(memory, kv + HEAP + heap.TOTAL_BYTES)
        return put_bulk_decimal(memory, bitmap, at, limit, total)
    if parameter == _LONGEST_BULK:
        return put_bulk_decimal(memory, bitmap, at, limit, longest)
    if parameter == _APPENDONLY:
        return persistence_commands.put_appendonly(memory, bitmap, kv, at, limit)
    if parameter == _APPENDFSYNC:
        return persistence_commands.put_appendfsync(memory, bitmap, kv, at, limit)
    first, last = _VALUE_BEGINS[parameter], _VALUE_BEGINS[parameter + 1]
    at = put_head(memory, bitmap, at, limit, _BULK, last - first)
    if last > first:
        at = put_part(memory, bitmap, at, limit, _PARAMETER_VALUES, first, last)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _put_parameters(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    longest: int,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> tuple[int, int]:
    """Write the parameters that a request's patterns match, each once; also return their number.

    They are in the order of the patterns, those of one pattern in the table's order. A name is
    spelled as in the request.
    """
    # Only a guest with a disk has appendfsync.
    number, done = 0, 0 if log_of(memory, kv) >= 0 else 1 << _APPENDFSYNC
    for _ in range(count):
        begin, length, cursor = argument(memory, request, cursor)
        for parameter in range(_PARAMETERS):
            bit = 1 << parameter
            if done & bit or not _is_wanted(memory, begin, length, parameter):
                continue
            done |= bit
            number += 1
            first, last = _PARAMETER_BEGINS[parameter], _PARAMETER_BEGINS[parameter + 1]
            if is_plain(memory, begin, length):
                at = put_bulk(memory, bitmap, at, limit, begin, length)
            else:
                at = put_head(memory, bitmap, at, limit, _BULK, last - first)
                at = put_part(memory, bitmap, at, limit, _PARAMETER_NAMES, first, last)
                at = put_text(memory, bitmap, at, limit, b"\r\n")
            at = _put_parameter(memory, bitmap, kv, longest, parameter, at, limit)
    return at, number


@inlined
def config(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    longest: int,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> int:
    """CONFIG GET pattern...; with a disk also CONFIG SET parameter value...."""
    word, letters, cursor = argument(memory, request, cursor)
    log = log_of(memory, kv)
    if log >= 0 and is_word(memory, word, letters, b"set"):
        return persistence_commands.config_set(
            memory, bitmap, log, word, letters, request, cursor, count - 1, at, limit
        )
    if not is_word(memory, word, letters, b"get"):
        return put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"CONFIG")
    if count < 2:
        return put_subcommand_arity_error(memory, bitmap, at, limit, word, letters, b"config|")
    _, number = _put_parameters(memory, bitmap, kv, longest, request, cursor, count - 1, at, at - 1)
    at = put_map_head(memory, bitmap, at, limit, resp3, number)
    at, _ = _put_parameters(memory, bitmap, kv, longest, request, cursor, count - 1, at, limit)
    return at


@inlined
def _put_description(
    memory: Bytes, bitmap: Words, at: int, limit: int, resp3: bool, command: int
) -> int:
    """Write a command's description, or nil for -1."""
    if command < 0:
        return put_null(memory, bitmap, at, limit, resp3)
    place = command + (len(NAMES) if resp3 else 0)
    return put_part(memory, bitmap, at, limit, DESCRIPTIONS, BEGINS[place], BEGINS[place + 1])


@inlined
def _list_names(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """COMMAND LIST."""
    at = put_head(memory, bitmap, at, limit, ARRAY, np.int64(len(NAMES)))
    for place in range(len(NAMES)):
        first, last = NAME_BEGINS[place], NAME_BEGINS[place + 1]
        at = put_head(memory, bitmap, at, limit, _BULK, last - first)
        at = put_part(memory, bitmap, at, limit, ALL_NAMES, first, last)
        at = put_text(memory, bitmap, at, limit, b"\r\n")
    return at


@inlined
def command(
    memory: Bytes,
    bitmap: Words,
    resp3: bool,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> int:
    """COMMAND, COMMAND COUNT, LIST, INFO [name...], DOCS (there are none)."""
    word, letters = ZERO, ZERO
    if count > 0:
        word, letters, cursor = argument(memory, request, cursor)
    counts = count > 0 and is_word(memory, word, letters, b"count")
    if counts or (count > 0 and is_word(memory, word, letters, b"list")):
        if counts and count > 1:
            return put_subcommand_arity_error(memory, bitmap, at, limit, word, letters, b"command|")
        if count > 1:
            return put_syntax_error(memory, bitmap, at, limit)
        if counts:
            return put_head(memory, bitmap, at, limit, INTEGER, np.int64(len(NAMES)))
        return _list_names(memory, bitmap, at, limit)
    if count > 0 and is_word(memory, word, letters, b"docs"):
        return put_map_head(memory, bitmap, at, limit, resp3, ZERO)
    if count > 0 and not is_word(memory, word, letters, b"info"):
        return put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"COMMAND")
    named = count > 1
    number = count - 1 if named else len(NAMES)
    at = put_head(memory, bitmap, at, limit, ARRAY, number)
    for i in range(number):
        if named:
            word, letters, cursor = argument(memory, request, cursor)
        wanted = find_command(memory, word, letters) if named else i
        at = _put_description(memory, bitmap, at, limit, resp3, wanted)
    return at


@inlined
def object_command(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> int:
    """OBJECT ENCODING key: Redis's encoding of such a value if it were set."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    word, letters, cursor = argument(memory, request, cursor)
    if not is_word(memory, word, letters, b"encoding"):
        return put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"OBJECT")
    if count != 2:
        return put_subcommand_arity_error(memory, bitmap, at, limit, word, letters, b"object|")
    key, length, _ = argument(memory, request, cursor)
    _, entry = look_up(memory, bitmap, kv, key, length)
    count_lookup(memory, bitmap, kv, entry)
    if not entry:
        return put_null(memory, bitmap, at, limit, resp3)
    size = value_length(memory, entry)
    number, _ = parse_integer(memory, value(memory, entry), size)
    if number:
        return put_text(memory, bitmap, at, limit, b"$3\r\nint\r\n")
    text = b"$6\r\nembstr\r\n" if size <= _LONGEST_EMBEDDED else b"$3\r\nraw\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def function(
    memory: Bytes, bitmap: Words, request: int, cursor: int, count: int, at: int, limit: int
) -> int:
    """FUNCTION FLUSH [SYNC | ASYNC]: there are no functions, so there is nothing to do."""
    word, letters, cursor = argument(memory, request, cursor)
    if not is_word(memory, word, letters, b"flush"):
        return put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"FUNCTION")
    if count > 2:
        at = put_text(
            memory, bitmap, at, limit, b"-ERR unknown subcommand or wrong number of arguments for '"
        )
        at = put_quoted(memory, bitmap, at, limit, word, letters, QUOTED_BYTES)
        return put_text(memory, bitmap, at, limit, b"'. Try FUNCTION HELP.\r\n")
    if count == 2:
        word, letters, _ = argument(memory, request, cursor)
        asynchronous = is_word(memory, word, letters, b"async")
        if not asynchronous and not is_word(memory, word, letters, b"sync"):
            text = b"-ERR FUNCTION FLUSH only supports SYNC|ASYNC option\r\n"
            return put_text(memory, bitmap, at, limit, text)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")
