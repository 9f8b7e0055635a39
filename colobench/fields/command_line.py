"""Command-line options of settings, made from their fields."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Container
from typing import Any

from colobench.errors import LocalError
from colobench.fields.kinds import Choice, Flag, Texts
from colobench.fields.part import Part, Setting, settings_of

#: Word on a command line for None, and for an empty list.
NONE = "none"


def add_options(
    parser: argparse.ArgumentParser, usual: Part, *, leave_out: Container[str] = ()
) -> None:
    """Add an option for each setting, under a heading for each part.

    Parameters
    ----------
    parser
        Parser to which the options are added.
    usual
        The settings if no option is given; the help shows them.
    leave_out
        Names of settings that get no option.
    """
    values, groups = usual.as_json(), {}
    for each in settings_of(type(usual)):
        if each.name in leave_out:
            continue
        if each.title not in groups:
            groups[each.title] = parser.add_argument_group(each.title)
        _add_option(groups[each.title], each, values[each.name])


def given_options(options: argparse.Namespace, kind: type[Part]) -> dict[str, Any]:
    """Return the settings that were given as options, by their names."""
    found = {}
    for each in settings_of(kind):
        if hasattr(options, _destination(each)):
            value = getattr(options, _destination(each))
            if isinstance(each.kind, Texts):
                value = [text for text in value if text is not None]
            found[each.name] = value
    return found


def _add_option(group: Any, each: Setting, usual: Any) -> None:
    words = each.help.replace("%", "%%")
    if isinstance(each.kind, Choice) and each.kind.metavar == "NAME":
        # Too many for the usage line.
        words += f": {', '.join(each.kind.choices)}"
    if each.qemu:
        words += f"; QEMU: {each.qemu}"
    words += f" [{_shown(usual)}]"
    if isinstance(each.kind, Flag):
        group.add_argument(
            each.option,
            dest=_destination(each),
            action=argparse.BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help=words,
        )
        return
    group.add_argument(
        each.option,
        dest=_destination(each),
        type=_reader(each),
        action="append" if isinstance(each.kind, Texts) else "store",
        default=argparse.SUPPRESS,
        metavar=each.kind.metavar,
        help=words,
    )


def _destination(each: Setting) -> str:
    """Name the attribute of an option in the namespace; no other option of the verb has it."""
    return f"setting {each.name}"


def _shown(value: Any) -> str:
    """Write a default for a help text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(value) or NONE
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _reader(each: Setting) -> Callable[[str], Any]:
    """Return a function that parses an option's text, with the errors that argparse expects."""

    def read(text: str) -> Any:
        if text == NONE and (each.or_none or isinstance(each.kind, Texts)):
            return None
        try:
            return each.kind.from_text(text)
        except LocalError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read
