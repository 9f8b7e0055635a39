"""The encoding `xbzrle`: QEMU's records of the bytes that changed in a page since it was sent last.

The sender has a cache of pages as they were sent last. The first pass over RAM sends whole pages,
and does not enter the cache. Later, a page in the cache is sent as an XBZRLE record, or not at all
if it has not changed. A page outside the cache is sent whole and enters it, unless its slot was
used in the same collection of dirty pages or the one before. The receiver decodes over the page in
its RAM cache.
"""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np
import numpy.typing as npt

from colobench.kernels import xbzrle_records
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.node.channel import Channel
from colobench.node.migration.page_path import Pages, SectionStatistics
from colobench.node.migration.records import RecordWriter
from colobench.node.migration.stream import StreamSender
from colobench.wire.format import SectionType
from colobench.wire.ram import RAMRecordState, RecordSlice

#: Most bytes of pages in the sender's cache, the default of QEMU's xbzrle-cache-size.
CACHE_BYTES: Final = 64 << 20
#: Most bytes of records that one call sends.
_OUT_BYTES: Final = 256 * 1024


class XBZRLERecords(RecordWriter):
    """Writes pages as the bytes that changed since they were written last.

    Parameters
    ----------
    memory
        RAM with the pages.
    cache_bytes
        Most bytes of pages in the cache.
    """

    def __init__(self, memory: PageMemory, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(memory)
        slots = 1 << (min(memory.pages * PAGE_SIZE, cache_bytes) // PAGE_SIZE - 1).bit_length()
        if slots * PAGE_SIZE > cache_bytes:
            slots //= 2
        # Populated now: pages of np.zeros would be allocated in the middle of checkpoints.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        cache = mmap.mmap(-1, slots * PAGE_SIZE, flags=flags)
        self._cache = np.frombuffer(cache, dtype=np.uint8)
        self._cached = np.full(slots, -1, dtype=np.int32)
        self._ages = np.zeros(slots, dtype=np.int32)
        self._age = 0
        self._scratch = np.zeros(PAGE_SIZE, dtype=np.uint8)
        self._progress = np.zeros(xbzrle_records.PROGRESS_SLOTS, dtype=np.int64)

    def room(self, count: int) -> int:
        """Return the size in bytes of a buffer with room for `count` pages of any content."""
        return super().room(count) + xbzrle_records.RECORD_BYTES

    def begin(self) -> None:
        """Begin a section: all pages in the cache age by one collection."""
        self._age += 1

    def put(
        self,
        pages: Pages,
        part: RecordSlice,
        out: npt.NDArray[np.uint8],
        section: SectionStatistics,
    ) -> tuple[int, RecordSlice]:
        """Write records, see `RecordWriter`."""
        length = xbzrle_records.put_xbzrle_records(
            out,
            self._memory.array,
            pages,
            part.begin,
            part.end,
            part.block.first_page,
            part.named,
            part.name,
            self._cache,
            self._cached,
            self._ages,
            self._age,
            self._scratch,
            self._progress,
        )
        begin, records, zero_pages, encoded_pages, bytes_saved = self._progress.tolist()
        section.zero_pages += zero_pages
        section.encoded_pages += encoded_pages
        section.bytes_saved += bytes_saved
        return length, part._replace(begin=begin, name=part.name[:0] if records else part.name)


class XBZRLESender(StreamSender):
    """Sends records in the main stream, with XBZRLE from the second pass on.

    Parameters
    ----------
    channel, memory, records
        See `StreamSender`.
    writer
        Writer of the records, shared with the sender of buffered checkpoints.
    """

    def __init__(
        self, channel: Channel, memory: PageMemory, records: RAMRecordState, writer: XBZRLERecords
    ) -> None:
        super().__init__(channel, memory, records)
        self._writer = writer
        self._out = np.zeros(_OUT_BYTES, dtype=np.uint8)
        self._first_pass = True

    def begin(self, kind: SectionType, count: int) -> None:
        """Begin a section, see `PageSender`."""
        super().begin(kind, count)
        self._writer.begin()

    def send(self, pages: Pages) -> None:
        """Send pages, see `PageSender`; the last ones are sent together with the next bytes."""
        if self._first_pass:
            super().send(pages)
            return
        channel, out = self._channel, self._out
        for part in self._records.slices(pages):
            rest = part
            while rest.begin < rest.end:
                length, rest = self._writer.put(pages, rest, out, self.section)
                channel.write(out.data[:length])
                if rest.begin < rest.end:
                    channel.flush()
            if rest.named:
                self._records.name_next()

    def end(self) -> None:
        """End the section, see `PageSender`."""
        super().end()
        self._first_pass = False
