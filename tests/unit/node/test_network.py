"""A node's network: what no peer or guest can make it believe, and output that wakes the trigger.

No thread runs here: frames are taken where the network is told of the guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from colobench.errors import LocalError
from colobench.guest.interface import NoNetwork
from colobench.net.frame import GUEST_IP, GUEST_MAC, HOST_IP, HOST_MAC, ICMP, build_ipv4
from colobench.net.mirror import MARK
from colobench.node.network import MIRRORED_LIMIT, Network
from colobench.node.trigger import CheckpointCause
from colobench.settings.checkpoint import Output
from colobench.settings.compare import CompareSettings

FRAME = bytes(60)


class Card(NoNetwork):
    """A network card with a list of what it has taken, and one of what its guest has sent."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []
        self.sent: list[bytes] = []

    def put(self, frame: bytes) -> bool:
        self.taken.append(frame)
        return True

    def take_all(self) -> list[bytes]:
        sent, self.sent = self.sent, []
        return sent


class Mirror:
    """A connection to the other node's network, which writes down what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, frame: bytes, *, always: bool = False) -> None:
        self.sent.append(frame)

    def flush(self) -> None:
        pass

    def detach(self) -> None:
        pass


@pytest.fixture
def card() -> Iterator[Card]:
    with closing(Card()) as made:
        yield made


@pytest.fixture(params=[Output.BUFFER, Output.COMPARE])
def network(request: pytest.FixtureRequest, card: Card) -> Iterator[Any]:
    made: Any = Network(card, request.param, CompareSettings(), lambda error: None)
    made._mirror = Mirror()
    with closing(made):
        yield made


def test_no_station_on_the_switch_marks_a_checkpoint(network, card):
    network.lead(lambda cause: None)
    network.start()
    network._from_link([MARK, FRAME])
    assert card.taken == network._mirror.sent == [FRAME]
    assert network.statistics()["frames-refused"] == 1


def test_no_client_of_the_monitor_marks_a_checkpoint(network, card):
    network.start()
    with pytest.raises(LocalError, match="expected none that marks a checkpoint"):
        network.receive(MARK)
    assert card.taken == []


def test_no_guest_of_a_secondary_marks_a_checkpoint(network, card):
    network.follow()
    network.start()
    card.sent = [MARK]
    network.stop()
    assert network._mirror.sent == []
    assert network.statistics()["frames-discarded"] == 1


def test_output_after_a_seal_wakes_the_trigger_though_output_before_it_still_waits(card):
    causes: list[CheckpointCause] = []
    network = Network(card, Output.BUFFER, CompareSettings(), lambda error: None)
    with closing(network):
        network.lead(causes.append)
        network.seal()
        network.start()
        for covered in range(1, 4):
            card.sent = [FRAME, FRAME]
            network.stop()
            assert (len(causes), network.waiting_frames()) == (covered, 2)
            network.seal()
            assert network.waiting_frames() == 0
            network.start()
        # The commits of earlier seals say nothing of the output since the last one.
        card.sent = [FRAME]
        network.stop()
        for _ in range(3):
            network.commit()
            assert network.waiting_frames() == 1
        card.sent = [FRAME]
        network.stop()
        assert (len(causes), network.waiting_frames()) == (4, 2)


def test_compared_output_wakes_the_trigger_when_it_begins_to_wait(card):
    causes: list[CheckpointCause] = []
    network = Network(card, Output.COMPARE, CompareSettings(), lambda error: None)
    ip = build_ipv4(HOST_MAC, GUEST_MAC, GUEST_IP, HOST_IP, ICMP, bytes(8))
    with closing(network):
        network.lead(causes.append)
        network.seal()
        network.start()
        for times in (1, 2):
            card.sent = [FRAME, ip, ip]
            network.stop()
            assert len(causes) == times
            network._from_mirror([ip, ip])
            assert network.waiting_frames() == 0


def test_a_secondary_waits_with_frames_of_epochs_that_its_primary_has_not_entered(card):
    network = Network(card, Output.COMPARE, CompareSettings(), lambda error: None)
    with closing(network):
        network.lead(lambda cause: None)
        network._from_mirror([MARK] + [FRAME] * (MIRRORED_LIMIT - 2))
        assert not network._is_mirror_full()
        network._from_mirror([FRAME])
        assert network._is_mirror_full()
        network.commit()
        assert not network._is_mirror_full()
