"""Page records put into a buffer, as they are; an encoding puts them in another way."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from colobench.kernels import page_records
from colobench.memory.ram import PageMemory
from colobench.node.migration.page_path import Pages, SectionStatistics
from colobench.wire.ram import RecordSlice


class RecordWriter(ABC):
    """Puts page records into buffers.

    Parameters
    ----------
    memory
        The RAM that the pages are of.
    """

    def __init__(self, memory: PageMemory) -> None:
        self._memory = memory

    def room(self, count: int) -> int:
        """Give the bytes of a buffer that surely takes the records of `count` pages."""
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
        """Put the records of a part of a page list, as long as there is room.

        Parameters
        ----------
        pages, part
            The list, and which of its entries.
        out
            uint8, with room for one record at least.
        section
            Its counts grow.

        Returns
        -------
        length, rest
            Bytes put into `out`, and the part that is left; its name if none was put.
        """


class PlainRecords(RecordWriter):
    """Puts pages as they are."""

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
        """Put records, see `RecordWriter`."""
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
