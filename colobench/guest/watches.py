"""Watched keys of transactions: a table after the store's heap words.

A record has the key's hash and the id of the client that watches it, with TOUCHED once the key has
changed. Two keys with the same hash of 64 bits count as one, which only makes a transaction fail
without need. `kv` is the address of the store.
"""

from __future__ import annotations

from colobench.guest.region import get_number, put_number
from colobench.kernels.jit import Bytes, Words, inlined

#: Offsets of the number of records, and of the first record.
WATCHES, RECORDS = 5112, 5120
#: Limit of the number of records.
MOST_WATCHES = 192
#: Added to the id in a record whose key has changed.
TOUCHED = 1 << 62


@inlined
def count_watches(memory: Bytes, kv: int) -> int:
    """Return the number of records."""
    return max(0, min(get_number(memory, kv + WATCHES), MOST_WATCHES))


@inlined
def watched_hash(memory: Bytes, kv: int, number: int) -> int:
    """Return the hash of a record's key."""
    return get_number(memory, kv + RECORDS + 16 * number)


@inlined
def _owner(memory: Bytes, kv: int, number: int) -> int:
    """Return the second word of a record, the client's id with TOUCHED."""
    return get_number(memory, kv + RECORDS + 16 * number + 8)


@inlined
def touch(memory: Bytes, bitmap: Words, kv: int, wanted: int) -> int:
    """Note that the key with that hash has changed."""
    for number in range(count_watches(memory, kv)):
        if watched_hash(memory, kv, number) == wanted:
            owner = _owner(memory, kv, number) | TOUCHED
            put_number(memory, bitmap, kv + RECORDS + 16 * number + 8, owner)
    return 0


@inlined
def watch(memory: Bytes, bitmap: Words, kv: int, wanted: int, client: int) -> bool:
    """Let a client watch the key with that hash; return False if there is no room."""
    watches = count_watches(memory, kv)
    for number in range(watches):
        same = _owner(memory, kv, number) & ~TOUCHED == client
        if same and watched_hash(memory, kv, number) == wanted:
            return True
    if watches == MOST_WATCHES:
        return False
    put_number(memory, bitmap, kv + RECORDS + 16 * watches, wanted)
    put_number(memory, bitmap, kv + RECORDS + 16 * watches + 8, client)
    put_number(memory, bitmap, kv + WATCHES, watches + 1)
    return True


@inlined
def unwatch(memory: Bytes, bitmap: Words, kv: int, client: int) -> int:
    """Delete a client's records; the others keep their order."""
    watches, kept = count_watches(memory, kv), 0
    for number in range(watches):
        wanted, owner = watched_hash(memory, kv, number), _owner(memory, kv, number)
        if owner & ~TOUCHED != client:
            put_number(memory, bitmap, kv + RECORDS + 16 * kept, wanted)
            put_number(memory, bitmap, kv + RECORDS + 16 * kept + 8, owner)
            kept += 1
    return put_number(memory, bitmap, kv + WATCHES, kept)


@inlined
def is_touched(memory: Bytes, kv: int, client: int) -> bool:
    """Say whether a key that a client watches has changed."""
    for number in range(count_watches(memory, kv)):
        if _owner(memory, kv, number) == client | TOUCHED:
            return True
    return False
