"""Damage in guest RAM: an error that names it, and never an address outside of the store."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from colobench.guest import append_only_file as aof
from colobench.guest import clients, heap, keyspace, region, rings
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.heap import CLASS_BITS, FIRST_BLOCK, LISTS, TOTAL_BYTES
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from naive_kv import encode, siphash
from places import SUPPORT
from share import amount
from store_guest import RECEIVED, STORE, Guest
from tcp_peer import PAGE, Client

HEAP = STORE + region.HEAP
CHAIN, ENTRY = b"-ERR store damaged: a chain", b"-ERR store damaged: the lengths"
HEADER, BLOCK = b"-ERR store damaged: its header", b"-ERR store damaged: a block"
FREE_LIST = b"-ERR store damaged: a list of its free memory"


class Damaged(Guest):
    """A store with a few keys, whose words are changed behind its back."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(8):
            assert self.call(b"set", b"%d" % number, b"v" * 100) == b"+OK\r\n"
        assert self.call(b"del", b"3", b"5") == b":2\r\n"

    def put(self, at: int, word: int) -> None:
        self.memory[at : at + 8] = np.frombuffer((word % 2**64).to_bytes(8, "little"), np.uint8)

    def link(self, key: bytes) -> int:
        """Give the address of the link to a key's entry."""
        entry = self.entry(key)
        return next(
            at
            for at in range(STORE, STORE + self.size, 8)
            if self.region.word(at) & (1 << 40) - 1 == entry and self.region.word(at) >> 40
        )

    def entry(self, key: bytes) -> int:
        return self.region.entries()[key][0] + region.HEADER_BYTES

    def tagged(self, entry: int) -> int:
        return self.region.word(STORE + keyspace.GENERATION) << 40 | entry

    def free_block(self) -> int:
        return min(at for at, (_, free) in self.region.blocks().items() if free)

    def reply(self, *arguments: bytes) -> bytes:
        """Send a request, and hold that an error ended the connection if there was one."""
        reply = self.call(*arguments)
        assert self.closed == reply.startswith(b"-ERR store damaged: ")
        assert self.region.word(STORE + region.DAMAGE) == 0
        self.closed = False
        return reply


OUTSIDE = [-8, 0, 8, 2**39, 2**40 - 8, STORE, STORE - 4096, RECEIVED]


@pytest.mark.parametrize("word", [keyspace.SIZE, keyspace.CHAINS, keyspace.GENERATION])
@pytest.mark.parametrize("value", [0, 1 << 62, 1 << 40, -1])
def test_a_header_that_is_not_of_this_region_is_refused(word: int, value: int) -> None:
    guest = Damaged()
    guest.put(STORE + word, value)
    for request in ([b"set", b"a", b"b"], [b"get", b"1"], [b"flushall"], [b"ping"]):
        assert guest.reply(*request).startswith(HEADER)


@pytest.mark.parametrize("word", [FIRST_BLOCK, TOTAL_BYTES])
def test_a_heap_that_says_it_lies_elsewhere_is_refused(word: int) -> None:
    guest = Damaged()
    guest.put(HEAP + word, 1 << 40)
    assert guest.reply(b"get", b"1").startswith(HEADER)


@pytest.mark.parametrize("target", OUTSIDE)
def test_a_chain_that_leads_out_of_the_store_is_an_error(target: int) -> None:
    guest = Damaged()
    guest.put(guest.link(b"1"), guest.tagged(target % 2**40))
    for request in ([b"get", b"1"], [b"set", b"1", b"x"], [b"del", b"1"], [b"append", b"1", b"x"]):
        expected = CHAIN if target % 2**40 else (b"$-1", b"+OK", b":1", b":1")
        assert guest.reply(*request).startswith(expected)


def test_a_chain_that_is_a_ring_ends_and_other_chains_go_on() -> None:
    guest = Damaged()
    entry = guest.entry(b"1")
    chain = guest.link(b"1")
    # A key that is in the same chain, and is not there.
    other = next(
        b"%d" % number
        for number in range(10**6)
        if chain_of(guest, b"%d" % number) == chain and number != 1
    )
    guest.put(entry + region.LINK, guest.tagged(entry))
    for request in ([b"get", other], [b"set", other, b"x"], [b"del", other], [b"mset", other, b""]):
        assert guest.reply(*request).startswith(CHAIN)
    assert guest.reply(b"get", b"1") == guest.reply(b"get", b"2")
    assert guest.reply(b"flushall") == b"+OK\r\n"
    assert guest.reply(b"set", other, b"x") == b"+OK\r\n"
    assert guest.region.check() == {other: b"x"}


def chain_of(guest: Guest, key: bytes) -> int:
    secret = tuple(
        guest.region.word(STORE + word) for word in (keyspace.SECRET_0, keyspace.SECRET_1)
    )
    chains = guest.region.word(STORE + keyspace.CHAINS)
    return STORE + keyspace.SUPERBLOCK_BYTES + 8 * (siphash(key, secret) % chains)


@pytest.mark.parametrize("lengths", [-1, 1 << 62, 2**31, 1000 << 32 | 1, 1 << 32 | 4096])
def test_lengths_beyond_their_block_are_an_error(lengths: int) -> None:
    guest = Damaged()
    guest.put(guest.entry(b"1") + region.LENGTHS, lengths)
    for request in ([b"get", b"1"], [b"set", b"1", b"x" * 3000], [b"del", b"1"]):
        assert guest.reply(*request).startswith(ENTRY)


@pytest.mark.parametrize("header", [0, 16, 1 << 40, 1 << 62, -16, heap.FREE | 128])
def test_a_block_of_an_impossible_size_is_an_error(header: int) -> None:
    guest = Damaged()
    guest.put(guest.entry(b"1") - region.HEADER_BYTES, header)
    for request in ([b"get", b"1"], [b"set", b"1", b"x" * 3000], [b"del", b"1"]):
        assert guest.reply(*request).startswith(ENTRY)


@pytest.mark.parametrize("target", OUTSIDE)
@pytest.mark.parametrize("place", ["head", "next", "previous", "last"])
def test_a_list_of_free_memory_that_leads_astray_is_an_error(place: str, target: int) -> None:
    guest = Damaged()
    block = guest.free_block()
    size = guest.region.blocks()[block][0]
    number = next(n for n, members in guest.region.lists().items() if block in members)
    offsets: dict[str, Callable[[], int]] = {
        "head": lambda: HEAP + LISTS + 8 * number,
        "next": lambda: block + 8,
        "previous": lambda: block + 16,
        "last": lambda: block + size - 8,
    }
    at = offsets[place]()
    if guest.region.word(at) == target % 2**64:
        return
    guest.put(at, target)
    replies = [guest.reply(b"set", b"x%d" % n, b"v" * 100) for n in range(3)]
    replies += [guest.reply(b"del", b"%d" % n) for n in range(8)]
    assert any(reply.startswith((FREE_LIST, BLOCK)) for reply in replies)


@pytest.mark.parametrize("first", range(8))
def test_pieces_of_memory_that_overlap_lead_nowhere(first: int) -> None:
    guest = Guest()
    keys = [b"%d" % number for number in range(40)]
    for key in keys:
        guest.call(b"set", key, b"v" * 60)
    block = guest.region.entries()[keys[first]][0]
    size = sorted(at for at in guest.region.blocks() if at > block)[20] - block
    header = size | int(guest.memory[block]) & heap.AFTER_FREE
    guest.memory[block : block + 8] = np.frombuffer(header.to_bytes(8, "little"), np.uint8)
    # Now its memory is that of its neighbours, too; `Guest` holds that nothing outside is written.
    assert guest.call(b"del", keys[first]) == b":1\r\n"
    for value in (b"", b"m" * 70, b"m" * 700, b"\xff" * 90):
        for request in (
            [b"mset", *(part for key in reversed(keys) for part in (key, value))],
            [b"append", keys[first + 1], value],
            [b"set", keys[first + 2], value],
            [b"incr", b"n%d" % first],
            [b"mget", *keys[:20]],
            [b"del", *keys[::5]],
        ):
            assert guest.call(*request)[:1] in b"+-:*"
            guest.closed = False


def test_bits_of_lists_that_are_empty_are_an_error() -> None:
    guest = Damaged()
    for doubling in range(heap.DOUBLINGS):
        guest.put(HEAP + CLASS_BITS + 8 * doubling, 0)
    assert guest.reply(b"set", b"new", b"v" * 5000).startswith(FREE_LIST)


def test_an_error_that_lacks_room_waits_for_it() -> None:
    guest = Damaged()
    guest.put(guest.link(b"1"), guest.tagged(8))
    guest.waiting = encode(b"get", b"1")
    assert guest.execute(20)[0] == b""
    assert guest.blocked
    assert not guest.closed
    assert guest.execute()[0].startswith(CHAIN)
    assert guest.closed


def ask(machine: Machine, client: Client, frames: list[bytes]) -> None:
    """Give a running machine's NIC frames, and hear what it answers."""
    for frame in frames:
        assert machine.nic.queues["receive"].put(frame)
    machine.network.wake()
    answers: list[bytes] = []
    while not answers:
        assert select.select([machine.network.kick_fd], [], [], 200)[0], "the guest says nothing"
        os.eventfd_read(machine.network.kick_fd)
        answers = machine.nic.queues["transmit"].take_all()
    client.hear(answers)


def call(machine: Machine, client: Client, *words: bytes) -> bytes:
    client.out, before = encode(*words), len(client.heard)
    while not client.heard[before:].endswith(b"\r\n"):
        ask(machine, client, client.say())
    return client.heard[before:]


@pytest.mark.parametrize("damage", ["CHAINS", "SIZE", "ring", "free memory"])
def test_machine_with_a_broken_store_answers_goes_on_and_can_be_stopped(damage: str) -> None:
    size = 4 << 20
    machine = Machine(GuestSettings(size, Program.KV))
    try:
        words = machine.ram.array.view(np.uint64)
        ram = machine.ram.blocks[0].first_page * PAGE
        connections = min(rings.MAX_CONNECTIONS, size // rings.BYTES_PER_CONNECTION)
        area = ram + rings.BUFFERS_AT + connections * 2 * BUFFER_BYTES
        store = area + connections * clients.BYTES_PER_CLIENT
        machine.start()
        client = Client(40_000, 6379)
        ask(machine, client, [client.syn()])
        assert call(machine, client, b"set", b"a", b"b") == b"+OK\r\n"
        machine.stop()
        chains = int(words[(store + keyspace.CHAINS) // 8])
        table = words[(store + region.SUPERBLOCK_BYTES) // 8 :][:chains]
        link = int(table[np.flatnonzero(table)[0]])
        if damage == "ring":
            table[:] = link
            words[((link & (1 << 40) - 1) + region.LINK) // 8] = link
        elif damage == "free memory":
            lists = (store + region.HEAP + LISTS) // 8
            words[lists : lists + heap.DOUBLINGS * heap.CLASSES] = 1 << 39
        else:
            words[(store + getattr(keyspace, damage)) // 8] = 1 << 62
        machine.start()
        reply = call(machine, client, b"set", b"new", b"v" * 100)
        assert reply.startswith(b"-ERR store damaged: ")
        assert client.peer_fin
        # The guest goes on.
        other = Client(40_001, 6379)
        ask(machine, other, [other.syn()])
        expected = b"-ERR store damaged" if damage in ("CHAINS", "SIZE") else b"+PONG\r\n"
        assert call(machine, other, b"ping").startswith(expected)
        machine.stop()
    finally:
        machine.close()


@pytest.mark.parametrize("disks", [(), ("/never-opened,size=8M",)])
def test_the_append_only_file_lies_where_pc_ram_says_and_nowhere_else(
    disks: tuple[str, ...],
) -> None:
    size = 4 << 20
    machine = Machine(GuestSettings(size, Program.KV, disks=disks))
    try:
        words = machine.ram.array.view(np.int64)
        log = machine.ram.blocks[0].first_page * PAGE
        area = aof.area_bytes(size) if disks else 0
        connections = (size - area) // rings.BYTES_PER_CONNECTION
        stack = connections * (2 * BUFFER_BYTES + clients.BYTES_PER_CLIENT) + rings.BUFFERS_AT
        store = log + area + stack
        places = [(log + word) // 8 for word in (aof.MAGIC, aof.CAPACITY)] if disks else []
        places.append((store + aof.LOG) // 8)
        right = words[places].copy()
        # A buffer that reaches into the stack, an area among the connections' buffers, or none.
        for wrong in ((store - log) // 2, store - log - PAGE, 0):
            words[places] = wrong
            machine.start()
            client = Client(40_000 + wrong % 1000, 6379)
            ask(machine, client, [client.syn()])
            reply = call(machine, client, b"set", b"a", b"b")
            assert reply == (
                b"-LOADING Redis is loading the dataset in memory\r\n" if disks else b"+OK\r\n"
            )
            machine.stop()
            assert words[places].tolist() == right.tolist()
    finally:
        machine.close()


#: How many words a run changes; the long run takes a minute or two.
CHANGES = amount(30_000, 1_000_000)


@pytest.mark.timeout(3600)
def test_no_change_of_guest_ram_leads_outside_of_it_or_has_no_end(tmp_path: Path) -> None:
    first = int.from_bytes(os.urandom(4), "little")
    script = SUPPORT / "damage.py"
    progress = tmp_path / "round"
    done = subprocess.run(
        [sys.executable, str(script), str(first), str(CHANGES), str(progress)],
        capture_output=True,
        text=True,
        check=False,
    )
    seed = int.from_bytes(progress.read_bytes(), "little") if progress.exists() else first
    assert done.returncode == 0, (
        f"round of seed {seed} ended with {done.returncode}; again: "
        f"python tests/damage.py {seed} 16 FILE\n{done.stderr[-4000:]}"
    )
    print(done.stdout)
    assert done.stdout.startswith(f"{CHANGES} words changed: ")
