"""Senders and receivers of pages by the settings that select them."""

from __future__ import annotations

from typing import Final

from colobench.guest.interface import Guest
from colobench.memory.ram import PageMemory
from colobench.node.breakpoints import Breakpoints
from colobench.node.channel import Channel
from colobench.node.migration.buffered import BufferedSender
from colobench.node.migration.checkpoint_sender import BufferedCheckpointSender, CheckpointSender
from colobench.node.migration.memfd import MemfdReceiver, MemfdSender
from colobench.node.migration.multifd import MultifdReceiver, MultifdSender
from colobench.node.migration.page_copy import PageCopy
from colobench.node.migration.page_path import PageReceiver
from colobench.node.migration.records import PlainRecords, RecordWriter
from colobench.node.migration.stream import StreamReceiver, StreamSender
from colobench.node.options import Options
from colobench.node.workers import Workers
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.transport import Encoding, PageTransport
from colobench.wire.compression import compressor
from colobench.wire.loadvm import Incoming
from colobench.wire.ram import RAMRecordState

#: Transports with connections that carry only pages.
_CHANNEL_SENDERS: Final = {PageTransport.MULTIFD: MultifdSender, PageTransport.MEMFD: MemfdSender}
_CHANNEL_RECEIVERS: Final = {
    PageTransport.MULTIFD: MultifdReceiver,
    PageTransport.MEMFD: MemfdReceiver,
}


def checkpoint_sender(
    options: Options,
    machine: Guest,
    workers: Workers,
    channel: Channel,
    breakpoints: Breakpoints,
) -> CheckpointSender:
    """Make the sender of a guest and its checkpoints that a node's options select.

    Raises
    ------
    OSError
        If there is no memory for copies of pages.
    """
    copies = options.capture is Capture.COPY_THEN_SEND
    page_copy = PageCopy(machine.ram, workers) if copies else None
    memory = machine.ram if page_copy is None else page_copy.memory
    compression = options.encoding.compression
    if options.transport is PageTransport.MULTIFD and compression is not None:
        # Imported only here, as is all below that other sessions do without.
        from colobench.node.migration.compressed_multifd import CompressedMultifdSender

        level = options.settings.checkpoint.zstd_level
        compressing = CompressedMultifdSender(
            channel, memory, options.channels, workers, compression, level
        )
        return CheckpointSender(machine, channel, compressing, breakpoints, page_copy)
    if options.transport in _CHANNEL_SENDERS:
        pages = _CHANNEL_SENDERS[options.transport](channel, memory, options.channels, workers)
        return CheckpointSender(machine, channel, pages, breakpoints, page_copy)
    records = RAMRecordState(memory.blocks)
    writer: RecordWriter
    stream: StreamSender
    if options.encoding is Encoding.XBZRLE:
        from colobench.node.migration.xbzrle import XBZRLERecords, XBZRLESender

        writer = XBZRLERecords(memory)
        stream = XBZRLESender(channel, memory, records, writer)
    elif compression is not None:
        from colobench.node.migration.compressed_stream import (
            CompressedRecords,
            CompressedStreamSender,
        )

        writer = CompressedRecords(
            memory, compressor(compression, options.settings.checkpoint.zstd_level)
        )
        stream = CompressedStreamSender(channel, memory, records, writer)
    else:
        writer = PlainRecords(memory)
        stream = StreamSender(channel, memory, records)
    if options.layout is Layout.SEPARATED:
        return CheckpointSender(machine, channel, stream, breakpoints, page_copy)
    buffered = BufferedSender(memory, records, writer)
    return BufferedCheckpointSender(machine, channel, stream, breakpoints, page_copy, buffered)


def page_receiver(
    options: Options, cache: PageMemory, workers: Workers, channel: Channel
) -> PageReceiver:
    """Make the receiver of pages into the RAM cache that a node's options select."""
    compression = options.encoding.compression
    if options.transport is PageTransport.MULTIFD and compression is not None:
        from colobench.node.migration.compressed_multifd import CompressedMultifdReceiver

        level = options.settings.checkpoint.zstd_level
        return CompressedMultifdReceiver(
            channel, cache, options.channels, workers, compression, level
        )
    if options.transport in _CHANNEL_RECEIVERS:
        return _CHANNEL_RECEIVERS[options.transport](channel, cache, options.channels, workers)
    return StreamReceiver(channel)


def incoming_stream(options: Options, machine: Guest, cache: PageMemory) -> Incoming:
    """Make the loader of the main stream that a node's options select."""
    on_channels = options.transport in _CHANNEL_RECEIVERS
    return Incoming(
        machine.machine_type,
        cache,
        machine.devices,
        multifd=on_channels,
        xbzrle=options.encoding is Encoding.XBZRLE,
        compression=None if on_channels else options.encoding.compression,
        settings=options.settings.agreed(),
    )
