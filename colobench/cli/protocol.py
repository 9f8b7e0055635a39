"""``colobench protocol``: the conversation and the failover as tables."""

from __future__ import annotations

import argparse

from colobench.protocol import colo, failover, table
from colobench.settings.checkpoint import Capture, Layout


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--mermaid", action="store_true", help="as Mermaid state diagrams")


def run(options: argparse.Namespace) -> int:
    """Print the tables."""
    drawings = {
        f"primary, {variant.name}, {capture.value}": (
            colo.primary_table(variant, capture),
            colo.ColoState.MIGRATING,
        )
        for variant in colo.VARIANTS.values()
        for capture in Capture
    }
    drawings |= {
        f"secondary, {variant.name}, {layout.value}": (
            colo.secondary_table(variant, layout),
            colo.ColoState.MIGRATING,
        )
        for variant in colo.VARIANTS.values()
        for layout in Layout
    }
    for title, (drawn, start) in drawings.items():
        print(f"{title}\n")
        print(table.mermaid(drawn, start) if options.mermaid else table.text(drawn), end="\n\n")
    print("failover\n")
    none = failover.FailoverState.NONE
    print(
        table.mermaid(failover.FAILOVER, none) if options.mermaid else table.text(failover.FAILOVER)
    )
    return 0
