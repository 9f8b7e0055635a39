"""Strategies as texts: the name of a preset, and changes of its axes."""

from __future__ import annotations

from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import check_choice, show
from colobench.fields.part import settings_of
from colobench.settings.checkpoint import Strategy
from colobench.settings.own_trigger import is_asked
from colobench.strategy.presets import PRESETS
from colobench.strategy.written import read_setting

_AXES = {each.name: each for each in settings_of(Strategy)}


def preset(name: str) -> Strategy:
    """Give the preset of this name, one of `PRESETS`.

    Raises
    ------
    LocalError
        If there is none.
    """
    return Strategy().override(**PRESETS[check_choice("strategy", name, list(PRESETS))].axes)


def make_strategy(found: object) -> Strategy:
    """Read a strategy such as ``colo,transport=memfd``; a `Strategy` is given back as it is.

    A trigger, also of a user's own class, is the strategy with this trigger and usual other axes.
    Behind the name of a preset, ``axis=value`` changes an axis. What begins with no axis's name
    goes on with the value before it: ``colo_v12,trigger=output:maximum=5,layout=buffered``.

    Raises
    ------
    LocalError
        If it is anything else, or its axes do not go together.
    """
    if isinstance(found, Strategy):
        return found
    if is_asked(found):
        return Strategy().override(trigger=found)
    if not isinstance(found, str):
        raise LocalError(f"strategy: expected a Strategy or a text, found {show(found)}")
    name, *items = map(str.strip, found.split(","))
    chosen, texts, last = preset(name), {}, ""
    for item in items:
        axis, equals, value = item.partition("=")
        if axis in texts:
            raise LocalError(f"strategy {name}: expected each axis once, found {axis} twice")
        if equals and axis in _AXES:
            texts[axis], last = value, axis
        elif last:
            texts[last] += f",{item}"
        else:
            names = ", ".join(_AXES)
            raise LocalError(f"strategy {name}: expected axis=value of {names}, found {show(item)}")
    try:
        changes: dict[str, Any] = {axis: read_setting(_AXES[axis], texts[axis]) for axis in texts}
        return chosen.override(**changes)
    except LocalError as error:
        raise LocalError(f"strategy {name}: {error}") from error
