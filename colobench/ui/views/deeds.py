"""Sentences about a message of a checkpoint: the primary's action, and the secondary's."""

from __future__ import annotations

from collections.abc import Sequence

from colobench.lab.studies.transcript import BUFFER, RAM_SECTION, WireMessage
from colobench.protocol.colo import Variant
from colobench.settings.checkpoint import Layout
from colobench.wire.dissect import UNEXPLAINED
from colobench.wire.format import RAMFlag
from colobench.wire.messages import Message

TORN = "the end: the rest never came"

#: Deed of the primary, and deed of the secondary.
Deeds = tuple[str, str]


def deeds_of(messages: Sequence[WireMessage]) -> list[Deeds]:
    """Say what both sides do at each message.

    Parameters
    ----------
    messages
        Messages in order. What depends on a layout or a variant that is not known is left open.

    Returns
    -------
    list
        A pair of deeds for each message.
    """
    found = []
    for at, message in enumerate(messages):
        checkpoint = _around(messages, at)
        variant, layout = message.form or (None, _layout(checkpoint))
        primary, secondary = _words(variant, layout, _has_no_pages(checkpoint))[message.name]
        found.append((primary, TORN if is_torn(message) else secondary))
    return found


def is_torn(message: WireMessage) -> bool:
    """Say whether a message ends before it is whole."""
    return message.items[-1].kind == UNEXPLAINED


def _around(messages: Sequence[WireMessage], at: int) -> Sequence[WireMessage]:
    """Give the messages of the same checkpoint."""
    requested = Message.CHECKPOINT_REQUEST.name
    begins = [index for index, each in enumerate(messages) if each.name == requested]
    begin = max((index for index in begins if index <= at), default=0)
    end = min((index for index in begins if index > at), default=len(messages))
    return messages[begin:end]


def _layout(checkpoint: Sequence[WireMessage]) -> Layout | None:
    """Find the layout by the messages; None if there are too few."""
    names = {each.name for each in checkpoint}
    if RAM_SECTION in names:
        return Layout.SEPARATED
    return Layout.BUFFERED if Message.VMSTATE_SIZE.name in names else None


def _has_no_pages(checkpoint: Sequence[WireMessage]) -> bool:
    """Say whether the RAM section holds no pages, since they travel on other connections."""
    flush = RAMFlag.MULTIFD_FLUSH.name
    return any(
        item.kind == flush for each in checkpoint if each.name == RAM_SECTION for item in each.items
    )


def _words(variant: Variant | None, layout: Layout | None, elsewhere: bool) -> dict[str, Deeds]:
    """Give both sides' deeds for each message that there is.

    Parameters
    ----------
    variant, layout
        None where that is not known.
    elsewhere
        Whether pages travel on other connections. Then devices are saved behind them.
    """
    runs = variant is not None and variant.secondary_runs
    stops = "stops its guest" if runs else "its guest stands anyway"
    if variant is None:
        stops = "stops its guest if one runs"
    saves = "saves what it is about to send"
    ram, size = "sends dirty pages from where they are", "says how long the buffer is"
    buffer = ("sends the buffer", "parses and checks it, whole")
    if layout is Layout.BUFFERED:
        saves = "saves devices and RAM into a buffer"
        buffer = ("sends the buffer, RAM and devices", "parses it, whole: RAM into the cache")
    elif elsewhere:
        saves, ram = "collects dirty pages", "tells of pages on other connections"
        size = "has saved its devices: so long"
    elif layout is Layout.SEPARATED:
        saves = "saves its devices into a buffer"
    received, loaded = "knows it committed", "its guest runs"
    if variant is not None and variant.release_after is Message.VMSTATE_RECEIVED:
        received = "knows it committed, releases output"
    elif variant is not None:
        loaded = "releases output, its guest runs"
    return {
        Message.CHECKPOINT_READY.name: ("its guest runs", "has the migrated guest"),
        Message.CHECKPOINT_REQUEST.name: ("asks, its guest runs on", stops),
        Message.CHECKPOINT_REPLY.name: ("stops its guest", "agrees"),
        Message.VMSTATE_SEND.name: (saves, "gets ready"),
        RAM_SECTION: (ram, "puts them into the RAM cache"),
        Message.VMSTATE_SIZE.name: (size, "makes room for it"),
        BUFFER: buffer,
        Message.VMSTATE_RECEIVED.name: (received, "has all: commits, flushes, loads"),
        Message.VMSTATE_LOADED.name: (
            loaded,
            "has RAM and devices of it" + (", its guest runs" if runs else ""),
        ),
        Message.GUEST_SHUTDOWN.name: ("ends", "ends"),
    }
