"""Parsers as generators, their buffer and their driver.

A parser is a generator that yields requests. It yields a number of bytes and is sent these bytes,
it yields a `PageRun` or a `PageSync` and is sent the numbers of pages taken, or it yields a
`LookAhead` or `Arrived` and is sent bytes that stay to be read. It returns the parsed value. So a
parser does no I/O: its driver decides where bytes come from, and a `PageSource` decides which
kernel stores pages.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from colobench.kernels import page_records
from colobench.memory.ram import PageMemory, RAMBlock
from colobench.wire.buffer import CAPACITY as CAPACITY
from colobench.wire.buffer import GROWTH_LIMIT as GROWTH_LIMIT
from colobench.wire.buffer import StreamBuffer as StreamBuffer
from colobench.wire.errors import RAMError, StreamEnded, StreamError, TrailingBytes
from colobench.wire.steps import REQUEST_LIMIT as REQUEST_LIMIT
from colobench.wire.steps import Ahead as Ahead
from colobench.wire.steps import Arrived as Arrived
from colobench.wire.steps import LookAhead as LookAhead
from colobench.wire.steps import Steps as Steps
from colobench.wire.steps import sized_bytes as sized_bytes

T = TypeVar("T")


class RunDecoder(Protocol):
    """Decoder of page records, some of which are encoded."""

    def take_records(
        self, buffer: StreamBuffer, cursor: npt.NDArray[np.int64], run: PageRun
    ) -> int:
        """Take the records of a run from a buffer, and return the kernel's status."""

    def page(self, at: StreamBuffer, page: int) -> Parser[None]:
        """Parse the rest of an encoded record, after its header and its block's name."""


class PageRun(NamedTuple):
    """A parser's request to take all page records with CONTINUE that follow.

    Each page is stored at its place in `memory` and its bit is set. The answer is the number of
    pages and the number of zero pages among them. `decoder` takes the records if XBZRLE ones may be
    among them; otherwise it is None.
    """

    block: RAMBlock
    memory: PageMemory
    decoder: RunDecoder | None = None

    @property
    def place(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64], int, int]:
        """The pages' destination, as arguments for the kernels of `kernels.page_records`."""
        memory, block = self.memory, self.block
        return memory.array, memory.bitmap, block.first_page, block.pages


class PageSync(NamedTuple):
    """A parser's request to take the pages on the multifd channels, up to SYNC.

    Pages are stored, and the request is answered, as for `PageRun`.
    """

    memory: PageMemory


Request: TypeAlias = int | PageRun | PageSync | LookAhead | Arrived
Parser: TypeAlias = Generator[Request, Any, T]


class PageSource:
    """Source of the pages that a parser requests: here, the records in a buffer.

    Attributes
    ----------
    cursor
        int64[CURSOR_SLOTS] for the kernel that takes records.
    """

    def __init__(self) -> None:
        self.cursor = np.zeros(page_records.CURSOR_SLOTS, dtype=np.int64)

    def take_run(self, buffer: StreamBuffer, run: PageRun) -> tuple[bool, int, int]:
        """Store the pages of the records that have arrived.

        Returns
        -------
        finished, pages, zero_pages
            True if a record of another kind follows, False if more bytes are needed; number of
            pages stored; number of zero pages among them.

        Raises
        ------
        StreamError
            If a record is wrong.
        """
        cursor = self.cursor
        status = self.take_records(buffer, run)
        start, end, pages, zero_pages, _, read = cursor.tolist()
        buffer.kernel_took(start, end, read)
        cursor[page_records.BYTES_READ] = 0
        if status in (page_records.NEXT, page_records.MORE):
            return status == page_records.NEXT, pages, zero_pages
        raise self.error(status, buffer, run)

    def take_synced(self, memory: PageMemory) -> tuple[int, int] | None:
        """Take the pages on the multifd channels up to SYNC.

        Returns
        -------
        pages, zero_pages
            Number of pages taken, and number of zero pages among them; None if there are no
            channels.
        """
        return None

    def point_to(self, buffer: StreamBuffer) -> None:
        """Set the cursor to the bytes that are not parsed yet."""
        cursor = self.cursor
        cursor[page_records.START], cursor[page_records.STOP] = buffer.start, buffer.end

    def take_records(self, buffer: StreamBuffer, run: PageRun) -> int:
        """Call the kernel, and return its status."""
        self.point_to(buffer)
        if run.decoder is not None:
            return run.decoder.take_records(buffer, self.cursor, run)
        return int(page_records.take_page_records(buffer.array, self.cursor, *run.place))

    def error(self, status: int, buffer: StreamBuffer, run: PageRun) -> Exception:
        """Make the error for a status other than NEXT and MORE."""
        return page_run_error(run, status, self.cursor, buffer.offset)


class Parsing(Generic[T]):
    """Driver of one parser over a buffer.

    Parameters
    ----------
    parser
        The parser, not started yet.
    buffer
        The buffer that it reads from.
    pages
        Source of the pages that it requests; None for the records in the buffer.

    Attributes
    ----------
    request
        The parser's present request: a number of bytes, or what the classes above describe.
    finished
        True once the parser has returned.
    value
        The value that it returned.
    """

    value: T

    def __init__(
        self, parser: Parser[T], buffer: StreamBuffer, pages: PageSource | None = None
    ) -> None:
        self._parser = parser
        self._buffer = buffer
        self._source = PageSource() if pages is None else pages
        self._pages = 0
        self._zero_pages = 0
        self.finished = False
        self.request: Request = 0
        self._send(None)

    def step(self) -> bool:
        """Parse the bytes in the buffer.

        Returns
        -------
        bool
            True if the parser has returned; False if it needs more bytes than the buffer holds, or
            pages from channels and there are none.

        Raises
        ------
        StreamError
            If the bytes are not as the parser expects.
        """
        buffer = self._buffer
        while not self.finished:
            request = self.request
            # Without calls of Python's own for each few bytes: a guest stands still meanwhile.
            if isinstance(request, int):
                if buffer.end - buffer.start < request:
                    return False
                try:
                    self.request = self._parser.send(buffer.take(request))
                except StopIteration as stop:
                    self.value = stop.value
                    self.finished = True
            elif isinstance(request, PageRun):
                finished, pages, zero_pages = self._source.take_run(buffer, request)
                self._pages += pages
                self._zero_pages += zero_pages
                if not finished:
                    return False
                self.answer((0, 0))
            elif isinstance(request, (LookAhead, Arrived)):
                if len(buffer) < request.size:
                    return False
                if isinstance(request, LookAhead):
                    data = buffer.peek(request.size)
                else:
                    data = buffer.peek(len(buffer), request.skip)
                self._send(Ahead(data, final=False))
            else:
                taken = self._source.take_synced(request.memory)
                if taken is None:
                    return False
                self.answer(taken)
        return True

    def answer(self, taken: tuple[int, int]) -> None:
        """Answer a request for pages with the last numbers of pages and of zero pages."""
        pages, zero_pages = self._pages + taken[0], self._zero_pages + taken[1]
        self._pages = self._zero_pages = 0
        self._send((pages, zero_pages))

    def ended(self) -> StreamEnded:
        """Make the error for a stream that ends here, before the parser has returned."""
        request = self.request
        return StreamEnded(
            "stream",
            expected=_expected(request),
            found=f"{len(self._buffer)} bytes",
            offset=self._buffer.offset,
        )

    def _send(self, answer: bytes | tuple[int, int] | Ahead | None) -> None:
        try:
            self.request = self._parser.send(answer)
        except StopIteration as stop:
            self.value = stop.value
            self.finished = True


def _expected(request: Request) -> str:
    if isinstance(request, (LookAhead, Arrived)):
        return f"{request.size} bytes"
    return f"{request} bytes" if isinstance(request, int) else "a RAM record"


def page_run_error(
    run: PageRun, status: int, cursor: npt.NDArray[np.int64], offset: int
) -> StreamError:
    """Make the error for a kernel's status other than NEXT, MORE and -errno.

    Parameters
    ----------
    run
        The request that the kernel was fulfilling.
    status
        The kernel's result: BAD_PAGE, BAD_FILL or END.
    cursor
        The kernel's cursor.
    offset
        Offset in the stream of the record at which the kernel stopped.
    """
    bad = int(cursor[page_records.BAD])
    if status == page_records.BAD_PAGE:
        expected = f"an offset below {run.block.used_length:#x} in block {run.block.name!r}"
        return RAMError("RAM page", expected=expected, found=f"{bad % 2**64:#x}", offset=offset)
    if status == page_records.BAD_FILL:
        return RAMError("RAM zero page", expected="fill byte 0", found=bad, offset=offset)
    return StreamEnded("stream", expected="a RAM record", found=f"{bad} bytes", offset=offset)


def parse_bytes(
    parser_function: Callable[[StreamBuffer], Parser[T]],
    data: bytes | bytearray | memoryview,
    *,
    offset: int = 0,
) -> T:
    """Parse a complete byte string.

    Parameters
    ----------
    parser_function
        Function that makes the parser from the buffer.
    data
        All bytes to be parsed; not copied if writable.
    offset
        Offset in the stream of the first byte, for errors.

    Raises
    ------
    StreamEnded
        If the parser needs more bytes.
    TrailingBytes
        If the parser leaves bytes.
    StreamError
        If the parser refuses the bytes.
    """
    buffer = StreamBuffer.over(data, offset)
    parsing = Parsing(parser_function(buffer), buffer)
    if not parsing.step():
        raise parsing.ended()
    if len(buffer):
        raise TrailingBytes(
            "stream", expected="its end", found=f"{len(buffer)} more bytes", offset=buffer.offset
        )
    return parsing.value
