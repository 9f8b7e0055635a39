"""Seeded plans of kills."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from colobench.errors import LocalError
from colobench.node.breakpoints import points_of
from colobench.protocol.colo import Role
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.transport import Encoding, PageTransport, Transport

#: Ways of output: held until the checkpoint is committed, or compared with the secondary's.
OUTPUTS = ("buffer", "compare")
SIDES = ("primary", "secondary")
#: Moments of the second kill, of the node that is left.
AT_ONCE, AFTER_TAKEOVER = "at-once", "after-takeover"
SECONDS = (AT_ONCE, AFTER_TAKEOVER)
#: Places of the layers of the secondary's disks.
LAYERS = ("ram", "directory")
TRANSPORTS = tuple(each.value for each in PageTransport)
#: The longest delay of a kill at a random moment, in milliseconds.
DELAY_MS = 100.0


def points_of_capture(
    capture: Capture, encoding: Encoding = Encoding.NONE, layout: Layout = Layout.SEPARATED
) -> dict[str, tuple[str | None, ...]]:
    """Give the points at which a node can be held, by side; None is a random moment."""
    points: dict[str, tuple[str | None, ...]] = {
        side: points_of(Role(side), layout, capture, encoding) for side in SIDES
    }
    points["primary"] += (None,)
    return points


#: Those of stop and send.
POINTS: Mapping[str, tuple[str | None, ...]] = points_of_capture(Capture.STOP_AND_SEND)


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
    second
        One of `SECONDS`, if the other node is killed, too; else None.
    layers
        One of `LAYERS`; None is that of the settings.
    """

    number: int
    seed: int
    transport: str
    output: str
    victim: str
    holder: str | None
    point: str | None
    delay_ms: float | None
    second: str | None = None
    layers: str | None = None

    def named(self) -> dict[str, str]:
        """Give what makes a kill what it is, by name.

        Holder and point of a random moment are ``random``; second and layers are not there if they
        are None.
        """
        found = {
            "transport": self.transport,
            "output": self.output,
            "victim": self.victim,
            "holder": self.holder or "random",
            "point": self.point or "random",
        }
        more = {"second": self.second, "layers": self.layers}
        return found | {name: each for name, each in more.items() if each is not None}

    @property
    def combination(self) -> tuple[str, ...]:
        """The values of `named`."""
        return tuple(self.named().values())


#: Transport, output, victim, holder, point, second, layers.
_Combination = tuple[str, str, str, str | None, str | None, str | None, str | None]


def combinations(
    transports: Sequence[str] = TRANSPORTS,
    outputs: Sequence[str] = OUTPUTS,
    victims: Sequence[str] = SIDES,
    points: Mapping[str, Sequence[str | None]] = POINTS,
    seconds: Sequence[str | None] = (None,),
    layers: Sequence[str | None] = (None,),
) -> list[_Combination]:
    """Give all combinations of transport, output, victim, holder, point, second and layers.

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
    _check("second", seconds, (*SECONDS, None))
    _check("layers", layers, (*LAYERS, None))
    places: list[tuple[str | None, str | None]] = []
    for holder, of_holder in points.items():
        known = {
            each: None
            for capture in Capture
            for encoding in (Encoding.NONE, Encoding.DIVERGENT)
            for each in points_of_capture(capture, encoding)[holder]
        }
        _check(f"point of the {holder}", of_holder, (*known, None))
        places += [(None if each is None else holder, each) for each in of_holder]
    places = list(dict.fromkeys(places))
    found = [
        (transport, output, victim, *place, second, of_layers)
        for transport, output, victim, place, second, of_layers in itertools.product(
            transports, outputs, victims, places, seconds, layers
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
    seconds: Sequence[str | None] = (None,),
    layers: Sequence[str | None] = (None,),
    delay_ms: float = DELAY_MS,
) -> list[Kill]:
    """Plan kills: the same ones for the same arguments, and the first of more kills are the same.

    All combinations come once before one comes again. Within each such round the next is one of
    those whose transport, output, victim, place (holder and point), second and layers, and each two
    of them, came least often; the seed decides between equals. So the first few kills cover as much
    as possible.

    Parameters
    ----------
    seed
        Seed of the plan.
    kills
        Number of kills.
    transports, outputs, victims, points, seconds, layers
        Values that are combined; `points` by holder, with None for a random moment.
    delay_ms
        The longest delay of a kill at a random moment.

    Raises
    ------
    LocalError
        If a name is unknown, or there is no combination.
    """
    every = combinations(transports, outputs, victims, points, seconds, layers)
    found = []
    for number, combination in enumerate(itertools.islice(_balanced(every, seed), kills)):
        own = _own_seed(seed, number)
        *_, point, second, of_layers = combination
        is_random = point is None
        delay = round(random.Random(own).random() * delay_ms, 3) if is_random else None
        found.append(Kill(number, own, *combination[:5], delay, second, of_layers))
    return found


def _own_seed(seed: int, number: int) -> int:
    """Mix a plan's seed and a kill's number, so that neighbours have nothing in common."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "little")


def _balanced(every: Sequence[_Combination], seed: int) -> Iterator[_Combination]:
    """Give the combinations round after round, at each time one that is needed most."""
    generator = random.Random(f"plan/{seed}")
    counts: Counter[tuple[tuple[int, object], ...]] = Counter()
    parts = {each: tuple(_parts(each)) for each in every}
    while True:
        left = sorted(every, key=lambda _: generator.random())
        while left:
            following = min(left, key=lambda each: sum(map(counts.__getitem__, parts[each])))
            left.remove(following)
            counts.update(parts[following])
            yield following


def _parts(combination: _Combination) -> Iterator[tuple[tuple[int, object], ...]]:
    """Give the parts that are counted: transport, output, victim, place and so on, and each two."""
    transport, output, victim, holder, point, *more = combination
    named = enumerate([transport, output, victim, (holder, point), *more])
    values = [(number, value) for number, value in named if value is not None]
    for value in values:
        yield (value,)
    yield from itertools.combinations(values, 2)
