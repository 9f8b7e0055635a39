"""Counts of miscompares with real pairs and real clients, in interleaved rounds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from colobench.lab.clients.closed_loop import Answered, Request
from colobench.lab.clients.open_loop import probe
from colobench.lab.compare.cells import in_rounds
from colobench.lab.interrupt import interruptible
from colobench.lab.miscompares.counts import Miscompares, Run
from colobench.lab.miscompares.dials import DIALS, Dial, dial_of
from colobench.lab.miscompares.settings import MiscompareSettings, pair_settings
from colobench.lab.progress import bar
from colobench.lab.session.session import Session

#: Keys that requests choose from, besides the one that half of them are about.
KEYS = 1000


def count_miscompares(
    dials: Sequence[Dial | str] = DIALS,
    *,
    into: Miscompares | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> Miscompares:
    """Count how often the answers of two guests differ, for each dial of chance.

    Parameters
    ----------
    dials
        Settings of the guest's nondeterminism, or names of those in `DIALS`; they take turns.
    into
        Counts that grow meanwhile, for others to watch.
    progress
        Function that is called with the number of runs done and the total; by default a bar is
        shown.
    settings
        Settings of `MiscompareSettings`, by name.

    Returns
    -------
    Miscompares
        `into`, or new counts.

    Raises
    ------
    LocalError
        If a setting is not what is expected.
    RemoteError
        If a pair breaks.
    """
    if into is None:
        chosen = MiscompareSettings().override(**settings)
        into = Miscompares(tuple(map(dial_of, dials)), chosen)
    if progress is not None:
        count_missing(into, progress)
    else:
        with bar("counting miscompares", "runs") as shown:
            count_missing(into, shown)
    return into


@interruptible("its pair has ended; `into` keeps what was counted")
def count_missing(
    counts: Miscompares,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda what: None,
) -> None:
    """Do the runs that counts lack; they grow by each."""
    done = {(run.dial, run.round) for run in counts.runs}
    for number, dial in in_rounds(counts.dials, counts.settings.rounds):
        if (dial.name, number) not in done:
            say(dial.name)
            counts.runs.append(_run(dial, number, counts.settings))
            progress(len(counts.runs), counts.total)


def _run(dial: Dial, number: int, settings: MiscompareSettings) -> Run:
    answers = 0

    def seen(answered: Answered) -> None:
        nonlocal answers
        answers += 1

    with Session(pair_settings(dial.nondeterminism)) as session:
        compared = session.nodes["primary"].execute
        before = compared("x-query-guest")["compare"]["miscompares"]
        probe(
            session.address(),
            _requests(settings, number, dial.asks_time),
            seconds=settings.seconds,
            at_once=settings.at_once,
            every_ms=settings.every_ms,
            seen=seen,
        )
        found = compared("x-query-guest")["compare"]["miscompares"] - before
        # Its record is behind those of all checkpoints before.
        session.checkpoint()
        causes = [record.cause for record in session.records]
        return Run(dial.name, number, answers, found, causes.count("miscompare"))


def _requests(settings: MiscompareSettings, number: int, asks_time: bool) -> Iterator[Request]:
    """Draw requests: half about one key, in whose answers the order of clients is visible."""
    chance = random.Random(f"{settings.seed} {number}")
    count = 0
    while True:
        count += 1
        key = b"counter" if chance.random() < 0.5 else b"key:%d" % chance.randrange(KEYS)
        if asks_time and count % settings.time_every == 0:
            yield (b"TIME",)
        elif chance.random() < 0.5:
            yield b"INCR", key
        else:
            yield b"GET", key
