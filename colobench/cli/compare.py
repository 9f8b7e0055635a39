"""``colobench compare``: ways of checkpointing on the same work, with real pairs in turn."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from colobench.cli.console import say_error
from colobench.cli.options import (
    add_settings_options,
    check_different_files,
    chosen_settings,
    new_file,
)
from colobench.cli.requirements import require_bokeh
from colobench.lab.compare.cells import AXES, USUAL_GUESTS, USUAL_STRATEGIES, make_cells
from colobench.lab.compare.settings import ComparisonSettings
from colobench.lab.output_file import check_output_file

if TYPE_CHECKING:
    from colobench.lab.compare.comparison import Comparison


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    words = "strategies, see colobench strategies, and changes of them, such as colo_v12,delay=20"
    usual = " ".join(USUAL_STRATEGIES)
    add("--strategies", nargs="+", default=USUAL_STRATEGIES, metavar="S", help=f"{words} [{usual}]")
    words = "programs, which may have settings, such as hotcold,writes_per_tick=200"
    usual = " ".join(USUAL_GUESTS)
    add("--guests", nargs="+", default=USUAL_GUESTS, metavar="G", help=f"{words} [{usual}]")
    words = "links between the nodes, one or several"
    add("--link", nargs="+", default=(), metavar="LINK", help=words)
    words = "a line of JSON for each measurement; those that are there are not made again"
    add("--results", type=new_file, metavar="FILE", help=words)
    add("--html", type=new_file, metavar="FILE", help="write a page that opens offline")
    words = "write a row for each checkpoint, and to NAME-cells.parquet, beside NAME.parquet, one "
    words += "for each measurement"
    add("--parquet", type=new_file, metavar="FILE", help=words)
    # Figures are those of all checkpoints.
    left_out = ("guest", "link", "keep_records", *AXES)
    add_settings_options(parser, ComparisonSettings(), leave_out=left_out)


def run(options: argparse.Namespace) -> int:
    """Measure what is missing, and print what was found."""
    from tqdm import tqdm

    from colobench.lab.compare.parquet import cells_path, require_pyarrow
    from colobench.lab.compare.run import measure_missing, plan_comparison

    if options.html is not None:
        require_bokeh("--html")
    of_cells = None
    if options.parquet is not None:
        require_pyarrow()
        of_cells = check_output_file(cells_path(options.parquet))
    check_different_files(
        results=options.results, html=options.html, parquet=options.parquet, cells=of_cells
    )
    settings = chosen_settings(options, ComparisonSettings())
    cells = make_cells(options.strategies, options.guests, options.link, settings.pair)
    comparison = plan_comparison(cells, settings, options.results)
    total, interrupted = len(cells) * settings.rounds, False
    bar = tqdm(total=total, initial=total - comparison.missing, unit=" measurements", disable=None)
    try:
        with bar:
            measure_missing(
                comparison,
                progress=lambda done, total: bar.update(done - bar.n),
                say=bar.set_description_str,
            )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        # Interrupted or failed, what was measured is there.
        _write(comparison, options)
    if interrupted:
        say_error(_interrupted(comparison, options))
        return 128 + signal.SIGINT
    return 0


def _write(comparison: Comparison, options: argparse.Namespace) -> None:
    if not comparison.measurements:
        return
    print(comparison, flush=True)
    try:
        if options.html is not None:
            comparison.write_page(options.html)
    finally:
        # Also beside a page on a full disk.
        if options.parquet is not None:
            comparison.write_parquet(options.parquet)


def _interrupted(comparison: Comparison, options: argparse.Namespace) -> str:
    total = len(comparison.cells) * comparison.settings.rounds
    kept = "and are shown above" if comparison.measurements else "so there is nothing to show"
    if options.results is not None and comparison.measurements:
        kept = f"and are in {options.results}, from which the same command goes on"
    done = total - comparison.missing
    return f"colobench compare: interrupted: {done} of {total} measurements were made, {kept}"
