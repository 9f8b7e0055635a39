"""COLO's primary out of a recording: it sends a session, and follows the secondary's answers."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from colobench.errors import RemoteError
from colobench.node.connection import Connection, PeerLost, PeerStalled
from colobench.peers.secondary_qemu import SecondaryMonitor
from colobench.protocol.colo import UPSTREAM, Conversation, LocalEvent, Role
from colobench.settings.checkpoint import Capture, Layout
from colobench.wire.format import BE32
from colobench.wire.messages import Message, message
from colobench.wire.reading import parse_bytes
from colobench.wire.replayed_session import ReplayedCheckpoint, ReplayedSession

#: Seconds that a secondary may be silent where the table expects an answer.
ANSWER_TIMEOUT: Final = 10.0
#: Milliseconds between the end of a checkpoint and the next request.
DELAY_MS: Final = 20


@dataclass(frozen=True, slots=True)
class SentCheckpoint:
    """What became of a checkpoint.

    Attributes
    ----------
    number, repeated, pages, device_bytes
        As in `ReplayedCheckpoint`.
    sent_bytes
        Bytes that were sent, with messages.
    answers_ms
        Milliseconds from CHECKPOINT_REQUEST to each answer, by its name.
    problem
        What came in place of an answer; empty if the checkpoint was loaded.
    """

    number: int
    repeated: int
    pages: int
    device_bytes: int
    sent_bytes: int
    answers_ms: dict[str, float]
    problem: str = ""

    @property
    def loaded(self) -> bool:
        """Whether the secondary has loaded it."""
        return not self.problem

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        return {name: getattr(self, name) for name in SentCheckpoint.__slots__}

    def __str__(self) -> str:
        again = f" (the last one again, changed: {self.repeated})" if self.repeated else ""
        sizes = f"{self.pages:,} pages, {self.device_bytes:,} bytes of devices"
        answers = ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.answers_ms.items())
        words = [f"checkpoint {self.number}{again}: {sizes}", answers, self.problem]
        return "; ".join(filter(None, words))


class SessionSender(contextlib.AbstractContextManager["SessionSender"]):
    """A primary that sends a session.

    Parameters
    ----------
    session
        The session.
    connection
        Connected socket, which this object closes.
    monitor
        The secondary's monitor, by which its end of COLO is seen at once; or None.
    timeout
        Seconds that the secondary may be silent where an answer is due.

    Attributes
    ----------
    conversation
        The primary's side of the conversation.
    """

    def __init__(
        self,
        session: ReplayedSession,
        connection: socket.socket,
        monitor: SecondaryMonitor | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._session, self._socket, self._monitor = session, connection, monitor
        self._connection = Connection(connection, timeout)
        self._timeout = timeout
        self.conversation = Conversation(
            Role.PRIMARY, UPSTREAM, Layout.SEPARATED, Capture.STOP_AND_SEND
        )
        self._begin = 0.0

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def migrate(self) -> str:
        """Send the migration, and wait for CHECKPOINT_READY; say what was sent.

        Raises
        ------
        PeerLost, PeerStalled, RemoteError
            If the secondary does not get so far; the message has what QEMU said.
        """
        pieces = self._session.migration()
        self._begin = time.monotonic()
        try:
            self._send(pieces)
            self._expect(Message.CHECKPOINT_READY)
        except RemoteError as error:
            # Errors of the stream are made of other parts than a text.
            kind = type(error) if type(error) in (PeerLost, PeerStalled) else RemoteError
            raise kind(f"migration: {self._with_words(str(error))}") from error
        return (
            f"migration: {sum(map(len, pieces)):,} bytes, machine type "
            f"{self._session.places.machine}; CHECKPOINT_READY {self._ms():.1f} ms"
        )

    def checkpoints(self, count: int, delay_ms: float = DELAY_MS) -> Iterator[SentCheckpoint]:
        """Send checkpoints, and give what became of each; the first that is not loaded is the last.

        Parameters
        ----------
        count
            Number of checkpoints.
        delay_ms
            Milliseconds from the end of one to the next.
        """
        for number in range(1, count + 1):
            # The guest runs meanwhile.
            self._rest(delay_ms / 1000)
            found = self._checkpoint(self._session.checkpoint(number))
            yield found
            if not found.loaded:
                return

    def _checkpoint(self, checkpoint: ReplayedCheckpoint) -> SentCheckpoint:
        self._begin = time.monotonic()
        sent, answers, problem = self._connection.sent, dict[str, float](), ""
        try:
            self._converse(checkpoint, answers)
        except RemoteError as error:
            problem = self._with_words(str(error))
        return SentCheckpoint(
            checkpoint.number,
            checkpoint.repeated,
            checkpoint.pages,
            checkpoint.device_bytes,
            self._connection.sent - sent,
            answers,
            problem,
        )

    def _converse(self, checkpoint: ReplayedCheckpoint, answers: dict[str, float]) -> None:
        def expect(expected: Message) -> None:
            self._expect(expected)
            answers[expected.name] = self._ms()

        self.conversation.on(LocalEvent.CHECKPOINT_DUE)
        if checkpoint.request:
            self._send([checkpoint.request])
            expect(Message.CHECKPOINT_REPLY)
        else:
            # Nobody answers what was left out; the secondary is to see what follows.
            self.conversation.receive(Message.CHECKPOINT_REPLY)
        self._send(checkpoint.body)
        if checkpoint.torn:
            self._tear()
        self.conversation.on(LocalEvent.ALL_SENT)
        expect(Message.VMSTATE_RECEIVED)
        expect(Message.VMSTATE_LOADED)

    def _tear(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._monitor is not None:
            self._monitor.wait_for_end(self._timeout)
        raise PeerLost("torn on purpose: the connection was closed")

    def _send(self, pieces: Sequence[bytes | memoryview]) -> None:
        for piece in pieces:
            if len(piece):
                self._connection.send_now(piece)

    def _expect(self, expected: Message) -> None:
        """Receive a message, which the table has to allow."""
        found, _ = parse_bytes(message, self._receive(expected))
        self.conversation.receive(found)

    def _receive(self, expected: Message) -> bytes:
        data = b""
        deadline = time.monotonic() + self._timeout
        while len(data) < BE32.size:
            self._wait(expected, deadline)
            try:
                piece = self._socket.recv(BE32.size - len(data))
            except OSError as error:
                raise PeerLost(f"expected {expected.name}, found: {error.strerror}") from error
            if not piece:
                raise PeerLost(f"expected {expected.name}, found the end of the connection")
            data += piece
        return data

    def _wait(self, expected: Message, deadline: float) -> None:
        """Wait until there is something to receive."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if self._monitor is not None:
            poll.register(self._monitor.wake_fd, select.POLLIN)
        left = max(0.0, deadline - time.monotonic())
        ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
        if not ready:
            raise PeerStalled(f"expected {expected.name}, found silence for {self._timeout:g} s")
        if self._socket.fileno() not in ready:
            raise PeerLost(f"expected {expected.name}, found the end of COLO")

    def _rest(self, seconds: float) -> None:
        """Let the secondary's guest run; its end of COLO is seen by the next request."""
        descriptors = [] if self._monitor is None else [self._monitor.wake_fd]
        select.select(descriptors, [], [], seconds)

    def _ms(self) -> float:
        return (time.monotonic() - self._begin) * 1000

    def _with_words(self, problem: str) -> str:
        if self._monitor is None:
            return problem
        if not self._monitor.alive() or "connection" in problem:
            # Its last words may follow the end of its connection.
            self._monitor.wait_for_end(1.0)
        words = self._monitor.words()
        return f"{problem}; QEMU: {words}" if words else problem


def send_session(
    sender: SessionSender,
    count: int,
    delay_ms: float = DELAY_MS,
    said: Callable[[str], object] = lambda line: None,
) -> list[SentCheckpoint]:
    """Migrate, send checkpoints, and say a line for each; give what became of them.

    Parameters
    ----------
    sender
        The primary.
    count, delay_ms
        As for `SessionSender.checkpoints`.
    said
        Function that is called with each line.
    """
    said(sender.migrate())
    found = []
    for checkpoint in sender.checkpoints(count, delay_ms):
        said(str(checkpoint))
        found.append(checkpoint)
    return found
