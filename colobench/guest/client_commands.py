"""Commands about the client: HELLO, AUTH, RESET, CLIENT.

Clients' names and versions are kept in the clients' area, see `colobench.guest.clients`. The only
user is ``default``, without a password. CLIENT SETINFO is Redis 7.2's, because clients send it
unasked; the rest is Redis 7.0's. `commands` describes the arguments of these functions.
"""

from __future__ import annotations

import numpy as np

from colobench.guest.clients import (
    COMMAND,
    FLAGS,
    ID,
    LAST,
    LIBRARY,
    MULTI,
    NAME,
    NO_EVICT,
    PEER,
    PROTOCOL,
    QUEUE,
    QUEUED,
    REPLY,
    REQUEST,
    SENT,
    SINCE,
    SLOT_BYTES,
    VERSION,
    drop,
    keep,
    piece,
    speaks_resp3,
)
from colobench.guest.command_table import ALL_NAMES, NAME_BEGINS
from colobench.guest.commands import REPLY_ROOM, put_syntax_error, refuse
from colobench.guest.heap import ZERO
from colobench.guest.keyspace import NOW
from colobench.guest.region import apart, get_number, put_number
from colobench.guest.resp import (
    INTEGER,
    QUOTED_BYTES,
    argument,
    is_word,
    parse_integer,
    put_bulk,
    put_copy,
    put_decimal,
    put_head,
    put_lower,
    put_map_head,
    put_null,
    put_part,
    put_quoted,
    put_text,
    put_verbatim_head,
)
from colobench.guest.transactions import end_transaction
from colobench.kernels.jit import Bytes, Words, inlined

_PAIRS = np.int64(7)
_BYTE, _PORT = 255, 0xFFFF


@inlined
def put_subcommand_arity_error(
    memory: Bytes, bitmap: Words, at: int, limit: int, word: int, letters: int, container: bytes
) -> int:
    """Write the error for a wrong number of arguments of a subcommand."""
    at = put_text(memory, bitmap, at, limit, b"-ERR wrong number of arguments for '")
    at = put_text(memory, bitmap, at, limit, container)
    at = put_lower(memory, bitmap, at, limit, word, letters)
    return put_text(memory, bitmap, at, limit, b"' command\r\n")


@inlined
def put_unknown_subcommand(
    memory: Bytes, bitmap: Words, at: int, limit: int, word: int, letters: int, container: bytes
) -> int:
    """Write the error for an unknown subcommand."""
    at = put_text(memory, bitmap, at, limit, b"-ERR unknown subcommand '")
    at = put_quoted(memory, bitmap, at, limit, word, letters, QUOTED_BYTES)
    at = put_text(memory, bitmap, at, limit, b"'. Try ")
    at = put_text(memory, bitmap, at, limit, container)
    return put_text(memory, bitmap, at, limit, b" HELP.\r\n")


@inlined
def _put_bad_name(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write the error for an invalid client name."""
    text = b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def _is_client_name(memory: Bytes, begin: int, length: int) -> bool:
    """Say whether bytes are a valid client name: printable, without spaces."""
    for at in range(begin, begin + length):  # noqa: SIM110 (numba has no `all`)
        if not ord("!") <= memory[at] <= ord("~"):
            return False
    return True


@inlined
def _put_wrong_password(memory: Bytes, bitmap: Words, at: int, limit: int) -> int:
    """Write the error for a wrong user or password."""
    text = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    return put_text(memory, bitmap, at, limit, text)


@inlined
def _is_user(memory: Bytes, begin: int, length: int) -> bool:
    """Say whether a user's name is ``default``, in lower case."""
    return is_word(memory, begin, length, b"default") and memory[begin] == ord("d")


@inlined
def authenticate(
    memory: Bytes, bitmap: Words, request: int, cursor: int, arguments: int, at: int, limit: int
) -> int:
    """AUTH [user] password."""
    if arguments > 2:
        return put_syntax_error(memory, bitmap, at, limit)
    if arguments == 1:
        text = b"-ERR AUTH <password> called without any password configured for the default user."
        at = put_text(memory, bitmap, at, limit, text)
        text = b" Are you sure your configuration is correct?\r\n"
        return put_text(memory, bitmap, at, limit, text)
    begin, length, _ = argument(memory, request, cursor)
    if not _is_user(memory, begin, length):
        return _put_wrong_password(memory, bitmap, at, limit)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def _put_greeting(memory: Bytes, bitmap: Words, client: int, at: int, limit: int) -> int:
    """Write HELLO's reply, which describes this server."""
    resp3 = speaks_resp3(memory, client)
    at = put_map_head(memory, bitmap, at, limit, resp3, _PAIRS)
    text = b"$6\r\nserver\r\n$9\r\ncolobench\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n"
    at = put_text(memory, bitmap, at, limit, text)
    at = put_text(memory, bitmap, at, limit, b":3\r\n" if resp3 else b":2\r\n")
    at = put_text(memory, bitmap, at, limit, b"$2\r\nid\r\n")
    at = put_head(memory, bitmap, at, limit, INTEGER, get_number(memory, client + ID))
    text = (
        b"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
    )
    return put_text(memory, bitmap, at, limit, text)


@inlined
def hello(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """HELLO [2 | 3 [AUTH user password] [SETNAME name]]."""
    if at + 2 * REPLY_ROOM > limit:
        return at + 2 * REPLY_ROOM
    version = ZERO
    if arguments > 0:
        begin, length, cursor = argument(memory, request, cursor)
        valid, version = parse_integer(memory, begin, length)
        if not valid:
            text = b"-ERR Protocol version is not an integer or out of range\r\n"
            return put_text(memory, bitmap, at, limit, text)
        if version not in (2, 3):
            text = b"-NOPROTO unsupported protocol version\r\n"
            return put_text(memory, bitmap, at, limit, text)
    left = arguments - 1
    while left > 0:
        word, letters, cursor = argument(memory, request, cursor)
        if left >= 3 and is_word(memory, word, letters, b"auth"):
            begin, length, cursor = argument(memory, request, cursor)
            _, _, cursor = argument(memory, request, cursor)
            left -= 3
            if not _is_user(memory, begin, length):
                return _put_wrong_password(memory, bitmap, at, limit)
        elif left >= 2 and is_word(memory, word, letters, b"setname"):
            begin, length, cursor = argument(memory, request, cursor)
            left -= 2
            if not _is_client_name(memory, begin, length):
                return _put_bad_name(memory, bitmap, at, limit)
            if not keep(pool, bitmap, area, client + NAME, begin, length):
                return refuse(memory, bitmap, kv, at, limit)
        else:
            at = put_text(memory, bitmap, at, limit, b"-ERR Syntax error in HELLO option '")
            at = put_quoted(memory, bitmap, at, limit, word, letters, QUOTED_BYTES)
            return put_text(memory, bitmap, at, limit, b"'\r\n")
    if version:
        put_number(memory, bitmap, client + PROTOCOL, version)
    return _put_greeting(memory, bitmap, client, at, limit)


@inlined
def reset(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    at: int,
    limit: int,
) -> int:
    """RESET: end the transaction, delete the name, return to RESP2."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    end_transaction(memory, pool, bitmap, kv, area, client)
    drop(pool, bitmap, area, client + NAME)
    put_number(memory, bitmap, client + FLAGS, ZERO)
    put_number(memory, bitmap, client + PROTOCOL, ZERO)
    return put_text(memory, bitmap, at, limit, b"+RESET\r\n")


@inlined
def _put_field(memory: Bytes, bitmap: Words, at: int, limit: int, name: bytes, number: int) -> int:
    """Write a numeric field of a client's description."""
    apart()
    at = put_text(memory, bitmap, at, limit, name)
    return put_decimal(memory, bitmap, at, limit, number)


@inlined
def _put_words(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    area: int,
    place: int,
    at: int,
    limit: int,
    name: bytes,
) -> int:
    """Write a field of a client's description whose value is in a piece."""
    apart()
    at = put_text(memory, bitmap, at, limit, name)
    begin, length = piece(pool, area, place)
    return put_copy(memory, bitmap, at, limit, begin, length)


@inlined
def _put_peer(memory: Bytes, bitmap: Words, at: int, limit: int, peer: int) -> int:
    """Write a client's address and port."""
    at = _put_field(memory, bitmap, at, limit, b" addr=", (peer >> 56) & _BYTE)
    at = _put_field(memory, bitmap, at, limit, b".", (peer >> 48) & _BYTE)
    at = _put_field(memory, bitmap, at, limit, b".", (peer >> 40) & _BYTE)
    at = _put_field(memory, bitmap, at, limit, b".", (peer >> 32) & _BYTE)
    return _put_field(memory, bitmap, at, limit, b":", (peer >> 16) & _PORT)


@inlined
def _put_client(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    at: int,
    limit: int,
) -> int:
    """Write a client's description, a line of CLIENT LIST."""
    apart()
    now = get_number(memory, kv + NOW) // 1000
    flags = get_number(memory, client + FLAGS)
    at = _put_field(memory, bitmap, at, limit, b"id=", get_number(memory, client + ID))
    at = _put_peer(memory, bitmap, at, limit, get_number(memory, client + PEER))
    at = _put_words(memory, pool, bitmap, area, client + NAME, at, limit, b" name=")
    age = now - get_number(memory, client + SINCE)
    at = _put_field(memory, bitmap, at, limit, b" age=", age)
    idle = now - get_number(memory, client + LAST)
    at = _put_field(memory, bitmap, at, limit, b" idle=", idle)
    at = put_text(memory, bitmap, at, limit, b" flags=")
    at = put_text(memory, bitmap, at, limit, b"x" if flags & MULTI else b"")
    at = put_text(memory, bitmap, at, limit, b"e" if flags & NO_EVICT else b"")
    at = put_text(memory, bitmap, at, limit, b"" if flags & (MULTI | NO_EVICT) else b"N")
    at = put_text(memory, bitmap, at, limit, b" db=0 sub=0 psub=0 ssub=0")
    queued = get_number(memory, client + QUEUED) if flags & MULTI else np.int64(-1)
    at = _put_field(memory, bitmap, at, limit, b" multi=", queued)
    _, length = piece(pool, area, client + REQUEST)
    at = _put_field(memory, bitmap, at, limit, b" qbuf=", length)
    _, length = piece(pool, area, client + QUEUE)
    at = _put_field(memory, bitmap, at, limit, b" multi-mem=", length)
    _, length = piece(pool, area, client + REPLY)
    length = max(ZERO, length - get_number(memory, client + SENT))
    at = _put_field(memory, bitmap, at, limit, b" omem=", length)
    at = put_text(memory, bitmap, at, limit, b" events=r cmd=")
    command = get_number(memory, client + COMMAND)
    if 0 <= command < len(NAME_BEGINS) - 1:
        first, last = NAME_BEGINS[command], NAME_BEGINS[command + 1]
        at = put_part(memory, bitmap, at, limit, ALL_NAMES, first, last)
    at = put_text(memory, bitmap, at, limit, b" user=default redir=-1 resp=")
    at = put_text(memory, bitmap, at, limit, b"3" if speaks_resp3(memory, client) else b"2")
    at = _put_words(memory, pool, bitmap, area, client + LIBRARY, at, limit, b" lib-name=")
    at = _put_words(memory, pool, bitmap, area, client + VERSION, at, limit, b" lib-ver=")
    return put_text(memory, bitmap, at, limit, b"\n")


@inlined
def _is_listed(memory: Bytes, client: int, request: int, cursor: int, numbers: int) -> bool:
    """Say whether a slot has a client whose number is listed; a count of -1 stands for all."""
    number = get_number(memory, client + ID)
    if number == 0 or numbers < 0:
        return number != 0
    for _ in range(numbers):
        begin, length, cursor = argument(memory, request, cursor)
        _, wanted = parse_integer(memory, begin, length)
        if wanted == number:
            return True
    return False


@inlined
def _put_clients(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    clients: int,
    request: int,
    cursor: int,
    numbers: int,
    at: int,
    limit: int,
) -> int:
    """Write the lines of CLIENT LIST."""
    apart()
    for client in range(clients, area, SLOT_BYTES):
        if _is_listed(memory, client, request, cursor, numbers):
            at = _put_client(memory, pool, bitmap, kv, area, client, at, limit)
    return at


@inlined
def _list_clients(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    clients: int,
    client: int,
    request: int,
    cursor: int,
    left: int,
    at: int,
    limit: int,
) -> int:
    """CLIENT LIST [TYPE normal | ID number...]; `left` arguments follow."""
    numbers = np.int64(-1)
    if left > 0:
        word, letters, cursor = argument(memory, request, cursor)
        if left > 1 and is_word(memory, word, letters, b"id"):
            numbers = left - 1
            place = cursor
            for _ in range(numbers):
                word, letters, place = argument(memory, request, place)
                valid, _ = parse_integer(memory, word, letters)
                if not valid:
                    return put_text(memory, bitmap, at, limit, b"-ERR Invalid client ID\r\n")
        elif left == 2 and is_word(memory, word, letters, b"type"):
            word, letters, cursor = argument(memory, request, cursor)
            known = is_word(memory, word, letters, b"normal")
            if not (
                known
                or is_word(memory, word, letters, b"master")
                or is_word(memory, word, letters, b"replica")
                or is_word(memory, word, letters, b"slave")
                or is_word(memory, word, letters, b"pubsub")
            ):
                at = put_text(memory, bitmap, at, limit, b"-ERR Unknown client type '")
                at = put_quoted(memory, bitmap, at, limit, word, letters, QUOTED_BYTES)
                return put_text(memory, bitmap, at, limit, b"'\r\n")
            numbers = np.int64(-1) if known else ZERO
        else:
            return put_syntax_error(memory, bitmap, at, limit)
    # Written twice: the first time beyond the limit, which yields only the length.
    length = (
        _put_clients(
            memory, pool, bitmap, kv, area, clients, request, cursor, numbers, at, at - 1
        ) - at
    )  # fmt: skip
    at = put_verbatim_head(memory, bitmap, at, limit, speaks_resp3(memory, client), length)
    at = _put_clients(memory, pool, bitmap, kv, area, clients, request, cursor, numbers, at, limit)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _describe_client(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    at: int,
    limit: int,
) -> int:
    """CLIENT INFO."""
    length = _put_client(memory, pool, bitmap, kv, area, client, at, at - 1) - at
    at = put_verbatim_head(memory, bitmap, at, limit, speaks_resp3(memory, client), length)
    at = _put_client(memory, pool, bitmap, kv, area, client, at, limit)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _set_info(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    request: int,
    cursor: int,
    at: int,
    limit: int,
) -> int:
    """CLIENT SETINFO LIB-NAME name, or LIB-VER version."""
    word, letters, cursor = argument(memory, request, cursor)
    begin, length, _ = argument(memory, request, cursor)
    name = is_word(memory, word, letters, b"lib-name")
    if not name and not is_word(memory, word, letters, b"lib-ver"):
        at = put_text(memory, bitmap, at, limit, b"-ERR Unrecognized option '")
        at = put_quoted(memory, bitmap, at, limit, word, letters, QUOTED_BYTES)
        return put_text(memory, bitmap, at, limit, b"'\r\n")
    if not _is_client_name(memory, begin, length):
        text = b"-ERR lib-name cannot contain spaces, newlines or special characters.\r\n"
        if not name:
            text = b"-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n"
        return put_text(memory, bitmap, at, limit, text)
    place = client + (LIBRARY if name else VERSION)
    if not keep(pool, bitmap, area, place, begin, length):
        return refuse(memory, bitmap, kv, at, limit)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def _say_name(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    area: int,
    client: int,
    at: int,
    limit: int,
) -> int:
    """CLIENT GETNAME."""
    begin, length = piece(pool, area, client + NAME)
    if length == 0:
        return put_null(memory, bitmap, at, limit, speaks_resp3(memory, client))
    return put_bulk(memory, bitmap, at, limit, begin, length)


@inlined
def _set_name(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    client: int,
    request: int,
    cursor: int,
    at: int,
    limit: int,
) -> int:
    """CLIENT SETNAME name; an empty name deletes it."""
    begin, length, _ = argument(memory, request, cursor)
    if not _is_client_name(memory, begin, length):
        return _put_bad_name(memory, bitmap, at, limit)
    if not keep(pool, bitmap, area, client + NAME, begin, length):
        return refuse(memory, bitmap, kv, at, limit)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def _switch_no_evict(
    memory: Bytes, bitmap: Words, client: int, request: int, cursor: int, at: int, limit: int
) -> int:
    """CLIENT NO-EVICT ON | OFF: only noted, because no client is ever evicted."""
    word, letters, _ = argument(memory, request, cursor)
    on = is_word(memory, word, letters, b"on")
    if not on and not is_word(memory, word, letters, b"off"):
        return put_syntax_error(memory, bitmap, at, limit)
    flags = get_number(memory, client + FLAGS)
    put_number(memory, bitmap, client + FLAGS, flags | NO_EVICT if on else flags & ~NO_EVICT)
    return put_text(memory, bitmap, at, limit, b"+OK\r\n")


@inlined
def client_command(
    memory: Bytes,
    pool: Bytes,
    bitmap: Words,
    kv: int,
    area: int,
    clients: int,
    client: int,
    request: int,
    cursor: int,
    arguments: int,
    at: int,
    limit: int,
) -> int:
    """CLIENT ID, INFO, LIST, GETNAME, SETNAME, SETINFO, NO-EVICT."""
    if at + REPLY_ROOM > limit:
        return at + REPLY_ROOM
    word, letters, cursor = argument(memory, request, cursor)
    number = is_word(memory, word, letters, b"id")
    information = is_word(memory, word, letters, b"info")
    get_name = is_word(memory, word, letters, b"getname")
    set_name = is_word(memory, word, letters, b"setname")
    set_info = is_word(memory, word, letters, b"setinfo")
    listing = is_word(memory, word, letters, b"list")
    eviction = is_word(memory, word, letters, b"no-evict")
    wanted = 3 if set_info else 2
    if number or information or get_name:
        wanted = 1
    elif listing:
        wanted = arguments
    elif not (set_name or set_info or eviction):
        return put_unknown_subcommand(memory, bitmap, at, limit, word, letters, b"CLIENT")
    if arguments != wanted:
        return put_subcommand_arity_error(memory, bitmap, at, limit, word, letters, b"client|")
    if number:
        at = put_head(memory, bitmap, at, limit, INTEGER, get_number(memory, client + ID))
    elif information:
        at = _describe_client(memory, pool, bitmap, kv, area, client, at, limit)
    elif get_name:
        at = _say_name(memory, pool, bitmap, area, client, at, limit)
    elif set_name:
        at = _set_name(memory, pool, bitmap, kv, area, client, request, cursor, at, limit)
    elif set_info:
        at = _set_info(memory, pool, bitmap, kv, area, client, request, cursor, at, limit)
    elif listing:
        at = _list_clients(
            memory, pool, bitmap, kv, area, clients, client, request, cursor, arguments - 1, at,
            limit,
        )  # fmt: skip
    else:
        at = _switch_no_evict(memory, bitmap, client, request, cursor, at, limit)
    return at
