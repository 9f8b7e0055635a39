"""Libraries that a verb needs, and that a user may not have installed."""

from __future__ import annotations

from importlib.util import find_spec

from colobench.errors import LocalError


def require_bokeh(what: str) -> None:
    """Refuse, with LocalError, to make `what` without bokeh."""
    if find_spec("bokeh") is None:
        raise LocalError(
            f"{what} needs bokeh, which is not installed: pip install 'colobench[lab]'"
        )
