"""The client's side of NBD: an export negotiated, requests written, replies found and checked."""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from colobench.block.nbd import format as nbd
from colobench.block.nbd.conversation import NBDConversation, NBDParser
from colobench.block.nbd.errors import ExportRefused, NBDError, UnexpectedReply
from colobench.block.nbd.format import (
    NO_FLAGS,
    ExtentState,
    HandshakeFlag,
    NBDChunk,
    NBDCommand,
    NBDCommandFlag,
    NBDInformation,
    NBDOption,
    NBDOptionReply,
    TransmissionFlag,
)
from colobench.errors import LocalError

#: Most replies to one option, and most chunks of one reply: a server that sends more does not end.
_REPLIES_LIMIT: Final = 1024
_CHUNKS_LIMIT: Final = 1 << 16
#: Most pieces of a read's data that do not adjoin.
_PIECES_LIMIT: Final = 4096
_ZEROES: Final = bytes(1 << 16)


@dataclass(frozen=True, slots=True)
class ExportOpened:
    """The server has opened the export: requests may be sent.

    Attributes
    ----------
    size
        Bytes.
    flags
        Abilities of the export.
    smallest, preferred, largest
        Sizes of blocks in bytes, as the server wants them.
    allocation
        Whether BLOCK_STATUS of ``base:allocation`` may be asked for.
    """

    size: int
    flags: TransmissionFlag
    smallest: int = 1
    preferred: int = 4096
    largest: int = nbd.PAYLOAD_LIMIT
    allocation: bool = False


@dataclass(frozen=True, slots=True)
class NBDReply:
    """Reply to a request.

    Attributes
    ----------
    cookie
        Cookie of the request.
    error
        Number of the error; 0 if the request was done.
    text
        Reason that the server gave, often empty.
    extents
        For BLOCK_STATUS: length and state of each extent.
    """

    cookie: int
    error: int = 0
    text: str = ""
    extents: tuple[tuple[int, ExtentState], ...] = ()


ClientEvent: TypeAlias = ExportOpened | NBDReply


@dataclass(slots=True)
class _Waiting:
    """A request that was sent and is not answered yet."""

    command: NBDCommand
    offset: int
    length: int
    into: memoryview
    error: int = 0
    text: str = ""
    chunks: int = 0
    extents: list[tuple[int, ExtentState]] = field(default_factory=list)
    #: Places of the data that has come: sorted, disjoint, not adjoining.
    come: list[tuple[int, int]] = field(default_factory=list)

    def take_place(self, offset: int, length: int) -> memoryview:
        """Note that data of the read comes, and return the memory for it."""
        begin, end = offset - self.offset, offset - self.offset + length
        if not length or begin < 0 or end > self.length:
            raise NBDError(
                "chunk",
                expected=f"data within {self.length} bytes at {self.offset}",
                found=f"{length} at {offset}",
            )
        at = bisect.bisect(self.come, (begin, end))
        before = self.come[at - 1] if at else (-1, -1)
        after = self.come[at] if at < len(self.come) else (self.length + 1, self.length + 1)
        if before[1] > begin or after[0] < end:
            raise NBDError("chunk", expected="data once", found=f"{length} at {offset} again")
        first, last = at, at
        if before[1] == begin:
            first, begin = at - 1, before[0]
        place = self.into[offset - self.offset : end]
        if after[0] == end:
            last, end = at + 1, after[1]
        self.come[first:last] = [(begin, end)]
        if len(self.come) > _PIECES_LIMIT:
            raise NBDError(
                "reply", expected=f"at most {_PIECES_LIMIT} pieces", found=len(self.come)
            )
        return place

    @property
    def whole(self) -> bool:
        """Whether all data of the read has come."""
        return self.come == [(0, self.length)]


class ClientConversation(NBDConversation[ClientEvent]):
    """A connection to a server.

    The first event is `ExportOpened`; then requests may be made, in one thread at a time, while
    another one takes bytes that were received.

    Parameters
    ----------
    export
        Name of the export; empty for the server's default.
    structured
        Whether to ask for structured replies, and so for errors with texts.
    allocation
        Whether to ask for BLOCK_STATUS of ``base:allocation``.
    """

    def __init__(
        self, export: str = "", *, structured: bool = True, allocation: bool = False
    ) -> None:
        self._name = nbd.encode_name(export)
        self._wants_structured = structured
        self._wants_allocation = structured and allocation
        self._structured = False
        self._allocation_id: int | None = None
        self._no_zeroes = False
        self._waiting: dict[int, _Waiting] = {}
        self._next_cookie = 1
        self._opened: ExportOpened | None = None
        super().__init__()

    # -- Requests ------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Number of requests that were made and are not answered yet."""
        return len(self._waiting)

    def request(
        self,
        command: NBDCommand,
        offset: int = 0,
        length: int = 0,
        flags: NBDCommandFlag = NO_FLAGS,
        into: memoryview | None = None,
    ) -> tuple[int, bytes]:
        """Make a request.

        Parameters
        ----------
        command, offset, length, flags
            What to do, with a range in bytes.
        into
            Memory for the data of a READ, `length` bytes; it is written until the reply.

        Returns
        -------
        cookie, header
            Number of the request, and the bytes to be sent. Data of a write follow them at once.

        Raises
        ------
        LocalError
            If the export is not open, or the request does not fit it.
        """
        self._check(command, offset, length, into)
        cookie = self._next_cookie
        self._next_cookie += 1
        place = memoryview(b"") if into is None else into
        self._waiting[cookie] = _Waiting(command, offset, length, place)
        fields = (nbd.REQUEST_MAGIC, flags, command, cookie, offset, length)
        return cookie, nbd.REQUEST.pack(*fields)

    def disconnect(self) -> bytes:
        """Make the request that ends the connection; it has no answer."""
        return nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, NBDCommand.DISC, 0, 0, 0)

    def _check(
        self, command: NBDCommand, offset: int, length: int, into: memoryview | None
    ) -> None:
        opened = self._opened
        if opened is None:
            raise LocalError("NBD request: expected an open export, found none yet")
        if command in (NBDCommand.READ, NBDCommand.WRITE) and length > nbd.PAYLOAD_LIMIT:
            raise LocalError(
                f"NBD {command.name}: expected at most {nbd.PAYLOAD_LIMIT} bytes, found {length}"
            )
        if not 0 <= offset <= offset + length <= opened.size or length >= 1 << 32:
            raise LocalError(
                f"NBD {command.name}: expected a range within {opened.size} bytes, found {length} "
                f"at {offset}"
            )
        needed = length if command is NBDCommand.READ else 0
        found = 0 if into is None else len(into)
        if needed != found:
            raise LocalError(f"NBD {command.name}: expected memory of {needed}, found {found}")
        if command is NBDCommand.BLOCK_STATUS and not opened.allocation:
            raise LocalError("NBD BLOCK_STATUS: expected base:allocation, found it not negotiated")

    # -- Negotiation ---------------------------------------------------------------------------

    def _parse(self) -> NBDParser[None]:
        greeting, magic, flags = nbd.GREETING.unpack((yield nbd.GREETING.size))
        if greeting != nbd.GREETING_MAGIC:
            raise NBDError("greeting", expected="NBDMAGIC", found=f"{greeting:#018x}")
        if magic != nbd.OPTION_MAGIC:
            raise NBDError("greeting", expected="IHAVEOPT (newstyle)", found=f"{magic:#018x}")
        if not flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise NBDError("greeting", expected="fixed newstyle", found=f"flags {flags:#x}")
        both = flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
        self._no_zeroes = bool(both & HandshakeFlag.NO_ZEROES)
        self._outgoing += nbd.CLIENT_FLAGS.pack(both)
        if self._wants_structured:
            replies = yield from self._ask(NBDOption.STRUCTURED_REPLY)
            self._structured = replies[-1][0] == NBDOptionReply.ACK
        if self._wants_allocation and self._structured:
            yield from self._negotiate_allocation()
        self._opened = yield from self._open()
        self._events.append(self._opened)
        while True:
            yield from self._parse_reply()

    def _ask(self, option: NBDOption, data: bytes = b"") -> NBDParser[list[tuple[int, bytes]]]:
        """Send an option; return its replies, of which the last is an ACK or an error."""
        head = (nbd.OPTION_MAGIC, option, len(data))
        self._outgoing += nbd.OPTION_HEADER.pack(*head) + data
        replies: list[tuple[int, bytes]] = []
        while True:
            header = nbd.OPTION_REPLY_HEADER.unpack((yield nbd.OPTION_REPLY_HEADER.size))
            magic, answered, kind, length = header
            if magic != nbd.OPTION_REPLY_MAGIC:
                expected = f"{nbd.OPTION_REPLY_MAGIC:#x}"
                raise NBDError("reply to an option", expected=expected, found=f"{magic:#x}")
            if answered != option:
                found = nbd.number_name(NBDOption, answered)
                raise NBDError("reply to an option", expected=option.name, found=found)
            if length > nbd.OPTION_LIMIT:
                expected = f"at most {nbd.OPTION_LIMIT} bytes"
                raise NBDError(f"reply to {option.name}", expected=expected, found=length)
            replies.append((kind, bytes((yield length))))
            if kind == NBDOptionReply.ACK or kind & nbd.OPTION_ERROR:
                return replies
            if len(replies) > _REPLIES_LIMIT:
                raise NBDError(f"replies to {option.name}", expected="ACK", found="no end of them")

    def _negotiate_allocation(self) -> NBDParser[None]:
        """Ask for BLOCK_STATUS of ``base:allocation``."""
        context = nbd.BASE_ALLOCATION.encode()
        name = nbd.WORD.pack(len(self._name)) + self._name
        query = nbd.WORD.pack(1) + nbd.WORD.pack(len(context)) + context
        replies = yield from self._ask(NBDOption.SET_META_CONTEXT, name + query)
        for kind, data in replies:
            if kind == NBDOptionReply.META_CONTEXT and data[nbd.WORD.size :] == context:
                (self._allocation_id,) = nbd.WORD.unpack_from(data)

    def _open(self) -> NBDParser[ExportOpened]:
        """Choose the export with GO, or with EXPORT_NAME if the server does not know GO."""
        kinds = nbd.SHORT.pack(1) + nbd.SHORT.pack(NBDInformation.BLOCK_SIZE)
        named = nbd.WORD.pack(len(self._name)) + self._name
        replies = yield from self._ask(NBDOption.GO, named + kinds)
        kind, data = replies[-1]
        if kind == NBDOptionReply.ERR_UNSUP:
            return (yield from self._open_by_name())
        if kind != NBDOptionReply.ACK:
            words = data.decode(errors="replace") or "no reason given"
            name = nbd.number_name(NBDOptionReply, kind)
            raise ExportRefused(f"NBD export {self._name.decode()!r}: {name}: {words}")
        export: tuple[int, int] | None = None
        block = (1, 4096, nbd.PAYLOAD_LIMIT)
        for kind, data in replies:
            if kind != NBDOptionReply.INFO or len(data) < nbd.SHORT.size:
                continue
            (what,) = nbd.SHORT.unpack_from(data)
            if what == NBDInformation.EXPORT:
                _, *export_words = _unpack(nbd.EXPORT_INFORMATION, data, "information EXPORT")
                export = (export_words[0], export_words[1])
            elif what == NBDInformation.BLOCK_SIZE:
                _, *sizes = _unpack(nbd.BLOCK_SIZE_INFORMATION, data, "information BLOCK_SIZE")
                block = (sizes[0], sizes[1], sizes[2])
        if export is None:
            raise NBDError("replies to GO", expected="information EXPORT", found="none")
        return self._check_export(*export, *block)

    def _open_by_name(self) -> NBDParser[ExportOpened]:
        head = (nbd.OPTION_MAGIC, NBDOption.EXPORT_NAME, len(self._name))
        self._outgoing += nbd.OPTION_HEADER.pack(*head) + self._name
        size, flags = nbd.EXPORT.unpack((yield nbd.EXPORT.size))
        if not self._no_zeroes:
            yield nbd.PADDING_BYTES
        return self._check_export(size, flags, 1, 4096, nbd.PAYLOAD_LIMIT)

    def _check_export(
        self, size: int, flags: int, smallest: int, preferred: int, largest: int
    ) -> ExportOpened:
        if size > nbd.SIZE_LIMIT:
            raise NBDError("export", expected=f"at most {nbd.SIZE_LIMIT} bytes", found=size)
        sensible = 1 <= smallest <= 1 << 16 and smallest <= preferred <= largest
        if smallest & (smallest - 1) or preferred & (preferred - 1) or not sensible:
            raise NBDError(
                "information BLOCK_SIZE",
                expected="powers of two in order, the first at most 65536",
                found=f"{smallest}, {preferred}, {largest}",
            )
        if not flags & TransmissionFlag.HAS_FLAGS:
            flags = 0
        found = TransmissionFlag(flags & sum(TransmissionFlag))
        allocation = self._allocation_id is not None
        most = min(largest, nbd.PAYLOAD_LIMIT)
        return ExportOpened(size, found, smallest, preferred, most, allocation)

    # -- Replies -------------------------------------------------------------------------------

    def _parse_reply(self) -> NBDParser[None]:
        self._between = True
        (magic,) = nbd.WORD.unpack((yield nbd.WORD.size))
        self._between = False
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            yield from self._parse_simple()
        elif magic == nbd.STRUCTURED_REPLY_MAGIC and self._structured:
            yield from self._parse_chunk()
        else:
            expected = f"{nbd.SIMPLE_REPLY_MAGIC:#x}"
            if self._structured:
                expected += f" or {nbd.STRUCTURED_REPLY_MAGIC:#x}"
            raise NBDError("reply", expected=expected, found=f"{magic:#x}")

    def _find(self, cookie: int) -> _Waiting:
        found = self._waiting.get(cookie)
        if found is not None:
            return found
        known = 0 < cookie < self._next_cookie
        words = f"cookie {cookie}, which was answered before" if known else f"cookie {cookie}"
        raise UnexpectedReply("reply", expected="the cookie of a request in flight", found=words)

    def _parse_simple(self) -> NBDParser[None]:
        size = nbd.SIMPLE_REPLY.size - nbd.WORD.size
        _, error, cookie = nbd.SIMPLE_REPLY.unpack(bytes(nbd.WORD.size) + (yield size))
        waiting = self._find(cookie)
        structured = waiting.command in (NBDCommand.READ, NBDCommand.BLOCK_STATUS)
        if self._structured and structured:
            name = waiting.command.name
            raise NBDError(f"reply to {name}", expected="a structured one", found="a simple one")
        if waiting.chunks:
            raise NBDError("reply", expected="another chunk", found="a simple reply")
        if waiting.command is NBDCommand.READ and not error:
            yield waiting.into
        del self._waiting[cookie]
        self._events.append(NBDReply(cookie, error))

    def _parse_chunk(self) -> NBDParser[None]:
        size = nbd.CHUNK_HEADER.size - nbd.WORD.size
        head = nbd.CHUNK_HEADER.unpack(bytes(nbd.WORD.size) + (yield size))
        _, flags, kind, cookie, length = head
        waiting = self._find(cookie)
        waiting.chunks += 1
        if waiting.chunks > _CHUNKS_LIMIT:
            raise NBDError("reply", expected=f"at most {_CHUNKS_LIMIT} chunks", found="one more")
        if kind & nbd.CHUNK_IS_ERROR:
            yield from self._take_error(waiting, kind, length)
        elif kind == NBDChunk.NONE:
            _expect("chunk NONE", 0, length)
            if not flags & nbd.CHUNK_DONE:
                raise NBDError("chunk NONE", expected="the flag DONE", found=f"{flags:#x}")
        elif kind == NBDChunk.OFFSET_DATA and waiting.command is NBDCommand.READ:
            if length < nbd.CHUNK_OFFSET.size:
                raise NBDError("chunk OFFSET_DATA", expected="an offset", found=f"{length} bytes")
            (offset,) = nbd.CHUNK_OFFSET.unpack((yield nbd.CHUNK_OFFSET.size))
            yield waiting.take_place(offset, length - nbd.CHUNK_OFFSET.size)
        elif kind == NBDChunk.OFFSET_HOLE and waiting.command is NBDCommand.READ:
            _expect("chunk OFFSET_HOLE", nbd.CHUNK_HOLE.size, length)
            offset, hole = nbd.CHUNK_HOLE.unpack((yield nbd.CHUNK_HOLE.size))
            _clear(waiting.take_place(offset, hole))
        elif kind == NBDChunk.BLOCK_STATUS and waiting.command is NBDCommand.BLOCK_STATUS:
            yield from self._take_extents(waiting, length)
        else:
            found = nbd.number_name(NBDChunk, kind)
            command = waiting.command.name
            raise NBDError(f"reply to {command}", expected="a chunk that fits it", found=found)
        if flags & nbd.CHUNK_DONE:
            self._finish(cookie, waiting)

    def _take_error(self, waiting: _Waiting, kind: int, length: int) -> NBDParser[None]:
        if not nbd.CHUNK_ERROR.size <= length <= nbd.OPTION_LIMIT:
            raise NBDError("error chunk", expected="an error and a text", found=f"{length} bytes")
        data = bytes((yield length))
        error, size = nbd.CHUNK_ERROR.unpack_from(data)
        text = data[nbd.CHUNK_ERROR.size :][:size]
        more = nbd.CHUNK_OFFSET.size if kind == NBDChunk.ERROR_OFFSET else 0
        known = kind in (NBDChunk.ERROR, NBDChunk.ERROR_OFFSET)
        if not error or size > nbd.TEXT_LIMIT or len(text) != size:
            raise NBDError("error chunk", expected="an error and its text", found=f"error {error}")
        if known and length != nbd.CHUNK_ERROR.size + size + more:
            raise NBDError("error chunk", expected="nothing more", found=f"{length} bytes")
        if not waiting.error:
            waiting.error, waiting.text = error, text.decode(errors="replace")

    def _take_extents(self, waiting: _Waiting, length: int) -> NBDParser[None]:
        fixed = nbd.WORD.size
        if length > nbd.OPTION_LIMIT * 4 or length <= fixed or (length - fixed) % nbd.EXTENT.size:
            raise NBDError("chunk BLOCK_STATUS", expected="whole extents", found=f"{length} bytes")
        if waiting.extents:
            raise NBDError("reply to BLOCK_STATUS", expected="one chunk", found="another one")
        (context,) = nbd.WORD.unpack((yield fixed))
        if context != self._allocation_id:
            raise NBDError("BLOCK_STATUS", expected="base:allocation's number", found=context)
        total = 0
        for _ in range((length - fixed) // nbd.EXTENT.size):
            size, state = nbd.EXTENT.unpack((yield nbd.EXTENT.size))
            if not size or total >= waiting.length:
                raise NBDError("BLOCK_STATUS", expected="extents of the range", found=size)
            # The last one may reach beyond the range.
            waiting.extents.append((min(size, waiting.length - total), ExtentState(state & 3)))
            total += size

    def _finish(self, cookie: int, waiting: _Waiting) -> None:
        """Make the event of a reply that is complete."""
        if waiting.command is NBDCommand.READ and not waiting.error and not waiting.whole:
            found = f"pieces at {waiting.come[:4]}"
            raise NBDError("reply to READ", expected=f"{waiting.length} bytes", found=found)
        status = waiting.command is NBDCommand.BLOCK_STATUS
        if status and not waiting.error and not waiting.extents:
            raise NBDError("reply to BLOCK_STATUS", expected="extents", found="none")
        del self._waiting[cookie]
        reply = NBDReply(cookie, waiting.error, waiting.text, tuple(waiting.extents))
        self._events.append(reply)


def _expect(subject: str, expected: int, found: int) -> None:
    if expected != found:
        raise NBDError(subject, expected=f"{expected} bytes", found=found)


def _unpack(layout: struct.Struct, data: bytes, subject: str) -> tuple[int, ...]:
    _expect(subject, layout.size, len(data))
    return layout.unpack(data)


def _clear(place: memoryview) -> None:
    for at in range(0, len(place), len(_ZEROES)):
        part = place[at : at + len(_ZEROES)]
        part[:] = _ZEROES[: len(part)]
