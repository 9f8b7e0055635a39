"""What the key-value store says of itself: PING and HELLO, INFO, CONFIG GET, COMMAND, CLIENT.

They are called as `commands` says. A server that speaks RESP2 alone refuses HELLO 3. There is one
database, no user, and no state of a connection: a client's name is accepted and forgotten, and
connections have no number. The configuration can be read, not set.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import heap
from colobench.guest.command_table import BEGINS, DESCRIPTIONS, LENGTHS, NAMES
from colobench.guest.commands import LONGEST_VALUE, put_not_integer, put_syntax_error
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import ERRORS, HITS, KEYS, MISSES, REFUSED, REQUESTS
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
    put_decimal,
    put_head,
    put_lower,
    put_part,
    put_quoted,
    put_text,
)
from colobench.kernels.jit import Bytes, Words, inlined

#: INFO's sections, as bits.
SERVER, CLIENTS, MEMORY, STATS, KEYSPACE = 1, 2, 4, 8, 16
_ALL = SERVER | CLIENTS | MEMORY | STATS | KEYSPACE

_BULK, _TWO = np.int64(ord("$")), np.int64(2)
_STAR, _ANY = ord("*"), ord("?")
_LONGEST_VALUE = np.int64(LONGEST_VALUE)
_LOWEST_INT, _HIGHEST_INT = -(2**31), 2**31 - 1
_SECOND, _U0 = np.uint64(1_000_000), np.uint64(0)


@inlined
def find_command(memory: Bytes, begin: int, length: int) -> int:
    """Give the place of a command in the table by its name, in any case; -1 if there is none."""
    if length > 8:
        return -1
    name = _U0
    for i in range(length):
        name |= np.uint64(lower(memory[begin + i])) << np.uint64(8 * i)
    for place in range(len(NAMES)):
        if NAMES[place] == name and LENGTHS[place] == length:
            return place
    return -1


@inlined
def put_arity_error(
    memory: Bytes, bitmap: Words, at: int, limit: int, name: int, length: int
) -> int:
    """Write that a command takes another number of arguments."""
    at = put_text(memory, bitmap, at, limit, b"-ERR wrong number of arguments for '")
    at = put_lower(memory, bitmap, at, limit, name, length)
    return put_text(memory, bitmap, at, limit, b"' command\r\n")


@inlined
def _put_subcommand_arity_error(
    memory: Bytes, bitmap: Words, at: int, limit: int, word: int, letters: int, container: bytes
) -> int:
    """Write that a command's subcommand takes another number of arguments."""
    at = put_text(memory, bitmap, at, limit, b"-ERR wrong number of arguments for '")
    at = put_text(memory, bitmap, at, limit, container)
    at = put_lower(memory, bitmap, at, limit, word, letters)
    return put_text(memory, bitmap, at, limit, b"' command\r\n")


@inlined
def put_unknown(
    memory: Bytes, bitmap: Words, request: int, cursor: int, count: int, at: int, limit: int
) -> int:
    """Write that there is no such command, with the first of its arguments."""
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
def _put_unknown_subcommand(
    memory: Bytes, bitmap: Words, at: int, limit: int, word: int, letters: int, container: bytes
) -> int:
    """Write that a command has no such subcommand."""
    at = put_text(memory, bitmap, at, limit, b"-ERR unknown subcommand '")
    at = put_quoted(memory, bitmap, at, limit, word, letters, QUOTED_BYTES)
    at = put_text(memory, bitmap, at, limit, b"'. Try ")
    at = put_text(memory, bitmap, at, limit, container)
    return put_text(memory, bitmap, at, limit, b" HELP.\r\n")


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
    """SELECT index; there is database 0 alone."""
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
def _put_bad_name(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write what a client's name must not be."""
    text = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def _is_client_name(memory: Bytes, begin: int, length: int) -> bool:
    """Tell whether bytes can be a client's name: printable, without spaces."""
    for at in range(begin, begin + length):  # noqa: SIM110 (numba has no `all`)
        if not ord("!") <= memory[at] <= ord("~"):
            return False
    return True


@inlined
def hello(
    memory: Bytes, bitmap: Words, request: int, cursor: int, count: int, at: int, limit: int
) -> int:
    """HELLO [2 [SETNAME name]]: what this server is, a map as a flat array."""
    if count > 0:
        begin, length, cursor = argument(memory, request, cursor)
        valid, version = parse_integer(memory, begin, length)
        if not valid:
            text = b"-ERR Protocol version is not an integer or out of range\r\n"
            return put_text(memory, bitmap, at, limit, text)
        if version != 2:
            text = b"-NOPROTO unsupported protocol version\r\n"
            return put_text(memory, bitmap, at, limit, text)
    left = count - 1
    while left > 0:
        begin, length, cursor = argument(memory, request, cursor)
        if left < 2 or not is_word(memory, begin, length, b"setname"):
            at = put_text(memory, bitmap, at, limit, b"-ERR Syntax error in HELLO option '")
            at = put_quoted(memory, bitmap, at, limit, begin, length, length)
            return put_text(memory, bitmap, at, limit, b"'\r\n")
        begin, length, cursor = argument(memory, request, cursor)
        if not _is_client_name(memory, begin, length):
            return _put_bad_name(memory, bitmap, at, limit)
        left -= 2
    return put_text(
        memory,
        bitmap,
        at,
        limit,
        b"*12\r\n$6\r\nserver\r\n$9\r\ncolobench\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n"
        b"$5\r\nproto\r\n:2\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n"
        b"$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
    )


@inlined
def _put_figure(memory: Bytes, bitmap: Words, at: int, limit: int, name: bytes, number: int) -> int:
    """Write a line of INFO."""
    at = put_text(memory, bitmap, at, limit, name)
    at = put_decimal(memory, bitmap, at, limit, number)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _put_sections(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    now_us: np.uint64,
    clients: int,
    connections: int,
    sections: int,
    at: int,
    limit: int,
) -> int:
    """Write INFO's sections, an empty line between them."""
    if sections & SERVER:
        text = (
            b"# Server\r\nserver_name:colobench\r\nredis_version:7.0.15\r\n"
            b"redis_mode:standalone\r\narch_bits:64\r\n"
        )
        at = put_text(memory, bitmap, at, limit, text)
        at = _put_figure(memory, bitmap, at, limit, b"server_time_usec:", np.int64(now_us))
    if sections & CLIENTS:
        text = b"\r\n# Clients\r\n" if sections & SERVER else b"# Clients\r\n"
        at = put_text(memory, bitmap, at, limit, text)
        at = _put_figure(memory, bitmap, at, limit, b"connected_clients:", clients)
        at = put_text(memory, bitmap, at, limit, b"blocked_clients:0\r\n")
    if sections & MEMORY:
        text = b"\r\n# Memory\r\n" if sections & (MEMORY - 1) else b"# Memory\r\n"
        at = put_text(memory, bitmap, at, limit, text)
        used = get_number(memory, kv + HEAP + heap.USED_BYTES)
        at = _put_figure(memory, bitmap, at, limit, b"used_memory:", used)
        total = get_number(memory, kv + HEAP + heap.TOTAL_BYTES)
        at = _put_figure(memory, bitmap, at, limit, b"maxmemory:", total)
        at = put_text(memory, bitmap, at, limit, b"maxmemory_policy:noeviction\r\n")
    if sections & STATS:
        text = b"\r\n# Stats\r\n" if sections & (STATS - 1) else b"# Stats\r\n"
        at = put_text(memory, bitmap, at, limit, text)
        text = b"total_connections_received:"
        at = _put_figure(memory, bitmap, at, limit, text, connections)
        requests = get_number(memory, kv + REQUESTS)
        at = _put_figure(memory, bitmap, at, limit, b"total_commands_processed:", requests)
        hits, misses = get_number(memory, kv + HITS), get_number(memory, kv + MISSES)
        at = _put_figure(memory, bitmap, at, limit, b"keyspace_hits:", hits)
        at = _put_figure(memory, bitmap, at, limit, b"keyspace_misses:", misses)
        errors, refused = get_number(memory, kv + ERRORS), get_number(memory, kv + REFUSED)
        at = _put_figure(memory, bitmap, at, limit, b"total_error_replies:", errors)
        at = _put_figure(memory, bitmap, at, limit, b"oom_error_replies:", refused)
    if sections & KEYSPACE:
        text = b"\r\n# Keyspace\r\n" if sections & (KEYSPACE - 1) else b"# Keyspace\r\n"
        at = put_text(memory, bitmap, at, limit, text)
        keys = get_number(memory, kv + KEYS)
        if keys:
            at = put_text(memory, bitmap, at, limit, b"db0:keys=")
            at = put_decimal(memory, bitmap, at, limit, keys)
            at = put_text(memory, bitmap, at, limit, b",expires=0,avg_ttl=0\r\n")
    return at


@inlined
def info(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    count: int,
    now_us: np.uint64,
    clients: int,
    connections: int,
    at: int,
    limit: int,
) -> int:
    """INFO [section...]; sections that there are not are left out."""
    sections = 0 if count else _ALL
    for _ in range(count):
        word, letters, cursor = argument(memory, request, cursor)
        if is_word(memory, word, letters, b"server"):
            sections |= SERVER
        elif is_word(memory, word, letters, b"clients"):
            sections |= CLIENTS
        elif is_word(memory, word, letters, b"memory"):
            sections |= MEMORY
        elif is_word(memory, word, letters, b"stats"):
            sections |= STATS
        elif is_word(memory, word, letters, b"keyspace"):
            sections |= KEYSPACE
        elif (
            is_word(memory, word, letters, b"all")
            or is_word(memory, word, letters, b"default")
            or is_word(memory, word, letters, b"everything")
        ):
            sections = _ALL
    # Written twice, the first time behind a limit: so nothing but the length comes of it.
    length = (
        _put_sections(
            memory, bitmap, kv, now_us, clients, connections, sections, at, at - 1
        ) - at
    )  # fmt: skip
    at = put_head(memory, bitmap, at, limit, _BULK, length)
    at = _put_sections(memory, bitmap, kv, now_us, clients, connections, sections, at, limit)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _matches(memory: Bytes, begin: int, length: int, name: bytes) -> bool:
    """Tell whether a name matches a pattern in RAM: ``*`` is any characters, ``?`` is any one."""
    at, place, star, retry = 0, 0, -1, 0
    while place < len(name):
        if at < length and memory[begin + at] == _STAR:
            star, retry = at, place
            at += 1
        elif at < length and (
            lower(memory[begin + at]) == name[place] or memory[begin + at] == _ANY
        ):
            at += 1
            place += 1
        elif star >= 0:
            retry += 1
            at, place = star + 1, retry
        else:
            return False
    while at < length and memory[begin + at] == _STAR:
        at += 1
    return at == length


@inlined
def _is_wanted(memory: Bytes, request: int, cursor: int, count: int, name: bytes) -> bool:
    """Tell whether any of a request's patterns matches a name."""
    for _ in range(count):
        begin, length, cursor = argument(memory, request, cursor)
        if _matches(memory, begin, length, name):
            return True
    return False


@inlined
def _put_parameters(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> tuple[int, int]:
    """Write the parameters that a request's patterns match; give their number, too."""
    number = 0
    if _is_wanted(memory, request, cursor, count, b"save"):
        at = put_text(memory, bitmap, at, limit, b"$4\r\nsave\r\n$0\r\n\r\n")
        number += 1
    if _is_wanted(memory, request, cursor, count, b"appendonly"):
        at = put_text(memory, bitmap, at, limit, b"$10\r\nappendonly\r\n$2\r\nno\r\n")
        number += 1
    if _is_wanted(memory, request, cursor, count, b"databases"):
        at = put_text(memory, bitmap, at, limit, b"$9\r\ndatabases\r\n$1\r\n1\r\n")
        number += 1
    if _is_wanted(memory, request, cursor, count, b"maxmemory"):
        at = put_text(memory, bitmap, at, limit, b"$9\r\nmaxmemory\r\n")
        total = get_number(memory, kv + HEAP + heap.TOTAL_BYTES)
        at = put_bulk_decimal(memory, bitmap, at, limit, total)
        number += 1
    if _is_wanted(memory, request, cursor, count, b"maxmemory-policy"):
        text = b"$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n"
        at = put_text(memory, bitmap, at, limit, text)
        number += 1
    if _is_wanted(memory, request, cursor, count, b"proto-max-bulk-len"):
        at = put_text(memory, bitmap, at, limit, b"$18\r\nproto-max-bulk-len\r\n")
        at = put_bulk_decimal(memory, bitmap, at, limit, _LONGEST_VALUE)
        number += 1
    return at, number


@inlined
def config(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> int:
    """CONFIG GET pattern...."""
    word, letters, cursor = argument(memory, request, cursor)
    if not is_word(memory, word, letters, b"get"):
        return _put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"CONFIG")
    if count < 2:
        return _put_subcommand_arity_error(memory, bitmap, at, limit, word, letters, b"config|")
    _, number = _put_parameters(memory, bitmap, kv, request, cursor, count - 1, at, at - 1)
    at = put_head(memory, bitmap, at, limit, ARRAY, 2 * number)
    at, _ = _put_parameters(memory, bitmap, kv, request, cursor, count - 1, at, limit)
    return at


@inlined
def client(
    memory: Bytes,
    bitmap: Words,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> int:
    """CLIENT SETNAME, GETNAME (always nil), SETINFO, NO-EVICT."""
    word, letters, cursor = argument(memory, request, cursor)
    getname = is_word(memory, word, letters, b"getname")
    setname = is_word(memory, word, letters, b"setname")
    setinfo = is_word(memory, word, letters, b"setinfo")
    if not (getname or setname or setinfo or is_word(memory, word, letters, b"no-evict")):
        return _put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"CLIENT")
    if count != (1 if getname else 3 if setinfo else 2):
        return _put_subcommand_arity_error(memory, bitmap, at, limit, word, letters, b"client|")
    if getname:
        return put_text(memory, bitmap, at, limit, b"$-1\r\n")
    begin, length, _ = argument(memory, request, cursor)
    if setname and not _is_client_name(memory, begin, length):
        return _put_bad_name(memory, bitmap, at, limit)
    if not (
        setname
        or setinfo
        or is_word(memory, begin, length, b"on")
        or is_word(memory, begin, length, b"off")
    ):
        return put_syntax_error(memory, bitmap, at, limit)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def _put_description(memory: Bytes, bitmap: Words, at: int, limit: int, command: int) -> int:
    """Write what a command is, or nil if it is -1."""
    if command < 0:
        return put_text(memory, bitmap, at, limit, b"$-1\r\n")
    first, last = BEGINS[command], BEGINS[command + 1]
    return put_part(memory, bitmap, at, limit, DESCRIPTIONS, first, last)


@inlined
def command(
    memory: Bytes,
    bitmap: Words,
    request: int,
    cursor: int,
    count: int,
    at: int,
    limit: int,
) -> int:
    """COMMAND, COMMAND COUNT, INFO [name...], DOCS (there are none)."""
    word, letters = ZERO, ZERO
    if count > 0:
        word, letters, cursor = argument(memory, request, cursor)
    if count > 0 and is_word(memory, word, letters, b"count"):
        if count > 1:
            return _put_subcommand_arity_error(
                memory, bitmap, at, limit, word, letters, b"command|"
            )
        return put_head(memory, bitmap, at, limit, INTEGER, len(BEGINS) - 1)
    if count > 0 and is_word(memory, word, letters, b"docs"):
        return put_text(memory, bitmap, at, limit, b"*0\r\n")
    if count > 0 and not is_word(memory, word, letters, b"info"):
        return _put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"COMMAND")
    named = count > 1
    number = count - 1 if named else len(BEGINS) - 1
    at = put_head(memory, bitmap, at, limit, ARRAY, number)
    for i in range(number):
        if named:
            word, letters, cursor = argument(memory, request, cursor)
        wanted = find_command(memory, word, letters) if named else i
        at = _put_description(memory, bitmap, at, limit, wanted)
    return at
