"""Rings and connections in guest RAM that contradict themselves: what becomes of them."""

from __future__ import annotations

import numpy as np
import pytest

from colobench.guest import connections, rings
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.net.frame import ACK, RST
from tcp_peer import Client, Guest, connect, segments

WORDS = [
    "STATE",
    "MAC",
    "SND_UNA",
    "SND_NXT",
    "SND_MAX",
    "SND_WND",
    "SND_WL1",
    "SND_WL2",
    "SND_MSS",
    "IRS",
    "RCV_NXT",
    "RCV_WND",
    "RECEIVED_BEGIN",
    "RECEIVED_END",
    "REPLY_BEGIN",
    "REPLY_END",
    "RETRIES",
    "FLAGS",
]
FAR = [-1, 1 << 62, -(1 << 63), 1 << 50]


def put(guest: Guest, at: int, value: int) -> None:
    guest.memory[at : at + 8] = np.frombuffer((value % 2**64).to_bytes(8, "little"), np.uint8)


def get(guest: Guest, at: int) -> int:
    return int.from_bytes(guest.memory[at : at + 8].tobytes(), "little")


def echoes(guest: Guest, client: Client, data: bytes = b"hello") -> bool:
    """Tell whether a client gets back what it says."""
    heard, client.out = len(client.heard), data
    for _ in range(4):
        client.hear(guest.exchange(*client.say()))
        client.hear(guest.exchange(client.acknowledge()))
        client.hear(guest.tick(500))
    return client.heard[heard:] == data and not client.reset


def three(guest: Guest) -> list[Client]:
    return [connect(guest, Client(40_000 + number)) for number in range(3)]


@pytest.mark.parametrize("value", FAR)
@pytest.mark.parametrize("word", WORDS)
def test_a_connection_that_contradicts_itself_is_reset_and_the_others_go_on(
    word: str, value: int
) -> None:
    guest = Guest()
    clients = three(guest)
    put(guest, guest.block(clients[1].connection) + getattr(connections, word), value)
    assert not echoes(guest, clients[1])
    assert clients[1].reset
    assert guest.counter("connections_damaged") == 1
    assert echoes(guest, clients[0])
    assert echoes(guest, clients[2])
    # All four places can be had.
    more = [connect(guest, Client(41_000 + number)) for number in range(2)]
    assert all(echoes(guest, client) for client in more)


def test_a_silent_peer_of_a_broken_connection_is_asked_and_then_reset() -> None:
    guest = Guest()
    clients = three(guest)
    broken = clients[1]
    put(guest, guest.block(broken.connection) + connections.REPLY_END, 1 << 40)
    # It waits for nothing and says nothing; another's timer, or frame, finds the damage.
    put(guest, guest.block(broken.connection) + connections.DEADLINE, 1)
    put(guest, guest.ram + rings.NEXT_DEADLINE, 1)
    (question,) = segments(guest.exchange())
    assert question.connection == broken.connection.reversed()
    assert question.flags == ACK
    assert broken.rcv is not None
    assert question.seq == broken.rcv - 1
    (answer,) = segments(guest.exchange(broken.acknowledge()))
    assert (answer.flags, answer.seq) == (RST, broken.rcv)


@pytest.mark.parametrize("link", [*FAR, 0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["link", "head"])
def test_chains_that_lead_astray_are_made_anew(place: str, link: int) -> None:
    guest = Guest()
    clients = three(guest)
    at = guest.block(clients[1].connection) + connections.LINK
    if place == "head":
        number = (at - guest.ram - rings.BLOCKS_AT) // rings.BLOCK_BYTES + 1
        heads = range(guest.ram + rings.BUCKETS_AT, guest.ram + rings.READY_AT, 8)
        at = next(head for head in heads if get(guest, head) == number)
    put(guest, at, link)
    results = [echoes(guest, client) for client in clients]
    # A chain that ends too early says nothing of it: then that one is reset.
    assert results[0]
    assert results[2]
    assert results[1] or clients[1].reset
    assert echoes(guest, connect(guest, Client(41_000)))


@pytest.mark.parametrize("link", [*FAR, 1, 2, 3, 5])
def test_a_list_of_free_places_that_leads_astray_is_made_anew(link: int) -> None:
    guest = Guest()
    clients = three(guest)
    put(guest, guest.ram + rings.FREE, link)
    assert echoes(guest, connect(guest, Client(41_000)))
    assert all(echoes(guest, client) for client in clients)


@pytest.mark.parametrize("value", [*FAR, 65, 1 << 20])
@pytest.mark.parametrize(
    "word",
    ["RX_TAKEN", "RX_FILLED", "TX_TAKEN", "TX_FILLED", "READY_TAKEN", "READY_FILLED"],
)
def test_rings_whose_counters_cannot_be_are_emptied(word: str, value: int) -> None:
    guest = Guest()
    clients = three(guest)
    assert all(echoes(guest, client) for client in clients)
    at = guest.ram + getattr(rings, word)
    put(guest, at, get(guest, at) + value)
    guest.exchange()
    assert not guest.host[2]
    assert all(echoes(guest, client) for client in clients)


@pytest.mark.parametrize("value", FAR)
@pytest.mark.parametrize("word", ["DUE", "DEADLINE", "CHALLENGED"])
def test_times_that_cannot_be_are_over(word: str, value: int) -> None:
    guest = Guest()
    clients = three(guest)
    put(guest, guest.block(clients[1].connection) + getattr(connections, word), value)
    put(guest, guest.ram + rings.NEXT_DEADLINE, value)
    assert all(echoes(guest, client) for client in clients)


def test_a_peer_that_says_the_program_is_kv_where_ram_is_too_small_breaks_nothing() -> None:
    machine = Machine(GuestSettings(ram_bytes=64 << 10, program=Program.IDLE))
    try:
        before = machine.ram.array.copy()
        machine.cpu["program"] = Program.KV.number
        machine.start()
        machine.network.wake()
        machine.stop()
        assert (machine.ram.array == before).all()
    finally:
        machine.close()
