"""Comparison of the log on the store's disk with what the store answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from colobench.errors import LocalError, RemoteError
from colobench.lab.checker.append_only_log import LogVerdict, check_log
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.session.session import Session

#: Key that is written and deleted to be sure that all before it is on the disk.
_MARK = b"torture.mark"


def judge_log(session: Session, store: Mapping[bytes, bytes], patience: float) -> LogVerdict:
    """Flush the log of a store that nobody writes to, and compare it with the store.

    Parameters
    ----------
    session
        Session whose guest keeps an append-only file.
    store
        All keys of the store, and their values.
    patience
        Seconds in which each answer has to come.

    Raises
    ------
    RemoteError
        If the store does not answer, or the image has no log that can be read.
    """
    _flush(session, patience)
    try:
        return check_log(np.fromfile(session.images()[0], np.uint8), store)
    except LocalError as error:
        raise RemoteError(f"wrong disk: {error}") from error


def _flush(session: Session, patience: float) -> None:
    """Let the store answer a write when it is on the disk, as is then all that came before."""
    with StoreConnection(session.address(), patience) as connection:
        _, policy = connection.ask(b"CONFIG", b"GET", b"appendfsync")
        for request, expected in (
            ((b"CONFIG", b"SET", b"appendfsync", b"always"), "OK"),
            ((b"SET", _MARK, b""), "OK"),
            ((b"DEL", _MARK), 1),
            ((b"CONFIG", b"SET", b"appendfsync", policy), "OK"),
        ):
            answer = connection.ask(*request)
            if answer != expected:
                shown = b" ".join(request).decode()
                raise RemoteError(f"{shown}: expected {expected}, found {answer}")
