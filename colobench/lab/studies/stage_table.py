"""Section types that the loader accepts in each stage, found by giving it one of each."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from colobench.errors import LocalError, RemoteError
from colobench.guest.numba.devices import CPU, NIC, Serial, Timer
from colobench.guest.numba.machine import MACHINE_TYPE
from colobench.lab.session.session import Session
from colobench.lab.studies.transcript import read_messages
from colobench.memory.ram import RAM, lay_out
from colobench.settings.settings import Settings
from colobench.text_table import align
from colobench.wire.errors import StreamEnded
from colobench.wire.format import BE32, MAGIC, SECTION, SectionType
from colobench.wire.loadvm import (
    COLO_BUFFER,
    COLO_DEVICES,
    COLO_PASS,
    COLO_RAM,
    PRECOPY,
    Incoming,
    Stage,
)
from colobench.wire.reading import parse_bytes
from colobench.wire.savevm import DEVICE_SECTION_ID, device_sections

STAGES = (PRECOPY, COLO_RAM, COLO_DEVICES, COLO_BUFFER, COLO_PASS)
#: Section types that a stream may have anywhere; EOF ends a stage.
TYPES = (
    *(SectionType.COMMAND, SectionType.START, SectionType.PART, SectionType.END),
    *(SectionType.FULL, SectionType.EOF),
)


@dataclass(frozen=True, slots=True)
class StageAnswer:
    """Answer of the loader to the first byte of a section.

    Attributes
    ----------
    stage, section
        Names of the stage and the section type.
    accepted
        True if the loader reads on, False if it refuses that type in that stage.
    error
        Text of the error with which the input of one byte ended; empty if it was whole.
    """

    stage: str
    section: str
    accepted: bool
    error: str


class StageTable(tuple[StageAnswer, ...]):
    """All answers, printed as a table of stages and section types."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [("stage", *(each.name for each in TYPES))]
        for stage in STAGES:
            answers = [each for each in self if each.stage == stage.name]
            rows.append((stage.name, *("yes" if each.accepted else "–" for each in answers)))
        return "\n".join(align(rows))

    def refused(self, stage: str, section: str) -> str:
        """Give the error for a section type in a stage."""
        return next(each.error for each in self if (each.stage, each.section) == (stage, section))


def probe_stages() -> StageTable:
    """Give a loader the first byte of each section type in each stage, and note its answers."""
    with ExitStack() as closing:
        ram = RAM("colobench-probed", lay_out(Settings().guest.block_sizes()))
        closing.callback(ram.close)
        return StageTable(
            _answer(Incoming(MACHINE_TYPE, ram, [CPU(), Timer(), Serial(), NIC()]), stage, kind)
            for stage in STAGES
            for kind in TYPES
        )


def _answer(incoming: Incoming, stage: Stage, kind: SectionType) -> StageAnswer:
    try:
        _parse(incoming, stage, bytes([kind]))
    except StreamEnded as error:
        # It asks for the rest of the section.
        return StageAnswer(stage.name, kind.name, True, str(error))
    except RemoteError as error:
        return StageAnswer(stage.name, kind.name, False, str(error))
    return StageAnswer(stage.name, kind.name, True, "")


def _parse(incoming: Incoming, stage: Stage, stream: bytes) -> None:
    parse_bytes(lambda at: incoming.load_sections(at, stage), stream)


class ProvokedErrors(tuple[RemoteError, ...]):
    """Errors of a loader, printed with the errors that caused them."""

    __slots__ = ()

    def __repr__(self) -> str:
        lines = []
        for each in self:
            lines.append(f"{type(each).__name__}: {each}")
            if each.__cause__ is not None:
                lines.append(f"    because of {type(each.__cause__).__name__}: {each.__cause__}")
        return "\n".join(lines)


def provoke_errors() -> ProvokedErrors:
    """Give a loader streams that are wrong in one place each, and keep its errors."""
    cpu, stopped = CPU(), Timer()
    stopped["period_ns"] = 0
    whole = device_sections([cpu], DEVICE_SECTION_ID)
    version = len(SECTION.pack(SectionType.FULL, 0)) + 1 + len(cpu.idstr) + 4
    newer = bytearray(whole)
    newer[version : version + 4] = BE32.pack(cpu.version_id + 1)
    footer = bytearray(whole)
    footer[-2] ^= 1
    streams = (
        (COLO_RAM, bytes(whole)),
        (COLO_RAM, SECTION.pack(SectionType.PART, 7)),
        (COLO_DEVICES, bytes(newer)),
        (COLO_DEVICES, device_sections([stopped], DEVICE_SECTION_ID)),
        (COLO_DEVICES, bytes(footer)),
        (COLO_DEVICES, bytes(whole[:20])),
    )
    found = []
    with ExitStack() as closing:
        ram = RAM("colobench-probed", lay_out(Settings().guest.block_sizes()))
        closing.callback(ram.close)
        for stage, stream in streams:
            incoming = Incoming(MACHINE_TYPE, ram, [cpu, Timer()])
            try:
                _parse(incoming, stage, stream)
            except RemoteError as error:
                found.append(error)
    return ProvokedErrors(found)


def section_types(session: Session) -> list[str]:
    """List the types of all sections that a session's relay has kept, in order.

    Raises
    ------
    LocalError
        If the session has no relay, or the relay has the migration as well.
    """
    if session.relay is None:
        raise LocalError("session: expected keep_stream, found no relay")
    chunks = session.relay.chunks
    if chunks and chunks[0].data.startswith(BE32.pack(MAGIC)):
        raise LocalError("relay: expected checkpoints alone, found the migration before them")
    kinds = {kind.name for kind in SectionType}
    return [
        item.kind
        for message in read_messages(chunks)
        for item in message.items
        if item.kind in kinds
    ]
