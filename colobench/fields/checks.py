"""Checks of settings, each with an error that names the setting, what was expected and found."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Sequence
from typing import Any

from colobench.errors import LocalError

#: Characters of a wrong value that an error shows.
_SHOWN = 100


def show(value: object) -> str:
    """Write a value for an error message, shortened; never raise an error."""
    try:
        text = repr(value)
    except Exception:
        # For example a number with more digits than Python converts.
        return f"one of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def check_integer(
    name: str,
    value: Any,
    low: int,
    high: int | None = None,
    *,
    unit: str = "",
    or_none: bool = False,
    expected: str = "",
) -> int:
    """Check a whole number.

    Parameters
    ----------
    name, value
        The setting. A bool is no number; one of NumPy's is.
    low, high
        The least and the greatest that are accepted; None for no limit.
    unit
        Appended to the range in the error.
    or_none
        Whether the error message says that None is accepted, too; the caller has checked that.
    expected
        Text that replaces the range in the error message.

    Raises
    ------
    LocalError
        If the value is not a number of this range.
    """
    right = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if right and low <= value and (high is None or value <= high):
        return int(value)
    raise _wrong(name, expected or _range(low, high), value, right, unit, or_none)


def check_number(name: str, value: Any, low: float, high: float, *, unit: str = "") -> float:
    """Check a number, see `check_integer`; NaN and the infinities are none."""
    right = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if right and low <= value <= high:
        return float(value)
    raise _wrong(name, _range(low, high), value, right, unit, False)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Check a name that is one of a few."""
    if isinstance(value, str) and value in choices:
        return value
    if len(choices) == 2:
        raise LocalError(f"{name}: expected {' or '.join(choices)}, found {show(value)}")
    raise LocalError(f"{name}: expected one of {', '.join(choices)}, found {show(value)}")


def check_flag(name: str, value: Any) -> bool:
    """Check a setting that is on or off; NumPy's bool is taken."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise LocalError(f"{name}: expected True or False, found {show(value)}")
    return bool(value)


def check_type(name: str, value: Any, expected: type) -> None:
    """Check a setting whose value is an object of a class of colobench."""
    if not isinstance(value, expected):
        raise LocalError(f"{name}: expected {expected.__name__}, found {show(value)}")


def check_path(name: str, value: object) -> str:
    """Check the path of a file, not whether the file can be opened."""
    path: object = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(path, str) and path and "\0" not in path:
        return path
    raise LocalError(f"{name}: expected the path of a file, found {show(value)}")


def check_texts(name: str, value: Any) -> list[str]:
    """Check a list of texts; a single text stands for a list with one element."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, bytes | dict):
        texts = list(value)
        if all(isinstance(each, str) for each in texts):
            return texts
    raise LocalError(f"{name}: expected a list of texts, found {show(value)}")


def _range(low: float, high: float | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"{low:g} to {high:g}" if isinstance(low, float) else f"{low} to {high}"


def _wrong(
    name: str, expected: str, value: Any, right: bool, unit: str, or_none: bool
) -> LocalError:
    kind = "" if right or value is None else f" ({type(value).__name__})"
    return LocalError(
        f"{name}: expected {expected}{unit and ' '}{unit}{' or None' if or_none else ''}, "
        f"found {show(value)}{kind}"
    )
