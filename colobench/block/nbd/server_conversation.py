"""The server's side of NBD: options answered, requests found and checked, replies written."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from colobench.block.nbd import format as nbd
from colobench.block.nbd.conversation import (
    Allocate,
    NBDConversation,
    NBDParser,
    fresh_memory,
    skip,
)
from colobench.block.nbd.errors import ExportRefused, NBDError
from colobench.block.nbd.format import (
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
from colobench.block.request import SECTOR_SIZE
from colobench.errors import LocalError

#: Preferred block, bytes; the smallest one is a sector.
PREFERRED_BYTES: Final = 64 << 10
#: Most options of one client.
OPTIONS_LIMIT: Final = 1024
#: Most extents in a reply to BLOCK_STATUS.
EXTENTS_LIMIT: Final = 4096
#: Number by which the context ``base:allocation`` is known in a connection.
_ALLOCATION_ID: Final = 1
_FUA, _NO_HOLE, _DF = NBDCommandFlag.FUA, NBDCommandFlag.NO_HOLE, NBDCommandFlag.DF


@dataclass(frozen=True, slots=True)
class NBDExport:
    """An export, as its clients are told of it.

    Attributes
    ----------
    size
        Bytes, a multiple of 512.
    read_only
        Whether requests that write are refused with EPERM.
    description
        Text for people, which a client may ask for.
    allocation
        Whether the server answers BLOCK_STATUS of ``base:allocation``.
    """

    size: int
    read_only: bool = False
    description: str = ""
    allocation: bool = False


@dataclass(frozen=True, slots=True)
class ExportChosen:
    """The client has chosen an export: options are over, requests follow.

    Attributes
    ----------
    name
        Name of the export, as the server has it.
    """

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class NBDRequest:
    """A request of a client, whose range and flags fit the export.

    Attributes
    ----------
    command
        READ, WRITE, FLUSH, TRIM, WRITE_ZEROES or BLOCK_STATUS.
    cookie
        Number by which the client recognizes the reply.
    offset, length
        Range in bytes, multiples of 512; 0 for a flush.
    flags
        Flags of the request.
    data
        Data of a write, otherwise empty.
    """

    command: NBDCommand
    cookie: int
    offset: int
    length: int
    flags: NBDCommandFlag
    data: memoryview = field(repr=False)

    @property
    def fua(self) -> bool:
        """Whether the data has to be on stable storage before the reply."""
        return bool(self.flags & _FUA)


ServerEvent: TypeAlias = ExportChosen | NBDRequest
#: Bytes that are sent one after the other.
Pieces: TypeAlias = list[bytes | memoryview]

#: Flags that each command may have.
_ALLOWED_FLAGS: Final = {
    NBDCommand.READ: _FUA | _DF,
    NBDCommand.WRITE: _FUA,
    NBDCommand.FLUSH: _FUA,
    NBDCommand.TRIM: _FUA,
    NBDCommand.WRITE_ZEROES: _FUA | _NO_HOLE,
    NBDCommand.BLOCK_STATUS: _FUA | NBDCommandFlag.REQ_ONE,
}
_WRITES: Final = {NBDCommand.WRITE, NBDCommand.TRIM, NBDCommand.WRITE_ZEROES}
#: Errors that the protocol has; others are sent as EIO.
_ERRORS: Final = {
    *(errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.EOVERFLOW),
    *(errno.ENOTSUP, errno.ESHUTDOWN),
}


class ServerConversation(NBDConversation[ServerEvent]):
    """A connection to one client.

    A request that is wrong by itself is answered at once, by `take_outgoing`; every other one is
    an event, to which `reply` or `refuse` makes the answer, in any order and in any thread.

    Parameters
    ----------
    exports
        Exports by their names. A client that names none gets the only one.
    allocate
        Function that gives memory for the data of a write.

    Attributes
    ----------
    in_flight
        Requests that were given out and not answered yet.
    """

    def __init__(self, exports: Mapping[str, NBDExport], allocate: Allocate = fresh_memory) -> None:
        self._exports = exports
        self._allocate = allocate
        self._export = NBDExport(0)
        self._no_zeroes = False
        self._structured = False
        self._contexts_of: str | None = None
        self._allocation = False
        self.in_flight: set[NBDRequest] = set()
        super().__init__()
        flags = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
        self._outgoing += nbd.GREETING.pack(nbd.GREETING_MAGIC, nbd.OPTION_MAGIC, flags)

    # -- Replies -------------------------------------------------------------------------------

    def reply(self, request: NBDRequest, data: bytes | memoryview = b"") -> Pieces:
        """Make the bytes that say a request is done.

        Parameters
        ----------
        request
            Request that was given out and not answered yet; not BLOCK_STATUS.
        data
            Data of a read.

        Returns
        -------
        list
            Pieces to be sent one after the other, with no other reply between them.

        Raises
        ------
        LocalError
            If the request is not in flight, or the data has another length.
        """
        self._answered(request)
        expected = request.length if request.command is NBDCommand.READ else 0
        if len(data) != expected:
            raise LocalError(
                f"NBD reply to {request.command.name}: expected {expected} bytes, found {len(data)}"
            )
        if request.command is NBDCommand.READ and self._structured:
            head = self._chunk(request.cookie, NBDChunk.OFFSET_DATA, 8 + len(data))
            return [head + nbd.CHUNK_OFFSET.pack(request.offset), data]
        head = nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, request.cookie)
        return [head, data] if len(data) else [head]

    def reply_extents(
        self, request: NBDRequest, extents: Sequence[tuple[int, ExtentState]]
    ) -> Pieces:
        """Make the answer to a BLOCK_STATUS.

        Parameters
        ----------
        request
            See `reply`.
        extents
            Length in bytes and state of each extent from the request's offset on, at least one;
            those beyond `EXTENTS_LIMIT` are left out, as the protocol allows.

        Raises
        ------
        LocalError
            If the request is not in flight.
        """
        self._answered(request)
        count = 1 if request.flags & NBDCommandFlag.REQ_ONE else EXTENTS_LIMIT
        body = nbd.WORD.pack(_ALLOCATION_ID) + b"".join(
            nbd.EXTENT.pack(length, state) for length, state in extents[:count]
        )
        return [self._chunk(request.cookie, NBDChunk.BLOCK_STATUS, len(body)) + body]

    def refuse(self, request: NBDRequest, error: int, text: str = "") -> Pieces:
        """Make the bytes that say a request has failed.

        Parameters
        ----------
        request
            See `reply`.
        error
            Number of the error; one that NBD does not have is sent as EIO.
        text
            Reason, which a client with structured replies gets.

        Raises
        ------
        LocalError
            If the request is not in flight.
        """
        self._answered(request)
        return [self._error(request.cookie, error, text)]

    def _answered(self, request: NBDRequest) -> None:
        try:
            self.in_flight.remove(request)
        except KeyError:
            raise LocalError(f"NBD reply: expected a request in flight, found {request}") from None

    def _chunk(self, cookie: int, kind: NBDChunk, length: int) -> bytes:
        return nbd.CHUNK_HEADER.pack(
            nbd.STRUCTURED_REPLY_MAGIC, nbd.CHUNK_DONE, kind, cookie, length
        )

    def _error(self, cookie: int, error: int, text: str) -> bytes:
        number = error if error in _ERRORS else errno.EIO
        if not self._structured:
            return nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, number, cookie)
        words = _text(text)
        head = self._chunk(cookie, NBDChunk.ERROR, nbd.CHUNK_ERROR.size + len(words))
        return head + nbd.CHUNK_ERROR.pack(number, len(words)) + words

    # -- Options -------------------------------------------------------------------------------

    def _parse(self) -> NBDParser[None]:
        (flags,) = nbd.CLIENT_FLAGS.unpack((yield nbd.CLIENT_FLAGS.size))
        known = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
        if flags & ~known or not flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise NBDError("client's flags", expected="fixed newstyle (1 or 3)", found=flags)
        self._no_zeroes = bool(flags & HandshakeFlag.NO_ZEROES)
        for _ in range(OPTIONS_LIMIT):
            magic, option, length = nbd.OPTION_HEADER.unpack((yield nbd.OPTION_HEADER.size))
            if magic != nbd.OPTION_MAGIC:
                raise NBDError("option", expected="IHAVEOPT", found=f"{magic:#018x}")
            if length > nbd.SKIPPED_OPTION_LIMIT or (
                option == NBDOption.EXPORT_NAME and length > nbd.TEXT_LIMIT
            ):
                raise NBDError("option", expected="data of sensible length", found=length)
            if option == NBDOption.SET_META_CONTEXT:
                # The contexts that were chosen before are gone, also if this option fails.
                self._contexts_of, self._allocation = None, False
            if length > nbd.OPTION_LIMIT:
                yield from skip(length)
                self._say(option, NBDOptionReply.ERR_TOO_BIG, _text(f"{length} bytes of data"))
                continue
            data = bytes((yield length))
            if option == NBDOption.ABORT:
                self._say(option, NBDOptionReply.ACK)
                return
            if self._answer_option(option, data):
                break
        else:
            expected = f"at most {OPTIONS_LIMIT} of them"
            raise NBDError("options", expected=expected, found="one more")
        while (yield from self._parse_request()):
            pass

    def _say(self, option: int, kind: NBDOptionReply, data: bytes = b"") -> None:
        head = (nbd.OPTION_REPLY_MAGIC, option, kind, len(data))
        self._outgoing += nbd.OPTION_REPLY_HEADER.pack(*head) + data

    def _answer_option(self, option: int, data: bytes) -> bool:
        """Answer an option other than ABORT; return whether requests follow."""
        if option == NBDOption.EXPORT_NAME:
            self._take_export_name(data)
            return True
        try:
            if option in (NBDOption.INFO, NBDOption.GO):
                return self._describe(option, data)
            if option == NBDOption.LIST:
                self._list(data)
            elif option == NBDOption.STRUCTURED_REPLY:
                if data:
                    raise _BadOption("expected no data")
                self._structured = True
                self._say(option, NBDOptionReply.ACK)
            elif option in (NBDOption.LIST_META_CONTEXT, NBDOption.SET_META_CONTEXT):
                self._answer_contexts(option, data)
            else:
                name = nbd.number_name(NBDOption, option)
                words = _text(f"option {name} is not supported")
                self._say(option, NBDOptionReply.ERR_UNSUP, words)
        except _BadOption as error:
            self._say(option, NBDOptionReply.ERR_INVALID, _text(str(error)))
        except ExportRefused as error:
            self._say(option, NBDOptionReply.ERR_UNKNOWN, _text(str(error)))
        return False

    def _find(self, name: bytes) -> str:
        """Find the export of a name."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise ExportRefused("expected a name in UTF-8") from None
        if text in self._exports:
            return text
        if not text and len(self._exports) == 1:
            return next(iter(self._exports))
        raise ExportRefused(f"expected the name of an export, found {text[:80]!r}")

    def _transmission_flags(self, export: NBDExport) -> TransmissionFlag:
        flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
        flags |= TransmissionFlag.SEND_FUA | TransmissionFlag.CAN_MULTI_CONN
        if export.read_only:
            flags |= TransmissionFlag.READ_ONLY
        else:
            flags |= TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES
        return flags | TransmissionFlag.SEND_DF if self._structured else flags

    def _take_export_name(self, name: bytes) -> None:
        # The protocol has no answer for a name that does not exist but the connection's end.
        chosen = self._choose(self._find(name))
        self._outgoing += nbd.EXPORT.pack(chosen.size, self._transmission_flags(chosen))
        if not self._no_zeroes:
            self._outgoing += bytes(nbd.PADDING_BYTES)

    def _choose(self, name: str) -> NBDExport:
        self._export = self._exports[name]
        # Contexts hold for the export that they were chosen for.
        self._allocation = self._allocation and self._contexts_of == name
        self._events.append(ExportChosen(name))
        return self._export

    def _list(self, data: bytes) -> None:
        if data:
            raise _BadOption("expected no data")
        for name, export in self._exports.items():
            encoded = nbd.encode_name(name)
            words = nbd.WORD.pack(len(encoded)) + encoded + _text(export.description)
            self._say(NBDOption.LIST, NBDOptionReply.SERVER, words)
        self._say(NBDOption.LIST, NBDOptionReply.ACK)

    def _describe(self, option: int, data: bytes) -> bool:
        """Answer INFO and GO; return whether requests follow."""
        name, rest = _counted(data)
        if len(rest) < nbd.SHORT.size:
            raise _BadOption("expected a number of informations")
        (count,) = nbd.SHORT.unpack_from(rest)
        if len(rest) != nbd.SHORT.size * (1 + count):
            raise _BadOption(f"expected {count} informations")
        wanted = {kind for (kind,) in nbd.SHORT.iter_unpack(rest[nbd.SHORT.size :])}
        found = self._find(name)
        export = self._exports[found]
        flags = self._transmission_flags(export)
        packed = nbd.EXPORT_INFORMATION.pack(NBDInformation.EXPORT, export.size, flags)
        self._say(option, NBDOptionReply.INFO, packed)
        block = (SECTOR_SIZE, PREFERRED_BYTES, nbd.PAYLOAD_LIMIT)
        packed = nbd.BLOCK_SIZE_INFORMATION.pack(NBDInformation.BLOCK_SIZE, *block)
        self._say(option, NBDOptionReply.INFO, packed)
        texts = {
            NBDInformation.NAME: found,
            NBDInformation.DESCRIPTION: export.description,
        }
        for kind, text in texts.items():
            if kind in wanted and text:
                self._say(option, NBDOptionReply.INFO, nbd.SHORT.pack(kind) + _text(text))
        if option == NBDOption.GO:
            self._choose(found)
        self._say(option, NBDOptionReply.ACK)
        return option == NBDOption.GO

    def _answer_contexts(self, option: int, data: bytes) -> None:
        """Answer LIST_META_CONTEXT and SET_META_CONTEXT."""
        if not self._structured:
            raise _BadOption("expected STRUCTURED_REPLY before")
        name, rest = _counted(data)
        if len(rest) < nbd.WORD.size:
            raise _BadOption("expected a number of queries")
        (count,) = nbd.WORD.unpack_from(rest)
        rest, queries = rest[nbd.WORD.size :], []
        for _ in range(min(count, len(rest))):
            query, rest = _counted(rest)
            queries.append(query)
        if rest or len(queries) != count:
            raise _BadOption(f"expected {count} queries")
        found = self._find(name)
        setting = option == NBDOption.SET_META_CONTEXT
        matching = (
            {nbd.BASE_ALLOCATION.encode()}
            if setting
            else {
                nbd.BASE_ALLOCATION.encode(),
                b"base:",
            }
        )
        wanted = bool(matching & set(queries)) or not (setting or queries)
        offered = wanted and self._exports[found].allocation
        if setting:
            self._contexts_of, self._allocation = found, offered
        if offered:
            number = nbd.WORD.pack(_ALLOCATION_ID if setting else 0)
            name = nbd.BASE_ALLOCATION.encode()
            self._say(option, NBDOptionReply.META_CONTEXT, number + name)
        self._say(option, NBDOptionReply.ACK)

    # -- Requests ------------------------------------------------------------------------------

    def _parse_request(self) -> NBDParser[bool]:
        """Take one request; return whether another one may follow."""
        self._between = True
        head = nbd.REQUEST.unpack((yield nbd.REQUEST.size))
        self._between = False
        magic, flags, number, cookie, offset, length = head
        if magic != nbd.REQUEST_MAGIC:
            raise NBDError("request", expected=f"{nbd.REQUEST_MAGIC:#x}", found=f"{magic:#x}")
        if number == NBDCommand.DISC:
            return False
        data = memoryview(b"")
        if number == NBDCommand.WRITE:
            if length > nbd.PAYLOAD_LIMIT:
                raise NBDError("WRITE", expected=f"at most {nbd.PAYLOAD_LIMIT} bytes", found=length)
            error, why = self._check(number, flags, offset, length)
            if error:
                yield from skip(length)
            else:
                data = self._allocate(length)
                yield data
        else:
            error, why = self._check(number, flags, offset, length)
        if error:
            self._outgoing += self._error(cookie, error, why)
        else:
            command = NBDCommand(number)
            if command is NBDCommand.FLUSH:
                offset = length = 0
            fit = NBDRequest(command, cookie, offset, length, NBDCommandFlag(flags), data)
            self.in_flight.add(fit)
            self._events.append(fit)
        return True

    def _check(self, number: int, flags: int, offset: int, length: int) -> tuple[int, str]:
        """Check a request; return an error and its reason, or 0 and nothing."""
        export = self._export
        command = next((each for each in _ALLOWED_FLAGS if each == number), None)
        if command is None or (command is NBDCommand.BLOCK_STATUS and not self._allocation):
            return errno.EINVAL, f"command {number} is not supported"
        # The complement of an IntFlag has no unknown bits.
        if flags & ~int(_ALLOWED_FLAGS[command]):
            return errno.EINVAL, f"{command.name}: flags {flags:#x} are not supported"
        if command is NBDCommand.FLUSH:
            return 0, ""
        if command in _WRITES and export.read_only:
            return errno.EPERM, "the export is read-only"
        if command is NBDCommand.READ and length > nbd.PAYLOAD_LIMIT:
            return errno.EINVAL, f"expected at most {nbd.PAYLOAD_LIMIT} bytes, found {length}"
        if not length or offset % SECTOR_SIZE or length % SECTOR_SIZE:
            where = f"found {length} at {offset}"
            return errno.EINVAL, f"expected whole blocks of {SECTOR_SIZE} bytes, {where}"
        if offset + length > export.size:
            beyond = errno.ENOSPC if command in _WRITES else errno.EINVAL
            return (
                beyond,
                f"expected a range within {export.size} bytes, found {length} at {offset}",
            )
        return 0, ""


class _BadOption(LocalError):
    """Data of an option that do not have its form; the client is told, and may go on."""


def _text(text: str) -> bytes:
    """Encode a text of the length that NBD allows."""
    return text.encode(errors="replace")[: nbd.TEXT_LIMIT].decode(errors="ignore").encode()


def _counted(data: bytes) -> tuple[bytes, bytes]:
    """Split off a text behind its length in 32 bits."""
    if len(data) < nbd.WORD.size:
        raise _BadOption("expected the length of a text")
    (length,) = nbd.WORD.unpack_from(data)
    rest = data[nbd.WORD.size :]
    if length > nbd.TEXT_LIMIT or length > len(rest):
        raise _BadOption(f"expected a text of at most {nbd.TEXT_LIMIT} bytes, found {length}")
    return rest[:length], rest[length:]


def check_exports(exports: Iterable[tuple[str, NBDExport]]) -> None:
    """Check exports before they are served.

    Raises
    ------
    LocalError
        If a name is too long or not in UTF-8, or a size is not a whole number of blocks.
    """
    for name, export in exports:
        nbd.encode_name(name)
        if export.size % SECTOR_SIZE or not 0 <= export.size <= nbd.SIZE_LIMIT:
            raise LocalError(
                f"export {name!r}: expected a multiple of {SECTOR_SIZE} bytes, found {export.size}"
            )
