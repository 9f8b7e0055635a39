"""Errors between a process and the monitor of a node that it started."""

from __future__ import annotations

from colobench.errors import LocalError, RemoteError


class QMPCommandError(LocalError):
    """A node refused a command.

    Attributes
    ----------
    command, error_class, description
        The command, and the class and words of QMP's error.
    """

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(f"{command}: {description} ({error_class})")
        self.command = command
        self.error_class = error_class
        self.description = description


class NodeGone(RemoteError):
    """A node's monitor does not answer: the process has ended, or hangs."""


class NotStarted(LocalError):
    """A process could not be made here: descriptors, memory, disk or its program are missing."""
