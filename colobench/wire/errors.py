"""Errors in the bytes of a peer: each says what was expected, what was found, and where."""

from __future__ import annotations

from colobench.errors import RemoteError


class StreamError(RemoteError):
    """Bytes that the stream's format or its present stage does not allow.

    Attributes
    ----------
    subject
        Part of the stream that was being read, such as ``"section footer"``.
    expected, found
        Values that the format allows there, and the value that came.
    offset
        Offset in bytes of the found value, from the beginning of the stream.
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
    """The stream ended before something that it had begun was complete."""


class TrailingBytes(StreamError):
    """More bytes follow where the stream, or a buffer of known size, should end."""


class HeaderError(StreamError):
    """Wrong magic, version or machine type at the beginning of the stream."""


class SettingsDiffer(StreamError):
    """Settings that both nodes must share, and in which the peer's differ from ours."""


class CommandError(StreamError):
    """A command that is unknown, has a wrong length, or was not negotiated."""


class UnexpectedSection(StreamError):
    """A section that the present stage does not allow, or one that is missing at its end."""


class UnknownSection(StreamError):
    """A section of a device that this machine lacks, or with an id that no START announced."""


class BadFooter(StreamError):
    """No footer of the section stands where its payload ends."""


class RAMError(StreamError):
    """A RAM record that names no page of ours, or is of a kind that was not negotiated."""


class DeviceStateError(StreamError):
    """A device state with a version or content that the device cannot take."""


class VMDescriptionError(StreamError):
    """A vmdescription that is not JSON, lacks a field, or is too long."""


class InvalidMessage(StreamError):
    """A COLO message with an unknown number, or a size beyond the limit."""
