"""Frames kept in a file that tcpdump, tshark and Wireshark read (pcap 2.4, LINKTYPE_ETHERNET).

Format: draft-ietf-opsawg-pcap. Records are written whole, many with one call. A process that is
killed leaves at most its last record torn; whoever opens the file next cuts that off.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from types import TracebackType

from colobench.errors import LocalError

LINKTYPE_ETHERNET = 1
#: Bytes that a record may have.
SNAPSHOT_LENGTH = 262144
_HEADER = struct.Struct("<IHHiIII")
#: How a file begins, by the nanoseconds in its unit of time.
_HEADERS = {
    unit: _HEADER.pack(magic, 2, 4, 0, 0, SNAPSHOT_LENGTH, LINKTYPE_ETHERNET)
    for unit, magic in ((1, 0xA1B23C4D), (1000, 0xA1B2C3D4))
}
_RECORD = struct.Struct("<IIII")
_READ_BYTES = 1 << 20


class PcapWriter:
    """A pcap file to which frames are appended.

    Parameters
    ----------
    path
        The file. One that a `PcapWriter` has made is continued, behind its last whole record.
    nanoseconds
        Whether times are kept in nanoseconds, not in microseconds. A file keeps what it began with.

    Raises
    ------
    LocalError
        If the file cannot be had, or is something else.
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
        frame, time_ns
            The frame, and when it was seen: nanoseconds since 1970 (`time.time_ns`).
        """
        seconds, rest = divmod(time_ns, 1_000_000_000)
        length = min(len(frame), SNAPSHOT_LENGTH)
        record = _RECORD.pack(seconds & 0xFFFFFFFF, rest // self._unit, length, len(frame))
        self._records += (record, frame[:length])

    def flush(self) -> None:
        """Write what was appended so far.

        Raises
        ------
        LocalError
            If the file takes no more. What was not written is lost, and the file ends in a whole
            record as far as it can be helped.
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
        """Write what is left and close the file.

        Raises
        ------
        LocalError
            As `flush` does; the file is closed nevertheless.
        """
        if self._file < 0:
            return
        try:
            self.flush()
        finally:
            os.close(self._file)
            self._file = -1

    def _begin(self, unit: int) -> int:
        """Begin the file, or go behind its last whole record; gives its unit in nanoseconds."""
        found = os.pread(self._file, _HEADER.size, 0)
        if found:
            # One that is torn before its end held nothing yet.
            units = (each for each, header in _HEADERS.items() if header.startswith(found))
            unit = next(units, 0)
        if not unit:
            raise LocalError(
                f"pcap file {self.path}: expected one that colobench began, found {found.hex()}"
            )
        if len(found) < _HEADER.size:
            os.pwrite(self._file, _HEADERS[unit], 0)
        end = self._end_of_records()
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return unit

    def _end_of_records(self) -> int:
        """Find the end of the last whole record."""
        size = os.fstat(self._file).st_size
        end = begin = _HEADER.size
        window = b""
        while end + _RECORD.size <= size:
            if not begin <= end <= begin + len(window) - _RECORD.size:
                begin, window = end, os.pread(self._file, _READ_BYTES, end)
            length = _RECORD.unpack_from(window, end - begin)[2]
            if length > SNAPSHOT_LENGTH or end + _RECORD.size + length > size:
                break
            end += _RECORD.size + length
        return end
