"""Device state: what is saved is what is loaded, and nothing that does not fit is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.guest.frame_queue import FrameQueue
from colobench.guest.numba.devices import CPU, NIC, Serial, Timer
from colobench.guest.programs import Program
from colobench.wire.vmstate import Device, Field, State, VMStateDescription, VMStateError

DEVICES: list[type[CPU | Timer | Serial | NIC]] = [CPU, Timer, Serial, NIC]
FRAMES = st.lists(st.binary(min_size=14, max_size=1514), max_size=16)


def feed(parser: Any, data: bytes) -> State:
    """Drive a state parser with `data`, all of which it must want."""
    at = 0
    try:
        wanted = next(parser)
        while True:
            piece = data[at : at + wanted]
            assert len(piece) == wanted, "the parser wants more than there is"
            at += wanted
            wanted = parser.send(piece)
    except StopIteration as stop:
        assert at == len(data)
        state: State = stop.value
        return state


def scramble(device: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    device.registers[:] = random.integers(1, 2**63, len(device.registers), dtype=np.uint64)
    if isinstance(device, CPU):
        device["program"] = random.choice([each.number for each in Program if not each.needs_kvm])
    if isinstance(device, Serial):
        device.scrollback[:] = random.integers(0, 256, len(device.scrollback), dtype=np.uint8)


@pytest.mark.parametrize("kind", DEVICES)
@given(seed=st.integers(0, 2**32))
def test_loaded_device_saves_what_it_was_loaded_with(
    kind: type[CPU | Timer | Serial | NIC], seed: int
) -> None:
    device, other = kind(), kind()
    scramble(device, seed)
    saved = device.save()
    other.apply(feed(other.parse(device.version_id), saved))
    assert other.save() == saved


@given(FRAMES, FRAMES)
def test_nic_carries_its_queues(received: list[bytes], sent: list[bytes]) -> None:
    nic, other = NIC(), NIC()
    for name, frames in (("receive", received), ("transmit", sent)):
        for frame in frames:
            assert nic.queues[name].put(frame)
    other.apply(feed(other.parse(1), nic.save()))
    assert other.queues["receive"].list() == received
    assert other.queues["transmit"].list() == sent
    assert other.save() == nic.save()


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_other_version_is_refused(kind: type[CPU | Timer | Serial | NIC], version: int) -> None:
    with pytest.raises(VMStateError, match=f"expected version 1 to 1, found {version}"):
        next(kind().parse(version))


def test_parsing_changes_no_device() -> None:
    for kind in DEVICES:
        device, other = kind(), kind()
        scramble(device, 1)
        before = other.save()
        feed(other.parse(1), device.save())
        assert other.save() == before


def damaged_nic(offset: int, value: int) -> bytes:
    nic = NIC()
    nic.queues["receive"].put(bytes(60))
    saved = bytearray(nic.save())
    saved[offset : offset + 4] = value.to_bytes(4, "big")
    return bytes(saved)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (24, 65, "expected at most 64, found 65"),
        (24, 2**32 - 1, "expected at most 64"),
        (32, 2**32 - 1, "expected at most 96896"),
        (32, 59, "expected the sum of the frames' lengths, 60, found 59"),
        (28, 13, "found 13"),
    ],
)
def test_nic_lengths_are_checked_before_anything_is_read(
    offset: int, value: int, words: str
) -> None:
    saved = damaged_nic(offset, value)
    if "13" in words:
        saved = saved[:32] + (13).to_bytes(4, "big") + saved[36 : 36 + 13] + saved[96:]
    nic = NIC()
    parser = nic.parse(1)

    def drive() -> None:
        at, wanted = 0, next(parser)
        while True:
            assert wanted <= 96896
            at, wanted = at + wanted, parser.send((saved + bytes(100000))[at : at + wanted])

    with pytest.raises((VMStateError, StopIteration)) as caught:
        drive()
    assert words in str(caught.value)


def test_timer_without_a_period_is_refused() -> None:
    with pytest.raises(VMStateError, match="period_ns"):
        feed(Timer().parse(1), bytes(32))


def test_description_adds_up_to_what_is_saved() -> None:
    nic = NIC()
    nic.queues["transmit"].put(bytes(70))
    device: Device
    for device in (CPU(), Timer(), Serial(), nic):
        fields = device.describe()["fields"]
        assert sum(field["size"] * field.get("array_len", 1) for field in fields) == len(
            device.save()
        )


def test_full_queue_takes_no_frame_and_keeps_its_own() -> None:
    queue = FrameQueue()
    frames = [bytes([n]) * 60 for n in range(65)]
    assert [queue.put(frame) for frame in frames] == [True] * 64 + [False]
    assert queue.list() == frames[:64]
    with pytest.raises(LocalError, match="expected 14 to 1514 bytes, found 13"):
        queue.put(bytes(13))


def test_state_of_a_wrong_length_is_not_saved() -> None:
    description = VMStateDescription("thing", 1, 1, (Field("words", "u4", 3),))
    with pytest.raises(LocalError, match="expected 3 elements, found 2"):
        description.save({"words": np.zeros(2, np.uint32)})
