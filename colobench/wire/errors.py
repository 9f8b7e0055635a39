"""What can be wrong with the bytes of a peer: each error names expected, found and where."""

from __future__ import annotations

from colobench.errors import RemoteError


class StreamError(RemoteError):
    """Bytes that the stream's format, or the stage that the stream is in, does not allow.

    Attributes
    ----------
    subject
        What was being read, such as ``"section footer"``.
    expected, found
        What the format allows there, and what came.
    offset
        Offset in bytes, from the begin of the stream, of what was found.
    """

    def __init__(self, subject: str, *, expected: object, found: object, offset: int) -> None:
        self.subject = subject
        self.expected = str(expected)
        self.found = str(found)
        self.offset = offset
        super().__init__(
            f"{subject}: expected {self.expected}, found {self.found} at offset {offset}"
        )


class StreamEnded(StreamError):
    """The stream ended in the middle of something."""


class TrailingBytes(StreamError):
    """Something of a known size was followed by bytes that nothing explains."""


class HeaderError(StreamError):
    """Wrong magic, version or machine type at the begin of the stream."""


class CommandError(StreamError):
    """A command that is unknown, of a wrong length, or not negotiated."""


class UnexpectedSection(StreamError):
    """A section that the present stage does not allow, or one that the stage still lacks."""


class UnknownSection(StreamError):
    """A section of a device that this machine lacks, or of a section id that nothing started."""


class BadFooter(StreamError):
    """A section does not end where its payload should."""


class RAMError(StreamError):
    """A RAM record that names no page of ours, or that uses what was not negotiated."""


class DeviceStateError(StreamError):
    """A device refuses its state, by its version or by its content."""


class VMDescriptionError(StreamError):
    """A vmdescription that is not one."""


class InvalidMessage(StreamError):
    """A COLO message with a number, or a size, that does not exist."""
