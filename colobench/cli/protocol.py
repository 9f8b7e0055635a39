"""``colobench protocol``: the conversation, the failover and what happens to disks, as tables."""

from __future__ import annotations

import argparse

from colobench.lab.studies.protocol_tables import protocol_tables
from colobench.protocol import table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--mermaid", action="store_true", help="as Mermaid state diagrams")


def run(options: argparse.Namespace) -> int:
    """Print the tables."""
    texts = []
    for title, each in protocol_tables().items():
        drawing = (
            table.mermaid(each.table, each.start) if options.mermaid else table.text(each.table)
        )
        texts.append(f"{title}\n\n{drawing}")
    print("\n\n".join(texts))
    return 0
