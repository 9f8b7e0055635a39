"""Tables of the README, from the JSON of a bench run.

``python -m colobench.lab.bench.markdown FILE README`` writes them into a README, between the
comments ``<!-- NAME -->`` and ``<!-- end of NAME -->``, for each name in `TABLES`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from colobench.lab.bench.text import number

PAUSE_HEADER = "| pages written before | `multifd`, by sockets | `memfd`, by shared memory | QEMU |"
PAUSE_RULE = "|--:|--:|--:|--:|"
#: Case of the bench's subject ``peers``: thousands of pages, transport.
PEERS_CASE = re.compile(r"(\d+)k pages, (multifd|memfd), QEMU")
HEADER = "| subject | case furthest from its target | ours | reference | ratio | target | met |"
RULE = "|---|---|--:|--:|--:|--:|--:|"


def pause_table(run: Mapping[str, Any]) -> str:
    """Write the pause of a checkpoint by the pages written before it, beside that of two QEMUs.

    Parameters
    ----------
    run
        Object that ``colobench bench --peers --json`` writes.

    Returns
    -------
    str
        A table in Markdown, without a newline at its end. Each cell of colobench's has its median
        and, in brackets, its ratio to QEMU's, which was measured beside it. QEMU's has the range of
        the medians of its line.
    """
    pauses: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in run["results"]:
        if row["name"] == "peers" and (case := PEERS_CASE.fullmatch(row["case"])):
            pauses.setdefault(int(case[1]) * 1000, {})[case[2]] = row
    lines = [PAUSE_HEADER, PAUSE_RULE]
    for pages, rows in sorted(pauses.items()):
        ours = (
            f"{number(rows[name]['ours'])} ms (ratio {number(rows[name]['ratio'])})"
            for name in ("multifd", "memfd")
        )
        theirs = sorted(row["reference"] for row in rows.values())
        cells = (f"{pages:,}", *ours, f"{number(theirs[0])} to {number(theirs[-1])} ms")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bench_table(run: Mapping[str, Any]) -> str:
    """Write the results of a run that have a target.

    Rows of a subject with the same target share a line, with the case that is furthest from it.

    Parameters
    ----------
    run
        Object that ``colobench bench --json`` writes.

    Returns
    -------
    str
        A line on the machine and the table, in Markdown, without a newline at its end.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in filter(lambda row: row["target"], run["results"]):
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


#: Tables of the README, by the names in their comments.
TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "pause": pause_table,
    "bench": bench_table,
}


def fill(document: str, run: Mapping[str, Any]) -> str:
    """Write all tables of a run into a document that has their comments."""
    for name, table in TABLES.items():
        place = re.compile(f"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        document = place.sub(rf"\g<1>{table(run)}\n\g<2>", document)
    return document


def main(arguments: Sequence[str]) -> int:
    """Write the tables of the run in the first file into the second; returns the exit status."""
    if len(arguments) != 2:
        print("usage: python -m colobench.lab.bench.markdown FILE README", file=sys.stderr)
        return 2
    run, readme = map(Path, arguments)
    readme.write_text(fill(readme.read_text("utf-8"), json.loads(run.read_text("utf-8"))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
