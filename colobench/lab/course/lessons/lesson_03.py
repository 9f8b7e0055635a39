"""Notebook 03: the RAM cache and the flush."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from colobench.fields.checks import show
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    UnfitAnswerError,
    as_instance,
    judge_number,
    near,
    right,
    shown,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import ChoiceAnswer, PredictedExperiment
from colobench.lab.session.session import Session
from colobench.lab.studies.flush_prediction import PendingFlush, cached_pages, hold_before_flush
from colobench.lab.studies.torn_checkpoint import Cut

GUEST: dict[str, Any] = {"guest": "hotcold", "working_set": 1024, "writes_per_tick": 16}
TICKS = 40
#: Greatest relative error of a guess that is near.
NEAR = 0.1


Words = npt.NDArray[np.uint64]


@cache
def _real_flushes() -> list[tuple[Words, Words, Words]]:
    """Let a secondary flush twice: pages received, written there, and flushed, of each time.

    First the primary's guest runs longer, then the secondary's; otherwise the same work is done on
    both sides, and one of the two sets has the other.
    """
    settings = GUEST | {"variant": "upstream", "report_pages": True}
    found = []
    with Session(ram="16M", delay=None, **settings) as session:
        for longer in ("primary", "secondary"):
            pending = hold_before_flush(session, longer=longer, ticks=TICKS)
            flushed = np.frombuffer(pending.go_on().flushed_bitmap or b"", "<u8")
            found.append((pending.received, pending.written, flushed.astype(np.uint64)))
    return found


def _overlapping() -> tuple[Words, Words, Words]:
    """Give sets of which neither has the other, and what a flush copies.

    On real flushes alone, a rule that takes the larger of the two sets would be right.
    """
    received, written = np.zeros((2, *_real_flushes()[0][0].shape), np.uint64)
    received[0], written[0] = 0b0110, 0b0011
    received[1], written[2] = 0b1, 0b1
    return received, written, received | written


#: Typical rules that are not right, with their hints.
WRONG_RULES: tuple[tuple[Callable[[Words, Words], Words], str], ...] = (
    (
        lambda received, written: received,
        (
            "Those pages are copied, but more are. The secondary's own guest has run, and what "
            "it has written since the last checkpoint is not the primary's state."
        ),
    ),
    (
        lambda received, written: written,
        "Those pages are set back. Where do pages come in that only the primary wrote?",
    ),
    (
        lambda received, written: received & written,
        (
            "A page that only one side wrote differs on the two sides, too. Which pages are equal "
            "on both sides without a copy?"
        ),
    ),
    (
        lambda received, written: received ^ written,
        "A page that both guests wrote is not left out: its contents are received.",
    ),
    (
        lambda received, written: received & ~written,
        "A page that both guests wrote is copied, too, with the primary's contents.",
    ),
)


def _judge_rule(answer: Any) -> Feedback:
    if not callable(answer):
        raise UnfitAnswerError(f"answer: expected a function of two bitmaps, found {shown(answer)}")
    flushes = [*_real_flushes(), _overlapping()]
    found = []
    for received, written, _ in flushes:
        try:
            returned = answer(received.copy(), written.copy())
        except (Exception, SystemExit) as error:
            return wrong(f"Your function ended with {show(error)}.")
        try:
            found.append(np.asarray(returned, dtype=np.uint64))
        except (TypeError, ValueError, OverflowError):
            return wrong(f"Your function returned {shown(returned)}. Return a bitmap.")

    def gives(rule: Callable[[Words, Words], Words]) -> bool:
        expected = [rule(received, written) for received, written, _ in flushes]
        return all(map(np.array_equal, found, expected))

    copied = [flushed for *_, flushed in flushes]
    if all(map(np.array_equal, found, copied)):
        return right("It names the pages that two real flushes have just copied, one by one.")
    if all(map(np.array_equal, found[:-1], copied[:-1])):
        return wrong(
            "In two real flushes that is right, as one of the sets had all pages of the other. It "
            "is not if each side has written a page that the other one has not."
        )
    for rule, hint in WRONG_RULES:
        if gives(rule):
            return wrong(hint)
    return wrong("A real flush copied other pages. Begin with the pages that were received.")


@cache
def _still_guest() -> int:
    """Count the pages that the secondary's guest writes with v12."""
    with Session(ram="16M", delay=None, variant="v12", **GUEST) as session:
        return hold_before_flush(session, longer="secondary", ticks=TICKS).written_pages


def _judge_v12(answer: Any) -> Feedback:
    return judge_number(
        answer,
        _still_guest(),
        why="With v12 the secondary's guest stands still until a takeover, so it writes nothing.",
        otherwise=(
            "With `upstream` it writes pages. Set the variant to `v12`, and read 'the secondary's "
            "own guest wrote', not the pages received."
        ),
    )


def _judge_cut(answer: Any) -> Feedback:
    cut = as_instance(answer, Cut, "one of `torn.cuts`")
    if cut.committed:
        return wrong("That checkpoint is whole: nothing of it is missing.")
    if cut.direct is None:
        return wrong(
            "There, RAM without a cache is no checkpoint's: pages are missing. Cut later, with "
            "smaller steps."
        )
    if cut.direct == cut.cached:
        return wrong("Nothing has changed RAM yet: no whole page has arrived. Cut later.")
    return right(
        "All pages are there, so RAM without a cache is the new checkpoint's, and the devices are "
        "the old one's. The secondary could not go on from that, and does not know it."
    )


KILLED = (
    "it is the one before, untouched",
    "it is the new one, as far as its pages have arrived",
    "half of it is new, and half is old",
)


def _where_ram_stands() -> str:
    """Kill a primary with half of a checkpoint sent, and compare the secondary's RAM."""
    with Session(ram="16M", delay=None, **GUEST) as session:
        session.run(2)
        session.wait_for_ticks(TICKS)
        number = session.hold("primary", "ram")
        arrived = cached_pages(session, at_least=1).any()
        found = session.nodes["secondary"].execute("x-query-digest")["ram"]
        session.kill("primary")
        session.failover()
    if found == session.journal.digests[number - 1]["ram"]:
        return KILLED[0]
    return KILLED[2] if arrived else KILLED[1]


def _judge_killed(answer: str, outcome: str) -> Feedback:
    if answer == outcome:
        return right("The pages had arrived, and only in the RAM cache.")
    if answer == KILLED[2]:
        return wrong(
            "That would be a state that no guest was ever in. The pages had arrived, and only in "
            "the RAM cache: RAM was that of the checkpoint before, to the bit."
        )
    return wrong(
        "A part of a checkpoint is worth nothing without its devices. RAM was that of the "
        "checkpoint before, to the bit."
    )


def judge_flush(guess: int, pending: PendingFlush, flushed_pages: int) -> Feedback:
    """Judge a guess at the number of pages that a flush has copied."""
    received, written = pending.received_pages, pending.written_pages
    both = received + written - pending.foretold_pages
    why = (
        f"The flush copied {flushed_pages:,} pages: {received:,} were received, {written:,} "
        f"written there, {both:,} of them both."
    )
    if guess == flushed_pages:
        return right(why)
    if guess == received + written:
        return wrong(f"You counted twice what both guests wrote. {why}")
    if guess == received:
        return wrong(f"The secondary's own writes are overwritten, too. {why}")
    if guess == written:
        return wrong(f"What was received is copied, too. {why}")
    if abs(guess - flushed_pages) <= NEAR * flushed_pages:
        return near(why)
    return wrong(f"Your guess was {guess:,}. {why}")


LESSON = Lesson(
    "03",
    exercises=(
        Exercise(
            "03.1",
            "Write the rule of the flush as a function of two bitmaps, the pages received and the "
            "pages that the secondary's own guest wrote. The check lets a real secondary flush "
            "twice: once the primary's guest has run longer, once its own.",
            "a function of two bitmaps (NumPy arrays) that returns a bitmap",
            'cb.exercise("03.1").check(lambda received, written: received | written)',
            _judge_rule,
            "The received pages are new. The written ones are set back to the checkpoint before, "
            "which the cache still has.",
        ),
        Exercise(
            "03.2",
            "With `v12`, how many pages does the secondary's own guest write while it runs 100 ms "
            "longer than the primary's? Take the number from the panel above, or from a session.",
            "a number of pages",
            """settings = {"guest": "hotcold", "working_set": 1024, "variant": "v12"}
with cb.Session(ram="16M", delay=None, **settings) as session:
    pending = cb.hold_before_flush(session, longer="secondary")
cb.exercise("03.2").check(pending.written_pages)""",
            _judge_v12,
            "With `v12` the guest on the secondary does not run before a takeover, whatever we "
            "wait for.",
        ),
        Exercise(
            "03.3",
            "Find a cut at which all pages have arrived and the devices have not, so that a "
            "secondary without a cache has RAM of one checkpoint and devices of another. "
            "`cb.cut_checkpoint(session, step=500)` cuts more finely than the cell above.",
            "one of `torn.cuts`",
            """settings = {"guest": "hotcold", "working_set": 64, "writes_per_tick": 4}
with cb.Session(ram="16M", delay=None, keep_stream=True, **settings) as session:
    session.run(2)
    torn = cb.cut_checkpoint(session, step=500)
mixed = [cut for cut in torn.cuts if cut.direct == torn.checkpoint and not cut.committed]
cb.exercise("03.3").check(mixed[0])""",
            _judge_cut,
            "The devices follow RAM in the stream, so there is a place between the two.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "03.1",
            "A primary gets SIGKILL with half of a checkpoint's pages sent, and the secondary has "
            "them. Which checkpoint is the secondary's RAM of at that moment?",
            ChoiceAnswer(KILLED),
            _where_ram_stands,
            _judge_killed,
        ),
    ),
    scored_elsewhere=("03.2",),
)
