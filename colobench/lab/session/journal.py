"""Journal of a session: events of its nodes, and records merged from both sides' halves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from colobench.errors import RemoteError
from colobench.lab.session.record import CheckpointRecord, Records, merge
from colobench.processes.qmp import Event
from colobench.settings.settings import Settings

ROLES = ("primary", "secondary")
#: The newest digests that are kept; a takeover needs those of the last two checkpoints.
DIGESTS_LIMIT = 1000


class SessionTimeout(RemoteError):
    """A node that did not do in time what it was asked to do."""


class JournalEntry(NamedTuple):
    """An event: the node's role, the name, the data, and the monotonic time of its arrival."""

    role: str
    event: str
    data: dict[str, Any]
    time: float


class Journal:
    """Collection of the events of both nodes, filled by the threads of their monitor connections.

    Parameters
    ----------
    settings
        Settings of the session: whether the nodes send digests, so that records tell whether both
        sides were equal, and how many records are kept.

    Attributes
    ----------
    records
        Records of the checkpoints that both sides have reported.
    digests
        The primary's newest digests by the checkpoint's number, also of checkpoints before whose
        report it died.
    began
        Monotonic time at which the first pair entered COLO; the times of records count from it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.records = Records(keep=settings.experiment.keep_records)
        self.began: float | None = None
        #: Seconds from the first pair's entry into COLO to the present one's.
        self._time_offset = 0.0
        self.digests: dict[int, dict[str, Any]] = {}
        self._halves: dict[str, dict[int, dict[str, Any]]] = {role: {} for role in ROLES}
        self._said: list[JournalEntry] = []
        #: Number of all events, and of those that were forgotten; the numbers of the others stay.
        self._delivered = 0
        self._forgotten = 0
        # Entered itself, not by its condition: Condition's methods are Python's, and an interrupt
        # inside of them would leave it locked, so that no connection of a node could be closed.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._observers: list[Callable[[CheckpointRecord], None]] = []

    def on_record(self, observer: Callable[[CheckpointRecord], None]) -> None:
        """Call `observer` with each new record, in a thread that it must not block."""
        self._observers.append(observer)

    def deliver(self, role: str, event: Event) -> None:
        """Take an event in."""
        name, data = event["event"], event.get("data", {})
        record, now = None, time.monotonic()
        with self._lock:
            if name == "X_COLO_CHECKPOINT":
                record = self._half_arrived(role, data)
            elif name == "X_COLO_DIGEST":
                self.digests[data["checkpoint"]] = data
                if len(self.digests) > DIGESTS_LIMIT:
                    del self.digests[next(iter(self.digests))]
            else:
                self._said.append(JournalEntry(role, name, data, now))
                if (role, name, data.get("status")) == ("primary", "MIGRATION", "colo"):
                    self.began = self.began or now
                    self._time_offset = now - self.began
            self._delivered += 1
            self._changed.notify_all()
        if record is not None:
            for observer in self._observers:
                observer(record)

    def _half_arrived(self, role: str, data: dict[str, Any]) -> CheckpointRecord | None:
        number = data["checkpoint"]
        self._halves[role][number] = data
        if not all(number in self._halves[each] for each in ROLES):
            return None
        primary, secondary = (self._halves[each].pop(number) for each in ROLES)
        for halves in self._halves.values():
            # Nobody has lived to send the other half of an earlier one.
            for earlier in [each for each in halves if each < number]:
                del halves[earlier]
        digests = self.digests.get(number) if self._settings.checkpoint.verify else None
        primary = primary | {"time": primary["time"] + self._time_offset}
        record = merge(primary, secondary, digests, self._settings)
        self.records.append(record)
        return record

    def __len__(self) -> int:
        """Count the events other than reports of checkpoints, the forgotten ones too."""
        return self._forgotten + len(self._said)

    def drop_halves(self) -> None:
        """Drop what one side alone has said: the next pair gives the same number to another."""
        with self._lock:
            for halves in self._halves.values():
                halves.clear()

    def forget(self, before: int) -> None:
        """Forget the events before the one numbered `before`."""
        with self._lock:
            forgotten = max(0, before - self._forgotten)
            del self._said[:forgotten]
            self._forgotten += forgotten

    def entries(
        self, event: str, role: str | None = None, *, since: int = 0
    ) -> Iterator[JournalEntry]:
        """Iterate over the events of a name, from the one numbered `since` on."""
        with self._lock:
            events = self._said[max(0, since - self._forgotten) :]
        for each in events:
            if each.event == event and role in (None, each.role):
                yield each

    def newest(self, count: int) -> list[JournalEntry]:
        """Give the newest events of any name, the oldest of them first."""
        with self._lock:
            return self._said[max(0, len(self._said) - count) :]

    def find(self, role: str, event: str, *, since: int = 0, **data: Any) -> JournalEntry | None:
        """Find a node's first event with this name and data, from the one numbered `since` on."""
        for each in self.entries(event, role, since=since):
            if data.items() <= each.data.items():
                return each
        return None

    def wait_for(
        self,
        condition: Callable[[], bool],
        what: str,
        timeout: float,
        check: Callable[[str], None] = lambda what: None,
    ) -> None:
        """Wait until a condition holds, which is evaluated after each event, or after 0.1 s.

        Parameters
        ----------
        condition, what
            Function that says whether it holds, and a description for the error. It may ask nodes:
            events are taken in meanwhile.
        timeout
            Seconds.
        check
            Function that is called with `what` meanwhile; it raises if waiting is pointless.

        Raises
        ------
        SessionTimeout
            If the time is over first.
        """
        deadline = time.monotonic() + timeout
        while True:
            delivered = self._delivered
            if condition():
                return
            check(what)
            left = deadline - time.monotonic()
            if left <= 0:
                raise SessionTimeout(f"expected {what} within {timeout:g} s")
            with self._lock:
                if self._delivered == delivered:
                    self._changed.wait(min(left, 0.1))
