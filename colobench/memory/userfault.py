"""The tracker `userfault`: Linux notes the first write to each page, and lists those pages.

With asynchronous write protection by userfaultfd, Linux resolves each fault by itself, without a
notification, also the faults of its own writes. PAGEMAP_SCAN then lists the pages that are no
longer protected, and protects them again. The userfaultfd is for user mode only, so it needs no
privilege. This takes Linux 6.7 or later; see Linux's
Documentation/admin-guide/mm/{userfaultfd,pagemap}.rst.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
from contextlib import ExitStack

import numpy as np

from colobench.kernels import tracking
from colobench.memory.ram import PAGE_SIZE, RAM
from colobench.memory.tracker import Tracker, TrackerUnavailable, Words, require_small_pages

# linux/userfaultfd.h and linux/fs.h
SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
UFFD_USER_MODE_ONLY = 1
UFFD_API = 0xAA
UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12
UFFD_FEATURE_WP_ASYNC = 1 << 15
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
UFFDIO_REGISTER_MODE_WP = 1 << 1
UFFDIO_WRITEPROTECT = 0xC018AA06
UFFDIO_WRITEPROTECT_MODE_WP = 1 << 0
PM_SCAN_WP_MATCHING = 1 << 0
PM_SCAN_CHECK_WPASYNC = 1 << 1
PAGE_IS_WRITTEN = 1 << 1

#: Limit of the runs of pages in one call of PAGEMAP_SCAN; their list fits in the CPU's cache.
REGIONS = 8192


class UserFault(Tracker):
    """Tracker by write protection that Linux removes from a page at the first write."""

    name = "userfault"
    _probe_writers = " (by user and kernel), without privilege"

    def __init__(self, ram: RAM) -> None:
        super().__init__(ram)
        require_small_pages(self.name)
        self._begin = ram.array.ctypes.data
        self._regions: Words = np.zeros(tracking.REGION_WORDS * REGIONS, dtype=np.uint64)
        self._nowhere: Words = np.zeros(0, dtype=np.uint64)
        self._ask = self._request(self._regions)
        self._protect = self._request(self._nowhere)
        self._small_pages = False
        with ExitStack() as stack:
            self._userfaultfd = _open_userfaultfd()
            stack.callback(os.close, self._userfaultfd)
            features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_ASYNC
            _ioctl(self._userfaultfd, "UFFDIO_API", UFFDIO_API, UFFD_API, features, 0)
            register = (self._begin, len(ram.array), UFFDIO_REGISTER_MODE_WP, 0)
            _ioctl(self._userfaultfd, "UFFDIO_REGISTER", UFFDIO_REGISTER, *register)
            self._pagemap = _open_pagemap()
            stack.callback(os.close, self._pagemap)
            self._descriptors = stack.pop_all()

    def close(self) -> None:
        """Close both descriptors, which ends the protection."""
        super().close()
        self._descriptors.close()

    def _arm(self) -> None:
        if not self._small_pages:
            # Splits huge pages, which PAGEMAP_SCAN would protect and report as a whole. Registered
            # memory gets no new huge pages.
            protect = (self._begin, len(self.ram.array), UFFDIO_WRITEPROTECT_MODE_WP)
            _ioctl(self._userfaultfd, "UFFDIO_WRITEPROTECT", UFFDIO_WRITEPROTECT, *protect)
            self._small_pages = True
        # Protects the unprotected pages; UFFDIO_WRITEPROTECT would take several times as long.
        self._scan(self._protect, self._nowhere, self._nowhere)

    def _collect(self, into: Words) -> None:
        self._scan(self._ask, self._regions, into)

    def _disarm(self) -> None:
        """Do nothing: `arm` forgets the pages written until then.

        Removing the protection would not make the first write cheaper, because the page table's
        entry stays read-only until that write.
        """

    def _scan(self, request: Words, regions: Words, into: Words) -> None:
        found = tracking.scan_written(self._pagemap, self._begin, request, regions, into)
        if found < 0:
            raise TrackerUnavailable(f"userfault: PAGEMAP_SCAN: {os.strerror(-found)}")

    def _request(self, regions: Words) -> Words:
        """Fill in a struct pm_scan_arg for all of RAM."""
        request = np.zeros(tracking.SCAN_WORDS, dtype=np.uint64)
        request[tracking.SIZE] = request.nbytes
        request[tracking.FLAGS] = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC
        request[tracking.STOP] = self._begin + len(self.ram.array)
        if len(regions):
            request[tracking.VECTOR] = regions.ctypes.data
            request[tracking.VECTOR_LENGTH] = len(regions) // tracking.REGION_WORDS
        request[tracking.CATEGORY_MASK] = request[tracking.RETURN_MASK] = PAGE_IS_WRITTEN
        return request

    def _touch(self, page: int) -> None:
        """Write to odd pages directly, and to even pages by a system call."""
        if page % 2:
            super()._touch(page)
            return
        with open("/dev/zero", "rb", buffering=0) as zeros:
            zeros.readinto(self.ram.array[page * PAGE_SIZE :][:1].data)


def _open_userfaultfd() -> int:
    number = SYS_USERFAULTFD.get(platform.machine())
    if number is None:
        raise TrackerUnavailable(
            f"userfault: userfaultfd: no system call number known for {platform.machine()}"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | UFFD_USER_MODE_ONLY)
    if descriptor < 0:
        raise TrackerUnavailable(f"userfault: userfaultfd: {os.strerror(ctypes.get_errno())}")
    return descriptor


def _open_pagemap() -> int:
    path = "/proc/self/pagemap"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TrackerUnavailable(f"userfault: {path}: {error.strerror}") from error


def _ioctl(descriptor: int, name: str, request: int, *words: int) -> None:
    """Call ioctl with a structure of 64-bit words; an error names the request."""
    try:
        fcntl.ioctl(descriptor, request, bytearray(struct.pack(f"={len(words)}Q", *words)))
    except OSError as error:
        raise TrackerUnavailable(f"userfault: {name}: {error.strerror}") from error
