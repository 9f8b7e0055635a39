"""The key-value store once more: slow and obviously right, and a walk through what is in RAM."""

from __future__ import annotations

import struct

import numpy as np

from colobench.guest import heap, keyspace

MOST = 32768
LONGEST_VALUE = MOST - 10
WORD = 2**64 - 1


def encode(*arguments: bytes) -> bytes:
    """Give a request as an array of bulk strings."""
    bulks = (b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in arguments)
    return b"*%d\r\n" % len(arguments) + b"".join(bulks)


def _bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


def _number(value: int) -> bytes:
    return b":%d\r\n" % value


def _error(text: bytes) -> bytes:
    return b"-ERR " + text + b"\r\n"


def _integer(text: bytes) -> int | None:
    """Give the int64 that is written like this and in no other way."""
    try:
        value = int(text)
    except ValueError:
        return None
    return value if b"%d" % value == text and -(2**63) <= value < 2**63 else None


NOT_INTEGER = _error(b"value is not an integer or out of range")
SYNTAX = _error(b"syntax error")
OUT_OF_MEMORY = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
#: The commands of the twin, with their arities.
ARITIES = {
    b"get": 2, b"set": -3, b"setnx": 3, b"getset": 3, b"del": -2, b"unlink": -2, b"exists": -2,
    b"incr": 2, b"decr": 2, b"incrby": 3, b"decrby": 3, b"append": 3, b"strlen": 2, b"mget": -2,
    b"mset": -3, b"dbsize": 1, b"flushall": -1, b"flushdb": -1, b"type": 2, b"ping": -1, b"echo": 2,
    b"select": 2, b"reset": 1,
}  # fmt: skip
DENIED_WITHOUT_MEMORY = {
    b"set", b"setnx", b"getset", b"incr", b"decr", b"incrby", b"decrby", b"append", b"mset",
}  # fmt: skip


class Redis:
    """A dictionary that answers as Redis does; it has no end of memory."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.requests = self.hits = self.misses = self.errors = 0

    def call(self, *arguments: bytes) -> bytes:
        name, *rest = arguments
        name = name.lower()
        arity = ARITIES.get(name)
        if arity is None:
            reply = self._unknown(arguments)
        elif len(arguments) < abs(arity) or 0 < arity < len(arguments):
            reply = self._wrong_number(name)
        else:
            reply = getattr(self, "do_" + name.decode())(*rest)
        if len(reply) > MOST:
            reply = _error(b"reply exceeds 32768 bytes")
        self.requests += 1
        self.errors += reply.startswith(b"-")
        return reply

    def _unknown(self, arguments: tuple[bytes, ...]) -> bytes:
        def quoted(text: bytes, most: int) -> bytes:
            return text[:most].split(b"\0")[0].replace(b"\r", b" ").replace(b"\n", b" ")

        words = b""
        for argument in arguments[1:]:
            if len(words) < 128:
                words += b"'%s' " % quoted(argument, 128 - len(words))
        name = quoted(arguments[0], 128)
        return _error(b"unknown command '%s', with args beginning with: %s" % (name, words))

    def _wrong_number(self, name: bytes) -> bytes:
        return _error(b"wrong number of arguments for '%s' command" % name)

    def _look_up(self, key: bytes) -> bytes | None:
        value = self.keys.get(key)
        self.hits += value is not None
        self.misses += value is None
        return value

    def do_get(self, key: bytes) -> bytes:
        return _bulk(self._look_up(key))

    def do_set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        given, words = set(), list(options)
        while words:
            word = words.pop(0).lower()
            if word in (b"ex", b"px", b"exat", b"pxat") and words and b"expiry" not in given:
                given.add(b"expiry")
                words.pop(0)
            elif word in (b"nx", b"xx", b"get", b"keepttl"):
                given.add(word)
            else:
                return SYNTAX
        if {b"nx", b"xx"} <= given or {b"expiry", b"keepttl"} <= given:
            return SYNTAX
        if b"expiry" in given:
            return _error(
                b"SET with EX, PX, EXAT or PXAT is not supported: keys do not expire here"
            )
        there = key in self.keys
        old = _bulk(self._look_up(key)) if b"get" in given else None
        if (there and b"nx" in given) or (not there and b"xx" in given):
            return old or b"$-1\r\n"
        self.keys[key] = value
        return old or b"+OK\r\n"

    def do_setnx(self, key: bytes, value: bytes) -> bytes:
        there = key in self.keys
        self.keys.setdefault(key, value)
        return _number(not there)

    def do_getset(self, key: bytes, value: bytes) -> bytes:
        old = self._look_up(key)
        self.keys[key] = value
        return _bulk(old)

    def do_del(self, *keys: bytes) -> bytes:
        return _number(sum(self.keys.pop(key, None) is not None for key in keys))

    do_unlink = do_del

    def do_exists(self, *keys: bytes) -> bytes:
        return _number(sum(self._look_up(key) is not None for key in keys))

    def do_incrby(self, key: bytes, amount: bytes, sign: int = 1) -> bytes:
        change, old = _integer(amount), _integer(self.keys.get(key, b"0"))
        if change is None:
            return NOT_INTEGER
        if sign < 0 and change == -(2**63):
            return _error(b"decrement would overflow")
        if old is None:
            return NOT_INTEGER
        new = old + sign * change
        if not -(2**63) <= new < 2**63:
            return _error(b"increment or decrement would overflow")
        self.keys[key] = b"%d" % new
        return _number(new)

    def do_incr(self, key: bytes) -> bytes:
        return self.do_incrby(key, b"1")

    def do_decr(self, key: bytes) -> bytes:
        return self.do_incrby(key, b"1", -1)

    def do_decrby(self, key: bytes, amount: bytes) -> bytes:
        return self.do_incrby(key, amount, -1)

    def do_append(self, key: bytes, value: bytes) -> bytes:
        new = self.keys.get(key, b"") + value
        if len(new) > LONGEST_VALUE:
            return _error(b"string exceeds maximum allowed size (proto-max-bulk-len)")
        self.keys[key] = new
        return _number(len(new))

    def do_strlen(self, key: bytes) -> bytes:
        return _number(len(self._look_up(key) or b""))

    def do_mget(self, *keys: bytes) -> bytes:
        values = [self.keys.get(key) for key in keys]
        reply = b"*%d\r\n" % len(keys) + b"".join(map(_bulk, values))
        if len(reply) <= MOST:
            self.hits += sum(value is not None for value in values)
            self.misses += values.count(None)
        return reply

    def do_mset(self, *pairs: bytes) -> bytes:
        if len(pairs) % 2:
            return self._wrong_number(b"mset")
        self.keys.update(zip(pairs[::2], pairs[1::2], strict=True))
        return b"+OK\r\n"

    def do_dbsize(self) -> bytes:
        return _number(len(self.keys))

    def do_flushall(self, *how: bytes) -> bytes:
        if [word.lower() for word in how] not in ([], [b"sync"], [b"async"]):
            return SYNTAX
        self.keys.clear()
        return b"+OK\r\n"

    do_flushdb = do_flushall

    def do_type(self, key: bytes) -> bytes:
        return b"+none\r\n" if self._look_up(key) is None else b"+string\r\n"

    def do_ping(self, *message: bytes) -> bytes:
        if len(message) > 1:
            return self._wrong_number(b"ping")
        return _bulk(message[0]) if message else b"+PONG\r\n"

    def do_echo(self, message: bytes) -> bytes:
        return _bulk(message)

    def do_select(self, number: bytes) -> bytes:
        value = _integer(number)
        if value is None:
            return NOT_INTEGER
        if not -(2**31) <= value < 2**31:
            return _error(b"value is out of range, value must between -2147483648 and 2147483647")
        return _error(b"DB index is out of range") if value else b"+OK\r\n"

    def do_reset(self) -> bytes:
        return b"+RESET\r\n"


def siphash(data: bytes, key: tuple[int, int], rounds: int = 1, last_rounds: int = 3) -> int:
    """Hash with SipHash, as its paper says."""

    def rotated(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & WORD

    def mix(times: int) -> None:
        for _ in range(times):
            v[0] = (v[0] + v[1]) & WORD
            v[1] = rotated(v[1], 13) ^ v[0]
            v[0] = rotated(v[0], 32)
            v[2] = (v[2] + v[3]) & WORD
            v[3] = rotated(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & WORD
            v[3] = rotated(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & WORD
            v[1] = rotated(v[1], 17) ^ v[2]
            v[2] = rotated(v[2], 32)

    text = b"somepseudorandomlygeneratedbytes"
    v = [key[i % 2] ^ int.from_bytes(text[8 * i : 8 * i + 8], "big") for i in range(4)]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        mix(rounds)
        v[0] ^= word
    v[2] ^= 0xFF
    mix(last_rounds)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


class Region:
    """A store's region of RAM, walked through; every method asserts what it relies on."""

    def __init__(self, memory: np.ndarray, kv: int, size: int) -> None:
        self.memory, self.kv, self.size = memory, kv, size
        self.heap = kv + keyspace.HEAP

    def word(self, at: int) -> int:
        assert self.kv <= at <= self.kv + self.size - 8
        return int.from_bytes(self.memory[at : at + 8].tobytes(), "little")

    def blocks(self) -> dict[int, tuple[int, bool]]:
        """Give size, and whether it is free, of each block; they lie behind each other."""
        at = self.word(self.heap + heap.FIRST_BLOCK)
        end = at + self.word(self.heap + heap.TOTAL_BYTES)
        found, after_free = {}, False
        while at < end:
            header = self.word(at)
            size, free = header & ~15, bool(header & heap.FREE)
            assert size >= heap.SMALLEST_BLOCK
            assert bool(header & heap.AFTER_FREE) == after_free
            assert not (free and after_free), "two free blocks are neighbours"
            assert not free or self.word(at + size - 8) == size
            found[at] = size, free
            at, after_free = at + size, free
        assert at == end
        assert self.word(end) == (heap.AFTER_FREE if after_free else 0)
        return found

    def lists(self) -> dict[int, set[int]]:
        """Give the free blocks of each class that has any."""
        found = {}
        doublings = self.word(self.heap + heap.DOUBLING_BITS)
        for doubling in range(heap.DOUBLINGS):
            bits = self.word(self.heap + heap.CLASS_BITS + 8 * doubling)
            assert bool(bits) == bool(doublings >> doubling & 1)
            for number in range(heap.CLASSES):
                if bits >> number & 1:
                    place = heap.CLASSES * doubling + number
                    found[place] = self._list(self.word(self.heap + heap.LISTS + 8 * place))
        return found

    def _list(self, block: int) -> set[int]:
        found: set[int] = set()
        previous = 0
        while block:
            assert block not in found
            assert self.word(block + 16) == previous
            found.add(block)
            previous, block = block, self.word(block + 8)
        assert found
        return found

    def entries(self) -> dict[bytes, tuple[int, bytes]]:
        """Give the block and the value of each key; each is in its chain."""
        generation = self.word(self.kv + keyspace.GENERATION)
        secret = self.word(self.kv + keyspace.SECRET_0), self.word(self.kv + keyspace.SECRET_1)
        chains = self.word(self.kv + keyspace.CHAINS)
        found = {}
        for chain in range(chains):
            link = self.kv + keyspace.SUPERBLOCK_BYTES + 8 * chain
            while self.word(link) >> 40 == generation and self.word(link) & (1 << 40) - 1:
                entry = self.word(link) & (1 << 40) - 1
                lengths = self.word(entry + keyspace.LENGTHS)
                begin = entry + keyspace.KEY
                middle = begin + (lengths & 0xFFFFFFFF)
                key = self.memory[begin:middle].tobytes()
                value = self.memory[middle : middle + (lengths >> 32)].tobytes()
                assert key not in found
                assert siphash(key, secret) % chains == chain
                found[key] = entry - heap.HEADER_BYTES, value
                link = entry + keyspace.LINK
        return found

    def check(self) -> dict[bytes, bytes]:
        """Hold everything that must be true of a region, and give keys and values."""
        blocks, entries = self.blocks(), self.entries()
        used = {at: size for at, (size, free) in blocks.items() if not free}
        free = {at: size for at, (size, free) in blocks.items() if free}
        assert sum(used.values()) == self.word(self.heap + heap.USED_BYTES)
        assert {block for block, _ in entries.values()} == used.keys(), "leaked, or used twice"
        for key, (block, value) in entries.items():
            wanted = size_of_block(key, value)
            assert wanted <= used[block] < wanted + heap.SMALLEST_BLOCK
        listed = {at: place for place, members in self.lists().items() for at in members}
        assert listed == {at: class_of(size) for at, size in free.items()}
        assert self.word(self.kv + keyspace.KEYS) == len(entries)
        return {key: value for key, (_, value) in entries.items()}


def class_of(size: int) -> int:
    """Give a block's class: 16 for the sizes below 256, and for each doubling from there."""
    doubling = max(size.bit_length() - 8, 0)
    return 16 * doubling + (size // 2 ** max(size.bit_length() - 5, 4)) % 16


def size_of_block(key: bytes, value: bytes) -> int:
    """Give the smallest size of a class in which an entry fits."""
    payload = heap.HEADER_BYTES + keyspace.KEY + len(key) + len(value)
    step = max(16, 2 ** (max(payload.bit_length(), 9) - 5))
    size = max(32, -(-payload // 16) * 16)
    return -(-size // step) * step if size >= 256 else size
