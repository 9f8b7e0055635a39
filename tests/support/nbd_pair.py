"""Both conversations of NBD on one disk in memory, and their bytes with faults in them."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from colobench.block.nbd.client_conversation import ClientConversation, ExportOpened, NBDReply
from colobench.block.nbd.errors import ExportRefused, NBDError
from colobench.block.nbd.format import (
    PAYLOAD_LIMIT,
    ExtentState,
    NBDCommand,
    NBDCommandFlag,
)
from colobench.block.nbd.server_conversation import (
    ExportChosen,
    NBDExport,
    NBDRequest,
    ServerConversation,
)

SIZE = 64 << 10
#: Words that lengths, counts, kinds and offsets are replaced with.
EXTREMES = [0, 1, 2, 3, 7, 511, 512, 4095, 4097, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x2000001]
#: Most bytes that a side may have to send, however it is fed.
OUTGOING_LIMIT = 1 << 20


class Pair:
    """A client and a server whose bytes go from one to the other at once."""

    def __init__(self, *, structured: bool = True, allocation: bool = False) -> None:
        self.allocated: list[int] = []
        exports = {"disk": NBDExport(SIZE, description="a disk", allocation=allocation)}
        self.server = ServerConversation(exports, self.allocate)
        self.client = ClientConversation("disk", structured=structured, allocation=allocation)
        self.disk = bytearray(SIZE)
        self.requests: list[NBDRequest] = []
        self.replies: dict[int, NBDReply] = {}
        self.opened: ExportOpened | None = None
        #: Bytes that each side has been fed.
        self.to_server, self.to_client = bytearray(), bytearray()

    def allocate(self, size: int) -> memoryview:
        self.allocated.append(size)
        return memoryview(bytearray(size))

    def open(self) -> Pair:
        """Negotiate."""
        while self.opened is None:
            self.tell_client(self.server.take_outgoing())
            self.tell_server(self.client.take_outgoing())
        return self

    def tell_server(self, data: bytes) -> None:
        self.to_server += data
        for event in self.server.feed(data):
            if isinstance(event, ExportChosen):
                assert event.name == "disk"
            else:
                self.requests.append(event)
        self.tell_client(self.server.take_outgoing())

    def tell_client(self, data: bytes | memoryview) -> None:
        self.to_client += data
        for event in self.client.feed(data):
            if isinstance(event, ExportOpened):
                self.opened = event
            else:
                assert event.cookie not in self.replies
                self.replies[event.cookie] = event

    def ask(
        self,
        command: NBDCommand,
        offset: int = 0,
        length: int = 0,
        data: bytes = b"",
        into: memoryview | None = None,
        flags: int = 0,
    ) -> int:
        """Send a request to the server; return its cookie."""
        flag = NBDCommandFlag(flags)
        cookie, header = self.client.request(command, offset, length, flag, into)
        self.tell_server(header + data)
        return cookie

    def answer(self, request: NBDRequest) -> None:
        """Do a request, and send the reply to the client."""
        self.requests.remove(request)
        begin, end = request.offset, request.offset + request.length
        if request.command is NBDCommand.BLOCK_STATUS:
            extents = [(512, ExtentState(0)), (request.length - 512, ExtentState(3))]
            pieces = self.server.reply_extents(request, [each for each in extents if each[0]])
        elif request.command is NBDCommand.READ:
            pieces = self.server.reply(request, bytes(self.disk[begin:end]))
        else:
            if request.command is NBDCommand.WRITE:
                self.disk[begin:end] = request.data
            elif request.command is not NBDCommand.FLUSH:
                self.disk[begin:end] = bytes(request.length)
            pieces = self.server.reply(request)
        for piece in pieces:
            self.tell_client(piece)


def recorded(*, structured: bool = True, allocation: bool = True) -> Pair:
    """Give a pair that has negotiated and sent requests and replies of every kind."""
    pair = Pair(structured=structured, allocation=allocation).open()
    pair.ask(NBDCommand.WRITE, 512, 512, b"w" * 512, flags=1)
    pair.ask(NBDCommand.READ, 0, 1024, into=memoryview(bytearray(1024)))
    pair.ask(NBDCommand.FLUSH)
    pair.ask(NBDCommand.TRIM, 1024, 512)
    pair.ask(NBDCommand.WRITE_ZEROES, 512, 512, flags=2)
    if pair.opened.allocation:
        pair.ask(NBDCommand.BLOCK_STATUS, 0, 4096)
    for request in reversed(pair.requests[:]):
        pair.answer(request)
    # One that the server refuses by itself, and the end.
    pair.ask(NBDCommand.TRIM, 1, 512)
    pair.tell_server(pair.client.disconnect())
    return pair


def server_with(data: bytes) -> str:
    """Feed a new server; return the name of the error, or "none"."""
    pair = Pair(allocation=True)
    found = "none"
    try:
        pair.server.feed(data)
    except (NBDError, ExportRefused) as error:
        found = type(error).__name__
    assert all(size <= PAYLOAD_LIMIT for size in pair.allocated)
    assert len(pair.server.take_outgoing()) < OUTGOING_LIMIT
    return found


def client_with(data: bytes, *, structured: bool = True) -> str:
    """Feed a new client that sends the requests of `recorded`; see `server_with`."""
    client = ClientConversation("disk", structured=structured, allocation=True)
    found = "none"
    memory = memoryview(bytearray(1024))
    events = []
    at = 0
    try:
        # Requests are sent when the export is open, before a byte of a reply.
        while not events and at < len(data):
            events = client.feed(data[at : at + 1])
            client.take_outgoing()
            at += 1
        if events:
            (opened,) = events
            if opened.size < SIZE:
                return "another size"
            client.request(NBDCommand.WRITE, 512, 512)
            client.request(NBDCommand.READ, 0, 1024, into=memory)
            client.request(NBDCommand.FLUSH)
            client.request(NBDCommand.TRIM, 1024, 512)
            client.request(NBDCommand.WRITE_ZEROES, 512, 512)
            if opened.allocation:
                client.request(NBDCommand.BLOCK_STATUS, 0, 4096)
            client.request(NBDCommand.TRIM, 1, 512)
            events += client.feed(data[at:])
    except (NBDError, ExportRefused) as error:
        found = type(error).__name__
    cookies = [event.cookie for event in events if isinstance(event, NBDReply)]
    assert len(cookies) == len(set(cookies))
    return found


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Change bytes of a conversation at random: words, bits, lengths, order, cuts."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randrange(len(changed) or 1)
        how = chance.randrange(7)
        if how == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            changed[at : at + 4] = struct.pack(">I", chance.choice(EXTREMES))
        elif how == 2:
            changed[at : at + 8] = struct.pack(">Q", chance.getrandbits(chance.choice([8, 33, 64])))
        elif how == 3:
            del changed[at : at + chance.randrange(1, 40)]
        elif how == 4:
            changed[at:at] = chance.randbytes(chance.randrange(1, 40))
        elif how == 5:
            other = chance.randrange(len(changed) or 1)
            changed[at:at] = changed[other : other + chance.randrange(1, 80)]
        else:
            del changed[at:]
    return bytes(changed)


def rounds(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Feed damaged conversations to both sides; yield the side and what it said."""
    chance = random.Random(seed)
    samples = []
    for structured in (True, False):
        pair = recorded(structured=structured)
        samples.append((bytes(pair.to_server), bytes(pair.to_client), structured))
    for _ in range(count):
        to_server, to_client, structured = chance.choice(samples)
        if chance.randrange(2):
            yield "server", server_with(damaged(to_server, chance))
        else:
            said = client_with(damaged(to_client, chance), structured=structured)
            yield "client", said
