"""Settings read from a file: of settings alone, or of anything that colobench has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import show

#: The key under which colobench writes the settings of a run, whole, beside what came of it.
KEY = "settings"


def read_settings(path: Path | str, *more_keys: str) -> dict[str, Any]:
    """Read the settings that a file names.

    Parameters
    ----------
    path
        A file with one JSON object, or with one in each line, of which the first counts.
    more_keys
        Further keys of the object that have settings, where there are such.

    Returns
    -------
    dict
        What is under `KEY` and `more_keys` there, or else the object itself. Names and values are
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
