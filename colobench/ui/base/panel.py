"""Base of panels with buttons: they own a pair of nodes, and never block the kernel."""

from __future__ import annotations

import atexit
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from textwrap import shorten
from typing import Any, ClassVar

import ipywidgets
from traitlets import validate

from colobench.errors import ColobenchError
from colobench.lab.interrupt import interruptible
from colobench.ui.base.abstract import AbstractWidget
from colobench.ui.base.feed import Contact, feeds

#: Seconds after which a panel ends its processes that no page shows any more.
UNSEEN_SECONDS = 45.0
#: Limit of an error's text, characters.
LINE_LENGTH = 300
#: Widgets whose value the panel sets; the values of others are set by the page.
DISPLAYS = (ipywidgets.HTML, ipywidgets.IntProgress)
#: Widgets that panels hide where they make no sense.
HIDDEN_AT_TIMES = (ipywidgets.Button, ipywidgets.IntProgress)


def one_line(error: Exception) -> str:
    """Give an error's text as one line."""
    text = str(error) if isinstance(error, ColobenchError) else f"{type(error).__name__}: {error}"
    return shorten(text, LINE_LENGTH, placeholder=" …")


class Background:
    """Background thread that does one thing at a time.

    Parameters
    ----------
    changed
        Function that is called when something begins or ends, in any thread.

    Attributes
    ----------
    doing
        Description of what is being done; None if nothing is.
    error
        Error of the last thing, as one line; None if it did not fail.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.doing: str | None = None
        self.error: str | None = None
        self._changed = changed
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._following: tuple[str, Callable[[], object]] | None = None
        # Before Python 3.13 a thread whose `join` was interrupted counts as ended.
        self._idle = threading.Event()
        self._idle.set()

    def do(self, words: str, action: Callable[[], object]) -> bool:
        """Start work in the background; return False, without an effect, if other work goes on."""
        with self._lock:
            if self.doing is not None:
                return False
            self.doing, self.error = words, None
            self._idle.clear()
            thread = self._thread = threading.Thread(
                target=self._run, args=(action,), name=f"colobench: {words}", daemon=True
            )
        try:
            self._changed()
            thread.start()
        except BaseException:
            if thread.ident is None:
                self.doing = None
                self._idle.set()
            raise
        return True

    def then(self, words: str, action: Callable[[], object]) -> None:
        """Do work as soon as the present one has ended; of several that wait, the last is done."""
        while not self.do(words, action):
            with self._lock:
                if self.doing is not None:
                    self._following = words, action
                    return

    def wait(self) -> None:
        """Wait for the end of the work."""
        if self._thread is not threading.current_thread():
            self._idle.wait()

    def _run(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            self.error = one_line(error)
        finally:
            with self._lock:
                following, self._following = self._following, None
                self.doing = None if following is None else following[0]
                if following is not None:
                    self.error = None
            try:
                self._changed()
            finally:
                if following is None:
                    self._idle.set()
                else:
                    self._run(following[1])


class Turn:
    """Turn of a panel to have a pair, for panels whose pairs last as long as one press."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, go_on: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the turn; yields False if `go_on` ends the waiting first."""
        while not self._lock.acquire(timeout=0.1):
            if not go_on():
                yield False
                return
        try:
            yield True
        finally:
            self._lock.release()


#: Two pairs with a spare node each, and a notebook, are more than Binder has memory for.
turn = Turn()


class Panel(ipywidgets.VBox, metaclass=AbstractWidget):  # type: ignore[misc]
    """A panel that owns processes. A new panel closes the one before.

    A cell that is run once more would otherwise leave the earlier pair behind, on a machine that
    may have room for one.
    """

    #: The present panel; a subclass with a `_current` of its own stays open beside other panels.
    _current: ClassVar[Panel | None] = None

    def __init__(self) -> None:
        place = self._place()
        if place._current is not None:
            place._current.close()
        place._current = self
        self.background = Background(self.update)
        #: Why the display could not be refreshed the last time.
        self._unrefreshed: str | None = None
        self.contact = Contact()
        self.contact.feed.busy = lambda: self.background.doing is not None
        self.contact.feed.repeat = self.repeat
        super().__init__()
        self.add_class("colobench-panel")

    @classmethod
    def _place(cls) -> type[Panel]:
        """Find the class whose `_current` this panel is."""
        return next(each for each in cls.__mro__ if "_current" in vars(each))

    @validate("children")
    def _begin_with_contact(self, proposal: Any) -> tuple[Any, ...]:
        return (self.contact, *(each for each in proposal["value"] if each is not self.contact))

    def repeat(self) -> None:
        """Send the panel's state again, for a page that was cut off; the page keeps its choices."""
        for widget in _descendants(self):
            names = [name for name in _repeated(widget) if widget.has_trait(name)]
            if names:
                widget.send_state(names)
            if isinstance(widget, HIDDEN_AT_TIMES):
                widget.layout.send_state(["display", "visibility"])

    @abstractmethod
    def update(self) -> None:
        """Show the present state; called in any thread."""

    @abstractmethod
    def end(self) -> None:
        """End all processes."""

    def tell_failure(self, error: Exception | None) -> None:
        """Say that the display cannot be refreshed, or can be again; called by the pump."""
        background, before = self.background, self._unrefreshed
        self._unrefreshed = None if error is None else one_line(error)
        if background.doing is None and (self._unrefreshed or background.error == before):
            background.error = self._unrefreshed
            self.update()

    def halt(self) -> None:
        """Let the work that goes on end soon; what was found stays."""

    def forget(self) -> None:
        """End all processes, and forget what was found; called in the background by Reset."""

    def make_reset(self, controls: Sequence[Any]) -> Any:
        """Make the button Reset, which ends what runs and restores the present choices."""
        first = [(each, each.value) for each in controls]

        def restore() -> None:
            self.forget()
            for control, value in first:
                control.value = value

        def reset() -> None:
            self.halt()
            self.background.then("ending what runs", restore)

        return button("Reset", reset, "", "refresh")

    def _what_goes_on(self) -> str:
        doing = self.background.doing
        return f"'{doing}' goes on, and can be waited for again" if doing else "nothing is done now"

    @interruptible(_what_goes_on)
    def wait(self) -> None:
        """Wait for the end of the work that a button has started."""
        self.background.wait()

    @interruptible("what it does is ending, and its processes with it")
    def close(self) -> None:
        """End all processes, also while something is being done with them, and close the panel."""
        place = self._place()
        if place._current is self:
            place._current = None
        # Running work fails then, or has just started processes that must be ended, too.
        self.end()
        self.wait()
        self.end()
        for widget in self.children:
            close_all(widget)
        super().close()
        _close_parts(self)


def close_all(widget: Any) -> None:
    """Close a widget with all that is in it: ipywidgets keeps open ones until the kernel ends."""
    for each in [*_descendants(widget), widget]:
        each.close()
        _close_parts(each)


def _close_parts(widget: Any) -> None:
    for name in ("layout", "style"):
        part = getattr(widget, name, None)
        if isinstance(part, ipywidgets.Widget):
            part.close()


def _repeated(widget: Any) -> tuple[str, ...]:
    """Name the state of a widget that a panel changes, and a page does not."""
    if isinstance(widget, DISPLAYS):
        return "value", "max"
    if isinstance(widget, ipywidgets.Button):
        return "disabled", "description", "tooltip"
    return "disabled", "_options_labels"


def _descendants(widget: Any) -> Iterator[Any]:
    for child in getattr(widget, "children", ()):
        yield child
        yield from _descendants(child)


@atexit.register
def _close_last_panel() -> None:
    # Now, as threads cannot be waited for when the interpreter ends.
    for place in (Panel, *Panel.__subclasses__()):
        if place._current is not None:
            place._current.close()


def button(text: str, action: Callable[[], None], style: str = "", icon: str = "") -> Any:
    """Make a button."""
    layout = ipywidgets.Layout(width="auto", padding="0 14px")
    made = ipywidgets.Button(description=text, button_style=style, icon=icon, layout=layout)
    made.on_click(lambda _: action())
    return made


def kill_buttons(
    roles: Sequence[str], kill: Callable[[str], None], styles: Sequence[str] = ()
) -> dict[str, Any]:
    """Make a button for each role that kills its process.

    Parameters
    ----------
    roles
        Roles of the processes.
    kill
        Function that is called with the role.
    styles
        Styles of the first buttons; the others are red.
    """
    chosen = [*styles, *["danger"] * (len(roles) - len(styles))]
    return {
        role: button(f"Kill {role}", partial(kill, role), style, "bolt")
        for role, style in zip(roles, chosen, strict=True)
    }


def is_unseen() -> bool:
    """Whether no page has shown a view for so long that processes end."""
    return feeds.unseen_seconds() > UNSEEN_SECONDS
