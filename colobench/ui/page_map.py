"""A map of the guest's pages: which of them the checkpoints send."""

from __future__ import annotations

from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from colobench.guest.machine import block_sizes
from colobench.lab.session import Session
from colobench.memory.ram import lay_out
from colobench.ui.pump import frames

#: A page that is not sent again fades by this factor with each checkpoint.
FADE = 0.85


def read_module(name: str) -> str:
    """Give the browser's side of a map of pages, with what all maps share."""
    directory = Path(__file__).parent
    return (directory / "pages.js").read_text() + (directory / name).read_text()


class PageMap(anywidget.AnyWidget):
    """Shows every page of the guest, those of the last checkpoint bright, earlier ones fading.

    Parameters
    ----------
    session
        One with ``report_pages=True``; it need not be started.
    """

    _esm = read_module("page_map.js")
    _blocks: Any = traitlets.List().tag(sync=True)
    _frame: Any = traitlets.Dict().tag(sync=True)

    def __init__(self, session: Session) -> None:
        super().__init__(**self._begin(session))
        frames.add(self)

    def watch(self, session: Session) -> None:
        """Follow another session from now on."""
        with self.hold_sync():
            for trait, value in self._begin(session).items():
                setattr(self, trait, value)

    def _begin(self, session: Session) -> dict[str, object]:
        self._records, self._shown = session.records, 0
        nothing = {"number": 0, "pages": 0, "fade": 0.0, "before": b"", "last": b""}
        return {
            "_blocks": [asdict(block) for block in lay_out(block_sizes(session.guest.ram_bytes))],
            "_frame": nothing,
        }

    def refresh(self) -> None:
        """Show the checkpoints since the last time, in one frame."""
        new = self._records[self._shown :]
        if not new:
            return
        self._shown += len(new)
        bitmaps = [np.frombuffer(record.dirty_bitmap or b"", "<u8") for record in new]
        before = reduce(np.bitwise_or, bitmaps[:-1], np.zeros_like(bitmaps[-1]))
        self._frame = {
            "number": new[-1].number,
            "pages": new[-1].pages,
            "fade": FADE ** len(new),
            "before": before.tobytes(),
            "last": bitmaps[-1].tobytes(),
        }

    def close(self) -> None:
        """Follow no more, and vanish."""
        frames.remove(self)
        super().close()
