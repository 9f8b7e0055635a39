"""Settings read from a JSON file that colobench has written, or that has only settings."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import show

#: Key under which colobench writes the complete settings of a run, beside its results.
KEY = "settings"
#: The element of a page that has the JSON of what it shows.
PAGE_ELEMENT = "colobench-run"
#: Settings among which to choose that an error lists, and the most names that it gives of each.
_SHOWN, _NAMES = 20, 6


def read_settings(
    path: Path | str, *more_keys: str, indifferent: Collection[str] = ()
) -> dict[str, Any]:
    """Read the settings of a file.

    Parameters
    ----------
    path
        Path of a file with JSON, with JSON in each line, or of a page of colobench. If it has runs
        with different settings, ``FILE#3`` is the third run.
    more_keys
        Further keys of a run's object that may have settings.
    indifferent
        Names of settings that the caller replaces: runs that differ in nothing else are the same.

    Returns
    -------
    dict
        Values of `KEY` and `more_keys`, or without `KEY` the object itself. Names and values are
        not checked.

    Raises
    ------
    LocalError
        If the file cannot be read, has no settings, or has different ones of which none is chosen.
    """
    name, number = _split(str(path))
    try:
        written = _documents(name)
        runs = [_of_run(run, name, more_keys) for each in written for run in _runs(each)]
    except RecursionError as error:
        raise LocalError(f"settings: {name}: expected JSON, found it nested too deeply") from error
    if not runs:
        return _alone(name, written)
    found = [run for run in runs if run is not None]
    if not found:
        raise LocalError(f"settings: {name}: expected those of a session, found a run without one")
    if number is not None:
        if not 1 <= number <= len(found):
            raise LocalError(
                f"settings: {name}: expected a run from #1 to #{len(found)}, found #{number}"
            )
        return found[number - 1]
    names = _differences(found, indifferent)
    if names:
        raise LocalError(f"settings: {name}: {_choices(name, found, names)}")
    return found[0]


def _split(path: str) -> tuple[str, int | None]:
    """Take the number of a run off a path, unless that is the name of a file."""
    name, _, number = path.rpartition("#")
    if not name or not number.isascii() or not number.isdigit() or Path(path).exists():
        return path, None
    return name, int(number)


def _documents(path: str) -> list[Any]:
    """Read the JSON of a whole file, of each of its lines, or of a page."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"settings: {path}: cannot be read: {error}") from error
    element = re.search(rf'<script [^>]*id="{PAGE_ELEMENT}">(.*?)</script>', text, re.DOTALL)
    if element is not None:
        text = element[1]
    try:
        return [json.loads(text)]
    except ValueError as error:
        # A line that a process was killed in is torn.
        whole = text[: text.rfind("\n") + 1].splitlines()
        try:
            return [json.loads(line) for line in whole if line] or _no_json(path, error)
        except ValueError:
            return _no_json(path, error)


def _no_json(path: str, error: ValueError) -> list[Any]:
    raise LocalError(f"settings: {path}: expected JSON, found {error}") from error


def _runs(found: Any) -> Iterator[dict[str, Any]]:
    """Find the objects with `KEY`, however deep they are."""
    if isinstance(found, dict) and KEY in found:
        yield found
    elif isinstance(found, dict | list):
        for each in found.values() if isinstance(found, dict) else found:
            yield from _runs(each)


def _of_run(run: dict[str, Any], path: str, more_keys: Sequence[str]) -> dict[str, Any] | None:
    """Give the settings of a run; None if it had no session."""
    if run[KEY] is None:
        return None
    settings: dict[str, Any] = {}
    for key in (KEY, *more_keys):
        of_key = run.get(key, {})
        if not isinstance(of_key, dict):
            raise LocalError(f"settings: {path}: expected a JSON object, found {show(of_key)}")
        settings |= of_key
    return settings


def _alone(path: str, written: Sequence[Any]) -> dict[str, Any]:
    """Give the object of a file that has settings and nothing else."""
    if len(written) != 1 or not isinstance(written[0], dict):
        found = written[0] if len(written) == 1 else list(written)
        raise LocalError(f"settings: {path}: expected a JSON object, found {show(found)}")
    return written[0]


def _differences(found: Sequence[dict[str, Any]], indifferent: Collection[str]) -> list[str]:
    """Name the settings that runs differ in."""
    return [
        name
        for name in dict.fromkeys(name for each in found for name in each)
        if name not in indifferent and any(each.get(name) != found[0].get(name) for each in found)
    ]


def _choices(path: str, found: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Say how one of several different settings is chosen; each is shown by its differences."""
    seen: dict[str, int] = {}
    for index, each in enumerate(found):
        words = ", ".join(f"{name} {json.dumps(each.get(name))}" for name in names[:_NAMES])
        seen.setdefault(words, index)
    first = list(seen.values())
    lines = [f"  #{index + 1}: {words}" for words, index in list(seen.items())[:_SHOWN]]
    more = [f"  and {len(first) - _SHOWN} more"] if len(first) > _SHOWN else []
    heading = f"expected one choice of {len(first)}, such as {path}#{first[-1] + 1}, found none:"
    return "\n".join([heading, *lines, *more])
