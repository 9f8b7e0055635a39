"""``colobench run``: serve real clients until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from colobench.cli.options import add_settings_options, chosen_settings, positive_number
from colobench.errors import ColobenchError
from colobench.settings.file import KEY
from colobench.settings.heartbeat import HeartbeatSettings
from colobench.settings.settings import Settings

if TYPE_CHECKING:
    from colobench.lab.session.link_use import LinkUse
    from colobench.lab.session.session import Session
    from colobench.lab.session.supervise import Tally

#: Records are kept of as many checkpoints as are taken in a quarter of an hour.
USUAL = Settings().override(
    guest="kv",
    hostfwd="tcp:127.0.0.1:6379-:6379",
    heartbeat=HeartbeatSettings(),
    keep_records=10_000,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    add = parser.add_argument
    add("--seconds", type=positive_number, metavar="N", help="end after N seconds")
    add("--no-rejoin", action="store_true", help="add no new secondary after a takeover")
    add("--json", action="store_true", help="print the results as one JSON object at the end")
    add_settings_options(parser, USUAL)


def run(options: argparse.Namespace) -> int:
    """Serve until the end of the run, and print its results."""
    from tqdm import tqdm

    from colobench.lab.report.run_summary import format_summary
    from colobench.lab.session.session import Session
    from colobench.lab.session.supervise import Tally, serve

    session = Session(chosen_settings(options, USUAL))
    session.check_places()
    words, tally = sys.stderr if options.json else sys.stdout, Tally()
    session.on_record(tally.add)
    link = None
    end = None if options.seconds is None else time.monotonic() + options.seconds
    with closing(session), tqdm(unit=" checkpoints", disable=None, leave=False, delay=0.5) as bar:

        def say(sentence: str) -> None:
            with bar.external_write_mode(words):
                print(sentence, file=words, flush=True)

        try:
            serve(
                session,
                rejoin=not options.no_rejoin,
                until=lambda: end is not None and time.monotonic() >= end,
                say=say,
                turn=lambda: bar.update(session.records.total - bar.n),
            )
        except KeyboardInterrupt:
            if not session.began:
                raise
        with suppress(ColobenchError):  # It has ended with its pair.
            link = session.link_use()
    summary = summarize(session, tally, link)
    if options.json:
        print(json.dumps(summary))
    else:
        causes = ", ".join(f"{count} {cause}" for cause, count in summary["causes"].items())
        print(f"{summary['checkpoints']} checkpoints ({causes or 'none'})")
        rows = {name: summary[name] for name in summary if name.startswith("disk_")}
        if session.settings.guest.disks:
            print(format_summary(rows))
        if link is not None:
            print(format_summary({"link": link.as_json()}))
    return 0 if summary["verified"] else 1


def summarize(session: Session, tally: Tally, link: LinkUse | None) -> dict[str, Any]:
    """Sum up a session; percentiles are those of the newest records."""
    from colobench.lab.report.run_summary import compute_statistics

    return (
        compute_statistics(session.records)
        | tally.as_json()
        | ({} if link is None else {"link": link.as_json()})
        | {KEY: session.settings.as_json()}
    )
