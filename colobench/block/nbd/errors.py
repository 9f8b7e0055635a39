"""Errors of NBD: bytes that the protocol does not allow, and refusals of a server."""

from __future__ import annotations

from colobench.errors import RemoteError


class NBDError(RemoteError):
    """Bytes that the protocol, or its present stage, does not allow; the connection is of no use.

    Attributes
    ----------
    subject
        Part of the conversation that was being read, such as ``"reply"``.
    expected, found
        Values that are allowed there, and the value that came.
    """

    def __init__(self, subject: str, *, expected: object, found: object) -> None:
        self.subject = subject
        self.expected = str(expected)
        self.found = str(found)
        super().__init__(f"NBD {subject}: expected {self.expected}, found {self.found}")


class NBDEnded(NBDError):
    """The bytes ended where the conversation was not over."""


class UnexpectedReply(NBDError):
    """A reply to a request that was never sent, or that has been answered already."""


class ExportRefused(RemoteError):
    """The server does not serve the export: it has none of that name, or wants something else."""
