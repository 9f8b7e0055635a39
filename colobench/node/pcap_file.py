"""Writer of pcap files, see `colobench.net.pcap`.

One call writes many whole records. If the process is killed, at most its last record is torn; the
next writer of the file cuts that record off.
"""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType

from colobench.errors import LocalError
from colobench.net import pcap

_READ_BYTES = 1 << 20


class PcapWriter:
    """A pcap file to which frames are appended.

    Parameters
    ----------
    path
        The file. A file that a `PcapWriter` made is continued after its last whole record.
    nanoseconds
        True for times in nanoseconds, False for microseconds. A continued file keeps its unit.

    Raises
    ------
    LocalError
        If the file cannot be opened, or is not a pcap file of ours.
    """

    def __init__(self, path: str | os.PathLike[str], *, nanoseconds: bool = True) -> None:
        self.path = os.fspath(path)
        self._records: list[bytes] = []
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(f"pcap file {self.path}: {error.strerror}") from error
        try:
            self._unit = self._begin(1 if nanoseconds else 1000)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> PcapWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, frame: bytes, time_ns: int) -> None:
        """Append a frame; it is in the file after the next `flush`.

        Parameters
        ----------
        frame
            The frame.
        time_ns
            Time at which it was seen, nanoseconds since 1970 (`time.time_ns`).
        """
        self._records += pcap.record(frame, time_ns, self._unit)

    def flush(self) -> None:
        """Write the frames that were appended so far.

        Raises
        ------
        LocalError
            If writing fails. These frames are lost, and the file is cut to whole records if
            possible.
        """
        if not self._records:
            return
        data = memoryview(b"".join(self._records))
        self._records.clear()
        begin = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, begin)
                os.lseek(self._file, begin, os.SEEK_SET)
            raise LocalError(f"pcap file {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Write the remaining frames, and close the file.

        Raises
        ------
        LocalError
            As from `flush`; the file is closed nevertheless.
        """
        if self._file < 0:
            return
        try:
            self.flush()
        finally:
            os.close(self._file)
            self._file = -1

    def _begin(self, unit: int) -> int:
        """Begin the file, or seek behind its last whole record; return its unit in nanoseconds."""
        found = os.pread(self._file, pcap.HEADER_BYTES, 0)
        if found:
            # A file with a torn header has no records yet.
            begun = pcap.unit_of(found)
            if begun is None:
                raise LocalError(
                    f"pcap file {self.path}: expected one that colobench began, found {found.hex()}"
                )
            unit = begun
        if len(found) < pcap.HEADER_BYTES:
            os.pwrite(self._file, pcap.HEADERS[unit], 0)
        end = self._end_of_records()
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return unit

    def _end_of_records(self) -> int:
        """Find the end of the last whole record."""
        size = os.fstat(self._file).st_size
        end = begin = pcap.HEADER_BYTES
        window = b""
        while end + pcap.RECORD_HEADER_BYTES <= size:
            if not begin <= end <= begin + len(window) - pcap.RECORD_HEADER_BYTES:
                begin, window = end, os.pread(self._file, _READ_BYTES, end)
            length = pcap.kept_bytes(window, end - begin)
            behind = end + pcap.RECORD_HEADER_BYTES + length
            if length > pcap.SNAPSHOT_LENGTH or behind > size:
                break
            end = behind
        return end
