"""The transport `stream`: page records in the main stream, as classic QEMU sends them."""

from __future__ import annotations

from typing import Final

import numpy as np

from colobench.kernels import page_records, socket_io
from colobench.memory.ram import PageMemory
from colobench.node.channel import Channel
from colobench.node.migration.page_path import PageReceiver, Pages, PageSender
from colobench.node.watchdog import CALL_BYTES
from colobench.wire import savevm
from colobench.wire.format import SectionType
from colobench.wire.ram import RAMRecordState, RecordSlice
from colobench.wire.reading import PageRun, StreamBuffer, page_run_error

#: Most bytes of the main stream that one call sends together with the first records.
_LEAD_BYTES: Final = 4096
#: Bytes around the records of a section.
_SECTION_BEGINS: Final = {
    kind: savevm.ram_section_begin(kind, savevm.RAM_SECTION_ID)
    for kind in (SectionType.PART, SectionType.END)
}
_SECTION_FINISH: Final = savevm.ram_section_finish(savevm.RAM_SECTION_ID)


class StreamSender(PageSender):
    """Sends records directly from RAM on the main connection.

    Parameters
    ----------
    channel
        The main connection.
    memory
        The RAM that pages are sent from.
    records
        Block of the last record, which is kept across sections and checkpoints.
    """

    def __init__(self, channel: Channel, memory: PageMemory, records: RAMRecordState) -> None:
        super().__init__(memory)
        self._channel = channel
        self._records = records
        self._lead = np.zeros(_LEAD_BYTES, dtype=np.uint8)
        self._headers = np.zeros(socket_io.HEADERS_BYTES, dtype=np.uint8)
        self._iov = np.zeros(socket_io.IOV_WORDS, dtype=np.uint64)
        self._progress = np.zeros(2, dtype=np.int64)
        channel.attach(self)

    @property
    def moved(self) -> int:
        """Bytes that the running kernel call has sent."""
        return int(self._progress[0])

    def begin(self, kind: SectionType, count: int) -> None:
        """Begin a section, see `PageSender`."""
        self.section.clear()
        self._channel.write(_SECTION_BEGINS[kind])

    def send(self, pages: Pages) -> None:
        """Send pages, see `PageSender`."""
        for part in self._records.slices(pages):
            self._send_part(pages, part)

    def end(self) -> None:
        """End the section, see `PageSender`."""
        self._channel.write(_SECTION_FINISH)

    def _send_part(self, pages: Pages, part: RecordSlice) -> None:
        channel, progress = self._channel, self._progress
        lead_bytes = channel.take_pending(self._lead)
        size = lead_bytes + (part.end - part.begin) * page_records.PAGE_RECORD_BYTES
        with channel.watchdog.due(unseen=min(size, CALL_BYTES)):
            status = socket_io.send_page_records(
                channel.fileno(),
                self._memory.array,
                pages,
                part.begin,
                part.end,
                part.block.first_page,
                part.named,
                part.name,
                self._lead,
                lead_bytes,
                self._headers,
                self._iov,
                progress,
            )
        channel.sent += int(progress[0])
        progress[0] = 0
        if status < 0:
            raise channel.failed("send", -status)
        self.section.zero_pages += int(progress[1])


class StreamReceiver(PageReceiver):
    """Receives records from the main connection: one kernel call for a run of them.

    Parameters
    ----------
    channel
        The main connection.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        channel.attach(self)
        channel.receive_with(self)

    @property
    def moved(self) -> int:
        """Bytes that the running kernel call has received."""
        return int(self.cursor[page_records.BYTES_READ])

    def take_records(self, buffer: StreamBuffer, run: PageRun) -> int:
        """Take records from the buffer and from the socket, see `PageSource`.

        With XBZRLE records are short, so that a buffer holds many, and no more are received here.
        """
        if run.decoder is not None:
            return super().take_records(buffer, run)
        buffer.space()
        self.point_to(buffer)
        return int(
            socket_io.receive_page_records(
                self._channel.fileno(), buffer.array, self.cursor, *run.place
            )
        )

    def error(self, status: int, buffer: StreamBuffer, run: PageRun) -> Exception:
        """Give the error for a kernel's status, see `PageSource`."""
        channel = self._channel
        if status < 0:
            return channel.failed("receive", -status)
        error = page_run_error(run, status, self.cursor, buffer.offset)
        if status == page_records.END:
            return channel.ended(f"connection closed: {error}")
        return error
