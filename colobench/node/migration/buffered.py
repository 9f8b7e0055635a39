"""Layout `buffered`: one buffer with a checkpoint's pages and devices."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from colobench.memory.ram import PageMemory
from colobench.node.migration.page_path import Pages, PageSender
from colobench.node.migration.records import RecordWriter
from colobench.wire import savevm
from colobench.wire.format import SectionType
from colobench.wire.ram import RAMRecordState

#: Room beside the pages, bytes; a buffer grows if devices need more.
_FRAME_BYTES: Final = 64 * 1024


class BufferedSender(PageSender):
    """Writes a RAM section into a buffer, which is sent when it has the devices, too.

    Parameters
    ----------
    memory
        RAM whose pages are sent.
    records
        Block of the last record, shared with the sender of the migration.
    writer
        Writer of the records.
    """

    def __init__(self, memory: PageMemory, records: RAMRecordState, writer: RecordWriter) -> None:
        super().__init__(memory)
        self._records, self._writer = records, writer
        self._buffer: npt.NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self._end = 0

    def begin(self, kind: SectionType, count: int) -> None:
        """Begin a section, see `PageSender`; the buffer grows if it is too small."""
        self.section.clear()
        self._writer.begin()
        room = self._writer.room(count) + _FRAME_BYTES
        if len(self._buffer) < room:
            self._buffer = np.zeros(room, dtype=np.uint8)
        self._end = 0
        self._put(savevm.ram_section_begin(kind, savevm.RAM_SECTION_ID))

    def send(self, pages: Pages) -> None:
        """Write pages into the buffer."""
        for part in self._records.slices(pages):
            length, rest = self._writer.put(pages, part, self._buffer[self._end :], self.section)
            self._end += length
            if rest.named:
                self._records.name_next()

    def end(self) -> None:
        """End the section in the buffer."""
        self._put(savevm.ram_section_finish(savevm.RAM_SECTION_ID))

    def with_devices(self, devices: bytes) -> memoryview:
        """Append the devices, and return the buffer; it is valid until the next section."""
        self._put(devices)
        return self._buffer.data[: self._end]

    def _put(self, data: bytes) -> None:
        end = self._end + len(data)
        if end > len(self._buffer):
            self._buffer = np.concatenate([self._buffer, np.zeros(len(data), dtype=np.uint8)])
        self._buffer.data[self._end : end] = data
        self._end = end
