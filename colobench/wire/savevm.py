"""Encoders of the migration stream: they take values and return bytes.

They do not encode page records. A kernel moves these from guest memory to the socket (or the
buffer), between the bytes of `ram_section_begin` and `ram_section_finish`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colobench.memory.ram import RAMBlock
from colobench.wire.agreement import encode_agreement
from colobench.wire.format import (
    BE32,
    BE64,
    COMMAND_HEADER,
    MAGIC,
    RAM_IDSTR,
    RAM_INSTANCE_ID,
    RAM_VERSION_ID,
    SECTION,
    SECTION_IDENTITY,
    VERSION,
    MigrationCommand,
    RAMFlag,
    SectionType,
    counted_string,
    section_footer,
)
from colobench.wire.ram import encode_block_list
from colobench.wire.vmdescription import vmdescription
from colobench.wire.vmstate import Device

EOF = bytes([SectionType.EOF])
#: Our section ids; a receiver accepts any id that a START or FULL section announces.
RAM_SECTION_ID = 2
DEVICE_SECTION_ID = 3


def stream_header(machine: str, settings: Mapping[str, Any] | None = None) -> bytes:
    """Encode the stream's first part: magic, version, and CONFIGURATION.

    Parameters
    ----------
    machine
        The machine type.
    settings
        Settings, by name, that both nodes must share; None for a stream that a real QEMU can read.
    """
    name = machine.encode()
    header = BE32.pack(MAGIC) + BE32.pack(VERSION)
    header += SECTION.pack(SectionType.CONFIGURATION, len(name)) + name
    return header if settings is None else header + encode_agreement(settings)


def command(number: MigrationCommand, data: bytes = b"") -> bytes:
    """Encode a command with its data."""
    return bytes([SectionType.COMMAND]) + COMMAND_HEADER.pack(number, len(data)) + data


@functools.lru_cache
def _section_header(
    kind: SectionType, section_id: int, idstr: str, instance_id: int, version_id: int
) -> bytes:
    return (
        SECTION.pack(kind, section_id)
        + counted_string(idstr)
        + SECTION_IDENTITY.pack(instance_id, version_id)
    )


def ram_section_start(section_id: int, blocks: Sequence[RAMBlock]) -> bytes:
    """Encode RAM's START section, which lists the blocks."""
    return (
        _section_header(SectionType.START, section_id, RAM_IDSTR, RAM_INSTANCE_ID, RAM_VERSION_ID)
        + encode_block_list(blocks)
        + section_footer(section_id)
    )


def ram_section_begin(kind: SectionType, section_id: int) -> bytes:
    """Encode the bytes before the page records of a PART or END section."""
    return SECTION.pack(kind, section_id)


def ram_section_multifd(kind: SectionType, section_id: int) -> bytes:
    """Encode a whole PART or END section whose pages are sent on the multifd channels."""
    flush = BE64.pack(RAMFlag.MULTIFD_FLUSH)
    return ram_section_begin(kind, section_id) + flush + ram_section_finish(section_id)


def ram_section_finish(section_id: int) -> bytes:
    """Encode the bytes after the page records of a section: EOS and the footer."""
    return BE64.pack(RAMFlag.EOS) + section_footer(section_id)


def device_section(device: Device, section_id: int) -> bytes:
    """Encode a device's FULL section."""
    header = _section_header(
        SectionType.FULL, section_id, device.idstr, device.instance_id, device.version_id
    )
    return header + device.save() + section_footer(section_id)


def device_sections(devices: Iterable[Device], first_section_id: int) -> bytes:
    """Encode each device's FULL section, then EOF: a checkpoint's device buffer."""
    sections = [
        device_section(device, section_id)
        for section_id, device in enumerate(devices, start=first_section_id)
    ]
    return b"".join([*sections, EOF])


def vmdescription_section(devices: Iterable[Device]) -> bytes:
    """Encode the VMDESCRIPTION that follows a migration's EOF."""
    text = json.dumps(vmdescription(devices)).encode()
    return SECTION.pack(SectionType.VMDESCRIPTION, len(text)) + text
