"""The stepper: two live processes held at each message and each point, with a way back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ipywidgets

from colobench.errors import LocalError
from colobench.lab.report.palette import (
    BAD_COLOUR,
    BUSY_COLOUR,
    GOOD_COLOUR,
    IDLE_COLOUR,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    TAKEOVER_COLOUR,
)
from colobench.lab.studies.step_journal import StepMoment
from colobench.lab.studies.stepping import DAMAGES, FLIP, REPLACE, Stepping, tables_of
from colobench.memory.tracker import Words
from colobench.protocol.colo import VARIANTS
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.transport import Encoding
from colobench.ui.base.controls import dropdown
from colobench.ui.base.markup import status_line
from colobench.ui.base.panel import Panel, button, is_unseen, kill_buttons
from colobench.ui.base.pump import frames
from colobench.ui.base.sentences import begin_sentence
from colobench.ui.views import steps
from colobench.ui.views.page_sets import PageSets
from colobench.wire.messages import Message

#: Seconds without a step after which the pair is ended; the journal stays.
IDLE_SECONDS = 600.0
TRANSPORTS = ("stream", "stream+tcp", "multifd", "multifd+tcp", "memfd")
#: What is damaged, if no packet of a page channel is.
MAIN = "the message"
_WRAP = {"flex_flow": "row wrap"}


class Stepper(Panel):
    """Panel that takes a pair through its conversation, a message or a point at a time.

    The pair is started by the first step, and ended after ten minutes without one.

    Parameters
    ----------
    settings
        Arguments of `colobench.lab.studies.stepping.Stepping`; those of capture, layout, transport,
        encoding and variant are the first choices.

    Attributes
    ----------
    stepping
        The present pair and its journal; None before the first step.
    """

    _current = None

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = {"ram": "4M", "guest": "hotcold"} | settings
        self.stepping: Stepping | None = None
        self._used = time.monotonic()
        self._stopping = False
        # A page that is looked at, and not touched, goes on to say that it is there.
        self.contact.feed.busy = lambda: self.background.doing is not None or self._has_pair()
        self._choices = {
            "capture": self._choice("capture", [each.value for each in Capture], "240px"),
            "layout": self._choice("layout", [each.value for each in Layout]),
            "transport": self._choice("transport", TRANSPORTS),
            "encoding": self._choice("encoding", [each.value for each in Encoding]),
            "variant": self._choice("variant", list(VARIANTS)),
        }
        self.new_button = button("New pair", self.renew, "", "refresh")
        self.back_button = button("Back", self.back, "", "step-backward")
        self.next_button = button("Next", self.next, "primary", "step-forward")
        self.run_button = button("Run", self.run, "", "forward")
        self.kill_buttons = kill_buttons(("primary", "secondary"), self.kill)
        self.damage = dropdown("damage", DAMAGES, FLIP)
        self.place = ipywidgets.BoundedIntText(
            value=3,
            min=0,
            max=1 << 30,
            description="byte",
            layout={"width": "150px"},
            style={"description_width": "initial"},
        )
        self.where = dropdown("of", (MAIN,), MAIN)
        self.where.layout.width = "230px"
        self.other = dropdown("by", [each.name for each in Message], Message.VMSTATE_SEND.name)
        self.other.layout.width = "280px"
        self.corrupt_button = button("Corrupt here", self.corrupt, "warning", "random")
        self.damage.observe(lambda _: self.update(), "value")
        damages = (self.damage, self.where, self.place, self.other)
        self.reset_button = self.make_reset([*self._choices.values(), *damages])
        self.status, self.machines, self.bytes, self.guests = (ipywidgets.HTML() for _ in range(4))
        self.maps = self._make_maps()
        self.children = (
            ipywidgets.HBox(
                [*self._choices.values(), self.new_button, self.reset_button], layout=_WRAP
            ),
            ipywidgets.HBox(
                [self.back_button, self.next_button, self.run_button, *self.kill_buttons.values()],
                layout=_WRAP,
            ),
            ipywidgets.HBox([*damages, self.corrupt_button], layout=_WRAP),
            self.status,
            self.bytes,
            self.machines,
            ipywidgets.HBox(self.maps, layout=_WRAP),
            self.guests,
        )
        self.update()
        frames.add(self)

    def __repr__(self) -> str:
        journal = None if self.stepping is None else self.stepping.journal
        if journal is None or journal.present is None:
            return "<Stepper before the first step>"
        return f"<Stepper at step {journal.number} of {journal.total}: {journal.present.happened}>"

    def _choice(self, name: str, options: Sequence[str], width: str = "190px") -> Any:
        made = dropdown(name, options, self._settings.pop(name, options[0]))
        made.layout.width = width
        return made

    def _make_maps(self) -> tuple[PageSets, ...]:
        from colobench.settings.settings import Settings

        ram = Settings().override(ram=self._settings["ram"]).guest.ram_bytes
        layout = {"flex": "1 1 240px", "min_width": "0"}
        rests = ("the same on both", "empty", "the same on both")
        return tuple(PageSets(ram, rest=rest, height=100, layout=layout) for rest in rests)

    # The buttons.

    def next(self) -> None:
        """Take a step, or look at the moment after; without a pair, start one."""
        self._do("taking a step", self._step)

    def back(self) -> None:
        """Look at the moment before."""
        if self.background.doing is None and self.stepping is not None:
            self.stepping.back()
            self.update()

    def run(self) -> None:
        """Step until the present checkpoint is done; a second press stops."""
        if self.background.doing is not None:
            self._stopping = True
            return
        self._stopping = False
        self._do("running to the end of this checkpoint", self._run_on)

    def kill(self, role: str) -> None:
        """Kill a node here, and let the other take over."""
        self._do(f"killing the {role}", lambda: self._live().kill(role))

    def corrupt(self) -> None:
        """Damage the message that travels next, or a packet of its pages, and let it pass."""
        how, other, where = self.damage.value, self.other.value, self.where.value
        place = self.place.value if how == FLIP else None
        channel = None if where == MAIN else self.where.options.index(where) - 1
        self._do(
            "damaging a message",
            lambda: self._live().corrupt(how, at=place, other=other, channel=channel),
        )

    def renew(self) -> None:
        """End the pair, and start one of the present choices."""
        self._do("starting a pair", self._start)

    def _do(self, words: str, action: Any) -> None:
        self._used = time.monotonic()
        self.background.do(words, action)

    def _live(self) -> Stepping:
        if self.stepping is None:
            raise LocalError("expected a pair, found none: press Next to start one")
        return self.stepping

    def _step(self) -> None:
        stepping = self.stepping
        if stepping is None or (stepping.over and stepping.journal.is_live):
            self._start()
        else:
            stepping.next()

    def _run_on(self) -> None:
        if self.stepping is None or self.stepping.over:
            self._start()
        self._live().run(lambda: not self._stopping, self.update)

    def _start(self) -> None:
        self._end_pair()
        chosen = {name: choice.value for name, choice in self._choices.items()}
        stepping = Stepping(**self._settings, **chosen)
        self.stepping = stepping
        try:
            stepping.start()
        except BaseException:
            self.stepping = None
            raise

    def _has_pair(self) -> bool:
        # Another thread may forget it.
        stepping = self.stepping
        return stepping is not None and not stepping.over

    def _end_pair(self) -> None:
        if self.stepping is not None:
            self.stepping.close()

    def halt(self) -> None:
        """Stop to run to the end of a checkpoint."""
        self._stopping = True

    def forget(self) -> None:
        """End the pair, and forget its journal."""
        self._end_pair()
        self.stepping = None
        for each in (self.machines, self.bytes, self.guests):
            each.value = ""
        for shown in self.maps:
            shown.show({}, "")

    def refresh(self) -> None:
        """End a pair that nobody has used for long, or sees; called by the pump."""
        if not self._has_pair() or self.background.doing is not None:
            return
        if is_unseen() or time.monotonic() - self._used > IDLE_SECONDS:
            self._do("ending a pair that is not used", self._end_pair)

    # Display.

    def update(self) -> None:
        """Show the moment that is looked at, and enable the buttons that make sense."""
        stepping = self.stepping
        moment = None if stepping is None else stepping.journal.present
        over = stepping is None or stepping.over
        # Next, Back and Run stay enabled while a step is taken: a disabled button loses the focus.
        self.back_button.disabled = moment is None
        busy = self.background.doing is not None
        self.new_button.disabled = busy
        for each in (*self.kill_buttons.values(), self.corrupt_button):
            each.disabled = over or busy
        self.place.disabled = self.damage.value != FLIP
        self.other.disabled = self.damage.value != REPLACE
        self._offer_channels()
        running = (self.background.doing or "").startswith("running")
        self.run_button.description = "Stop" if running else "Run"
        self.status.value = self._status(moment)
        if stepping is None or moment is None:
            return
        self.machines.value = steps.machines(tables_of(stepping.checkpoint), moment)
        self.bytes.value = steps.travelling(moment)
        self.guests.value = steps.guests(moment)
        self._show_maps(moment)

    def _offer_channels(self) -> None:
        """Offer the page channels of the present pair, beside the main connection."""
        stepping = self.stepping
        count = 0 if stepping is None else stepping.checkpoint.multifd_channels
        options = (MAIN, *(f"the next packet of channel {number}" for number in range(count)))
        if self.where.options != options:
            chosen = self.where.value
            self.where.options = options
            self.where.value = chosen if chosen in options else MAIN

    def _show_maps(self, moment: StepMoment) -> None:
        maps = moment.maps
        both = "" if maps.differing is not None else ": not known, one process is dead"
        primary, cache, secondary = self.maps
        primary.show(
            _known({"of the checkpoint": maps.collected, "not there yet": maps.differing}),
            f"Primary's RAM{both}",
            (PRIMARY_COLOUR, TAKEOVER_COLOUR),
        )
        cache.show(
            _known({"received, not flushed": maps.received}),
            "Secondary's RAM cache" + ("" if maps.received is not None else ": there is none"),
            (SECONDARY_COLOUR,),
        )
        secondary.show(
            _known({"other than the primary's": maps.differing}),
            f"Secondary's RAM{both}",
            (TAKEOVER_COLOUR,),
        )

    def _status(self, moment: StepMoment | None) -> str:
        doing, error, stepping = self.background.doing, self.background.error, self.stepping
        lines = []
        if stepping is not None and moment is not None:
            lines.append((IDLE_COLOUR, steps.position(stepping.journal, over=stepping.over)))
            bad = bool(moment.said) or moment.equal is False
            lines.append((BAD_COLOUR if bad else GOOD_COLOUR, moment.happened))
            lines += [(BAD_COLOUR, each) for each in moment.said]
            if moment.equal is False:
                lines.append((BAD_COLOUR, "RAM or devices of the two differ after a checkpoint."))
            if stepping.over and stepping.journal.is_live:
                lines.append((IDLE_COLOUR, "This pair is over: Next starts another."))
        elif doing is None and error is None:
            lines.append((IDLE_COLOUR, "Next starts a pair, and holds its first message."))
        if doing:
            lines.append((BUSY_COLOUR, f"{begin_sentence(doing)} …"))
        elif error:
            lines.append((BAD_COLOUR, f"It failed: {error}"))
        return "".join(status_line(*line) for line in lines)

    def end(self) -> None:
        """End the pair and the display."""
        self._stopping = True
        frames.remove(self)
        self._end_pair()


def _known(sets: dict[str, Words | None]) -> dict[str, Words]:
    return {name: words for name, words in sets.items() if words is not None}
