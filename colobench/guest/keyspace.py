"""The keys and values of the key-value store: a hash table in guest RAM, with its counters.

The region consists of a superblock, a table of chains, and the heap of the entries. The number of
chains is fixed by the region's size. Keys are spread by SipHash-1-3 with a secret of 128 bits in
the superblock. The secret is the same for every store, so that the same requests give the same RAM.

A link, in the table or in an entry, has the address of the next entry in its low 40 bits and the
table's generation above them. A link of another generation is empty, so all entries can be deleted
at once by increasing the generation.

Words read from RAM are checked before they are followed, see `colobench.guest.region`.

An entry consists of the link to the next one, a word with the lengths of key (low half) and value,
the millisecond since 1970 after which it has expired or 0, the key, the value. An expired entry
stays until a client asks for it, see `look_up`, or until `sweep` reaches it. The superblock's word
NOW is the present time, set by `kv.execute`.

`kv` is always the address of the region.
"""

from __future__ import annotations

import numpy as np

from colobench.guest import heap, watches
from colobench.guest.heap import ZERO
from colobench.guest.region import (
    CHAIN,
    DAMAGE,
    ENTRY,
    EXPIRES,
    HEADER_BYTES,
    HEAP,
    KEY,
    LENGTHS,
    LINK,
    SMALLEST_BLOCK,
    SMALLEST_STORE,
    SUPERBLOCK_BYTES,
    apart,
    chains_in,
    first_block,
    get_number,
    is_block,
    is_entry,
    last_header,
    note_damage,
    put_number,
)
from colobench.guest.store import copy_bytes, get_word, keep_bytes, mark_bytes, put_word
from colobench.kernels.atomics import address
from colobench.kernels.jit import Bytes, Words, inlined
from colobench.kernels.raw import STRETCH, clear, words_in_use

#: The superblock's words. The last five count executed requests, lookups of existing keys, lookups
#: of missing keys, error replies, and error replies because memory is full.
MAGIC, SIZE, CHAINS, GENERATION, KEYS, REQUESTS, HITS, MISSES, ERRORS, REFUSED = (
    8 * n for n in range(10)
)
SECRET_0, SECRET_1 = 80, 88
#: Words after the heap's: the time in ms; the number of keys that expire, and the sum of their
#: expiry times, each limited to FURTHEST; the number of expired keys; the next chain of `sweep`,
#: and its last tick.
NOW, EXPIRING, EXPIRY_SUM, EXPIRED, SWEEP_CHAIN, SWEPT = (4864 + 8 * n for n in range(6))
assert HEAP + heap.HEAP_BYTES <= NOW
assert watches.RECORDS + 16 * watches.MOST_WATCHES <= SUPERBLOCK_BYTES
#: The year 2248, in ms since 1970: the sum of a million of these fits into a word.
FURTHEST = 1 << 43
#: Longest step back of the clock that `set_time` does not follow, ms: a day.
LONGEST_STEP = 86_400_000
#: Number of chains that `sweep` checks, at most once in a millisecond.
SWEPT_CHAINS = 256
#: First word of a store, "colokv01".
MAGIC_WORD = np.int64(int.from_bytes(b"colokv01", "little"))

ADDRESS_BITS = 40
_ADDRESS, _LENGTH = (1 << ADDRESS_BITS) - 1, (1 << 32) - 1
_GENERATIONS = 1 << (63 - ADDRESS_BITS)
# Any numbers would do; these are the first digits of pi's fraction.
_SECRET_WORD_0, _SECRET_WORD_1 = np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344)

_V0, _V1, _V2, _V3 = (
    np.uint64(int.from_bytes(text, "big"))
    for text in (b"somepseu", b"dorandom", b"lygenera", b"tedbytes")
)
_FINAL = np.uint64(0xFF)
_13, _16, _17, _21, _32, _56 = (np.uint64(n) for n in (13, 16, 17, 21, 32, 56))
_51, _48, _47, _43, _8 = (np.uint64(n) for n in (51, 48, 47, 43, 8))
_U0, _U1, _THOUSAND = np.uint64(0), np.uint64(1), np.uint64(1000)


@inlined
def _sip_round(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Compute one SipRound."""
    v0, v2 = v0 + v1, v2 + v3
    v1, v3 = ((v1 << _13) | (v1 >> _51)) ^ v0, ((v3 << _16) | (v3 >> _48)) ^ v2
    v0 = (v0 << _32) | (v0 >> _32)
    v2, v0 = v2 + v1, v0 + v3
    v1, v3 = ((v1 << _17) | (v1 >> _47)) ^ v2, ((v3 << _21) | (v3 >> _43)) ^ v0
    v2 = (v2 << _32) | (v2 >> _32)
    return v0, v1, v2, v3


@inlined
def siphash(
    memory: Bytes, begin: int, length: int, secret_0: np.uint64, secret_1: np.uint64
) -> np.uint64:
    """Hash bytes (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012), here SipHash-1-3."""
    v0, v1, v2, v3 = secret_0 ^ _V0, secret_1 ^ _V1, secret_0 ^ _V2, secret_1 ^ _V3
    at, last = begin, begin + (length & ~7)
    while at < last:
        word = get_word(memory, at)
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3 ^ word)
        v0 = v0 ^ word
        at += 8
    word = np.uint64(length) << _56
    for i in range(length & 7):
        word = word | (np.uint64(memory[last + i]) << (_8 * np.uint64(i)))
    v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3 ^ word)
    v0, v2 = v0 ^ word, v2 ^ _FINAL
    for _ in range(3):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@inlined
def count(memory: Bytes, bitmap: Words, counter: int) -> int:
    """Increase the counter at an address by 1."""
    apart()
    return put_word(memory, bitmap, counter, get_word(memory, counter) + _U1)


@inlined
def count_lookup(memory: Bytes, bitmap: Words, kv: int, entry: int) -> int:
    """Count the lookup of a key; entry is 0 if the key is missing."""
    return count(memory, bitmap, kv + (HITS if entry else MISSES))


@inlined
def _tagged(memory: Bytes, kv: int, entry: int) -> int:
    """Return the link to an entry, or an empty link for 0."""
    return (get_number(memory, kv + GENERATION) << ADDRESS_BITS) | entry


@inlined
def follow(memory: Bytes, bitmap: Words, kv: int, link: int) -> int:
    """Return the address of the entry that a link leads to, or 0.

    If the entry is not in the region or extends beyond its block, damage is noted and 0 returned.
    """
    word = get_number(memory, link)
    entry = word & _ADDRESS
    if word >> ADDRESS_BITS != get_number(memory, kv + GENERATION) or entry == 0:
        return 0
    if is_entry(memory, kv, entry):
        return entry
    outside = not is_block(memory, kv, entry - HEADER_BYTES)
    return note_damage(memory, bitmap, kv, CHAIN if outside else ENTRY)


@inlined
def key_length(memory: Bytes, entry: int) -> int:
    """Return the length of an entry's key, which begins at its KEY."""
    return get_number(memory, entry + LENGTHS) & _LENGTH


@inlined
def value_length(memory: Bytes, entry: int) -> int:
    """Return the length of an entry's value."""
    return get_number(memory, entry + LENGTHS) >> 32


@inlined
def value(memory: Bytes, entry: int) -> int:
    """Return the address of an entry's value."""
    return entry + KEY + key_length(memory, entry)


@inlined
def _same(memory: Bytes, one: int, other: int, length: int) -> bool:
    """Say whether the bytes at two addresses are equal."""
    words = length & ~7
    for i in range(0, words, 8):
        if get_word(memory, one + i) != get_word(memory, other + i):
            return False
    for i in range(words, length):  # noqa: SIM110 (numba has no `all`)
        if memory[one + i] != memory[other + i]:
            return False
    return True


@inlined
def key_hash(memory: Bytes, kv: int, key: int, length: int) -> int:
    """Hash a key with the store's secret."""
    secret_0, secret_1 = get_word(memory, kv + SECRET_0), get_word(memory, kv + SECRET_1)
    return np.int64(siphash(memory, key, length, secret_0, secret_1))


@inlined
def chain_link(memory: Bytes, kv: int, chain: int) -> int:
    """Return the address of a chain's first link; only the low bits of `chain` count."""
    return kv + SUPERBLOCK_BYTES + 8 * (chain & (chains_in(len(memory) - kv) - 1))


@inlined
def most_entries(memory: Bytes, kv: int) -> int:
    """Return the number of entries that have room; a longer chain is a ring."""
    return (last_header(memory, kv) - first_block(memory, kv)) // SMALLEST_BLOCK


@inlined
def find(memory: Bytes, bitmap: Words, kv: int, key: int, length: int) -> tuple[int, int]:
    """Look for a key.

    Parameters
    ----------
    memory, bitmap, kv
        RAM up to the end of the store, its marks, and the address of the store.
    key, length
        Address of the key's bytes in RAM, and their number.

    Returns
    -------
    link, entry
        Address of the link to the entry, and of the entry. If there is no such key, entry is 0 and
        link is at the end of the key's chain. If there is damage, link is 0.

    Notes
    -----
    A chain that is a ring is detected by Brent's algorithm ("An improved Monte Carlo factorization
    algorithm", 1980): the entry after each power of two of steps is remembered, and must not be met
    again. So the number of steps is at most three times the number of entries that have room.
    """
    apart()
    link = chain_link(memory, kv, key_hash(memory, kv, key, length))
    steps, remembered = 0, 0
    while True:
        entry = follow(memory, bitmap, kv, link)
        if entry == 0:
            return link if get_number(memory, kv + DAMAGE) == 0 else ZERO, entry
        if key_length(memory, entry) == length and _same(memory, entry + KEY, key, length):
            return link, entry
        if entry == remembered:
            return note_damage(memory, bitmap, kv, CHAIN), ZERO
        steps += 1
        if steps & (steps - 1) == 0:
            remembered = entry
        link = entry + LINK


@inlined
def note_change(memory: Bytes, bitmap: Words, kv: int, key: int, length: int) -> int:
    """Note for the clients that watch a key that it has changed."""
    apart()
    if watches.count_watches(memory, kv) == 0:
        return 0
    return watches.touch(memory, bitmap, kv, key_hash(memory, kv, key, length))


@inlined
def _note_entry(memory: Bytes, bitmap: Words, kv: int, entry: int) -> int:
    """Note for the clients that watch an entry's key that it has changed."""
    if watches.count_watches(memory, kv) == 0:
        return 0
    if not is_entry(memory, kv, entry):
        return note_damage(memory, bitmap, kv, ENTRY)
    return note_change(memory, bitmap, kv, entry + KEY, key_length(memory, entry))


@inlined
def _count_expiry(memory: Bytes, bitmap: Words, kv: int, entry: int, sign: int) -> int:
    """Add an entry that expires to the counters, or with the sign -1 remove it."""
    when = get_number(memory, entry + EXPIRES)
    if when == 0:
        return 0
    expiring, total = get_number(memory, kv + EXPIRING), get_number(memory, kv + EXPIRY_SUM)
    put_number(memory, bitmap, kv + EXPIRING, expiring + sign)
    return put_number(memory, bitmap, kv + EXPIRY_SUM, total + sign * min(when, FURTHEST))


@inlined
def set_expiry(memory: Bytes, bitmap: Words, kv: int, entry: int, when: int) -> int:
    """Set the millisecond after which an entry expires; 0 for never."""
    apart()
    if get_number(memory, entry + EXPIRES) == when:
        return 0
    _count_expiry(memory, bitmap, kv, entry, -1)
    put_number(memory, bitmap, entry + EXPIRES, when)
    return _count_expiry(memory, bitmap, kv, entry, 1)


@inlined
def new_entry(memory: Bytes, bitmap: Words, kv: int, key: int, length: int, room: int) -> int:
    """Make an entry with a key and room for its value, in no chain yet; return 0 if no memory."""
    apart()
    entry = heap.allocate(memory, bitmap, kv + HEAP, KEY + length + room)
    if entry:
        put_number(memory, bitmap, entry + LENGTHS, (room << 32) | length)
        put_number(memory, bitmap, entry + EXPIRES, ZERO)
        copy_bytes(memory, bitmap, entry + KEY, key, length)
    return entry


@inlined
def put_entry(memory: Bytes, bitmap: Words, kv: int, link: int, old: int, entry: int) -> int:
    """Put an entry into its chain, in place of an old one that `find` found."""
    apart()
    if link == 0:
        return 0
    _note_entry(memory, bitmap, kv, entry)
    if old:
        _count_expiry(memory, bitmap, kv, old, -1)
        put_number(memory, bitmap, entry + LINK, get_number(memory, old + LINK))
        heap.release(memory, bitmap, kv + HEAP, old)
    else:
        put_number(memory, bitmap, entry + LINK, _tagged(memory, kv, ZERO))
        count(memory, bitmap, kv + KEYS)
    return put_number(memory, bitmap, link, _tagged(memory, kv, entry))


@inlined
def make_room(
    memory: Bytes,
    bitmap: Words,
    kv: int,
    link: int,
    entry: int,
    key: int,
    length: int,
    room: int,
    keep: int,
) -> int:
    """Make an entry for a key with room for a new value, and keep the old value's first bytes.

    Link and entry are the results of `find`. Returns the entry; if there is no memory, it returns 0
    and changes nothing.
    """
    apart()
    if link == 0:
        return 0
    if not entry:
        entry = new_entry(memory, bitmap, kv, key, length, room)
        if entry:
            put_entry(memory, bitmap, kv, link, ZERO, entry)
        return entry
    note_change(memory, bitmap, kv, key, length)
    kept = KEY + length + keep
    to = heap.resize(memory, bitmap, kv + HEAP, entry, KEY + length + room, kept)
    if to:
        put_number(memory, bitmap, to + LENGTHS, (room << 32) | length)
        if to != entry:
            put_number(memory, bitmap, link, _tagged(memory, kv, to))
    return to


@inlined
def remove(memory: Bytes, bitmap: Words, kv: int, link: int, entry: int) -> int:
    """Delete a key; link and entry are the results of `find`."""
    apart()
    _note_entry(memory, bitmap, kv, entry)
    _count_expiry(memory, bitmap, kv, entry, -1)
    put_number(memory, bitmap, link, get_number(memory, entry + LINK))
    heap.release(memory, bitmap, kv + HEAP, entry)
    return put_word(memory, bitmap, kv + KEYS, get_word(memory, kv + KEYS) - _U1)


@inlined
def set_time(memory: Bytes, bitmap: Words, kv: int, now_us: np.uint64) -> int:
    """Store the time; it stands still when the clock was set back, until the clock has caught up.

    Otherwise a key could be gone whose time, by the clock, is yet to come. The append-only file
    does not say which keys have expired; so its commands, executed again, would find that key.
    """
    now, before = np.int64(now_us // _THOUSAND), get_number(memory, kv + NOW)
    if 0 < before - now <= LONGEST_STEP:
        return 0
    return put_number(memory, bitmap, kv + NOW, now)


@inlined
def is_expired(memory: Bytes, kv: int, entry: int) -> bool:
    """Say whether an entry has expired."""
    when = get_number(memory, entry + EXPIRES)
    return when != 0 and when < get_number(memory, kv + NOW)


@inlined
def _remove_expired(memory: Bytes, bitmap: Words, kv: int, link: int, entry: int) -> int:
    """Delete an expired entry, and count it."""
    apart()
    remove(memory, bitmap, kv, link, entry)
    return count(memory, bitmap, kv + EXPIRED)


@inlined
def look_up(memory: Bytes, bitmap: Words, kv: int, key: int, length: int) -> tuple[int, int]:
    """Look for a key like `find`, and delete it if it has expired."""
    link, entry = find(memory, bitmap, kv, key, length)
    if entry and is_expired(memory, kv, entry):
        _remove_expired(memory, bitmap, kv, link, entry)
        return find(memory, bitmap, kv, key, length)
    return link, entry


@inlined
def sweep_chain(memory: Bytes, bitmap: Words, kv: int, chain: int) -> int:
    """Delete the expired entries of a chain; only the low bits of `chain` count."""
    apart()
    link = chain_link(memory, kv, chain)
    for _ in range(most_entries(memory, kv)):
        entry = follow(memory, bitmap, kv, link)
        if not entry:
            return 0
        if is_expired(memory, kv, entry):
            _remove_expired(memory, bitmap, kv, link, entry)
        else:
            link = entry + LINK
    return note_damage(memory, bitmap, kv, CHAIN)


@inlined
def sweep(memory: Bytes, bitmap: Words, kv: int, tick: int) -> int:
    """Delete the expired entries in the next SWEPT_CHAINS chains, once in each tick."""
    if get_number(memory, kv + EXPIRING) <= 0 or get_number(memory, kv + SWEPT) == tick:
        return 0
    put_number(memory, bitmap, kv + SWEPT, tick)
    chain = get_number(memory, kv + SWEEP_CHAIN)
    for i in range(SWEPT_CHAINS):
        sweep_chain(memory, bitmap, kv, chain + i)
    return put_number(memory, bitmap, kv + SWEEP_CHAIN, chain + SWEPT_CHAINS)


@inlined
def touch_watched(memory: Bytes, bitmap: Words, kv: int) -> int:
    """Note for the clients that watch existing keys that all keys are deleted."""
    for number in range(watches.count_watches(memory, kv)):
        wanted = watches.watched_hash(memory, kv, number)
        link = chain_link(memory, kv, wanted)
        for _ in range(most_entries(memory, kv)):
            entry = follow(memory, bitmap, kv, link)
            if not entry:
                break
            if key_hash(memory, kv, entry + KEY, key_length(memory, entry)) == wanted:
                watches.touch(memory, bitmap, kv, wanted)
            link = entry + LINK
    return 0


@inlined
def _clear_table(memory: Bytes, bitmap: Words, kv: int) -> int:
    """Set the table to 0, but leave pages clean that are 0 already."""
    begin = kv + SUPERBLOCK_BYTES
    for at in range(begin, begin + 8 * chains_in(len(memory) - kv), STRETCH):
        place = np.int64(address(memory)) + at
        if words_in_use(place) != _U0:
            keep_bytes(memory, bitmap, at, STRETCH)
            clear(place, STRETCH)
            mark_bytes(bitmap, at, STRETCH)
    return 0


@inlined
def remove_all(memory: Bytes, bitmap: Words, kv: int) -> int:
    """Delete all keys, at a cost that does not depend on their number."""
    apart()
    touch_watched(memory, bitmap, kv)
    generation = get_number(memory, kv + GENERATION) + 1
    if generation == _GENERATIONS:
        _clear_table(memory, bitmap, kv)
        generation = 1
    put_number(memory, bitmap, kv + GENERATION, generation)
    put_number(memory, bitmap, kv + KEYS, ZERO)
    put_number(memory, bitmap, kv + EXPIRING, ZERO)
    put_number(memory, bitmap, kv + EXPIRY_SUM, ZERO)
    return heap.reset(memory, bitmap, kv + HEAP)


@inlined
def make(memory: Bytes, bitmap: Words, kv: int) -> int:
    """Make an empty store from `kv` to the end of `memory`, see `colobench.guest.kv.initialize`."""
    size = len(memory) - kv
    for word in range(MAGIC, HEAP, 8):
        put_number(memory, bitmap, kv + word, ZERO)
    for word in range(NOW, SUPERBLOCK_BYTES, 8):
        put_number(memory, bitmap, kv + word, ZERO)
    put_number(memory, bitmap, kv + MAGIC, MAGIC_WORD)
    put_number(memory, bitmap, kv + SIZE, size)
    put_number(memory, bitmap, kv + CHAINS, chains_in(size))
    put_word(memory, bitmap, kv + SECRET_0, _SECRET_WORD_0)
    put_word(memory, bitmap, kv + SECRET_1, _SECRET_WORD_1)
    _clear_table(memory, bitmap, kv)
    return remove_all(memory, bitmap, kv) + 1


@inlined
def is_region(memory: Bytes, kv: int, size: int) -> bool:
    """Say whether a store can be made in [kv, kv + size)."""
    return size >= SMALLEST_STORE and 0 <= kv <= min(len(memory), 1 << ADDRESS_BITS) - size


@inlined
def is_store(memory: Bytes, kv: int) -> bool:
    """Say whether `make` made this store, with a `memory` that ends at the same place."""
    size = len(memory) - kv
    return (
        get_number(memory, kv + MAGIC) == MAGIC_WORD
        and get_number(memory, kv + SIZE) == size
        and get_number(memory, kv + CHAINS) == chains_in(size)
        and 0 < get_number(memory, kv + GENERATION) < _GENERATIONS
        and get_number(memory, kv + DAMAGE) == 0
        and heap.is_heap(memory, kv + HEAP)
    )
