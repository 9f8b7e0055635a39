"""Words of guest RAM changed at random, and requests after each change: run by test_guest_damage.

RAM lies between pages that nobody may touch, so a step outside of it ends the process; what lies in
RAM beside pc.ram is compared. Each round begins with the RAM of a machine that has served clients.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from colobench.guest import bugs, clients, kv, rings
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.command_table import COMMANDS
from colobench.net.frame import ACK, FIN, PSH, RST
from naive_kv import Region, encode
from tcp_peer import MIB, PAGE, Client, Guest, connect

CHANGES_PER_ROUND = 16
#: Nothing that a round does takes as long; what never ends is ended.
ROUND_SECONDS = 60
#: Pages on both sides of RAM that nobody may read or write.
GUARD = 64 * PAGE
#: Calls of the stack after which it must have nothing more to do at once.
MOST_CALLS = 64
KEYS = [b"key:%d" % number for number in range(40)]
WORDS = [*KEYS[:8], b"new", b"", b"1", b"0", b"-1", b"1000", b"v" * 40, b"w" * 3000, b"*"]
WORDS += [b"nx", b"xx", b"get", b"ex", b"px", b"count", b"match", b"type", b"setname", b"info"]
ADDRESS_BITS = 40
WORD = 2**64


def guarded(size: int) -> np.ndarray:
    """Give that much memory between two stretches of pages that cannot be touched."""
    whole = mmap.mmap(-1, size + 2 * GUARD)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(whole))
    libc = ctypes.CDLL(None, use_errno=True)
    for at in (begin, begin + GUARD + size):
        assert libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(GUARD), 0) == 0
    return np.frombuffer(whole, dtype=np.uint8, offset=GUARD, count=size)


def requests() -> list[bytes]:
    """Give requests of every command, with arguments of all kinds."""
    chance = random.Random(7)
    found = []
    for command in COMMANDS:
        for _ in range(12):
            count = abs(command.arity) - 1
            count += chance.randrange(4) if command.arity < 0 else 0
            words = [chance.choice(WORDS) for _ in range(count)]
            found.append(encode(command.name.encode(), *words))
    for _ in range(12):
        found += [encode(b"multi"), encode(b"exec"), encode(b"keys", b"*"), encode(b"scan", b"0")]
    for key in KEYS:
        found += [
            encode(b"expire", key, b"100"),
            encode(b"get", key),
            encode(b"set", key, b"v" * 90),
            encode(b"del", key),
        ]
        found += [encode(b"append", key, b"x" * 50), encode(b"set", key, b"w" * 2000)]
    found.append(encode(b"mset", *(part for key in KEYS for part in (key, b"m" * 70))))
    found.append(encode(b"mget", *KEYS))
    return found


class Machine(Guest):
    """A guest between guard pages, with connections in all states and a store with keys."""

    def __init__(self) -> None:
        super().__init__(MIB)
        self.checked = False
        self.clients = [connect(self, Client(40_000 + n, 6379, iss=100 * n)) for n in range(3)]
        for client in self.clients:
            client.out = b"".join(encode(b"set", key, b"v" * 60) for key in KEYS)
            client.out += encode(b"del", *KEYS[::3])
            while client.out:
                client.hear(self.exchange(*client.say()))
            self.exchange(client.acknowledge())
        _, waiting, part = self.clients
        # Replies that the peer has not acknowledged, and a request that is not whole.
        waiting.out = encode(b"mget", *KEYS)
        self.exchange(*waiting.say())
        part.out = encode(b"set", b"key:1", b"v" * 500)[:200]
        part.hear(self.exchange(*part.say()))
        # One that the guest leaves, and one that leaves the guest while no port was free.
        if self.connections > len(self.clients):
            leaving = connect(self, Client(41_000, 6379))
            leaving.out = encode(b"quit")
            self.exchange(*leaving.say())
            self.clients.append(leaving)
        # Clients with names, a queue, watched keys, and a part of a request that fills no buffer.
        for client, said in zip(self.clients, (b"one", b"two", b"three"), strict=False):
            client.out += encode(b"client", b"setname", said) + encode(b"watch", b"key:1", said)
            client.out += encode(b"multi") + encode(b"get", b"key:1")
            self.exchange(*client.say())
        self.area = self.ram + rings.BUFFERS_AT + self.connections * 2 * BUFFER_BYTES
        self.area_size = self.connections * clients.BYTES_PER_CLIENT
        self.store = self.area + self.area_size
        memory = guarded(len(self.memory))
        memory[:] = self.memory
        self.memory = memory
        self.words = memory.view(np.int64)
        self.bitmap[:] = 0
        self.result = np.zeros(kv.RESULT_SLOTS, np.uint64)

    @property
    def region(self) -> Region:
        return Region(self.memory, self.store, self.ram + self.size - self.store)

    def interesting(self) -> list[int]:
        """Give the addresses of words that lead somewhere, or count something."""
        places = [*range(self.ram, self.ram + 4096, 8)]
        places += [*range(self.store, self.store + kv.SMALLEST_STORE // 8, 8)] * 2
        begin = self.ram + rings.BUCKETS_AT
        places += [at for at in range(begin, self.ram + rings.RX_FRAMES, 8) if self.words[at // 8]]
        blocks = self.ram + rings.BLOCKS_AT
        places += [*range(blocks, blocks + self.connections * rings.BLOCK_BYTES, 8)] * 4
        pool = self.area + self.connections * clients.SLOT_BYTES
        places += [*range(self.area, pool, 8)] * 4
        places += [at for at in range(pool, self.store, 8) if self.words[at // 8]]
        end = self.ram + self.size - 8
        places += [at for at in range(self.store + 2048, end, 8) if self.words[at // 8]][::16]
        for block, (size, _) in self.region.blocks().items():
            places += [*range(block, block + 32, 8), block + size - 8] * 2
        return places

    def frames(self) -> list[bytes]:
        """Give frames that the clients might send next, and some that they would not."""
        found = [Client(42_000 + n, port).syn() for n in range(3) for port in (7, 6379)]
        for client in self.clients:
            for data in (encode(b"get", b"key:1"), encode(b"set", b"key:2", b"z" * 300), b"x"):
                found.append(client.frame(ACK | PSH, client.una, data))
            for flags in (ACK, ACK | FIN, RST, RST | ACK):
                found.append(client.frame(flags, client.una + len(client.out)))
            client.window = 0
            found.append(client.frame(ACK, client.una))
        return found


class Trial:
    """Rounds of changes, each with a seed of its own."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.before = self.machine.memory.copy()
        self.outside = self.machine._around()
        self.places = self.machine.interesting()
        self.entries = list(self.machine.region.blocks())
        self.requests, self.frames = requests(), self.machine.frames()
        #: Requests that look at all keys, or need much memory.
        self.whole = [request for request in self.requests if len(request) > 400]
        self.damages = 0

    def value(self, chance: random.Random, at: int) -> int:
        """Choose what a word becomes."""
        old = int(self.machine.words[at // 8])
        machine = self.machine
        address = chance.choice(
            [
                at, at - 8, at + 8, chance.choice(self.entries), chance.choice(self.entries) + 8,
                chance.choice(self.places), machine.store, machine.ram + machine.size,
                machine.ram + machine.size - chance.choice([8, 16, 24, 32, 40]),
                chance.randrange(machine.store, machine.ram + machine.size) & ~7,
            ]
        )  # fmt: skip
        generation = chance.choice([1, 1, 1, 0, 2, (1 << 23) - 1]) << ADDRESS_BITS
        return chance.choice(
            [
                0, 1, -1, 1 << 62, 1 << 40, 1 << 32, 1 << 31, -(1 << 63), 0xFFFFFFFF, 65536,
                address, generation | address, generation | address, generation, address | 1,
                old + chance.choice([-32, -16, -8, -1, 1, 2, 8, 16, 32]),
                old ^ (1 << chance.randrange(64)), old ^ (1 << chance.randrange(20)),
                chance.randrange(64), chance.randrange(1 << 17), chance.getrandbits(64),
                chance.getrandbits(32) << 32 | chance.getrandbits(10),
            ]
        )  # fmt: skip

    def round(self, seed: int, changes: int) -> None:
        """Change words one after another, and have requests executed after each change."""
        chance, machine = random.Random(seed), self.machine
        machine.memory[:] = self.before
        machine.random = np.random.default_rng(seed)
        machine.now, machine.bugs = 10_000, 0
        machine.jitter, machine.shuffle = chance.choice([(0, 0), (0, 1_000), (2_000, 500)])
        for queue in (machine.receive, machine.transmit):
            queue.ends[:] = 0
        for _ in range(changes):
            if chance.randrange(10):
                at = chance.choice(self.places)
            else:
                at = chance.randrange(machine.ram, machine.ram + machine.size) & ~7
            value = self.value(chance, at) % WORD
            machine.words[at // 8] = value - WORD if value >> 63 else value
            if (at >= machine.store) == (chance.randrange(8) > 0):
                self.execute(chance)
            else:
                self.serve(chance)
            assert machine._around() == self.outside, "written outside of pc.ram"

    def execute(self, chance: random.Random) -> None:
        """Execute requests without the network."""
        for data in (*chance.choices(self.requests, k=2), chance.choice(self.whole)):
            self.ask(data, chance.randrange(self.machine.connections))

    def ask(self, data: bytes, slot: int) -> None:
        """Execute a request of a client, and take all of its reply."""
        machine, memory = self.machine, self.machine.memory
        received = machine.ram + rings.BUFFERS_AT + slot * 2 * BUFFER_BYTES
        replies = received + BUFFER_BYTES
        store = machine.store, machine.ram + machine.size - machine.store
        area = machine.area, machine.area_size, slot
        memory[received : received + len(data)] = np.frombuffer(data, np.uint8)
        at = 0
        for _ in range(MOST_CALLS):
            kv.execute(
                memory, machine.bitmap, *store, *area, received + at, received + len(data),
                replies, replies + BUFFER_BYTES, np.uint64(1), 1, 1, machine.result,
            )  # fmt: skip
            consumed, replied, closed, blocked = map(int, machine.result[:4])
            assert 0 <= replied <= BUFFER_BYTES
            reply = memory[replies : replies + min(replied, 24)].tobytes()
            damaged = reply.startswith(b"-ERR store damaged: ")
            assert not damaged or closed
            self.damages += damaged
            at += consumed
            if closed or not blocked:
                break
        else:
            raise AssertionError("a reply has no end")
        stage = machine.words[(machine.area + slot * clients.SLOT_BYTES + clients.STAGE) // 8]
        assert at == len(data) or stage != 0, "a whole request has been left"
        if closed:
            kv.forget_client(memory, machine.bitmap, *store, *area)

    def serve(self, chance: random.Random) -> None:
        """Have the network's stack take frames and let time pass."""
        machine = self.machine
        machine.now += chance.choice([0, 0, 1, 50, 200, 1_000, 61_000])
        machine.bugs = chance.choice([0] * 30 + [bugs.DOUBLE_EXECUTION])
        for frame in chance.choices(self.frames, k=3):
            machine.receive.put(frame)
        for _ in range(MOST_CALLS):
            machine.call()
            machine.transmit.ends[0] = machine.transmit.ends[1]
            machine.bugs = 0
            if not machine.host[2]:
                break
        else:
            raise AssertionError("the stack has always something to do")


def rounds(first: int, changes: int) -> Iterator[tuple[int, int]]:
    """Give seeds and how many words each round changes."""
    while changes > 0:
        yield first, min(changes, CHANGES_PER_ROUND)
        first, changes = first + 1, changes - CHANGES_PER_ROUND


def main() -> None:
    """Change so many words; the file says which round is under way."""
    first, changes, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as progress:
        trial = Trial()
        for seed, count in rounds(first, changes):
            progress[:] = seed.to_bytes(8, "little")
            signal.alarm(ROUND_SECONDS)
            trial.round(seed, count)
        signal.alarm(0)
    print(f"{changes} words changed: {trial.damages} requests found the store damaged")


if __name__ == "__main__":
    main()
