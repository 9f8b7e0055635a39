"""A pair in simulated time, whose checkpoints a trigger decides on, as a node asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.fields.kinds import Integer, Number
from colobench.fields.part import settings_of
from colobench.strategy.trigger import NEVER_MS, Situation, Trigger
from colobench.strategy.written import TRIGGERS


def _parameter(kind: object) -> st.SearchStrategy[Any]:
    if isinstance(kind, Number):
        return st.floats(kind.low, kind.high)
    assert isinstance(kind, Integer)
    # Small ones are the interesting ones, and go together more often.
    return st.integers(kind.low, 50) | st.integers(kind.low, kind.high)


@st.composite
def triggers(draw: st.DrawFn, kinds: Iterable[type[Trigger]] = tuple(TRIGGERS.values())) -> Trigger:
    """Draw a trigger with any parameters that go together."""
    kind = draw(st.sampled_from(list(kinds)))
    found: dict[str, Any] = {}
    for each in settings_of(kind):
        values = _parameter(each.kind)
        value = draw(st.none() | values if each.or_none else values)
        try:
            kind(**found, **{each.name: value})
        except LocalError:
            continue
        found[each.name] = value
    return kind(**found)


def observations() -> st.SearchStrategy[Situation]:
    """Draw anything that a node may see."""
    times = st.floats(0, 2 * NEVER_MS)
    counts = st.integers(0, 2**40)
    return st.builds(
        Situation,
        now_ms=times,
        ran_ms=times,
        checkpoints=counts,
        cause=st.sampled_from(["", "timer", "requested", "miscompare"]),
        began_ms=times,
        last_run_ms=times,
        last_due_ms=times,
        pause_ms=times,
        pages=counts,
        frames=counts,
        dirty_pages=counts,
        output_frames=counts,
        miscompare=st.sampled_from([None, "miscompare", "timeout", "overflow"]),
    )


@dataclass
class SimulatedPair:
    """A guest that runs and stands still, in milliseconds.

    Parameters
    ----------
    trigger
        Decides when it stands still.
    pause
        Milliseconds of a pause after so many milliseconds of running.
    dirty, output
        Pages written, and frames that wait, after so many milliseconds of running.
    """

    trigger: Trigger
    pause: Callable[[float], float] = lambda run: 1.0
    dirty: Callable[[float], int] = lambda run: 0
    output: Callable[[float], int] = lambda run: 0
    now: float = 0.0
    memory: Any = None
    seen: Situation = field(default_factory=lambda: Situation(0.0, 0.0))
    asked: int = 0

    def observe(self, ran: float, **more: Any) -> Situation:
        """Give what a node would know after running for `ran`."""
        last = self.seen
        return Situation(
            now_ms=self.now + ran,
            ran_ms=ran,
            checkpoints=last.checkpoints,
            cause=last.cause,
            began_ms=last.began_ms,
            last_run_ms=last.last_run_ms,
            last_due_ms=last.last_due_ms,
            pause_ms=last.pause_ms,
            pages=last.pages,
            frames=last.frames,
            dirty_pages=self.dirty(ran),
            output_frames=self.output(ran),
            **more,
        )

    def checkpoint(self, most: float = 1e6, **more: Any) -> Situation | None:
        """Run until the trigger wants a checkpoint, and take it; None if it wants none so soon.

        Returns
        -------
        Situation
            What the trigger learnt: how long the guest ran, and why it was stopped.
        """
        ran = 0.0
        while ran <= most:
            self.asked += 1
            answer = self.trigger.ask(self.observe(ran, **more), self.memory)
            if isinstance(answer, str) or answer <= 0:
                return self.take(ran, answer if isinstance(answer, str) else self.trigger.kind)
            # A node may be a little late, and time has a smallest step.
            ran += max(answer, 1e-6)
        return None

    def take(self, ran: float, cause: str) -> Situation:
        """Take a checkpoint after running for `ran`."""
        pause, began = self.pause(ran), self.now + ran
        self.now = began + pause
        self.seen = Situation(
            now_ms=self.now,
            ran_ms=0.0,
            checkpoints=self.seen.checkpoints + 1,
            cause=cause,
            began_ms=began,
            last_run_ms=ran,
            last_due_ms=ran,
            pause_ms=pause,
            pages=self.dirty(ran),
            frames=self.output(ran),
        )
        self.memory = self.trigger.learn(self.seen, self.memory)
        return self.seen
