"""Controls of the dashboard, and of panels: dropdowns and sliders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets

from colobench.guest.programs import REPRODUCIBLE
from colobench.lab.course.glossary import meaning_of
from colobench.settings.checkpoint import Layout

GUESTS = [program.label for program in REPRODUCIBLE]
LAYOUTS = [layout.value for layout in Layout]
#: Milliseconds from checkpoint to checkpoint, and words that the guest writes in a millisecond.
DELAYS = (10, 20, 50, 100, 200, 500, 1000)
WRITES = (1, 4, 16, 64, 256)
DEFAULTS: dict[str, Any] = {
    "guest": "hotcold",
    "layout": "separated",
    "delay": 100,
    "writes_per_tick": 16,
    "verify": False,
}


class Controls(ipywidgets.HBox):  # type: ignore[misc]
    """Choices for the next pair, and the delay also for the one that runs.

    Parameters
    ----------
    chosen
        First choices, by the names of `Session`'s arguments; `DEFAULTS` for the others.
    """

    def __init__(self, **chosen: Any) -> None:
        chosen = DEFAULTS | chosen
        self.delay = slider("delay (ms)", DELAYS, chosen["delay"])
        self._controls = {
            "guest": dropdown("guest", GUESTS, chosen["guest"]),
            "layout": dropdown("layout", LAYOUTS, chosen["layout"]),
            "delay": self.delay,
            "writes_per_tick": slider("writes per ms", WRITES, chosen["writes_per_tick"]),
            "verify": ipywidgets.Checkbox(
                value=chosen["verify"],
                description="compare digests",
                indent=False,
                layout=ipywidgets.Layout(width="145px"),
            ),
        }
        super().__init__(
            list(self._controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap")
        )

    def chosen(self) -> dict[str, Any]:
        """Give the present choices, as arguments of `Session`."""
        return {name: control.value for name, control in self._controls.items()}

    def enable(self, *, delay: bool, others: bool) -> None:
        """Enable or disable the control of the delay, and all others."""
        for control in self._controls.values():
            control.disabled = not (delay if control is self.delay else others)


def dropdown(text: str, options: Sequence[str], value: str) -> Any:
    """Make a choice between words."""
    return ipywidgets.Dropdown(options=options, value=value, **_look(text, "160px"))


def slider(text: str, options: Sequence[int], value: int) -> Any:
    """Make a choice between numbers; `value` is added to them."""
    # Several steps of a drag would be several commands.
    return ipywidgets.SelectionSlider(
        options=sorted({*options, value}),
        value=value,
        continuous_update=False,
        **_look(text, "215px"),
    )


def _look(text: str, width: str) -> dict[str, Any]:
    return {
        "description": text,
        "tooltip": meaning_of(text),
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width=width, margin="2px 10px 2px 2px"),
    }
