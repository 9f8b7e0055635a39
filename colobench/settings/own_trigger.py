"""Triggers as users give them: a text, or an instance of a class of their own, with its source."""

from __future__ import annotations

import ast
import json
import linecache
import textwrap
from collections.abc import Iterable
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import show
from colobench.strategy.own import OwnTrigger
from colobench.strategy.trigger import Trigger
from colobench.strategy.written import TRIGGERS, parse_trigger, write_trigger


def make_trigger(found: object) -> Trigger:
    """Make a trigger of a text, of its JSON, or of an instance of a user's class.

    Such a class has a method ``ask(seen)``, see `colobench.node.own_trigger`. Its source alone goes
    to the node, so it imports what it uses; its instance's attributes go as JSON.

    Raises
    ------
    LocalError
        If it is none of these, or the source or an attribute cannot be had.
    """
    if isinstance(found, dict):
        return OwnTrigger.read(found)
    return _own_trigger(found) if is_asked(found) else parse_trigger(found)


def is_asked(found: object) -> bool:
    """Say whether a value has the method of triggers, those of users included."""
    return callable(getattr(type(found), "ask", None))


def check_can_travel(trigger: Trigger) -> None:
    """Refuse, with LocalError, a class derived from a trigger: a node would run the one above it.

    A node gets the name and the parameters of a trigger, or a user's source.
    """
    kind = type(trigger)
    if kind not in (*TRIGGERS.values(), OwnTrigger):
        bases = ", ".join(each.__name__ for each in kind.__bases__)
        raise LocalError(
            f"trigger {kind.__name__}: expected one of {', '.join(TRIGGERS)}, or an object of a "
            f"class with a method ask(seen), found one derived from {bases}"
        )


def trigger_as_json(trigger: Trigger) -> Any:
    """Give what JSON has of a trigger: a text, or an object for a user's own."""
    return trigger.written() if isinstance(trigger, OwnTrigger) else write_trigger(trigger)


def _own_trigger(instance: Any) -> OwnTrigger:
    kind = type(instance)
    try:
        state = json.dumps(vars(instance))
        _check_keys(vars(instance).values())
    except (TypeError, ValueError) as error:
        raise LocalError(
            f"trigger {kind.__name__}: expected attributes that JSON has, found {error}"
        ) from error
    code = getattr(kind.ask, "__code__", None)
    file = code.co_filename if code is not None else ""
    # A module that was edited and loaded again has other lines than at the first look.
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    for node in ast.walk(_parse(kind.__name__, lines)):
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__ and code is not None:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first <= code.co_firstlineno <= (node.end_lineno or 0):
                return OwnTrigger(
                    name=kind.__name__,
                    code=textwrap.dedent("".join(lines[first - 1 : node.end_lineno])),
                    file=file,
                    line=first,
                    state=state,
                    needed=getattr(instance, "needs", ()),
                    maximum=getattr(instance, "maximum", 1000),
                )
    raise _no_source(kind.__name__, f"none in {show(file)}")


def _check_keys(values: Iterable[Any]) -> None:
    """Refuse, with TypeError, keys of which JSON would make texts."""
    for value in values:
        if isinstance(value, dict):
            wrong = [key for key in value if not isinstance(key, str)]
            if wrong:
                raise TypeError(f"the key {show(wrong[0])}, which is no text")
            _check_keys(value.values())
        elif isinstance(value, list | tuple):
            _check_keys(value)


def _parse(name: str, lines: list[str]) -> ast.Module:
    try:
        return ast.parse("".join(lines))
    except SyntaxError as error:
        raise _no_source(name, str(error)) from error


def _no_source(name: str, found: str) -> LocalError:
    return LocalError(f"trigger {name}: expected the source of its class, found {found}")
