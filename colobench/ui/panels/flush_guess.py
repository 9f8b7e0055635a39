"""Panel for a guess at the pages that a flush copies, with a pair held before its commit."""

from __future__ import annotations

import time
from typing import Any

import ipywidgets
import numpy as np

from colobench.lab.course.feedback import Feedback, UnfitAnswerError, as_typed_number
from colobench.lab.course.lessons.lesson_03 import judge_flush
from colobench.lab.course.prediction import NOT_COMMITTED
from colobench.lab.course.score_book import PREDICTION, book
from colobench.lab.report.palette import (
    BAD_COLOUR,
    BUSY_COLOUR,
    IDLE_COLOUR,
    SECONDARY_COLOUR,
)
from colobench.lab.session.record import CheckpointRecord
from colobench.lab.session.session import Session
from colobench.lab.studies.flush_prediction import PendingFlush, hold_before_flush
from colobench.ui.base.controls import GUESTS, WRITES, dropdown, slider
from colobench.ui.base.markup import status_line
from colobench.ui.base.panel import Panel, button, is_unseen
from colobench.ui.base.pump import frames
from colobench.ui.base.sentences import begin_sentence
from colobench.ui.panels.prediction_panel import GRADE_COLOURS
from colobench.ui.views.page_sets import PageSets

#: Number of this prediction among those of notebook 03.
NUMBER = "03.2"
WORKING_SETS = (64, 256, 1024, 4096)
VARIANTS = ("v12", "upstream")
#: Choices of the side whose guest runs longer before the checkpoint, and its ticks of 1 ms.
LONGER = {"neither": None, "the secondary's": "secondary", "the primary's": "primary"}
LONGER_TICKS = 100
#: Seconds for which a pair may be held while the reader thinks.
PATIENCE_SECONDS = 3600.0
#: Seconds without a press after which the pair is ended.
IDLE_SECONDS = 600.0
DEFAULTS: dict[str, Any] = {
    "guest": "hotcold",
    "variant": "upstream",
    "working_set": 1024,
    "writes_per_tick": 16,
}


class FlushGuess(Panel):
    """Holds a secondary before the flush, asks how many pages that will copy, and shows it.

    The pair ends after ten minutes without a press, and when no page shows it.

    Parameters
    ----------
    settings
        Arguments of `Session`; of those that have a control here, its first choice.

    Attributes
    ----------
    pending
        Flush that waits, or waited last; None before the first checkpoint.
    record
        Record of that checkpoint; None until it is flushed.
    feedback
        Score of the guess; None until the flush.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        chosen = DEFAULTS | settings
        self._fixed = {"ram": "16M"} | settings
        self._fixed |= {"delay": None, "report_pages": True, "stall_timeout": PATIENCE_SECONDS}
        self._controls = {
            "guest": dropdown("guest", GUESTS, chosen["guest"]),
            "variant": dropdown("variant", VARIANTS, chosen["variant"]),
            "working_set": slider("working set (pages)", WORKING_SETS, chosen["working_set"]),
            "writes_per_tick": slider("writes per ms", WRITES, chosen["writes_per_tick"]),
        }
        self.longer = dropdown("runs 100 ms longer", list(LONGER), "the secondary's")
        self.longer.layout.width = "270px"
        self._controls["working_set"].layout.width = "270px"
        self.take_button = button("Send a checkpoint", self.take, "primary", "forward")
        # Text, as a field of numbers has one before anybody has chosen it.
        self.guess = ipywidgets.Text(
            description="my guess",
            placeholder="pages",
            layout=ipywidgets.Layout(width="180px"),
        )
        self._committed: int | None = None
        self._refused = False
        self.flush_button = button("Commit and flush", self.flush, "success", "check")
        self.reset_button = self.make_reset([*self._controls.values(), self.longer])
        self.status = ipywidgets.HTML()
        self.session: Session | None = None
        self._used = time.monotonic()
        # A page that is looked at, and not touched, goes on to say that it is there.
        self.contact.feed.busy = lambda: (
            self.background.doing is not None or self.session is not None
        )
        self._running: dict[str, Any] = {}
        self.pending: PendingFlush | None = None
        self.record: CheckpointRecord | None = None
        self.feedback: Feedback | None = None
        self.maps = [self._map(title) for title in ("received", "written there", "flushed")]
        self.children = (
            self._line(*self._controls.values(), self.longer),
            self._line(self.take_button, self.guess, self.flush_button, self.reset_button),
            self.status,
            ipywidgets.HBox(self.maps),
        )
        self.update()
        frames.add(self)

    def __repr__(self) -> str:
        return f"<FlushGuess {'with' if self.pending else 'without'} a checkpoint>"

    def _map(self, title: str) -> PageSets:
        ram_bytes = Session(ram=self._fixed["ram"]).settings.guest.ram_bytes
        return PageSets(ram_bytes, title, layout=ipywidgets.Layout(width="33%"))

    def _line(self, *widgets: Any) -> Any:
        return ipywidgets.HBox(widgets, layout=ipywidgets.Layout(flex_flow="row wrap"))

    # The buttons.

    def take(self) -> None:
        """Take a checkpoint up to its commit, of a new pair if another guest is chosen."""
        self._used = time.monotonic()
        self.background.do("sending a checkpoint, with a new pair if need be", self._take)

    def flush(self) -> None:
        """Let the secondary commit and flush, if there is a guess."""
        self._used = time.monotonic()
        if self.background.doing is not None:
            return
        guess = self._read_guess()
        self._refused = guess is None
        if guess is None:
            self.update()
            return
        self._committed = guess
        self.background.do("committing and flushing", self._flush)

    def _read_guess(self) -> int | None:
        """Give the guess as a number; None if the field has no whole one."""
        try:
            guess = as_typed_number(self.guess.value, "pages")
        except UnfitAnswerError:
            return None
        return int(guess) if guess >= 0 and guess.is_integer() else None

    # Actions in the background.

    def _take(self) -> None:
        chosen = {name: control.value for name, control in self._controls.items()}
        try:
            if self.session is None or chosen != self._running:
                self._begin(chosen)
            assert self.session is not None
            longer = LONGER[self.longer.value]
            pending = hold_before_flush(self.session, longer=longer, ticks=LONGER_TICKS)
        except Exception:
            self._end_session()
            raise
        self.pending, self.record = pending, None
        self.guess.value = ""
        self._committed, self._refused, self.feedback = None, False, None
        received, written, flushed = self.maps
        received.show({"pages": pending.received}, f"Received, checkpoint {pending.checkpoint}")
        written.show(
            {"pages": pending.written}, "Written by the secondary's own guest", (SECONDARY_COLOUR,)
        )
        flushed.show({}, "Flushed: not yet")

    def _begin(self, chosen: dict[str, Any]) -> None:
        self._end_session()
        self._running = chosen
        self.session = Session(**self._fixed | chosen)
        self.session.start()

    def forget(self) -> None:
        """End the pair, and forget its checkpoint and the guess; the first score is what counts."""
        self._end_session()
        self.pending = self.record = self.feedback = None
        self._committed, self._refused, self.guess.value = None, False, ""
        for each in self.maps:
            each.show({}, "")

    def _end_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def _leave(self) -> None:
        """End the pair; a flush that was shown stays, and one that waits is given up."""
        self._end_session()
        if self.record is None:
            self.pending = None

    def _flush(self) -> None:
        assert self.pending is not None
        pending = self.pending
        try:
            record = pending.go_on()
        except Exception:
            self._end_session()
            self.pending = None
            raise
        if self._committed is not None:
            self.feedback = judge_flush(self._committed, pending, record.flushed_pages)
            book.note(PREDICTION, NUMBER, self.feedback)
        self.record = record
        flushed = np.frombuffer(record.flushed_bitmap or b"", "<u8")
        self.maps[2].show(
            {
                "received": flushed & pending.received,
                "written there only": flushed & ~pending.received,
            },
            "Flushed",
        )

    # Display.

    def refresh(self) -> None:
        """End a pair that nobody has used for long, or sees; called by the pump."""
        if self.session is None or self.background.doing is not None:
            return
        if is_unseen() or time.monotonic() - self._used > IDLE_SECONDS:
            self.background.do("ending a pair that is not used", self._leave)

    def right(self) -> bool:
        """Whether the flush copied exactly the predicted pages."""
        if self.pending is None or self.record is None:
            return False
        return self.pending.foretells(self.record)

    def update(self) -> None:
        """Show the present state, and enable the buttons that make sense in it."""
        ready = self.background.doing is None
        held = self.pending is not None and self.record is None
        for control in (*self._controls.values(), self.longer, self.take_button):
            control.disabled = not ready or held
        self.guess.disabled = self.flush_button.disabled = not ready or not held
        self.status.value = status_line(*self._words())

    def _words(self) -> tuple[str, str]:
        doing, error, pending = self.background.doing, self.background.error, self.pending
        if error:
            return BAD_COLOUR, f"It failed: {error}"
        if doing:
            return IDLE_COLOUR, f"{begin_sentence(doing)} …"
        if pending is None:
            return (
                IDLE_COLOUR,
                "Choose a guest, and send a checkpoint: it is held before its commit.",
            )
        if self.record is None:
            return BUSY_COLOUR, self._question(pending)
        feedback = self.feedback
        colour = IDLE_COLOUR if feedback is None else GRADE_COLOURS[feedback.grade]
        if not self.right() or self.record.verified is False:
            colour = BAD_COLOUR
        return colour, f"{feedback or ''} {self._checks(self.record)}".strip()

    def _question(self, pending: PendingFlush) -> str:
        first = f"{NOT_COMMITTED}, in whole pages. " if self._refused else ""
        return (
            f"{first}Checkpoint {pending.checkpoint} is all there, and not committed. "
            f"{pending.received_pages:,} pages wait in the RAM cache; the secondary's own "
            f"guest wrote {pending.written_pages:,} since the checkpoint before. "
            "How many will the flush copy?"
        )

    def _checks(self, record: CheckpointRecord) -> str:
        """Describe the checks of the flush."""
        equal = {True: "RAM is equal", False: "RAM is NOT equal", None: "RAM was not compared"}
        pages = "page by page" if self.right() else "but NOT page by page"
        return f"That was foretold, {pages}. {equal[record.verified]} on both sides."

    def end(self) -> None:
        """End both processes and the display."""
        frames.remove(self)
        self._end_session()
