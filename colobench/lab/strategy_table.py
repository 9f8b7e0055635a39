"""The named ways of checkpointing as a text: a table of their axes, and when each is good."""

from __future__ import annotations

import textwrap

from colobench.settings.strategy import preset
from colobench.strategy.presets import PRESETS
from colobench.text_table import align

#: Axes that the table shows; the others follow from these, or are not what presets are about.
SHOWN = ("trigger", "transport", "encoding", "layout", "capture", "output", "variant")


def strategy_table() -> str:
    """Write each preset's axes as a table; below it, when the preset is good, and its source."""
    axes = [axis for axis in SHOWN if axis != "trigger"]
    rows = [["strategy", *axes, "trigger"]]
    for name in PRESETS:
        values = preset(name).as_json()
        trigger = values["trigger"].replace(":", ": ").replace(",", ", ")
        rows.append([name, *(values[axis] for axis in axes), trigger])
    lines = [*align(rows), ""]
    for name, each in PRESETS.items():
        words = f"{name}: {each.good_for}. From: {each.source}."
        lines += textwrap.wrap(words, 100, subsequent_indent="    ")
    lines += ["", "Change axes behind a comma: --strategy colo,transport=memfd"]
    return "\n".join(lines)
