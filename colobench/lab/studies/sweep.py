"""Sweeps: the same guest under different settings, one pair of processes after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.lab.interrupt import interruptible
from colobench.lab.session.record import Records
from colobench.lab.session.session import Session

#: A pair's first checkpoints make buffers grow to their size; they are not what one measures.
SETTLING = 2


@interruptible("the pair of the present point has ended; `into` keeps what was recorded")
def sweep(
    points: Iterable[Mapping[str, Any]],
    *,
    checkpoints: int,
    into: Records | None = None,
    **settings: Any,
) -> Records:
    """Take checkpoints at each point of a grid.

    Parameters
    ----------
    points
        What differs from point to point, as arguments of `Session`.
    checkpoints
        How many to record at each point, after `SETTLING` ones that are not.
    into
        Where records are appended as they come, for those who watch.
    settings
        What is the same at all points.

    Returns
    -------
    Records
        `into`, or new ones: point after point; numbers and times are those within the point.
    """
    records = Records() if into is None else into
    for point in points:
        with Session(**{**settings, **point}) as session:
            session.run(SETTLING)
            _record(session, checkpoints, records)
    return records


def _record(session: Session, checkpoints: int, records: Records) -> None:
    first = len(session.records)
    session.run(
        checkpoints,
        progress=lambda done, total: records.append(session.records[first + done - 1]),
    )


class Line(NamedTuple):
    """A straight line: the value at 0, and how much it rises for each 1."""

    intercept: float
    slope: float


def fit_line(x: npt.ArrayLike, y: npt.ArrayLike) -> Line:
    """Fit a line that a few outliers do not move.

    Parameters
    ----------
    x, y
        One-dimensional, equally long, with at least two different values of `x`.

    Returns
    -------
    Line
        Its slope is the median slope of all pairs of points with different `x`, its intercept the
        median of what is left (Theil 1950; Sen 1968, doi:10.1080/01621459.1968.10480934).

    Raises
    ------
    LocalError
        If all values of `x` are the same.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    first, second = np.triu_indices(len(xs), 1)
    run = xs[second] - xs[first]
    apart = run != 0
    if not apart.any():
        raise LocalError(f"line: expected two different values of x, found {len(set(xs.tolist()))}")
    slope = float(np.median((ys[second] - ys[first])[apart] / run[apart]))
    return Line(float(np.median(ys - slope * xs)), slope)


def fit_layouts(records: Records, field: str) -> dict[str, Line]:
    """Fit, for each layout, a line of one field of the records against the pages sent.

    Parameters
    ----------
    records
        Of several layouts, and of different numbers of pages.
    field
        Such as ``pause_ms``.

    Returns
    -------
    dict
        Layout → `Line`; a layout whose checkpoints all sent as many pages has none.
    """
    lines = {}
    for layout in dict.fromkeys(record.layout for record in records):
        of_layout = Records(record for record in records if record.layout == layout)
        pages = of_layout.column("pages")
        if len(set(pages.tolist())) > 1:
            lines[layout] = fit_line(pages, of_layout.column(field))
    return lines
