"""Decoding of one stream of any size, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Callable

from colobench.errors import LocalError
from colobench.lab.decode.decoding import Decoding
from colobench.lab.decode.kept_pages import KeptPages
from colobench.lab.decode.source import open_stream
from colobench.wire.buffer import StreamBuffer
from colobench.wire.decoded import DeviceState, TreeSink
from colobench.wire.format import BE32, MULTIFD_MAGIC
from colobench.wire.lookahead import LOOK_AHEAD_LIMIT, WINDOW, Driver
from colobench.wire.reader import StreamReader
from colobench.wire.steps import Ahead, LookAhead, Steps


def decode(
    source: str | os.PathLike[str],
    *,
    keeper: KeptPages | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Decoding:
    """Decode a QEMU migration stream, a COLO session or a multifd channel.

    Parameters
    ----------
    source
        Path of a file, which may be compressed with xz; ``-`` for standard input; or ``unix:PATH``,
        at which a connection of QEMU's is accepted.
    keeper
        Keeper of some pages, or None.
    progress
        Function that is called with the bytes read, and with all bytes of the file; of a pipe,
        both are the same.

    Returns
    -------
    Decoding
        A value of constant size. What could not be read is in its `problems`, with offsets.

    Raises
    ------
    LocalError
        If the source cannot be read, or pages are to be kept that this does not decode.
    """
    with open_stream(source) as stream:
        at, sink = StreamBuffer(WINDOW, LOOK_AHEAD_LIMIT + WINDOW), TreeSink()
        driver = Driver(at, stream.read_into, lambda count: progress(*stream.position(count)))
        try:
            found = driver.run(_whole(at, sink, keeper))
        except LocalError:
            if keeper is not None:
                keeper.close(discard=True)
            raise
        finally:
            if keeper is not None:
                keeper.close()
        return found._replace(name=stream.name, length=at.offset)


def _whole(at: StreamBuffer, sink: TreeSink, keeper: KeptPages | None) -> Steps[Decoding]:
    ahead: Ahead = yield LookAhead(BE32.size)
    if ahead.data == BE32.pack(MULTIFD_MAGIC):
        from colobench.wire.multifd_reader import MultifdReader

        if keeper is not None:
            raise LocalError(
                f"pages of {keeper.block!r}: expected a main connection's stream, found a multifd "
                "channel, whose pages are not decoded"
            )
        channel = MultifdReader(at, sink)
        yield from channel.stream()
        sink.end()
        blocks, problems = tuple(channel.blocks.values()), tuple(sink.problems)
        return Decoding(
            "",
            "multifd channel",
            0,
            None,
            sink.root,
            blocks,
            problems=problems,
            unexplained_bytes=sink.unexplained_bytes,
            unexplained_parts=sink.unexplained_parts,
        )
    reader = StreamReader(at, sink, keeper=keeper)
    # A session that was recorded without its migration begins with a message.
    begins_with_message = ahead.data[:2] == bytes(2)
    yield from reader.checkpoints() if begins_with_message else reader.session()
    sink.end()
    described = {
        (str(entry.get("name")), str(entry.get("instance_id"))): entry
        for entry in (reader.description or {"devices": ()})["devices"]
        if isinstance(entry, dict)
    }

    def with_fields(devices: list[DeviceState]) -> tuple[DeviceState, ...]:
        return tuple(
            device._replace(
                description=described.get(
                    (device.identity.idstr, str(device.identity.instance_id))
                ),
            )
            for device in devices
        )

    return Decoding(
        "",
        "COLO session" if reader.colo else "migration",
        0,
        reader.machine,
        sink.root,
        tuple(
            block for block in reader.ram.blocks.values() if block.length or block.counts.records
        ),
        with_fields(sink.devices),
        with_fields(sink.last_devices),
        tuple(sink.checkpoints),
        tuple(sink.problems),
        sink.unexplained_bytes,
        sink.unexplained_parts,
    )
