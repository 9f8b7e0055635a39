"""filter_buffer holds everything, in order, until it is told; and the gate keeps epochs apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colobench.net.buffer import FilterBuffer
from colobench.net.frame import ethertype
from colobench.net.mirror import MARK, EpochGate
from colobench.net.outcome import NOTHING


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from(["seal", "checkpoint"]))))
def test_each_frame_leaves_once_in_order_at_the_checkpoint_that_covers_it(steps):
    # Frames of each sealed checkpoint that is not committed, and those after the last seal.
    buffer, held = FilterBuffer(), []
    epochs, newest = [], []
    for now, step in enumerate(steps):
        if step == "seal":
            buffer.seal()
            epochs.append(newest)
            newest = []
        elif step == "checkpoint":
            assert buffer.checkpoint() == (epochs.pop(0) if epochs else [])
        else:
            assert buffer.primary(step, now) == NOTHING
            newest.append(step)
        held = [frame for epoch in [*epochs, newest] for frame in epoch]
        assert buffer.scan(now) == buffer.secondary(b"said", now) == NOTHING
        assert buffer.counters() == {"held": len(held)}
        assert buffer.unsealed() == len(newest)
    assert buffer.failover() == held


def test_frame_sent_after_the_seal_waits_for_the_next_checkpoint():
    buffer = FilterBuffer()
    buffer.primary(b"a", 0)
    buffer.seal()
    buffer.primary(b"b", 1)
    assert buffer.checkpoint() == [b"a"]
    assert buffer.checkpoint() == []
    buffer.seal()
    assert buffer.checkpoint() == [b"b"]


def test_what_was_released_is_the_callers():
    buffer = FilterBuffer()
    buffer.primary(b"a", 0)
    buffer.seal()
    released = buffer.checkpoint()
    buffer.primary(b"b", 1)
    assert released == [b"a"]


@given(st.data())
def test_the_gate_lets_a_frame_pass_in_its_own_epoch_only(data):
    """Frames carry their epoch; marks and checkpoints come in any order."""
    gate, sent, entered, early = EpochGate(), 0, 0, []
    for _ in range(data.draw(st.integers(0, 40))):
        action = data.draw(st.sampled_from(["frame", "frame", "mark", "checkpoint"]))
        frame = bytes([sent])
        if action == "mark":
            sent += 1
            assert gate.frame(MARK) == []
        elif action == "checkpoint":
            entered += 1
            assert gate.checkpoint() == [each for each in early if each == bytes([entered])]
        else:
            early += [frame] * (sent > entered)
            assert gate.frame(frame) == [frame] * (sent == entered)


def test_a_failover_gives_what_waits_for_a_checkpoint_that_never_comes():
    gate = EpochGate()
    assert gate.frame(MARK) == []
    assert gate.frame(b"x") == []
    assert gate.failover() == [b"x"]
    assert gate.frame(b"y") == [b"y"]


def test_the_gate_counts_what_waits_for_later_checkpoints():
    gate = EpochGate()
    for frame in (b"now", MARK, b"early", b"early", MARK):
        gate.frame(frame)
    assert gate.early == 4
    gate.checkpoint()
    assert gate.early == 1
    gate.failover()
    assert gate.early == 0


def test_a_mark_is_an_ethernet_frame_of_no_protocol_that_a_guest_speaks():
    assert len(MARK) == 60
    assert ethertype(MARK) == 0x88B5
