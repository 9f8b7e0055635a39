"""Checkpoints that colo-compare requests of two guests that do the same, counted.

Such guests need none. A bug that costs checkpoints, and no correctness that a client could see, is
shown by this count beside that of a run without the bug. No time is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from colobench.lab.clients.closed_loop import Clients
from colobench.lab.session.session import Session
from colobench.settings.settings import Settings

#: Times that all clients connect anew, clients, and answers to each of them on average.
WAVES, CLIENTS, ANSWERS = 6, 6, 2
#: Least number of needless checkpoints that say anything, and how many times as many as without.
LEAST, TIMES = 3, 2
#: Causes of checkpoints that are colo-compare's.
COMPARED = ("miscompare", "timeout", "overflow")


@dataclass(frozen=True, slots=True)
class Needless:
    """Counts of a run.

    Attributes
    ----------
    answers
        Number of answers to clients.
    causes
        Checkpoints by their cause.
    """

    answers: int
    causes: Mapping[str, int]

    @property
    def requested(self) -> int:
        """Number of checkpoints that colo-compare requested."""
        return sum(self.causes.get(cause, 0) for cause in COMPARED)

    def exceeds(self, clean: Needless) -> bool:
        """Say whether there are so many more for each answer that a busy machine is no reason."""
        rates = self.requested * clean.answers, clean.requested * self.answers
        return self.requested >= LEAST and rates[0] >= TIMES * rates[1]

    def __str__(self) -> str:
        return f"{self.requested} in {self.answers} answers"


def count_needless(
    settings: Settings,
    patience: float,
    say: Callable[[str], None] = lambda words: None,
    *,
    waves: int = WAVES,
) -> Needless:
    """Let clients connect and ask a pair whose output is compared, in waves, and count.

    Parameters
    ----------
    settings
        Settings of the pair, whose guests do the same.
    patience
        Seconds after which an answer counts as missing.
    say
        Function that is called with a description of each step.
    waves
        Times that all clients connect anew.

    Raises
    ------
    ClientsStalled
        If clients get no answers.
    """
    answers = 0
    with Session(settings) as session:
        for wave in range(1, waves + 1):
            say(f"wave {wave} of {waves}: {CLIENTS} clients connect and ask")
            with Clients(session.address(), CLIENTS, seed=wave, timeout=patience) as clients:
                clients.wait_until_answered(CLIENTS * ANSWERS, timeout=patience)
            answers += len(clients.answers)
        causes = Counter(record.cause for record in session.records)
    return Needless(answers, causes)
