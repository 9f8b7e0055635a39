"""Cells of a comparison: each is a strategy on a guest over a link, with whole settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from colobench.errors import LocalError
from colobench.fields.checks import show
from colobench.fields.part import settings_of
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.lab.session.places import check_memory, identify_trace
from colobench.lab.session.record import check_all_are_kept
from colobench.lab.session.serving import serving_settings
from colobench.settings.checkpoint import Strategy
from colobench.settings.settings import Settings
from colobench.settings.strategy import make_strategy
from colobench.strategy.own import OwnTrigger
from colobench.strategy.written import read_setting

#: A strategy as users give it: a text such as ``colo_v12,delay=20``, a value, or a trigger of their
#: own, which is an instance of a class with a method ``ask``; the other axes are as usual then.
GivenStrategy: TypeAlias = str | Strategy | Any
_C = TypeVar("_C")
#: Settings that strategies decide on.
AXES = tuple(each.name for each in settings_of(Strategy))

#: Strategies that are compared if nobody names others.
USUAL_STRATEGIES = ("colo_v12", "multifd", "memfd")
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
        make_cell(strategy, guest, link, usual)
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


def in_rounds(cells: Sequence[_C], rounds: int) -> Iterator[tuple[int, _C]]:
    """Give each cell once a round, every other round in the opposite order.

    So a machine that grows slower meanwhile slows down all of them.
    """
    for number in range(1, rounds + 1):
        for cell in cells if number % 2 else reversed(cells):
            yield number, cell


def make_cell(
    strategy: GivenStrategy,
    guest: str,
    link: str,
    usual: Settings,
    changes: Mapping[str, Any] | None = None,
) -> Cell:
    """Make a cell, and check it; `changes` go before what strategy and guest say.

    Raises
    ------
    LocalError
        If a text is not understood, or settings do not go together.
    """
    name = name_of(strategy)
    try:
        # A delay or a trigger takes the place of both, so changes of axes are the strategy's.
        of_axes = {each: value for each, value in (changes or {}).items() if each in AXES}
        others = {each: value for each, value in (changes or {}).items() if each not in AXES}
        of_strategy = make_strategy(strategy).override(**of_axes).changes()
        of_link = {"link": link} if link else {}
        settings = usual.override(**{**read_guest(guest), **of_strategy, **of_link, **others})
        settings = let_clients_in(settings)
        check_all_are_kept(settings)
        check_memory(settings)
        # Its digest is in each result, so that those of another file are told apart.
        settings = identify_trace(settings)
    except LocalError as error:
        raise LocalError(f"{name} on {guest}: {error}") from error
    return Cell(name, guest, link, settings)


def let_clients_in(settings: Settings) -> Settings:
    """Let clients reach a guest that serves, also before it is protected."""
    if settings.guest.program is not Program.KV:
        return settings
    hostfwd = settings.network.hostfwd or serving_settings().network.hostfwd
    return settings.override(hostfwd=hostfwd, serve_unprotected=True)


def name_of(given: GivenStrategy) -> str:
    """Name a strategy by its text; a value by the axes that differ from the usual ones.

    A user's own trigger is named by its class, and by the attributes of its instance.
    """
    if isinstance(given, str):
        return given
    strategy = make_strategy(given)
    usual, own = Strategy().as_json(), strategy.trigger
    changed = {name: each for name, each in strategy.as_json().items() if each != usual[name]}
    if isinstance(own, OwnTrigger):
        # The longest time is the trigger's.
        named = {name: each for name, each in changed.items() if name not in ("trigger", "delay")}
        return ",".join([own.label, *(f"{name}={each}" for name, each in named.items())])
    return ",".join(f"{name}={each}" for name, each in changed.items()) or "usual"


def read_guest(text: str) -> dict[str, Any]:
    """Give the settings of a guest: a program, and behind commas settings such as ``ram=16M``.

    Raises
    ------
    LocalError
        If the text is not understood.
    """
    program, comma, rest = text.partition(",")
    found: dict[str, Any] = {"guest": program}
    for name, value in _guest_settings(rest) if comma else ():
        if name in found:
            raise LocalError(f"guest {program}: expected each setting once, found {name} twice")
        found[name] = value
    return found


def _guest_settings(text: str) -> Iterator[tuple[str, Any]]:
    known = {each.name: each for each in settings_of(GuestSettings)}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not equals or name not in known:
            names = ", ".join(f"{each}=" for each in known)
            raise LocalError(f"guest: expected {names}, found {show(item)}")
        yield name, read_setting(known[name], value)
