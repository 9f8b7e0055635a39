"""The hybrid trigger: comparison while the guests' outputs agree, fixed delays while they do not.

From Dr. David Gilbert's series "COLO: hybrid mode" (qemu-devel, 2015), which QEMU never took.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from colobench.errors import LocalError
from colobench.fields.kinds import Integer
from colobench.fields.part import setting
from colobench.strategy.trigger import MISCOMPARE, NEVER_MS, TIMER, Answer, Situation, Trigger

#: Checkpoints in the comparing mode before the mean interval is judged.
CYCLES = 5
#: Parts of the mean interval that are the old mean, and the newest interval.
OLD, NEW = 0.7, 0.3


class HybridMemory(NamedTuple):
    """State of the hybrid.

    Attributes
    ----------
    mean_ms
        Mean interval, which begins at 0: after five equal intervals it is 83 % of them.
    cycles
        Checkpoints in the comparing mode since it was entered.
    passive_left
        Passive checkpoints that are still to come; 0 in the comparing mode.
    """

    mean_ms: float = 0.0
    cycles: int = 0
    passive_left: int = 0


@dataclass(frozen=True, slots=True)
class Hybrid(Trigger):
    """Checkpoints on miscompare, or at fixed intervals for a while if miscompares are frequent.

    After each checkpoint, the mean interval is 0.7 of the old mean and 0.3 of the newest interval,
    for which the guest had run when the checkpoint was requested. In the comparing mode, once there
    were five checkpoints and the mean is below `passive_limit`, the mode is passive for
    `passive_count` checkpoints, with the one that enters it. The secondary's guest stands still in
    the passive mode, so all output waits for the next checkpoint. Then mean and count begin at 0
    again, in the comparing mode. After a miscompare sooner than `minimum`, the checkpoint is
    requested at once, and the guest runs on until then.
    """

    title = "hybrid"
    kind: ClassVar[str] = "hybrid"
    needs: ClassVar[frozenset[str]] = frozenset({MISCOMPARE})
    source: ClassVar[str] = "Gilbert, COLO hybrid mode, qemu-devel 2015"

    minimum: int = setting(
        Integer(0, NEVER_MS, "ms"),
        100,
        "shortest time from a checkpoint to the stop for one on miscompare",
    )
    maximum: int = setting(
        Integer(1, NEVER_MS, "ms"), 10_000, "longest time between checkpoints, comparing"
    )
    passive_limit: int = setting(
        Integer(0, NEVER_MS, "ms"), 400, "mean interval below which the mode is passive"
    )
    passive_count: int = setting(Integer(1, 10**9), 100, "checkpoints of the passive mode")
    passive_time: int = setting(
        Integer(1, NEVER_MS, "ms"), 250, "time between checkpoints in the passive mode"
    )

    def complete(self) -> None:
        """Check that no time is longer than the maximum."""
        for name in ("minimum", "passive_time"):
            if getattr(self, name) > self.maximum:
                raise LocalError(
                    f"{name}: expected at most the maximum, {self.maximum} ms, "
                    f"found {getattr(self, name)}"
                )

    @property
    def longest_ms(self) -> int:
        """The maximum."""
        return self.maximum

    @property
    def longest_lead_ms(self) -> int:
        """The minimum."""
        return self.minimum

    def ask(self, seen: Situation, memory: HybridMemory | None) -> Answer:
        """Decide by the mode."""
        passive = memory is not None and memory.passive_left > 0
        left = (self.passive_time if passive else self.maximum) - seen.ran_ms
        if left <= 0:
            return "passive" if passive else TIMER
        return left if passive or seen.miscompare is None else seen.miscompare

    def lead_ms(self, seen: Situation, memory: HybridMemory | None) -> float:
        """Let the guest run on until the minimum after a miscompare."""
        return 0.0 if seen.miscompare is None else max(0.0, self.minimum - seen.ran_ms)

    def secondary_stands(self, seen: Situation, memory: HybridMemory | None) -> bool:
        """Decide by the mode after the checkpoint."""
        return self.learn(replace(seen, last_due_ms=seen.ran_ms), memory).passive_left > 0

    def learn(self, seen: Situation, memory: HybridMemory | None) -> HybridMemory:
        """Take in the interval before the checkpoint, and choose the mode."""
        was = memory or HybridMemory()
        mean = OLD * was.mean_ms + NEW * seen.last_due_ms
        if was.passive_left > 0:
            left = was.passive_left - 1
            return HybridMemory(mean, was.cycles, left) if left else HybridMemory()
        cycles = was.cycles + 1
        if cycles < CYCLES or mean >= self.passive_limit:
            return HybridMemory(mean, cycles)
        left = self.passive_count - 1
        return HybridMemory(mean, cycles, left) if left else HybridMemory()
