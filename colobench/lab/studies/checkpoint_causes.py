"""Causes of checkpoints where output is compared, and the places of miscompares."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from colobench.guest.settings import DETERMINISTIC, NondeterminismSettings
from colobench.lab.clients.closed_loop import Request
from colobench.lab.clients.open_loop import probe
from colobench.lab.interrupt import interruptible
from colobench.lab.session.record import CheckpointRecord, Records
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session
from colobench.text_table import align

#: Checkpoints by the timer are rare, so that those with another cause can be told apart.
TIMER_MS = 1000
#: Connections that ask at the same moment, whose answers a guest may shuffle.
AT_ONCE = 4
#: Requests from one TIME to the next.
TIME_EVERY = 25
#: Miscompares that a table names.
SHOWN = 6


class CauseTable:
    """Checkpoints by cause, and the last miscompares.

    Parameters
    ----------
    records
        Records of checkpoints.

    Attributes
    ----------
    counts
        Number of checkpoints by cause.
    miscompares
        The records of those that a miscompare caused.
    """

    def __init__(self, records: Iterable[CheckpointRecord]) -> None:
        found = list(records)
        self.counts = Counter(record.cause for record in found)
        self.miscompares = [record for record in found if record.cause == "miscompare"]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Give number, time, connection and offset of the last miscompares, as text."""
        return [
            (
                f"{record.number:,}",
                f"{record.time:.2f} s",
                record.cause_connection or "–",
                "–" if record.cause_offset is None else f"{record.cause_offset:,}",
            )
            for record in self.miscompares[-SHOWN:]
        ]

    def counted(self) -> str:
        """Write the counts on one line."""
        return ", ".join(f"{cause} {count}" for cause, count in self.counts.most_common()) or "none"

    def __repr__(self) -> str:
        """Write the counts, and a table of the last miscompares."""
        lines = [f"checkpoints by cause: {self.counted()}"]
        if self.miscompares:
            rows = [("checkpoint", "at", "connection", "byte"), *self.rows()]
            lines += align(rows, right=range(4))
        return "\n".join(lines)


@interruptible("its pair has ended; `into` keeps what was recorded")
def provoke_miscompares(
    nondeterminism: NondeterminismSettings = DETERMINISTIC,
    seconds: float = 2.0,
    *,
    ask_time: bool = True,
    ram: str = "16M",
    into: Records | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Records:
    """Let clients ask a guest whose output is compared, and record the causes of its checkpoints.

    Parameters
    ----------
    nondeterminism
        Dials of the guest.
    seconds
        Seconds for which clients ask.
    ask_time
        Whether each request number `TIME_EVERY` is TIME; the others count and read.
    ram
        RAM of the guest.
    into
        Records that are appended to as they come, for others to watch.
    go_on
        Function that says whether to go on; it is called all the time.

    Returns
    -------
    Records
        `into`, or new ones.
    """
    records = Records() if into is None else into
    settings = serving_settings(
        ram=ram, output="compare", delay=TIMER_MS, verify=False, nondeterminism=nondeterminism
    )
    with Session(settings) as session:
        session.on_record(records.append)
        probe(
            session.address(),
            _requests(ask_time),
            seconds=seconds,
            at_once=AT_ONCE,
            every_ms=10.0,
            seen=lambda answered: None,
            go_on=go_on,
        )
    return records


def _requests(ask_time: bool) -> Iterator[Request]:
    for number in itertools.count(1):
        if ask_time and number % TIME_EVERY == 0:
            yield (b"TIME",)
        elif number % 3 == 0:
            yield b"GET", b"visitors"
        else:
            yield b"INCR", b"visitors"
