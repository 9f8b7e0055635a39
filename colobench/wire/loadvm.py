"""Loader of the migration stream, whose stages say which sections are allowed.

`colobench.wire.format` describes the bytes, `colobench.wire.grammar` reads their order. This table
has one row for each stage; a stage ends with EOF::

    stage         section types              must bring
    PRECOPY       COMMAND START PART END FULL   RAM's END, every device
    COLO_RAM      PART END                      RAM's END
    COLO_DEVICES  FULL                          every device
    COLO_BUFFER   PART END FULL                 RAM's END, every device
    COLO_PASS     PART

A checkpoint with RAM and device state separated has the stages COLO_RAM and COLO_DEVICES. A
checkpoint with both in one sized buffer has the stage COLO_BUFFER. COLO_PASS is a part of a pass
between checkpoints. QEMU's own loader has no such table and takes any section at any time; the
review of COLO's patch series asked for one.

RAM pages are stored (in a secondary's RAM cache) as they arrive. Device states are parsed, checked
and returned. The caller applies them once the whole checkpoint has arrived, or never.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from colobench.errors import RemoteError
from colobench.memory.ram import PageMemory
from colobench.wire import grammar
from colobench.wire.agreement import parse_agreement
from colobench.wire.errors import (
    CommandError,
    DeviceStateError,
    HeaderError,
    UnexpectedSection,
    UnknownSection,
)
from colobench.wire.format import (
    BE32,
    COMMAND_HEADER,
    RAM_IDSTR,
    RAM_INSTANCE_ID,
    RAM_VERSION_ID,
    SECTION,
    MigrationCommand,
    SectionType,
    section_type_name,
)
from colobench.wire.grammar import SectionIdentity, StreamGrammar, never_started
from colobench.wire.ram import RAMLoader
from colobench.wire.reading import Parser, StreamBuffer
from colobench.wire.vmstate import Device, State

#: Limit of a vmdescription, bytes. Ours has two kilobytes; parsed into Python objects, one may need
#: thirty times its size.
VMDESCRIPTION_LIMIT: Final = 256 * 1024

#: Headers that are remembered: a peer may give a device another version in each checkpoint.
_IDENTIFIED_LIMIT: Final = 8192

#: Commands that we accept; they need no answer and carry no data.
_COMMANDS: Final = (MigrationCommand.ENABLE_COLO, MigrationCommand.SWITCHOVER_START)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the conversation, with the section types that it allows."""

    name: str
    allowed: frozenset[SectionType]


PRECOPY = Stage(
    "PRECOPY",
    frozenset(
        {
            SectionType.COMMAND,
            SectionType.START,
            SectionType.PART,
            SectionType.END,
            SectionType.FULL,
        }
    ),
)
COLO_RAM = Stage("COLO_RAM", frozenset({SectionType.PART, SectionType.END}))
COLO_DEVICES = Stage("COLO_DEVICES", frozenset({SectionType.FULL}))
COLO_PASS = Stage("COLO_PASS", frozenset({SectionType.PART}))
COLO_BUFFER = Stage("COLO_BUFFER", frozenset({SectionType.PART, SectionType.END, SectionType.FULL}))


class OpaqueSection(NamedTuple):
    """A device's FULL section, byte for byte.

    Attributes
    ----------
    section_id, idstr, instance_id
        As in its header.
    data
        The whole section, from its type to its footer.
    """

    section_id: int
    idstr: str
    instance_id: int
    data: bytes


@dataclass(slots=True)
class Loaded:
    """Result of a stage: the number of pages stored, and device states that are not applied.

    States of devices that we do not know are opaque, see `colobench.wire.learning`.
    """

    pages: int = 0
    zero_pages: int = 0
    device_states: list[tuple[Device, State]] = field(default_factory=list)
    opaque_states: list[OpaqueSection] = field(default_factory=list)
    #: Their idstrs and instance ids.
    opaque_keys: set[tuple[str, int]] = field(default_factory=set)
    commands: list[MigrationCommand] = field(default_factory=list)
    ram_ended: bool = False


class Loading(NamedTuple):
    """A stage, and what it has brought so far."""

    stage: Stage
    loaded: Loaded


class SectionHandler(Protocol):
    """Handler of one kind of section.

    Attributes
    ----------
    kinds
        Section types that it takes.
    minimum_version_id, version_id
        Oldest and newest version that it takes.
    """

    kinds: frozenset[SectionType]
    minimum_version_id: int
    version_id: int

    def load(
        self, at: StreamBuffer, kind: int, section_id: int, version_id: int, context: Loading
    ) -> Parser[None]:
        """Parse the payload; the version is 0 in a PART or END."""


class RAMSections:
    """Handler of RAM's sections.

    Parameters
    ----------
    loader
        Loader of a known memory.
    """

    kinds = frozenset({SectionType.START, SectionType.PART, SectionType.END})
    version_id = minimum_version_id = RAM_VERSION_ID

    def __init__(self, loader: RAMLoader | None) -> None:
        self._loader = loader

    def load(
        self, at: StreamBuffer, kind: int, section_id: int, version_id: int, context: Loading
    ) -> Parser[None]:
        """Parse the block list or the page records."""
        if kind == SectionType.START:
            yield from self.block_list(at)
            return
        # Sections come only after their START.
        assert self._loader is not None
        loaded = context.loaded
        pages, zero_pages = yield from self._loader.records(at)
        loaded.pages += pages
        loaded.zero_pages += zero_pages
        loaded.ram_ended |= kind == SectionType.END

    def block_list(self, at: StreamBuffer) -> Parser[None]:
        """Parse the payload of START."""
        assert self._loader is not None
        yield from self._loader.block_list(at)


class _DeviceSection:
    """Handler of a device's section."""

    kinds = frozenset({SectionType.FULL})

    def __init__(self, device: Device) -> None:
        self._device = device
        self.version_id = device.version_id
        self.minimum_version_id = device.minimum_version_id

    def load(
        self, at: StreamBuffer, kind: int, section_id: int, version_id: int, context: Loading
    ) -> Parser[None]:
        device, offset, loaded = self._device, at.offset, context.loaded
        for other, _ in loaded.device_states:
            if other is device:
                raise UnexpectedSection(
                    section_type_name(kind),
                    expected="each device once",
                    found=f"{_title(device)} again",
                    offset=offset,
                )
        try:
            state = yield from device.parse(version_id)
        except RemoteError as error:
            raise DeviceStateError(
                f"state of {_title(device)}",
                expected=f"one of version {version_id}",
                found=f"({error})",
                offset=offset,
            ) from error
        loaded.device_states.append((device, state))


class SectionLoader(StreamGrammar[Loading]):
    """Loader of sections by stages, with a handler for each; see `Incoming`.

    Parameters
    ----------
    handlers
        Handlers by idstr and instance id.
    """

    def __init__(self, handlers: dict[tuple[str, int], SectionHandler]) -> None:
        self.handlers = handlers
        self._started: dict[int, SectionHandler] = {}
        #: Results of `_identify`, because all checkpoints have the same headers.
        self._identified: dict[tuple[int, bytes], tuple[SectionHandler, int]] = {}

    def load_sections(self, at: StreamBuffer, stage: Stage) -> Parser[Loaded]:
        """Parse sections up to EOF.

        Raises
        ------
        UnexpectedSection
            If `stage` does not allow a section, or a section is missing at its EOF.
        UnknownSection, BadFooter, CommandError, RAMError, DeviceStateError
            If the content of a section is wrong.
        """
        loading = Loading(stage, Loaded())
        yield from self.sections(at, loading)
        return loading.loaded

    def allow(self, kind: int, context: Loading, offset: int) -> None:
        """Check a section type against the stage, and at EOF that nothing is missing."""
        stage, loaded = context
        if kind == SectionType.EOF:
            self._check_complete(stage, loaded, offset)
        elif kind not in stage.allowed:
            raise UnexpectedSection(
                f"stage {stage.name}",
                expected=_names(stage.allowed),
                found=section_type_name(kind),
                offset=offset,
            )

    def command(self, at: StreamBuffer, number: int, length: int, context: Loading) -> Parser[None]:
        """Note a command of those that carry no data; each may come once."""
        offset = at.offset - COMMAND_HEADER.size
        if number not in _COMMANDS or length:
            raise CommandError(
                "command",
                expected=" or ".join(f"{each.value} ({each.name}), no data" for each in _COMMANDS),
                found=f"{number} with {length} bytes",
                offset=offset,
            )
        command = MigrationCommand(number)
        if command in context.loaded.commands:
            raise CommandError(
                "command", expected="each once", found=f"{command.name} again", offset=offset
            )
        context.loaded.commands.append(command)
        yield from ()

    def described(
        self,
        at: StreamBuffer,
        kind: int,
        section_id: int,
        identity: bytes,
        offset: int,
        context: Loading,
    ) -> Parser[None]:
        """Load a START or FULL section of one of our handlers."""
        identified = self._identified.get((kind, identity))
        if identified is None:
            identified = self._identify(kind, identity, offset)
            if len(self._identified) < _IDENTIFIED_LIMIT:
                self._identified[kind, identity] = identified
        handler, version_id = identified
        if section_id in self._started or handler in self._started.values():
            raise UnexpectedSection(
                section_type_name(kind),
                expected="a section and a section id that are not in use",
                found=f"{SectionIdentity.parse(section_id, identity)} as section {section_id}",
                offset=offset,
            )
        if kind == SectionType.START:
            self._started[section_id] = handler
        yield from handler.load(at, kind, section_id, version_id, context)

    def continued(
        self, at: StreamBuffer, kind: int, section_id: int, offset: int, context: Loading
    ) -> Parser[None]:
        """Load a PART or END section of a handler that was started."""
        handler = self._started.get(section_id)
        if handler is None:
            raise never_started(kind, section_id, list(self._started), offset)
        yield from handler.load(at, kind, section_id, 0, context)

    def unknown(self, parts: SectionIdentity, identity: bytes, offset: int) -> SectionHandler:
        """Give a handler of a section that has none yet, or refuse the section.

        Raises
        ------
        UnknownSection
        """
        raise UnknownSection(
            "section",
            expected=f"one of {list(self.handlers)}",
            found=str(parts),
            offset=offset,
        )

    def _identify(self, kind: int, identity: bytes, offset: int) -> tuple[SectionHandler, int]:
        """Find the handler of a section with that idstr, instance id and version id."""
        parts = SectionIdentity.parse(0, identity)
        version_id = parts.version_id
        handler = self.handlers.get((parts.idstr, parts.instance_id))
        found = str(parts)
        if handler is None:
            handler = self.unknown(parts, identity, offset)
        if kind not in handler.kinds:
            raise UnexpectedSection(
                f"section {found}",
                expected=_names(handler.kinds),
                found=section_type_name(kind),
                offset=offset,
            )
        if not handler.minimum_version_id <= version_id <= handler.version_id:
            raise DeviceStateError(
                f"version of section {found}",
                expected=f"{handler.minimum_version_id} to {handler.version_id}",
                found=version_id,
                offset=offset + 1 + len(identity) - BE32.size,
            )
        return handler, version_id

    def _check_complete(self, stage: Stage, loaded: Loaded, offset: int) -> None:
        missing = []
        if SectionType.END in stage.allowed and not loaded.ram_ended:
            missing.append(f"{section_type_name(SectionType.END)} of RAM")
        if SectionType.FULL in stage.allowed:
            missing += self.missing(loaded)
        if missing:
            raise UnexpectedSection(
                f"stage {stage.name}",
                expected=" and ".join(missing),
                found=section_type_name(SectionType.EOF),
                offset=offset,
            )

    @abstractmethod
    def missing(self, loaded: Loaded) -> list[str]:
        """Name what a stage with devices has not brought, though it must."""


class Incoming(SectionLoader):
    """Loader of the stream of a machine that we know, from the first stage to the last.

    Parameters
    ----------
    machine
        Our machine type; a stream of another machine type is refused.
    memory
        Memory into which RAM pages are stored.
    devices
        Devices whose states the stream may contain.
    multifd
        True if RAM pages arrive on multifd channels.
    xbzrle
        True if RAM pages may be encoded with XBZRLE.
    compression
        How page records in the stream are compressed, see `colobench.wire.compression`, or None.
    settings
        Our settings, by name, that both nodes must share; None if the primary sends none.
    """

    def __init__(
        self,
        machine: str,
        memory: PageMemory,
        devices: Sequence[Device],
        *,
        multifd: bool = False,
        xbzrle: bool = False,
        compression: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._machine, self._settings = machine, settings
        self._devices = tuple(devices)
        loader = RAMLoader(memory, multifd=multifd, xbzrle=xbzrle, compression=compression)
        handlers: dict[tuple[str, int], SectionHandler] = {
            (device.idstr, device.instance_id): _DeviceSection(device) for device in devices
        }
        super().__init__(handlers | {(RAM_IDSTR, RAM_INSTANCE_ID): RAMSections(loader)})

    def configuration(self, at: StreamBuffer) -> Parser[None]:
        """Parse CONFIGURATION.

        Raises
        ------
        HeaderError
            If the machine type differs from ours.
        SettingsDiffer
            If a setting differs.
        """
        offset = at.offset + SECTION.size
        machine = yield from self.machine_type(at)
        if machine != self._machine:
            raise HeaderError(
                "machine type", expected=repr(self._machine), found=repr(machine), offset=offset
            )
        if self._settings is not None:
            yield from parse_agreement(at, self._settings)

    def missing(self, loaded: Loaded) -> list[str]:
        """Name the devices whose states are not there."""
        there = [device for device, _ in loaded.device_states]
        return [_title(device) for device in self._devices if device not in there]


def vmdescription_section(
    at: StreamBuffer, *, size_limit: int = VMDESCRIPTION_LIMIT
) -> Parser[dict[str, Any]]:
    """Parse a VMDESCRIPTION as `grammar.vmdescription_section` does, of at most our limit."""
    return grammar.vmdescription_section(at, size_limit)


def _title(device: Device) -> str:
    return f"device {device.idstr!r} instance {device.instance_id}"


def _names(kinds: frozenset[SectionType]) -> str:
    return " or ".join(section_type_name(kind) for kind in sorted(kinds))
