"""A pair that is stepped: every message and every point of every conversation, held for real."""

from __future__ import annotations

import itertools

import pytest

import share
from colobench.errors import LocalError
from colobench.lab.session.message_splitter import BUFFER, RAM_SECTION
from colobench.lab.studies.step_journal import Maps
from colobench.lab.studies.stepping import (
    FLIP,
    REPLACE,
    TRUNCATE,
    Stepping,
    messages_of,
    tables_of,
)
from colobench.settings.checkpoint import Capture, Layout
from colobench.strategy.compatibility import refusals
from colobench.wire.messages import Message, encode_message

pytestmark = pytest.mark.usefixtures("nothing_left")

TRANSPORTS = ("stream", "stream+tcp", "multifd", "multifd+tcp", "memfd")
#: Encodings whose conversation or whose records differ; a divergent pair needs a running secondary.
ENCODINGS = ("none", "xbzrle", "zstd", "divergent")


def goes_together(case):
    names = case | {"transport": case["transport"].partition("+")[0], "tracker": "marked"}
    return not list(refusals(names))


CASES = [
    case
    for layout, capture, transport, encoding in itertools.product(
        [each.value for each in Layout], [each.value for each in Capture], TRANSPORTS, ENCODINGS
    )
    if goes_together(
        case := {
            "layout": layout,
            "capture": capture,
            "transport": transport,
            "encoding": encoding,
            "output": "buffer",
            "variant": "upstream" if encoding == "divergent" else "v12",
        }
    )
]
#: One of each capture and layout is walked always.
ALWAYS = (
    [
        case
        for case in CASES
        if case["encoding"] == "none"
        and case["transport"] == "stream"
        and not (case["layout"] == "buffered" and case["capture"] != "stop-and-send")
    ]
    + [case for case in CASES if case["encoding"] == "divergent"][:1]
    + [
        case
        for case in CASES
        if case["capture"] == "stop-and-send"
        and case["transport"] in ("multifd+tcp", "memfd")
        and case["encoding"] == "none"
    ]
)
REST = share.some([case for case in CASES if case not in ALWAYS], 0)


def name_of(case):
    return "-".join(case.values())


@pytest.mark.parametrize("case", ALWAYS + REST, ids=name_of)
def test_next_walks_a_whole_checkpoint_through_each_message_and_each_point(case):
    with Stepping(ram="4M", **case) as stepping:
        stepping.run()
        session, journal = stepping.session, stepping.journal
        assert stepping.rounds == 1
        seen = {name for _, name in journal.messages()} - {RAM_SECTION, BUFFER}
        assert seen == messages_of(stepping.checkpoint)
        for role in ("primary", "secondary"):
            passed = {each.nodes[role].held_at for each in journal} - {None}
            # Of two open epochs there may be less than all points for the second one.
            expected = set(session.points(role))
            assert passed <= expected
            assert {each for each in expected - passed if not each.startswith("two-open")} == set()
            # Each state of the table but the one of the migration, and those that end it.
            seen = {each.nodes[role].state for each in journal}
            assert seen <= {state.name for state in tables_of(stepping.checkpoint)[role]}
        assert len(session.records) >= 1
        assert all(record.verified for record in session.records)
        # What was stepped through is what crossed.
        loaded = encode_message(Message.VMSTATE_LOADED)
        assert session.relay.data("S→P").endswith(loaded)


def step_to(stepping, name):
    """Step until a message travels next."""
    while True:
        message = stepping.next().next_message
        if message is not None and message.part.name == name:
            return message


def step_to_written_pages(stepping):
    """Let the guest run until it has written pages, and step until they travel next."""
    stepping.next()
    stepping.session.wait_for_ticks(2)
    return step_to(stepping, RAM_SECTION)


def test_a_message_that_waits_has_not_reached_its_receiver():
    with Stepping(ram="4M") as stepping:
        step_to_written_pages(stepping)
        query = stepping.session.nodes["secondary"].execute
        before = query("x-query-colo")["received"]
        assert query("x-query-ram-cache")["pages"] == 0
        moment = stepping.next()
        assert "RAM section has reached the secondary" in moment.happened
        pages = query("x-query-ram-cache")["pages"]
        assert pages == Maps.count(moment.maps.received) == Maps.count(moment.maps.collected) > 0
        assert query("x-query-colo")["received"] > before
        # RAM is touched only after the commit.
        assert Maps.count(moment.maps.differing) == pages


def test_back_shows_what_was_and_next_goes_forward_again_without_touching_the_pair():
    with Stepping(ram="4M") as stepping:
        step_to(stepping, "VMSTATE_SEND")
        last, total = stepping.journal.present, len(stepping.journal)
        assert stepping.back()
        assert stepping.back()
        assert not stepping.journal.is_live
        stepping.next()
        assert stepping.next() is last
        assert len(stepping.journal) == total
        assert stepping.journal.is_live
        stepping.next()
        assert len(stepping.journal) == total + 1


KILLS = list(
    itertools.product(
        ["primary", "secondary"], ["CHECKPOINT_READY", RAM_SECTION, "VMSTATE_RECEIVED"]
    )
)


@pytest.mark.parametrize(("victim", "at"), share.some(KILLS, 3))
def test_a_node_killed_at_a_message_leaves_one_that_goes_on(victim, at):
    with Stepping(ram="4M") as stepping:
        if at != "CHECKPOINT_READY":
            step_to(stepping, at)
        moment = stepping.kill(victim)
        assert f"SIGKILL has ended the {victim}" in moment.happened
        survivor = "secondary" if victim == "primary" else "primary"
        committed = 1 if at == "VMSTATE_RECEIVED" and survivor == "secondary" else 0
        assert f"goes on from checkpoint {committed}." in moment.happened
        assert "NOT" not in moment.happened
        assert not moment.nodes[victim].alive
        assert moment.nodes[survivor].runs
        assert stepping.session.verify(survivor)
        with pytest.raises(LocalError, match="one that is over"):
            stepping.next()


DAMAGE = [
    ("CHECKPOINT_REQUEST", FLIP, {}, "expected 0 to 7, or 256 to 259, found 254"),
    ("CHECKPOINT_REQUEST", REPLACE, {"other": "VMSTATE_SEND"}, "expected CHECKPOINT_REQUEST"),
    ("CHECKPOINT_REQUEST", TRUNCATE, {}, "connection closed"),
    ("CHECKPOINT_REPLY", REPLACE, {"other": "VMSTATE_LOADED"}, "expected CHECKPOINT_REPLY"),
    (RAM_SECTION, FLIP, {"at": 0}, "expected"),
    (RAM_SECTION, TRUNCATE, {}, "connection closed"),
    (BUFFER, FLIP, {"at": 0}, "expected"),
]


@pytest.mark.parametrize(("name", "how", "more", "words"), share.some(DAMAGE, 3))
def test_the_receiver_of_a_damaged_message_says_what_it_expected_and_found(name, how, more, words):
    with Stepping(ram="4M") as stepping:
        message = step_to(stepping, name)
        moment = stepping.corrupt(how, **more)
        assert name in moment.happened
        receiver = "secondary" if message.direction == "P→S" else "primary"
        assert any(f"COLO_EXIT of the {receiver}" in each and words in each for each in moment.said)
        # The torn checkpoint is in nobody's RAM.
        killed = stepping.kill("primary")
        assert "goes on from checkpoint 0. Its RAM and devices are those of it." in killed.happened


def test_a_damaged_page_is_noticed_by_nobody_but_the_comparison_of_digests():
    with Stepping(ram="4M") as stepping:
        message = step_to_written_pages(stepping)
        pages = max(message.part.items, key=lambda each: each.length)
        # Behind the first record's header is its page, which is longer than that.
        moment = stepping.corrupt(FLIP, at=pages.offset + 1000)
        assert moment.said == ()
        stepping.run()
        assert stepping.journal.present.equal is False


@pytest.mark.parametrize(
    ("how", "at", "words"),
    [(FLIP, 0, "multifd magic"), (TRUNCATE, 100, "page channel: connection closed")],
)
def test_the_receiver_of_a_damaged_packet_says_what_it_expected_and_found(how, at, words):
    with Stepping(ram="4M", transport="multifd") as stepping:
        step_to_written_pages(stepping)
        moment = stepping.corrupt(how, at=at, channel=0)
        assert "packet of channel 0" in moment.happened
        assert any("COLO_EXIT of the secondary" in each and words in each for each in moment.said)
        killed = stepping.kill("primary")
        assert "goes on from checkpoint 0. Its RAM and devices are those of it." in killed.happened


def test_a_damaged_page_of_a_channel_is_noticed_by_the_digests_alone():
    with Stepping(ram="4M", transport="multifd") as stepping:
        step_to_written_pages(stepping)
        assert stepping.corrupt(FLIP, at=1344 + 7, channel=0).said == ()
        stepping.run()
        assert stepping.journal.present.equal is False


def test_a_packet_is_damaged_only_with_the_section_that_it_belongs_to():
    with Stepping(ram="4M", transport="multifd") as stepping:
        with pytest.raises(LocalError, match="expected the announcement of a RAM section"):
            stepping.corrupt(FLIP, channel=0)
        step_to(stepping, RAM_SECTION)
        with pytest.raises(LocalError, match="page channels, found number 9"):
            stepping.corrupt(FLIP, channel=9)
        with pytest.raises(LocalError, match="of a packet, found replace"):
            stepping.corrupt(REPLACE, channel=0)


def test_damage_that_is_not_possible_is_refused_and_changes_nothing():
    with Stepping(ram="4M") as stepping:
        for how, more, words in (
            ("smash", {}, "expected one of flip a byte, truncate, replace, found 'smash'"),
            (FLIP, {"at": 4}, "expected a byte from 0 to 3, found 4"),
            (TRUNCATE, {"at": 4}, "expected 0 to 3 bytes, found 4"),
            (REPLACE, {"other": "CHECKPOINT_READY"}, "expected the name of another message"),
        ):
            with pytest.raises(LocalError, match=words):
                stepping.corrupt(how, **more)
        assert stepping.journal.present.next_message.part.name == "CHECKPOINT_READY"
        stepping.next()
        with pytest.raises(LocalError, match="expected a message that waits, found none"):
            stepping.corrupt(FLIP)


def test_output_is_held_until_the_message_that_releases_it():
    with Stepping(ram="4M", guest="hotcold") as stepping:
        stepping.next()
        primary = stepping.session.nodes["primary"]
        stepping.session.wait_for(
            lambda: primary.execute("x-query-guest")["frames-held"], "output of the guest", 60
        )
        stepping.run()
        held = [each.nodes["primary"] for each in stepping.journal]
    assert any(each.frames_held for each in held)
    out = [each.frames_out for each in held]
    assert out[:-1] == [out[0]] * (len(out) - 1) < out[-1:]


def test_a_session_that_has_started_cannot_be_held_any_more():
    with Stepping(ram="4M") as stepping, pytest.raises(LocalError, match="was not started"):
        stepping.session.hold_messages()
