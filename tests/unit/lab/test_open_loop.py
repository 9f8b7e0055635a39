"""Requests at a steady pace: nobody is waited for, every answer is timed, the end is certain."""

from __future__ import annotations

import itertools
import socket
import threading
from contextlib import suppress

import pytest

from colobench.errors import LocalError
from colobench.lab.clients.closed_loop import ClientsStalled
from colobench.lab.clients.open_loop import probe
from colobench.lab.compare.load import wait_for_answer
from colobench.processes.errors import NodeGone


class Server:
    """Answers PONG to every request, or nothing until it is let go."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = self.listening.getsockname()
        self.go_on = threading.Event()
        self.go_on.set()
        self.received: list[int] = []
        self.closes = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            while data := connection.recv(1 << 16):
                count = data.count(b"PING")
                self.received.append(count)
                if self.closes:
                    return
                self.go_on.wait()
                with suppress(OSError):
                    # Who asked may have given up.
                    connection.sendall(b"+PONG\r\n" * count)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.go_on.set()
    server.listening.close()


PINGS = [(b"PING",)]


def run(server, **settings):
    answers = []
    chosen = {"seconds": 0.05, "every_ms": 1.0, "connections": 4, "seen": answers.append}
    probe(server.address, itertools.cycle(PINGS), **chosen | settings)
    return answers


def test_every_request_has_its_answer_and_all_connections_take_turns(server):
    answers = run(server)
    assert len(answers) == sum(server.received) == 50
    assert {each.client for each in answers} == {0, 1, 2, 3}
    assert all(each.reply == "PONG" and each.returned >= each.call for each in answers)


def test_a_server_that_does_not_answer_is_asked_all_the_same(server):
    server.go_on.clear()
    threading.Timer(0.3, server.go_on.set).start()
    answers = run(server, at_once=4)
    assert len(answers) == 200


def test_it_ends_when_told(server):
    turns = iter([True] * 3)
    assert len(run(server, seconds=3600, go_on=lambda: next(turns, False))) == 3


def test_a_lost_connection_and_silence_are_told(server):
    server.go_on.clear()
    with pytest.raises(ClientsStalled, match="expected 50 more answers"):
        run(server, timeout=0.1)
    server.go_on.set()
    server.closes = True
    with pytest.raises((ClientsStalled, OSError)):
        run(server, connections=1)


def test_more_at_once_than_connections_is_refused(server):
    with pytest.raises(LocalError, match="expected 1 to 4 requests at once, found 5"):
        run(server, at_once=5)


def test_nobody_there_is_told():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with pytest.raises(ClientsStalled, match="expected to connect"):
        probe(address, itertools.cycle(PINGS), seconds=1, seen=print)


def test_waiting_for_an_answer_ends_with_its_node() -> None:
    tries: list[int] = []

    def go_on() -> None:
        tries.append(1)
        if len(tries) == 3:
            raise NodeGone("primary: expected a living node, found it ended")

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(NodeGone):
        wait_for_answer(address, 60.0, go_on)
