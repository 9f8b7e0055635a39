"""Standard error, as verbs write to it."""

from __future__ import annotations

import sys
from contextlib import suppress


def say_error(words: str) -> None:
    """Print to standard error, if anybody reads it."""
    with suppress(OSError, ValueError):
        print(words, file=sys.stderr, flush=True)
