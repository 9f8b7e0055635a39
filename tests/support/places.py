"""Directories of the clone that tests read from."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
CLONE = SUPPORT.parents[1]
