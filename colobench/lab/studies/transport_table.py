"""Ways in which a checkpoint travels: the bytes on each connection, and the guest's pause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from colobench.lab.interrupt import interruptible
from colobench.lab.progress import bar
from colobench.lab.session.record import Records
from colobench.lab.session.session import Session
from colobench.memory.ram import PAGE_SIZE
from colobench.text_table import align

#: Phases of a pause that transports and encodings change, and names of their columns.
_PHASES = ("collect", "hash", "ram", "devices", "received", "flush", "load")
#: Checkpoints in which buffers are allocated and caches filled; they are not counted.
WARM_UP = 2
#: Settings of all forms, unless others are given.
USUAL: dict[str, Any] = {
    "ram": "16M",
    "guest": "uniform",
    "writes_per_tick": 32,
    "verify": False,
}


@dataclass(frozen=True, slots=True)
class TravelledBytes:
    """Bytes of some checkpoints of one form.

    Attributes
    ----------
    form
        Settings in which the form differs.
    main, others
        Bytes that the primary sent on the connection of the stream, and on connections for pages.
    page_bytes
        Bytes of the pages that were brought up to date: 4,096 for each.
    records
        The checkpoints.
    """

    form: Mapping[str, Any]
    main: int
    others: int
    page_bytes: int
    records: Records

    @property
    def name(self) -> str:
        """Values of the form, as one text."""
        return ", ".join(map(str, self.form.values())) or "defaults"

    @property
    def page_overhead(self) -> float:
        """Bytes that travelled for each byte of a page; near 1 if pages travel as they are."""
        devices = sum(each.device_bytes for each in self.records)
        return (self.main + self.others - devices) / self.page_bytes if self.page_bytes else 0.0


class TransportTable(tuple[TravelledBytes, ...]):
    """Forms side by side, printed as two tables: bytes, and milliseconds of the pause."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join([*align(self._bytes()), "", *align(self._pauses())])

    def find(self, **form: Any) -> TravelledBytes:
        """Give the first entry of a form."""
        return next(each for each in self if dict(each.form) == form)

    def _bytes(self) -> list[tuple[str, ...]]:
        head = ("a checkpoint", "pages", "bytes of them", "on the stream", "on others", "buffered")
        rows: list[tuple[str, ...]] = [head]
        for each in self:
            count = len(each.records)
            buffer = median(record.secondary_buffer_bytes for record in each.records)
            pages = each.page_bytes // count
            numbers = (pages // PAGE_SIZE, pages, each.main // count, each.others // count, buffer)
            rows.append((each.name, *(f"{number:,.0f}" for number in numbers)))
        return rows

    def _pauses(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("median ms", "pause", *_PHASES)]
        for each in self:
            columns = ("pause_ms", *(f"{phase}_ms" for phase in _PHASES))
            medians = [median(each.records.column(column).tolist()) for column in columns]
            rows.append((each.name, *(f"{value:.2f}" for value in medians)))
        return rows


@interruptible("the forms that were measured are lost")
def tabulate_transports(
    forms: Sequence[Mapping[str, Any]], *, checkpoints: int = 8, ticks: int = 20, **settings: Any
) -> TransportTable:
    """Let the same guest be protected in several forms, and count the bytes on each connection.

    Parameters
    ----------
    forms
        Settings of each form, such as ``{"transport": "memfd"}``.
    checkpoints
        Number of checkpoints that are counted, after two that are not.
    ticks
        Ticks of the guest's timer from one checkpoint to the next.
    settings
        Settings of all forms, which go before `USUAL`.
    """
    found = []
    with bar("measuring", "forms") as progress:
        for done, form in enumerate(forms, 1):
            with Session(**(USUAL | settings | dict(form) | {"delay": None})) as session:
                found.append(_measure(session, form, checkpoints, ticks))
            progress(done, len(forms))
    return TransportTable(found)


def _measure(
    session: Session, form: Mapping[str, Any], checkpoints: int, ticks: int
) -> TravelledBytes:
    session.run(WARM_UP)
    first, before = session.records.total, _sent(session)
    for _ in range(checkpoints):
        session.wait_for_ticks(ticks)
        session.checkpoint()
    sent = [after - begin for after, begin in zip(_sent(session), before, strict=True)]
    records = session.records.since(first)
    pages = sum(each.pages + each.equal_pages for each in records)
    return TravelledBytes(dict(form), sent[0], sum(sent[1:]), pages * PAGE_SIZE, records)


def _sent(session: Session) -> list[int]:
    """Read the primary's counts of bytes, that of the stream first."""
    counts: list[int] = session.nodes["primary"].execute("query-migrate")["ram"]["x-connections"]
    return counts
