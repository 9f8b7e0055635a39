"""Kinds of settings: what a value may be, and how it is written in JSON and on a command line."""

from __future__ import annotations

import enum
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from colobench.errors import LocalError
from colobench.fields.checks import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_path,
    check_texts,
    show,
)
from colobench.fields.sizes import parse_size, write_size

#: A help text shows at most so many choices as {one,another}.
_FEW = 5


class Kind(ABC):
    """A kind of values.

    Attributes
    ----------
    or_none
        Whether None is a value, too.
    """

    or_none: bool = False

    def check(self, name: str, value: Any) -> Any:
        """Give the setting's value for one that is written in Python, or as JSON has it.

        Raises
        ------
        LocalError
            If it is none of this kind; the error begins with `name`.
        """
        if value is None and self.or_none:
            return None
        return self._check(name, value)

    @abstractmethod
    def _check(self, name: str, value: Any) -> Any: ...

    def to_json(self, value: Any) -> Any:
        """Give what JSON has of a value; `check` makes the same value of it."""
        return value

    def from_text(self, text: str) -> Any:
        """Read what a command line has of a value; gives what `check` takes.

        Raises
        ------
        LocalError
            If the text is not written like a value of this kind.
        """
        return text

    @property
    @abstractmethod
    def metavar(self) -> str:
        """What stands for a value in the help of a command line."""


@dataclass(frozen=True)
class Integer(Kind):
    """A whole number from `low` to `high`, in `unit`; `expected` replaces the range in errors."""

    low: int
    high: int
    unit: str = ""
    expected: str = ""
    or_none: bool = False

    def _check(self, name: str, value: Any) -> int:
        return check_integer(
            name,
            value,
            self.low,
            self.high,
            unit=self.unit,
            expected=self.expected,
            or_none=self.or_none,
        )

    def from_text(self, text: str) -> int:
        """Read decimal digits."""
        if not re.fullmatch("-?[0-9]{1,20}", text):
            raise LocalError(f"expected a whole number, found {show(text)}")
        return int(text)

    @property
    def metavar(self) -> str:
        """The unit in ASCII, or N."""
        return {"µs": "US", "‰": "N"}.get(self.unit, self.unit.upper() or "N")


@dataclass(frozen=True)
class Size(Kind):
    """A number of bytes from `low` to `high`, or its text such as ``64M``."""

    low: int
    high: int

    def _check(self, name: str, value: Any) -> int:
        if isinstance(value, str):
            try:
                value = parse_size(value)
            except LocalError as error:
                raise LocalError(f"{name}: {error}") from error
        words = "a size such as 64M, or in bytes"
        return check_integer(name, value, self.low, self.high, expected=words)

    def to_json(self, value: int) -> str:
        """Write the size with the largest unit that it is a multiple of."""
        return write_size(value)

    @property
    def metavar(self) -> str:
        """Stands for the text."""
        return "SIZE"


@dataclass(frozen=True)
class Number(Kind):
    """A number of seconds, from `low` to `high`."""

    low: float
    high: float

    def _check(self, name: str, value: Any) -> float:
        return check_number(name, value, self.low, self.high, unit="s")

    def from_text(self, text: str) -> float:
        """Read a number as Python writes it."""
        try:
            return float(text)
        except ValueError:
            raise LocalError(f"expected a number of seconds, found {show(text)}") from None

    @property
    def metavar(self) -> str:
        """The unit."""
        return "SECONDS"


class Flag(Kind):
    """On or off."""

    def _check(self, name: str, value: Any) -> bool:
        return check_flag(name, value)

    @property
    def metavar(self) -> str:
        """Nothing: ``--name`` is on, ``--no-name`` is off."""
        return ""


@dataclass(frozen=True)
class Choice(Kind):
    """One of the values of `choices`, written by its name there."""

    choices: Mapping[str, Any]
    or_none: bool = False

    @classmethod
    def of_names(cls, *names: str) -> Choice:
        """Make a choice between names that are the values, too."""
        return cls({name: name for name in names})

    @classmethod
    def of_members(cls, enumeration: type[enum.Enum], *, or_none: bool = False) -> Choice:
        """Make a choice between the members of an enumeration, written as their values."""
        return cls({member.value: member for member in enumeration}, or_none)

    def _check(self, name: str, value: Any) -> Any:
        if not isinstance(value, str) and any(value is each for each in self.choices.values()):
            return value
        return self.choices[check_choice(name, value, list(self.choices))]

    def to_json(self, value: Any) -> str | None:
        """Give the value's name."""
        return next((name for name, each in self.choices.items() if each is value), None)

    @property
    def metavar(self) -> str:
        """The names, unless they are many."""
        return "{" + ",".join(self.choices) + "}" if len(self.choices) <= _FEW else "NAME"


@dataclass(frozen=True)
class Written(Kind):
    """A value that is written as a text.

    Parameters
    ----------
    type
        The type of the values.
    parse
        Makes a value of a text, or of anything else that users may write; raises LocalError.
    write
        Writes a value so that `parse` makes the same one of it.
    placeholder
        Stands for a value in the help of a command line.
    """

    type: type
    parse: Callable[[Any], Any]
    write: Callable[[Any], str] = str
    placeholder: str = "NAME"

    def _check(self, name: str, value: Any) -> Any:
        return value if isinstance(value, self.type) else self.parse(value)

    def to_json(self, value: Any) -> str:
        """Write the value."""
        return self.write(value)

    @property
    def metavar(self) -> str:
        """The placeholder."""
        return self.placeholder


class File(Kind):
    """The path of a file, or None; whether the file can be had is another matter."""

    or_none = True

    def _check(self, name: str, value: Any) -> str:
        return check_path(name, value)

    def from_text(self, text: str) -> str:
        """Make the path absolute, as other processes may have another current directory."""
        return os.path.abspath(text)

    @property
    def metavar(self) -> str:
        """Stands for the path."""
        return "FILE"


@dataclass(frozen=True)
class Texts(Kind):
    """A list of texts; a single text is a list of it alone.

    Parameters
    ----------
    check_each
        Raises LocalError for a text that may not be in the list.
    placeholder
        Stands for a text in the help of a command line.
    """

    check_each: Callable[[str], object]
    placeholder: str

    def _check(self, name: str, value: Any) -> tuple[str, ...]:
        texts = tuple(check_texts(name, value))
        for text in texts:
            self.check_each(text)
        return texts

    def to_json(self, value: Any) -> list[str]:
        """Give a list: JSON has no tuples."""
        return list(value)

    @property
    def metavar(self) -> str:
        """The placeholder."""
        return self.placeholder
