"""``colobench miscompares``: how rare are differences between the answers of two guests?"""

from __future__ import annotations

import argparse
import json
import signal

from colobench.cli.console import say_error
from colobench.fields.command_line import add_options as add_options_of
from colobench.fields.command_line import given_options
from colobench.lab.miscompares.settings import MiscompareSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    words = "print all runs as one JSON object, and nothing else"
    parser.add_argument("--json", action="store_true", help=words)
    add_options_of(parser, MiscompareSettings())


def run(options: argparse.Namespace) -> int:
    """Count in turn for each dial, and print the table of rates."""
    from tqdm import tqdm

    from colobench.lab.miscompares.counts import Miscompares
    from colobench.lab.miscompares.dials import DIALS
    from colobench.lab.miscompares.run import count_missing
    from colobench.processes.hostinfo import describe_machine

    settings = MiscompareSettings().override(**given_options(options, MiscompareSettings))
    counts, interrupted = Miscompares(DIALS, settings), False
    machine = describe_machine() if options.json else {}
    bar = tqdm(total=counts.total, unit=" runs", disable=None)
    try:
        with bar:
            count_missing(
                counts, lambda done, total: bar.update(done - bar.n), bar.set_description_str
            )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        # Interrupted or failed, what was counted is there.
        if options.json:
            print(json.dumps({"machine": machine, **counts.as_json()}), flush=True)
        elif counts.runs:
            print(counts, flush=True)
    if interrupted:
        shown = "and are shown above" if counts.runs else "so there is nothing to show"
        say_error(
            f"colobench miscompares: interrupted: {len(counts.runs)} of {counts.total} runs were "
            f"done, {shown}"
        )
        return 128 + signal.SIGINT
    return 0
