"""Loader that learns machines: recordings of a real QEMU are read whole, and wrong ones refused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from colobench.memory.ram import PageMemory, lay_out
from colobench.peers.dataset import read_manifest, read_recording
from colobench.peers.recordings import CHECKPOINTS
from colobench.wire import loadvm, savevm
from colobench.wire.dissect import dissect
from colobench.wire.errors import DeviceStateError, RAMError, StreamError
from colobench.wire.format import BE32, counted_string, section_footer
from colobench.wire.grammar import SectionIdentity
from colobench.wire.learning import PEER_RAM, LearningLoader
from colobench.wire.loadvm import COLO_DEVICES, PRECOPY, Loaded, vmdescription_section
from colobench.wire.messages import Message, message
from colobench.wire.ram import encode_block_list, learn_block_list
from colobench.wire.reader import VMDESCRIPTION_LIMIT
from colobench.wire.reading import Parser, Parsing, StreamBuffer, parse_bytes, sized_bytes
from places import CLONE
from share import SEED, amount

DIRECTORY = CLONE / "datasets/qemu"
ENTRIES = {entry.name: entry for entry in read_manifest(DIRECTORY)}
SESSIONS = [name for name, entry in ENTRIES.items() if entry.way == "colo"]
RAM_LIMIT = 64 << 20


@cache
def recording(name: str) -> bytes:
    file = ENTRIES[name].files[0]
    return read_recording(DIRECTORY / file["name"], file["sha256"])


class Session:
    """All parts of a session, loaded in their order."""

    def __init__(self, memories: dict[Any, PageMemory]) -> None:
        self._memories = memories
        self.loader = LearningLoader(self._make_memory, RAM_LIMIT)
        self.loaded: list[Loaded] = []

    def _make_memory(self, sizes: Mapping[str, int]) -> PageMemory:
        self.key = tuple(sizes.items())
        if self.key not in self._memories:
            self._memories[self.key] = PageMemory("learnt", lay_out(sizes))
        return self._memories[self.key]

    def run(self, data: bytes, piece: int = 1 << 20) -> None:
        buffer, place = StreamBuffer(), 0

        def run(parser: Parser[Any]) -> Any:
            nonlocal place
            parsing = Parsing(parser, buffer)
            while not parsing.step():
                if place >= len(data):
                    raise parsing.ended()
                buffer.feed(data[place : place + piece])
                place += piece
            return parsing.value

        run(self.loader.stream_header(buffer))
        self.loaded.append(run(self.loader.load_sections(buffer, PRECOPY)))
        run(vmdescription_section(buffer, size_limit=VMDESCRIPTION_LIMIT))
        while len(buffer) or place < len(data):
            found, value = run(message(buffer))
            if found is Message.VMSTATE_SEND:
                self.loaded.append(run(self.loader.load_sections(buffer, PEER_RAM)))
            elif value is not None:
                self.sized(run(sized_bytes(value)), buffer.offset - value)

    def sized(self, data: bytes, offset: int) -> None:
        self.loaded.append(
            parse_bytes(lambda at: self.loader.load_sections(at, COLO_DEVICES), data, offset=offset)
        )


@pytest.fixture
def memories() -> Any:
    made: dict[Any, PageMemory] = {}
    yield made
    for memory in made.values():
        memory.close()


@pytest.mark.parametrize("piece", [997, 1 << 20])
@pytest.mark.parametrize("name", SESSIONS)
def test_session_is_loaded_whole(name: str, piece: int, memories: dict[Any, PageMemory]) -> None:
    session = Session(memories)
    session.run(recording(name), piece)
    migration, *parts = session.loaded
    assert len(parts) == 2 * CHECKPOINTS
    assert session.loader.machine == ("pc-q35-7.2" if "q35" in name else "pc-i440fx-7.2")
    keys = [(state.idstr, state.instance_id) for state in migration.opaque_states]
    for buffer in parts[1::2]:
        assert [(state.idstr, state.instance_id) for state in buffer.opaque_states] == keys
    described = [
        (item.title, item.length)
        for item in dissect(recording(name), conversation=True)
        if item.kind == "payload"
    ]
    assert [title for title, _ in described[: len(keys)]] == [idstr for idstr, _ in keys]
    for state, (_, length) in zip(migration.opaque_states, described, strict=False):
        # Type, section id, length, idstr, instance id, version id; then the footer.
        assert len(state.data) == 5 + 1 + len(state.idstr) + 8 + length + 5


def device_buffer() -> bytes:
    data = recording("colo-pc")
    size = next(item for item in dissect(data, conversation=True) if item.title == "VMSTATE_SIZE")
    begin = size.offset + size.length
    return data[begin : begin + int(size.detail.split()[0])]


def test_no_value_of_a_byte_that_can_end_a_section_splits_a_buffer_wrongly(
    memories: dict[Any, PageMemory],
) -> None:
    whole = device_buffer()
    for value in range(256):
        # The last byte of the first device's first field follows the processor's clock.
        place = 5 + 1 + 5 + 8 + 7
        data = whole[:place] + bytes([value]) + whole[place + 1 :]
        session = Session(memories)
        session.sized(data, 0)
        (loaded,) = session.loaded
        assert b"".join(state.data for state in loaded.opaque_states) + savevm.EOF == data
        assert len(loaded.opaque_states) == 31


class CountingBuffer(StreamBuffer):
    """A buffer that counts the bytes that are copied to be looked at."""

    copied = 0

    def peek(self, count: int, skip: int = 0) -> bytes:
        self.copied += count - skip
        return super().peek(count, skip)


END = bytes.fromhex("7e 00000007 00 06 00000010 7b")


def take_payload(data: bytes, piece: int) -> tuple[bytes, int]:
    """Take the payload of a migration's device 7; give it, and the number of bytes copied."""
    loader, buffer = (
        LearningLoader(lambda sizes: pytest.fail("no RAM"), RAM_LIMIT),
        CountingBuffer(),
    )
    device = SectionIdentity(7, "device", 0, 1)
    parsing = Parsing(loader.payload(buffer, 7, device, PRECOPY), buffer)
    for place in range(0, len(data), piece):
        buffer.feed(data[place : place + piece])
        if parsing.step():
            return parsing.value, buffer.copied
    raise parsing.ended()


def test_devices_are_not_copied_again_whenever_some_bytes_arrive() -> None:
    payload = bytes(1 << 20)
    found, copied = take_payload(payload + END, 4096)
    assert found == payload
    assert copied < 3 * len(payload)
    # An end that arrives byte by byte is seen at its last byte.
    assert take_payload(payload[:100] + END, 1)[0] == payload[:100]


def test_blocks_that_would_need_far_more_memory_than_their_bytes_are_refused() -> None:
    def block_list(count: int) -> bytes:
        return encode_block_list(lay_out({f"block{i}": 4096 for i in range(count)}))

    def learn(data: bytes) -> dict[str, int]:
        return parse_bytes(lambda at: learn_block_list(at, RAM_LIMIT), data)

    assert len(learn(block_list(130))) == 130
    with pytest.raises(RAMError, match="33804288 up to block"):
        learn(block_list(131))


def test_versions_that_always_change_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadvm, "_IDENTIFIED_LIMIT", 5)
    loader = LearningLoader(lambda sizes: PageMemory("none", lay_out(sizes)), RAM_LIMIT)
    for version in range(9):
        section = b"\4" + BE32.pack(3) + counted_string("d") + BE32.pack(0) + BE32.pack(version)
        data = section + b"state" + section_footer(3) + savevm.EOF
        [state] = parse_bytes(lambda at: loader.load_sections(at, COLO_DEVICES), data).opaque_states
        assert state.data == data[:-1]
    assert len(loader._identified) == 5


def test_what_looks_like_many_ends_of_the_devices_is_refused() -> None:
    with pytest.raises(DeviceStateError, match="found 17 that look so"):
        take_payload(END.replace(b"\x07", b"\x08") * 100, 4096)


def test_changed_session_is_loaded_or_refused_by_a_stream_error(
    memories: dict[Any, PageMemory],
) -> None:
    chance = random.Random(SEED)
    refused: list[StreamError] = []
    inputs = amount(25, 5000)
    for _ in range(inputs):
        data = bytearray(recording(chance.choice(SESSIONS)))
        for _ in range(chance.randrange(1, 4)):
            at = chance.choice((chance.randrange(len(data)), chance.randrange(400)))
            data[at : at + chance.choice((1, 2, 8))] = chance.choice(
                (b"", b"\0", b"\xff" * 8, b"\x7e", chance.randbytes(4))
            )
        try:
            Session(memories).run(bytes(data))
        except StreamError as error:
            refused.append(error)
    assert len(refused) > inputs // 4
    for error in refused:
        assert error.offset >= 0
        assert error.expected
        assert error.found


def test_device_states_without_an_end_are_refused_in_bounded_memory(
    memories: dict[Any, PageMemory],
) -> None:
    data = recording("colo-pc")
    items = dissect(data, conversation=True)
    first = next(item for item in items if item.kind == "payload")
    with pytest.raises(StreamError, match="devices of the migration: expected sections, EOF"):
        Session(memories).run(data[: first.offset] + bytes(17 << 20))
