"""Migration file in which each page of RAM has its own place, to write only those that changed.

It is an ordinary stream for QEMU's ``-incoming``::

    header | START ram, the blocks | END ram: a PAGE record for each page | devices | EOF

A page's record has the same offset in all files of a machine. The devices follow RAM, so their
length may change.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.kernels import bitmap
from colobench.kernels.page_records import HEADER_BYTES, PAGE_RECORD_BYTES
from colobench.memory.ram import PAGE_SIZE, PageMemory, RAMBlock
from colobench.wire import savevm
from colobench.wire.format import BE64, RAMFlag, SectionType, counted_string
from colobench.wire.ram import PagesByBlock

#: Most pages whose records are made at once.
_RUN_PAGES: Final = 256
_CONTINUED: Final = int(RAMFlag.PAGE | RAMFlag.CONTINUE)


class ImageLayout(NamedTuple):
    """Places of the parts of a machine's file.

    Attributes
    ----------
    head
        Bytes before the first page record.
    places
        Offset of each block's first record, by the block's first page.
    foot
        Bytes behind the last page record.
    foot_place
        Their offset.
    """

    head: bytes
    places: dict[int, int]
    foot: bytes
    foot_place: int

    @classmethod
    def of(cls, header: bytes, section_id: int, blocks: Sequence[RAMBlock]) -> ImageLayout:
        """Lay out a machine's file.

        Parameters
        ----------
        header
            The stream's header, up to the end of CONFIGURATION.
        section_id
            RAM's section id.
        blocks
            RAM's blocks.
        """
        head = header + savevm.ram_section_start(section_id, blocks)
        head += savevm.ram_section_begin(SectionType.END, section_id)
        places, at = {}, len(head)
        for block in blocks:
            places[block.first_page] = at
            at += len(counted_string(block.name)) + block.pages * PAGE_RECORD_BYTES
        return cls(head, places, savevm.ram_section_finish(section_id), at)


class Image:
    """A file of a machine, with the pages that it still lacks.

    Parameters
    ----------
    file
        Descriptor of the empty file, which this object closes.
    layout
        Places in it.
    memory
        Memory from which pages are written.

    Attributes
    ----------
    lacking
        uint64[pages / 64]; a set bit says that the page's record is old or missing.

    Raises
    ------
    OSError
        If there is no room; the file is closed then.
    """

    def __init__(self, file: int, layout: ImageLayout, memory: PageMemory) -> None:
        self._file, self._layout, self._memory = file, layout, memory
        self._split = PagesByBlock(memory.blocks)
        self._pages = np.zeros(memory.pages, dtype=np.int32)
        self._records = np.zeros((_RUN_PAGES, PAGE_RECORD_BYTES), dtype=np.uint8)
        self.lacking: npt.NDArray[np.uint64] = np.zeros_like(memory.bitmap)
        self._lacks_all = True
        try:
            # All room is taken now: later writes of pages need no more.
            os.posix_fallocate(file, 0, layout.foot_place + len(layout.foot))
            self._write(layout.head, 0)
            self._write(layout.foot, layout.foot_place)
        except BaseException:
            os.close(file)
            raise

    def write_pages(self) -> int:
        """Write the pages that the file lacks, and give their number.

        Raises
        ------
        OSError
            If that fails; the file lacks them still.
        """
        if self._lacks_all:
            self._lack_all()
            self._lacks_all = False
        count = int(bitmap.list_pages(self.lacking, self._pages))
        for block, begin, end in self._split.slices(self._pages[:count]):
            self._write_block(block, self._pages[begin:end] - block.first_page)
        bitmap.clear(self.lacking)
        return count

    def write_devices(self, devices: bytes) -> int:
        """Write the sections of devices and what follows them, and give the file's length.

        Raises
        ------
        OSError
        """
        place = self._layout.foot_place + len(self._layout.foot)
        self._write(devices, place)
        os.ftruncate(self._file, place + len(devices))
        try:
            os.fsync(self._file)
        except OSError:
            # The kernel forgets which writes have failed: the next call may succeed without them.
            # The bits are set later, because the next checkpoint may be adding its own just now.
            self._lacks_all = True
            raise
        return place + len(devices)

    def is_at(self, path: Path) -> bool:
        """Say whether the file has that name."""
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(path))
        except OSError:
            return False

    def is_ours(self, path: Path) -> bool:
        """Say whether the file has that name only, and no other process may have it open.

        Another one must find it as it is: a reader, or who has moved or linked it to a name.
        """
        if not self.is_at(path) or os.fstat(self._file).st_nlink != 1:
            return False
        # A lease for writing is granted only if nobody else has it open. The signal of a process
        # that opens it meanwhile would end us, if it were not one that is ignored.
        try:
            fcntl.fcntl(self._file, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _lack_all(self) -> None:
        for block in self._memory.blocks:
            bits = np.zeros(self._memory.pages, dtype=np.uint8)
            bits[block.first_page : block.first_page + block.pages] = 1
            self.lacking |= np.packbits(bits, bitorder="little").view(np.uint64)

    def _write_block(self, block: RAMBlock, pages: npt.NDArray[np.int32]) -> None:
        """Write pages of a block, ascending numbers within it."""
        place = self._layout.places[block.first_page]
        ram = self._memory.block_bytes(block).reshape(-1, PAGE_SIZE)
        name = counted_string(block.name)
        if not pages[0]:
            self._write(BE64.pack(RAMFlag.PAGE) + name + ram[0].tobytes(), place)
            pages = pages[1:]
        place += len(name)
        for at in range(0, len(pages), _RUN_PAGES):
            self._write_records(ram, pages[at : at + _RUN_PAGES], place)

    def _write_records(
        self, ram: npt.NDArray[np.uint8], pages: npt.NDArray[np.int32], place: int
    ) -> None:
        """Write records of pages, by one call for each run of them."""
        records = self._records[: len(pages)]
        words = pages.astype(np.uint64) * PAGE_SIZE + _CONTINUED
        records[:, :HEADER_BYTES] = words.astype(">u8").view(np.uint8).reshape(len(pages), -1)
        records[:, HEADER_BYTES:] = ram[pages]
        data = records.reshape(-1).data
        begin = 0
        for end in [*(np.flatnonzero(np.diff(pages) != 1) + 1).tolist(), len(pages)]:
            run = data[begin * PAGE_RECORD_BYTES : end * PAGE_RECORD_BYTES]
            self._write(run, place + int(pages[begin]) * PAGE_RECORD_BYTES)
            begin = end

    def _write(self, data: bytes | memoryview, place: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._file, view, place)
            view, place = view[count:], place + count
