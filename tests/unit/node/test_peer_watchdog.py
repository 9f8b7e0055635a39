"""Questions of a node to its arbiter: they are repeated until there is a verdict."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from colobench.errors import LocalError
from colobench.node import peer_watchdog
from colobench.node.address import Address
from colobench.node.heartbeat import DatagramAddress
from colobench.node.peer_watchdog import Pairing, PeerWatchdog
from colobench.protocol.arbiter import ArbiterAnswer

GRANT = b'{"granted": true, "holder": "a"}\n'


@pytest.fixture
def listener(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "arbiter"))
        made.listen()
        yield made


@pytest.fixture
def watchdog(tmp_path: Path, listener: socket.socket):
    listen, to = (DatagramAddress.parse(f"unix:{tmp_path}/{name}") for name in ("a", "b"))
    arbiter = Address.parse(f"unix:{tmp_path}/arbiter")
    pairing = Pairing("p", "a", "b", listen, to, 10.0, 60.0, arbiter)
    made = PeerWatchdog(pairing, lambda silence: None)
    yield made
    made.stop()


def serve(listener: socket.socket, answers: list[bytes]) -> threading.Thread:
    """Be an arbiter that gives these answers, one a connection."""

    def run() -> None:
        for answer in answers:
            with listener.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_an_error_of_the_arbiter_is_reported_and_the_question_repeated(
    watchdog, listener, monkeypatch
):
    monkeypatch.setattr(peer_watchdog, "_ASK_AGAIN_SECONDS", 0.01)
    errors = [b'{"error": "expected at most 64 clients, found one more"}\n', b"hello\n"]
    thread = serve(listener, [*errors, GRANT])
    reasons: list[str] = []
    assert watchdog.ask(reasons.append) == ArbiterAnswer(True, "a")
    thread.join()
    assert [reason.partition(":")[0] for reason in reasons] == ["arbiter", "answer"]


def test_a_name_that_no_arbiter_accepts_is_refused_before_anything_is_asked():
    here = DatagramAddress.parse("unix:/a")
    with pytest.raises(LocalError, match="node: expected 1 to 200 characters, found 0"):
        Pairing("p", "", "b", here, here, 10.0, 60.0, None)


def test_stopping_ends_a_node_that_asks_an_arbiter_with_errors(watchdog, listener):
    thread = serve(listener, [b'{"error": "no"}\n'])
    # Between two questions: the next one is seconds away.
    assert watchdog.ask(lambda reason: watchdog.stop()) is None
    thread.join()
