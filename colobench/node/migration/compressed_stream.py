"""The encodings `zstd` and `lz4` in the main stream: blocks of compressed page records."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from colobench.memory.ram import PageMemory
from colobench.node.channel import Channel
from colobench.node.migration.page_path import Pages, SectionStatistics
from colobench.node.migration.records import PlainRecords, RecordWriter
from colobench.node.migration.stream import StreamSender
from colobench.wire.compressed_records import (
    BLOCK_PAGES,
    COMPRESSED_RECORDS,
    HEADER,
    RECORDS_LIMIT,
)
from colobench.wire.compression import Compressor, compressed_limit
from colobench.wire.format import BE64, RAMFlag
from colobench.wire.ram import RAMRecordState, RecordSlice

_BLOCK_LIMIT: Final = HEADER.size + compressed_limit(RECORDS_LIMIT)
_EOS: Final = BE64.pack(RAMFlag.EOS)


class CompressedRecords(RecordWriter):
    """Writes pages as compressed blocks of page records.

    Parameters
    ----------
    memory
        RAM with the pages.
    compressor
        Compressor of the connection's blocks, in their order.
    """

    def __init__(self, memory: PageMemory, compressor: Compressor) -> None:
        super().__init__(memory)
        self._compressor = compressor
        self._plain = PlainRecords(memory)
        self._records = np.zeros(RECORDS_LIMIT, dtype=np.uint8)

    def room(self, count: int) -> int:
        """Return the size in bytes of a buffer with room for `count` pages of any content."""
        return (count // BLOCK_PAGES + 1 + len(self._memory.blocks)) * _BLOCK_LIMIT

    def put(
        self,
        pages: Pages,
        part: RecordSlice,
        out: npt.NDArray[np.uint8],
        section: SectionStatistics,
    ) -> tuple[int, RecordSlice]:
        """Write blocks, see `RecordWriter`."""
        written = 0
        while part.begin < part.end and len(out) - written >= _BLOCK_LIMIT:
            begin = part.begin
            room = self._records[: -len(_EOS)]
            size, part = self._plain.put(pages, part, room, section)
            self._records.data[size : size + len(_EOS)] = _EOS
            block = self._compressor.compress(self._records.data[: size + len(_EOS)])
            end = written + HEADER.size + len(block)
            header = HEADER.pack(COMPRESSED_RECORDS, size + len(_EOS), len(block))
            out.data[written:end] = header + block
            section.encoded_pages += part.begin - begin
            section.bytes_saved += size - (end - written)
            written = end
        return written, part


class CompressedStreamSender(StreamSender):
    """Sends compressed blocks of records in the main stream.

    Parameters
    ----------
    channel, memory, records
        See `StreamSender`.
    writer
        Writer of the blocks, shared with the sender of buffered checkpoints.
    """

    def __init__(
        self,
        channel: Channel,
        memory: PageMemory,
        records: RAMRecordState,
        writer: CompressedRecords,
    ) -> None:
        super().__init__(channel, memory, records)
        self._writer = writer
        self._out = np.zeros(_BLOCK_LIMIT, dtype=np.uint8)

    def send(self, pages: Pages) -> None:
        """Send pages, see `PageSender`: the receiver stores a block while the next one is made."""
        channel, out = self._channel, self._out
        for part in self._records.slices(pages):
            rest = part
            while rest.begin < rest.end:
                length, rest = self._writer.put(pages, rest, out, self.section)
                channel.write(out.data[:length])
                channel.flush()
