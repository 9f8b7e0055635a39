"""Streams for the tests of the wire: a small machine, and what a primary would write for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from colobench.kernels import page_records
from colobench.memory.ram import PAGE_SIZE, PageMemory, lay_out
from colobench.wire import savevm
from colobench.wire.format import MigrationCommand, SectionType
from colobench.wire.loadvm import PRECOPY, Incoming, Loaded, Stage, vmdescription_section
from colobench.wire.messages import Message, encode_message
from colobench.wire.ram import RAMRecordState
from colobench.wire.reading import Parser, StreamBuffer, parse_bytes
from colobench.wire.vmstate import Field, State, StateParser, VMStateDescription

MACHINE = "colobench-test"
RAM_SECTION = 2
BLOCKS = lay_out({"pc.ram": 70 * PAGE_SIZE, "vga.vram": 3 * PAGE_SIZE, "pc.rom": PAGE_SIZE})


class _Device(ABC):
    """What the test's two devices have in common."""

    instance_id = 0
    vmstate: VMStateDescription

    @property
    def idstr(self) -> str:
        return self.vmstate.name

    @property
    def version_id(self) -> int:
        return self.vmstate.version_id

    @property
    def minimum_version_id(self) -> int:
        return self.vmstate.minimum_version_id

    @abstractmethod
    def state(self) -> State: ...

    def save(self) -> bytes:
        return self.vmstate.save(self.state())

    def parse(self, version_id: int) -> StateParser:
        return self.vmstate.parse(version_id)

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.idstr,
            "instance_id": self.instance_id,
            "vmsd_name": self.idstr,
            "version": self.version_id,
            "fields": self.vmstate.describe(self.state()),
        }


class Register(_Device):
    """A device with one 32-bit register; versions 2 and 3 load."""

    instance_id = 1
    vmstate = VMStateDescription("register", 3, 2, (Field("value", "u4"),))

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state(self) -> State:
        return {"value": np.array([self.value])}

    def apply(self, state: State) -> None:
        self.value = int(state["value"][0])


class Queue(_Device):
    """A device whose state varies in length: a queue of at most 1000 bytes."""

    vmstate = VMStateDescription(
        "0000:00:02.0/queue",
        1,
        1,
        (Field("length", "u4"), Field("data", "u1", "length", 1000)),
    )

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def state(self) -> State:
        return {"length": np.array([len(self.data)]), "data": np.frombuffer(self.data, np.uint8)}

    def apply(self, state: State) -> None:
        self.data = state["data"].tobytes()


class Primary:
    """The sending side: memory, devices, and what it remembers between sections."""

    def __init__(self) -> None:
        self.memory = PageMemory("primary", BLOCKS)
        self.devices = [Register(7), Queue(b"queued")]
        self.records = RAMRecordState(BLOCKS)

    def close(self) -> None:
        self.memory.close()

    def ram_section(self, kind: SectionType, pages: Sequence[int]) -> bytes:
        return (
            savevm.ram_section_begin(kind, RAM_SECTION)
            + encode_records(self.records, self.memory, pages)
            + savevm.ram_section_finish(RAM_SECTION)
        )

    def device_buffer(self) -> bytes:
        return savevm.device_sections(self.devices, first_section_id=RAM_SECTION + 1)

    def ram_phase(self, pages: Sequence[int]) -> bytes:
        return self.ram_section(SectionType.END, pages) + savevm.EOF

    def checkpoint(self, pages: Sequence[int]) -> bytes:
        """Write all that one checkpoint sends, RAM and device state separated."""
        buffer = self.device_buffer()
        return b"".join(
            [
                encode_message(Message.CHECKPOINT_REQUEST),
                encode_message(Message.VMSTATE_SEND),
                self.ram_phase(pages),
                encode_message(Message.VMSTATE_SIZE, len(buffer)),
                buffer,
            ]
        )

    def migration(self, part: Sequence[int], end: Sequence[int]) -> bytes:
        """Write a whole migration that turns into COLO, from the magic to the vmdescription."""
        return b"".join(
            [
                savevm.stream_header(MACHINE),
                savevm.command(MigrationCommand.ENABLE_COLO),
                savevm.ram_section_start(RAM_SECTION, BLOCKS),
                self.ram_section(SectionType.PART, part),
                self.ram_section(SectionType.END, end),
                self.device_buffer(),
                savevm.vmdescription_section(self.devices),
            ]
        )


class Secondary:
    """The receiving side: memory to receive into, devices, and what it knows of the stream."""

    def __init__(self) -> None:
        self.memory = PageMemory("secondary", BLOCKS)
        self.devices = [Register(), Queue()]
        self.incoming = Incoming(MACHINE, self.memory, self.devices)

    def close(self) -> None:
        self.memory.close()

    def migration(self, at: StreamBuffer) -> Parser[Loaded]:
        """Parse what `Primary.migration` writes."""
        yield from self.incoming.stream_header(at)
        loaded = yield from self.incoming.load_sections(at, PRECOPY)
        yield from vmdescription_section(at)
        return loaded

    def load(self, data: bytes, stage: Stage) -> Loaded:
        return parse_bytes(lambda at: self.incoming.load_sections(at, stage), data)


def encode_records(state: RAMRecordState, memory: PageMemory, pages: Sequence[int]) -> bytes:
    """Encode page records as the transport kernel of the buffered layout does."""
    page_list = np.array(sorted(pages), dtype=np.int32)
    out = np.zeros(len(page_list) * (PAGE_SIZE + 264), dtype=np.uint8)
    progress = np.zeros(2, dtype=np.int64)
    encoded = b""
    for each in state.slices(page_list):
        size = page_records.encode_page_records(
            out,
            memory.array,
            page_list,
            each.begin,
            each.end,
            each.block.first_page,
            each.named,
            each.name,
            progress,
        )
        encoded += out[:size].tobytes()
    return encoded


def fill(memory: PageMemory, pages: Sequence[int], seed: int = 1) -> None:
    """Give each page its own content, all zero for every fourth."""
    for page in pages:
        content = np.random.default_rng([seed, page]).integers(0, 256, PAGE_SIZE, dtype=np.uint8)
        memory.array[page * PAGE_SIZE : (page + 1) * PAGE_SIZE] = content if page % 4 else 0


def marked(memory: PageMemory) -> list[int]:
    """List the pages whose bit is set."""
    return np.flatnonzero(
        np.unpackbits(memory.bitmap.astype("<u8").view(np.uint8), bitorder="little")
    ).tolist()
