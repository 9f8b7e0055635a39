"""Use of the link between the nodes: the bytes that crossed it, and whether its rate was held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

#: A link was held if it carried its bytes at this share of its rate at least.
HELD_SHARE: Final = 0.97
#: With less than this to send, in seconds at the link's rate, nothing is said about that.
_SENDING_MIN_S: Final = 0.01
_NS = 1e-9


@dataclass(frozen=True, slots=True)
class DirectionUse:
    """Use of one direction of a link.

    Attributes
    ----------
    direction
        ``P→S`` from primary to secondary, or ``S→P``.
    bytes
        Bytes that were sent.
    sending_s
        Seconds that they take at the link's rate; 0 without a limited rate.
    lost_s
        Seconds in which bytes waited for the relay although the link had nothing to send.
    deliveries, late_s
        Number of deliveries, and the seconds in all by which the relay was late with them.
    """

    direction: str
    bytes: int
    sending_s: float
    lost_s: float
    deliveries: int
    late_s: float

    @property
    def share(self) -> float | None:
        """Share of the link's rate that was held; None if there was too little to send."""
        if self.sending_s < _SENDING_MIN_S:
            return None
        return self.sending_s / (self.sending_s + self.lost_s)

    def since(self, before: DirectionUse) -> DirectionUse:
        """Give the use since an earlier one."""
        return DirectionUse(
            self.direction,
            self.bytes - before.bytes,
            self.sending_s - before.sending_s,
            self.lost_s - before.lost_s,
            self.deliveries - before.deliveries,
            self.late_s - before.late_s,
        )


@dataclass(frozen=True, slots=True)
class LinkUse:
    """Use of a link in both directions.

    Attributes
    ----------
    link
        The link, as in settings.
    rate
        Bits per second in each direction; 0: no limit.
    directions
        Use of each direction.
    """

    link: str
    rate: int
    directions: tuple[DirectionUse, ...]

    @classmethod
    def of(cls, found: dict[str, Any]) -> LinkUse:
        """Make it of the answer to ``x-query-link``."""
        uses = (
            DirectionUse(
                each["direction"],
                each["bytes"],
                each["sending-ns"] * _NS,
                each["lost-ns"] * _NS,
                each["deliveries"],
                each["late-ns"] * _NS,
            )
            for each in found["directions"]
        )
        return cls(found["link"], found["rate"], tuple(uses))

    def since(self, before: LinkUse) -> LinkUse:
        """Give the use since an earlier one of the same link."""
        pairs = zip(self.directions, before.directions, strict=True)
        return LinkUse(self.link, self.rate, tuple(now.since(then) for now, then in pairs))

    @property
    def held_rate(self) -> float | None:
        """Bits per second that were held, in the direction where it was less.

        It is the bytes divided by the time in which the link was sending, or should have been.
        None if there was too little to send, or the rate has no limit.
        """
        shares = [each.share for each in self.directions if each.share is not None]
        return self.rate * min(shares) if shares else None

    @property
    def held(self) -> bool | None:
        """Whether the rate was held within 3 %; None if there is nothing to judge."""
        rate = self.held_rate
        return None if rate is None else rate >= HELD_SHARE * self.rate

    @property
    def late_us(self) -> float | None:
        """Microseconds by which the relay was late on average; None without deliveries."""
        deliveries = sum(each.deliveries for each in self.directions)
        late = sum(each.late_s for each in self.directions)
        return late / deliveries * 1e6 if deliveries else None

    def as_json(self) -> dict[str, Any]:
        """Give what a summary has of it."""
        return {
            "link": self.link,
            "rate": self.rate,
            "held_rate": self.held_rate,
            "held": self.held,
            "late_us": self.late_us,
            "bytes": {each.direction: each.bytes for each in self.directions},
        }
