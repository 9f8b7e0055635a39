"""What a live pair says in a checkpoint, put in order to the last byte."""

from __future__ import annotations

from itertools import pairwise

import pytest

from colobench.lab.session.session import Session
from colobench.lab.studies.transcript import BUFFER, RAM_SECTION, read_messages
from colobench.wire.dissect import UNEXPLAINED

pytestmark = pytest.mark.usefixtures("nothing_left")

MESSAGES = [
    "CHECKPOINT_REQUEST",
    "CHECKPOINT_REPLY",
    "VMSTATE_SEND",
    RAM_SECTION,
    "VMSTATE_SIZE",
    BUFFER,
    "VMSTATE_RECEIVED",
    "VMSTATE_LOADED",
]


def pair(**settings):
    return Session(ram="4M", delay=None, keep_stream=True, **settings)


def captured(session):
    # After the first one nothing of the migration can be under way any more.
    session.checkpoint()
    session.relay.forget()
    session.wait_for_ticks(1)
    session.checkpoint()
    return read_messages(session.relay.chunks)


def test_a_checkpoint_is_all_of_what_is_said_and_in_this_order():
    with pair() as session:
        said = captured(session)
        assert [message.name for message in said] == MESSAGES
        assert sum(len(message.data) for message in said) == sum(
            len(chunk.data) for chunk in session.relay.chunks
        )
        assert said[0].time == 0
        assert all(a.time <= b.time for a, b in pairwise(said))
        assert not any(item.kind == UNEXPLAINED for each in said for item in each.items)


def test_buffered_ram_is_inside_the_sized_buffer():
    with pair(layout="buffered") as session:
        said = captured(session)
        assert [message.name for message in said] == [
            name for name in MESSAGES if name != RAM_SECTION
        ]
        buffer = next(message for message in said if message.name == BUFFER)
        assert [item.title for item in buffer.items if item.kind in ("END", "FULL")] == [
            *("ram", "cpu", "timer", "serial", "nic")
        ]


def test_the_devices_states_are_decoded():
    with pair() as session:
        buffer = next(each for each in captured(session) if each.name == BUFFER)
        cpu = next(item for item in buffer.items if (item.kind, item.title) == ("payload", "cpu"))
        assert f"work={session.records[-1].guest_work}," in cpu.detail


def test_a_torn_checkpoint_ends_in_the_middle():
    with pair() as session:
        session.checkpoint()
        session.relay.forget()
        session.wait_for_ticks(2)
        session.kill("primary", at="ram")
        # Then all that it had sent has crossed.
        session.wait_for_event("secondary", "COLO_EXIT", reason="error")
        session.failover()
        said = read_messages(session.relay.chunks)
        assert [message.name for message in said] == MESSAGES[:4]
        assert said[-1].items[-1].kind == UNEXPLAINED
        assert "expected 8 bytes, found 0" in said[-1].items[-1].title


def test_nothing_captured_is_nothing_said():
    assert read_messages([]) == []
