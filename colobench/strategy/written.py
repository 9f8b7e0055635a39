"""Triggers as texts: ``degradation:target=0.1,minimum=10,maximum=1000``."""

from __future__ import annotations

from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import check_choice, show
from colobench.fields.part import Part, Setting, settings_of
from colobench.strategy.hybrid import Hybrid
from colobench.strategy.trigger import Trigger
from colobench.strategy.triggers import (
    Degradation,
    DirtyVolume,
    FixedDelay,
    OnMiscompare,
    OnOutput,
    PriceOfWaiting,
)

TRIGGERS: dict[str, type[Trigger]] = {
    each.kind: each
    for each in (
        FixedDelay,
        OnMiscompare,
        OnOutput,
        Degradation,
        DirtyVolume,
        Hybrid,
        PriceOfWaiting,
    )
}
#: Stands for None.
_NONE = "none"


def parse_trigger(text: object) -> Trigger:
    """Read a trigger: its name, and behind a colon its parameters, as ``name=value`` with commas.

    Parameters that are left out have their defaults.

    Raises
    ------
    LocalError
        If it is anything else; the error names the trigger and the parameter.
    """
    if not isinstance(text, str):
        raise LocalError(f"trigger: expected a text such as fixed:ms=100, found {show(text)}")
    name, _, rest = text.partition(":")
    kind = TRIGGERS[check_choice("trigger", name, list(TRIGGERS))]
    try:
        return kind(**parse_parameters(kind, rest))
    except LocalError as error:
        raise LocalError(f"trigger {name}: {error}") from error


def write_trigger(trigger: Trigger) -> str:
    """Write a trigger with all of its parameters, so that `parse_trigger` makes the same one."""
    return f"{trigger.kind}:{write_parameters(trigger)}"


def parse_parameters(kind: type[Part], text: str) -> dict[str, Any]:
    """Read ``name=value`` with commas in between, each a setting of a part.

    Raises
    ------
    LocalError
        If a name is unknown, or comes twice, or a value is not written as its kind is.
    """
    known = {each.name: each for each in settings_of(kind)}
    found: dict[str, Any] = {}
    for item in text.split(",") if text else ():
        name, equals, value = item.partition("=")
        if not equals or name not in known or name in found:
            names = ", ".join(f"{each}=" for each in known)
            raise LocalError(f"expected {names} each at most once, found {show(item)}")
        found[name] = read_setting(known[name], value)
    return found


def write_parameters(part: Part) -> str:
    """Write all settings of a part, so that `parse_parameters` reads the same."""
    values = part.as_json()
    return ",".join(f"{name}={_NONE if value is None else value}" for name, value in values.items())


def read_setting(each: Setting, text: str) -> Any:
    """Read the value of a setting as on a command line; ``none`` is None where there may be none.

    Raises
    ------
    LocalError
        If it is not written as its kind is; the error begins with the setting's name.
    """
    if text == _NONE and each.or_none:
        return None
    try:
        return each.kind.from_text(text)
    except LocalError as error:
        raise LocalError(f"{each.name}: {error}") from error
