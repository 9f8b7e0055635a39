"""The framing of links: a frame's length in 32 bits, big endian, then the frame, as QEMU has it.

That is what ``-netdev socket`` and ``-netdev stream`` say on a stream socket, and what the chardevs
of filter-mirror, filter-redirector and colo-compare say without virtio-net headers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from colobench.errors import RemoteError

#: The longest frame that is taken: 4 KiB and 64 KiB, QEMU's NET_BUFSIZE.
FRAME_LIMIT = 4096 + 65536
_LENGTH = struct.Struct(">I")


class LinkError(RemoteError):
    """The other end of a link does not keep to the framing: no frame can be found from there on."""


def encode_frame(frame: bytes) -> bytes:
    """Give a frame as it goes onto a link."""
    return _LENGTH.pack(len(frame)) + frame


def encode_frames(frames: Iterable[bytes]) -> bytes:
    """Give frames as they go onto a link, one behind the other."""
    return b"".join([_LENGTH.pack(len(frame)) + frame for frame in frames])


class LinkDecoder:
    """Finds the frames in what comes from a link, in pieces of whatever size.

    Parameters
    ----------
    limit
        The longest frame that is taken, in bytes.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._rest = b""

    @property
    def pending(self) -> int:
        """How many bytes of an incomplete frame there are, its length's among them."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes in, and give the frames that are complete now.

        Raises
        ------
        LinkError
            If a length is more than the limit. The frames in front of it are lost.
        """
        data = self._rest + data if self._rest else data
        frames = []
        begin, length_of = 0, _LENGTH.unpack_from
        last = len(data) - _LENGTH.size
        while begin <= last:
            (length,) = length_of(data, begin)
            if length > self._limit:
                raise LinkError(
                    f"link: expected a frame of at most {self._limit} bytes, found one of {length}"
                )
            end = begin + _LENGTH.size + length
            if end > len(data):
                break
            frames.append(data[begin + _LENGTH.size : end])
            begin = end
        self._rest = data[begin:]
        return frames
