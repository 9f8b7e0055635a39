"""``colobench bench``: parts of a checkpoint, each next to a reference."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from colobench import __version__
from colobench.cli.kernels import compile_all_kernels
from colobench.cli.options import check_different_files, new_file
from colobench.cli.requirements import require_bokeh
from colobench.errors import LocalError
from colobench.lab.output_file import write_output_file

if TYPE_CHECKING:
    from colobench.lab.bench.case import Row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        type=_subject,
        metavar="NAME",
        help="subject to measure, see --list; pause: the steps of a pause [all but pause]",
    )
    add("--list", action="store_true", help="list the subjects")
    add("--peers", action="store_true", help="also measure two QEMUs in COLO")
    add("--json", type=new_file, metavar="FILE", help="file for the results as JSON")
    add("--html", type=new_file, metavar="FILE", help="file for a page with plots")


def _subject(text: str) -> str:
    from colobench.lab.bench.run import subjects

    known = [*subjects(), "pause"]
    if text not in known:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}, found {text!r}")
    return text


def run(options: argparse.Namespace) -> int:
    """Measure, and show the results."""
    from tqdm import tqdm

    from colobench.lab.bench.context import BenchContext
    from colobench.lab.bench.run import run, subjects

    if options.list:
        width = max(map(len, subjects()))
        for each in subjects().values():
            print(f"{each.name:<{width}}  {each.words}")
        print(
            f"{'pause':<{width}}  the steps of a checkpoint's pause; only by this name, and alone"
        )
        return 0
    check_different_files(json=options.json, html=options.html)
    if "pause" in options.names:
        return _bench_pause(options)
    if options.html is not None:
        require_bokeh("the page")
    compile_all_kernels()
    rows: list[Row] = []
    with BenchContext(peers=options.peers) as context:
        try:
            with tqdm(unit=" rows", disable=None, leave=False) as bar:

                def progress(what: str, done: int, total: int) -> None:
                    bar.total = total
                    bar.set_description_str(what)
                    bar.update(done - bar.n)

                for row in run(options.names, context, progress):
                    rows.append(row)
        finally:
            # Interrupted or not, what was measured is there.
            _show_bench(options, rows)
    for failure in context.failures:
        print(f"colobench bench: failed: {failure}", file=sys.stderr)
    return 1 if context.failures else 0


def _bench_pause(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from colobench.lab.bench import pause
    from colobench.lab.bench.context import BenchContext
    from colobench.processes.hostinfo import describe_everything

    if options.names != ["pause"] or options.html is not None or options.peers:
        raise LocalError("bench pause: expected no other name, no --html and no --peers")
    compile_all_kernels()
    profiles = []
    with BenchContext() as context, tqdm(unit=" profiles", disable=None, leave=False) as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description_str(what)
            bar.update(done - bar.n)

        for each in pause.profile(context, progress):
            profiles.append(each)
            bar.write(pause.render([each]) + "\n")
    if options.json is not None:
        machine = describe_everything() | {"colobench": __version__}
        write_output_file(
            options.json, json.dumps(pause.as_json(machine, profiles), indent=1) + "\n"
        )
    return 0


def _show_bench(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Write the files that were asked for, and print the rows."""
    from colobench.lab.bench.run import as_json
    from colobench.lab.bench.text import render
    from colobench.processes.hostinfo import describe_everything

    try:
        if options.json is not None or options.html is not None:
            machine = describe_everything(qemu=options.peers) | {"colobench": __version__}
            if options.json is not None:
                text = json.dumps(as_json(machine, rows), indent=1) + "\n"
                write_output_file(options.json, text)
            if options.html is not None:
                from colobench.lab.bench.page import write_bench_page

                print(f"page: {write_bench_page(options.html, machine, rows)}", file=sys.stderr)
    finally:
        # Hours of measuring are not lost with a file.
        if rows:
            print(render(rows), flush=True)
