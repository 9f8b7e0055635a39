"""What runs in the guest: one kernel that is the CPU and its timer, four programs that write RAM,
and one that serves clients (`colobench.guest.tcp`, `colobench.guest.kv`).

The CPU runs in a thread that stays inside `cpu_loop` for the machine's whole life. The host sets a
command word and writes to an eventfd; the CPU sees the word before its next write, or is woken from
its sleep, and answers a stop on a second eventfd. Nobody needs the GIL for that.

Every step of a program that writes RAM is a function of the seed and the work counter alone, so RAM
is too: a guest that is stopped, copied and resumed at any place has the RAM of one that never was.
"""

from __future__ import annotations

import enum

import numpy as np

from colobench.guest import keyspace
from colobench.guest.configuration import Program
from colobench.guest.devices import NIC_FRAME_SIZE, NIC_QUEUE_LENGTH, SERIAL_SCROLLBACK
from colobench.guest.rings import MINIMUM_BYTES, store_begin
from colobench.guest.store import get_word, put_word
from colobench.guest.tcp import DOUBLE_EXECUTION, serve
from colobench.kernels.atomics import address, load_acquire, store_release
from colobench.kernels.bitmap import mark
from colobench.kernels.jit import Bytes, Words, inlined, kernel
from colobench.kernels.libc import clock_gettime, ppoll, read, write


class Command(enum.IntEnum):
    """What the host wants of the CPU."""

    STOP = 0
    RUN = 1
    EXIT = 2


# Slots of `control`: the host's words to the CPU thread, not part of the guest's state. ENTROPY is
# the state of a generator that no other host has; BUGS are those of `colobench.guest.tcp`.
COMMAND, STOPS, UNTIL, DEADLINE, ENTROPY, BUGS = range(6)
CONTROL_SLOTS = 6
# Slots of `scratch`: arguments of system calls, so that the kernel allocates nothing.
POLLFD, SECONDS, NANOSECONDS, TOKEN = range(4)
SCRATCH_SLOTS = 4
# Slots of the devices' registers, in the order that `colobench.guest.devices` gives them.
WORK, PENDING_WRITES, SEED, PROGRAM, WRITES_PER_TICK, WORKING_SET = range(6)
CLOCK_US, JITTER_US, SHUFFLE, KEYS = range(6, 10)
PERIOD, REMAINING, TICKS, COALESCED_TICKS = range(4)
TRANSMITTED = 0
SENT, DROPPED, RECEIVED = range(3)

#: Steps between two lines on the serial console, two frames, and two pixels on the screen.
STEPS_PER_LINE, STEPS_PER_FRAME, STEPS_PER_PIXEL = 1024, 256, 64
#: IEEE 802's first EtherType for local experiments; the guest's announcements carry it.
ETHERTYPE = 0x88B5
ANNOUNCEMENT_SIZE = 60

_U0, _U1 = np.uint64(0), np.uint64(1)
_U10, _U48, _U255, _U511 = (np.uint64(n) for n in (10, 48, 255, 511))
_U27, _U30, _U31 = np.uint64(27), np.uint64(30), np.uint64(31)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SECOND, _MILLISECOND = np.uint64(1_000_000_000), np.uint64(1_000_000)
_RUN, _EXIT = np.uint64(Command.RUN), np.uint64(Command.EXIT)
_IDLE, _HOTCOLD, _SEQUENTIAL, _KV = (
    np.uint64(program)
    for program in (Program.IDLE, Program.HOTCOLD, Program.SEQUENTIAL, Program.KV)
)
_THOUSAND = np.uint64(1000)
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
def choose_page(
    program: np.uint64, work: np.uint64, random: np.uint64, distribution: Words, pages: np.uint64
) -> np.uint64:
    """Say which page of pc.ram a step writes, from 0 to ``pages - 1``.

    Parameters
    ----------
    program, work, random, pages
        The program's number, the step's number, its 64 random bits, the pages to choose from.
    distribution
        uint64[n + 1], used by HOTCOLD alone, which chooses from n pages. Entries 0 to ``n - 1``
        ascend: entry r is 2**64 times the probability of a rank up to r. The last entry has no
        divisor in common with n; ranks are multiplied by it, so that hot pages lie scattered over
        RAM.
    """
    if program == _SEQUENTIAL:
        return work % pages
    if program == _HOTCOLD:
        pages = np.uint64(len(distribution) - 1)
        low, high = 0, np.int64(pages) - 1
        while low < high:
            middle = (low + high) // 2
            if distribution[middle] > random:
                high = middle
            else:
                low = middle + 1
        return (np.uint64(low) * distribution[np.int64(pages)]) % pages
    return random % pages


@inlined
def print_line(serial: Words, scrollback: Bytes, work: np.uint64) -> int:
    """Print ``work NNNNNNNNNNNNNNNNNNNN`` and a newline on the serial console.

    serial is the device's uint64[1], scrollback its uint8[512].
    """
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
def transmit(
    nic: Words,
    ends: Words,
    lengths: Words,
    frames: Bytes,
    source: Bytes,
    begin: int,
    length: np.uint64,
) -> int:
    """Put a frame, `length` bytes at source[begin:], into the transmit queue.

    nic is uint64[3]; ends uint64[2], lengths uint64[64], frames uint8[64 * 1514] are the queue's.
    """
    if ends[1] - ends[0] >= _QUEUE:
        nic[DROPPED] += _U1
        return 0
    slot = ends[1] % _QUEUE
    to = np.int64(slot * _FRAME_SIZE)
    for i in range(np.int64(length)):
        frames[to + i] = source[begin + i]
    lengths[slot] = length
    nic[SENT] += _U1
    store_release(ends, 1, ends[1] + _U1)
    return 0


@inlined
def announce(
    nic: Words, ends: Words, lengths: Words, frames: Bytes, frame: Bytes, work: np.uint64
) -> int:
    """Send a broadcast frame that carries the work counter, big-endian, after its Ethernet header.

    frame is uint8[60], the header in place.
    """
    for i in range(8):
        frame[14 + i] = np.uint8((work >> (np.uint64(56) - np.uint64(8 * i))) & _U255)
    return transmit(nic, ends, lengths, frames, frame, 0, np.uint64(ANNOUNCEMENT_SIZE))


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
    """Send every received frame back to where it came from; gives how many.

    The arrays are the receive queue's and then the transmit queue's, as in `transmit`.
    """
    echoed = 0
    while load_acquire(in_ends, 1) != in_ends[0]:
        slot = in_ends[0] % _QUEUE
        begin = np.int64(slot * _FRAME_SIZE)
        for i in range(6):
            address = in_frames[begin + i]
            in_frames[begin + i] = in_frames[begin + 6 + i]
            in_frames[begin + 6 + i] = address
        transmit(nic, out_ends, out_lengths, out_frames, in_frames, begin, in_lengths[slot])
        nic[RECEIVED] += _U1
        store_release(in_ends, 0, in_ends[0] + _U1)
        echoed += 1
    return echoed


@inlined
def notify(scratch: Words, descriptor: int) -> int:
    """Write to an eventfd; scratch is uint64[4]."""
    scratch[TOKEN] = _U1
    return write(descriptor, address(scratch) + TOKEN * 8, np.uint64(8))


@inlined
def monotonic_ns(scratch: Words) -> np.uint64:
    """Read CLOCK_MONOTONIC in nanoseconds; scratch is uint64[4]."""
    clock_gettime(1, address(scratch) + SECONDS * 8)
    return scratch[SECONDS] * _SECOND + scratch[NANOSECONDS]


@inlined
def writes_ram(program: np.uint64) -> bool:
    """Say whether a program does its work by writing RAM at each tick."""
    return program != _IDLE and program != _KV


@inlined
def host_clock_us(scratch: Words, step: np.uint64) -> np.uint64:
    """Read CLOCK_REALTIME in microseconds, a multiple of `step` unless that is 0."""
    clock_gettime(0, address(scratch) + SECONDS * 8)
    now = (scratch[SECONDS] * _SECOND + scratch[NANOSECONDS]) // _THOUSAND
    return now if step == _U0 else now - now % step


@inlined
def serve_clients(
    control: Words,
    scratch: Words,
    cpu: Words,
    timer: Words,
    nic: Words,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    memory: Bytes,
    bitmap: Words,
    ram: int,
    size: int,
    kick_fd: int,
    service: Words,
) -> bool:
    """Run the network stack and the key-value store once; True if there is more to do at once.

    As a program keeps in registers what it counts, the number of keys is in one of the CPU's. So
    DBSIZE tells whether RAM and devices are of the same moment.

    `ram` and `size` are pc.ram's first byte and length; service is `tcp.serve`'s uint64[16]; the
    others are as in `cpu_loop`. The stack's clock is the timer's.
    """
    if size < MINIMUM_BYTES:
        # The program is a register, which may come from a peer with more RAM.
        return False
    control[ENTROPY] = splitmix64(control[ENTROPY])
    keys_at = store_begin(ram, size) + keyspace.KEYS
    if get_word(memory, keys_at) != cpu[KEYS]:
        put_word(memory, bitmap, keys_at, cpu[KEYS])
    serve(
        memory, bitmap, ram, size, in_ends, in_lengths, in_frames, out_ends, out_lengths,
        out_frames, (timer[TICKS] + timer[COALESCED_TICKS]) * timer[PERIOD] // _MILLISECOND,
        host_clock_us(scratch, cpu[CLOCK_US]), control[ENTROPY], cpu[JITTER_US], cpu[SHUFFLE],
        control[BUGS], service,
    )  # fmt: skip
    cpu[KEYS] = get_word(memory, keys_at)
    # Once is enough.
    control[BUGS] &= ~np.uint64(DOUBLE_EXECUTION)
    nic[RECEIVED] += service[0]
    nic[SENT] += service[1]
    if service[0] != _U0 or service[1] != _U0:
        notify(scratch, kick_fd)
    return service[2] != _U0


@inlined
def wait_for_tick(control: Words, scratch: Words, cpu: Words, timer: Words, wake_fd: int) -> int:
    """Sleep until the timer's next tick or a word of the host; 1 if the tick came.

    control is uint64[6], scratch uint64[4], cpu uint64[10], timer uint64[4].
    """
    now = monotonic_ns(scratch)
    deadline = control[DEADLINE]
    if now < deadline:
        scratch[POLLFD] = np.uint64(wake_fd) | _POLLIN
        scratch[SECONDS] = (deadline - now) // _SECOND
        scratch[NANOSECONDS] = (deadline - now) % _SECOND
        if ppoll(address(scratch), np.uint64(1), address(scratch) + SECONDS * 8, 0) > 0:
            read(wake_fd, address(scratch) + TOKEN * 8, np.uint64(8))
        return 0
    missed = (now - deadline) // timer[PERIOD]
    timer[TICKS] += _U1
    timer[COALESCED_TICKS] += missed
    control[DEADLINE] = deadline + (missed + _U1) * timer[PERIOD]
    cpu[PENDING_WRITES] = cpu[WRITES_PER_TICK] if writes_ram(cpu[PROGRAM]) else _U1
    return 1


@inlined
def step(
    cpu: Words,
    words: Words,
    memory: Bytes,
    bitmap: Words,
    distribution: Words,
    ram_page: int,
    ram_pages: np.uint64,
    screen_page: int,
    screen_bytes: np.uint64,
) -> int:
    """Do one unit of the program's work: a word of pc.ram, and now and then a pixel of vga.vram.

    words and memory are the same RAM as uint64 and uint8; bitmap is empty where the program need
    not mark what it writes. `ram_page` and `screen_page` are the first pages of the two blocks,
    `ram_pages` and `screen_bytes` their lengths; a smaller working set leaves the rest of pc.ram
    alone.
    """
    work = cpu[WORK]
    if writes_ram(cpu[PROGRAM]):
        random = splitmix64(cpu[SEED] ^ splitmix64(work))
        pages = ram_pages
        if _U0 < cpu[WORKING_SET] < pages:
            pages = cpu[WORKING_SET]
        page = choose_page(cpu[PROGRAM], work, random, distribution, pages)
        at = ram_page + np.int64(page)
        value = splitmix64(random)
        words[(at << 9) + np.int64(value & _U511)] = value
        if len(bitmap):
            mark(bitmap, at)
        if work % _PIXEL == _U0:
            pixel = np.int64(work // _PIXEL % screen_bytes)
            # Another one than before, so that comparing pages shows every page that was written.
            memory[(screen_page << 12) + pixel] += np.uint8(_U1 + random % _U255)
            if len(bitmap):
                mark(bitmap, screen_page + (pixel >> 12))
    cpu[WORK] = work + _U1
    return 0


@kernel(
    "i8(u8[::1], u8[::1], u8[::1], u8[::1], u8[::1], u1[::1], u8[::1], u1[::1],"
    " u8[::1], u8[::1], u1[::1], u8[::1], u8[::1], u1[::1],"
    " u8[::1], u1[::1], u8[::1], u8[::1], i8, u8, i8, u8, i8, i8, i8, u8[::1])"
)
def cpu_loop(
    control: Words,
    scratch: Words,
    cpu: Words,
    timer: Words,
    serial: Words,
    scrollback: Bytes,
    nic: Words,
    announcement: Bytes,
    in_ends: Words,
    in_lengths: Words,
    in_frames: Bytes,
    out_ends: Words,
    out_lengths: Words,
    out_frames: Bytes,
    words: Words,
    memory: Bytes,
    bitmap: Words,
    distribution: Words,
    ram_page: int,
    ram_pages: np.uint64,
    screen_page: int,
    screen_bytes: np.uint64,
    wake_fd: int,
    acknowledge_fd: int,
    kick_fd: int,
    service: Words,
) -> int:
    """Be the CPU until the host says EXIT; with control[UNTIL] set, until so much work is done.

    Parameters
    ----------
    control, scratch
        uint64[6] and uint64[4], see the slots above.
    cpu, timer, serial, nic
        The devices' registers, uint64[10], [4], [1] and [3].
    scrollback, announcement
        uint8[512] and uint8[60].
    in_ends, in_lengths, in_frames, out_ends, out_lengths, out_frames
        The NIC's receive and transmit queues, as in `transmit`.
    words, memory, bitmap
        RAM as uint64 and as uint8, and where writes are marked, uint64[pages / 64] or empty.
    distribution, ram_page, ram_pages, screen_page, screen_bytes
        As in `choose_page` and `step`.
    wake_fd, acknowledge_fd, kick_fd
        Blocking eventfds: the host's word has changed, or there is a frame; a stop is done; frames
        were taken from the receive queue or put into the transmit queue. The last may be -1.
    service
        uint64[16], scratch of the program KV.
    """
    acknowledged = _U0
    while load_acquire(control, COMMAND) != _EXIT:
        if control[DEADLINE] == _U0:
            control[DEADLINE] = monotonic_ns(scratch) + timer[REMAINING]
        while load_acquire(control, COMMAND) == _RUN:
            if control[UNTIL] != _U0:
                if cpu[WORK] >= control[UNTIL]:
                    return 0
                cpu[PENDING_WRITES] = _U1
            if cpu[PENDING_WRITES] == _U0:
                if cpu[PROGRAM] == _KV:
                    if not serve_clients(
                        control, scratch, cpu, timer, nic, in_ends, in_lengths, in_frames,
                        out_ends, out_lengths, out_frames, memory, bitmap, ram_page << 12,
                        np.int64(ram_pages) << 12, kick_fd, service,
                    ):  # fmt: skip
                        wait_for_tick(control, scratch, cpu, timer, wake_fd)
                elif wait_for_tick(control, scratch, cpu, timer, wake_fd) and echo_frames(
                    nic, in_ends, in_lengths, in_frames, out_ends, out_lengths, out_frames
                ):
                    notify(scratch, kick_fd)
                continue
            step(
                cpu, words, memory, bitmap, distribution, ram_page, ram_pages, screen_page,
                screen_bytes,
            )  # fmt: skip
            cpu[PENDING_WRITES] -= _U1
            if writes_ram(cpu[PROGRAM]) and cpu[WORK] % _LINE == _U0:
                print_line(serial, scrollback, cpu[WORK])
            if writes_ram(cpu[PROGRAM]) and cpu[WORK] % _FRAME == _U0:
                announce(nic, out_ends, out_lengths, out_frames, announcement, cpu[WORK])
                notify(scratch, kick_fd)
        stops = load_acquire(control, STOPS)
        if stops != acknowledged:
            acknowledged = stops
            now = monotonic_ns(scratch)
            late = now >= control[DEADLINE]
            timer[REMAINING] = _U0 if late else control[DEADLINE] - now
            notify(scratch, acknowledge_fd)
        read(wake_fd, address(scratch) + TOKEN * 8, np.uint64(8))
    return 0
