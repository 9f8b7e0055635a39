"""Boot code of the KVM guest: what is in its RAM when it starts, assembled byte by byte.

The guest starts in real mode at `BOOT_SECTOR`, enters protected mode without paging, prints a line
on its serial port, and sets the timer of its local APIC to one tick in a millisecond. In each tick
it does a number of steps; then it halts until the next tick. A step of a program that writes RAM
changes a word of one page, and of each 64th step, a byte of the screen. Then the step is counted. A
line with the count is printed after each 1024 steps.

All of RAM is a function of the seed and the steps done: a step's random bits are a hash of its
number, and the stack always holds the same interrupt frame, because the guest halts with the same
flags at the same place. A tick's number is that of its first step, divided by the steps in a tick.

The timer's interrupt is not returned from, as a KVM that emulates instructions may lack IRET in
protected mode: its handler is the next round, which begins with an empty stack. No instruction
needs more than the KVM's emulator has.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

import numpy as np
import numpy.typing as npt

from colobench.guest.kvm.assembler import (
    CODE_SEGMENT,
    DATA_SEGMENT,
    SEGMENTS,
    Instruction,
    Jump,
    Label,
    LabelAddress,
    assemble,
    enter_protected_mode,
    interrupt_gates,
    le32,
    table_pointers,
)
from colobench.guest.programs import Program
from colobench.guest.settings import PAGE_SIZE, SCREEN_BYTES, TICK_NS, GuestSettings
from colobench.memory.kvm import OTHER_BLOCKS_AT

#: Guest-physical addresses: of the words of `WORDS`, the stack's end, the first instruction, the
#: program, and the first page that a program writes or, for hotcold, its table.
WORDS_AT, STACK_END, BOOT_SECTOR, CODE_AT, DATA_AT = 0x1000, 0x3000, 0x7C00, 0x8000, 0x9000
SCREEN_AT = OTHER_BLOCKS_AT
APIC_AT = 0xFEE00000
SERIAL_PORT = 0x3F8
#: Offsets of what the guest is told, and of the number of steps that it has done, 64 bits.
WORK, SEED, PROGRAM, WRITES, PAGES, FIRST = 0, 8, 16, 20, 24, 28
STEPS_PER_LINE, STEPS_PER_PIXEL = 1024, 64
BANNER = b"colobench: a guest of KVM\n"
#: Multipliers: Fibonacci hashing's, the finalizer's of MurmurHash3, and another prime.
GOLDEN, MIX_1, MIX_2, VALUE = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x9E3779B1
_TICK_INTERRUPT = 0x20
# Registers of the local APIC.
_END_OF_INTERRUPT, _SPURIOUS, _TIMER, _INITIAL_COUNT, _DIVIDE = 0xB0, 0xF0, 0x320, 0x380, 0x3E0
_ENABLED, _PERIODIC, _BY_ONE = 0x1FF, 1 << 17, 0xB
#: Flags with which the guest halts: interrupts enabled, and the result of comparing equal words.
_FLAGS = 0x246
_JB, _JE, _JNE, _JMP = b"\x0f\x82", b"\x0f\x84", b"\x0f\x85", b"\xe9"


def data_pages(settings: GuestSettings) -> tuple[int, int]:
    """Return the pages that a program writes: number of the first, and how many."""
    first, end = DATA_AT // PAGE_SIZE, settings.ram_bytes // PAGE_SIZE
    pages = min(settings.working_set or end, end - first)
    if settings.program is Program.KVM_HOTCOLD:
        # The table has eight bytes for each page.
        pages = min(pages, (end - first) * PAGE_SIZE // (PAGE_SIZE + 8))
        first += -(-8 * pages // PAGE_SIZE)
        pages = min(pages, end - first)
    return first, pages


def initial_ram(settings: GuestSettings) -> dict[int, bytes]:
    """Make what is in pc.ram at the start: bytes by address; all else is zero."""
    code, labels = assemble(CODE_AT, _program(settings.program))
    gates = interrupt_gates(_TICK_INTERRUPT, labels["round"])
    tables = CODE_AT + len(code)
    pointers = table_pointers(tables, tables + len(SEGMENTS), gates)
    code += SEGMENTS + gates
    assert CODE_AT + len(code) <= DATA_AT
    real = b"\xfa" + enter_protected_mode(BOOT_SECTOR - len(pointers), CODE_AT)  # cli; …
    # What an interrupt pushes: always the same, so it is there from the start.
    frame = le32(labels["halted"]) + le32(CODE_SEGMENT) + le32(_FLAGS)
    found = {
        WORDS_AT: _words(settings),
        STACK_END - len(frame): frame,
        BOOT_SECTOR - len(pointers): pointers + real,
        CODE_AT: code,
    }
    if settings.program is Program.KVM_HOTCOLD:
        found[DATA_AT] = alias_table(data_pages(settings)[1]).tobytes()
    return found


def _words(settings: GuestSettings) -> bytes:
    first, pages = data_pages(settings)
    # The first two are the number of steps done, 64 bits, and the seed.
    words = bytes(8) + settings.seed.to_bytes(8, "little") + le32(settings.program.number)
    writes = 1 if settings.program is Program.KVM_BOOT else settings.writes_per_tick
    return words + le32(writes) + le32(pages) + le32(first * PAGE_SIZE)


def alias_table(pages: int) -> npt.NDArray[np.uint32]:
    """Make the table by which pages are drawn by Zipf's law, by the alias method (Vose, 1991).

    Returns
    -------
    uint32[pages, 2]
        For each page the probability, in units of 2**-32, that it is kept when it is drawn
        uniformly, and the page that replaces it otherwise. Rank r has a probability proportional to
        1 / (r + 1), and ranks are scattered over the pages.
    """
    multiplier = int(pages * 0.6180339887) | 1
    while gcd(multiplier, pages) != 1:
        multiplier += 2
    ranks = np.arange(pages, dtype=np.int64)
    weights = np.empty(pages)
    weights[ranks * multiplier % pages] = 1.0 / (ranks + 1)
    shares = (weights * pages / weights.sum()).tolist()
    small = [page for page in range(pages) if shares[page] < 1.0]
    large = [page for page in range(pages) if shares[page] >= 1.0]
    table = np.empty((pages, 2), dtype=np.uint32)
    while small and large:
        less, more = small.pop(), large[-1]
        table[less] = int(shares[less] * 2.0**32), more
        shares[more] -= 1.0 - shares[less]
        if shares[more] < 1.0:
            small.append(large.pop())
    for page in small + large:
        table[page] = 2**32 - 1, page
    return table


def _program(program: Program) -> Iterator[Instruction]:
    """Give the code of protected mode."""
    yield from _start()
    yield Label("round")
    yield b"\xbc" + le32(STACK_END)  # mov esp, …
    yield _apic(_END_OF_INTERRUPT, 0)
    yield b"\x8b\x0d" + le32(WORDS_AT + WRITES)  # mov ecx, […]
    yield Label("step")
    if program is not Program.KVM_BOOT:
        yield from _write(program)
    yield b"\x83\x05" + le32(WORDS_AT + WORK) + b"\x01"  # add dword […], 1
    yield b"\x83\x15" + le32(WORDS_AT + WORK + 4) + b"\x00"  # adc dword […], 0
    yield b"\xf7\x05" + le32(WORDS_AT + WORK) + le32(STEPS_PER_LINE - 1)  # test dword […], …
    yield Jump(_JNE, "no line")
    yield from _line()
    yield Label("no line")
    yield b"\x49"  # dec ecx
    yield Jump(_JNE, "step")
    yield Label("rest")
    yield b"\x39\xc0"  # cmp eax, eax: the same flags each time
    yield b"\xfb"  # sti: after the next instruction
    yield b"\xf4"  # hlt
    yield Label("halted")
    yield Jump(_JMP, "rest")
    yield Label("banner")
    yield BANNER + b"\0"
    yield Label("work")
    yield b"work \0"
    yield Label("digits")
    yield b"0123456789abcdef"


def _apic(register: int, value: int) -> bytes:
    return b"\xc7\x05" + le32(APIC_AT + register) + le32(value)  # mov dword […], …


def _start() -> Iterator[Instruction]:
    """Set segments, print the banner, start the timer, and wait for the first tick."""
    yield b"\xb8" + le32(DATA_SEGMENT)  # mov eax, …
    yield b"\x8e\xd8"  # mov ds, eax
    yield b"\x8e\xc0"  # mov es, eax
    yield b"\x8e\xd0"  # mov ss, eax
    yield b"\xbc" + le32(STACK_END)  # mov esp, …
    yield from _print("banner")
    yield _apic(_SPURIOUS, _ENABLED)
    yield _apic(_DIVIDE, _BY_ONE)
    yield _apic(_TIMER, _PERIODIC | _TICK_INTERRUPT)
    yield _apic(_INITIAL_COUNT, TICK_NS)
    yield Jump(_JMP, "rest")


def _print(text: str) -> Iterator[Instruction]:
    """Print the text at a label, up to its zero byte."""
    yield LabelAddress(b"\xbe", text)  # mov esi, …
    yield b"\xba" + le32(SERIAL_PORT)  # mov edx, …
    yield Label(f"print {text}")
    yield b"\x8a\x06"  # mov al, [esi]
    yield b"\x84\xc0"  # test al, al
    yield Jump(_JE, f"printed {text}")
    yield b"\xee"  # out dx, al
    yield b"\x46"  # inc esi
    yield Jump(_JMP, f"print {text}")
    yield Label(f"printed {text}")


def _line() -> Iterator[Instruction]:
    """Print ``work`` and the number of steps done, 16 hexadecimal digits."""
    yield from _print("work")
    for half in (4, 0):
        yield b"\x8b\x1d" + le32(WORDS_AT + WORK + half)  # mov ebx, […]
        yield b"\xbf" + le32(8)  # mov edi, 8
        yield Label(f"digit {half}")
        yield b"\xc1\xc3\x04"  # rol ebx, 4
        yield b"\x89\xd8"  # mov eax, ebx
        yield b"\x83\xe0\x0f"  # and eax, 15
        yield LabelAddress(b"\x8a\x80", "digits")  # mov al, [eax+…]
        yield b"\xee"  # out dx, al
        yield b"\x4f"  # dec edi
        yield Jump(_JNE, f"digit {half}")
    yield b"\xb0\x0a"  # mov al, 10
    yield b"\xee"  # out dx, al


def _write(program: Program) -> Iterator[Instruction]:
    """Do a step's writes, see `colobench.guest.kvm.expected`."""
    yield b"\xa1" + le32(WORDS_AT + WORK)  # mov eax, […]
    yield b"\x69\xc0" + le32(GOLDEN)  # imul eax, eax, …
    yield b"\x03\x05" + le32(WORDS_AT + SEED)  # add eax, […]
    for shift, multiplier in ((16, MIX_1), (13, MIX_2), (16, 0)):
        yield b"\x89\xc2"  # mov edx, eax
        yield b"\xc1\xea" + bytes([shift])  # shr edx, …
        yield b"\x31\xd0"  # xor eax, edx
        if multiplier:
            yield b"\x69\xc0" + le32(multiplier)  # imul eax, eax, …
    yield b"\x03\x05" + le32(WORDS_AT + SEED + 4)  # add eax, […]
    yield b"\x89\xc6"  # mov esi, eax: the step's random bits
    yield from _DRAW[program]()
    yield b"\xc1\xe2\x0c"  # shl edx, 12
    yield b"\x03\x15" + le32(WORDS_AT + FIRST)  # add edx, […]
    yield b"\x69\xfe" + le32(VALUE)  # imul edi, esi, …
    yield b"\x89\xf8"  # mov eax, edi
    yield b"\xc1\xe8\x14"  # shr eax, 20
    yield b"\x25" + le32(0xFFC)  # and eax, …
    yield b"\x89\x3c\x02"  # mov [edx+eax], edi
    yield b"\xa1" + le32(WORDS_AT + WORK)  # mov eax, […]
    yield b"\xa9" + le32(STEPS_PER_PIXEL - 1)  # test eax, …
    yield Jump(_JNE, "no pixel")
    yield b"\xc1\xe8" + bytes([STEPS_PER_PIXEL.bit_length() - 1])  # shr eax, …
    yield b"\x25" + le32(SCREEN_BYTES - 1)  # and eax, …
    yield b"\xfe\x80" + le32(SCREEN_AT)  # inc byte [eax+…]
    yield Label("no pixel")


def _draw_uniform() -> Iterator[Instruction]:
    yield b"\xf7\x25" + le32(WORDS_AT + PAGES)  # mul dword […]: edx, a page


def _draw_hotcold() -> Iterator[Instruction]:
    yield from _draw_uniform()
    # eax has the rest of the product, which is random, too.
    yield b"\x3b\x04\xd5" + le32(DATA_AT)  # cmp eax, [edx*8+…]
    yield Jump(_JB, "kept")
    yield b"\x8b\x14\xd5" + le32(DATA_AT + 4)  # mov edx, [edx*8+…]
    yield Label("kept")


def _draw_next() -> Iterator[Instruction]:
    yield b"\xa1" + le32(WORDS_AT + WORK)  # mov eax, […]
    yield b"\x31\xd2"  # xor edx, edx
    yield b"\xf7\x35" + le32(WORDS_AT + PAGES)  # div dword […]


#: Code that puts the page to write into EDX, by program; EAX has the random bits.
_DRAW = {
    Program.KVM_UNIFORM: _draw_uniform,
    Program.KVM_HOTCOLD: _draw_hotcold,
    Program.KVM_SEQUENTIAL: _draw_next,
}
