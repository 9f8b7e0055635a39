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
from colobench.node.workers import Workers
from colobench.settings.bug import Bug
from colobench.settings.checkpoint import Capture, CheckpointSettings, Layout
from colobench.settings.settings import Settings
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
    settings: CheckpointSettings,
    machine: Guest,
    workers: Workers,
    channel: Channel,
    breakpoints: Breakpoints,
    freezes: bool = True,
) -> CheckpointSender:
    """Make the sender of a guest and its checkpoints that the settings select.

    Parameters
    ----------
    settings
        Settings that select it.
    machine, workers, channel, breakpoints
        See the senders.
    freezes
        False leaves pages unfrozen (`Bug.UNFROZEN_PAGES`).

    Raises
    ------
    LocalError
        If pages have to be frozen, and this guest's cannot be.
    OSError
        If there is no memory for copies of pages.
    """
    page_copy: PageCopy | None = None
    if settings.capture.freezes:
        from colobench.node.migration.copy_on_write import CopyOnWrite, EpochCopies

        copies = EpochCopies if settings.capture is Capture.TWO_EPOCHS else CopyOnWrite
        page_copy = copies(machine.tracker, workers, freezes)
    elif settings.capture is Capture.COPY_THEN_SEND:
        page_copy = PageCopy(machine.ram, workers)
    try:
        return _sender_from(page_copy, settings, machine, workers, channel, breakpoints)
    except BaseException:
        if page_copy is not None:
            page_copy.close()
        raise


def _sender_from(
    page_copy: PageCopy | None,
    settings: CheckpointSettings,
    machine: Guest,
    workers: Workers,
    channel: Channel,
    breakpoints: Breakpoints,
) -> CheckpointSender:
    """Make a sender from a copy of pages or, if there is none, from RAM."""
    memory = machine.ram if page_copy is None else page_copy.memory
    compression = settings.encoding.compression
    if settings.transport.pages is PageTransport.MULTIFD and compression is not None:
        # Imported only here, as is all below that other sessions do without.
        from colobench.node.migration.compressed_multifd import CompressedMultifdSender

        level = settings.zstd_level
        compressing = CompressedMultifdSender(
            channel, memory, settings.multifd_channels, workers, compression, level
        )
        return CheckpointSender(machine, channel, compressing, breakpoints, page_copy)
    transport, channels = settings.transport.pages, settings.multifd_channels
    if transport in _CHANNEL_SENDERS:
        pages = _CHANNEL_SENDERS[transport](channel, memory, channels, workers)
        return CheckpointSender(machine, channel, pages, breakpoints, page_copy)
    records = RAMRecordState(memory.blocks)
    writer: RecordWriter
    stream: StreamSender
    if settings.encoding is Encoding.XBZRLE:
        from colobench.node.migration.xbzrle import XBZRLERecords, XBZRLESender

        writer = XBZRLERecords(memory)
        stream = XBZRLESender(channel, memory, records, writer)
    elif compression is not None:
        from colobench.node.migration.compressed_stream import (
            CompressedRecords,
            CompressedStreamSender,
        )

        writer = CompressedRecords(memory, compressor(compression, settings.zstd_level))
        stream = CompressedStreamSender(channel, memory, records, writer)
    else:
        writer = PlainRecords(memory)
        stream = StreamSender(channel, memory, records)
    if settings.layout is Layout.SEPARATED:
        return CheckpointSender(machine, channel, stream, breakpoints, page_copy)
    buffered = BufferedSender(memory, records, writer)
    return BufferedCheckpointSender(machine, channel, stream, breakpoints, page_copy, buffered)


def page_receiver(
    settings: CheckpointSettings,
    cache: PageMemory,
    workers: Workers,
    channel: Channel,
    bug: Bug | None = None,
) -> PageReceiver:
    """Make the receiver of pages into the RAM cache that the settings select."""
    compression = settings.encoding.compression
    if settings.transport.pages is PageTransport.MULTIFD and compression is not None:
        from colobench.node.migration.compressed_multifd import CompressedMultifdReceiver

        level = settings.zstd_level
        return CompressedMultifdReceiver(
            channel, cache, settings.multifd_channels, workers, compression, level
        )
    transport, channels = settings.transport.pages, settings.multifd_channels
    if transport is PageTransport.MULTIFD and bug is Bug.EMPTY_SYNC:
        from colobench.node.migration.empty_sync import EmptySyncReceiver

        return EmptySyncReceiver(channel, cache, channels, workers)
    if transport is PageTransport.MULTIFD and bug is Bug.PAGE_AFTER_CLOSE:
        from colobench.node.migration.late_pages import UnendedReceiver

        return UnendedReceiver(channel, cache, channels, workers)
    if transport in _CHANNEL_RECEIVERS:
        return _CHANNEL_RECEIVERS[transport](channel, cache, channels, workers)
    return StreamReceiver(channel)


def incoming_stream(settings: Settings, machine: Guest, cache: PageMemory) -> Incoming:
    """Make the loader of the main stream that the settings select."""
    checkpoint = settings.checkpoint
    on_channels = checkpoint.transport.pages in _CHANNEL_RECEIVERS
    return Incoming(
        machine.machine_type,
        cache,
        machine.devices,
        multifd=on_channels,
        xbzrle=checkpoint.encoding is Encoding.XBZRLE,
        compression=None if on_channels else checkpoint.encoding.compression,
        settings=settings.agreed(),
    )
