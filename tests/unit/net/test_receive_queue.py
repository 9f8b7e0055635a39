"""Frames that wait for the guest: in order, in their own epoch, and only as long as a NIC takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colobench.net.frame import FRAME_MAX, FRAME_MIN
from colobench.net.mirror import MARK
from colobench.net.receive_queue import ReceiveQueue


def frame(number: int) -> bytes:
    return bytes([number]) * FRAME_MIN


def plain() -> ReceiveQueue:
    return ReceiveQueue(lambda frame: (frame,))


@given(st.lists(st.binary(min_size=FRAME_MIN, max_size=FRAME_MIN + 3)), st.integers(0, 20))
def test_the_nic_gets_frames_in_order_and_as_many_as_it_takes(frames, room):
    queue, nic = plain(), []

    def put(frame):
        if len(nic) == room:
            return False
        nic.append(frame)
        return True

    queue.arrived(frames)
    assert queue.take(put) == nic == frames[:room]
    assert len(queue) == len(frames) - len(nic)


def test_frames_that_no_nic_takes_are_refused_and_counted_once():
    queue = plain()
    queue.arrived([bytes(FRAME_MIN - 1), bytes(FRAME_MAX + 1), bytes(FRAME_MAX)])
    queue.mirrored([b"short", bytes(FRAME_MIN)])
    assert queue.refused == 3
    assert queue.take(lambda frame: True) == [bytes(FRAME_MAX), bytes(FRAME_MIN)]


def test_a_station_cannot_mark_a_checkpoint():
    queue = plain()
    queue.arrived([MARK, frame(1)])
    assert queue.refused == 1
    assert queue.take(lambda frame: True) == [frame(1)]


def test_a_load_drops_what_its_checkpoint_contains_and_lets_the_next_epoch_in():
    queue = plain()
    queue.mirrored([frame(1), MARK, frame(2)])
    assert (len(queue), queue.all) == (1, 3)
    queue.loaded()
    assert queue.take(lambda frame: True) == [frame(2)]


def test_a_load_that_overtakes_its_mark_drops_what_comes_before_the_mark():
    queue = plain()
    queue.loaded()
    queue.mirrored([frame(1), MARK, frame(2)])
    assert queue.take(lambda frame: True) == [frame(2)]


def test_a_failover_lets_in_what_waited_for_a_checkpoint_that_never_comes():
    queue = plain()
    queue.mirrored([frame(1), MARK, frame(2)])
    queue.failover()
    assert queue.take(lambda frame: True) == [frame(1), frame(2)]


def test_what_arrives_is_rewritten_and_what_is_injected_is_not():
    queue = ReceiveQueue(lambda frame: (frame, frame))
    queue.arrived([frame(1)])
    queue.inject([frame(2)])
    assert queue.take(lambda frame: True) == [frame(1), frame(1), frame(2)]
