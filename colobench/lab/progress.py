"""Progress of work that takes long: a bar on a terminal or in a notebook, else a few lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: Seconds before anything is shown.
_PATIENCE_SECONDS = 2.0
#: Seconds between two changes of a bar: in a notebook, each change is a message.
_CHANGE_SECONDS = 0.5
#: Largest number of lines where no bar can be shown: each reports an equal share of the work.
_LINES = 4


@contextmanager
def bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of something on standard error, if it lasts long.

    Parameters
    ----------
    what, unit
        Name of the work, and of the counted units.

    Yields
    ------
    function
        Call it with the number that is done, and the total.
    """
    if not _shows_bars():
        yield _lines(what, unit)
        return
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


def _shows_bars() -> bool:
    """Say whether standard error is a terminal or a notebook, where a line can be overwritten."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel.")


def _lines(what: str, unit: str) -> Callable[[int, int], None]:
    """Return a function that prints a line for each share of the work, once it takes long."""
    begin, shown = time.monotonic(), 0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        seconds, share = time.monotonic() - begin, _LINES * done // max(total, 1)
        if seconds >= _PATIENCE_SECONDS and share > shown:
            shown = share
            with suppress(OSError, ValueError):
                words = f"{what}: {done} of {total} {unit} after {seconds:.0f} s"
                print(words, file=sys.stderr, flush=True)

    return progress
