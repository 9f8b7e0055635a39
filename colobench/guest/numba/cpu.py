"""Parts of the kernels of the guest's CPU: the host's commands, timer, devices, writes to RAM.

The CPU is a thread that stays inside its program's kernel for as long as the machine has that
program. The host sets a command word, which the CPU sees before its next write. No step of this
needs the GIL. The host's side is `colobench.guest.numba.command_cpu`. The word control[STATE] says
where the CPU is::

    AWAKE  ── the CPU sleeps until a tick ────► ASLEEP
    ASLEEP ── the CPU wakes ──────────────────► AWAKE
    ASLEEP ── the host stops it ──────────────► HELD
    HELD   ── the host starts it ─────────────► ASLEEP
    HELD   ── the CPU wakes meanwhile ────────► PARKED
    AWAKE  ── the CPU finds a stop ───────────► PARKED
    PARKED ── the CPU finds a start ──────────► AWAKE

So the host stops and starts a sleeping CPU without waking it. A parked CPU waits for a write to an
eventfd. It writes RAM only while its state is AWAKE and the command is RUN, which only it sets.

Every step of a program that writes RAM is a function of the seed and the work counter alone, and so
is RAM. A guest that is stopped, copied and resumed at any point has the same RAM as one that runs
through.

Arguments with the same name have the same meaning in all parts and programs:

control
    uint64[CONTROL_SLOTS], see the slots below. It belongs to the host, not to the guest's state.
cpu, timer, serial, nic
    The devices' registers, uint64[10], [4], [1] and [3].
scrollback
    The serial console's uint8[512].
in_ends, in_lengths, in_frames, out_ends, out_lengths, out_frames
    The NIC's receive and transmit queues: uint64[2], numbers of frames taken out and put in so far;
    uint64[64] and uint8[64 * 1514], frame n in slot n % 64.
words, memory, bitmap
    RAM as uint64 and as uint8; the bitmap in which writes are marked, uint64[pages / 64], or empty
    if the program need not mark its writes, or longer if pages are frozen, see
    `colobench.kernels.copy_on_write`.
"""

from __future__ import annotations

import enum

import numpy as np

from colobench.guest.frame_queue import NIC_FRAME_SIZE, NIC_QUEUE_LENGTH
from colobench.guest.numba.devices import SERIAL_SCROLLBACK
from colobench.guest.store import keep_page
from colobench.kernels.atomics import (
    address,
    compare_exchange,
    exchange,
    fetch_or,
    load_acquire,
    store_release,
)
from colobench.kernels.bitmap import mark
from colobench.kernels.jit import Bytes, Words, inlined
from colobench.kernels.libc import clock_gettime, ppoll, read, write


class Command(enum.IntEnum):
    """Value of control[COMMAND]."""

    STOP = 0
    #: Run, after a look at the timer and at the program, which may have been loaded.
    START = 1
    EXIT = 2
    #: The CPU has found START.
    RUN = 3


class CPUState(enum.IntEnum):
    """Value of control[STATE]."""

    AWAKE = 0
    ASLEEP = 1
    HELD = 2
    PARKED = 3


# Slots of `control`: the host's command; where the CPU is; 1 if the host waits for the CPU to
# acknowledge a stop; number of steps at which to return, or 0; time of the next tick, ns of
# CLOCK_MONOTONIC, or 0 if not known yet; state of a random generator, different on each host;
# planted bugs of `colobench.guest.tcp`; number of the program whose kernel this is; eventfds for a
# new command or a frame, for a stop that is done, and for frames taken from the receive queue or
# put into the transmit queue; first page and number of pages of pc.ram, first page and number of
# bytes of vga.vram; arguments of system calls, the last two of the host's.
(
    COMMAND, STATE, ACKNOWLEDGE, UNTIL, DEADLINE, ENTROPY, BUGS, KERNEL_PROGRAM,
    WAKE_FD, ACKNOWLEDGE_FD, KICK_FD,
    RAM_PAGE, RAM_PAGES, SCREEN_PAGE, SCREEN_SIZE,
    POLLFD, SECONDS, NANOSECONDS, TOKEN, HOST_SECONDS, HOST_NANOSECONDS,
) = range(21)  # fmt: skip
CONTROL_SLOTS = 21
# Slots of the devices' registers, in the order of `colobench.guest.numba.devices`.
WORK, PENDING_WRITES, SEED, PROGRAM, WRITES_PER_TICK, WORKING_SET = range(6)
CLOCK_US, JITTER_US, SHUFFLE, KEYS = range(6, 10)
PERIOD, REMAINING, TICKS, COALESCED_TICKS = range(4)
TRANSMITTED = 0
SENT, DROPPED, RECEIVED = range(3)

#: Steps between two lines on the serial console, two frames, and two pixels on the screen.
STEPS_PER_LINE, STEPS_PER_FRAME, STEPS_PER_PIXEL = 1024, 256, 64
#: EtherType of the guest's announcements, IEEE 802's first one for local experiments.
ETHERTYPE = 0x88B5
ANNOUNCEMENT_SIZE = 60

_HEADER = bytes.fromhex("ffffffffffff525400c01001") + ETHERTYPE.to_bytes(2, "big")
_U0, _U1 = np.uint64(0), np.uint64(1)
_U10, _U48, _U255, _U511 = (np.uint64(n) for n in (10, 48, 255, 511))
_U27, _U30, _U31 = np.uint64(27), np.uint64(30), np.uint64(31)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SECOND = np.uint64(1_000_000_000)
_STOP, _START, _EXIT, _RUN = (np.uint64(command) for command in Command)
_AWAKE, _ASLEEP, _HELD, _PARKED = (np.uint64(state) for state in CPUState)
_LINE, _FRAME, _PIXEL = (np.uint64(n) for n in (STEPS_PER_LINE, STEPS_PER_FRAME, STEPS_PER_PIXEL))
_SCROLLBACK, _QUEUE, _FRAME_SIZE = (
    np.uint64(n) for n in (SERIAL_SCROLLBACK, NIC_QUEUE_LENGTH, NIC_FRAME_SIZE)
)
_POLLIN = np.uint64(1 << 32)


@inlined
def splitmix64(x: np.uint64) -> np.uint64:
    """Mix 64 bits (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    x = np.uint64(x) + _GOLDEN
    x = (x ^ (x >> _U30)) * _MIX_1
    x = (x ^ (x >> _U27)) * _MIX_2
    return x ^ (x >> _U31)


@inlined
def notify(control: Words, descriptor: np.uint64) -> int:
    """Write to an eventfd."""
    control[TOKEN] = _U1
    return write(np.int64(descriptor), address(control) + TOKEN * 8, np.uint64(8))


@inlined
def monotonic_ns(control: Words, at: int) -> np.uint64:
    """Read CLOCK_MONOTONIC in nanoseconds, by way of control[at] and the slot after it."""
    clock_gettime(1, address(control) + at * 8)
    return control[at] * _SECOND + control[at + 1]


@inlined
def stop_timer(control: Words, timer: Words, at: int) -> int:
    """Note in the timer's registers how long it is until the next tick; at: see `monotonic_ns`."""
    if control[DEADLINE] != _U0:
        now = monotonic_ns(control, at)
        late = now >= control[DEADLINE]
        timer[REMAINING] = _U0 if late else control[DEADLINE] - now
    return 0


@inlined
def wait_for_host(control: Words, cpu: Words, timer: Words) -> bool:
    """Wait for the command START or EXIT; return True if this kernel is to go on.

    With control[UNTIL] set, the kernel goes on until that number of steps is done.
    """
    while True:
        if control[UNTIL] != _U0 and cpu[WORK] >= control[UNTIL]:
            return False
        command = load_acquire(control, COMMAND)
        if command == _EXIT:
            return False
        if command == _STOP:
            exchange(control, STATE, _PARKED)
            if exchange(control, ACKNOWLEDGE, _U0) != _U0:
                stop_timer(control, timer, SECONDS)
                notify(control, control[ACKNOWLEDGE_FD])
            read(np.int64(control[WAKE_FD]), address(control) + TOKEN * 8, np.uint64(8))
            continue
        exchange(control, STATE, _AWAKE)
        command = compare_exchange(control, COMMAND, _START, _RUN)
        if command in (_START, _RUN):
            if control[DEADLINE] == _U0:
                control[DEADLINE] = monotonic_ns(control, SECONDS) + timer[REMAINING]
            # The device state that was loaded meanwhile may have another program.
            return cpu[PROGRAM] == control[KERNEL_PROGRAM]


@inlined
def is_running(control: Words, cpu: Words) -> bool:
    """Say whether the host's command is still RUN, and control[UNTIL], if set, is not reached."""
    if load_acquire(control, COMMAND) != _RUN:
        return False
    if control[UNTIL] == _U0:
        return True
    cpu[PENDING_WRITES] = _U1
    return cpu[WORK] < control[UNTIL]


@inlined
def sleep_until(control: Words, now: np.uint64, deadline: np.uint64) -> int:
    """Sleep until the deadline, a frame, or a command of the host."""
    exchange(control, STATE, _ASLEEP)
    # Either the host finds the CPU asleep, or the CPU finds the host's command.
    if fetch_or(control, COMMAND, _U0) == _RUN:
        control[POLLFD] = control[WAKE_FD] | _POLLIN
        control[SECONDS] = (deadline - now) // _SECOND
        control[NANOSECONDS] = (deadline - now) % _SECOND
        polled = address(control) + POLLFD * 8
        if ppoll(polled, np.uint64(1), address(control) + SECONDS * 8, 0) > 0:
            read(np.int64(control[WAKE_FD]), address(control) + TOKEN * 8, np.uint64(8))
    # The host may hold the CPU, or let it go, at each moment.
    while (
        compare_exchange(control, STATE, _ASLEEP, _AWAKE) != _ASLEEP
        and compare_exchange(control, STATE, _HELD, _PARKED) != _HELD
    ):
        pass
    return 0


@inlined
def wait_for_tick(control: Words, timer: Words) -> int:
    """Sleep until the timer's next tick or a command of the host; return 1 for the tick."""
    now = monotonic_ns(control, SECONDS)
    deadline = control[DEADLINE]
    if now < deadline:
        sleep_until(control, now, deadline)
        return 0
    missed = (now - deadline) // timer[PERIOD]
    timer[TICKS] += _U1
    timer[COALESCED_TICKS] += missed
    control[DEADLINE] = deadline + (missed + _U1) * timer[PERIOD]
    return 1


@inlined
def transmit_slot(nic: Words, ends: Words) -> int:
    """Return the transmit queue's slot for the next frame; -1, and count it, if there is none."""
    if ends[1] - ends[0] >= _QUEUE:
        nic[DROPPED] += _U1
        return -1
    return np.int64(ends[1] % _QUEUE)


@inlined
def transmit(nic: Words, ends: Words, lengths: Words, slot: int, length: np.uint64) -> int:
    """Send the frame in that slot of the transmit queue."""
    lengths[slot] = length
    nic[SENT] += _U1
    store_release(ends, 1, ends[1] + _U1)
    return 0


@inlined
def announce(nic: Words, ends: Words, lengths: Words, frames: Bytes, work: np.uint64) -> int:
    """Send a broadcast frame with the work counter, big-endian, after its Ethernet header.

    ends, lengths and frames are the transmit queue's.
    """
    slot = transmit_slot(nic, ends)
    if slot < 0:
        return 0
    begin = slot * NIC_FRAME_SIZE
    for i, octet in enumerate(_HEADER):
        frames[begin + i] = octet
    for i in range(8):
        frames[begin + 14 + i] = np.uint8((work >> (np.uint64(56) - np.uint64(8 * i))) & _U255)
    for i in range(22, ANNOUNCEMENT_SIZE):
        frames[begin + i] = 0
    return transmit(nic, ends, lengths, slot, np.uint64(ANNOUNCEMENT_SIZE))


@inlined
def echo_frames(
    nic: Words,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
) -> int:
    """Send every received frame back to its sender; return the number of frames."""
    echoed = 0
    while load_acquire(in_ends, 1) != in_ends[0]:
        source = np.int64(in_ends[0] % _QUEUE)
        slot = transmit_slot(nic, out_ends)
        if slot >= 0:
            begin, to = source * NIC_FRAME_SIZE, slot * NIC_FRAME_SIZE
            length = min(np.int64(in_lengths[source]), NIC_FRAME_SIZE)
            for i in range(6):
                out_frames[to + i] = in_frames[begin + 6 + i]
                out_frames[to + 6 + i] = in_frames[begin + i]
            for i in range(12, length):
                out_frames[to + i] = in_frames[begin + i]
            transmit(nic, out_ends, out_lengths, slot, np.uint64(length))
        nic[RECEIVED] += _U1
        store_release(in_ends, 0, in_ends[0] + _U1)
        echoed += 1
    return echoed


@inlined
def rest(
    control: Words,
    cpu: Words,
    timer: Words,
    nic: Words,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    steps: np.uint64,
) -> int:
    """Sleep until the next tick; then set the number of steps to do, and echo received frames."""
    if wait_for_tick(control, timer):
        cpu[PENDING_WRITES] = steps
        if echo_frames(nic, in_ends, in_lengths, in_frames, out_ends, out_lengths, out_frames):
            notify(control, control[KICK_FD])
    return 0


@inlined
def print_line(serial: Words, scrollback: Bytes, work: np.uint64) -> int:
    """Print ``work NNNNNNNNNNNNNNNNNNNN`` and a newline on the serial console."""
    at = serial[TRANSMITTED]
    for i, character in enumerate(b"work "):
        scrollback[(at + np.uint64(i)) % _SCROLLBACK] = character
    for i in range(20):
        scrollback[(at + np.uint64(24 - i)) % _SCROLLBACK] = np.uint8(_U48 + work % _U10)
        work = work // _U10
    scrollback[(at + np.uint64(25)) % _SCROLLBACK] = 10
    serial[TRANSMITTED] = at + np.uint64(26)
    return 0


@inlined
def random_bits(cpu: Words) -> np.uint64:
    """Return the 64 random bits of the next step."""
    return splitmix64(cpu[SEED] ^ splitmix64(cpu[WORK]))


@inlined
def pages_to_write(control: Words, cpu: Words) -> np.uint64:
    """Return the number of pages of pc.ram, from the first, that a program is to write."""
    pages, working_set = control[RAM_PAGES], cpu[WORKING_SET]
    return working_set if _U0 < working_set < pages else pages


@inlined
def write_word(
    control: Words, cpu: Words, words: Words, bitmap: Words, page: np.uint64, random: np.uint64
) -> int:
    """Do a step: write a word of that page of pc.ram; `random` has the step's bits."""
    at = np.int64(control[RAM_PAGE] + page)
    value = splitmix64(random)
    keep_page(np.int64(address(words)), bitmap, at)
    words[(at << 9) + np.int64(value & _U511)] = value
    if len(bitmap):
        mark(bitmap, at)
    cpu[WORK] += _U1
    cpu[PENDING_WRITES] -= _U1
    return 0


@inlined
def is_to_be_seen(cpu: Words) -> bool:
    """Say whether `show_work` has something to show after the last step."""
    return cpu[WORK] % _PIXEL <= _U1


@inlined
def show_work(
    control: Words,
    cpu: Words,
    serial: Words,
    scrollback: Bytes,
    nic: Words,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    memory: Bytes,
    bitmap: Words,
    random: np.uint64,
) -> int:
    """Change a pixel of vga.vram, print a line, send a frame: each after a number of steps.

    `random` has the last step's bits. A separate function, so that LLVM inlines `write_word`.
    """
    work = cpu[WORK]
    if work % _PIXEL == _U1:
        screen = np.int64(control[SCREEN_PAGE])
        pixel = np.int64(work // _PIXEL % control[SCREEN_SIZE])
        keep_page(np.int64(address(memory)), bitmap, screen + (pixel >> 12))
        # The pixel always changes, so that a comparison of pages finds every written page.
        memory[(screen << 12) + pixel] += np.uint8(_U1 + random % _U255)
        if len(bitmap):
            mark(bitmap, screen + (pixel >> 12))
    if work % _LINE == _U0:
        print_line(serial, scrollback, work)
    if work % _FRAME == _U0:
        announce(nic, out_ends, out_lengths, out_frames, work)
        notify(control, control[KICK_FD])
    return 0
