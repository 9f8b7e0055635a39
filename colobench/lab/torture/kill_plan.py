"""Seeded plans of kills."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.node.breakpoints import COPY_POINTS, PRIMARY_POINTS, SECONDARY_POINTS
from colobench.settings.transport import PageTransport, Transport

#: Ways of output: held until the checkpoint is committed, or compared with the secondary's.
OUTPUTS = ("buffer", "compare")
SIDES = ("primary", "secondary")
TRANSPORTS = tuple(each.value for each in PageTransport)
#: Points at which a node can be held, by side; None is a random moment.
POINTS: Mapping[str, tuple[str | None, ...]] = {
    "primary": (*PRIMARY_POINTS, None),
    "secondary": SECONDARY_POINTS,
}
#: The same where checkpoints are copied, and sent while the guest runs.
POINTS_OF_COPIES: Mapping[str, tuple[str | None, ...]] = {
    "primary": (*PRIMARY_POINTS, *COPY_POINTS, None),
    "secondary": SECONDARY_POINTS,
}
#: The longest delay of a kill at a random moment, in milliseconds.
DELAY_MS = 100.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes
    ----------
    number
        0 for the first of the plan.
    seed
        Seed of this kill's guest and clients.
    transport
        As ``colobench.settings.transport.Transport`` reads it.
    output
        One of `OUTPUTS`.
    victim
        ``primary`` or ``secondary``: the node that gets SIGKILL.
    holder
        Node that is held, the victim or its peer; None if `point` is.
    point
        Point at which the holder stands when the victim is killed; None for a random moment.
    delay_ms
        Delay of a kill at a random moment after the clients' first answers; None if there is a
        `point`.
    """

    number: int
    seed: int
    transport: str
    output: str
    victim: str
    holder: str | None
    point: str | None
    delay_ms: float | None

    @property
    def combination(self) -> tuple[str, str, str, str, str]:
        """Transport, output, victim, holder and point; those of a random moment are ``random``."""
        holder, point = self.holder or "random", self.point or "random"
        return self.transport, self.output, self.victim, holder, point


_Combination = tuple[str, str, str, str | None, str | None]


def combinations(
    transports: Sequence[str] = TRANSPORTS,
    outputs: Sequence[str] = OUTPUTS,
    victims: Sequence[str] = SIDES,
    points: Mapping[str, Sequence[str | None]] = POINTS,
) -> list[_Combination]:
    """Give all combinations of transport, output, victim, holder and point.

    Raises
    ------
    LocalError
        If a name is unknown, or there is no combination.
    """
    for each in transports:
        Transport.parse(each)
    _check("output", outputs, OUTPUTS)
    _check("victim", victims, SIDES)
    _check("holder", points, SIDES)
    places: list[tuple[str | None, str | None]] = []
    for holder, of_holder in points.items():
        _check(f"point of the {holder}", of_holder, (*POINTS_OF_COPIES[holder], None))
        places += [(None if each is None else holder, each) for each in of_holder]
    places = list(dict.fromkeys(places))
    found = [
        (transport, output, victim, *place)
        for transport, output, victim, place in itertools.product(
            transports, outputs, victims, places
        )
    ]
    if not found:
        raise LocalError("plan: expected a combination, found none")
    return found


def _check(what: str, found: Iterable[str | None], expected: Sequence[str | None]) -> None:
    for each in found:
        if each not in expected:
            raise LocalError(
                f"{what}: expected one of {', '.join(map(str, expected))}, found {each}"
            )


def plan(
    seed: int,
    kills: int,
    *,
    transports: Sequence[str] = TRANSPORTS,
    outputs: Sequence[str] = OUTPUTS,
    victims: Sequence[str] = SIDES,
    points: Mapping[str, Sequence[str | None]] = POINTS,
    delay_ms: float = DELAY_MS,
) -> list[Kill]:
    """Plan kills: the same ones for the same arguments, and the first of more kills are the same.

    All combinations come once before one comes again. Within each such round the next is one of
    those whose transport, output, victim and place (holder and point), and each two of them, came
    least often; the seed decides between equals. So the first few kills cover as much as possible.

    Parameters
    ----------
    seed
        Seed of the plan.
    kills
        Number of kills.
    transports, outputs, victims, points
        Values that are combined; `points` by holder, with None for a random moment.
    delay_ms
        The longest delay of a kill at a random moment.

    Raises
    ------
    LocalError
        If a name is unknown, or there is no combination.
    """
    every = combinations(transports, outputs, victims, points)
    found = []
    for number, combination in enumerate(itertools.islice(_balanced(every, seed), kills)):
        own = _own_seed(seed, number)
        is_random = combination[-1] is None
        delay = round(random.Random(own).random() * delay_ms, 3) if is_random else None
        found.append(Kill(number, own, *combination, delay_ms=delay))
    return found


def _own_seed(seed: int, number: int) -> int:
    """Mix a plan's seed and a kill's number, so that neighbours have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "little")


def _balanced(every: Sequence[_Combination], seed: int) -> Iterator[_Combination]:
    """Give the combinations round after round, at each time one that is needed most."""
    generator = random.Random(f"plan/{seed}")
    counts: Counter[tuple[tuple[int, object], ...]] = Counter()
    while True:
        left = sorted(every, key=lambda _: generator.random())
        while left:
            following = min(left, key=lambda each: sum(counts[part] for part in _parts(each)))
            left.remove(following)
            counts.update(_parts(following))
            yield following


def _parts(combination: _Combination) -> Iterator[tuple[tuple[int, object], ...]]:
    """Give the parts that are counted: transport, output, victim, place, and each two of them."""
    *rest, holder, point = combination
    values = list(enumerate([*rest, (holder, point)]))
    for value in values:
        yield (value,)
    yield from itertools.combinations(values, 2)
