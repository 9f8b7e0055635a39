"""A page that is sent when COLO has ended at its receiver; it must not enter the RAM cache."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Final

import numpy as np

from colobench.errors import RemoteError
from colobench.kernels.multifd_packets import SYNC
from colobench.lab.torture.older_sender import BLOCKS, packet_with_pages
from colobench.memory.ram import PAGE_SIZE, PageMemory
from colobench.node.channel import Channel
from colobench.node.migration.multifd import MultifdReceiver
from colobench.node.wait import Wait
from colobench.node.workers import Workers
from colobench.wire.multifd import handshake

_SECONDS: Final = 10.0
#: Pages that are sent while COLO goes on, and those that are sent when it has ended.
IN_TIME, LATE = (3, 4, 5), (9, 10, 11)


def receive_late_pages(kind: type[MultifdReceiver]) -> list[str]:
    """End COLO at a receiver of a class, send it pages, and say what is wrong; nothing is right."""
    main, other = socket.socketpair()
    workers = Workers(1)
    with (
        other,
        closing(workers),
        closing(PageMemory("colobench-late", BLOCKS)) as memory,
        closing(Channel(main, _SECONDS)) as channel,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sender,
    ):
        receiver = kind(channel, memory, 1, workers)
        sender.sendall(handshake(0, 1) + packet_with_pages(IN_TIME, SYNC, 1))
        receiver.accept(listener, Wait("page channels", _SECONDS))
        came, _ = receiver.take_synced(memory)
        if came != len(IN_TIME):
            return [f"expected {len(IN_TIME)} pages while COLO goes on, found {came}"]
        # What a failover does.
        channel.shut_down()
        with suppress(OSError):
            sender.sendall(packet_with_pages(LATE, SYNC, 2))
        with suppress(RemoteError):
            receiver.take_synced(memory)
        return _problems(memory)


def _problems(memory: PageMemory) -> list[str]:
    pages = memory.array.reshape(-1, PAGE_SIZE)
    late: Sequence[int] = [page for page in LATE if np.any(pages[page])]
    return [f"pages {late} came into the RAM cache when COLO had ended"] if late else []
