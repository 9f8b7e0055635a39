"""A bar for what takes long and shows nothing by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What is over sooner has no bar.
_PATIENCE_SECONDS = 2.0
#: In a notebook, each change is a message.
_CHANGE_SECONDS = 0.5


@contextmanager
def bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error as long as something lasts, if that is long.

    Parameters
    ----------
    what, unit
        What is done, and what is counted; in words.

    Yields
    ------
    function
        To be called with how many are done, and of how many.
    """
    from tqdm import tqdm

    with tqdm(
        desc=what,
        unit=f" {unit}",
        delay=_PATIENCE_SECONDS,
        mininterval=_CHANGE_SECONDS,
        leave=False,
        file=sys.stderr,
    ) as shown:

        def progress(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield progress
