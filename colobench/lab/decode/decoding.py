"""Result of `colobench.decode`: a decoded stream that shows itself in a notebook."""

from __future__ import annotations

from colobench.lab.decode.text import render
from colobench.wire.decoded import DecodedStream


class Decoding(DecodedStream):
    """A decoded stream; its text is that of ``colobench decode``."""

    def __repr__(self) -> str:
        return render(self)

    def _repr_html_(self) -> str:
        from colobench.lab.decode.page import render_fragment

        return render_fragment(self)
