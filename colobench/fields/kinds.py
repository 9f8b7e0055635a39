"""Kinds of settings: range of values, and their form in JSON and on a command line."""

from __future__ import annotations

import enum
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

#: Largest number of choices that a help text lists as {one,another}.
_FEW = 5


class Kind(ABC):
    """Base class of all kinds.

    Attributes
    ----------
    or_none
        Whether None is accepted, too.
    """

    or_none: bool = False

    def check(self, name: str, value: Any) -> Any:
        """Check a value from Python or JSON, and return the setting's value.

        Raises
        ------
        LocalError
            If the value is not of this kind; the message begins with `name`.
        """
        if value is None and self.or_none:
            return None
        return self._check(name, value)

    @abstractmethod
    def _check(self, name: str, value: Any) -> Any: ...

    def to_json(self, value: Any) -> Any:
        """Return the value's form in JSON, which `check` turns into the same value."""
        return value

    def to_agree(self, value: Any) -> Any:
        """Return the form in JSON of that in the value on which both nodes of a pair must agree."""
        return self.to_json(value)

    def from_text(self, text: str) -> Any:
        """Parse the text of an option; return a value for `check`.

        Raises
        ------
        LocalError
            If the text is not the form of a value of this kind.
        """
        return text

    @property
    @abstractmethod
    def metavar(self) -> str:
        """Placeholder of a value in the help of a command line."""


@dataclass(frozen=True)
class Integer(Kind):
    """Whole number from `low` to `high`, in `unit`; `expected` replaces the range in errors."""

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
        """Unit in ASCII, or N."""
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
        """Placeholder of the text."""
        return "SIZE"


@dataclass(frozen=True)
class Number(Kind):
    """A number from `low` to `high`, of seconds unless `unit` is another or empty."""

    low: float
    high: float
    unit: str = "s"

    def _check(self, name: str, value: Any) -> float:
        return check_number(name, value, self.low, self.high, unit=self.unit)

    def from_text(self, text: str) -> float:
        """Read a number as Python writes it."""
        try:
            return float(text)
        except ValueError:
            of = " of seconds" if self.unit == "s" else ""
            raise LocalError(f"expected a number{of}, found {show(text)}") from None

    @property
    def metavar(self) -> str:
        """The unit."""
        return "SECONDS" if self.unit == "s" else self.unit.upper() or "NUMBER"


class Flag(Kind):
    """Setting that is on or off."""

    def _check(self, name: str, value: Any) -> bool:
        return check_flag(name, value)

    @property
    def metavar(self) -> str:
        """None, as the options are ``--name`` and ``--no-name``."""
        return ""


@dataclass(frozen=True)
class Choice(Kind):
    """One of the values of `choices`, written as its key; `aliases` has other names for some."""

    choices: Mapping[str, Any]
    or_none: bool = False
    aliases: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_names(cls, *names: str) -> Choice:
        """Make a choice between names that are also the values."""
        return cls({name: name for name in names})

    @classmethod
    def of_members(cls, enumeration: type[enum.Enum], *, or_none: bool = False) -> Choice:
        """Make a choice between the members of an enumeration, written as their values."""
        return cls({member.value: member for member in enumeration}, or_none)

    def _check(self, name: str, value: Any) -> Any:
        if not isinstance(value, str) and any(value is each for each in self.choices.values()):
            return value
        if isinstance(value, str) and value in self.aliases:
            return self.aliases[value]
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
    """Value with a form as text.

    Parameters
    ----------
    type
        Type of the values.
    parse
        Function that turns a text, or anything else that users may pass, into a value; raises
        LocalError.
    write
        Function that writes a value as text, so that `parse` returns the same value.
    placeholder
        Placeholder of a value in the help of a command line.
    known
        Texts of values that a form lists.
    closed
        Whether every value is among `known`.
    """

    type: type
    parse: Callable[[Any], Any]
    write: Callable[[Any], Any] = str
    placeholder: str = "NAME"
    or_none: bool = False
    known: tuple[str, ...] = ()
    closed: bool = False

    def _check(self, name: str, value: Any) -> Any:
        return value if isinstance(value, self.type) else self.parse(value)

    def to_json(self, value: Any) -> Any:
        """Write the value."""
        return self.write(value)

    @property
    def metavar(self) -> str:
        """The placeholder."""
        return self.placeholder


class File(Kind):
    """Path of a file, or None; the file itself is not checked."""

    or_none = True

    def _check(self, name: str, value: Any) -> str:
        return check_path(name, value)

    def from_text(self, text: str) -> str:
        """Make the path absolute, as other processes may have another current directory."""
        return os.path.abspath(text)

    @property
    def metavar(self) -> str:
        """Placeholder of the path."""
        return "FILE"


class Directory(File):
    """Path of a directory, or None; the directory itself is not checked."""

    @property
    def metavar(self) -> str:
        """Placeholder of the path."""
        return "DIR"


@dataclass(frozen=True)
class Texts(Kind):
    """List of texts; a single text stands for a list with one element.

    Parameters
    ----------
    check_each
        Function that raises LocalError for a text that is not accepted.
    placeholder
        Placeholder of a text in the help of a command line.
    known
        Texts that a form suggests.
    """

    check_each: Callable[[str], object]
    placeholder: str
    known: tuple[str, ...] = ()

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
