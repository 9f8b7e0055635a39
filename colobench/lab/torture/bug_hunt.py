"""A planted bug, and kills until the clients' history shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from colobench.lab.interrupt import interruptible
from colobench.lab.torture.kill_plan import plan
from colobench.lab.torture.kill_results import KillResult
from colobench.lab.torture.museum import MUSEUM, Exhibit, exhibit
from colobench.lab.torture.run import torture
from colobench.lab.torture.settings import TortureSettings
from colobench.text_table import align

#: Beginning of a counter-example, which says more than a digest that differs.
_FIRST = "not linearizable"
SHOWN = 2


@dataclass(slots=True)
class BugHunt:
    """Results of a hunt; they grow while it goes on.

    Attributes
    ----------
    exhibit
        The bug and its story.
    results
        Results of kills; the last one shows the bug if it is `caught`.
    """

    exhibit: Exhibit
    results: list[KillResult] = field(default_factory=list)

    @property
    def caught(self) -> bool:
        """Whether a kill has shown the bug."""
        return any(each.violations for each in self.results)

    @property
    def violations(self) -> list[str]:
        """Violations, with the counter-example first."""
        found = [sentence for each in self.results for sentence in each.violations]
        return sorted(found, key=lambda sentence: not sentence.startswith(_FIRST))

    def __repr__(self) -> str:
        """Write how many kills it took, and what was wrong."""
        name, count = self.exhibit.bug.value, len(self.results)
        if not self.caught:
            gave_up = sum(bool(each.undecided) for each in self.results)
            undecided = f"; the history is undecided after {gave_up} of them" if gave_up else ""
            return f"{name}: not caught by {count} kills{undecided}"
        last = self.results[-1].kill
        where = "at a random moment"
        if last.point is not None:
            where = f"with the {last.holder} held at '{last.point}'"
        found = self.violations
        lines = [f"{name}: caught by kill {count}, of the {last.victim}, {where}", *found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"and {len(found) - SHOWN} sentences more")
        return "\n".join(lines)


@interruptible("the kill that was under way was finished, and its pair has ended")
def hunt_bug(
    bug: str,
    kills: int = 20,
    *,
    seed: int = 1,
    into: Callable[[BugHunt], None] = lambda hunt: None,
    say: Callable[[str], None] = lambda words: None,
    go_on: Callable[[], bool] = lambda: True,
) -> BugHunt:
    """Plant a bug and kill nodes, where it matters, until it is caught.

    Parameters
    ----------
    bug
        A name of `colobench.settings.bug.Bug`.
    kills
        Limit of the number of kills.
    seed
        Seed of the plan of kills.
    into
        Function that is called with the hunt before the first kill, for others to watch.
    say
        Function that is called with a description of each step.
    go_on
        Function that says whether to go on; it is called after each kill.

    Raises
    ------
    LocalError
        If the bug is unknown.
    """
    shown = exhibit(bug)
    found = BugHunt(shown)
    into(found)
    planned = plan(
        seed,
        kills,
        transports=("stream",),
        outputs=shown.outputs,
        victims=shown.victims,
        points=shown.points,
    )
    settings = TortureSettings().override(**shown.changes())
    for result in torture(planned, settings, say=say):
        found.results.append(result)
        if result.violations or not go_on():
            break
    return found


def museum() -> str:
    """Write the exhibits of the museum: each bug, and the promise that it breaks."""
    return "\n".join(align([(bug.value, each.promise) for bug, each in MUSEUM.items()]))
