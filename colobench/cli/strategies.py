"""``colobench strategies``: the named ways of checkpointing as a table."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import Any

from colobench.settings.strategy import preset
from colobench.strategy.presets import PRESETS
from colobench.text_table import align

#: Axes that the table shows; the others follow from these, or are not what presets are about.
SHOWN = ("trigger", "transport", "encoding", "layout", "capture", "output", "variant")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the presets."""
    found = {name: preset(name).as_json() for name in PRESETS}
    print(json.dumps(_as_json(found)) if options.json else _as_text(found))
    return 0


def _as_json(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {"axes": axes, "source": PRESETS[name].source, "good-for": PRESETS[name].good_for}
        for name, axes in found.items()
    }


def _as_text(found: dict[str, dict[str, Any]]) -> str:
    axes = [axis for axis in SHOWN if axis != "trigger"]
    rows = [["strategy", *axes, "trigger"]]
    for name, values in found.items():
        trigger = values["trigger"].replace(":", ": ").replace(",", ", ")
        rows.append([name, *(values[axis] for axis in axes), trigger])
    lines = [*align(rows), ""]
    for name, each in PRESETS.items():
        words = f"{name}: {each.good_for}. From: {each.source}."
        lines += textwrap.wrap(words, 100, subsequent_indent="    ")
    lines += ["", "Change axes behind a comma: --strategy colo,transport=memfd"]
    return "\n".join(lines)
