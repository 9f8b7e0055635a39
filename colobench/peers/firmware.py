"""Firmware for QEMU: a guest that writes a known number of pages, assembled byte by byte."""

from __future__ import annotations

from colobench.guest.kvm.assembler import (
    SEGMENTS,
    enter_protected_mode,
    interrupt_gates,
    le16,
    le32,
    table_pointers,
)

PAGE_SIZE = 4096
#: Address of the guest's first page: above all that a PC has below 1 MiB, and its stack.
FIRST_BYTE = 16 << 20
#: Nanoseconds that the guest sleeps after each round over its pages.
SLEEP_NS = 50_000_000

# The guest's image is a BIOS of its own, so that no other firmware runs: the first instruction is
# the reset vector's, 16 bytes below 4 GiB, where the image ends.
_ROM_GRANULE = 1 << 16
_APIC = 0xFEE00000
_INTERRUPT = 0x20
_RESET_VECTOR = 0xFFF0
# Bytes at the image's end: tables, and the code around them.
_TAIL_SIZE = 1024


def guest_image(pages: int, sleep_ns: int = SLEEP_NS, more: bytes = b"") -> bytes:
    """Assemble the guest: it writes a word in each of its pages, sleeps, and begins again.

    Parameters
    ----------
    pages
        Number of pages, from `FIRST_BYTE` upwards.
    sleep_ns
        Sleep after each round, in nanoseconds of the local APIC's timer.
    more
        Instructions that are done in each round after the pages are written, with the round's
        number in eax. They change no register and no page.

    Returns
    -------
    bytes
        An image for ``-bios``.

    Notes
    -----
    It sleeps because two virtual processors that always run take the cores from the threads that
    make the checkpoint: on two busy cores, medians of QEMU's pause were 12.5 ms with 50 ms of sleep
    and 15.7 ms without, at 10 000 pages (3.6 and 4.0 ms at 1000, 45.5 and 47.3 ms at 50 000).

    There is one store per page and no loop around them, as a KVM that is itself virtualized may
    emulate each instruction in a microsecond or more. The timer's interrupt is not returned from
    (KVM cannot emulate IRET in protected mode): its handler is the next round, which begins with an
    empty stack. See Intel's Software Developer's Manual: volume 3 on switching to protected mode,
    the interrupt descriptor table and the local APIC's timer, volume 2 on the instructions.
    """
    round_ = b"".join(
        [
            b"\xbc" + le32(FIRST_BYTE + PAGE_SIZE),  # mov esp, …: the stack is in the first page
            b"\xc7\x83" + le32(0xB0) + le32(0),  # mov dword [ebx+0xb0], 0: end of interrupt
            b"\x40",  # inc eax
            # mov [edi+…], eax, for each page
            *(b"\x89\x87" + le32(page * PAGE_SIZE) for page in range(pages)),
            more,
            b"\xc7\x83" + le32(0x380) + le32(sleep_ns),  # mov dword [ebx+0x380], …: start timer
            b"\xfb",  # sti: after the next instruction
            b"\xf4",  # hlt
        ]
    )
    protected = b"".join(
        [
            b"\xb8" + le32(0x10),  # mov eax, 0x10: the data segment
            b"\x8e\xd8",  # mov ds, eax
            b"\x8e\xd0",  # mov ss, eax
            b"\xbb" + le32(_APIC),  # mov ebx, …
            b"\xbf" + le32(FIRST_BYTE),  # mov edi, …
            b"\xc7\x83" + le32(0xF0) + le32(0x1FF),  # mov dword [ebx+0xf0], …: enable the APIC
            b"\xc7\x83" + le32(0x3E0) + le32(0xB),  # mov dword [ebx+0x3e0], …: divide by one
            b"\xc7\x83" + le32(0x320) + le32(_INTERRUPT),  # mov dword [ebx+0x320], …: one shot
            b"\x31\xc0",  # xor eax, eax
        ]
    )
    code = protected + round_
    size = -(-(len(code) + _TAIL_SIZE) // _ROM_GRANULE) * _ROM_GRANULE
    start = (1 << 32) - size
    image = code.ljust(size - _TAIL_SIZE, b"\0") + _tail(start, start + len(protected))
    assert len(image) == size
    return image


def _tail(protected: int, handler: int) -> bytes:
    """Assemble the image's end: the way to protected mode, its tables, and the reset vector.

    Parameters
    ----------
    protected, handler
        Addresses of the code to go to, and of the only interrupt's handler.
    """
    tables = (1 << 32) - _TAIL_SIZE
    # Any exception resets the machine, and -no-reboot ends it then.
    gates = interrupt_gates(_INTERRUPT, handler)
    pointers = table_pointers(tables, tables + len(SEGMENTS), gates)
    pointer = (tables + len(SEGMENTS + gates)) & 0xFFFF
    real = enter_protected_mode(pointer, protected)
    begin = pointer + len(pointers)
    # jmp …, relative to its own end
    vector = b"\xe9" + le16((begin - (_RESET_VECTOR + 3)) & 0xFFFF)
    tail = SEGMENTS + gates + pointers + real
    return tail.ljust(_TAIL_SIZE - 16, b"\0") + vector.ljust(16, b"\0")
