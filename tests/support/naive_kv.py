"""The key-value store once more: slow and obviously right, and a walk through what is in RAM."""

from __future__ import annotations

import struct

import numpy as np

from colobench.guest import heap, keyspace, region

WORD = 2**64 - 1


def encode(*arguments: bytes) -> bytes:
    """Give a request as an array of bulk strings."""
    bulks = (b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in arguments)
    return b"*%d\r\n" % len(arguments) + b"".join(bulks)


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


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


def _quoted(text: bytes, most: int) -> bytes:
    return text[:most].split(b"\0")[0].replace(b"\r", b" ").replace(b"\n", b" ")


TOO_LONG = _error(b"string exceeds maximum allowed size (proto-max-bulk-len)")
NOT_INTEGER = _error(b"value is not an integer or out of range")
SYNTAX = _error(b"syntax error")
OUT_OF_MEMORY = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
#: The commands of the twin, with their arities.
ARITIES = {
    b"get": 2, b"set": -3, b"setnx": 3, b"getset": 3, b"del": -2, b"unlink": -2, b"exists": -2,
    b"incr": 2, b"decr": 2, b"incrby": 3, b"decrby": 3, b"append": 3, b"strlen": 2, b"mget": -2,
    b"mset": -3, b"dbsize": 1, b"flushall": -1, b"flushdb": -1, b"type": 2, b"ping": -1, b"echo": 2,
    b"select": 2, b"reset": 1, b"expire": -3, b"pexpire": -3, b"expireat": -3, b"pexpireat": -3,
    b"ttl": 2, b"pttl": 2, b"expiretime": 2, b"pexpiretime": 2, b"persist": 2, b"setex": 4,
    b"psetex": 4, b"getex": -2, b"getdel": 2, b"msetnx": -3, b"getrange": 4, b"substr": 4,
    b"setrange": 4, b"touch": -2, b"multi": 1, b"exec": 1, b"discard": 1, b"watch": -2,
    b"unwatch": 1,
}  # fmt: skip
DENIED_WITHOUT_MEMORY = {
    b"set", b"setnx", b"getset", b"incr", b"decr", b"incrby", b"decrby", b"append", b"mset",
    b"setex", b"psetex", b"msetnx", b"setrange",
}  # fmt: skip
#: What is executed between MULTI and EXEC.
NOT_QUEUED = {b"exec", b"discard", b"multi", b"watch", b"quit", b"reset"}
HIGHEST = 2**63 - 1


class Redis:
    """A dictionary that answers one client as Redis does; it has no end of memory.

    Parameters
    ----------
    now
        Milliseconds since 1970, which may be changed.
    longest
        Bytes that a value may have.
    """

    def __init__(self, now: int = 0, longest: int = 2**29, resp3: bool = False) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.expiries: dict[bytes, int] = {}
        self.now, self.longest, self.resp3 = now, longest, resp3
        self.requests = self.hits = self.misses = self.errors = 0
        self.queue: list[tuple[bytes, ...]] | None = None
        self.refused = False
        self.watched: dict[bytes, bool] = {}

    def call(self, *arguments: bytes) -> bytes:
        name, *rest = arguments
        name = name.lower()
        arity = ARITIES.get(name)
        self.requests += 1
        self._expire()
        if arity is None:
            self.refused = True
            reply = self._unknown(arguments)
        elif len(arguments) < abs(arity) or 0 < arity < len(arguments):
            self.refused = True
            reply = self._wrong_number(name)
        elif self.queue is not None and name not in NOT_QUEUED:
            self.queue.append(arguments)
            reply = b"+QUEUED\r\n"
        else:
            reply = self._run(name, rest)
        self.errors += reply.startswith(b"-")
        return reply

    def _run(self, name: bytes, rest: list[bytes]) -> bytes:
        before, before_expiries = dict(self.keys), dict(self.expiries)
        reply: bytes = getattr(self, "do_" + name.decode())(*rest)
        written = name in (b"set", b"setex", b"psetex", b"getset", b"mset", b"append")
        for key in self.watched:
            same = before.get(key) == self.keys.get(key)
            same &= before_expiries.get(key) == self.expiries.get(key)
            named = key in rest and written and not reply.startswith(b"-")
            if not same or (named and key in self.keys):
                self.watched[key] = True
        return reply

    def _expire(self) -> None:
        for key, when in list(self.expiries.items()):
            if when < self.now:
                self._remove(key)
                if key in self.watched:
                    self.watched[key] = True

    def _remove(self, key: bytes) -> bytes | None:
        self.expiries.pop(key, None)
        return self.keys.pop(key, None)

    def _put(self, key: bytes, value: bytes) -> None:
        self.keys[key] = value
        self.expiries.pop(key, None)

    def _value(self, value: bytes | None) -> bytes:
        if value is None:
            return b"_\r\n" if self.resp3 else b"$-1\r\n"
        return _bulk(value)

    def _unknown(self, arguments: tuple[bytes, ...]) -> bytes:
        words = b""
        for argument in arguments[1:]:
            if len(words) < 128:
                words += b"'%s' " % _quoted(argument, 128 - len(words))
        name = _quoted(arguments[0], 128)
        return _error(b"unknown command '%s', with args beginning with: %s" % (name, words))

    def _wrong_number(self, name: bytes) -> bytes:
        return _error(b"wrong number of arguments for '%s' command" % name)

    def _look_up(self, key: bytes) -> bytes | None:
        value = self.keys.get(key)
        self.hits += value is not None
        self.misses += value is None
        return value

    def do_get(self, key: bytes) -> bytes:
        return self._value(self._look_up(key))

    def _time(self, unit: bytes, text: bytes, command: bytes) -> int | bytes:
        """Give the millisecond that an option's time means, or the error."""
        value = _integer(text)
        if value is None:
            return NOT_INTEGER
        scale = 1000 if unit in (b"ex", b"exat") else 1
        when = value * scale + (self.now if unit in (b"ex", b"px") else 0)
        if value <= 0 or value * scale > HIGHEST or when > HIGHEST:
            return _error(b"invalid expire time in '%s' command" % command)
        return when

    def _options(
        self, words: list[bytes], known: tuple[bytes, ...]
    ) -> tuple[set[bytes], bytes, bytes] | None:
        given, unit, time = set(), b"", b""
        while words:
            word = words.pop(0).lower()
            if word in (b"ex", b"px", b"exat", b"pxat") and words and unit in (b"", word):
                unit, time = word, words.pop(0)
            elif word in known:
                given.add(word)
            else:
                return None
        if {b"nx", b"xx"} <= given or (unit and given & {b"keepttl", b"persist"}):
            return None
        return given, unit, time

    def do_set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        parsed = self._options(list(options), (b"nx", b"xx", b"get", b"keepttl"))
        if parsed is None:
            return SYNTAX
        given, unit, time = parsed
        when = self._time(unit, time, b"set") if unit else 0
        if isinstance(when, bytes):
            return when
        there = key in self.keys
        old = self._value(self._look_up(key)) if b"get" in given else None
        if (there and b"nx" in given) or (not there and b"xx" in given):
            return old or self._value(None)
        kept = self.expiries.get(key, 0) if b"keepttl" in given else when
        self._put(key, value)
        if kept:
            self.expiries[key] = kept
        return old or b"+OK\r\n"

    def do_setex(self, key: bytes, time: bytes, value: bytes, unit: bytes = b"ex") -> bytes:
        when = self._time(unit, time, b"setex" if unit == b"ex" else b"psetex")
        if isinstance(when, bytes):
            return when
        self._put(key, value)
        self.expiries[key] = when
        return b"+OK\r\n"

    def do_psetex(self, key: bytes, time: bytes, value: bytes) -> bytes:
        return self.do_setex(key, time, value, b"px")

    def do_getex(self, key: bytes, *options: bytes) -> bytes:
        parsed = self._options(list(options), (b"persist",))
        if parsed is None:
            return SYNTAX
        given, unit, time = parsed
        value = self.keys.get(key)
        when = self._time(unit, time, b"getex") if unit and value is not None else 0
        self._look_up(key)
        if isinstance(when, bytes):
            return when
        if value is not None and b"at" in unit and when <= self.now:
            self._remove(key)
        elif value is not None and when:
            self.expiries[key] = when
        elif given:
            self.expiries.pop(key, None)
        return self._value(value)

    def do_getdel(self, key: bytes) -> bytes:
        value = self._look_up(key)
        self._remove(key)
        return self._value(value)

    def _expire_at(self, name: bytes, key: bytes, time: bytes, *words: bytes) -> bytes:
        given = {word.lower() for word in words}
        for word in words:
            if word.lower() not in (b"nx", b"xx", b"gt", b"lt"):
                return _error(b"Unsupported option " + _quoted(word, 128))
        if b"nx" in given and len(given) > 1:
            return _error(b"NX and XX, GT or LT options at the same time are not compatible")
        if {b"gt", b"lt"} <= given:
            return _error(b"GT and LT options at the same time are not compatible")
        when = _integer(time)
        if when is None:
            return NOT_INTEGER
        invalid = _error(b"invalid expire time in '%s' command" % name)
        if not name.startswith(b"p"):
            if abs(when) > HIGHEST // 1000:
                return invalid
            when *= 1000
        if not name.endswith(b"at"):
            when += self.now
        if when > HIGHEST:
            return invalid
        now = self.expiries.get(key)
        refused = (now is not None and b"nx" in given) or (now is None and b"xx" in given)
        refused |= b"gt" in given and (now is None or when <= now)
        refused |= b"lt" in given and now is not None and when >= now
        if key not in self.keys or refused:
            return _number(0)
        if when <= self.now:
            self._remove(key)
        else:
            self.expiries[key] = when
            if key in self.watched:
                self.watched[key] = True
        return _number(1)

    def do_expire(self, *arguments: bytes) -> bytes:
        return self._expire_at(b"expire", *arguments)

    def do_pexpire(self, *arguments: bytes) -> bytes:
        return self._expire_at(b"pexpire", *arguments)

    def do_expireat(self, *arguments: bytes) -> bytes:
        return self._expire_at(b"expireat", *arguments)

    def do_pexpireat(self, *arguments: bytes) -> bytes:
        return self._expire_at(b"pexpireat", *arguments)

    def do_pexpiretime(self, key: bytes) -> bytes:
        if self._look_up(key) is None:
            return _number(-2)
        return _number(self.expiries.get(key, -1))

    def do_expiretime(self, key: bytes) -> bytes:
        when = self.expiries.get(key)
        reply = self.do_pexpiretime(key)
        return reply if when is None else _number((when + 500) // 1000)

    def do_pttl(self, key: bytes) -> bytes:
        when = self.expiries.get(key)
        reply = self.do_pexpiretime(key)
        return reply if when is None else _number(when - self.now)

    def do_ttl(self, key: bytes) -> bytes:
        when = self.expiries.get(key)
        reply = self.do_pexpiretime(key)
        return reply if when is None else _number((when - self.now + 500) // 1000)

    def do_persist(self, key: bytes) -> bytes:
        return _number(self.expiries.pop(key, None) is not None)

    def do_multi(self) -> bytes:
        if self.queue is not None:
            return _error(b"MULTI calls can not be nested")
        self.queue, self.refused = [], False
        return b"+OK\r\n"

    def _end(self) -> None:
        self.queue, self.refused, self.watched = None, False, {}

    def do_discard(self) -> bytes:
        if self.queue is None:
            return _error(b"DISCARD without MULTI")
        self._end()
        return b"+OK\r\n"

    def do_exec(self) -> bytes:
        if self.queue is None:
            return _error(b"EXEC without MULTI")
        queue, refused, outdated = self.queue, self.refused, any(self.watched.values())
        self._end()
        if refused:
            return b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        if outdated:
            return b"_\r\n" if self.resp3 else b"*-1\r\n"
        replies = [self._run(name.lower(), rest) for name, *rest in queue]
        self.errors += sum(reply.startswith(b"-") for reply in replies)
        return b"*%d\r\n" % len(replies) + b"".join(replies)

    def do_watch(self, *keys: bytes) -> bytes:
        if self.queue is not None:
            return _error(b"WATCH inside MULTI is not allowed")
        for key in keys:
            self.watched.setdefault(key, False)
        return b"+OK\r\n"

    def do_unwatch(self) -> bytes:
        self.watched = {}
        return b"+OK\r\n"

    def do_setnx(self, key: bytes, value: bytes) -> bytes:
        there = key in self.keys
        self.keys.setdefault(key, value)
        return _number(not there)

    def do_getset(self, key: bytes, value: bytes) -> bytes:
        old = self._look_up(key)
        self._put(key, value)
        return self._value(old)

    def do_del(self, *keys: bytes) -> bytes:
        return _number(sum(self._remove(key) is not None for key in keys))

    do_unlink = do_del

    def do_exists(self, *keys: bytes) -> bytes:
        return _number(sum(self._look_up(key) is not None for key in keys))

    do_touch = do_exists

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
        if len(new) > self.longest:
            return TOO_LONG
        self.keys[key] = new
        return _number(len(new))

    def do_strlen(self, key: bytes) -> bytes:
        return _number(len(self._look_up(key) or b""))

    def do_mget(self, *keys: bytes) -> bytes:
        values = map(self._value, map(self._look_up, keys))
        return b"*%d\r\n" % len(keys) + b"".join(values)

    def do_mset(self, *pairs: bytes) -> bytes:
        if len(pairs) % 2:
            return self._wrong_number(b"mset")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self._put(key, value)
        return b"+OK\r\n"

    def do_msetnx(self, *pairs: bytes) -> bytes:
        if len(pairs) % 2:
            return self._wrong_number(b"msetnx")
        if any(key in self.keys for key in pairs[::2]):
            return _number(0)
        self.do_mset(*pairs)
        return _number(1)

    def do_getrange(self, key: bytes, first: bytes, last: bytes) -> bytes:
        begin, end = _integer(first), _integer(last)
        if begin is None or end is None:
            return NOT_INTEGER
        value = self._look_up(key) or b""
        if begin < 0 and end < 0 and begin > end:
            return _bulk(b"")
        begin = max(0, begin + len(value) if begin < 0 else begin)
        end = max(0, end + len(value) if end < 0 else end)
        return _bulk(value[begin : end + 1])

    do_substr = do_getrange

    def do_setrange(self, key: bytes, offset: bytes, value: bytes) -> bytes:
        at, old = _integer(offset), self.keys.get(key, b"")
        if at is None:
            return NOT_INTEGER
        if at < 0:
            return _error(b"offset is out of range")
        if not value:
            return _number(len(old))
        if at + len(value) > self.longest:
            return TOO_LONG
        old = old.ljust(at, b"\0")
        self.keys[key] = old[:at] + value + old[at + len(value) :]
        return _number(len(self.keys[key]))

    def do_dbsize(self) -> bytes:
        return _number(len(self.keys))

    def do_flushall(self, *how: bytes) -> bytes:
        if [word.lower() for word in how] not in ([], [b"sync"], [b"async"]):
            return SYNTAX
        self.keys.clear()
        self.expiries.clear()
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
        self._end()
        self.resp3 = False
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

    def expiries(self) -> dict[bytes, int]:
        """Give when keys expire, of those that do; the counts of them are right."""
        found = {}
        for key, (block, _) in self.entries().items():
            when = self.word(block + region.HEADER_BYTES + region.EXPIRES)
            if when:
                found[key] = when
        assert self.word(self.kv + keyspace.EXPIRING) == len(found)
        total = sum(min(when, keyspace.FURTHEST) for when in found.values())
        assert self.word(self.kv + keyspace.EXPIRY_SUM) == total
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
        self.expiries()
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
