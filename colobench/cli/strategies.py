"""``colobench strategies``: the named ways of checkpointing as a table."""

from __future__ import annotations

import argparse
import json
from typing import Any

from colobench.lab.strategy_table import strategy_table
from colobench.settings.strategy import preset
from colobench.strategy.presets import PRESETS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the presets."""
    print(json.dumps(_as_json()) if options.json else strategy_table())
    return 0


def _as_json() -> dict[str, Any]:
    return {
        name: {
            "axes": preset(name).as_json(),
            "source": each.source,
            "good-for": each.good_for,
        }
        for name, each in PRESETS.items()
    }
