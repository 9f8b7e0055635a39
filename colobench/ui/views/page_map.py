"""A live map of the guest's pages that checkpoints send."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np

from colobench.lab.report.palette import PRIMARY_COLOUR, SECONDARY_COLOUR
from colobench.lab.session.session import Session
from colobench.memory.ram import lay_out
from colobench.ui.base.feed import LiveView, read_module
from colobench.ui.base.pump import frames

#: Factor by which a page that is not sent again fades with each checkpoint.
FADE = 0.85


def describe_blocks(sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """Describe the blocks of a guest's RAM, by their sizes, for the browser's side."""
    return [asdict(block) for block in lay_out(sizes)]


class PageMap(LiveView):
    """Shows every page of the guest, those of the last checkpoint bright, earlier ones fading.

    Parameters
    ----------
    session
        One with ``report_pages=True``; it need not be started.
    """

    _esm = read_module("pages.js", "page_map.js")

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self.watch(session)
        frames.add(self)

    def watch(self, session: Session) -> None:
        """Follow another session from now on."""
        blocks = describe_blocks(session.settings.guest.block_sizes())
        pages = max(block["first_page"] + block["pages"] for block in blocks)
        with self._lock:
            self._blocks, self._records, self._shown = blocks, session.records, 0
            self._heat = np.zeros(pages, dtype=np.float32)
            self._show(0, 0)

    def refresh(self) -> None:
        """Show the checkpoints since the last refresh in one frame."""
        with self._lock:
            self._follow()

    def _follow(self) -> None:
        total = self._records.total
        new = self._records.since(self._shown)
        if not new:
            return
        # Some may not be kept any more.
        passed = max(len(new), total - self._shown)
        self._shown += passed
        bitmaps = [np.frombuffer(record.dirty_bitmap or b"", "<u8") for record in new]
        before = reduce(np.bitwise_or, bitmaps[:-1], np.zeros_like(bitmaps[-1]))
        self._heat *= np.float32(FADE**passed)
        self._warm(before, FADE)
        self._warm(bitmaps[-1], 1.0)
        self._show(new[-1].number, new[-1].pages)

    def _warm(self, words: np.ndarray[Any, np.dtype[np.uint64]], heat: float) -> None:
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: len(self._heat)]
        self._heat[: len(bits)][bits == 1] = heat

    def _show(self, checkpoint: int, pages: int) -> None:
        frame = {
            "blocks": self._blocks,
            "checkpoint": checkpoint,
            "pages": pages,
            "bright": PRIMARY_COLOUR,
            "warm": SECONDARY_COLOUR,
        }
        # Only pages of the last checkpoint have full heat.
        heat = np.where(self._heat == 1, 255, np.minimum(255 * self._heat, 254))
        self.feed.put(frame, heat.astype(np.uint8).tobytes())

    def close(self) -> None:
        """Close the map."""
        frames.remove(self)
        super().close()
