"""A map of sets of pages: which page is in which of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import anywidget
import numpy as np
import traitlets

from colobench.guest.machine import block_sizes
from colobench.kernels import bitmap
from colobench.lab.report import PRIMARY_COLOUR, SECONDARY_COLOUR, TAKEOVER_COLOUR
from colobench.memory.ram import lay_out
from colobench.memory.tracker import Words
from colobench.ui.page_map import read_module

#: The colours of the sets, in the order in which they are given.
COLOURS = (PRIMARY_COLOUR, SECONDARY_COLOUR, TAKEOVER_COLOUR)
HEIGHT = 150


class PageSets(anywidget.AnyWidget):
    """Shows every page of a guest, in the colour of the first set that has it.

    Parameters
    ----------
    ram_bytes
        The guest's RAM.
    title, rest
        What it shows, and what the pages are that are in none of the sets.
    height
        Pixels that the squares may take.

    Examples
    --------
    >>> ui.PageSets(session.guest.ram_bytes).show({"received": cb.cached_pages(session)})
    """

    _esm = read_module("page_sets.js")
    _blocks: Any = traitlets.List().tag(sync=True)
    _sets: Any = traitlets.List().tag(sync=True)
    _title = traitlets.Unicode().tag(sync=True)
    _rest = traitlets.Unicode().tag(sync=True)
    _height = traitlets.Int().tag(sync=True)

    def __init__(
        self, ram_bytes: int, title: str = "", rest: str = "others", height: int = HEIGHT
    ) -> None:
        blocks = [asdict(block) for block in lay_out(block_sizes(ram_bytes))]
        super().__init__(_blocks=blocks, _title=title, _rest=rest, _height=height)

    def __repr__(self) -> str:
        return f"<PageSets {self._title!r}>"

    def show(
        self,
        sets: Mapping[str, Words],
        title: str | None = None,
        colours: Sequence[str] = COLOURS,
    ) -> PageSets:
        """Show these sets: name → uint64[pages / 64], bit i of word w for page 64 w + i.

        Parameters
        ----------
        sets
            No more than colours; a page that is in several has the first one's colour.
        title
            What is shown, unless it is what it was.
        colours
            The sets' colours, such as ``#4a86d8``.

        Returns
        -------
        PageSets
            Itself.
        """
        with self.hold_sync():
            if title is not None:
                self._title = title
            self._sets = [
                {
                    "name": name,
                    "colour": _rgba(colour),
                    # A copy, for kernels are compiled for arrays that can be written alone.
                    "pages": int(bitmap.popcount(words.astype(np.uint64))),
                    "bitmap": words.astype("<u8").tobytes(),
                }
                for colour, (name, words) in zip(colours, sets.items(), strict=False)
            ]
        return self


def _rgba(colour: str) -> list[int]:
    """Give a colour such as #4a86d8 as red, green, blue and alpha, each up to 255."""
    return [*bytes.fromhex(colour[1:]), 255]
