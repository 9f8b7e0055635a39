"""Grammar of the migration stream, which its loader and its reader share.

A subclass decides what becomes of each part: `colobench.wire.loadvm` refuses what its machine does
not know, `colobench.wire.reader` names it and reads on behind it. All parsers are generators, see
`colobench.wire.reading`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from colobench.wire import vmdescription
from colobench.wire.buffer import StreamBuffer
from colobench.wire.errors import (
    BadFooter,
    HeaderError,
    UnexpectedSection,
    UnknownSection,
    VMDescriptionError,
)
from colobench.wire.format import (
    BE32,
    COMMAND_HEADER,
    MAGIC,
    SECTION,
    SECTION_IDENTITY,
    VERSION,
    SectionType,
    section_footer,
    section_type_name,
)
from colobench.wire.steps import Steps, sized_bytes

#: Limit of a machine type's name, bytes.
MACHINE_LIMIT: Final = 255
#: Capability with which shared RAM is not sent, and block lists have addresses.
IGNORE_SHARED: Final = "x-ignore-shared"

#: QEMU's subsections of CONFIGURATION.
_PAGE_BITS: Final = "configuration/target-page-bits"
_CAPABILITIES: Final = "configuration/capabilities"
_UUID: Final = "configuration/uuid"
_PAGE_BITS_READ: Final = 12
_NAMES_LIMIT: Final = 256

Context = TypeVar("Context")


class SectionIdentity(NamedTuple):
    """Identity of a section, from the header of its START or FULL."""

    section_id: int
    idstr: str
    instance_id: int
    version_id: int

    @classmethod
    def parse(cls, section_id: int, identity: bytes) -> SectionIdentity:
        """Split the bytes behind the length of the idstr."""
        idstr = identity[: -SECTION_IDENTITY.size].decode(errors="backslashreplace")
        return cls(section_id, idstr, *SECTION_IDENTITY.unpack(identity[-SECTION_IDENTITY.size :]))

    def __str__(self) -> str:
        return f"{self.idstr!r} instance {self.instance_id}"


class StreamGrammar(ABC, Generic[Context]):
    """Order of a stream's parts.

    The type parameter is that of the value which goes with a run of sections, such as the loader's
    result.

    Attributes
    ----------
    footers
        False in a stream of a machine type before 2.4, whose sections have none.
    """

    footers = True

    def stream_header(self, at: StreamBuffer) -> Steps[None]:
        """Parse magic, version and CONFIGURATION.

        Raises
        ------
        HeaderError
            If one of them is wrong.
        """
        yield from _expect(at, "magic", BE32.pack(MAGIC))
        yield from _expect(at, "stream version", BE32.pack(VERSION))
        yield from self.configuration(at)

    def machine_type(self, at: StreamBuffer) -> Steps[str]:
        """Parse CONFIGURATION up to the machine type."""
        offset = at.offset
        kind, length = SECTION.unpack((yield SECTION.size))
        if kind != SectionType.CONFIGURATION or length > MACHINE_LIMIT:
            raise HeaderError(
                "configuration",
                expected=f"{section_type_name(SectionType.CONFIGURATION)} and a machine type "
                f"of at most {MACHINE_LIMIT} bytes",
                found=f"{section_type_name(kind)} and {length}",
                offset=offset,
            )
        name: bytes = yield length
        return name.decode(errors="backslashreplace")

    @abstractmethod
    def configuration(self, at: StreamBuffer) -> Steps[None]:
        """Parse CONFIGURATION with its subsections, if the stream has it."""

    def sections(self, at: StreamBuffer, context: Context) -> Steps[None]:
        """Parse sections and commands up to EOF."""
        while not (yield from self.ended(context)):
            offset = at.offset
            kind = (yield 1)[0]
            self.allow(kind, context, offset)
            if kind == SectionType.EOF:
                return
            if kind == SectionType.COMMAND:
                number, length = COMMAND_HEADER.unpack((yield COMMAND_HEADER.size))
                yield from self.command(at, number, length, context)
            else:
                yield from self.section(at, kind, context)

    def ended(self, context: Context) -> Steps[bool]:
        """Say whether the sections have ended without an EOF."""
        yield from ()
        return False

    @abstractmethod
    def allow(self, kind: int, context: Context, offset: int) -> None:
        """Raise an error if that section type, or EOF, is not allowed here."""

    @abstractmethod
    def command(self, at: StreamBuffer, number: int, length: int, context: Context) -> Steps[None]:
        """Parse the data of a command, and what follows it."""

    def section(self, at: StreamBuffer, kind: int, context: Context) -> Steps[None]:
        """Parse a section behind its type."""
        offset = at.offset
        section_id = BE32.unpack((yield 4))[0]
        if kind in (SectionType.START, SectionType.FULL):
            name_at = at.offset
            length = (yield 1)[0]
            identity = yield length + SECTION_IDENTITY.size
            yield from self.described(at, kind, section_id, identity, name_at, context)
        else:
            yield from self.continued(at, kind, section_id, offset, context)
        if self.footers:
            yield from self.footer(at, section_id)

    @abstractmethod
    def described(
        self,
        at: StreamBuffer,
        kind: int,
        section_id: int,
        identity: bytes,
        offset: int,
        context: Context,
    ) -> Steps[None]:
        """Parse the payload of a START or FULL section; `offset` is that of its idstr's length."""

    @abstractmethod
    def continued(
        self, at: StreamBuffer, kind: int, section_id: int, offset: int, context: Context
    ) -> Steps[None]:
        """Parse the payload of a PART or END section; `offset` is that of the section id."""

    def footer(self, at: StreamBuffer, section_id: int) -> Steps[None]:
        """Parse a section's footer.

        Raises
        ------
        BadFooter
            If there is another or none.
        """
        footer = section_footer(section_id)
        offset = at.offset
        found = yield len(footer)
        if found != footer:
            raise BadFooter(
                "section footer", expected=footer.hex(" "), found=found.hex(" "), offset=offset
            )


class Subsection(NamedTuple):
    """A subsection of CONFIGURATION: its name, and its values for a person."""

    name: str
    values: tuple[str, ...]


def configuration_subsection(
    at: StreamBuffer, other: Callable[[str], Steps[tuple[str, ...]]] | None = None
) -> Steps[Subsection]:
    """Parse one of QEMU's subsections of CONFIGURATION.

    Parameters
    ----------
    at
        The buffer.
    other
        Function that is called with the name of any other subsection. Its parser parses the value;
        it gives no values if it does not know the subsection either.

    Raises
    ------
    UnexpectedSection
        If nobody knows the subsection.
    HeaderError
        If its value is not what we read.
    """
    offset = at.offset
    length = (yield 2)[1]
    name = (yield length).decode(errors="backslashreplace")
    yield BE32.size
    values: tuple[str, ...] = ()
    if name == _UUID:
        values = ((yield 16).hex(),)
    elif name == _PAGE_BITS:
        (bits,) = BE32.unpack((yield BE32.size))
        values = (f"pages of {1 << min(bits, 63)} bytes",)
        if bits != _PAGE_BITS_READ:
            raise HeaderError(
                name, expected=_PAGE_BITS_READ, found=bits, offset=at.offset - BE32.size
            )
    elif name == _CAPABILITIES:
        values = yield from _capabilities(at)
    elif other is None or not (values := (yield from other(name))):
        raise UnexpectedSection(
            "configuration",
            expected=f"one of {[_UUID, _PAGE_BITS, _CAPABILITIES]}",
            found=repr(name),
            offset=offset,
        )
    return Subsection(name, values)


def _capabilities(at: StreamBuffer) -> Steps[tuple[str, ...]]:
    offset = at.offset
    (count,) = BE32.unpack((yield BE32.size))
    if count > _NAMES_LIMIT:
        raise HeaderError(
            _CAPABILITIES, expected=f"at most {_NAMES_LIMIT}", found=count, offset=offset
        )
    names = []
    for _ in range(count):
        length = (yield 1)[0]
        names.append((yield length).decode(errors="backslashreplace"))
    return tuple(names)


def vmdescription_section(at: StreamBuffer, size_limit: int) -> Steps[dict[str, Any]]:
    """Parse the VMDESCRIPTION that follows a migration's EOF.

    Raises
    ------
    UnexpectedSection
        If another section type comes.
    VMDescriptionError
        If it is longer than `size_limit` bytes, or is not a vmdescription.
    """
    offset = at.offset
    kind, length = SECTION.unpack((yield SECTION.size))
    if kind != SectionType.VMDESCRIPTION:
        raise UnexpectedSection(
            "after EOF",
            expected=section_type_name(SectionType.VMDESCRIPTION),
            found=section_type_name(kind),
            offset=offset,
        )
    if length > size_limit:
        raise VMDescriptionError(
            "vmdescription",
            expected=f"at most {size_limit} bytes",
            found=length,
            offset=offset + 1,
        )
    text = yield from sized_bytes(length)
    return vmdescription.decode(bytes(text), offset=offset + SECTION.size)


def never_started(kind: int, section_id: int, started: object, offset: int) -> UnknownSection:
    """Make the error for a PART or END whose section was not started."""
    return UnknownSection(
        f"section id of {section_type_name(kind)}",
        expected=f"one that was started, of {started}",
        found=section_id,
        offset=offset,
    )


def _expect(at: StreamBuffer, subject: str, expected: bytes) -> Steps[None]:
    offset = at.offset
    found = yield len(expected)
    if found != expected:
        raise HeaderError(subject, expected=expected.hex(" "), found=found.hex(" "), offset=offset)
