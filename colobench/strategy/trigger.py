"""Interface of triggers: they decide, of what a node knows, when the next checkpoint is due.

A trigger is a pure function of a `Situation` and of its own small memory. The node keeps the
memory, takes the times and asks; see `colobench.node.trigger`. All times are milliseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from colobench.fields.kinds import Integer
from colobench.fields.part import Part, setting

#: The longest delay that QEMU takes, in milliseconds: no session lives to see its end.
NEVER_MS = 2**32 - 1
#: Attributes of a `Situation` that a node finds out only for a trigger that needs them.
DIRTY_PAGES, OUTPUT_FRAMES, MISCOMPARE = "dirty_pages", "output_frames", "miscompare"
NEEDS = (DIRTY_PAGES, OUTPUT_FRAMES, MISCOMPARE)
#: The cause of a checkpoint that comes because the trigger's longest time is over.
TIMER = "timer"
#: Causes of the node itself, which no trigger gives: by a shutdown, the pair ends.
NODE_CAUSES = frozenset({"requested", "shutdown", "disk"})

#: A cause: take a checkpoint now, for that reason. A number: ask again after so many milliseconds
#: at the latest; 0 or less is a checkpoint now, too.
Answer = str | float


@dataclass(frozen=True, slots=True)
class Situation:
    """Knowledge of the node when it asks a trigger.

    Attributes
    ----------
    now_ms
        Milliseconds since the pair entered COLO.
    ran_ms
        Milliseconds for which the guest has run since it was last started.
    checkpoints
        Number of checkpoints of this pair so far.
    cause
        Why the last one was taken; "" before the first.
    began_ms
        `now_ms` when the last one was decided on; 0 before the first.
    last_run_ms, pause_ms
        Milliseconds for which the guest ran before the last one, and for which it stood still.
    last_due_ms
        Milliseconds for which it had run when the last one was decided on.
    pages, frames
        Pages that the last one sent, and frames of output that it released.
    dirty_pages
        Pages written since the last one; None unless the trigger needs it.
    output_frames
        Frames of output that wait and that no checkpoint has, not even one that is still sent; None
        unless the trigger needs it. A node asks at once when the first of them begins to wait.
    miscompare
        Why colo-compare wants a checkpoint: miscompare, timeout or overflow; None if it does not,
        or unless the trigger needs it. A node asks at once when it begins to want one.
    """

    now_ms: float
    ran_ms: float
    checkpoints: int = 0
    cause: str = ""
    began_ms: float = 0.0
    last_run_ms: float = 0.0
    last_due_ms: float = 0.0
    pause_ms: float = 0.0
    pages: int = 0
    frames: int = 0
    dirty_pages: int | None = None
    output_frames: int | None = None
    miscompare: str | None = None


@dataclass(frozen=True, slots=True)
class Trigger(Part, ABC):
    """Base class of triggers; the parameters of each are declared as settings are.

    Attributes
    ----------
    kind
        Its name in settings.
    needs
        Those of `NEEDS` that it looks at.
    source
        Where it is described.
    """

    kind: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    source: ClassVar[str] = ""

    @property
    @abstractmethod
    def longest_ms(self) -> int | None:
        """Milliseconds after which a checkpoint comes at the latest; None for never."""

    @property
    def longest_lead_ms(self) -> int:
        """Most milliseconds that `lead_ms` gives."""
        return 0

    @abstractmethod
    def ask(self, seen: Situation, memory: Any) -> Answer:
        """Decide whether a checkpoint is due.

        Parameters
        ----------
        seen
            Knowledge of the node.
        memory
            What `learn` returned last; None before the first checkpoint.
        """

    def lead_ms(self, seen: Situation, memory: Any) -> float:
        """Give the milliseconds for which the guest runs on after the request for a checkpoint.

        The secondary prepares meanwhile. `seen` is what it was when the trigger gave the cause.
        """
        return 0.0

    def secondary_stands(self, seen: Situation, memory: Any) -> bool:
        """Decide whether the secondary's guest stands still after a checkpoint that is due.

        Of a variant whose secondary's guest runs between checkpoints.
        """
        return False

    def learn(self, seen: Situation, memory: Any) -> Any:
        """Give the memory after a checkpoint, of whatever cause, when the guest runs again."""
        return memory


def maximum() -> Any:
    """Declare the longest time between checkpoints, as a field of a trigger."""
    return setting(Integer(1, NEVER_MS, "ms"), 1000, "longest time between checkpoints")


@dataclass(frozen=True, slots=True)
class BoundedTrigger(Trigger):
    """Base class of triggers for which the guest never runs longer than `longest_ms`."""

    @property
    @abstractmethod
    def longest_ms(self) -> int:
        """Milliseconds after which a checkpoint comes at the latest."""

    def ask(self, seen: Situation, memory: Any) -> Answer:
        """Decide as `decide` does, but never later than after the longest time."""
        left = self.longest_ms - seen.ran_ms
        if left <= 0:
            return TIMER
        answer = self.decide(seen, memory)
        return answer if isinstance(answer, str) else min(answer, left)

    @abstractmethod
    def decide(self, seen: Situation, memory: Any) -> Answer:
        """Decide before the longest time is over; see `ask`."""
