"""The written pages of another process: write protection by userfaultfd, read by PAGEMAP_SCAN.

The userfaultfd must belong to the other process's memory, so that process makes it, and this one
takes a copy. Linux resolves the faults by itself; see `colobench.memory.userfault`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colobench.kernels import tracking
from colobench.lab.traces.tracee import SYS_CLOSE, RecordingUnavailable, Tracee
from colobench.memory.userfault import (
    PAGE_IS_WRITTEN,
    PM_SCAN_WP_MATCHING,
    SYS_USERFAULTFD,
    UFFD_API,
    UFFD_FEATURE_WP_ASYNC,
    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    UFFD_USER_MODE_ONLY,
    UFFDIO_API,
    UFFDIO_REGISTER,
    UFFDIO_REGISTER_MODE_WP,
)

#: linux/fs.h: categories of pages.
PAGE_IS_WPALLOWED, PAGE_IS_FILE, PAGE_IS_PRESENT, PAGE_IS_PFNZERO = 1 << 0, 1 << 2, 1 << 3, 1 << 5
SYS_PIDFD_GETFD = 438
#: Runs of pages in one call of PAGEMAP_SCAN.
REGIONS = 16384
#: Columns of /proc/PID/statm that change when mappings do: all pages, and pages of data.
_SIZE, _DATA = 0, 5
#: Scans after which mappings are read again although their sizes are unchanged.
_READ_AGAIN = 16
_MAPS_BYTES = 1 << 16

Runs = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class AddressRange:
    """A mapping that is recorded: its addresses and its name.

    Attributes
    ----------
    start, end
        Addresses of the first byte, and after the last.
    name
        Name of the mapped file without directory, ``[heap]``, ``[stack]`` or ``anonymous``.
    """

    start: int
    end: int
    name: str


def recorded_ranges(maps: str) -> list[AddressRange]:
    """Choose the mappings of /proc/PID/maps that are recorded: private and writable."""
    found = []
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 5 or fields[1][1] != "w" or fields[1][3] != "p":
            continue
        path = fields[5] if len(fields) == 6 else "anonymous"
        start, _, end = fields[0].partition("-")
        found.append(AddressRange(int(start, 16), int(end, 16), os.path.basename(path)))
    return found


class WrittenPages:
    """The pages that a process writes, from its exec on.

    Parameters
    ----------
    tracee
        The program, which stands still after its exec.

    Attributes
    ----------
    ranges
        All mappings that have been recorded, in the order in which they were found.

    Raises
    ------
    RecordingUnavailable
        If Linux, or its configuration, does not allow it.
    """

    def __init__(self, tracee: Tracee) -> None:
        self.ranges: dict[AddressRange, None] = {}
        self._current: list[AddressRange] = []
        self._sizes: tuple[str, str] | None = None
        self._scans = 0
        self._regions: Runs = np.zeros((REGIONS, tracking.REGION_WORDS), dtype=np.uint64)
        self._request = self._new_request()
        with ExitStack() as stack:
            self._userfaultfd = _take_userfaultfd(tracee)
            stack.callback(os.close, self._userfaultfd)
            self._files = {}
            for name in ("pagemap", "maps", "statm"):
                path = f"/proc/{tracee.pid}/{name}"
                try:
                    self._files[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise RecordingUnavailable(f"record: {path}: {error.strerror}") from error
                stack.callback(os.close, self._files[name])
            self._descriptors = stack
            # Pages that exec wrote are not the program's.
            self.scan()
            self._descriptors = stack.pop_all()

    def scan(self) -> Runs:
        """List the pages written since the last scan, and protect them again.

        Returns
        -------
        ndarray
            uint64[runs, 2]: addresses of the first page of each run, and after the last; ascending.
            Empty if the process has gone.
        """
        try:
            self._follow_mappings()
        except ProcessLookupError:
            self._current = []
        if not self._current:
            return np.zeros((0, 2), dtype=np.uint64)
        request, found = self._request, []
        request[tracking.START] = min(each.start for each in self._current)
        request[tracking.STOP] = max(each.end for each in self._current)
        while request[tracking.START] < request[tracking.STOP]:
            try:
                count = fcntl.ioctl(self._files["pagemap"], tracking.PAGEMAP_SCAN, request.data)
            except ProcessLookupError:
                break
            except OSError as error:
                raise RecordingUnavailable(f"record: PAGEMAP_SCAN: {error.strerror}") from error
            found.append(self._regions[:count, :2].copy())
            request[tracking.START] = request[tracking.WALK_END]
        return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.uint64)

    def close(self) -> None:
        """Close all descriptors, which ends the protection."""
        self._descriptors.close()

    def _follow_mappings(self) -> None:
        """Protect the mappings that are new, also where one of the same size was a moment ago."""
        statm = os.pread(self._files["statm"], 256, 0).decode().split()
        if not statm:
            raise ProcessLookupError
        sizes = statm[_SIZE], statm[_DATA]
        if sizes != self._sizes or self._scans % _READ_AGAIN == 0:
            self._sizes = sizes
            self._current = recorded_ranges(_read_whole(self._files["maps"]))
            self.ranges.update(dict.fromkeys(self._current))
        self._scans += 1
        for each in self._current:
            arguments = (each.start, each.end - each.start, UFFDIO_REGISTER_MODE_WP, 0)
            # The mapping may have gone since; then the next scan finds the new ones.
            with suppress(OSError):
                fcntl.ioctl(self._userfaultfd, UFFDIO_REGISTER, struct.pack("=4Q", *arguments))

    def _new_request(self) -> npt.NDArray[np.uint64]:
        """Fill in a struct pm_scan_arg: pages that are protected no more.

        A page that was never touched also counts as written, and so does a page of a file that was
        only read: they are left out as not present, as the zero page, or as pages of a file.
        """
        request = np.zeros(tracking.SCAN_WORDS, dtype=np.uint64)
        request[tracking.SIZE] = request.nbytes
        request[tracking.FLAGS] = PM_SCAN_WP_MATCHING
        request[tracking.VECTOR] = self._regions.ctypes.data
        request[tracking.VECTOR_LENGTH] = REGIONS
        unwanted = PAGE_IS_PFNZERO | PAGE_IS_FILE
        request[tracking.CATEGORY_INVERTED] = unwanted
        request[tracking.CATEGORY_MASK] = (
            PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN | PAGE_IS_PRESENT | unwanted
        )
        request[tracking.RETURN_MASK] = PAGE_IS_WRITTEN
        return request


def _read_whole(descriptor: int) -> str:
    """Read a file of /proc from its beginning, which takes several calls."""
    parts, offset = [], 0
    while part := os.pread(descriptor, _MAPS_BYTES, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts).decode(errors="replace")


def _take_userfaultfd(tracee: Tracee) -> int:
    """Have the program make a userfaultfd, take a copy, and close the program's own."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK | UFFD_USER_MODE_ONLY
    try:
        theirs = tracee.call(SYS_USERFAULTFD["x86_64"], flags)
    except OSError as error:
        raise RecordingUnavailable(f"record: userfaultfd: {error.strerror}") from error
    pidfd = os.pidfd_open(tracee.pid)
    try:
        ours = _copy_descriptor(pidfd, theirs)
    finally:
        os.close(pidfd)
    try:
        tracee.call(SYS_CLOSE, theirs)
        features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_ASYNC
        fcntl.ioctl(ours, UFFDIO_API, bytearray(struct.pack("=3Q", UFFD_API, features, 0)))
    except OSError as error:
        os.close(ours)
        raise RecordingUnavailable(
            f"record: userfaultfd: expected asynchronous write protection (Linux 6.7 or later), "
            f"found: {error.strerror}"
        ) from error
    return ours


def _copy_descriptor(pidfd: int, theirs: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    ours: int = libc.syscall(SYS_PIDFD_GETFD, pidfd, theirs, 0)
    if ours < 0:
        raise RecordingUnavailable(f"record: pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    return ours
