"""The table that the README shows, from the JSON of a run.

Print it by ``python -m colobench.lab.bench.markdown FILE``. Rows of a subject that have the same
bound share a line, which tells the one that is furthest from it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colobench.lab.bench.text import number

HEADER = "| figure | case furthest from its target | ours | reference | ratio | target | met |"
RULE = "|---|---|--:|--:|--:|--:|--:|"


def markdown(run: Mapping[str, Any]) -> str:
    """Write the table.

    Parameters
    ----------
    run
        Object that ``colobench bench --json`` writes.

    Returns
    -------
    str
        A line on the machine and the table, in Markdown, without a newline at its end. Rows
        without a bound are left out; rows with the same name and bound are one line, with the
        figures of the one that is furthest from its bound, and how many of them meet it.
    """
    bounded = [row for row in run["results"] if row["target"]]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in bounded:
        groups.setdefault((row["name"], row["target"]), []).append(row)
    return "\n".join([_machine(run["machine"]), "", HEADER, RULE, *map(_line, groups.values())])


def _machine(machine: Mapping[str, Any]) -> str:
    rates = machine["memcpy_gb_per_s"], machine["memcpy_two_threads_gb_per_s"]
    return (
        f"Measured {machine['date'][:10]} on {machine['cores']} cores of {machine['processor']}, "
        f"Linux {machine['kernel']}, Python {machine['python']}, numba {machine['numba']}; "
        f"memcpy {rates[0]:.1f} GB/s on one thread, {rates[1]:.1f} on two."
    )


def _line(rows: Sequence[Mapping[str, Any]]) -> str:
    judged = [row for row in rows if row["met"] is not None]
    measured = [row for row in rows if row["ours"] is not None]
    row = max(judged or measured or rows, key=_distance)
    ratio = "–" if row["ratio"] is None else number(row["ratio"])
    met = f"{sum(each['met'] for each in judged)} of {len(judged)}" if judged else "not judged"
    if judged and len(judged) < len(rows):
        met += f", {len(rows) - len(judged)} not judged"
    values = (
        f"{number(row[key])} {row['unit']}" if row[key] is not None else "–"
        for key in ("ours", "reference")
    )
    cells = (row["name"], row["case"], *values, ratio, row["target"], met)
    return f"| {' | '.join(cells)} |"


def _distance(row: Mapping[str, Any]) -> float:
    """Give the factor by which a row is on the wrong side of its target; 0 if not measured."""
    sign, bound, *unit = row["target"].split()
    value = row["ours"] if unit else row["ratio"]
    if not value:
        return 0.0
    factor: float = value / float(bound)
    return factor if sign == "≤" else 1 / factor


def main(arguments: Sequence[str]) -> int:
    """Print the table of the run in the one file named; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m colobench.lab.bench.markdown FILE", file=sys.stderr)
        return 2
    print(markdown(json.loads(Path(arguments[0]).read_text("utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
