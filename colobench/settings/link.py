"""Settings of the link between the nodes: its rate, its delay, and the delay's jitter."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from colobench.errors import LocalError
from colobench.fields.checks import check_type, show
from colobench.fields.kinds import Written
from colobench.fields.part import Part, setting

#: Bits per second. A slower link would look like a stalled peer, see `colobench.node.watchdog`.
RATE_MIN, RATE_MAX = 10_000_000, 400_000_000_000
#: Microseconds.
DELAY_MAX_US = 1_000_000
#: Most bytes that may be on their way in one direction: they are in the relay's memory.
IN_FLIGHT_MAX: Final = 128 << 20
_RATE_UNITS: Final = {"k": 10**3, "M": 10**6, "G": 10**9}
_DELAY_UNITS: Final = {"us": 1, "µs": 1, "ms": 10**3, "s": 10**6}
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"


def _check_rate(rate: int) -> None:
    if not RATE_MIN <= rate <= RATE_MAX:
        raise LocalError(
            f"link: expected a rate from {_write_rate(RATE_MIN)} to {_write_rate(RATE_MAX)} "
            f"bits/s, found {rate}"
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A link between the nodes, the same in each direction.

    Attributes
    ----------
    rate
        Bits per second that all connections of the pair share; 0: no limit.
    delay_us
        Microseconds from the end of sending to the arrival.
    jitter_us
        Most microseconds that the delay is longer, at random; nothing is overtaken.
    """

    rate: int = 0
    delay_us: int = 0
    jitter_us: int = 0

    def __post_init__(self) -> None:
        if self.rate:
            _check_rate(self.rate)
        for name, found in (("delay", self.delay_us), ("jitter", self.jitter_us)):
            if not 0 <= found <= DELAY_MAX_US:
                raise LocalError(
                    f"link: expected a {name} of at most {_write_delay(DELAY_MAX_US)}, "
                    f"found {_write_delay(found)}"
                )
        if self.in_flight_bytes > IN_FLIGHT_MAX:
            raise LocalError(
                f"link {self}: expected at most {IN_FLIGHT_MAX >> 20} MiB on their way "
                f"(rate × delay), found {self.in_flight_bytes / 2**20:.0f} MiB"
            )

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read the name of a preset, or its properties, such as ``rate=1G,delay=20ms,jitter=1ms``.

        A preset's name may come first; then the properties replace the preset's.

        Raises
        ------
        LocalError
            If it is anything else, or a property is out of its range.
        """
        check_type("link", text, str)
        first, *rest = text.split(",")
        preset = PRESETS.get(first)
        properties = [first, *rest] if preset is None else rest
        given: dict[str, int] = {}
        for each in properties:
            name, equals, value = each.partition("=")
            if not equals or name not in ("rate", "delay", "jitter") or name in given:
                raise LocalError(
                    f"link: expected {', '.join(PRESETS)}, or such as "
                    f"rate=1G,delay=20ms,jitter=1ms, found {show(text)}"
                )
            given[name] = _read_rate(value) if name == "rate" else _read_delay(name, value)
        fields = {"rate": "rate", "delay": "delay_us", "jitter": "jitter_us"}
        changes = {fields[name]: value for name, value in given.items()}
        return replace(preset or cls(), **changes)

    def __str__(self) -> str:
        for name, preset in PRESETS.items():
            if preset == self:
                return name
        properties = [
            ("rate", self.rate, _write_rate),
            ("delay", self.delay_us, _write_delay),
            ("jitter", self.jitter_us, _write_delay),
        ]
        return ",".join(f"{name}={write(value)}" for name, value, write in properties if value)

    @property
    def is_local(self) -> bool:
        """Whether the nodes are connected directly."""
        return self == Link()

    @property
    def in_flight_bytes(self) -> int:
        """Most bytes that are sent and have not arrived; 0 for a link without a limited rate."""
        return self.rate * (self.delay_us + self.jitter_us) // 8_000_000


#: Links by their names.
PRESETS: Final = {
    "local": Link(),
    "1GbE": Link(10**9),
    "10GbE": Link(10**10),
    "25GbE": Link(25 * 10**9),
    "wan20ms": Link(10**9, 20_000, 1_000),
}


@dataclass(frozen=True, slots=True)
class LinkSettings(Part):
    """The link that the pair's connections share."""

    title = "link"

    link: Link = setting(
        Written(Link, Link.parse, placeholder="LINK", known=tuple(PRESETS)),
        PRESETS["local"],
        f"link between the nodes: {', '.join(PRESETS)}, or such as rate=1G,delay=20ms,jitter=1ms",
    )


def _read_rate(text: str) -> int:
    found = re.fullmatch(_NUMBER + r"([kMG]?)(?:bit/s)?", text)
    if found is None:
        raise LocalError(f"link: expected a rate in bits/s such as 1G, found {show(text)}")
    rate = round(float(found[1]) * _RATE_UNITS.get(found[2], 1))
    # One that is written is a limit, also 0, which stands for none in a `Link`.
    _check_rate(rate)
    return rate


def _write_rate(rate: int) -> str:
    for unit, bits in reversed(_RATE_UNITS.items()):
        if rate and rate % bits == 0:
            return f"{rate // bits}{unit}"
    return str(rate)


def _read_delay(name: str, text: str) -> int:
    found = re.fullmatch(_NUMBER + f"({'|'.join(_DELAY_UNITS)})", text)
    if found is None:
        raise LocalError(f"link: expected a {name} such as 20ms, 50us or 1s, found {show(text)}")
    return round(float(found[1]) * _DELAY_UNITS[found[2]])


def _write_delay(delay_us: int) -> str:
    return f"{delay_us}us" if delay_us % 1000 else f"{delay_us // 1000}ms"
