"""The page of reproductions: verdicts, plots, and settings to repeat each pair."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colobench.lab.report.page import write_page
from colobench.lab.reproductions.plots import plots_of
from colobench.lab.reproductions.reproduction import Reproduced, State, overall
from colobench.lab.reproductions.table import HEADINGS, rows, sentences
from colobench.settings.file import KEY

_STATES = {
    State.VALID: ("good", "Reproduced"),
    State.INVALID: ("bad", "Not reproduced"),
    State.UNKNOWN: ("open", "Not judged throughout"),
}


def write_reproductions_page(
    path: Path | str, found: Sequence[Reproduced], machine: Mapping[str, Any]
) -> Path:
    """Write the page of reproductions, which need not be complete.

    Parameters
    ----------
    path
        File to write; an old one is replaced.
    found
        What is shown.
    machine
        Description of the machine; it may be empty.
    """
    state, verdict = _STATES[overall([each.state for each in found])]
    settings = [
        (f"{each.reproduction.name}: {series}", of_pair)
        for each in found
        for series, of_pair in each.settings.items()
    ]
    values = {
        "state": state,
        "verdict": verdict,
        "sentences": sentences(found),
        "headings": HEADINGS,
        "rows": rows(found),
        "claims": [each.reproduction for each in found],
        "settings": [(name, json.dumps(of_pair, indent=1)) for name, of_pair in settings],
        "written": [{KEY: of_pair} for _, of_pair in settings],
        "machine": machine,
    }
    plots = [card for each in found for card in plots_of(each)]
    return write_page(path, "reproductions/templates/reproductions.html", plots, values)
