"""Writers of page records into buffers; an encoding is another writer."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from colobench.kernels import page_records
from colobench.memory.ram import PageMemory
from colobench.node.migration.page_path import Pages, SectionStatistics
from colobench.wire.ram import RecordSlice


class RecordWriter(ABC):
    """Writes page records into buffers.

    Parameters
    ----------
    memory
        RAM with the pages.
    """

    def __init__(self, memory: PageMemory) -> None:
        self._memory = memory

    def room(self, count: int) -> int:
        """Return the size in bytes of a buffer with room for `count` pages of any content."""
        names = len(self._memory.blocks) * page_records.NAME_BYTES
        return count * page_records.PAGE_RECORD_BYTES + names

    def begin(self) -> None:  # noqa: B027 - pages as they are have nothing to begin
        """Begin a section."""

    @abstractmethod
    def put(
        self,
        pages: Pages,
        part: RecordSlice,
        out: npt.NDArray[np.uint8],
        section: SectionStatistics,
    ) -> tuple[int, RecordSlice]:
        """Write the records of a part of a page list, as long as there is room.

        Parameters
        ----------
        pages, part
            The page list, and the range of its entries to write.
        out
            uint8, with room for at least one record.
        section
            Counts to which those of the records are added.

        Returns
        -------
        length, rest
            Bytes written into `out`, and the remaining part, with its name if none was written.
        """


class PlainRecords(RecordWriter):
    """Writes whole pages."""

    def __init__(self, memory: PageMemory) -> None:
        super().__init__(memory)
        self._progress = np.zeros(2, dtype=np.int64)

    def put(
        self,
        pages: Pages,
        part: RecordSlice,
        out: npt.NDArray[np.uint8],
        section: SectionStatistics,
    ) -> tuple[int, RecordSlice]:
        """Write records, see `RecordWriter`."""
        fitting = (len(out) - page_records.NAME_BYTES) // page_records.PAGE_RECORD_BYTES
        end = min(part.end, part.begin + fitting)
        length = page_records.encode_page_records(
            out,
            self._memory.array,
            pages,
            part.begin,
            end,
            part.block.first_page,
            part.named,
            part.name,
            self._progress,
        )
        section.zero_pages += int(self._progress[1])
        return length, part._replace(begin=end, name=part.name[:0])
