"""A machine with the store and a disk, and no pair: a process that serves clients on a UNIX socket.

``python machine_alone.py IMAGE SIZE APPENDFSYNC SOCKET`` prints ``ready`` when clients may come. It
is there to be killed: what its store has on the disk is all that is left.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys

from colobench.fields.sizes import parse_size
from colobench.guest.numba.machine import Machine
from colobench.guest.programs import Program
from colobench.guest.settings import GuestSettings
from colobench.node.disk.guest_disks import GuestDisks
from colobench.node.disk.image import FileImage
from tcp_peer import Client

#: Seconds after which a client that was not answered says it once more.
AGAIN = 0.2
STORE = 6379


class Server:
    """Carries bytes between clients' sockets and TCP connections of a machine."""

    def __init__(self, machine: Machine, path: str) -> None:
        self.machine, self.port = machine, 40_000
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.clients: dict[socket.socket, Client] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(machine.network.kick_fd, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            ready = self.selector.select(AGAIN)
            for key, _ in ready:
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj == self.machine.network.kick_fd:
                    os.eventfd_read(key.fd)
                    self._hear()
                else:
                    self._read(key.fileobj)
            if not ready:
                for client in self.clients.values():
                    if client.out or client.fin or client.rcv is None:
                        self._say(client)

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        self.port += 1
        client = self.clients[connection] = Client(self.port, STORE)
        self.selector.register(connection, selectors.EVENT_READ)
        self._say(client)

    def _read(self, connection: socket.socket) -> None:
        client, data = self.clients[connection], connection.recv(65_536)
        client.out += data
        if not data:
            client.fin = True
            self.selector.unregister(connection)
        self._say(client)

    def _say(self, client: Client) -> None:
        for frame in client.say():
            self.machine.network.put(frame)
        self.machine.network.wake()

    def _hear(self) -> None:
        frames = self.machine.network.take_all()
        for connection, client in list(self.clients.items()):
            before = client.rcv, client.una
            client.hear(frames)
            if client.heard:
                connection.sendall(client.heard)
                client.heard = b""
            if (client.rcv, client.una) != before:
                self._say(client)


def main(image: str, size: str, policy: str, path: str) -> None:
    settings = GuestSettings(
        8 << 20, Program.KV, disks=(f"{image},size={size}",), appendfsync=policy
    )
    machine = Machine(settings)
    disks = GuestDisks(machine.disks, lambda error: os.abort())
    with FileImage(image, parse_size(size)) as backend:
        disks.set_backend(0, backend)
        disks.begin()
        disks.start()
        machine.start()
        server = Server(machine, path)
        print("ready", flush=True)
        server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
