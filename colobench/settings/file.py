"""Settings read from a JSON file that colobench has written, or that has only settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import show

#: Key under which colobench writes the complete settings of a run, beside its results.
KEY = "settings"


def read_settings(path: Path | str, *more_keys: str) -> dict[str, Any]:
    """Read the settings of a file.

    Parameters
    ----------
    path
        Path of a file with one JSON object, or with one in each line, of which the first is read.
    more_keys
        Further keys of the object that may have settings.

    Returns
    -------
    dict
        Values of `KEY` and `more_keys`, or without `KEY` the object itself. Names and values are
        not checked.

    Raises
    ------
    LocalError
        If the file cannot be read, or has no JSON object.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"settings: {path}: cannot be read: {error}") from error
    found = _object(text, path)
    if KEY not in found:
        return found
    settings: dict[str, Any] = {}
    for key in (KEY, *more_keys):
        of_key = found.get(key, {})
        if not isinstance(of_key, dict):
            raise LocalError(f"settings: {path}: expected a JSON object, found {show(of_key)}")
        settings |= of_key
    return settings


def _object(text: str, path: Path | str) -> dict[str, Any]:
    """Read the JSON object of a whole text, or of its first line."""
    try:
        found = json.loads(text)
    except ValueError as error:
        try:
            found = json.loads(text.partition("\n")[0])
        except ValueError:
            raise LocalError(f"settings: {path}: expected JSON, found {error}") from error
    if not isinstance(found, dict):
        raise LocalError(f"settings: {path}: expected a JSON object, found {show(found)}")
    return found
