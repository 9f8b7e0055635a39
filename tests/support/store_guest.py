"""A store in guest RAM with a few clients, and requests to it as hypothesis draws them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import strategies as st

import naive
import naive_kv
from colobench.guest import clients, kv, region
from colobench.guest.buffers import BUFFER_BYTES
from freezing import FrozenMemory
from naive_kv import Region, encode

PAGE = 4096
NOW = 1_700_000_000_123_456
#: How many are connected, and how many ever were.
CLIENTS = 3, 7
#: The clients' area and the store lie behind the buffers, with memory around each of them that
#: nobody may touch.
RECEIVED, REPLIES, AREA, AREA_SIZE = 3 * PAGE - 77, 13 * PAGE - 4, 23 * PAGE + 32, 64 * PAGE
STORE, SIZE = 88 * PAGE + 32, 40 * PAGE + 96
PAGES = 192
SLOTS = AREA_SIZE // clients.BYTES_PER_CLIENT
#: The region of the area that follows the slots, and how long a value may be.
POOL = AREA + SLOTS * clients.SLOT_BYTES
_POOL_SIZE = AREA + AREA_SIZE - POOL
_TABLE = 8 << ((_POOL_SIZE // region.BYTES_PER_CHAIN).bit_length() - 1)
LONGEST_VALUE = ((_POOL_SIZE - region.SUPERBLOCK_BYTES - _TABLE - 8) & -16) // clients.SHARE
GARBAGE = np.random.default_rng(4).integers(0, 256, PAGES * PAGE, dtype=np.uint8)


class Guest:
    """RAM with one store and a few connections, and the check that marks and bounds are kept."""

    def __init__(self, size: int = SIZE, garbage: np.ndarray = GARBAGE) -> None:
        self.size, self.now, self.slot = size, NOW, 0
        self.memory = garbage.copy()
        self.frozen = FrozenMemory(self.memory)
        self.marks, self.bitmap = self.frozen.marks, self.frozen.dirty
        self.result = np.zeros(kv.RESULT_SLOTS, dtype=np.uint64)
        self.waiting, self.closed, self.requests = b"", False, 0
        before = self.memory.copy()
        self.frozen.freeze()
        assert kv.initialize(self.memory, self.marks, STORE, size) == 1
        assert kv.initialize_clients(self.memory, self.marks, AREA, AREA_SIZE) == 1
        self.hold_bounds(before, [(STORE, STORE + size), (AREA, AREA + AREA_SIZE)])

    def hold_bounds(self, before: np.ndarray, allowed: list[tuple[int, int]]) -> set[int]:
        """Hold that nothing else was written and that what was is marked and kept; give marks."""
        changed = np.flatnonzero(before != self.memory)
        inside = np.zeros(len(changed), dtype=bool)
        for begin, end in allowed:
            inside |= (begin <= changed) & (changed < end)
        assert inside.all()
        marked = set(naive.pages_of(self.bitmap))
        assert set((changed // PAGE).tolist()) <= marked
        assert all(any(b // PAGE <= page <= e // PAGE for b, e in allowed) for page in marked)
        self.frozen.check(before)
        self.bitmap[:] = 0
        return marked

    def execute(self, room: int = BUFFER_BYTES) -> tuple[bytes, set[int]]:
        """Execute what is waiting, once; give the replies and the pages that were marked."""
        end = RECEIVED + len(self.waiting)
        self.memory[RECEIVED:end] = np.frombuffer(self.waiting, dtype=np.uint8)
        before = self.memory.copy()
        self.frozen.freeze()
        self.requests += kv.execute(
            self.memory,
            self.marks,
            STORE,
            self.size,
            AREA,
            AREA_SIZE,
            self.slot,
            RECEIVED,
            end,
            REPLIES,
            REPLIES + room,
            np.uint64(self.now),
            *CLIENTS,
            self.result,
        )
        allowed = [(STORE, STORE + self.size), (REPLIES, REPLIES + room)]
        marked = self.hold_bounds(before, [*allowed, (AREA, AREA + AREA_SIZE)])
        consumed, replied, closed, blocked = map(int, self.result[:4])
        assert consumed <= len(self.waiting)
        assert replied <= room
        assert not (closed and blocked)
        assert not closed or consumed == len(self.waiting)
        self.waiting, self.closed = self.waiting[consumed:], bool(closed)
        self.blocked = bool(blocked)
        return self.memory[REPLIES : REPLIES + replied].tobytes(), marked

    def send(self, data: bytes, pieces: Iterable[int] = (), rooms: Iterable[int] = ()) -> bytes:
        """Send bytes in pieces, with so much room each time; as TCP does, it calls again."""
        replies, rooms, pieces = b"", iter(rooms), iter(pieces)
        while data and not self.closed:
            space = BUFFER_BYTES - len(self.waiting)
            assert space > 0, "a full buffer must be an error"
            piece = min(space, next(pieces, space))
            self.waiting, data = self.waiting + data[:piece], data[piece:]
            self.blocked = True
            while self.blocked:
                reply, _ = self.execute(next(rooms, BUFFER_BYTES))
                replies += reply
        return replies

    def call(self, *arguments: bytes) -> bytes:
        return self.send(encode(*arguments))

    def as_client(self, slot: int) -> Guest:
        """Let what is sent next be another client's."""
        self.slot = slot
        return self

    def end_client(self, slot: int) -> None:
        """End a client's connection."""
        before = self.memory.copy()
        self.frozen.freeze()
        kv.forget_client(self.memory, self.marks, STORE, self.size, AREA, AREA_SIZE, slot)
        self.hold_bounds(before, [(STORE, STORE + self.size), (AREA, AREA + AREA_SIZE)])

    @property
    def pool(self) -> Region:
        """The memory in which names, queues, large requests and replies are kept."""
        return Region(self.memory, POOL, _POOL_SIZE)

    @property
    def region(self) -> Region:
        return Region(self.memory, STORE, self.size)

    @property
    def bytes(self) -> bytes:
        return self.memory[STORE : STORE + self.size].tobytes()

    def information(self) -> dict[str, str]:
        text = self.call(b"INFO").split(b"\r\n", 1)[1].decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


KEYS = st.sampled_from(
    [b"", b"a", b"b", b"key:000000000001", b"12345678", b"\0\r\n\xff", b"k" * 300, b"1"]
) | st.binary(max_size=9)
EXTREMES = [0, 1, -1, 10, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**19, 99]
NUMBERS = st.one_of(st.sampled_from(EXTREMES), st.integers(-(2**64), 2**64)).map(
    lambda n: b"%d" % n
)
ODD_NUMBERS = st.sampled_from(
    [b"", b"-", b"+1", b"01", b"-0", b"1 ", b" 1", b"1e3", b"0x1", b"1\0"]
)
LONG = st.tuples(st.binary(min_size=1, max_size=1), st.integers(0, 3000)).map(lambda x: x[0] * x[1])
VALUES = st.one_of(st.binary(max_size=40), NUMBERS, LONG)
OPTIONS = st.lists(
    st.sampled_from([b"nx", b"XX", b"get", b"GET", b"KeepTTL", b"no", b""]), max_size=3
)
#: Times that Redis and the twin, whose clocks differ, understand in the same way.
YEAR = 31_557_600
UNITS = {b"EX": YEAR, b"px": YEAR * 1000, b"exAT": 60 * YEAR, b"PXAT": 60 * YEAR * 1000}
#: 10**8 is a day of milliseconds, years of seconds, and long ago: a moment ends before the next
#: request or after it.
TIMES = st.sampled_from([0, 10**8, -1, 2**63 - 1, -(2**63), 2**63, 2**62 // 1000])
EXPIRY = st.sampled_from(sorted(UNITS)).flatmap(
    lambda unit: st.tuples(
        st.just(unit),
        (st.integers(0, 10**6).map(lambda n: n + UNITS[unit]) | TIMES).map(lambda n: b"%d" % n)
        | ODD_NUMBERS,
    )
)
EXPIRY_OPTIONS = st.lists(EXPIRY.map(list) | OPTIONS | st.just([b"persist"]), max_size=3).map(
    lambda parts: [word for part in parts for word in part]
)


def request(name: bytes, *parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Give requests with these arguments, their name written in any way."""
    names = st.sampled_from([name, name.upper(), name.title()])
    return st.tuples(names, *parts).map(list)


def many(name: bytes, parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    return st.tuples(request(name), st.lists(parts, min_size=1, max_size=6)).map(
        lambda both: both[0] + both[1]
    )


WRITES = [
    request(b"set", KEYS, VALUES),
    st.tuples(request(b"set", KEYS, VALUES), OPTIONS).map(lambda both: both[0] + both[1]),
    st.tuples(request(b"set", KEYS, VALUES), EXPIRY_OPTIONS).map(lambda both: both[0] + both[1]),
    request(b"setnx", KEYS, VALUES),
    request(b"getset", KEYS, VALUES),
    request(b"getdel", KEYS),
    st.tuples(request(b"getex", KEYS), EXPIRY_OPTIONS).map(lambda both: both[0] + both[1]),
    request(b"setrange", KEYS, st.integers(-2, 99).map(lambda n: b"%d" % n) | ODD_NUMBERS, VALUES),
    request(b"persist", KEYS),
    request(b"append", KEYS, VALUES),
    request(b"incr", KEYS),
    request(b"decr", KEYS),
    request(b"incrby", KEYS, NUMBERS | ODD_NUMBERS),
    request(b"decrby", KEYS, NUMBERS | ODD_NUMBERS),
    request(b"set", KEYS, NUMBERS | ODD_NUMBERS),
    st.tuples(request(b"mset"), st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5)).map(
        lambda both: both[0] + [part for pair in both[1] for part in pair]
    ),
    st.tuples(request(b"msetnx"), st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=2)).map(
        lambda both: both[0] + [part for pair in both[1] for part in pair]
    ),
    many(b"del", KEYS),
    many(b"unlink", KEYS),
]
#: Each command with the times that two clocks understand in the same way.
_FAR = {b"expire": YEAR, b"pexpire": YEAR * 1000, b"expireat": 60 * YEAR}
_FAR |= {b"pexpireat": 60 * YEAR * 1000}
EXPIRES = [
    st.tuples(
        request(
            name,
            KEYS,
            (st.integers(0, 3).map(lambda n, far=far: n * 1000 + far) | TIMES).map(
                lambda n: b"%d" % n
            )
            | ODD_NUMBERS,
        ),
        st.lists(st.sampled_from([b"nx", b"XX", b"gt", b"Lt", b"no"]), max_size=2),
    ).map(lambda both: both[0] + both[1])
    for name, far in _FAR.items()
]
EXPIRES += [
    st.tuples(request(b"setex", KEYS), EXPIRY, VALUES).map(
        lambda parts: [b"setex", parts[0][1], parts[1][1], parts[2]]
    ),
    request(b"expiretime", st.just(b"\xfe")),
]
TRANSACTIONS = [
    request(b"multi"), request(b"exec"), request(b"exec"), request(b"discard"),
    many(b"watch", KEYS), request(b"unwatch"),
]  # fmt: skip
READS = [
    request(b"get", KEYS),
    request(b"strlen", KEYS),
    request(b"type", KEYS),
    request(b"getrange", KEYS, NUMBERS, NUMBERS),
    request(b"substr", KEYS, *[st.integers(-9, 9).map(lambda n: b"%d" % n)] * 2),
    many(b"touch", KEYS),
    request(b"dbsize"),
    request(b"ping"),
    request(b"ping", VALUES),
    request(b"echo", VALUES),
    request(b"select", NUMBERS | ODD_NUMBERS),
    request(b"reset"),
    many(b"mget", KEYS),
    many(b"exists", KEYS),
]


def is_clocked(arguments: list[bytes]) -> bool:
    """Tell whether the reply, or a later one, may depend on the time at which it is asked."""
    name, arity = arguments[0], naive_kv.ARITIES[arguments[0]]
    fits = len(arguments) == arity or (arity < 0 and len(arguments) >= -arity)
    return fits and (b"ttl" in name or b"expire" in name or name.endswith(b"setex"))


WRONG = [
    st.tuples(st.sampled_from(sorted(naive_kv.ARITIES)), st.lists(KEYS, max_size=4))
    .map(lambda both: [both[0], *both[1]])
    .filter(lambda arguments: not is_clocked(arguments)),
    st.lists(st.binary(max_size=12) | LONG, min_size=1, max_size=5),
    many(b"nope", KEYS),
]
FLUSHES = [request(b"flushall"), request(b"flushdb", st.sampled_from([b"sync", b"ASYNC", b"x"]))]


def supported(arguments: list[bytes]) -> bool:
    """Tell whether the twin, and Redis in the same way, has this command or has it not."""
    others = {b"time", b"info", b"config", b"client", b"command", b"hello", b"quit", b"auth"}
    others |= {b"keys", b"scan", b"object"}
    return arguments[0].lower() not in others


REQUESTS = st.one_of(*WRITES, *READS, *WRITES, *EXPIRES, *TRANSACTIONS, *WRONG, *FLUSHES).filter(
    supported
)
#: What depends on the time at which it is asked.
CLOCKED = [request(name, KEYS) for name in (b"ttl", b"pttl", b"expiretime", b"pexpiretime")]
PIECES = st.lists(st.integers(1, 200), max_size=60)
ROOMS = st.lists(st.integers(0, 700), max_size=60)
MALFORMED = {
    b"*1\r\n:3\r\n": b"expected '$', got ':'",
    b"*1\r\n\n\r\n": b"expected '$', got ' '",
    b"*a\r\n": b"invalid multibulk length",
    b"*01\r\n": b"invalid multibulk length",
    b"*\r\n": b"invalid multibulk length",
    b"*99999999999\r\n": b"invalid multibulk length",
    b"*1\r\n$-1\r\n": b"invalid bulk length",
    b"*1\r\n$1 \r\n": b"invalid bulk length",
    b"*1\r\n$99999999999\r\n": b"invalid bulk length",
    b"set 'a\r\n": b"unbalanced quotes in request",
    b'get "a"b\r\n': b"unbalanced quotes in request",
    b'get "a\\"\r\n': b"unbalanced quotes in request",
    b"get a'b\r\n": b"unbalanced quotes in request",
    b"*2147483648\r\n": b"invalid multibulk length",
    b"*1\r\n$536870913\r\n": b"invalid bulk length",
}
#: … and what Redis would understand, or wait for.
