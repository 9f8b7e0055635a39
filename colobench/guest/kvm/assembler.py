"""Assembling of machine code by hand: bytes, labels and jumps; and the way to protected mode.

See Intel's Software Developer's Manual: volume 2 on the instructions, volume 3 on switching to
protected mode, and on the interrupt descriptor table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: Selectors of the two flat segments.
CODE_SEGMENT, DATA_SEGMENT = 8, 0x10
#: Flat segments of 4 GiB, marked as accessed: the processor cannot do that in read-only memory.
SEGMENTS = b"".join(
    segment.to_bytes(8, "little") for segment in (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
)


def le16(number: int) -> bytes:
    """Encode 16 bits, little-endian."""
    return number.to_bytes(2, "little")


def le32(number: int) -> bytes:
    """Encode 32 bits, little-endian."""
    return number.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Label:
    """Name of the place of the next instruction."""

    name: str


@dataclass(frozen=True, slots=True)
class Jump:
    """Jump to a label: the opcode of one with a displacement of 32 bits, and the label's name."""

    opcode: bytes
    to: str

    @property
    def size(self) -> int:
        """Bytes of the instruction."""
        return len(self.opcode) + 4


@dataclass(frozen=True, slots=True)
class LabelAddress:
    """Instruction that ends with a label's address: what comes before it, and the label's name."""

    opcode: bytes
    of: str

    @property
    def size(self) -> int:
        """Bytes of the instruction."""
        return len(self.opcode) + 4


Instruction = bytes | Label | Jump | LabelAddress


def assemble(origin: int, code: Iterable[Instruction]) -> tuple[bytes, dict[str, int]]:
    """Assemble code that begins at the address `origin`; return it with its labels' addresses."""
    code = list(code)
    labels, at = {}, origin
    for each in code:
        if isinstance(each, Label):
            labels[each.name] = at
        else:
            at += len(each) if isinstance(each, bytes) else each.size
    assembled = b""
    for each in code:
        if isinstance(each, Jump):
            end = origin + len(assembled) + each.size
            assembled += each.opcode + le32((labels[each.to] - end) & 0xFFFFFFFF)
        elif isinstance(each, LabelAddress):
            assembled += each.opcode + le32(labels[each.of])
        elif isinstance(each, bytes):
            assembled += each
    return assembled, labels


def interrupt_gates(interrupt: int, handler: int) -> bytes:
    """Make an interrupt descriptor table in which every gate but one is absent.

    Parameters
    ----------
    interrupt, handler
        Number of the interrupt, and address of its handler. Any exception ends in a shutdown.
    """
    gate = le16(handler & 0xFFFF) + le16(CODE_SEGMENT) + b"\0\x8e" + le16(handler >> 16)
    return bytes(8 * interrupt) + gate


def table_pointers(segments_at: int, gates_at: int, gates: bytes) -> bytes:
    """Make the 12 bytes that `enter_protected_mode` reads: sizes and addresses of both tables."""
    pointers = le16(len(SEGMENTS) - 1) + le32(segments_at)
    return pointers + le16(len(gates) - 1) + le32(gates_at)


def enter_protected_mode(pointers: int, target: int) -> bytes:
    """Assemble the way from real mode to protected mode, without paging.

    Parameters
    ----------
    pointers
        Offset of `table_pointers` in the code segment.
    target
        Address of the code of protected mode.
    """
    return b"".join(
        [
            b"\x2e\x66\x0f\x01\x16" + le16(pointers),  # lgdt cs:[…]
            b"\x2e\x66\x0f\x01\x1e" + le16(pointers + 6),  # lidt cs:[…]
            b"\x0f\x20\xc0",  # mov eax, cr0
            b"\x0c\x01",  # or al, 1: protection enable
            b"\x0f\x22\xc0",  # mov cr0, eax
            b"\x66\xea" + le32(target) + le16(CODE_SEGMENT),  # jmp 8:…
        ]
    )
