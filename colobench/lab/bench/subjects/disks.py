"""Disks: a file copied by NBD, and the pause of a guest whose disk is written, or that has none."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from colobench.block.nbd.uri import NBDLocation
from colobench.errors import LocalError, RemoteError
from colobench.guest.sector_table import RUN_BYTES
from colobench.lab.bench.case import Case, at_least, at_most, subject
from colobench.lab.bench.context import MIB, BenchContext, as_rates, as_times, thousands
from colobench.lab.bench.measured import Measured, Unavailable
from colobench.lab.bench.subjects.checkpoints import ENOUGH_SECONDS, MILLISECONDS, Pair
from colobench.lab.bench.timing import timed
from colobench.node.disk.copying import copy_disk

SIZE = 256 * MIB
#: A file system in memory: a disk's own speed is not what is compared.
_IN_MEMORY = Path("/dev/shm")
_TIMEOUT = 60.0
#: Disk of the guest whose pause is measured, and milliseconds of work before each checkpoint.
WRITTEN_DISK, WORKING_MS = 64 * MIB, 50


@subject("disk", "a file copied to an NBD server: ours to ours, against nbdcopy to qemu-nbd")
def disk(context: BenchContext) -> Iterator[Case]:
    """Give the cases."""
    size = context.size(SIZE, MIB)

    def writing() -> Measured:
        for name in ("nbdcopy", "qemu-nbd"):
            if shutil.which(name) is None:
                raise Unavailable(f"{name} is not installed")
        context.reserve(3 * size)
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(_directory()))
            source = directory / "source"
            source.write_bytes(np.random.default_rng(0).bytes(size))
            ours, theirs = (_empty(directory / name, size) for name in ("ours", "theirs"))
            socket = directory / "ours.sock"
            colobench = [sys.executable, "-m", "colobench", "disk", "serve", str(ours)]
            our_place = _serve([*colobench, "--socket", f"unix:{socket}"], socket, stack)
            socket = directory / "theirs.sock"
            qemu = ["qemu-nbd", "--format=raw", "--persistent", "--shared=0"]
            their_place = _serve([*qemu, f"--socket={socket}", str(theirs)], socket, stack)
            command = ["nbdcopy", "--flush", str(source), their_place]
            samples = context.compare(
                timed(lambda: copy_disk(str(source), our_place), _nothing, time.perf_counter),
                timed(lambda: _run(command), _nothing, time.perf_counter),
            )
            for copy in (ours, theirs):
                if copy.read_bytes() != source.read_bytes():
                    raise RemoteError(f"copy by NBD: expected that of {source}, found another")
        return as_rates(samples, size)

    words = f"write {size // MIB} MiB, nbdcopy to qemu-nbd"
    yield Case(words, "GB/s", writing, at_least(0.7))


@subject("disk_pause", "the pause with a disk written at 50 MB/s, against that of a guest without")
def disk_pause(context: BenchContext) -> Iterator[Case]:
    """Give the cases.

    Both guests write the same pages of RAM, as many in each millisecond, and stand still only in
    checkpoints and while the other one is measured. The one with a disk has besides the pages of
    its requests: slots, buffers and its table of sectors. They are a part of what a disk costs.
    """
    pages = context.size(10_000, WORKING_MS)
    for transport in ("multifd", "memfd"):
        words = f"{thousands(pages)} pages, {transport}, a disk written, no disk"
        yield Case(words, "ms", partial(_pauses, context, pages, transport), at_most(1.05))


def _pauses(context: BenchContext, pages: int, transport: str) -> Measured:
    """Take checkpoints of both guests in turn."""
    # Twice the working set is written before each checkpoint.
    rate = 2 * pages // WORKING_MS
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_directory())
        size = context.size(WRITTEN_DISK, MIB)
        context.reserve(3 * size)
        pair = partial(WorkingPair, context, pages, transport, writes_per_tick=rate)
        disks = [f"{directory}/disk,size={size}"]
        ours = pair(guest="pages_and_sectors", disks=disks)
        reference = pair(guest="sequential")
        stack.enter_context(ours)
        stack.enter_context(reference)
        samples = context.compare(ours.sample, reference.sample, enough_seconds=ENOUGH_SECONDS)
        note = f"the disk was written at {ours.write_rate() / 1e6:.0f} MB/s"
        settings = ours.session.settings.as_json()
    return replace(as_times(samples, MILLISECONDS), note=note, settings=settings)


class WorkingPair(Pair):
    """A pair whose guest works for a while before each checkpoint.

    Parameters
    ----------
    context, pages, transport, settings
        As of `Pair`; among the settings is ``writes_per_tick``.
    """

    def __init__(self, context: BenchContext, pages: int, transport: str, **settings: Any) -> None:
        super().__init__(context, pages, transport, **settings)
        #: Seconds in which the guest worked, and writes to its disk meanwhile.
        self._worked, self._writes = 0.0, 0

    def _let_it_write(self, pages: int) -> None:
        began, before = time.monotonic(), self._count_writes()
        super()._let_it_write(2 * pages)
        self._worked += time.monotonic() - began
        self._writes += self._count_writes() - before

    def _count_writes(self) -> int:
        disks = self.session.nodes["primary"].execute("x-query-guest")["disks"]
        return sum(int(registers["writes"]) for registers in disks.values())

    def write_rate(self) -> float:
        """Give the bytes a second that the guest has written to its disk before checkpoints."""
        return self._writes * RUN_BYTES / self._worked


def _directory() -> contextlib.AbstractContextManager[str]:
    parent = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    return tempfile.TemporaryDirectory(prefix="cb-", dir=parent)


def _nothing() -> None:
    """Prepare nothing: each sample is one copy."""


def _empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def _serve(command: Sequence[str], socket: Path, stack: contextlib.ExitStack) -> str:
    """Start a server until the stack closes; return its URI."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    stack.callback(_end, server)
    deadline = time.monotonic() + _TIMEOUT
    while not socket.is_socket():
        if server.poll() is not None or time.monotonic() > deadline:
            raise LocalError(f"{command[0]}: expected a server at {socket}, found none")
        time.sleep(0.01)
    return str(NBDLocation(f"unix:{socket}"))


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.communicate(timeout=_TIMEOUT)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise RemoteError(f"{command[0]}: {done.stderr.strip() or done.returncode}")
