"""A plugin for pytest in redis-py's directory: run those tests that a file names, and no others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def read_list(path: Path) -> list[str]:
    """Give the lines of a list, without comments and empty ones."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Deselect what the list does not name; it names tests without their parameters."""
    names = set(read_list(Path(os.environ["COLOBENCH_SELECTION"])))
    kept = [item for item in items if item.nodeid.partition("[")[0] in names]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
