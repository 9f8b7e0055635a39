"""Parts of a primary's stream, as a secondary takes them from its connection, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colobench.node.channel import Channel
from colobench.node.colo_thread import ColoThread
from colobench.node.phases import no_garbage_collection
from colobench.protocol.colo import ColoState
from colobench.wire.errors import CommandError
from colobench.wire.format import MigrationCommand
from colobench.wire.loadvm import PRECOPY, Loaded, SectionLoader, Stage, vmdescription_section
from colobench.wire.reading import parse_bytes, sized_bytes


class PrimaryStream:
    """Stream of a primary, on the connection to it.

    Parameters
    ----------
    channel
        The connection.
    loader
        Loader of its sections.

    Notes
    -----
    Every method raises PeerLost or PeerStalled if the primary does not go on, and StreamError if
    its bytes are wrong.
    """

    def __init__(self, channel: Channel, loader: SectionLoader) -> None:
        self._channel, self._loader = channel, loader

    def header(self) -> None:
        """Take magic, version and CONFIGURATION."""
        self._channel.parse(self._loader.stream_header(self._channel.buffer))

    def migration(self) -> Loaded:
        """Take the migration up to EOF, without the vmdescription that follows.

        Raises
        ------
        CommandError
            If COLO does not follow it.
        """
        channel = self._channel
        loaded = channel.parse(self._loader.load_sections(channel.buffer, PRECOPY))
        if MigrationCommand.ENABLE_COLO not in loaded.commands:
            raise CommandError(
                "migration", expected="command ENABLE_COLO", found="none", offset=channel.received
            )
        return loaded

    def description(self, size_limit: int) -> dict[str, Any]:
        """Take the vmdescription, of so many bytes at most."""
        buffer = self._channel.buffer
        return self._channel.parse(vmdescription_section(buffer, size_limit=size_limit))

    def pages(self, stage: Stage, memory_bytes: int) -> Loaded:
        """Take a RAM section of a checkpoint into a memory of that size."""
        # Each page once, and as many bytes again for names and headers.
        channel = self._channel
        return channel.parse(self._loader.load_sections(channel.buffer, stage), 2 * memory_bytes)

    def sized(self, size: int, stage: Stage) -> Loaded:
        """Take a sized buffer whole, then parse all of it."""
        offset = self._channel.buffer.offset
        data = self._channel.parse(sized_bytes(size))
        return parse_bytes(lambda at: self._loader.load_sections(at, stage), data, offset=offset)


def follow(colo: ColoThread, channel: Channel, between: Callable[[], None]) -> None:
    """Follow a primary, checkpoint by checkpoint, until the conversation ends.

    Parameters
    ----------
    colo, channel
        The conversation, and its connection.
    between
        Function that is called between two checkpoints.
    """
    while colo.state is not ColoState.ENDED:
        between()
        # No message is due now.
        channel.wait()
        with no_garbage_collection():
            colo.step()
            while colo.state not in (ColoState.RUNNING, ColoState.ENDED):
                colo.step()
