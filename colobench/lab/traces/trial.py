"""A recording on trial: a program that writes known pages."""

from __future__ import annotations

import select
import subprocess
import sys

import numpy as np

from colobench.lab.traces.tracee import RecordingUnavailable, Tracee
from colobench.lab.traces.written_pages import WrittenPages
from colobench.memory.ram import PAGE_SIZE

#: Pages of the program's mapping, of which it reads all and writes every third.
_PAGES = 96
_WRITTEN = list(range(0, _PAGES, 3))
_PROGRAM = f"""
import ctypes, mmap
memory = mmap.mmap(-1, {_PAGES * PAGE_SIZE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:]
for page in range(0, {_PAGES}, 3):
    memory[page * {PAGE_SIZE}] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
input()
"""


def try_recording() -> str:
    """Record a program that reads and writes pages, and check that the written ones are found.

    Returns
    -------
    str
        One line that says what works.

    Raises
    ------
    RecordingUnavailable
        If this machine cannot record it, or finds other pages.
    """
    tracee = Tracee(
        [sys.executable, "-I", "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        found = _written(tracee)
    finally:
        tracee.kill()
    if found != _WRITTEN:
        raise RecordingUnavailable(f"record: expected written pages {_WRITTEN}, found {found}")
    return "found exactly the pages that another program wrote, by ptrace and userfaultfd"


def _written(tracee: Tracee) -> list[int]:
    """Let the program run; return the pages of its mapping that were found written."""
    assert tracee.stdout is not None
    pages = WrittenPages(tracee)
    written: set[int] = set()
    try:
        tracee.go_on()
        while not select.select([tracee.stdout], [], [], 0.01)[0]:
            if tracee.poll() is not None:
                raise RecordingUnavailable("record: the program on trial ended")
            written |= _addresses(pages)
        # The program has written, and waits.
        written |= _addresses(pages)
        begin = int(tracee.stdout.readline())
    finally:
        pages.close()
    return [page for page in range(_PAGES) if begin + page * PAGE_SIZE in written]


def _addresses(pages: WrittenPages) -> set[int]:
    return {
        address
        for start, end in pages.scan().tolist()
        for address in np.arange(start, end, PAGE_SIZE).tolist()
    }
