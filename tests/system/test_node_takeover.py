"""A node's takeover: it runs by the tables that are explored, and refuses what they do not list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from colobench.errors import LocalError
from colobench.node import takeover as takeover_module
from colobench.node.address import Address
from colobench.node.heartbeat import DatagramAddress
from colobench.node.monitor import Monitor
from colobench.node.peer_watchdog import Pairing, PeerWatchdog
from colobench.node.takeover import Takeover
from colobench.protocol.arbiter import STANDING, Standing
from colobench.protocol.colo import UPSTREAM, Conversation, Role, primary_table, secondary_table
from colobench.protocol.exploration.rules import Rules, of_variant
from colobench.protocol.failover import FAILOVER, FailoverState
from colobench.protocol.table import MissingAction
from colobench.settings.checkpoint import Capture, Layout
from fake_arbiter import FakeArbiter

WAIT = 60.0


class RecordingNode:
    """A node that only writes down what its takeover asks for."""

    role = Role.SECONDARY

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.done = threading.Event()
        self.is_loading = False

    def in_colo(self) -> bool:
        return True

    def loading(self) -> bool:
        return self.is_loading

    def interrupt(self) -> None:
        pass

    def cut_off(self) -> None:
        self.calls.append("cut off")

    def run_alone(self) -> None:
        self.calls.append("run alone")
        self.done.set()

    def fence(self, holder: str) -> None:
        self.calls.append(f"fence: {holder}")
        self.done.set()


def pairing(directory: Path) -> Pairing:
    """Pair a node with a peer that is not there."""
    return Pairing(
        "pairing",
        "secondary",
        "primary",
        DatagramAddress.parse(f"unix:{directory}/secondary"),
        DatagramAddress.parse(f"unix:{directory}/primary"),
        0.02,
        0.2,
        Address.parse(f"unix:{directory}/arbiter"),
    )


class Doubt:
    """A takeover whose node has lost its peer and waits for the arbiter's verdict."""

    def __init__(self, directory: Path) -> None:
        self.node = RecordingNode()
        self.takeover = Takeover(self.node, Monitor(str(directory / "qmp"), {}), threading.RLock())
        self.arbiter = FakeArbiter(directory / "arbiter")
        self.takeover.watch(pairing(directory))
        assert self.arbiter.asked.wait(WAIT)

    def end(self) -> None:
        self.arbiter.answer(granted=False)
        self.arbiter.join()
        self.takeover.stop()


@pytest.fixture
def doubt(tmp_path: Path) -> Iterator[Doubt]:
    doubt = Doubt(tmp_path)
    yield doubt
    doubt.end()


def test_explorer_and_nodes_share_their_tables(doubt: Doubt) -> None:
    rules = Rules()
    assert doubt.takeover.standing.table is rules.standing is STANDING
    assert doubt.takeover.failover.table is rules.failover is FAILOVER
    form = (UPSTREAM, Layout.SEPARATED)
    for capture in Capture:
        rules = of_variant(UPSTREAM, 2, capture)
        primary = Conversation(Role.PRIMARY, *form, capture)
        secondary = Conversation(Role.SECONDARY, *form, capture)
        assert primary.table is rules.primary is primary_table(UPSTREAM, capture)
        assert secondary.table is rules.secondary is secondary_table(*form, capture)


def test_node_in_doubt_neither_serves_nor_ends_before_a_verdict(doubt: Doubt) -> None:
    assert doubt.takeover.standing.state is Standing.ASKING
    assert doubt.node.calls == []
    assert not doubt.takeover.begun


def test_granted_node_takes_over_and_refuses_to_be_told_again(doubt: Doubt) -> None:
    doubt.arbiter.answer(granted=True)
    assert doubt.node.done.wait(WAIT)
    doubt.takeover.stop()
    assert doubt.node.calls == ["cut off", "run alone"]
    assert doubt.takeover.failover.state is FailoverState.COMPLETED
    with pytest.raises(LocalError, match="COLO failover is already activated"):
        doubt.takeover.told()
    assert doubt.node.calls == ["cut off", "run alone"]


def test_refused_node_is_fenced_and_refuses_to_be_told(doubt: Doubt) -> None:
    doubt.arbiter.answer(granted=False)
    assert doubt.node.done.wait(WAIT)
    assert doubt.node.calls == ["fence: primary"]
    assert doubt.takeover.standing.state is Standing.OUT
    with pytest.raises(LocalError, match="the arbiter has granted primary, not us"):
        doubt.takeover.told()
    assert doubt.node.calls == ["fence: primary"]
    assert not doubt.takeover.begun


@pytest.mark.parametrize("granted", [False, True])
def test_verdict_that_comes_after_x_colo_lost_heartbeat_changes_nothing(
    doubt: Doubt, granted: bool
) -> None:
    doubt.takeover.told()
    doubt.arbiter.answer(granted=granted)
    doubt.arbiter.join()
    doubt.takeover.stop()
    assert doubt.node.calls == ["cut off", "run alone"]
    assert doubt.takeover.standing.state is Standing.ALONE


def test_takeover_during_a_load_waits_for_its_end(doubt: Doubt) -> None:
    doubt.node.is_loading = True
    doubt.takeover.told()
    assert doubt.node.calls == []
    with pytest.raises(LocalError, match="already activated"):
        doubt.takeover.told()
    doubt.node.is_loading = False
    assert doubt.takeover.load_finished()
    assert doubt.node.calls == ["cut off", "run alone"]


@pytest.mark.parametrize("name", ["STANDING", "FAILOVER"])
def test_table_with_an_action_that_nobody_performs_is_found_when_the_node_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    state = next(iter(getattr(takeover_module, name)))
    broken = {state: {"SURPRISE": (state, (Role.PRIMARY,))}}
    monkeypatch.setattr(takeover_module, name, broken)
    with pytest.raises(MissingAction, match="SURPRISE: expected a function for PRIMARY"):
        Takeover(RecordingNode(), Monitor(str(tmp_path / "qmp"), {}), threading.RLock())


def test_grant_that_comes_while_colo_fails_ends_the_watch_in_time(tmp_path: Path) -> None:
    stopped = threading.Event()

    def lost(silence: float) -> None:
        verdict = watchdog.ask(lambda why: None)
        assert verdict is not None
        assert verdict.granted
        # As a node does that takes over.
        watchdog.stop()
        stopped.set()

    arbiter = FakeArbiter(tmp_path / "arbiter")
    watchdog = PeerWatchdog(pairing(tmp_path), lost)
    # The peer was silent, so the heartbeat's thread asks; then its connection ends, too.
    assert arbiter.asked.wait(WAIT)
    watchdog.colo_failed()
    arbiter.answer(granted=True)
    assert stopped.wait(WAIT)
    arbiter.join()
