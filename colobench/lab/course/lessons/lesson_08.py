"""Notebook 08: a strategy of one's own."""

from __future__ import annotations

from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.fields.checks import check_texts, show
from colobench.lab.compare.run import compare
from colobench.lab.compare.score import score
from colobench.lab.course.exercise import Exercise
from colobench.lab.course.feedback import (
    Feedback,
    UnfitAnswerError,
    judge_number,
    near,
    right,
    shown,
    wrong,
)
from colobench.lab.course.lesson import Lesson
from colobench.lab.course.prediction import CurveAnswer, PredictedExperiment
from colobench.lab.session.session import Session
from colobench.settings.checkpoint import Strategy
from colobench.strategy.trigger import Situation

LONGEST_MS = 40
MOST_PAGES = 200
PAUSE_MS, PRICE = 8.0, 0.01


#: Milliseconds run and pages dirty, whether a checkpoint is due then, and a hint if not judged so.
CASES = (
    (1.0, 0, False, "It asks at once, with nothing written and no time passed."),
    (LONGEST_MS / 2, MOST_PAGES // 2, False, "It asks too early: half the time, half the pages."),
    (
        LONGEST_MS / 4,
        MOST_PAGES,
        True,
        f"With {MOST_PAGES} pages dirty it waits for the time. Look at `seen.dirty_pages`.",
    ),
    (
        float(LONGEST_MS),
        1,
        True,
        f"After {LONGEST_MS} ms it still waits for pages: a quiet guest would never be protected.",
    ),
)


def _run(trigger: Any) -> int:
    """Run a pair with a trigger; gives the number of checkpoints."""
    guest: dict[str, Any] = {"guest": "uniform", "writes_per_tick": 64, "verify": False}
    with Session(strategy=Strategy(trigger=trigger), ram="16M", **guest) as session:
        return len(session.run(8))


def _judge_trigger(answer: Any) -> Feedback:
    if isinstance(answer, type) or not hasattr(answer, "ask"):
        raise UnfitAnswerError(
            f"answer: expected an object with a method `ask`, found {shown(answer)}"
        )
    for ran_ms, dirty_pages, due, hint in CASES:
        seen = Situation(now_ms=ran_ms, ran_ms=ran_ms, pause_ms=1.0, dirty_pages=dirty_pages)
        try:
            asked = answer.ask(seen)
        except (Exception, SystemExit) as error:
            return wrong(f"`ask` ended with {show(error)}.")
        if isinstance(asked, str) is not due:
            return wrong(hint)
    needs = getattr(answer, "needs", None)
    try:
        needs = check_texts("needs", () if needs is None else needs)
    except LocalError as error:
        return wrong(f"Its rule is right, and the node refuses what it needs: {error}.")
    if "dirty_pages" not in needs:
        return wrong("Its rule is right. List `dirty_pages` in `needs`, or the node counts none.")
    try:
        taken = _run(answer)
    except ColobenchError as error:
        return wrong(f"A pair could not be run with it: {error}.")
    return right(f"A real pair has just taken {taken} checkpoints with it.")


def _judge_interval(answer: Any) -> Feedback:
    best = (2 * PAUSE_MS / PRICE) ** 0.5
    return judge_number(
        answer,
        best,
        why="There, the guest loses as much by pauses as clients lose by waiting.",
        hints={
            round((PAUSE_MS / PRICE) ** 0.5, 2): "The wait is T / 2 on average: mind the 2.",
            2 * PAUSE_MS / PRICE: "Take the square root.",
            PAUSE_MS / PRICE: "Set the derivative of p / T + price × T / 2 to zero.",
        },
        otherwise="T = √(2p / price), from the text above.",
        exact=0.005,
        close=0.1,
    )


#: Intervals whose scores are predicted, ms, and what counts as the least score.
INTERVALS_MS = (5.0, 20.0, 40.0, 80.0, 160.0)
EQUAL = 1.2


def _score_intervals() -> tuple[float, ...]:
    """Measure the score of fixed intervals, in the game of the notebook."""
    strategies = [f"colo_v12,delay={interval:g}" for interval in INTERVALS_MS]
    found = score(
        compare(
            strategies,
            guest="uniform,writes_per_tick=64",
            ram="64M",
            seconds=0.6,
            unprotected_seconds=0.4,
            rounds=1,
            models=False,
            progress=lambda done, total: None,
        ),
        PRICE,
    )
    return tuple(found.of(name).found.median for name in strategies)


def _judge_scores(answer: tuple[float, ...], outcome: tuple[float, ...]) -> Feedback:
    lowest = answer.index(min(answer))
    least = outcome.index(min(outcome))
    why = (
        f"The least score was at {INTERVALS_MS[least]:g} ms. Shorter intervals cost more pauses, "
        "longer ones more waiting."
    )
    if max(answer) - min(answer) <= 0.1 * max(answer):
        return wrong(f"A flat line says that the interval does not matter. {why}")
    if outcome[lowest] <= max(outcome[least], EQUAL * outcome[least]):
        return right(why)
    if outcome[least] < 0:
        return near(
            "This machine did other work meanwhile: a protected guest was faster than the same one "
            "unprotected. Run it again."
        )
    if lowest == len(answer) - 1:
        return wrong(f"Waiting has its price, too: on average half of the interval. {why}")
    if lowest == 0:
        return wrong(f"A checkpoint costs a pause, however short the interval is. {why}")
    return near(why) if abs(lowest - least) == 1 else wrong(why)


LESSON = Lesson(
    "08",
    exercises=(
        Exercise(
            "08.1",
            f"A pause is {PAUSE_MS:g} ms and the price {PRICE:g}. Which interval does `Balanced` "
            "choose?",
            "a number of milliseconds",
            f'cb.exercise("08.1").check((2 * {PAUSE_MS:g} / {PRICE:g}) ** 0.5)',
            _judge_interval,
            "A pause that is four times as long makes the interval twice as long.",
        ),
        Exercise(
            "08.2",
            f"Write a trigger that asks as soon as {MOST_PAGES} pages are dirty, and after "
            f"{LONGEST_MS} ms at the latest. The check asks it about some situations, and then "
            "runs a pair with it.",
            "an object of your class",
            f"""class PagesOrTime:
    needs = ["dirty_pages"]

    def ask(self, seen):
        if seen.dirty_pages >= {MOST_PAGES}:
            return "pages"
        if seen.ran_ms >= {LONGEST_MS}:
            return "time"
        return 1


cb.exercise("08.2").check(PagesOrTime())""",
            _judge_trigger,
            "It is asked again after a millisecond, so it is late by a millisecond's writes.",
        ),
    ),
    predictions=(
        PredictedExperiment(
            "08.1",
            f"The price of waiting is {PRICE:g} for a millisecond. A pair takes checkpoints at a "
            "fixed interval. What is its score, by the interval? The shape counts, and where it "
            "is least.",
            CurveAnswer(INTERVALS_MS, "interval (ms)", "score", 2.0),
            _score_intervals,
            _judge_scores,
        ),
    ),
)
