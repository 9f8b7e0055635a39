"""``colobench demo``: checkpoints, a kill in the middle of one, a verified takeover."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from colobench.cli.options import (
    add_settings_options,
    chosen_settings,
    new_file,
    positive_number,
)
from colobench.cli.requirements import require_bokeh
from colobench.lab.output_file import check_output_file
from colobench.settings.settings import Settings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "--checkpoints", type=positive_number, default=60, metavar="N", help="number [60]"
    )
    words = "print the results as one JSON object, and nothing else"
    parser.add_argument("--json", action="store_true", help=words)
    words = "file for the report, an HTML page [colobench-report.html]"
    parser.add_argument("--report", type=new_file, metavar="FILE", help=words)
    # Its figures are those of all checkpoints.
    add_settings_options(parser, Settings(), leave_out=("keep_records",))


def run(options: argparse.Namespace) -> int:
    """Run a pair from its start to its takeover, and print the results."""
    from tqdm import tqdm

    from colobench.lab.report.run_summary import format_summary
    from colobench.lab.session.session import Session
    from colobench.lab.studies.demo import run_demo

    path = options.report or Path("colobench-report.html")
    wanted = options.report is not None or not options.json
    write_report = _report_writer(path) if wanted else None
    session = Session(chosen_settings(options, Settings()))
    with tqdm(
        total=options.checkpoints, unit=" checkpoints", disable=None, leave=False, delay=0.5
    ) as bar:
        summary = run_demo(
            session,
            options.checkpoints,
            say=bar.set_description_str,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    written = write_report and write_report(path, session.records, summary)
    if options.json:
        print(json.dumps(summary))
    else:
        print(format_summary(summary))
        print(_machine_line(summary["machine"]))
    if written is not None:
        print(f"report: {written}", file=sys.stderr if options.json else sys.stdout)
    for proof, holds in summary["proofs"].items():
        if not holds:
            print(f"colobench demo: not so: {proof.replace('_', ' ')}", file=sys.stderr)
    return 0 if summary["verified"] else 1


def _report_writer(path: Path) -> Any:
    """Return a function that writes the report; fail before the run if that is impossible."""
    check_output_file(path)
    require_bokeh("the report")
    from colobench.lab.report.html import write_report

    return write_report


def _machine_line(machine: dict[str, Any]) -> str:
    return (
        f"on {machine['cores']} cores of {machine['processor']}, one thread's memcpy at "
        f"{machine['memcpy_gb_per_s']} GB/s"
    )
