"""Sentences about a message of a checkpoint: the primary's action, and the secondary's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from colobench.lab.session.message_splitter import BUFFER, RAM_SECTION
from colobench.lab.session.relay import Form
from colobench.lab.studies.transcript import WireMessage
from colobench.protocol.colo import Variant
from colobench.settings.checkpoint import Capture, Layout
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
        Messages in order. What depends on a form that is not known is left open.

    Returns
    -------
    list
        A pair of deeds for each message.
    """
    found = []
    for at, message in enumerate(messages):
        checkpoint = _around(messages, at)
        facts = _facts(message.form, checkpoint)
        if message.name == RAM_SECTION and _is_of_a_pass(messages, at):
            primary, secondary = _PASS
        else:
            primary, secondary = _words(facts).get(message.name, ("", ""))
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


def _is_of_a_pass(messages: Sequence[WireMessage], at: int) -> bool:
    """Say whether the RAM section at that place is a part of a pass between checkpoints."""
    before = [each.name for each in messages[:at] if each.direction == messages[at].direction]
    return bool(before) and before[-1] == Message.MIGRATE_RAM_BACKGROUND.name


@dataclass(frozen=True, slots=True)
class _Facts:
    """A conversation's form, with None where it is not known.

    Attributes
    ----------
    variant, layout, capture, devices_first
        See `colobench.lab.session.relay.Form`.
    elsewhere
        Whether pages travel on other connections.
    compared
        Whether pages are compared before they are sent.
    """

    variant: Variant | None
    layout: Layout | None
    capture: Capture | None
    devices_first: bool
    elsewhere: bool
    compared: bool


def _facts(form: Form | None, checkpoint: Sequence[WireMessage]) -> _Facts:
    elsewhere = _has_no_pages(checkpoint)
    compared = any(each.name == Message.PAGE_HASHES.name for each in checkpoint)
    if form is None:
        # With pages elsewhere, RAM is first unless one asks for the other order.
        return _Facts(None, _layout(checkpoint), None, not elsewhere, elsewhere, compared)
    return _Facts(*form, elsewhere=elsewhere, compared=compared)


_PASS = ("sends some of its dirty pages, its guest runs", "puts them into the RAM cache")
#: The primary's deed when it may stop its guest, by the capture.
_STOPS = {
    Capture.COPY_THEN_SEND: "stops its guest, copies devices and dirty pages, lets it run on",
    Capture.COPY_ON_WRITE: "stops its guest, copies devices, freezes dirty pages, lets it run on",
}


def _words(facts: _Facts) -> dict[str, Deeds]:
    """Give both sides' deeds for each message that there is."""
    return {
        Message.CHECKPOINT_READY.name: ("its guest runs", "has the migrated guest"),
        **_agreeing(facts),
        **_sending(facts),
        **_ending(facts),
        Message.GUEST_SHUTDOWN.name: ("ends", "ends"),
        Message.MIGRATE_RAM_BACKGROUND.name: ("begins a part of a pass", "gets ready"),
    }


def _agreeing(facts: _Facts) -> dict[str, Deeds]:
    """Give the deeds up to the moment at which the primary's guest stands still."""
    runs = facts.variant is not None and facts.variant.secondary_runs
    stops = "stops its guest" if runs else "its guest stands still anyway"
    if facts.variant is None:
        stops = "stops its guest if one runs"
    asks = "asks, its guest runs on"
    if facts.capture is Capture.TWO_EPOCHS:
        asks = "has frozen the dirty pages of an epoch, its guest runs"
    reply = "stops its guest"
    if facts.capture is not None:
        reply = _STOPS.get(facts.capture, reply)
    return {
        Message.CHECKPOINT_REQUEST.name: (asks, stops),
        Message.CHECKPOINT_PASSIVE.name: (
            "asks for a guest that stands still",
            "lets its guest stand still after this checkpoint",
        ),
        Message.CHECKPOINT_REPLY.name: (reply, "agrees"),
        Message.PAGE_HASHES.name: (
            "sends hashes of its dirty pages",
            "hashes the same pages of its RAM",
        ),
        Message.DIVERGENT_PAGES.name: ("keeps those that differ", "says which pages differ"),
    }


def _sending(facts: _Facts) -> dict[str, Deeds]:
    """Give the deeds while a checkpoint travels."""
    copies = facts.capture is not None and facts.capture.copies
    buffer = ("sends the buffer, which has the devices alone", "parses and checks it, whole")
    size = "says how long the buffer is"
    if facts.layout is Layout.BUFFERED:
        saves = "puts RAM and devices into one buffer"
        saves += ", from the copy" if copies else ""
        buffer = ("sends the buffer, RAM and devices", "parses it, whole: RAM into the cache")
    elif copies:
        saves = "has copied what it is about to send"
        if facts.capture is Capture.TWO_EPOCHS:
            saves = "begins to send an epoch, in parts"
    elif facts.layout is None:
        saves = "saves what it is about to send"
    elif facts.compared:
        saves = "is about to send what differs"
    elif facts.devices_first:
        saves = "saves its devices into a buffer"
    else:
        saves = "collects dirty pages"
        size = "has saved its devices, says how long they are"
    return {
        Message.VMSTATE_SEND.name: (saves, "gets ready"),
        RAM_SECTION: (_ram(facts), "puts them into the RAM cache"),
        Message.VMSTATE_SIZE.name: (size, "makes room for it"),
        BUFFER: buffer,
    }


def _ram(facts: _Facts) -> str:
    if facts.elsewhere:
        return "tells of pages on other connections"
    if facts.compared:
        return "sends the pages that differ"
    if facts.capture is Capture.GAP_PRECOPY:
        return "sends the dirty pages that passes have left"
    if facts.capture is not None and facts.capture.copies:
        return "sends dirty pages from their copies, its guest runs"
    return "sends dirty pages from where they are"


def _ending(facts: _Facts) -> dict[str, Deeds]:
    """Give the deeds of a checkpoint that has arrived."""
    variant, capture = facts.variant, facts.capture
    copies = capture is not None and capture.copies
    received = "knows it committed"
    loaded = "its guest runs"
    if copies:
        received += ", releases output of before the stop"
        loaded = "may begin the next one"
        if capture is Capture.TWO_EPOCHS:
            loaded = "closes the epoch"
    elif variant is not None and variant.release_after is Message.VMSTATE_RECEIVED:
        received += ", releases output"
    elif variant is not None:
        loaded = "releases output, its guest runs"
    runs = variant is not None and variant.secondary_runs
    return {
        Message.VMSTATE_RECEIVED.name: (received, "has all: commits, flushes, loads"),
        Message.VMSTATE_LOADED.name: (
            loaded,
            "has RAM and devices of it" + (", its guest runs" if runs else ""),
        ),
    }
