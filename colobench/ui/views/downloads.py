"""A link that saves a file which the kernel has made."""

from __future__ import annotations

from colobench.ui.base.feed import LiveView, read_module


class Downloads(LiveView):
    """Shows a link to the last file that was put in."""

    _esm = read_module("downloads.js")

    def __init__(self) -> None:
        super().__init__()
        # A file may be large, and its bytes are those that live views lack.
        self.feed.repeats = False

    def put(self, name: str, data: bytes, type: str) -> None:
        """Offer a file.

        Parameters
        ----------
        name
            Name of the file.
        data
            Its contents.
        type
            Its media type, such as ``text/csv``.
        """
        self.feed.put({"name": name, "type": type}, data)
