"""``colobench course``: the course's glossary, and the scores that students hand in."""

from __future__ import annotations

import argparse

from colobench.cli.console import say_error
from colobench.lab.course.glossary import glossary, term
from colobench.lab.course.score_table import read_score_files


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands with their options."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "check files of scores, and print them as a table"
    scores = commands.add_parser("scores", help=summary, description=summary)
    scores.add_argument("files", nargs="+", metavar="FILE", help="file that a student has exported")
    scores.add_argument("--csv", action="store_true", help="print CSV")
    summary = "print the glossary, or one word of it"
    words = commands.add_parser("glossary", help=summary, description=summary)
    words.add_argument("word", nargs="?", help="word to explain; all without one")


def run(options: argparse.Namespace) -> int:
    """Run a command; returns the exit status: 1 if a file of scores was refused."""
    if options.command == "glossary":
        print(term(options.word) if options.word else glossary())
        return 0
    table = read_score_files(options.files)
    if table.sheets:
        print(table.as_csv() if options.csv else table, end="" if options.csv else "\n")
    for reason in table.refused.values():
        say_error(f"colobench course: {reason}")
    return 1 if table.refused else 0
