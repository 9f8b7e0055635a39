"""Running the benchmark: subjects one after the other, their rows, and the JSON of them all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from colobench.errors import ColobenchError, LocalError
from colobench.lab.bench.case import SUBJECTS, Case, Row, Subject, judge, missing
from colobench.lab.bench.context import BenchContext

_MODULES = (
    "bitmaps",
    "flush",
    "pages",
    "xbzrle",
    "encodings",
    "decoding",
    "checkpoints",
    "disks",
    "peers",
    "trackers",
    "startup",
)


def subjects() -> dict[str, Subject]:
    """Give every subject by its name."""
    for module in _MODULES:
        importlib.import_module(f"colobench.lab.bench.subjects.{module}")
    return SUBJECTS


def run(
    names: Sequence[str],
    context: BenchContext,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Iterator[Row]:
    """Measure subjects, one row after the other.

    Parameters
    ----------
    names
        Names of `subjects`; an empty sequence is all of them.
    context
        Context of the measurements; the caller closes it.
    progress
        Function that is called before each row with its name, the number done, and the total.

    Yields
    ------
    Row
        Row of each case, also of one that could not be measured.
    """
    known = subjects()
    plan = [(name, list(known[name].cases(context))) for name in names or known]
    total = sum(len(cases) for _, cases in plan)
    done = 0
    for name, cases in plan:
        try:
            for case in cases:
                progress(f"{name}: {case.case}", done, total)
                yield _row(name, case, context)
                done += 1
        finally:
            # The objects of a case go with it; then memory can be given back.
            cases.clear()
            context.release()


def _row(name: str, case: Case, context: BenchContext) -> Row:
    try:
        return judge(name, case, case.measure())
    except LocalError as error:
        return missing(name, case, f"not measured: {_first_line(error)}")
    except (ColobenchError, OSError) as error:
        context.failures.append(f"{name}, {case.case}: {_first_line(error)}")
        return missing(name, case, f"failed: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]


def _rounded(value: Any) -> Any:
    """Keep four digits of each number: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_rounded(each) for each in value] if isinstance(value, tuple) else value


def as_json(machine: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Put a run into one JSON object: ``machine``, and the rows as ``results``."""
    results = [{key: _rounded(value) for key, value in asdict(row).items()} for row in rows]
    return {"machine": dict(machine), "results": results}
