"""Buffer of a stream's bytes between their receiver and a parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from colobench.errors import LocalError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Capacity in bytes of a connection's buffer at first, and the limit to which it may grow.
CAPACITY: Final = 256 * 1024
GROWTH_LIMIT: Final = 16 * 1024 * 1024


class StreamBuffer:
    """Bytes that are received and not parsed yet.

    Attributes
    ----------
    view
        The memory, writable; the bytes are ``view[start:end]``.
    offset
        Offset in the stream of ``view[start]``.
    """

    def __init__(self, capacity: int = CAPACITY, limit: int = GROWTH_LIMIT) -> None:
        self._limit = limit
        self._hold(memoryview(bytearray(capacity)))
        self.start = 0
        self.end = 0
        self.offset = 0

    @classmethod
    def over(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> StreamBuffer:
        """Make a buffer that holds exactly `data`, copied only if it is read-only."""
        buffer = cls(0, 0)
        view = memoryview(data)
        buffer._hold(memoryview(bytearray(data)) if view.readonly else view.cast("B"))
        buffer.end = len(buffer.view)
        buffer.offset = offset
        return buffer

    def _hold(self, view: memoryview) -> None:
        self.view = view
        self._array: npt.NDArray[np.uint8] | None = None

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The memory as uint8[capacity], for kernels."""
        if self._array is None:
            # Who only reads streams needs no numpy.
            import numpy as np

            self._array = np.frombuffer(self.view, dtype=np.uint8)
        return self._array

    def __len__(self) -> int:
        """Number of bytes that are not parsed yet."""
        return self.end - self.start

    def space(self, at_least: int = 1) -> memoryview:
        """Return the free space, to receive bytes into; call `received` afterwards.

        Raises
        ------
        LocalError
            If the buffer would have to grow beyond its limit.
        """
        if self.start == self.end:
            self.start = self.end = 0
        if len(self.view) - self.end < at_least:
            self._make_room(len(self) + at_least)
        return self.view[self.end :]

    def _make_room(self, needed: int) -> None:
        waiting = self.view[self.start : self.end]
        if needed > len(self.view):
            if needed > self._limit:
                raise LocalError(
                    f"stream buffer: expected at most {self._limit} bytes, found {needed}"
                )
            self._hold(memoryview(bytearray(min(2 * needed, self._limit))))
        self.view[: len(waiting)] = waiting
        self.start, self.end = 0, len(waiting)

    def received(self, count: int) -> None:
        """Add `count` bytes, which the caller has written to `space`."""
        self.end += count

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes of the stream."""
        self.space(len(data))[: len(data)] = data
        self.end += len(data)

    def take(self, count: int) -> bytes:
        """Take `count` bytes; the buffer must hold them."""
        start = self.start
        self.start = stop = start + count
        self.offset += count
        return self.view[start:stop].tobytes()

    def peek(self, count: int, skip: int = 0) -> bytes:
        """Copy `count` bytes but for the first `skip`; they stay, and the buffer must hold them."""
        return self.view[self.start + skip : self.start + count].tobytes()

    def kernel_took(self, start: int, end: int, read: int = 0) -> None:
        """Note that a kernel left ``view[start:end]`` and read `read` bytes from the socket."""
        self.offset += len(self) + read - (end - start)
        self.start, self.end = start, end
