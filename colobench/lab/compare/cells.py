"""Cells of a comparison: each is a strategy on a guest over a link, with whole settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from colobench.errors import LocalError
from colobench.fields.checks import show
from colobench.fields.command_line import NONE
from colobench.fields.part import Part, settings_of
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.lab.session.places import check_memory
from colobench.lab.session.serving import serving_settings
from colobench.settings.checkpoint import CheckpointSettings, Strategy
from colobench.settings.settings import Settings

#: A strategy as users give it: a text, a value, or settings by name.
GivenStrategy: TypeAlias = str | Strategy | Mapping[str, Any]

#: Strategies that are compared if nobody names others.
USUAL_STRATEGIES = ("transport=stream", "transport=multifd", "transport=memfd")
USUAL_GUESTS = (Program.HOTCOLD.label,)


@dataclass(frozen=True, slots=True)
class Cell:
    """A strategy on a guest over a link.

    Attributes
    ----------
    strategy, guest, link
        Names, as the user gave them; the link's is empty if none was given.
    settings
        Settings of the pair, whole.
    """

    strategy: str
    guest: str
    link: str
    settings: Settings

    @property
    def key(self) -> tuple[str, str, str]:
        """Strategy, guest and link."""
        return self.strategy, self.guest, self.link

    @property
    def serves(self) -> bool:
        """Whether clients can ask this guest."""
        return self.settings.guest.program is Program.KV

    def __str__(self) -> str:
        return f"{self.strategy} on {self.guest}" + (f" over {self.link}" if self.link else "")


def make_cells(
    strategies: Sequence[GivenStrategy],
    guests: Sequence[str],
    links: Sequence[str],
    usual: Settings,
) -> list[Cell]:
    """Make a cell of each strategy on each guest over each link, and check all of them.

    Parameters
    ----------
    strategies
        At least one; two have different names.
    guests
        Programs, behind commas with settings, such as ``hotcold,writes_per_tick=200``.
    links
        Values of the setting ``link``; none leaves it as in `usual`.
    usual
        Settings where strategy, guest and link say nothing else.

    Raises
    ------
    LocalError
        If a text is not understood, settings do not go together, or a cell comes twice.
    """
    cells = [
        _make_cell(strategy, guest, link, usual)
        for guest, link, strategy in itertools.product(guests, links or ("",), strategies)
    ]
    if not cells:
        raise LocalError("compare: expected at least one strategy and one guest, found none")
    seen: set[tuple[str, str, str]] = set()
    for cell in cells:
        if cell.key in seen:
            raise LocalError(f"compare: expected each cell once, found {cell} twice")
        seen.add(cell.key)
    return cells


def in_rounds(cells: Sequence[Cell], rounds: int) -> Iterator[tuple[int, Cell]]:
    """Give each cell once a round, every other round in the opposite order.

    So a machine that grows slower meanwhile slows down all of them.
    """
    for number in range(1, rounds + 1):
        for cell in cells if number % 2 else reversed(cells):
            yield number, cell


def _make_cell(strategy: GivenStrategy, guest: str, link: str, usual: Settings) -> Cell:
    name = strategy if isinstance(strategy, str) else read_strategy(strategy)[0]
    try:
        changes = read_strategy(strategy)[1]
        settings = usual.override(**read_guest(guest))
        settings = settings.override(**changes | ({"link": link} if link else {}))
        if settings.guest.program is Program.KV:
            settings = _serving(settings)
        check_memory(settings)
    except LocalError as error:
        raise LocalError(f"compare: {name} on {guest}: {error}") from error
    return Cell(name, guest, link, settings)


def _serving(settings: Settings) -> Settings:
    """Let clients reach the guest, also before it is protected."""
    hostfwd = settings.network.hostfwd or serving_settings().network.hostfwd
    return settings.override(hostfwd=hostfwd, serve_unprotected=True)


def read_strategy(given: GivenStrategy) -> tuple[str, dict[str, Any]]:
    """Give the name of a strategy, and its settings by their names.

    Raises
    ------
    LocalError
        If a text is not understood.
    """
    if isinstance(given, Strategy):
        found = given.as_json()
        usual = Strategy().as_json()
        return _named({key: each for key, each in found.items() if each != usual[key]}), found
    if isinstance(given, Mapping):
        return _named(given), dict(given)
    return given, read_changes(given, CheckpointSettings)


def read_guest(text: str) -> dict[str, Any]:
    """Give the settings of a guest: a program, and behind commas settings such as ``ram=16M``.

    Raises
    ------
    LocalError
        If the text is not understood.
    """
    program, comma, rest = text.partition(",")
    return {"guest": program, **(read_changes(rest, GuestSettings) if comma else {})}


def read_changes(text: str, kind: type[Part]) -> dict[str, Any]:
    """Read settings of a part, written as ``name=value`` with commas in between.

    A value may have commas itself: an item that names no setting belongs to the one before.

    Raises
    ------
    LocalError
        If a name is unknown, or a value is not written as it should be.
    """
    known = {each.name: each for each in settings_of(kind)}
    items: list[tuple[str, str]] = []
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if equals and name in known:
            items.append((name, value))
        elif items:
            items[-1] = (items[-1][0], f"{items[-1][1]},{item}")
        else:
            names = ", ".join(list(known)[:4])
            raise LocalError(f"expected settings such as {names}=…, found {show(text)}")
    found: dict[str, Any] = {}
    for name, value in items:
        each = known[name]
        try:
            found[name] = None if value == NONE and each.or_none else each.kind.from_text(value)
        except LocalError as error:
            raise LocalError(f"{name}: {error}") from error
    return found


def _named(changes: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={each}" for name, each in changes.items()) or "usual"
