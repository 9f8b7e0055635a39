"""What a node does about a silent peer, and that its end waits for nobody who waits for it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from colobench.node.address import Address
from colobench.node.heartbeat import DatagramAddress
from colobench.node.watch import Watch


def test_grant_that_comes_while_colo_fails_ends_the_watch_in_time(tmp_path: Path) -> None:
    asked, answer, stopped = (threading.Event() for _ in range(3))

    def arbitrate(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            asked.set()
            answer.wait()
            connection.sendall(b'{"granted": true, "holder": "secondary"}\n')

    def granted() -> None:
        # As a node does that takes over.
        watch.stop()
        stopped.set()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "arbiter"))
        listener.listen()
        arbiter = threading.Thread(target=arbitrate, args=[listener])
        arbiter.start()
        watch = Watch(
            "pairing",
            "secondary",
            "primary",
            DatagramAddress.parse(f"unix:{tmp_path}/secondary"),
            DatagramAddress.parse(f"unix:{tmp_path}/primary"),
            0.02,
            0.2,
            Address.parse(f"unix:{tmp_path}/arbiter"),
            on_lost=lambda silence: None,
            on_granted=granted,
            on_refused=lambda holder: None,
            on_unreachable=lambda why: None,
        )
        # The peer was silent, so the heartbeat's thread asks; then its connection ends, too.
        assert asked.wait(60)
        watch.colo_failed()
        answer.set()
        assert stopped.wait(60)
        arbiter.join()
