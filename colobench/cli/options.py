"""Options that several verbs have, and parsers of their values."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Collection, Container
from pathlib import Path
from typing import TypeVar

from colobench.errors import LocalError
from colobench.fields.command_line import add_options, given_options
from colobench.fields.part import Part
from colobench.lab.output_file import check_output_file
from colobench.settings.checkpoint import Strategy
from colobench.settings.file import read_settings
from colobench.settings.strategy import make_strategy

P = TypeVar("P", bound=Part)


def add_settings_options(
    parser: argparse.ArgumentParser, usual: Part, *, leave_out: Container[str] = ()
) -> None:
    """Add ``--settings`` and an option for each setting.

    Parameters
    ----------
    parser
        Gets the options.
    usual
        Default settings.
    leave_out
        Names of settings that have no option.
    """
    words = "repeat a run: JSON or a page that colobench wrote about it (FILE#3: about its third "
    words += "run), or an object with settings; other options have precedence over the file"
    parser.add_argument("--settings", metavar="FILE", help=words)
    parser.set_defaults(strategy=None)
    # A verb that leaves it out decides on strategies in a way of its own.
    if "trigger" not in leave_out:
        words = "strategy that sets all axes, see colobench strategies, and changes of it; other "
        words += "options go before what it says"
        parser.add_argument(
            "--strategy", type=_strategy, metavar="NAME[,AXIS=VALUE…]", default=None, help=words
        )
    add_options(parser, usual, leave_out=leave_out)


def chosen_settings(
    options: argparse.Namespace, usual: P, *more_keys: str, indifferent: Collection[str] = ()
) -> P:
    """Give the settings: those of options first, then of the file, then the defaults.

    Parameters
    ----------
    options
        Options of `add_settings_options`.
    usual
        Default settings.
    more_keys, indifferent
        Parameters of `read_settings`.

    Raises
    ------
    LocalError
        If a setting is not what is expected.
    """
    chosen = usual
    if options.settings is not None:
        chosen = chosen.override_by(
            read_settings(options.settings, *more_keys, indifferent=indifferent)
        )
    if options.strategy is not None:
        chosen = chosen.override(**options.strategy.changes())
    return chosen.override(**given_options(options, type(chosen)))


def _strategy(text: str) -> Strategy:
    try:
        return make_strategy(text)
    except LocalError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole_number(text: str) -> int:
    """Read a whole number."""
    if not re.fullmatch("-?[0-9]{1,20}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}")
    return int(text)


def positive_number(text: str) -> int:
    """Read a whole number from 1 up."""
    if not re.fullmatch("[0-9]{1,20}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text!r}")
    return int(text)


def check_different_files(**files: Path | None) -> None:
    """Refuse, with LocalError, to write one file for two options, which are given by name."""
    seen: dict[object, str] = {}
    for option, path in files.items():
        # Devices such as /dev/null take any number of outputs.
        if path is not None and (path.is_file() or not path.exists()):
            # Two names of one file are two links to it, or are equal.
            found = path.stat() if path.exists() else None
            key = (found.st_dev, found.st_ino) if found else os.path.realpath(path)
            other = seen.setdefault(key, option)
            if other != option:
                raise LocalError(f"{path}: expected a file each, found it for {other} and {option}")


def new_file(text: str) -> Path:
    """Read the path of a file that can be written."""
    try:
        return check_output_file(text)
    except LocalError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
