"""Question to the arbiter, repeated until there is an answer or a deadline has passed."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from colobench.errors import LocalError, RemoteError
from colobench.node.address import Address
from colobench.protocol.arbiter import (
    LINE_LIMIT,
    ArbiterAnswer,
    InvalidLine,
    encode_question,
    parse_answer,
)

_RETRY_SECONDS = 0.02
_CONNECT_SECONDS = 0.25


class ArbiterUnreachable(RemoteError):
    """The arbiter did not answer in time; it may have decided nevertheless."""


class ArbiterClient:
    """Client of one arbiter, with a new connection for each question.

    Parameters
    ----------
    address
        Address of the arbiter.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._connection: socket.socket | None = None

    def ask(self, pairing: str, node: str, timeout: float) -> ArbiterAnswer:
        """Ask whether `node` may serve alone.

        An arbiter that cannot be connected to, or ends before it answers, is asked again until the
        deadline. That is harmless: the node that was granted is granted again.

        Parameters
        ----------
        pairing, node
            See `colobench.protocol.arbiter.Arbiter.ask`.
        timeout
            Time limit for the answer, with all repetitions, seconds.

        Raises
        ------
        ArbiterUnreachable
            If there was no answer in time, or `close` was called. The node must not serve alone.
        ArbiterRefusal, InvalidLine
            If its answer is not a verdict.
        LocalError
            If an argument is out of range.
        """
        if not timeout > 0:
            raise LocalError(f"timeout: expected more than 0 s, found {timeout:g}")
        question = encode_question(pairing, node)
        deadline = time.monotonic() + timeout
        while True:
            try:
                return parse_answer(self._ask_once(question, deadline))
            except (LocalError, OSError) as error:
                closed = self._closed.wait(
                    min(_RETRY_SECONDS, max(0.0, deadline - time.monotonic()))
                )
                if closed or time.monotonic() >= deadline:
                    why = "closed" if closed else f"no answer within {timeout:g} s"
                    raise ArbiterUnreachable(
                        f"arbiter at {self._address}: {why}: {error}"
                    ) from error

    def close(self) -> None:
        """Make the waiting question, and all later ones, raise ArbiterUnreachable."""
        self._closed.set()
        with self._lock:
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def _ask_once(self, question: bytes, deadline: float) -> bytes:
        # Short attempts, so that `close` is noticed.
        with self._address.connect(min(_left(deadline), _CONNECT_SECONDS)) as connection:
            connection.settimeout(_left(deadline))
            with self._lock:
                self._connection = connection
            try:
                if self._closed.is_set():
                    raise ConnectionAbortedError("closed by ourselves")
                connection.sendall(question)
                return _receive_line(connection, deadline)
            finally:
                with self._lock:
                    self._connection = None


def _receive_line(connection: socket.socket, deadline: float) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        connection.settimeout(_left(deadline))
        piece = connection.recv(LINE_LIMIT)
        if not piece:
            raise ConnectionAbortedError("the connection ended before the answer")
        received += piece
        if len(received) > LINE_LIMIT:
            raise InvalidLine(f"answer: expected a line of at most {LINE_LIMIT} bytes")
    return received


def _left(deadline: float) -> float:
    # At least a millisecond: 0 would make the socket non-blocking, and less is an error.
    return max(1e-3, deadline - time.monotonic())
