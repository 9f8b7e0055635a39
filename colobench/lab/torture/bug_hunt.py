"""A planted bug, and the search for it in the way in which it is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from colobench.lab.interrupt import interruptible
from colobench.lab.session.node_pair import ColoExit
from colobench.lab.session.session import Session
from colobench.lab.torture.catch import Catch
from colobench.lab.torture.differing_answers import ANSWERS, differing_answers
from colobench.lab.torture.kill_plan import plan
from colobench.lab.torture.kill_results import KillResult
from colobench.lab.torture.museum import MUSEUM, Exhibit, exhibit
from colobench.lab.torture.needless_checkpoints import count_needless
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
    evidence
        Sentences that show a bug which is caught without kills.
    """

    exhibit: Exhibit
    results: list[KillResult] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)

    @property
    def caught(self) -> bool:
        """Whether the bug was shown."""
        return bool(self.evidence) or any(each.violations for each in self.results)

    @property
    def violations(self) -> list[str]:
        """Violations, with the counter-example first."""
        found = [sentence for each in self.results for sentence in each.violations]
        found += self.evidence
        return sorted(found, key=lambda sentence: not sentence.startswith(_FIRST))

    def __repr__(self) -> str:
        """Write how many kills it took, and what was wrong."""
        name, count = self.exhibit.bug.value, len(self.results)
        way = self.exhibit.catch
        if not way.kills:
            caught = "caught" if self.caught else "not caught"
            return "\n".join([f"{name}: {caught} by {way.value}", *self.evidence])
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
    """Plant a bug, and catch it: kill nodes where it matters, or look where it shows.

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
    if not shown.catch.kills:
        found.evidence += catch_without_kills(shown, say)
        return found
    planned = plan(
        seed,
        kills,
        transports=("stream",),
        outputs=shown.outputs,
        victims=shown.victims,
        points=shown.points,
        seconds=shown.seconds,
    )
    settings = TortureSettings().override(**shown.changes())
    for result in torture(planned, settings, say=say):
        found.results.append(result)
        if result.violations or not go_on():
            break
    return found


def catch_without_kills(
    shown: Exhibit, say: Callable[[str], None] = lambda words: None
) -> list[str]:
    """Look for a bug that no kill is needed for; give sentences that show it, or none.

    Parameters
    ----------
    shown
        Exhibit whose `catch` does not need kills.
    say
        Function that is called with a description of each step.
    """
    if shown.catch is Catch.OLDER_SENDER:
        from colobench.lab.torture.older_sender import receive_older_stream
        from colobench.node.migration.empty_sync import EmptySyncChannel

        say("receiving what an older QEMU sends")
        return receive_older_stream(EmptySyncChannel)
    if shown.catch is Catch.LATE_PAGE:
        from colobench.lab.torture.late_page import receive_late_pages
        from colobench.node.migration.late_pages import UnendedReceiver

        say("sending pages to a receiver that has ended")
        return receive_late_pages(UnendedReceiver)
    settings = TortureSettings().override(**shown.changes())
    planted = settings.of_output(shown.outputs[0])
    if shown.catch is Catch.ENTRY:
        say("starting a pair")
        try:
            with Session(planted):
                return []
        except ColoExit as error:
            return [str(error)]
    if shown.catch is Catch.DIFFERENCES:
        say("asking a pair for answers that differ")
        came, usual = differing_answers(planted), differing_answers(planted.override(bug=None))
        words = f"{came} of {ANSWERS} answers that differ came with the bug, {usual} without"
        return [words] if came < usual else []
    found = count_needless(planted, settings.patience, say)
    say("the same without the bug")
    clean = count_needless(planted.override(bug=None), settings.patience, say)
    if not found.exceeds(clean):
        return []
    return [f"needless checkpoints: {found} with the bug, {clean} without"]


def museum(caught: bool = False) -> str:
    """Write the exhibits of the museum: each bug, and the promise that it breaks.

    Parameters
    ----------
    caught
        Whether to write how each is caught, instead of its promise.
    """
    rows = [
        (bug.value, each.catch.value if caught else each.promise) for bug, each in MUSEUM.items()
    ]
    return "\n".join(align(rows))
