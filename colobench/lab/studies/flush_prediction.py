"""The flush of the RAM cache: predicted from the pages received and written, and compared."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field

import numpy as np

from colobench.errors import LocalError, RemoteError
from colobench.guest.numba.machine import Machine
from colobench.guest.settings import GuestSettings
from colobench.kernels import bitmap
from colobench.lab.interrupt import interruptible
from colobench.lab.session.journal import ROLES
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session, session_outcome
from colobench.memory.tracker import Words

#: Point at which a checkpoint has come whole and is not committed: the flush comes next.
BEFORE_COMMIT = "buffer-received"
STEP_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class PendingFlush:
    """A secondary that is held with a whole checkpoint, before it commits and flushes.

    Attributes
    ----------
    checkpoint
        Number of the checkpoint.
    received, written
        Pages that wait in the RAM cache, as the secondary tells; and pages that its own guest wrote
        since the checkpoint before, found by doing its work again. Both uint64[pages / 64], bit i
        of word w for page 64 w + i.
    """

    checkpoint: int
    received: Words = field(repr=False)
    written: Words = field(repr=False)
    session: Session = field(repr=False)

    @property
    def received_pages(self) -> int:
        """Number of pages that wait in the RAM cache."""
        return int(bitmap.popcount(self.received))

    @property
    def written_pages(self) -> int:
        """Number of pages that the secondary's own guest wrote."""
        return int(bitmap.popcount(self.written))

    @property
    def foretold_pages(self) -> int:
        """Number of pages that the flush will copy, by `foretell_flush`."""
        return int(bitmap.popcount(foretell_flush(self.received, self.written)))

    def foretells(self, record: CheckpointRecord) -> bool:
        """Say whether a flush copied exactly the pages that were foretold.

        Parameters
        ----------
        record
            Record of the checkpoint, of a session with ``report_pages=True``.
        """
        flushed = np.frombuffer(record.flushed_bitmap or b"", "<u8")
        return bool(
            np.array_equal(flushed, foretell_flush(self.received, self.written))
            and record.flushed_pages == self.foretold_pages
        )

    @interruptible(lambda pending: session_outcome(pending.session))
    def go_on(self) -> CheckpointRecord:
        """Let the secondary commit and flush, and give the record of the checkpoint."""
        self.session.go_on("secondary")
        return _finished(self.session, self.checkpoint)


def foretell_flush(received: Words, written: Words) -> Words:
    """Predict the pages that a flush copies.

    Parameters
    ----------
    received, written
        Pages of the checkpoint, and pages that the secondary's own guest wrote, uint64[words].

    Returns
    -------
    uint64[words]
        Union of both: the first are new, and the others are set back to their state at the
        checkpoint before, which the RAM cache still has.
    """
    foretold = received.copy()
    bitmap.union(foretold, written)
    return foretold


def pages_written(guest: GuestSettings, begin: int, end: int) -> Words:
    """Find the pages that a guest writes between two amounts of work, by doing that work here.

    Parameters
    ----------
    guest
        Program, seed and RAM; what is in RAM is a function of them and of the work done.
    begin, end
        Work counter of the guest before and after.

    Returns
    -------
    uint64[pages / 64]
        The pages, bit i of word w for page 64 w + i.
    """
    machine = Machine(guest)
    try:
        machine.run_until(begin)
        machine.tracker.arm()
        machine.run_until(end)
        written = np.zeros_like(machine.ram.bitmap)
        machine.tracker.collect(written)
        return written
    finally:
        machine.close()


@interruptible(session_outcome)
def cached_pages(session: Session, *, at_least: int = 0) -> Words:
    """Ask the secondary which pages wait in its RAM cache.

    Parameters
    ----------
    session
        Session of the secondary.
    at_least
        Number of pages to wait for: some that the primary has sent may still be in flight.

    Returns
    -------
    uint64[pages / 64]
        Bit i of word w for page 64 w + i.

    Raises
    ------
    RemoteError
        If fewer pages come in time.
    """
    deadline = time.monotonic() + STEP_TIMEOUT
    while True:
        found = session.nodes["secondary"].execute("x-query-ram-cache")
        if found["pages"] >= at_least:
            break
        if time.monotonic() > deadline:
            raise RemoteError(
                f"RAM cache: expected at least {at_least} pages in {STEP_TIMEOUT:g} s, "
                f"found {found['pages']}"
            )
    words = np.frombuffer(base64.b64decode(found["pages-bitmap"]), "<u8")
    return words.astype(np.uint64)


@interruptible(session_outcome)
def hold_before_flush(
    session: Session, *, longer: str | None = None, ticks: int = 100
) -> PendingFlush:
    """Take a checkpoint up to the point before its commit, and look at what is to be flushed.

    Parameters
    ----------
    session
        Session with ``delay=None``.
    longer
        Node whose guest runs longer before the checkpoint: ``primary``, ``secondary`` (whose guest
        stands still unless the variant is ``upstream``), or None for neither.
    ticks
        Ticks of the guest's timer, one each millisecond, for which it runs longer.

    Raises
    ------
    LocalError
        If the session is another one, or `longer` is no role.
    """
    delay = session.settings.checkpoint.delay
    if delay is not None:
        raise LocalError(f"session: expected delay None, found {delay}")
    if longer not in (None, *ROLES):
        raise LocalError(f"longer: expected {' or '.join(ROLES)} or None, found {longer!r}")
    session.check_pair()
    secondary = session.nodes["secondary"]
    # The work in the checkpoint before is known from its record. While the primary stands there,
    # the guest of a secondary that runs gets ahead.
    before = session.hold("primary", "loaded")
    if longer == "secondary" and session.settings.checkpoint.variant == "upstream":
        session.wait_for_ticks(ticks, "secondary")
    session.go_on("primary")
    began = _finished(session, before).guest_work
    if longer == "primary":
        # The secondary's guest has stopped there, and the primary's has not.
        secondary.execute("x-colo-break", at=BEFORE_COMMIT)
        session.hold("primary", "reply")
        session.wait_for_ticks(ticks)
        session.go_on("primary")
        session.wait_for_event(
            "secondary", "X_COLO_HELD", STEP_TIMEOUT, at=BEFORE_COMMIT, checkpoint=before + 1
        )
    else:
        session.hold("secondary", BEFORE_COMMIT)
    work = int(secondary.execute("x-query-guest")["work"])
    return PendingFlush(
        checkpoint=before + 1,
        received=cached_pages(session),
        written=pages_written(session.settings.guest, began, work),
        session=session,
    )


def _finished(session: Session, number: int) -> CheckpointRecord:
    session.wait_for(
        lambda: len(session.records) >= number, f"checkpoint {number} to end", STEP_TIMEOUT
    )
    return session.records[number - 1]
