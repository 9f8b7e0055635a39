"""Running reproductions: rounds of each, checks of the machine, and the JSON of them all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.lab.bench.context import BenchContext
from colobench.lab.compare.measure import check_machine
from colobench.lab.interrupt import interruptible
from colobench.lab.progress import bar
from colobench.lab.reproductions.findings import Reproductions
from colobench.lab.reproductions.points import Point
from colobench.lab.reproductions.registry import chosen, reproductions
from colobench.lab.reproductions.reproduction import Laboratory, Reproduced, Reproduction
from colobench.settings.file import KEY

#: Usual number of rounds: with fewer, the interval of a median is wide.
ROUNDS = 5


def reproduce(
    *names: str,
    rounds: int = ROUNDS,
    shrink: int = 1,
    into: Reproductions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reproductions:
    """Measure published claims again, here, and judge each by its gates.

    Parameters
    ----------
    names
        Names of reproductions, see ``colobench reproduce --list``; without any, all.
    rounds
        Rounds of each. What is compared is measured in turn within a round.
    shrink
        Factor by which sizes are smaller, for a quick look.
    into
        Result that grows meanwhile, for others to watch.
    progress
        Function that is called with the number of rounds done and the total; by default a bar is
        shown.

    Returns
    -------
    Reproductions
        `into`, or a new result.

    Raises
    ------
    LocalError
        If a name is unknown, or `rounds` is not positive.
    """
    plan = chosen(names)
    if rounds < 1:
        raise LocalError(f"reproduce: expected at least 1 round, found {rounds}")
    found = Reproductions() if into is None else into
    if progress is not None:
        measure(plan, rounds, shrink, found, progress)
    else:
        with bar("reproducing", "rounds") as shown:
            measure(plan, rounds, shrink, found, shown)
    return found


@interruptible("its pairs have ended; `into` keeps what was measured")
def measure(
    plan: Sequence[Reproduction],
    rounds: int,
    shrink: int,
    into: Reproductions,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda what: None,
) -> None:
    """Measure reproductions, round by round; parameters as of `reproduce`.

    A reproduction that fails keeps the rounds before, and its failure; the others go on.
    """
    total, done = rounds * len(plan), 0
    with BenchContext(rounds=rounds, shrink=shrink) as context:
        for number, each in enumerate(plan, 1):
            say(each.name)
            of_one = Reproduced(each)
            into.add(of_one)
            try:
                for _ in _rounds(of_one, context):
                    done += 1
                    progress(done, total)
            except (ColobenchError, OSError) as error:
                of_one.failure = str(error)
            context.release()
            done = number * rounds
            progress(done, total)


def _rounds(found: Reproduced, context: BenchContext) -> Iterator[None]:
    """Measure one reproduction; yield after each round."""
    laboratory = Laboratory(context)
    _check(found)
    with closing(found.reproduction.measure(laboratory)) as measuring:
        for points in measuring:
            found.settings.update(
                {name: each.as_json() for name, each in laboratory.settings.items()}
            )
            found.points += points
            _check(found)
            yield


def _check(found: Reproduced) -> None:
    """Measure the rate of memcpy, and the share of a processor that this thread has meanwhile."""
    ran, began = time.thread_time(), time.perf_counter()
    found.memcpy_gb_per_s.append(check_machine())
    share = (time.thread_time() - ran) / (time.perf_counter() - began)
    found.processor_shares.append(round(share, 3))


def as_json(machine: dict[str, Any], found: Reproductions) -> dict[str, Any]:
    """Put a run into one JSON object, with the settings of each pair beside its points."""
    return {"machine": machine, "results": [_row(each) for each in found]}


def _row(found: Reproduced) -> dict[str, Any]:
    series = dict.fromkeys(each.series for each in found.points)
    return {
        "name": found.reproduction.name,
        "claim": found.reproduction.claim,
        "kind": found.reproduction.kind,
        "source": found.reproduction.source,
        "state": found.state.value,
        "failure": found.failure,
        "memcpy_gb_per_s": found.memcpy_gb_per_s,
        "processor_shares": found.processor_shares,
        "gates": [
            {
                "name": each.gate.name,
                "words": each.gate.words,
                "published": each.gate.published,
                "bound": str(each.bound),
                "value": each.value,
                "interval": [each.low, each.high],
                "holds": each.holds,
                "reason": each.reason,
            }
            for each in found.verdicts()
        ],
        "series": [
            {
                "series": name,
                KEY: found.settings.get(name),
                "points": [
                    [each.quantity, each.x, float(f"{each.y:.6g}"), each.round]
                    for each in found.points
                    if each.series == name
                ],
            }
            for name in series
        ],
    }


def read_reproductions(path: Path | str) -> Reproductions:
    """Read what ``colobench reproduce --json`` wrote, and judge it by the gates of this version.

    Raises
    ------
    LocalError
        If the file is not of that form.
    """
    known, found = reproductions(), Reproductions()
    try:
        written = json.loads(Path(path).read_text())
        found.machine = written["machine"]
        for row in written["results"]:
            if row["name"] in known:
                found.add(_read_row(known[row["name"]], row))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise LocalError(f"{path}: expected results of colobench reproduce: {error}") from error
    return found


def _read_row(reproduction: Reproduction, row: dict[str, Any]) -> Reproduced:
    found = Reproduced(
        reproduction,
        memcpy_gb_per_s=row["memcpy_gb_per_s"],
        processor_shares=row["processor_shares"],
        failure=row["failure"],
    )
    for series in row["series"]:
        if series[KEY] is not None:
            found.settings[series["series"]] = series[KEY]
        found.points += [
            Point(series["series"], quantity, x, y, number)
            for quantity, x, y, number in series["points"]
        ]
    return found
