"""Settings as keywords of a class: its signature and its docstring, for notebooks."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from colobench.fields.part import Part, names_of_parts, settings_of

T = TypeVar("T")


def takes_settings(usual: Part, *more: str) -> Callable[[type[T]], type[T]]:
    """Show ``settings`` and each setting as keywords of a class, in its help and completion.

    Parameters
    ----------
    usual
        Default settings. In the docstring their descriptions replace the line ``{settings}``.
    more
        Further keywords, whose default is None.
    """

    def decorate(decorated: type[T]) -> type[T]:
        values = dict.fromkeys(more) | usual.values()
        values |= dict.fromkeys(names_of_parts(type(usual)), inspect.Parameter.empty)
        own = inspect.Parameter("settings", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
            for name, value in values.items()
        ]
        signed: Any = decorated
        signed.__signature__ = inspect.Signature([own, *parameters])
        decorated.__doc__ = (decorated.__doc__ or "").replace("    {settings}\n", _words(usual))
        return decorated

    return decorate


def _words(usual: Part) -> str:
    """Write the settings as numpydoc parameters, indented as in a class's docstring."""
    lines = []
    shown = usual.as_json()
    for each in settings_of(type(usual)):
        words = f"{each.help[0].upper()}{each.help[1:]}; usually {shown[each.name]!r}."
        lines.append(f"    {each.name}\n")
        lines += [f"        {line}\n" for line in textwrap.wrap(words, 88, break_on_hyphens=False)]
    return "".join(lines)
