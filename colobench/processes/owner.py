"""Ownership of objects by a process: a fork inherits objects and locks, but no threads."""

from __future__ import annotations

import os

from colobench.errors import LocalError


class Owner:
    """The process that made an object, as opposed to one that was forked from it later."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def is_this_process(self) -> bool:
        """Say whether the caller is in that process."""
        return self._pid == os.getpid()

    def check(self, subject: str) -> None:
        """Refuse a process that was forked later.

        Parameters
        ----------
        subject
            Object that belongs to the owner, as the error names it.

        Raises
        ------
        LocalError
            If this is such a process.
        """
        if not self.is_this_process():
            raise LocalError(
                f"{subject}: expected process {self._pid}, which has started it, found process "
                f"{os.getpid()}, forked from that one: start a session of its own here"
            )
