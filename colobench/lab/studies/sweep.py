"""Sweeps: the same guest under different settings, one pair of processes after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.lab.interrupt import interruptible
from colobench.lab.session.record import Records, check_all_are_kept
from colobench.lab.session.session import Session

#: First checkpoints of a pair, which are not recorded: buffers grow to their size in them.
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
        Arguments of `Session` that differ from point to point.
    checkpoints
        Number of checkpoints recorded at each point, after `SETTLING` that are not.
    into
        Records that are appended to as they come, for others to watch.
    settings
        Arguments of `Session` that are the same at all points.

    Returns
    -------
    Records
        `into`, or new ones: point after point; numbers and times are those within the point.

    Raises
    ------
    LocalError
        If settings do not go together, or old records are dropped.
    """
    records = Records() if into is None else into
    for point in points:
        session = Session(**{**settings, **point})
        check_all_are_kept(session.settings)
        with session:
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
    """A straight line: the value at 0, and the slope."""

    intercept: float
    slope: float


def fit_line(x: npt.ArrayLike, y: npt.ArrayLike) -> Line:
    """Fit a line that a few outliers do not move.

    Parameters
    ----------
    x, y
        Arrays of one dimension and the same length, with at least two different values of `x`.

    Returns
    -------
    Line
        Its slope is the median slope of all pairs of points with different `x`, its intercept the
        median of the remainders (Theil 1950; Sen 1968, doi:10.1080/01621459.1968.10480934).

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
        Records of several layouts, with different numbers of pages.
    field
        Attribute of records, such as ``pause_ms``.

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
