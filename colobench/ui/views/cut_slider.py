"""A slider that cuts a checkpoint, and the state of RAM then, with and without a RAM cache."""

from __future__ import annotations

from typing import Any

import ipywidgets

from colobench.lab.report.palette import BAD_COLOUR, GOOD_COLOUR
from colobench.lab.studies.torn_checkpoint import Cut, TornCheckpoint
from colobench.ui.base.markup import status_line
from colobench.ui.views.page_sets import PageSets


class CutSlider(ipywidgets.VBox):  # type: ignore[misc]
    """Shows one cut of a checkpoint, chosen by a slider.

    Parameters
    ----------
    torn
        Checkpoint with all of its cuts.
    """

    def __init__(self, torn: TornCheckpoint) -> None:
        self.torn = torn
        self.slider = ipywidgets.IntSlider(
            value=len(torn.cuts) // 2,
            max=len(torn.cuts) - 1,
            description="cut",
            readout=False,
            layout=ipywidgets.Layout(width="min(600px, 95%)"),
        )
        self.words = ipywidgets.HTML()
        self.map = PageSets(torn.ram_bytes, "RAM without a RAM cache", "the same in both")
        self.slider.observe(lambda _: self._show(), "value")
        super().__init__([self.slider, self.words, self.map])
        self._show()

    def __repr__(self) -> str:
        return f"<CutSlider of checkpoint {self.torn.checkpoint}>"

    @property
    def cut(self) -> Cut:
        """The cut that is shown."""
        cut: Cut = self.torn.cuts[self.slider.value]
        return cut

    def _show(self) -> None:
        cut, last = self.cut, self.torn.cuts[-1]
        number = self.torn.checkpoint
        came = f"{cut.bytes:,} of {last.bytes:,} bytes, {cut.pages:,} of {last.pages:,} pages"
        came += ": all of it, so it is committed" if cut.committed else " have come, then no more"
        self.words.value = (
            f'<div style="padding: 3px 0">{came}.</div>'
            f"{_line('With a RAM cache', cut.cached)}{_line('Without', cut.direct)}"
        )
        sets: dict[str, Any] = {
            f"of checkpoint {number}": cut.arrived,
            f"still of checkpoint {number - 1}": last.arrived & ~cut.arrived,
        }
        self.map.show(sets)


def _line(what: str, checkpoint: int | None) -> str:
    colour = BAD_COLOUR if checkpoint is None else GOOD_COLOUR
    whose = "of no checkpoint at all" if checkpoint is None else f"that of checkpoint {checkpoint}"
    return status_line(colour, f"{what}, RAM is {whose}.")
