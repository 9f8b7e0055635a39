"""The sequence diagram shows who said what, and every byte of it when opened."""

from __future__ import annotations

import dataclasses
import re

import pytest

from colobench.errors import LocalError
from colobench.lab.session.relay import Chunk, Form
from colobench.lab.session.session import Session
from colobench.lab.studies.transcript import BUFFER, RAM_SECTION
from colobench.protocol.colo import UPSTREAM, V12, VARIANTS
from colobench.settings.checkpoint import Capture, Layout
from colobench.settings.transport import PageTransport
from colobench.strategy.compatibility import refusals
from colobench.ui.views.deeds import TORN, deeds_of
from colobench.ui.views.diagram import SequenceDiagram
from colobench.wire.format import BE64, SECTION, RAMFlag, SectionType
from colobench.wire.messages import Message, encode_message
from colobench.wire.savevm import ram_section_multifd, stream_header

PAGE = BE64.pack(RAMFlag.PAGE | RAMFlag.CONTINUE) + bytes(4096)
RAM = SECTION.pack(SectionType.END, 2) + PAGE + BE64.pack(RAMFlag.EOS)
RAM += SECTION.pack(SectionType.FOOTER, 2) + bytes([SectionType.EOF])
SIZED = encode_message(Message.VMSTATE_SIZE, 1) + bytes([SectionType.EOF])


def say(*said):
    """Make chunks of (direction, bytes), a millisecond apart."""
    offsets = {"P→S": 0, "S→P": 0}
    chunks = []
    for number, (direction, data) in enumerate(said):
        chunks.append(Chunk(direction, offsets[direction], number / 1000, data))
        offsets[direction] += len(data)
    return chunks


@pytest.fixture
def diagram():
    return SequenceDiagram(
        say(
            ("P→S", encode_message(Message.CHECKPOINT_REQUEST)),
            ("S→P", encode_message(Message.CHECKPOINT_REPLY)),
            ("P→S", encode_message(Message.VMSTATE_SEND) + RAM),
            ("P→S", SIZED),
            ("S→P", encode_message(Message.VMSTATE_RECEIVED)),
            ("S→P", encode_message(Message.VMSTATE_LOADED)),
        )
    )


def test_it_scrolls_in_itself_where_the_page_is_narrow(diagram):
    page = diagram._repr_html_()
    assert page.startswith('<div style="overflow-x: auto" tabindex="0"')
    assert page.endswith("</table></div>")


def test_as_text_each_line_is_an_arrow_with_its_direction(diagram):
    lines = repr(diagram).splitlines()[1:]
    forward = [True, False, True, True, True, True, False, False]
    assert ["▶" in line for line in lines] == forward
    assert "0.00" in lines[0]
    assert "RAM section, 4,123 bytes" in lines[3]
    # The longest words do not run into the arrow behind them.
    assert all(re.search(r" [◀─]", line) for line in lines)


def test_as_html_each_arrow_opens_into_its_bytes(diagram):
    html = diagram._repr_html_()
    assert html.count("<details>") == 8
    assert "00 00 00 01" in html
    assert re.search(r"4,104</td>.*00 00 00 00 00 00 00 28 .* …</td>.*PAGE", html)
    assert html.count("▶") == 5
    assert html.count("◀") == 3


def checkpoint(layout, form=None, ram=RAM):
    """Give the chunks of one checkpoint."""
    section = ram if layout is Layout.SEPARATED else b""
    chunks = say(
        ("P→S", encode_message(Message.CHECKPOINT_REQUEST)),
        ("S→P", encode_message(Message.CHECKPOINT_REPLY)),
        ("P→S", encode_message(Message.VMSTATE_SEND) + section + SIZED),
        ("S→P", encode_message(Message.VMSTATE_RECEIVED)),
        ("S→P", encode_message(Message.VMSTATE_LOADED)),
    )
    return [dataclasses.replace(chunk, form=form) for chunk in chunks]


def deeds(chunks):
    said = SequenceDiagram(chunks).messages
    return {each.name: words for each, words in zip(said, deeds_of(said), strict=True)}


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("variant", [None, *VARIANTS.values()])
def test_the_words_are_those_of_the_layout_and_the_variant(layout, variant):
    form = None if variant is None else Form(variant, layout)
    words = deeds(checkpoint(layout, form))
    saves, sends = words["VMSTATE_SEND"][0], words[BUFFER][0]
    assert ("RAM" in saves) == ("RAM" in sends) == (layout is Layout.BUFFERED)
    assert "devices" in saves
    released = [name for name, (primary, _) in words.items() if "releases output" in primary]
    assert released == ([variant.release_after.name] if variant else [])
    stops = {None: "stops its guest if one runs", V12: "its guest stands still anyway"}
    assert words["CHECKPOINT_REQUEST"][1] == stops.get(variant, "stops its guest")
    runs_again = "its guest runs" in words["VMSTATE_LOADED"][1]
    assert runs_again == (variant is UPSTREAM)


FORMS = [
    (layout, capture, transport)
    for layout in Layout
    for capture in Capture
    for transport in PageTransport
    if not list(
        refusals(
            {
                "layout": layout.value,
                "capture": capture.value,
                "transport": transport.value,
                "output": "buffer",
                "tracker": "marked",
            }
        )
    )
]


@pytest.mark.parametrize(("layout", "capture", "transport"), FORMS)
def test_the_words_are_those_of_each_layout_capture_and_transport(layout, capture, transport):
    elsewhere = transport is not PageTransport.STREAM
    section = ram_section_multifd(SectionType.END, 2) + bytes([SectionType.EOF])
    form = Form(V12, layout, capture, devices_first=not elsewhere or capture.copies)
    words = deeds(checkpoint(layout, form, ram=section if elsewhere else RAM))
    both_in_one = layout is Layout.BUFFERED
    assert (RAM_SECTION in words) == (not both_in_one)
    assert ("RAM and devices" in words["VMSTATE_SEND"][0]) == both_in_one
    assert ("RAM" in words[BUFFER][0]) == ("RAM into" in words[BUFFER][1]) == both_in_one
    # A guest that is copied runs on before anything is sent, and is never started again.
    runs_on = "run" in words["CHECKPOINT_REPLY"][0]
    assert runs_on == (capture in (Capture.COPY_THEN_SEND, Capture.COPY_ON_WRITE))
    assert ("its guest runs" in words["VMSTATE_LOADED"][0]) == (not capture.copies)
    assert ("releases output" in words["VMSTATE_RECEIVED"][0]) == capture.copies
    copied = [name for name, (primary, _) in words.items() if "cop" in primary]
    assert bool(copied) == (capture.copies and (capture is not Capture.TWO_EPOCHS or not elsewhere))
    if not both_in_one:
        assert ("other connections" in words[RAM_SECTION][0]) == elsewhere
        # Devices that are saved behind RAM are saved when their size is known.
        saved_first = "devices" in words["VMSTATE_SEND"][0] or capture.copies
        assert ("saved its devices" in words["VMSTATE_SIZE"][0]) == (not saved_first)


def test_a_part_of_a_pass_is_told_from_the_pages_of_a_checkpoint():
    form = Form(V12, Layout.SEPARATED, Capture.GAP_PRECOPY)
    passing = say(
        ("P→S", encode_message(Message.MIGRATE_RAM_BACKGROUND) + RAM),
        ("P→S", encode_message(Message.CHECKPOINT_REQUEST)),
        ("P→S", encode_message(Message.VMSTATE_SEND) + RAM),
    )
    said = SequenceDiagram([dataclasses.replace(each, form=form) for each in passing]).messages
    primary = [
        words[0]
        for each, words in zip(said, deeds_of(said), strict=True)
        if each.name == RAM_SECTION
    ]
    assert primary == [
        "sends some of its dirty pages, its guest runs",
        "sends the dirty pages that passes have left",
    ]


def test_devices_are_said_to_be_saved_behind_pages_that_go_other_ways():
    section = ram_section_multifd(SectionType.END, 2) + bytes([SectionType.EOF])
    words = deeds(checkpoint(Layout.SEPARATED, ram=section))
    assert "device" not in words["VMSTATE_SEND"][0]
    assert words[RAM_SECTION][0] == "tells of pages on other connections"
    assert "devices" in words["VMSTATE_SIZE"][0]


def test_what_is_not_known_yet_is_left_open():
    torn = say(("P→S", encode_message(Message.VMSTATE_SEND)))
    assert deeds(torn)["VMSTATE_SEND"][0] == "saves what it is about to send"


def test_a_recording_with_the_migration_in_it_is_refused_with_the_remedy():
    with pytest.raises(LocalError, match=r"call relay\.forget"):
        SequenceDiagram(say(("P→S", stream_header("colobench"))))


@pytest.mark.parametrize("layout", [each.value for each in Layout])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("nothing_left")
def test_a_session_tells_its_relay_how_the_two_converse(layout, variant):
    settings = {"ram": "4M", "delay": None, "keep_stream": True}
    with Session(layout=layout, variant=variant, **settings) as session:
        session.checkpoint()
        session.relay.forget()
        session.checkpoint()
        found = {chunk.form for chunk in session.relay.chunks}
    assert found == {Form(VARIANTS[variant], Layout(layout))}


def test_a_torn_end_is_marked_as_one():
    torn = SequenceDiagram(say(("P→S", encode_message(Message.VMSTATE_SEND) + RAM[:100])))
    assert TORN in repr(torn)
    assert TORN in torn._repr_html_()
    assert "unexplained" in torn._repr_html_()


def test_what_the_peer_sent_is_text_and_not_markup():
    # A block's name is the peer's: it must not become part of the page.
    name = b"<script>alert(1)</script>"
    record = BE64.pack(RAMFlag.ZERO) + bytes([len(name)]) + name + b"\0"
    ram = SECTION.pack(SectionType.END, 2) + record + RAM[-14:]
    html = SequenceDiagram(say(("P→S", encode_message(Message.VMSTATE_SEND) + ram)))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
