"""Thread that refreshes views some times a second."""

from __future__ import annotations

import atexit
import logging
import threading
from contextlib import suppress
from typing import Protocol

#: Seconds from one frame to the next. Slow browsers have to draw each frame of each view.
FRAME_SECONDS = 0.25

_logger = logging.getLogger(__name__)
# Output of a thread appears in the cell that happens to run.
_logger.addHandler(logging.NullHandler())


class View(Protocol):
    """View of something that changes."""

    def refresh(self) -> None:
        """Show new data; called periodically in the pump's thread.

        After an exception it is called again, as what failed may be over. A view with a method
        `tell_failure` gets the exception, and None when that is over.
        """


class Pump:
    """Thread that refreshes views, and lasts as long as there are any.

    So a plot is live while a cell runs, and a view gets at most one message a frame, however often
    checkpoints are taken. No thread waits for the pump.

    Parameters
    ----------
    seconds
        Seconds from one refresh to the next.
    """

    def __init__(self, seconds: float = FRAME_SECONDS) -> None:
        self._seconds = seconds
        self._views: list[View] = []
        self._failing: set[View] = set()
        # Reentrant: a view may remove itself, or another, while it is refreshed.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        # Widgets close when the interpreter clears up, too late to wait for a thread.
        atexit.register(self.stop)

    def add(self, view: View) -> None:
        """Refresh `view` from now on."""
        with self._lock:
            if view not in self._views:
                self._views.append(view)
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="colobench views", daemon=True
                )
                self._thread.start()

    def remove(self, view: View) -> None:
        """Remove `view`; after the return it is not refreshed any more."""
        with self._lock:
            if view in self._views:
                self._views.remove(view)
                self._failing.discard(view)
            if self._views or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not threading.current_thread():
            thread.join()

    def stop(self) -> None:
        """Remove all views."""
        for view in list(self._views):
            self.remove(view)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._seconds):
            with self._lock:
                for view in list(self._views):
                    self._refresh(view)

    def _refresh(self, view: View) -> None:
        try:
            view.refresh()
        except Exception as error:
            _logger.exception("a view cannot be refreshed: %r", view)
            self._failing.add(view)
            _tell(view, error)
        else:
            if view in self._failing:
                self._failing.remove(view)
                _tell(view, None)


def _tell(view: View, error: Exception | None) -> None:
    tell = getattr(view, "tell_failure", None)
    if tell is not None:
        with suppress(Exception):
            tell(error)


#: The pump of all plots and page maps.
frames = Pump()
