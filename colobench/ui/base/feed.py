"""Feeds: state of views that reaches every page, also one that is late, slow or was cut off."""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from IPython import get_ipython

from colobench.lab.report.palette import COLD_COLOUR, CONTACT_COLOUR, HATCH_COLOUR
from colobench.ui.base.pump import FRAME_SECONDS, frames
from colobench.ui.base.subshells import skip_ended_subshells

#: A feed that is in use says so at least this often.
BEAT_SECONDS = 1.0
#: Seconds without news after which a feed rests: a kernel that sends messages is never idle.
REST_SECONDS = 60.0
#: A feed in use sends all of its state this often, for pages that have missed some and cannot ask.
REPEAT_SECONDS = 5.0
#: Browsers let a hidden page ping once a minute.
HIDDEN_SECONDS = 130.0
#: Seconds without a ping after which a page is forgotten.
PAGE_SECONDS = HIDDEN_SECONDS
#: A connection that is slower than its views lags behind them; Jupyter's server drops nothing of
#: theirs, as it counts the bytes of cells' output alone.
BYTES_PER_SECOND = 500_000
#: Longer data is compressed.
PLAIN_BYTES = 8192

_logger = logging.getLogger(__name__)
# Output of a thread appears in the cell that happens to run.
_logger.addHandler(logging.NullHandler())


class CoreModel(ipywidgets.Widget):  # type: ignore[misc]
    """A model whose browser side is part of every Jupyter page, and has no view of its own."""

    _model_name = traitlets.Unicode("WidgetModel").tag(sync=True)
    _model_module = traitlets.Unicode("@jupyter-widgets/base").tag(sync=True)
    _model_module_version = traitlets.Unicode("2.0.0").tag(sync=True)


class Library(CoreModel):
    """A script that a page loads once for all of its views.

    Parameters
    ----------
    name
        The global variable that it defines.
    version
        Its version, a member of that variable.
    data
        The script, compressed by gzip.
    """

    name = traitlets.Unicode().tag(sync=True)
    version = traitlets.Unicode().tag(sync=True)
    data = traitlets.Bytes().tag(sync=True)


class Feed(CoreModel):
    """State of a view, which every page has.

    Attributes
    ----------
    frame
        The whole picture: a view needs the last frame and no other. Its ``number`` tells it from
        the frames before; its ``data`` are bytes, compressed if ``deflated``.
    contact
        State of the kernel: ``beat`` grows by one each time; ``rests`` if no more
        beats are to be expected; ``busy`` if a cell runs; ``heard`` has each page's last ping.
    library
        A script that the view needs.
    busy
        Function that returns whether work is going on, during which the feed sends beats.
    repeat
        Function that sends state outside of this feed again; called when pages may have missed it.
    repeats
        Whether the frame is sent again from time to time, also if no page says that it missed any.
    told
        Function that is called with what a page says of its own accord, other than pings.

    Notes
    -----
    anywidget's browser side drops all messages and changes of state of a widget whose module took
    longer than 2 s to load, without an error. So an anywidget here has only constants,
    and variable state is in a model of ipywidgets' own. A page that is opened later finds
    it there; one that has missed some has all of it with the next frame.
    """

    frame = traitlets.Dict().tag(sync=True)
    contact = traitlets.Dict().tag(sync=True)
    library = traitlets.Instance(Library, allow_none=True).tag(
        sync=True, **ipywidgets.widget_serialization
    )

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._next: tuple[Mapping[str, Any], bytes] | None = None
        self._sent = self._repeated = self._beaten = float("-inf")
        self._used_until = time.monotonic() + REST_SECONDS
        self._missed = False
        self.busy: Callable[[], bool] = lambda: False
        self.repeat: Callable[[], None] = lambda: None
        self.repeats = True
        self.told: Callable[[dict[str, Any]], None] = lambda message: None
        super().__init__(frame={"number": 0, "data": b"", "deflated": False}, contact=_contact(0))
        self.on_msg(self._hear)
        feeds.add(self)

    def put(self, frame: Mapping[str, Any], data: bytes = b"") -> None:
        """Replace the frame; it is sent now, or as soon as the pace allows.

        Parameters
        ----------
        frame
            The part of the frame that goes as JSON.
        data
            The part of the frame that goes as bytes.
        """
        with self._guard:
            self._next = frame, data
        self.use()

    def use(self) -> None:
        """Send everything that is due, and send beats for a while."""
        with self._guard:
            self._used_until = time.monotonic() + REST_SECONDS
        self.tend()

    def miss(self) -> None:
        """Note that a page has missed something, so that all state is sent again."""
        with self._guard:
            self._missed = True

    def tend(self) -> None:
        """Send everything that is due."""
        now = time.monotonic()
        with self._guard:
            if self.comm is None:
                return
            if self._next is not None and now - self._sent >= 0.8 * FRAME_SECONDS:
                self._send_frame(*self._next, now)
            due = self.repeats and now - self._repeated >= REPEAT_SECONDS
            if self._missed or (due and self._in_use(now)):
                self._send_again(now)
            if now - self._beaten >= BEAT_SECONDS and (
                self._in_use(now) or not self.contact["rests"]
            ):
                self._beat(now)

    def _in_use(self, now: float) -> bool:
        return now < self._used_until or self.busy() or cells.running

    def _send_frame(self, frame: Mapping[str, Any], data: bytes, now: float) -> None:
        deflated = len(data) > PLAIN_BYTES
        packed = zlib.compress(data, 1) if deflated else data
        if not pace.take(len(packed), now):
            return
        self._next, self._sent, self._repeated = None, now, now
        number = self.frame["number"] + 1
        with self.hold_sync():
            self.frame = {**frame, "number": number, "deflated": deflated, "data": packed}
            self._beat(now)

    def _send_again(self, now: float) -> None:
        if pace.take(len(self.frame["data"]), now):
            self._missed, self._repeated = False, now
            self.send_state(("frame", "library"))
            self.repeat()

    def _beat(self, now: float) -> None:
        self._beaten = now
        rests = not self._in_use(now)
        self.contact = _contact(self.contact["beat"] + 1, rests)

    def _hear(self, _: object, message: dict[str, Any], buffers: object) -> None:
        """Note a page's ping, and answer it; hand on everything else."""
        if "page" not in message:
            self.use()
            self.told(message)
            return
        feeds.hear(message)
        if message.get("touched"):
            self.use()
        with self._guard:
            if self.comm is not None:
                self._beat(time.monotonic())

    def close(self) -> None:
        """Close the feed."""
        feeds.remove(self)
        with self._guard:
            super().close()


def _contact(beat: int, rests: bool = False) -> dict[str, Any]:
    return {"beat": beat, "rests": rests, "busy": cells.running, "heard": feeds.heard()}


class Pace:
    """Limit of the rate at which bytes are sent, so that live views do not lag behind.

    Parameters
    ----------
    rate
        Bytes a second.
    """

    def __init__(self, rate: float = BYTES_PER_SECOND) -> None:
        self._rate = self._left = rate
        self._then = time.monotonic()
        self._lock = threading.Lock()

    def take(self, size: int, now: float) -> bool:
        """Take `size` bytes of the allowance; False if it is used up at present."""
        with self._lock:
            self._left = min(self._rate, self._left + (now - self._then) * self._rate)
            self._then = now
            if self._left <= 0:
                return False
            self._left -= size
            return True


class Feeds:
    """All open feeds, and the pages that have pinged lately."""

    def __init__(self) -> None:
        self._open: list[Feed] = []
        self._pages: dict[str, tuple[int, float]] = {}
        #: When the last page was left, and whether there has ever been one.
        self._left = float("-inf")
        self._had_pages = False
        self._lock = threading.RLock()

    def add(self, feed: Feed) -> None:
        """Add a feed, which is sent from now on."""
        with self._lock:
            self._open.append(feed)
            first = len(self._open) == 1
        if first:
            cells.watch()
            frames.add(self)

    def remove(self, feed: Feed) -> None:
        """Remove a feed, which is not sent any more."""
        with self._lock:
            if feed not in self._open:
                return
            self._open.remove(feed)
            last = not self._open
        if last:
            frames.remove(self)
            # Another feed may have been added meanwhile.
            if self.all():
                frames.add(self)

    def all(self) -> list[Feed]:
        """Give the open feeds, the one that has waited longest first."""
        with self._lock:
            return sorted(self._open, key=lambda feed: feed._sent)

    def refresh(self) -> None:
        """Let each feed send everything that is due; called in the pump's thread."""
        for feed in self.all():
            try:
                feed.tend()
            except Exception:
                # The next frame may be sent again, and a feed without beats is out of touch.
                _logger.exception("a feed cannot be sent: %r", feed)

    def hear(self, message: Mapping[str, Any]) -> None:
        """Note a page's ping; send everything anew if the page has missed something."""
        now = time.monotonic()
        with self._lock:
            pages = self._pages.items()
            self._pages = {page: it for page, it in pages if now - it[1] < PAGE_SECONDS}
            if message.get("leaves"):
                self._pages.pop(str(message["page"]), None)
                self._left = now
                return
            self._had_pages = True
            self._pages[str(message["page"])] = int(message["ping"]), now
        if message.get("missed"):
            for feed in self.all():
                feed.miss()

    def unseen_seconds(self) -> float:
        """Give the seconds since a page that shows a feed was last heard; 0 if there was none.

        A page that is hidden pings seldom. One that is left says so if it can. While a cell runs,
        the kernel hears no page.
        """
        with self._lock:
            if not self._had_pages or cells.running:
                return 0.0
            now, last = time.monotonic(), [then for _, then in self._pages.values()]
            if last:
                return max(0.0, now - max(*last, cells.ended) - HIDDEN_SECONDS)
            return now - self._left

    def heard(self) -> dict[str, int]:
        """Give the last ping of each page."""
        with self._lock:
            return {page: ping for page, (ping, _) in self._pages.items()}


class Cells:
    """State of the kernel's cells: whether one runs, and for which page.

    Attributes
    ----------
    running
        Whether one runs: the kernel hears no page until it ends.
    ended
        When the last one ended, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.running = False
        self.ended = float("-inf")
        self._shell: Any = None

    def watch(self) -> None:
        """Follow the kernel's cells from now on; without a kernel, do nothing."""
        shell = get_ipython()
        if shell is None or shell is self._shell or not hasattr(shell, "kernel"):
            return
        self._shell = shell
        skip_ended_subshells(shell.kernel)
        self.running = self._request().get("msg_type") == "execute_request"
        shell.events.register("pre_run_cell", lambda *_: self._set(True))
        shell.events.register("post_run_cell", lambda *_: self._set(False))

    def page(self) -> str:
        """Name the page whose request the kernel executes; a reloaded page has another name."""
        return str(self._request().get("session", ""))

    def _set(self, running: bool) -> None:
        if not running:
            self.ended = time.monotonic()
        self.running = running

    def _request(self) -> dict[str, Any]:
        if self._shell is None:
            return {}
        header: dict[str, Any] = self._shell.kernel.get_parent("shell").get("header", {})
        return header


cells = Cells()
feeds = Feeds()
pace = Pace()


def read_module(*names: str) -> str:
    """Read a view's browser side, after its colours and the part that all views share."""
    directory = Path(__file__).parents[1] / "js"
    colours = {"cold": COLD_COLOUR, "contact": CONTACT_COLOUR, "hatch": HATCH_COLOUR}
    return f"const COLOURS = {json.dumps(colours)};\n" + "".join(
        (directory / name).read_text() for name in ("feed.js", *names)
    )


class LiveView(anywidget.AnyWidget):
    """A view in a browser, whose state is in its feed; the view itself has constants alone.

    Parameters
    ----------
    constants
        Traits of the view and its layout, which cannot change later.

    Attributes
    ----------
    feed
        State of the view.
    """

    _feed: Any = traitlets.Instance(Feed).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(self, **constants: Any) -> None:
        self.feed = Feed()
        self._version: object = None
        super().__init__(_feed=self.feed, **constants)

    def update(self, version: object, make: Callable[[], tuple[Mapping[str, Any], bytes]]) -> None:
        """Show a frame, unless it is shown already.

        Parameters
        ----------
        version
            Value that differs from the last one if there is something new.
        make
            Function that gives the frame and its data.
        """
        if version != self._version:
            self.feed.put(*make())
            self._version = version

    def close(self) -> None:
        """Close the view."""
        # One whose making has failed is closed by its finalizer.
        feed: Feed | None = getattr(self, "feed", None)
        if feed is not None:
            feed.close()
        super().close()


class Contact(LiveView):
    """A line that a page fills with words when it and the kernel are out of touch."""

    _esm = read_module("contact.js")
