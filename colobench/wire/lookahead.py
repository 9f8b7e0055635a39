"""Requests of a parser that reads a stream of any size, and their driver.

Besides a number of bytes, such a parser yields `Skip`, `LookAhead` or `CountRecords`. It holds no
more of the stream than one window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from colobench.wire.buffer import StreamBuffer
from colobench.wire.errors import StreamEnded
from colobench.wire.page_counts import Marks, Pages, RecordCounter
from colobench.wire.steps import Ahead, LookAhead, Steps

T = TypeVar("T")

#: Bytes that are read at once, and the limit to which a parser may look ahead.
WINDOW = 1024 * 1024
LOOK_AHEAD_LIMIT = 64 * 1024 * 1024
_LITTLE = 64 * 1024


class Skip(NamedTuple):
    """Request to skip a number of bytes, however many; the answer is None."""

    size: int


class SkipRest(NamedTuple):
    """Request to skip all bytes to the end; the answer is their number."""


class CountRecords(NamedTuple):
    """Request to count the page records with CONTINUE that follow, and to skip them.

    The answer is a `RecordCounter`, whose parameters these are.
    """

    seen: Marks
    block_pages: int
    one_kind: bool
    kept: Pages
    first_kept: int
    #: Offset in the stream up to which records are taken.
    limit: int | None = None


def within(parser: Steps[T], at: StreamBuffer, end: int) -> Steps[T]:
    """Give a parser the bytes before offset `end` only, as if the stream ended there."""
    answer: Any = None
    refused: StreamEnded | None = None
    clipped: LookAhead | None = None
    while True:
        try:
            request = parser.send(answer) if refused is None else parser.throw(refused)
        except StopIteration as stop:
            value: T = stop.value
            return value
        answer = refused = clipped = None
        left = end - at.offset
        if isinstance(request, SkipRest):
            yield Skip(left)
            answer = left
            continue
        wanted = request if isinstance(request, int) else getattr(request, "size", 0)
        if isinstance(request, CountRecords):
            request = request._replace(limit=min(end, request.limit or end))
        elif isinstance(request, LookAhead):
            clipped = LookAhead(min(wanted, left))
            request = clipped
        elif isinstance(wanted, int) and wanted > left:
            refused = _ended(wanted, left, at.offset)
            continue
        try:
            answer = yield request
        except StreamEnded as error:
            refused = error
            continue
        if clipped is not None:
            answer = Ahead(answer.data, answer.final or len(answer.data) == left)


def _ended(wanted: int, found: int, offset: int) -> StreamEnded:
    return StreamEnded("stream", expected=f"{wanted} bytes", found=f"{found} bytes", offset=offset)


class Driver:
    """Driver of one parser over bytes that are read as they are needed.

    Parameters
    ----------
    buffer
        The buffer that the parser reads from.
    read_into
        Function that reads bytes into a memoryview, and gives their number, 0 at the end.
    progress
        Function that is called with the number of bytes read so far.
    """

    def __init__(
        self,
        buffer: StreamBuffer,
        read_into: Callable[[memoryview], int],
        progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._buffer = buffer
        self._read_into = read_into
        self._progress = progress
        self._final = False

    def run(self, parser: Steps[T]) -> T:
        """Run a parser to its end.

        If the stream ends before a request is fulfilled, `StreamEnded` is raised in the parser.
        """
        answer: Any = None
        ended: StreamEnded | None = None
        while True:
            try:
                request = parser.send(answer) if ended is None else parser.throw(ended)
            except StopIteration as stop:
                value: T = stop.value
                return value
            ended = None
            try:
                answer = self._fulfil(request)
            except StreamEnded as error:
                ended = error

    def _fulfil(self, request: Any) -> Any:
        buffer = self._buffer
        if isinstance(request, int):
            if len(buffer) < request and not self._fill(request):
                raise _ended(request, len(buffer), buffer.offset)
            return buffer.take(request)
        if isinstance(request, CountRecords):
            return self._count(request)
        if isinstance(request, LookAhead):
            self._fill(request.size)
            end = min(buffer.end, buffer.start + request.size)
            data = buffer.peek(end - buffer.start)
            return Ahead(data, self._final and end == buffer.end)
        if isinstance(request, SkipRest):
            return self._skip(None)
        begin = buffer.offset
        skipped = self._skip(request.size)
        if skipped < request.size:
            raise _ended(request.size, skipped, begin)
        return None

    def _fill(self, count: int) -> bool:
        """Read until the buffer has `count` bytes; say whether it has."""
        buffer = self._buffer
        while len(buffer) < count and not self._final:
            found = self._read_into(buffer.space(max(count - len(buffer), _LITTLE)))
            self._final = not found
            buffer.received(found)
            self._progress(buffer.offset + len(buffer))
        return len(buffer) >= count

    def _skip(self, count: int | None) -> int:
        buffer, skipped = self._buffer, 0
        while count is None or skipped < count:
            if not len(buffer) and not self._fill(1):
                break
            step = len(buffer) if count is None else min(len(buffer), count - skipped)
            buffer.start += step
            buffer.offset += step
            skipped += step
        return skipped

    def _count(self, request: CountRecords) -> RecordCounter:
        buffer, counter = self._buffer, RecordCounter(*request[:5])
        while True:
            stop = buffer.end
            if request.limit is not None:
                stop = min(stop, buffer.start + request.limit - buffer.offset)
            buffer.kernel_took(counter.take(buffer.view, buffer.start, stop), buffer.end)
            # At the limit, and at the end, the parser that asks for the next bytes learns of it.
            at_limit = stop < buffer.end
            is_a_run = request.one_kind and counter.counts.records
            if not counter.more or at_limit or is_a_run or not self._fill(len(buffer) + 1):
                return counter
