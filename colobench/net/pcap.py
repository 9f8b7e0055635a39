"""The bytes of pcap files (pcap 2.4, LINKTYPE_ETHERNET), as tcpdump and Wireshark read them.

Format: draft-ietf-opsawg-pcap. A file is a header and records; each record has a header of its own.
"""

from __future__ import annotations

import struct
from typing import Final

LINKTYPE_ETHERNET: Final = 1
#: Bytes that a record may have.
SNAPSHOT_LENGTH: Final = 262144
_HEADER = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
HEADER_BYTES: Final = _HEADER.size
RECORD_HEADER_BYTES: Final = _RECORD.size
#: How a file begins, by the nanoseconds in its unit of time.
HEADERS: Final = {
    unit: _HEADER.pack(magic, 2, 4, 0, 0, SNAPSHOT_LENGTH, LINKTYPE_ETHERNET)
    for unit, magic in ((1, 0xA1B23C4D), (1000, 0xA1B2C3D4))
}


def unit_of(begin: bytes) -> int | None:
    """Give the nanoseconds in the unit of time of a file that begins so; None if it is not ours.

    Parameters
    ----------
    begin
        The first HEADER_BYTES, or fewer of a file that is torn within them.
    """
    return next((unit for unit, header in HEADERS.items() if header.startswith(begin)), None)


def record(frame: bytes, time_ns: int, unit: int) -> tuple[bytes, bytes]:
    """Give a record's header, and the bytes of the frame that it keeps.

    Parameters
    ----------
    frame, time_ns
        The frame, and when it was seen: nanoseconds since 1970 (`time.time_ns`).
    unit
        Nanoseconds in the file's unit of time.
    """
    seconds, rest = divmod(time_ns, 1_000_000_000)
    length = min(len(frame), SNAPSHOT_LENGTH)
    header = _RECORD.pack(seconds & 0xFFFFFFFF, rest // unit, length, len(frame))
    return header, frame[:length]


def kept_bytes(data: bytes, at: int) -> int:
    """Give the bytes of a frame that the record whose header lies at ``data[at]`` keeps."""
    kept: int = _RECORD.unpack_from(data, at)[2]
    return kept
