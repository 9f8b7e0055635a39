"""Progress bars for work that takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds before a bar is shown.
_PATIENCE_SECONDS = 2.0
#: Seconds between two changes of a bar: in a notebook, each change is a message.
_CHANGE_SECONDS = 0.5


@contextmanager
def bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while something lasts, if it lasts long.

    Parameters
    ----------
    what, unit
        Name of the work, and of the counted units.

    Yields
    ------
    function
        Call it with the number that is done, and the total.
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
