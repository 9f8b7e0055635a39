"""A map of sets of pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import traitlets

from colobench.guest.settings import block_sizes
from colobench.kernels import bitmap
from colobench.lab.report.palette import PRIMARY_COLOUR, SECONDARY_COLOUR, TAKEOVER_COLOUR
from colobench.memory.tracker import Words
from colobench.ui.base.feed import LiveView, read_module
from colobench.ui.views.page_map import describe_blocks

#: The colours of the sets, in the order in which they are given.
COLOURS = (PRIMARY_COLOUR, SECONDARY_COLOUR, TAKEOVER_COLOUR)
HEIGHT = 150


class PageSets(LiveView):
    """Shows every page of a guest, in the colour of the first set that has it.

    Parameters
    ----------
    ram_bytes
        The guest's RAM.
    title, rest
        Heading, and the name of the pages that are in none of the sets.
    height
        Height of the squares, pixels.
    layout
        Layout of the widget, which cannot be changed later.

    Examples
    --------
    >>> ui.PageSets(session.settings.guest.ram_bytes).show({"received": cb.cached_pages(session)})
    """

    _esm = read_module("pages.js", "page_sets.js")
    _height = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        ram_bytes: int,
        title: str = "",
        rest: str = "others",
        height: int = HEIGHT,
        layout: Any = None,
    ) -> None:
        super().__init__(_height=height, **({"layout": layout} if layout is not None else {}))
        self._blocks = describe_blocks(block_sizes(ram_bytes))
        self._title, self._rest = title, rest
        self.show({})

    def __repr__(self) -> str:
        return f"<PageSets {self._title!r}>"

    def show(
        self,
        sets: Mapping[str, Words],
        title: str | None = None,
        colours: Sequence[str] = COLOURS,
    ) -> PageSets:
        """Show sets of pages.

        Each is a bitmap, uint64[pages / 64], with bit i of word w for page 64 w + i.

        Parameters
        ----------
        sets
            Bitmaps by name, no more than colours. A page of several has the first one's colour.
        title
            New heading; None keeps the old one.
        colours
            The sets' colours, such as ``#3377ee``.

        Returns
        -------
        PageSets
            This view.
        """
        if title is not None:
            self._title = title
        chosen = [
            # A copy: kernels are compiled for writable arrays alone.
            (name, colour, words.astype(np.uint64))
            for colour, (name, words) in zip(colours, sets.items(), strict=False)
        ]
        frame = {
            "blocks": self._blocks,
            "title": self._title,
            "rest": self._rest,
            "sets": [
                {
                    "name": name,
                    "colour": colour,
                    "pages": int(bitmap.popcount(words)),
                    "bytes": words.nbytes,
                }
                for name, colour, words in chosen
            ],
        }
        self.feed.put(frame, b"".join(words.astype("<u8").tobytes() for *_, words in chosen))
        return self
