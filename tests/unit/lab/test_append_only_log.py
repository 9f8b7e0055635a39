"""The check of a store's disk: what it finds in a log, and what it finds missing."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_append_only_file as naive
from colobench.errors import LocalError
from colobench.lab.checker.append_only_log import check_log, read_commands, replay
from colobench.lab.clients.closed_loop import requests
from durable_guest import MIB, DurableGuest
from share import amount


def run_store(seed: int, count: int, guest: DurableGuest | None = None) -> DurableGuest:
    """Let a store execute requests of a client, each in a block of its own."""
    guest = guest or DurableGuest(bytearray(2 * MIB))
    for _, arguments in zip(range(count), requests(seed, seed=seed), strict=False):
        guest.call(*arguments)
        guest.settle()
    return guest


def contents(guest: DurableGuest) -> dict[bytes, bytes]:
    return {key: value for key, (value, _) in guest.contents().items()}


def image(guest: DurableGuest) -> np.ndarray:
    return np.frombuffer(bytes(guest.disk.image), np.uint8).copy()


@settings(max_examples=amount(6, 200), deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.booleans(), st.booleans())
def test_a_whole_log_gives_what_the_store_has(
    seed: int, count: int, empties: bool, rewrites: bool
) -> None:
    guest = run_store(seed, count)
    # Of no model, and of no matter once the store is emptied.
    if empties:
        guest.call(b"SETRANGE", b"0.register:1", b"3", b"x")
        guest.call(b"FLUSHALL")
    if rewrites:
        guest.call(b"BGREWRITEAOF")
    run_store(seed + 1, count, guest)
    verdict = check_log(image(guest), contents(guest))
    assert verdict.right, str(verdict)
    assert verdict.keys == len(contents(guest))
    assert len(naive.load(bytes(guest.disk.image)).keys) == verdict.keys


def test_a_log_that_lacks_an_answered_write_is_told_from_the_store() -> None:
    guest = run_store(1, 5)
    guest.call(b"SET", b"key", b"old")
    guest.settle()
    before = image(guest)
    assert guest.call(b"SET", b"key", b"new") == b"+OK\r\n"
    guest.settle()
    assert check_log(image(guest), contents(guest)).right
    verdict = check_log(before, contents(guest))
    assert verdict.wrong == ((b"key", b"new", b"old"),)
    assert "key: expected new, found old" in str(verdict)
    extra = check_log(image(guest), {})
    assert len(extra.wrong) == len(contents(guest))
    assert "found new" in str(extra) or len(extra.wrong) > 3


def test_a_torn_block_ends_the_log() -> None:
    """Of whatever byte of a block is wrong, it and all that follows are lost."""
    guest = run_store(2, 20)
    places = [at for at, _, _ in naive.blocks(bytes(guest.disk.image))]
    every, chance = list(read_commands(image(guest))), random.Random(3)
    assert len(every) == len(places) > 5
    for number, at in enumerate(places):
        payload = struct.unpack_from("<Q", guest.disk.image, at + 24)[0]
        torn = image(guest)
        torn[at + chance.choice((0, 8, 16, 24, 40, 64 + chance.randrange(payload)))] ^= 1
        left = list(read_commands(torn.copy()))
        assert left == every[:number]
        assert check_log(torn, contents(guest)).right == (replay(left) == contents(guest))
    assert not check_log(torn, contents(guest)).right


def test_a_disk_without_a_log_is_refused() -> None:
    for size in (512, 2 * MIB):
        with pytest.raises(LocalError, match="expected an append-only file"):
            check_log(np.zeros(size, np.uint8), {})


def test_a_command_that_is_not_modelled_is_refused() -> None:
    with pytest.raises(LocalError, match="expected one that can be checked"):
        replay([[b"SET", b"a", b"b"], [b"PEXPIREAT", b"a", b"1"]])
