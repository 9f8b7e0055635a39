"""A recorded QEMU as COLO's primary, which does not wait for answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from colobench.peers.dataset import read_manifest, read_recording
from places import CLONE

DIRECTORY = CLONE / "datasets/qemu"
ENTRIES = {entry.name: entry for entry in read_manifest(DIRECTORY)}


@cache
def recording(name: str) -> bytes:
    file = ENTRIES[name].files[0]
    return read_recording(DIRECTORY / file["name"], file["sha256"])


def send(address: str, data: bytes, then: Callable[[socket.socket], object] | None = None) -> None:
    """Be a primary that sends all its bytes, without waiting for an answer."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(address.removeprefix("unix:"))
        reader = threading.Thread(target=_drain, args=(peer,))
        reader.start()
        with suppress(OSError):
            peer.sendall(data)
            if then is not None:
                then(peer)
            peer.shutdown(socket.SHUT_WR)
        reader.join()


def _drain(peer: socket.socket) -> None:
    with suppress(OSError):
        while peer.recv(4096):
            pass
