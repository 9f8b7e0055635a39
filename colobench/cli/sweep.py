"""``colobench sweep``: a grid of strategies, guests, links and settings, by workers of dask."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from colobench.cli.console import say_error
from colobench.cli.options import positive_number
from colobench.errors import LocalError

if TYPE_CHECKING:
    from colobench.lab.sweep.results import SweepDirectory, SweepResult
    from colobench.lab.sweep.specification import SweepPlan

#: Directory of the local workers, beside the results. It is removed, so nobody else's has its name.
_WORKERS = ".colobench-workers"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add("specification", type=Path, metavar="SPEC.toml", help="what to run, see docs/sweep.md")
    words = "where each finished cell is kept; what is there is not run again [SPEC.results]"
    add("--results", type=Path, metavar="DIRECTORY", help=words)
    words = "local processes, each of which runs one cell at a time [one for two cores]"
    add("--workers", type=positive_number, metavar="N", help=words)
    words = "scheduler of dask whose workers run the cells, such as tcp://host:8786"
    add("--scheduler", metavar="ADDRESS", help=words)
    words = "run cells again that an error prevented from being measured"
    add("--retry-failed", action="store_true", help=words)
    words = "check the specification, list its cells, and end"
    add("--check", action="store_true", help=words)
    parser.epilog = "It needs dask and pyarrow: pip install 'colobench[sweep]'."


def run(options: argparse.Namespace) -> int:
    """Run the cells that have no result, and print what was found."""
    from colobench.lab.sweep.results import SweepDirectory
    from colobench.lab.sweep.specification import read_plan
    from colobench.lab.sweep.text import listing, refusals, render

    if options.scheduler is not None and options.workers is not None:
        raise LocalError("expected --workers or --scheduler, found both")
    plan = read_plan(options.specification)
    if options.check:
        print(listing(plan))
        return 0
    _require()
    for line in refusals(plan):
        print(line, file=sys.stderr)
    place = options.results or options.specification.with_suffix(".results")
    with SweepDirectory(place) as directory:
        results = directory.load(plan.cells)
        interrupted = False
        try:
            _run(options, plan, directory, results)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            # Interrupted or failed, what was measured is there.
            directory.write_tables(results.values())
        if results:
            print(render(plan, results), flush=True)
    if interrupted:
        say_error(
            f"colobench sweep: interrupted: {len(results)} of {len(plan.cells)} cells have run "
            f"and are in {place}, from which the same command goes on"
        )
        return 128 + signal.SIGINT
    print(f"results: {place}")
    return 1 if any(each.measurement is None for each in results.values()) else 0


def _require() -> None:
    from colobench.lab.sweep.cluster import require_dask

    require_dask()


def _run(
    options: argparse.Namespace,
    plan: SweepPlan,
    directory: SweepDirectory,
    results: dict[str, SweepResult],
) -> None:
    from tqdm import tqdm

    from colobench.lab.sweep.cluster import (
        local_client,
        remote_client,
        remove_workers,
        usual_workers,
    )
    from colobench.lab.sweep.run import compile_for, missing_cells, run_cells

    left = missing_cells(plan.cells, results, retry_failed=options.retry_failed)
    remove_workers(directory.path / _WORKERS)
    if not left:
        return
    if options.scheduler is None:
        compile_for(left)
        workers = min(options.workers or usual_workers(), len(left))
        opened = local_client(workers, directory.path / _WORKERS)
    else:
        opened = remote_client(options.scheduler)
    total = len(plan.cells)
    with tqdm(total=total, initial=total - len(left), unit=" cells", disable=None) as bar:

        def done(result: SweepResult) -> None:
            results[result.cell] = result
            bar.update()
            if result.error is not None:
                with bar.external_write_mode(sys.stderr):
                    print(f"failed: {result.name}: {result.error}", file=sys.stderr)

        with opened as client:
            run_cells(client, left, directory, done)
