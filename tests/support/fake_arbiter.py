"""An arbiter that answers one question, when a test tells it to."""

from __future__ import annotations

import socket
import threading
from pathlib import Path


class FakeArbiter:
    """Answers one question, when it is told to."""

    def __init__(self, path: Path) -> None:
        self.asked, self._answer = threading.Event(), threading.Event()
        self._said = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            connection.recv(1000)
            self.asked.set()
            assert self._answer.wait(60)
            connection.sendall(self._said)

    def answer(self, granted: bool) -> None:
        holder = "secondary" if granted else "primary"
        self._said = f'{{"granted": {str(granted).lower()}, "holder": "{holder}"}}\n'.encode()
        self._answer.set()

    def join(self) -> None:
        self._thread.join()
