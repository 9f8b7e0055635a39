"""NBD on sockets: order, bounds and ends of a server's clients, and faults that a client meets."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from colobench.block.backend import BlockError
from colobench.block.nbd import format as nbd
from colobench.block.nbd.errors import ExportRefused, NBDError, UnexpectedReply
from colobench.block.nbd.format import NBDCommand, NBDOption
from colobench.block.nbd.server_conversation import NBDExport, NBDRequest, ServerConversation
from colobench.block.request import BlockRequest, RequestKind
from colobench.errors import LocalError, RemoteError
from colobench.node.address import Address
from colobench.node.connection import PeerLost, PeerStalled
from colobench.node.disk.image import FileImage
from colobench.node.disk.nbd_client import NBDClient
from colobench.node.disk.nbd_server import CLIENTS_LIMIT, IN_FLIGHT_LIMIT, NBDServer

pytestmark = pytest.mark.usefixtures("nothing_left")

SIZE = 8 << 20
#: Seconds within which everything that a test waits for has happened, on any machine.
PATIENCE = 60.0
READ, WRITE = RequestKind.READ, RequestKind.WRITE


class Held:
    """A disk in memory whose writes wait until the test lets them go."""

    def __init__(self) -> None:
        self.size = SIZE
        self.memory = bytearray(SIZE)
        self.let_go = threading.Event()
        self.changed = threading.Condition()
        self.held = self.most = 0
        self.flushes = 0
        self.zeroed: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.memory[offset : offset + length])

    def write(self, offset: int, data: bytes, fua: bool = False) -> None:
        with self.changed:
            self.held += 1
            self.most = max(self.most, self.held)
            self.changed.notify_all()
        assert self.let_go.wait(PATIENCE)
        with self.changed:
            self.held -= 1
        self.memory[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        self.zeroed.append((offset, length))

    def write_zeroes(self, offset: int, length: int) -> None:
        self.zeroed.append((offset, length))

    def wait_for_held(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.held == count, PATIENCE)


class Answers:
    """What the requests of a client came to."""

    def __init__(self) -> None:
        self.found: dict[object, Exception | None] = {}
        self._changed = threading.Condition()

    def of(self, name: object) -> Callable[[memoryview, Exception | None], None]:
        def on_done(data: memoryview, error: Exception | None) -> None:
            with self._changed:
                assert name not in self.found, "told twice"
                self.found[name] = error
                self._changed.notify_all()

        return on_done

    def wait(self, count: int) -> dict[object, Exception | None]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.found) >= count, PATIENCE)
        return self.found


def write(offset: int, length: int = 512) -> BlockRequest:
    return BlockRequest(WRITE, offset, length, b"w" * length)


@contextmanager
def serving(backend, tmp_path, *, family: str = "unix", **options) -> Iterator[Address]:
    uri = f"unix:{tmp_path}/nbd.sock" if family == "unix" else "tcp:127.0.0.1:0"
    listener, address = Address.parse(uri).listen()
    with NBDServer({"disk": backend}, listener, **options):
        yield address
    address.remove()


@pytest.fixture
def held(tmp_path) -> Iterator[tuple[Held, Address]]:
    backend = Held()
    with serving(backend, tmp_path) as address:
        yield backend, address
        backend.let_go.set()


# -- The server ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_disk_elsewhere_is_as_one_here(tmp_path, family):
    with ExitStack() as stack:
        image = FileImage(str(tmp_path / "image"), SIZE)
        stack.callback(image.close)
        address = stack.enter_context(serving(image, tmp_path, family=family))
        client = stack.enter_context(NBDClient(address, "disk"))
        assert client.size == SIZE
        large = os.urandom(5 << 20)
        client.write(512, large)
        client.write(4096, b"f" * 512, fua=True)
        client.flush()
        client.discard(1 << 20, 1 << 20)
        client.write_zeroes(8192, 1024)
        expected = bytearray(SIZE)
        expected[512 : 512 + len(large)] = large
        expected[4096:4608] = b"f" * 512
        expected[1 << 20 : 2 << 20] = bytes(1 << 20)
        expected[8192:9216] = bytes(1024)
        assert client.read(0, SIZE) == expected
        assert image.read(0, SIZE) == expected


def test_replies_go_out_while_an_earlier_request_is_still_worked_on(held):
    backend, address = held
    answers = Answers()
    with NBDClient(address) as client:
        client.submit(write(0), answers.of("write"))
        backend.wait_for_held(1)
        assert client.read(0, 512) == bytes(512)
        assert answers.found == {}
        backend.let_go.set()
        assert answers.wait(1) == {"write": None}
        assert client.read(0, 512) == b"w" * 512


def test_small_writes_pass_those_that_wait_if_the_backend_can_tell(tmp_path):
    class Prompt(Held):
        def write_at_once(self, offset: int, data: bytes) -> bool:
            if offset == 0:
                return False
            if offset == 512:
                raise BlockError(errno.ENOSPC, "full")
            self.memory[offset : offset + len(data)] = data
            return True

    backend, answers = Prompt(), Answers()
    with serving(backend, tmp_path) as address, NBDClient(address) as client:
        for number in range(4):
            client.submit(write(512 * number), answers.of(number))
        assert set(answers.wait(3)) == {1, 2, 3}
        error = answers.found[1]
        assert isinstance(error, BlockError)
        assert error.errno == errno.ENOSPC
        backend.wait_for_held(1)
        backend.let_go.set()
        assert answers.wait(4)[0] is None
    assert backend.memory[:2048] == b"w" * 512 + bytes(512) + b"w" * 1024


def test_requests_at_once_are_bounded_and_all_are_answered(held):
    backend, address = held
    answers = Answers()
    with NBDClient(address) as client:
        for number in range(3 * IN_FLIGHT_LIMIT):
            client.submit(write(512 * number), answers.of(number))
        backend.wait_for_held(IN_FLIGHT_LIMIT)
        backend.let_go.set()
        assert set(answers.wait(3 * IN_FLIGHT_LIMIT).values()) == {None}
    assert backend.most == IN_FLIGHT_LIMIT


def test_other_clients_are_served_while_one_waits(held):
    backend, address = held
    answers = Answers()
    with NBDClient(address) as first, NBDClient(address) as second:
        for number in range(IN_FLIGHT_LIMIT):
            first.submit(write(512 * number), answers.of(number))
        backend.wait_for_held(IN_FLIGHT_LIMIT)
        second.flush()
        assert backend.flushes == 1
        backend.let_go.set()
        answers.wait(IN_FLIGHT_LIMIT)


def test_one_client_too_many_is_sent_away(held):
    _, address = held
    with ExitStack() as stack:
        for _ in range(CLIENTS_LIMIT):
            stack.enter_context(NBDClient(address))
        with pytest.raises(PeerLost):
            NBDClient(address)


def test_close_ends_clients_and_waits_for_the_work(tmp_path):
    backend = Held()
    answers = Answers()
    listener, address = Address.parse(f"unix:{tmp_path}/nbd.sock").listen()
    server = NBDServer({"": backend}, listener)
    server.start()
    client = NBDClient(address)
    idle = NBDClient(address)
    for number in range(2 * IN_FLIGHT_LIMIT):
        client.submit(write(512 * number), answers.of(number))
    backend.wait_for_held(IN_FLIGHT_LIMIT)
    closing = threading.Thread(target=server.close)
    closing.start()
    found = answers.wait(2 * IN_FLIGHT_LIMIT)
    assert {type(error) for error in found.values()} == {PeerLost}
    assert closing.is_alive(), "a write is still worked on"
    backend.let_go.set()
    closing.join()
    assert backend.held == 0
    with pytest.raises(RemoteError):
        idle.flush()
    with pytest.raises(RemoteError):
        client.flush()
    idle.close()
    client.close()
    address.remove()


def test_server_that_was_never_started_closes(tmp_path):
    listener, address = Address.parse(f"unix:{tmp_path}/nbd.sock").listen()
    NBDServer({"": Held()}, listener).close()
    address.remove()


def test_errors_of_the_disk_are_those_of_the_request(tmp_path):
    class Broken(Held):
        def read(self, offset: int, length: int) -> bytes:
            if offset == 0:
                raise BlockError(errno.ENOSPC, "no room")
            if offset == 512:
                raise ZeroDivisionError
            return b"short"

    with serving(Broken(), tmp_path) as address, NBDClient(address) as client:
        for offset, number in ((0, errno.ENOSPC), (512, errno.EIO), (1024, errno.EIO)):
            with pytest.raises(BlockError) as caught:
                client.read(offset, 512)
            assert caught.value.errno == number
        assert client.in_flight == 0
        client.flush()


def test_data_of_a_write_is_the_backends_until_it_returns(tmp_path):
    class Keeper(Held):
        def write(self, offset: int, data: memoryview, fua: bool = False) -> None:
            kept.append(data)

    kept: list[memoryview] = []
    with serving(Keeper(), tmp_path) as address, NBDClient(address) as client:
        client.write(0, bytes(128 << 10))
        client.flush()
    with pytest.raises(ValueError, match="released"):
        kept[0].tobytes()


def test_read_only_export_takes_no_write(tmp_path):
    with (
        serving(Held(), tmp_path, read_only=True) as address,
        NBDClient(address) as client,
    ):
        with pytest.raises(BlockError, match="read-only") as caught:
            client.write(0, bytes(512))
        assert caught.value.errno == errno.EPERM
        assert client.read(0, 512) == bytes(512)


def test_size_that_is_no_multiple_of_a_sector_is_refused():
    backend = Held()
    backend.size = 1000
    with socket.socket() as listener, pytest.raises(LocalError, match="1000"):
        NBDServer({"": backend}, listener)


def handshake(connection: socket.socket) -> None:
    """Open the only export, as an old client."""
    connection.sendall(nbd.CLIENT_FLAGS.pack(3))
    connection.sendall(nbd.OPTION_HEADER.pack(nbd.OPTION_MAGIC, NBDOption.EXPORT_NAME, 0))
    expected = nbd.GREETING.size + nbd.EXPORT.size
    while expected:
        expected -= len(connection.recv(expected))


def request(command: int, offset: int = 0, length: int = 0) -> bytes:
    return nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, command, 7, offset, length)


def test_clients_that_stop_in_the_middle_are_cut_off_and_an_idle_one_is_not(tmp_path):
    with ExitStack() as stack:
        address = stack.enter_context(serving(Held(), tmp_path, stall_timeout=1))
        idle = stack.enter_context(NBDClient(address))
        connections = []
        for opened, said in (
            (False, b""),
            (False, nbd.CLIENT_FLAGS.pack(3) + b"IHAVE"),
            (True, request(NBDCommand.READ, 0, 512)[:9]),
            (True, request(NBDCommand.WRITE, 0, 4096) + b"half of it"),
        ):
            connection = stack.enter_context(address.connect(PATIENCE))
            if opened:
                handshake(connection)
            connection.sendall(said)
            connections.append(connection)
        for connection in connections:
            connection.settimeout(PATIENCE)
            while connection.recv(4096):
                pass
        # It has been idle for as long as that took.
        assert idle.read(0, 512) == bytes(512)


def test_client_that_does_not_read_its_replies_is_cut_off(tmp_path):
    with (
        serving(Held(), tmp_path, stall_timeout=1) as address,
        address.connect(PATIENCE) as connection,
    ):
        handshake(connection)
        connection.sendall(request(NBDCommand.READ, 0, SIZE) * 4)
        poll = select.poll()
        poll.register(connection, select.POLLHUP)
        assert poll.poll(PATIENCE * 1000)


def test_client_that_says_nonsense_is_cut_off_alone(held):
    _, address = held
    with NBDClient(address) as other, address.connect(PATIENCE) as connection:
        handshake(connection)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: disk\r\n\r\n")
        assert connection.recv(1) == b""
        other.flush()


def test_client_that_says_goodbye_gets_the_answers_that_are_on_their_way(held):
    backend, address = held
    with address.connect(PATIENCE) as connection:
        handshake(connection)
        connection.sendall(
            request(NBDCommand.WRITE, 0, 512) + bytes(512) + request(NBDCommand.DISC)
        )
        backend.wait_for_held(1)
        backend.let_go.set()
        said = b""
        while part := connection.recv(64):
            said += part
    assert nbd.SIMPLE_REPLY.unpack(said) == (nbd.SIMPLE_REPLY_MAGIC, 0, 7)


def test_zeros_of_any_length_reach_the_disk_in_pieces_that_it_takes(tmp_path):
    backend = Held()
    backend.size = 1 << 33
    length = (1 << 32) - 512
    with serving(backend, tmp_path) as address, address.connect(PATIENCE) as connection:
        handshake(connection)
        connection.sendall(request(NBDCommand.TRIM, 512, length))
        assert len(connection.recv(64)) == nbd.SIMPLE_REPLY.size
    assert all(size <= nbd.PAYLOAD_LIMIT for _, size in backend.zeroed)
    assert sum(size for _, size in backend.zeroed) == length
    assert backend.zeroed[0][0] == 512


# -- The client ----------------------------------------------------------------------------------


@contextmanager
def faulty(tmp_path, misbehave: Callable[[socket.socket, ServerConversation, NBDRequest], None]):
    """Serve one client until its first request; then do something else."""
    listener, address = Address.parse(f"unix:{tmp_path}/nbd.sock").listen()
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            server = ServerConversation({"": NBDExport(SIZE)})
            while True:
                connection.sendall(server.take_outgoing())
                data = connection.recv(4096)
                if not data:
                    return
                for event in server.feed(data):
                    if isinstance(event, NBDRequest):
                        misbehave(connection, server, event)
                        assert over.wait(PATIENCE)
                        return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield address
    finally:
        over.set()
        thread.join()
        listener.close()
        address.remove()


def say_nothing(connection, server, request) -> None:
    pass


def close(connection, server, request) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def answer_twice(connection, server, request) -> None:
    (piece,) = server.reply(request)
    connection.sendall(piece + piece)


def answer_another(connection, server, request) -> None:
    connection.sendall(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, 12345))


def say_nonsense(connection, server, request) -> None:
    connection.sendall(b"no such reply")


def say_half(connection, server, request) -> None:
    connection.sendall(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, 1)[:9])


@pytest.mark.parametrize(
    ("misbehave", "kind", "words"),
    [
        (say_nothing, PeerStalled, "silence"),
        (say_half, PeerStalled, ""),
        (close, PeerLost, ""),
        (answer_twice, UnexpectedReply, "answered before"),
        (answer_another, UnexpectedReply, "cookie 12345"),
        (say_nonsense, NBDError, "0x6e6f2073"),
    ],
)
def test_every_request_in_flight_hears_once_of_a_server_that_fails(
    tmp_path, misbehave, kind, words
):
    answers = Answers()
    with (
        faulty(tmp_path, misbehave) as address,
        NBDClient(address, stall_timeout=1) as client,
    ):
        told = 0
        with suppress(kind):
            for number in range(3):
                client.submit(BlockRequest(RequestKind.FLUSH), answers.of(number))
                told += 1
        found = answers.wait(told)
        # One of them has an answer if the server gave one before.
        failed = [error for error in found.values() if error is not None]
        assert len(failed) >= told - 1
        for error in failed:
            assert isinstance(error, kind)
            assert words in str(error)
        with pytest.raises(kind):
            client.flush()
        assert isinstance(client.error, kind)


def test_silent_server_is_noticed_while_negotiating(tmp_path):
    listener, address = Address.parse(f"unix:{tmp_path}/nbd.sock").listen()
    with listener, pytest.raises(PeerStalled):
        NBDClient(address, stall_timeout=0.2)
    address.remove()


def test_nobody_at_the_address_is_a_local_error(tmp_path):
    with pytest.raises(LocalError, match="connect"):
        NBDClient(Address.parse(f"unix:{tmp_path}/nbd.sock"))


def test_export_that_is_not_there_is_refused(held):
    _, address = held
    with pytest.raises(ExportRefused, match="another"):
        NBDClient(address, "another")


def test_requests_that_do_not_fit_are_refused_here(held):
    _, address = held
    with NBDClient(address) as client:
        for offset, length in ((SIZE, 512), (0, 64 << 20)):
            with pytest.raises(BlockError) as caught:
                client.read(offset, length)
            assert caught.value.errno == errno.EINVAL


def test_close_tells_those_that_wait(held):
    backend, address = held
    answers = Answers()
    client = NBDClient(address)
    client.submit(write(0), answers.of("write"))
    backend.wait_for_held(1)
    client.close()
    assert isinstance(answers.found["write"], PeerLost)
    with pytest.raises(PeerLost, match="closed"):
        client.flush()
    client.close()
