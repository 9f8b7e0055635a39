"""INFO: description and statistics of the server, with Redis's sections and fields.

Only Redis's fields that have a meaning here are written; sections without any are left out.
`clients` is the number of clients connected now, `connections` that of all connections so far.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import heap
from colobench.guest.keyspace import (
    ERRORS,
    EXPIRED,
    EXPIRING,
    EXPIRY_SUM,
    HITS,
    KEYS,
    MISSES,
    NOW,
    REFUSED,
    REQUESTS,
)
from colobench.guest.persistence_commands import put_persistence
from colobench.guest.region import HEAP, apart, get_number
from colobench.guest.resp import (
    argument,
    is_word,
    put_decimal,
    put_text,
    put_verbatim_head,
)
from colobench.kernels.jit import Bytes, Words, inlined

#: Sections, as bits, in their order.
_SERVER, _CLIENTS, _MEMORY, _PERSISTENCE, _STATS, _REPLICATION, _CLUSTER, _KEYSPACE = (
    1 << n for n in range(8)
)
_ALL = 255


@inlined
def _put_title(memory: Bytes, bitmap: Words, at: int, limit: int, before: int, title: bytes) -> int:
    """Write a section's title, after an empty line unless it is the first section."""
    apart()
    if before:
        at = put_text(memory, bitmap, at, limit, b"\r\n")
    return put_text(memory, bitmap, at, limit, title)


@inlined
def _put_figure(memory: Bytes, bitmap: Words, at: int, limit: int, name: bytes, number: int) -> int:
    """Write a line of INFO."""
    apart()
    at = put_text(memory, bitmap, at, limit, name)
    at = put_decimal(memory, bitmap, at, limit, number)
    return put_text(memory, bitmap, at, limit, b"\r\n")


@inlined
def _put_memory(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """Write the fields of the section Memory."""
    used = get_number(memory, kv + HEAP + heap.USED_BYTES)
    at = _put_figure(memory, bitmap, at, limit, b"used_memory:", used)
    total = get_number(memory, kv + HEAP + heap.TOTAL_BYTES)
    at = _put_figure(memory, bitmap, at, limit, b"maxmemory:", total)
    return put_text(memory, bitmap, at, limit, b"maxmemory_policy:noeviction\r\n")


@inlined
def _put_stats(memory: Bytes, bitmap: Words, kv: int, connections: int, at: int, limit: int) -> int:
    """Write the fields of the section Stats."""
    at = _put_figure(memory, bitmap, at, limit, b"total_connections_received:", connections)
    requests = get_number(memory, kv + REQUESTS)
    at = _put_figure(memory, bitmap, at, limit, b"total_commands_processed:", requests)
    expired = get_number(memory, kv + EXPIRED)
    at = _put_figure(memory, bitmap, at, limit, b"expired_keys:", expired)
    hits, misses = get_number(memory, kv + HITS), get_number(memory, kv + MISSES)
    at = _put_figure(memory, bitmap, at, limit, b"keyspace_hits:", hits)
    at = _put_figure(memory, bitmap, at, limit, b"keyspace_misses:", misses)
    errors, refused = get_number(memory, kv + ERRORS), get_number(memory, kv + REFUSED)
    at = _put_figure(memory, bitmap, at, limit, b"total_error_replies:", errors)
    return _put_figure(memory, bitmap, at, limit, b"oom_error_replies:", refused)


@inlined
def _put_keyspace(memory: Bytes, bitmap: Words, kv: int, at: int, limit: int) -> int:
    """Write the fields of the section Keyspace; nothing if there are no keys."""
    keys, expiring = get_number(memory, kv + KEYS), get_number(memory, kv + EXPIRING)
    if keys == 0:
        return at
    average = 0
    if expiring > 0:
        average = get_number(memory, kv + EXPIRY_SUM) // expiring - get_number(memory, kv + NOW)
    at = put_text(memory, bitmap, at, limit, b"db0:keys=")
    at = put_decimal(memory, bitmap, at, limit, keys)
    at = put_text(memory, bitmap, at, limit, b",expires=")
    at = put_decimal(memory, bitmap, at, limit, expiring)
    at = put_text(memory, bitmap, at, limit, b",avg_ttl=")
    at = put_decimal(memory, bitmap, at, limit, max(0, average))
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
    apart()
    if sections & _SERVER:
        text = (
            b"# Server\r\nserver_name:colobench\r\nredis_version:7.0.15\r\n"
            b"redis_mode:standalone\r\narch_bits:64\r\ntcp_port:6379\r\n"
        )
        at = put_text(memory, bitmap, at, limit, text)
        at = _put_figure(memory, bitmap, at, limit, b"server_time_usec:", np.int64(now_us))
    if sections & _CLIENTS:
        before = sections & (_CLIENTS - 1)
        at = _put_title(memory, bitmap, at, limit, before, b"# Clients\r\n")
        at = _put_figure(memory, bitmap, at, limit, b"connected_clients:", clients)
        at = put_text(memory, bitmap, at, limit, b"blocked_clients:0\r\n")
    if sections & _MEMORY:
        before = sections & (_MEMORY - 1)
        at = _put_title(memory, bitmap, at, limit, before, b"# Memory\r\n")
        at = _put_memory(memory, bitmap, kv, at, limit)
    if sections & _PERSISTENCE:
        before = sections & (_PERSISTENCE - 1)
        at = _put_title(memory, bitmap, at, limit, before, b"# Persistence\r\n")
        at = put_persistence(memory, bitmap, kv, at, limit)
    if sections & _STATS:
        before = sections & (_STATS - 1)
        at = _put_title(memory, bitmap, at, limit, before, b"# Stats\r\n")
        at = _put_stats(memory, bitmap, kv, connections, at, limit)
    if sections & _REPLICATION:
        before = sections & (_REPLICATION - 1)
        at = _put_title(memory, bitmap, at, limit, before, b"# Replication\r\n")
        at = put_text(memory, bitmap, at, limit, b"role:master\r\nconnected_slaves:0\r\n")
    if sections & _CLUSTER:
        before = sections & (_CLUSTER - 1)
        at = _put_title(memory, bitmap, at, limit, before, b"# Cluster\r\n")
        at = put_text(memory, bitmap, at, limit, b"cluster_enabled:0\r\n")
    if sections & _KEYSPACE:
        before = sections & (_KEYSPACE - 1)
        at = _put_title(memory, bitmap, at, limit, before, b"# Keyspace\r\n")
        at = _put_keyspace(memory, bitmap, kv, at, limit)
    return at


@inlined
def _section(memory: Bytes, word: int, letters: int) -> int:
    """Return the bits of the sections that a word selects."""
    bits = 0
    if is_word(memory, word, letters, b"server"):
        bits = _SERVER
    elif is_word(memory, word, letters, b"clients"):
        bits = _CLIENTS
    elif is_word(memory, word, letters, b"memory"):
        bits = _MEMORY
    elif is_word(memory, word, letters, b"persistence"):
        bits = _PERSISTENCE
    elif is_word(memory, word, letters, b"stats"):
        bits = _STATS
    elif is_word(memory, word, letters, b"replication"):
        bits = _REPLICATION
    elif is_word(memory, word, letters, b"cluster"):
        bits = _CLUSTER
    elif is_word(memory, word, letters, b"keyspace"):
        bits = _KEYSPACE
    elif (
        is_word(memory, word, letters, b"all")
        or is_word(memory, word, letters, b"default")
        or is_word(memory, word, letters, b"everything")
    ):
        bits = _ALL
    return bits


@inlined
def info(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    resp3: bool,
    request: int,
    cursor: int,
    count: int,
    now_us: np.uint64,
    clients: int,
    connections: int,
    at: int,
    limit: int,
) -> int:
    """INFO [section...]; unknown sections are ignored."""
    sections = 0 if count else _ALL
    for _ in range(count):
        word, letters, cursor = argument(memory, request, cursor)
        sections |= _section(memory, word, letters)
    # Written twice: the first time beyond the limit, which yields only the length.
    length = (
        _put_sections(
            memory, bitmap, kv, now_us, clients, connections, sections, at, at - 1
        ) - at
    )  # fmt: skip
    at = put_verbatim_head(memory, bitmap, at, limit, resp3, length)
    at = _put_sections(memory, bitmap, kv, now_us, clients, connections, sections, at, limit)
    return put_text(memory, bitmap, at, limit, b"\r\n")
