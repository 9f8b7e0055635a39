"""Numbers, structures and limits of NBD; all integers are big-endian."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

from colobench.block.request import NBD_LENGTH_MAX
from colobench.errors import LocalError

#: First words of a server: the greeting, then the magic of options.
GREETING_MAGIC: Final = 0x4E42444D41474943
OPTION_MAGIC: Final = 0x49484156454F5054
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF

#: Limit of a payload: data of a write, or of a read's answer, bytes.
PAYLOAD_LIMIT: Final = NBD_LENGTH_MAX
#: Limit of a text: name of an export, of a context, or text of an error, bytes.
TEXT_LIMIT: Final = 4096
#: Limit of an option's data that is read, and of what is skipped with an error as the answer.
OPTION_LIMIT: Final = 16 << 10
SKIPPED_OPTION_LIMIT: Final = 1 << 20
#: Largest size of an export: offsets are signed 64-bit numbers for the kernel.
SIZE_LIMIT: Final = (1 << 63) - 1
#: Zero bytes behind the answer to EXPORT_NAME, for a client that has not declined them.
PADDING_BYTES: Final = 124

GREETING: Final = struct.Struct(">QQH")
CLIENT_FLAGS: Final = struct.Struct(">I")
#: Magic, option, length of its data.
OPTION_HEADER: Final = struct.Struct(">QII")
#: Magic, option, type of the reply, length of its data.
OPTION_REPLY_HEADER: Final = struct.Struct(">QIII")
#: Size and transmission flags, as EXPORT_NAME is answered.
EXPORT: Final = struct.Struct(">QH")
#: Type of an information about an export, its size and transmission flags.
EXPORT_INFORMATION: Final = struct.Struct(">HQH")
#: Type of an information, smallest, preferred and largest block.
BLOCK_SIZE_INFORMATION: Final = struct.Struct(">HIII")
#: Magic, flags, command, cookie, offset, length.
REQUEST: Final = struct.Struct(">IHHQQI")
#: Magic, error, cookie.
SIMPLE_REPLY: Final = struct.Struct(">IIQ")
#: Magic, flags, type, cookie, length of the chunk's data.
CHUNK_HEADER: Final = struct.Struct(">IHHQI")
#: Offset of the data of a chunk.
CHUNK_OFFSET: Final = struct.Struct(">Q")
#: Offset and length of a hole.
CHUNK_HOLE: Final = struct.Struct(">QI")
#: Error and length of its text.
CHUNK_ERROR: Final = struct.Struct(">IH")
#: Length and state of an extent.
EXTENT: Final = struct.Struct(">II")
WORD: Final = struct.Struct(">I")
SHORT: Final = struct.Struct(">H")


class HandshakeFlag(IntFlag):
    """Flags of the greeting, and of the client's answer."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class NBDOption(IntEnum):
    """Options, with which a client negotiates."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


#: Bit of the replies to an option that are errors.
OPTION_ERROR: Final = 1 << 31


class NBDOptionReply(IntEnum):
    """Types of replies to an option."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = OPTION_ERROR + 1
    ERR_POLICY = OPTION_ERROR + 2
    ERR_INVALID = OPTION_ERROR + 3
    ERR_PLATFORM = OPTION_ERROR + 4
    ERR_TLS_REQD = OPTION_ERROR + 5
    ERR_UNKNOWN = OPTION_ERROR + 6
    ERR_SHUTDOWN = OPTION_ERROR + 7
    ERR_BLOCK_SIZE_REQD = OPTION_ERROR + 8
    ERR_TOO_BIG = OPTION_ERROR + 9


class NBDInformation(IntEnum):
    """Types of information about an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(IntFlag):
    """Abilities of an export."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    ROTATIONAL = 16
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    SEND_DF = 128
    CAN_MULTI_CONN = 256


class NBDCommand(IntEnum):
    """Commands of requests."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class NBDCommandFlag(IntFlag):
    """Flags of requests."""

    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8


#: Flags of a request without any.
NO_FLAGS: Final = NBDCommandFlag(0)


#: Flag of the last chunk of a reply.
CHUNK_DONE: Final = 1
#: Bit of the chunks that are errors.
CHUNK_IS_ERROR: Final = 1 << 15


class NBDChunk(IntEnum):
    """Types of the chunks of a structured reply."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = CHUNK_IS_ERROR + 1
    ERROR_OFFSET = CHUNK_IS_ERROR + 2


#: Context of BLOCK_STATUS that says which extents are allocated.
BASE_ALLOCATION: Final = "base:allocation"


class ExtentState(IntFlag):
    """State of an extent in the context ``base:allocation``."""

    HOLE = 1
    ZERO = 2


def encode_name(export: str) -> bytes:
    """Encode the name of an export.

    Raises
    ------
    LocalError
        If it is not text, as a file's name may be, or too long.
    """
    try:
        encoded = export.encode()
    except UnicodeEncodeError:
        raise LocalError(f"export: expected a name in UTF-8, found {export[:80]!r}") from None
    if len(encoded) > TEXT_LIMIT:
        raise LocalError(
            f"export: expected a name of at most {TEXT_LIMIT} bytes, found {len(encoded)}"
        )
    return encoded


def number_name(kind: type[IntEnum], number: int) -> str:
    """Give the name of a number if it has one, for errors."""
    return kind(number).name if number in kind.__members__.values() else f"{number:#x}"
