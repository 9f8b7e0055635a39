"""Latency of answers with output buffered, output compared, and no secondary."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from colobench.lab.clients.closed_loop import Answered, Request
from colobench.lab.clients.open_loop import probe
from colobench.lab.interrupt import interruptible
from colobench.lab.percentiles import percentiles
from colobench.lab.session.serving import serving_settings
from colobench.lab.session.session import Session
from colobench.text_table import align

#: States of output, in the order in which they are measured.
STATES = ("buffer", "compare", "unprotected")
#: Number of keys that requests cycle through.
KEYS = 100
#: Seconds before requests count: the guest's side of a new connection waits for a checkpoint, too.
SETTLING_SECONDS = 0.5


class TimedAnswer(NamedTuple):
    """An answer with its latency.

    Attributes
    ----------
    state
        One of `STATES`.
    asked_s
        Time of the request, in seconds since the measurement of that state began.
    latency_ms
        Milliseconds from the request to the answer.
    """

    state: str
    asked_s: float
    latency_ms: float


@dataclass(slots=True)
class Latencies:
    """Latencies that were measured; they grow during a measurement.

    Attributes
    ----------
    answers
        All answers.
    checkpoints
        State and time of each checkpoint that was taken meanwhile, in the same seconds as the
        answers.
    delay_ms
        Milliseconds between checkpoints, which release buffered output.
    """

    answers: list[TimedAnswer] = field(default_factory=list)
    checkpoints: list[tuple[str, float]] = field(default_factory=list)
    delay_ms: int = 100

    def count(self, state: str) -> int:
        """Count the answers of a state."""
        return sum(each.state == state for each in self.answers)

    def percentile(self, state: str, percent: float) -> float:
        """Give a percentile of a state's latencies in ms; NaN without answers."""
        found = (each.latency_ms for each in self.answers if each.state == state)
        return percentiles(found, [percent], without=math.nan)[0]

    def ratio(self, state: str, other: str) -> float:
        """Give the ratio of the medians of two states."""
        return self.percentile(state, 50) / self.percentile(other, 50)

    def __repr__(self) -> str:
        """Write a table, and both ratios."""
        rows = [("output", "answers", "p50", "p90", "p99")]
        for state in STATES:
            if count := self.count(state):
                p50, p90, p99 = (f"{self.percentile(state, p):.2f} ms" for p in (50, 90, 99))
                rows.append((state, f"{count:,}", p50, p90, p99))
        lines = align(rows, right=(1, 2, 3, 4))
        if len(lines) == 1 + len(STATES):
            lines += [
                f"compared: {self.ratio('compare', 'unprotected'):.2f} × unprotected (p50)",
                f"buffered: {self.ratio('buffer', 'compare'):,.0f} × compared (p50)",
            ]
        return "\n".join(lines)


@interruptible("its pair has ended; `into` keeps what was measured")
def measure_latency(
    seconds: float = 3.0,
    *,
    delay_ms: int = 100,
    every_ms: float = 5.0,
    ram: str = "16M",
    into: Latencies | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> Latencies:
    """Measure the three states, the last two with the same guest.

    One pair buffers. Another compares; then its secondary is killed, and the primary goes on by
    itself: its clients' latency is that of the machine and the network.

    Parameters
    ----------
    seconds
        Duration of the measurement of each state, seconds.
    delay_ms
        The checkpoints' distance where output is buffered.
    every_ms
        Interval between requests, milliseconds.
    ram
        RAM of the guest.
    into
        Latencies that are appended to as they come, for others to watch.
    say
        Function that is called with a description of each step.

    Returns
    -------
    Latencies
        `into`, or new ones.
    """
    found = Latencies() if into is None else into
    found.delay_ms = delay_ms
    say("starting a pair that buffers output")
    with _serving("buffer", delay_ms, ram) as session:
        _measure(session, "buffer", seconds, every_ms, found, say)
    say("starting a pair that compares output")
    with _serving("compare", 10 * delay_ms, ram) as session:
        _measure(session, "compare", seconds, every_ms, found, say)
        session.kill("secondary")
        session.failover()
        _measure(session, "unprotected", seconds, every_ms, found, say)
    say("done")
    return found


def _serving(output: str, delay_ms: int, ram: str) -> Session:
    return Session(serving_settings(ram=ram, output=output, delay=delay_ms, verify=False))


def _measure(
    session: Session,
    state: str,
    seconds: float,
    every_ms: float,
    found: Latencies,
    say: Callable[[str], None],
) -> None:
    say(f"asking; output: {state}")
    begin, checkpoints = time.monotonic() + SETTLING_SECONDS, session.records.total

    def note(answered: Answered) -> None:
        nonlocal checkpoints
        asked = answered.call / 1e9 - begin
        if asked >= 0:
            latency = (answered.returned - answered.call) / 1e6
            found.answers.append(TimedAnswer(state, asked, latency))
        for record in session.records.since(checkpoints):
            checkpoints += 1
            found.checkpoints.append((state, session.began + record.time - begin))

    seconds += SETTLING_SECONDS
    probe(session.address(), _requests(), seconds=seconds, every_ms=every_ms, seen=note)


def _requests() -> Iterator[Request]:
    """Write, read and count, without end."""
    for number in itertools.count():
        yield b"SET", b"key:%d" % (number % KEYS), b"value %d" % number
        yield b"GET", b"key:%d" % (number % KEYS)
        yield b"INCR", b"counter"
