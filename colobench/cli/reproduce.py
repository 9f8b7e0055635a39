"""``colobench reproduce``: published shapes, measured with real pairs and kernels, and judged."""

from __future__ import annotations

import argparse
import json
import signal
from typing import TYPE_CHECKING

from colobench import __version__
from colobench.cli.console import say_error
from colobench.cli.kernels import compile_all_kernels
from colobench.cli.options import check_different_files, new_file
from colobench.cli.requirements import require_bokeh
from colobench.errors import LocalError
from colobench.lab.output_file import write_output_file

if TYPE_CHECKING:
    from colobench.lab.reproductions.findings import Reproductions

#: Exit status of each outcome; a failed measurement is unknown.
STATUS = {"valid": 0, "invalid": 1, "unknown": 2}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="claim to measure, see --list [all]")
    add("--list", action="store_true", help="list the claims with their sources")
    words = "rounds of each claim; fewer than 3 are not judged [5]"
    add("--rounds", type=int, default=5, metavar="N", help=words)
    words = "write points, settings and verdicts as JSON"
    add("--json", type=new_file, metavar="FILE", help=words)
    add("--html", type=new_file, metavar="FILE", help="write a page that opens offline")


def run(options: argparse.Namespace) -> int:
    """Measure, print the verdicts, and exit with 0 (valid), 1 (invalid) or 2 (unknown)."""
    from tqdm import tqdm

    from colobench.lab.reproductions.findings import Reproductions
    from colobench.lab.reproductions.registry import chosen
    from colobench.lab.reproductions.run import measure

    plan = chosen(options.names)
    if options.list:
        for each in plan:
            print(f"{each.name} ({each.kind}): {each.claim}.\n    {each.source}")
        return 0
    if options.rounds < 1:
        raise LocalError(f"rounds: expected at least 1, found {options.rounds}")
    check_different_files(json=options.json, html=options.html)
    if options.html is not None:
        require_bokeh("--html")
    compile_all_kernels()
    found, interrupted = Reproductions(), False
    bar = tqdm(total=options.rounds * len(plan), unit=" rounds", disable=None)
    try:
        with bar:
            measure(
                plan,
                options.rounds,
                1,
                found,
                progress=lambda done, total: bar.update(done - bar.n),
                say=bar.set_description_str,
            )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        # Interrupted or failed, what was measured is there.
        _write(found, options)
    if interrupted:
        rounds = sum(len({point.round for point in each.points}) for each in found)
        shown = "and are shown above" if rounds else "so nothing is judged"
        say_error(
            f"colobench reproduce: interrupted: {rounds} of {bar.total} rounds were measured, "
            f"{shown}"
        )
        return 128 + signal.SIGINT
    return STATUS[found.state.value]


def _write(found: Reproductions, options: argparse.Namespace) -> None:
    """Print the table, and write the files that were asked for."""
    if not len(found):
        return
    print(found, flush=True)
    if options.json is None and options.html is None:
        return
    from colobench.lab.reproductions.run import as_json
    from colobench.processes.hostinfo import describe_everything

    found.machine = describe_everything() | {"colobench": __version__}
    if options.json is not None:
        text = json.dumps(as_json(found.machine, found)) + "\n"
        write_output_file(options.json, text)
    if options.html is not None:
        found.write_page(options.html)
