"""NBD without I/O: both sides agree, in pieces of any size, and no peer's bytes do harm."""

from __future__ import annotations

import errno
import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.block.nbd import format as nbd
from colobench.block.nbd.client_conversation import ClientConversation
from colobench.block.nbd.errors import ExportRefused, NBDEnded, NBDError, UnexpectedReply
from colobench.block.nbd.format import (
    ExtentState,
    NBDChunk,
    NBDCommand,
    NBDOption,
    NBDOptionReply,
    TransmissionFlag,
)
from colobench.block.nbd.server_conversation import (
    ExportChosen,
    NBDExport,
    ServerConversation,
    check_exports,
)
from colobench.block.nbd.uri import parse_nbd_uri
from colobench.errors import LocalError
from nbd_pair import EXTREMES, SIZE, Pair, client_with, recorded, rounds, server_with
from share import SEED, amount, each_with_some

EXPORTS = {"disk": NBDExport(SIZE, description="a disk"), "other": NBDExport(512, read_only=True)}
BOTH = pytest.mark.parametrize("structured", [True, False])


def option(number: int, data: bytes = b"") -> bytes:
    return nbd.OPTION_HEADER.pack(nbd.OPTION_MAGIC, number, len(data)) + data


def named(name: str, *kinds: int) -> bytes:
    text = name.encode()
    words = struct.pack(">I", len(text)) + text + struct.pack(">H", len(kinds))
    return words + b"".join(struct.pack(">H", kind) for kind in kinds)


def greeted(exports=EXPORTS) -> ServerConversation:
    """Give a server whose client has sent its flags."""
    server = ServerConversation(exports)
    server.take_outgoing()
    server.feed(nbd.CLIENT_FLAGS.pack(3))
    return server


def answers(server: ServerConversation, data: bytes) -> list[tuple[int, bytes]]:
    """Feed options; return the replies' types and data."""
    server.feed(data)
    said, found = server.take_outgoing(), []
    while said:
        magic, _, kind, length = nbd.OPTION_REPLY_HEADER.unpack_from(said)
        assert magic == nbd.OPTION_REPLY_MAGIC
        begin = nbd.OPTION_REPLY_HEADER.size
        found.append((kind, said[begin : begin + length]))
        said = said[begin + length :]
    return found


# -- Round trips ---------------------------------------------------------------------------------

SECTORS = SIZE // 512
RANGES = st.integers(0, SECTORS - 1).flatmap(
    lambda at: st.tuples(st.just(at * 512), st.integers(1, min(8, SECTORS - at)).map((512).__mul__))
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["read", "write", "trim", "zero"]), RANGES),
        st.tuples(st.just("answer"), st.integers(0, 20)),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=30,
)


@BOTH
@given(steps=STEPS)
@settings(max_examples=amount(60, 500))
def test_requests_are_answered_in_any_order_and_do_what_they_say(structured, steps):
    pair = Pair(structured=structured).open()
    memories = {}
    commands = {
        "trim": NBDCommand.TRIM,
        "zero": NBDCommand.WRITE_ZEROES,
    }
    sent = 0

    def answer(number: int) -> None:
        request = pair.requests[number % len(pair.requests)]
        before = bytes(pair.disk[request.offset :][: request.length])
        pair.answer(request)
        assert pair.replies[request.cookie].error == 0
        if request.cookie in memories:
            assert bytes(memories[request.cookie]) == before

    for what, where in steps:
        if what == "answer":
            if pair.requests:
                answer(where)
            continue
        sent += 1
        if what == "flush":
            pair.ask(NBDCommand.FLUSH)
        elif what == "read":
            memory = memoryview(bytearray(where[1]))
            memories[pair.ask(NBDCommand.READ, *where, into=memory)] = memory
        elif what == "write":
            pair.ask(NBDCommand.WRITE, *where, bytes([sent]) * where[1])
        else:
            pair.ask(commands[what], *where)
    while pair.requests:
        answer(sent)
    assert len(pair.replies) == sent
    assert pair.client.in_flight == 0
    assert not pair.server.in_flight


@BOTH
@given(cuts=st.lists(st.integers(1, 700), min_size=1))
@settings(max_examples=amount(40, 300))
def test_bytes_mean_the_same_in_pieces_of_any_size(structured, cuts):
    data = bytes(recorded(structured=structured).to_server)
    whole, pieces = (ServerConversation({"disk": NBDExport(SIZE)}) for _ in range(2))
    expected = whole.feed(data)
    found, at, number = [], 0, 0
    while at < len(data):
        size = cuts[number % len(cuts)]
        found += pieces.feed(data[at : at + size])
        at, number = at + size, number + 1
    assert [str(event) for event in found] == [str(event) for event in expected]
    assert [bytes(event.data) for event in found[1:]] == [bytes(each.data) for each in expected[1:]]
    assert pieces.take_outgoing() == whole.take_outgoing()
    assert pieces.over
    assert whole.over


def test_payload_is_received_into_the_memory_that_was_allocated_for_it():
    pair = Pair().open()
    given_out = []
    pair.server._allocate = lambda size: (
        given_out.append(memoryview(bytearray(size))) or given_out[0]
    )
    _, header = pair.client.request(NBDCommand.WRITE, 0, 4096)
    pair.server.feed(header)
    space = pair.server.space()
    assert len(space) == 4096
    space[:] = b"p" * 4096
    (request,) = pair.server.received(4096)
    assert request.data is given_out[0]
    assert bytes(given_out[0]) == b"p" * 4096


@BOTH
def test_error_of_a_request_does_not_end_the_connection(structured):
    pair = Pair(structured=structured).open()
    cookie = pair.ask(NBDCommand.READ, 0, 512, into=memoryview(bytearray(512)))
    for piece in pair.server.refuse(pair.requests.pop(), errno.EIO, "a broken disk"):
        pair.tell_client(piece)
    assert pair.replies[cookie].error == errno.EIO
    assert pair.replies[cookie].text == ("a broken disk" if structured else "")
    cookie = pair.ask(NBDCommand.FLUSH)
    pair.answer(pair.requests[0])
    assert pair.replies[cookie].error == 0


def test_extents_are_told_to_a_client_that_has_negotiated_them():
    pair = Pair(allocation=True).open()
    assert pair.opened.allocation
    cookie = pair.ask(NBDCommand.BLOCK_STATUS, 0, 4096)
    pair.answer(pair.requests[0])
    assert pair.replies[cookie].extents == ((512, ExtentState(0)), (3584, ExtentState(3)))
    assert not Pair(allocation=False).open().opened.allocation


# -- What the server says ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [5, 11, 77, 0xFFFFFFFF])
def test_unknown_option_is_refused_and_the_next_one_is_answered(number):
    server = greeted()
    assert answers(server, option(number, b"x" * 300))[0][0] == NBDOptionReply.ERR_UNSUP
    kinds = [kind for kind, _ in answers(server, option(NBDOption.LIST))]
    assert kinds == [NBDOptionReply.SERVER] * 2 + [NBDOptionReply.ACK]


def test_option_with_too_much_data_is_skipped():
    server = greeted()
    ((kind, _),) = answers(server, option(77, bytes(nbd.OPTION_LIMIT + 1)))
    assert kind == NBDOptionReply.ERR_TOO_BIG
    assert answers(server, option(NBDOption.ABORT)) == [(NBDOptionReply.ACK, b"")]
    assert server.over


@pytest.mark.parametrize(
    ("number", "data", "expected"),
    [
        (NBDOption.LIST, b"x", NBDOptionReply.ERR_INVALID),
        (NBDOption.STRUCTURED_REPLY, b"x", NBDOptionReply.ERR_INVALID),
        (NBDOption.GO, b"", NBDOptionReply.ERR_INVALID),
        (NBDOption.GO, b"\xff\xff\xff\xff", NBDOptionReply.ERR_INVALID),
        (NBDOption.GO, named("disk")[:-1], NBDOptionReply.ERR_INVALID),
        (NBDOption.INFO, named("disk", 3) + b"x", NBDOptionReply.ERR_INVALID),
        (NBDOption.GO, named("nothing"), NBDOptionReply.ERR_UNKNOWN),
        (NBDOption.GO, named(""), NBDOptionReply.ERR_UNKNOWN),
        (NBDOption.GO, b"\0\0\0\1\xff\0\0", NBDOptionReply.ERR_UNKNOWN),
        (NBDOption.SET_META_CONTEXT, named("disk"), NBDOptionReply.ERR_INVALID),
    ],
)
def test_wrong_option_is_refused_and_does_not_end_the_connection(number, data, expected):
    server = greeted()
    assert [kind for kind, _ in answers(server, option(number, data))] == [expected]
    assert answers(server, option(NBDOption.GO, named("other")))[-1][0] == NBDOptionReply.ACK


@pytest.mark.parametrize(
    "again",
    [
        b"",
        named("nothing")[:-2] + struct.pack(">I", 0),
        bytes(nbd.OPTION_LIMIT + 1),
        named("disk")[:-2] + struct.pack(">I", 0),
    ],
)
def test_contexts_are_forgotten_when_they_are_chosen_anew_even_if_that_fails(again):
    server = ServerConversation({"disk": NBDExport(SIZE, allocation=True)})
    server.take_outgoing()
    server.feed(nbd.CLIENT_FLAGS.pack(3))
    answers(server, option(NBDOption.STRUCTURED_REPLY))
    context = nbd.BASE_ALLOCATION.encode()
    query = struct.pack(">II", 1, len(context)) + context
    chosen = answers(server, option(NBDOption.SET_META_CONTEXT, named("disk")[:-2] + query))
    assert [kind for kind, _ in chosen] == [NBDOptionReply.META_CONTEXT, NBDOptionReply.ACK]
    answers(server, option(NBDOption.SET_META_CONTEXT, again))
    assert answers(server, option(NBDOption.GO, named("disk")))[-1][0] == NBDOptionReply.ACK
    server.feed(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, NBDCommand.BLOCK_STATUS, 1, 0, 512))
    assert not server.in_flight
    assert b"is not supported" in server.take_outgoing()


def test_information_tells_size_flags_and_blocks():
    found = answers(greeted(), option(NBDOption.INFO, named("other", 1, 2, 3, 99)))
    assert [kind for kind, _ in found] == [NBDOptionReply.INFO] * 3 + [NBDOptionReply.ACK]
    kind, size, flags = nbd.EXPORT_INFORMATION.unpack(found[0][1])
    assert (kind, size) == (0, 512)
    assert flags & TransmissionFlag.READ_ONLY
    assert not flags & TransmissionFlag.SEND_DF
    assert nbd.BLOCK_SIZE_INFORMATION.unpack(found[1][1]) == (3, 512, 65536, nbd.PAYLOAD_LIMIT)
    assert found[2][1] == b"\0\1other"


def test_client_that_names_no_export_gets_the_only_one():
    server = greeted({"disk": NBDExport(SIZE)})
    assert server.feed(option(NBDOption.GO, named(""))) == [ExportChosen("disk")]


@pytest.mark.parametrize("zeroes", [True, False])
def test_old_clients_choose_an_export_by_name(zeroes):
    server = ServerConversation(EXPORTS)
    server.take_outgoing()
    server.feed(nbd.CLIENT_FLAGS.pack(1 if zeroes else 3))
    assert server.feed(option(NBDOption.EXPORT_NAME, b"disk")) == [ExportChosen("disk")]
    said = server.take_outgoing()
    assert len(said) == nbd.EXPORT.size + (nbd.PADDING_BYTES if zeroes else 0)
    assert nbd.EXPORT.unpack_from(said)[0] == SIZE
    with pytest.raises(ExportRefused, match="nothing"):
        greeted().feed(option(NBDOption.EXPORT_NAME, b"nothing"))


def test_client_without_go_on_the_server_opens_the_export_by_name():
    client = ClientConversation("disk")
    client.feed(nbd.GREETING.pack(nbd.GREETING_MAGIC, nbd.OPTION_MAGIC, 1))
    for number in (NBDOption.STRUCTURED_REPLY, NBDOption.GO):
        head = (nbd.OPTION_REPLY_MAGIC, number, NBDOptionReply.ERR_UNSUP, 0)
        client.feed(nbd.OPTION_REPLY_HEADER.pack(*head))
    assert client.take_outgoing().endswith(option(NBDOption.EXPORT_NAME, b"disk"))
    (opened,) = client.feed(nbd.EXPORT.pack(SIZE, 1 | 4) + bytes(nbd.PADDING_BYTES))
    assert opened.size == SIZE
    assert opened.flags == TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH


@pytest.mark.parametrize(
    ("export", "command", "flags", "offset", "length", "expected"),
    [
        ("disk", NBDCommand.READ, 0, SIZE, 512, errno.EINVAL),
        ("disk", NBDCommand.READ, 0, 2**64 - 512, 512, errno.EINVAL),
        ("disk", NBDCommand.READ, 0, 0, 0, errno.EINVAL),
        ("disk", NBDCommand.READ, 0, 0, 2**32 - 512, errno.EINVAL),
        ("disk", NBDCommand.READ, 0, 3, 512, errno.EINVAL),
        ("disk", NBDCommand.READ, 2, 0, 512, errno.EINVAL),
        ("disk", NBDCommand.WRITE, 0, SIZE, 512, errno.ENOSPC),
        ("disk", NBDCommand.WRITE, 0x8000, 0, 512, errno.EINVAL),
        ("disk", NBDCommand.TRIM, 0, SIZE - 512, 1024, errno.ENOSPC),
        ("disk", NBDCommand.WRITE_ZEROES, 0, 0, 2**32 - 512, errno.ENOSPC),
        ("disk", NBDCommand.BLOCK_STATUS, 0, 0, 512, errno.EINVAL),
        ("disk", 5, 0, 0, 512, errno.EINVAL),
        ("disk", 0xFFFF, 0, 0, 512, errno.EINVAL),
        ("other", NBDCommand.WRITE, 0, 0, 512, errno.EPERM),
        ("other", NBDCommand.TRIM, 0, 0, 512, errno.EPERM),
    ],
)
def test_wrong_request_is_answered_at_once_and_the_next_one_is_served(
    export, command, flags, offset, length, expected
):
    server = greeted()
    server.feed(option(NBDOption.GO, named(export)))
    server.take_outgoing()
    payload = bytes(length if command == NBDCommand.WRITE else 0)
    fields = (nbd.REQUEST_MAGIC, flags, command, 77, offset, length)
    assert server.feed(nbd.REQUEST.pack(*fields) + payload) == []
    said = server.take_outgoing()
    assert nbd.SIMPLE_REPLY.unpack(said) == (nbd.SIMPLE_REPLY_MAGIC, expected, 77)
    fields = (nbd.REQUEST_MAGIC, 0, NBDCommand.READ, 78, 0, 512)
    (request,) = server.feed(nbd.REQUEST.pack(*fields))
    assert (request.cookie, request.length) == (78, 512)


def test_reply_to_a_request_that_is_not_in_flight_is_our_mistake():
    pair = Pair().open()
    pair.ask(NBDCommand.FLUSH)
    (request,) = pair.requests
    pair.server.reply(request)
    with pytest.raises(LocalError, match="in flight"):
        pair.server.reply(request)


def test_exports_that_nbd_cannot_serve_are_refused():
    with pytest.raises(LocalError, match="multiple of 512"):
        check_exports([("disk", NBDExport(1000))])
    with pytest.raises(LocalError, match="4096"):
        check_exports([("d" * 5000, NBDExport(512))])
    with pytest.raises(LocalError, match=r"expected a name in UTF-8, found 'bad\\udcff.img'"):
        check_exports([("bad\udcff.img", NBDExport(512))])


def test_export_of_a_name_that_is_no_text_is_no_place():
    with pytest.raises(LocalError, match="expected a name in UTF-8"):
        parse_nbd_uri("nbd://127.0.0.1:1/\udcff")
    with pytest.raises(LocalError, match="expected a name in UTF-8"):
        ClientConversation("\udcff")


# -- What a server may not say -------------------------------------------------------------------


def simple(cookie: int, error: int = 0) -> bytes:
    return nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, error, cookie)


def chunk(cookie: int, kind: int, data: bytes = b"", flags: int = nbd.CHUNK_DONE) -> bytes:
    head = (nbd.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(data))
    return nbd.CHUNK_HEADER.pack(*head) + data


def data_chunk(cookie: int, offset: int, data: bytes, flags: int = 0) -> bytes:
    return chunk(cookie, NBDChunk.OFFSET_DATA, struct.pack(">Q", offset) + data, flags)


def hole(cookie: int, offset: int, length: int, flags: int = 0) -> bytes:
    return chunk(cookie, NBDChunk.OFFSET_HOLE, struct.pack(">QI", offset, length), flags)


def test_answer_to_a_request_that_was_never_sent_names_the_cookie():
    pair = Pair().open()
    with pytest.raises(UnexpectedReply, match=r"cookie 99$"):
        pair.client.feed(simple(99))


def test_second_answer_is_said_to_be_one():
    pair = Pair().open()
    cookie = pair.ask(NBDCommand.FLUSH)
    pair.client.feed(simple(cookie))
    with pytest.raises(UnexpectedReply, match="answered before"):
        pair.client.feed(simple(cookie))


def test_data_of_a_read_may_come_in_chunks_of_any_order():
    pair = Pair().open()
    memory = memoryview(bytearray(b"x" * 2048))
    cookie = pair.ask(NBDCommand.READ, 512, 2048, into=memory)
    pair.client.feed(data_chunk(cookie, 2048, b"c" * 512))
    pair.client.feed(hole(cookie, 1024, 1024))
    (reply,) = pair.client.feed(data_chunk(cookie, 512, b"a" * 512, nbd.CHUNK_DONE))
    assert reply.error == 0
    assert bytes(memory) == b"a" * 512 + bytes(1024) + b"c" * 512


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([data_chunk(1, 0, b"a" * 512, 1)], "1024 bytes"),
        ([chunk(1, NBDChunk.NONE)], "1024 bytes"),
        ([chunk(1, NBDChunk.NONE, flags=0)], "DONE"),
        ([chunk(1, NBDChunk.NONE, b"x")], "0 bytes"),
        ([data_chunk(1, 0, b"a" * 512), data_chunk(1, 0, b"a" * 512)], "again"),
        ([data_chunk(1, 0, b"a" * 512), hole(1, 511, 2)], "again"),
        ([hole(1, 512, 512), data_chunk(1, 0, b"a" * 513)], "again"),
        ([data_chunk(1, 1023, b"ab")], "within 1024"),
        ([data_chunk(1, 2**64 - 1, b"a")], "within 1024"),
        ([hole(1, 0, 0)], "within 1024"),
        ([hole(1, 0, 2**32 - 1)], "within 1024"),
        ([chunk(1, NBDChunk.OFFSET_DATA, b"short")], "an offset"),
        ([chunk(1, NBDChunk.OFFSET_HOLE, b"short")], "12 bytes"),
        ([chunk(1, NBDChunk.BLOCK_STATUS, bytes(12))], "BLOCK_STATUS"),
        ([chunk(1, 99, b"")], "0x63"),
        ([chunk(1, NBDChunk.ERROR, struct.pack(">IH", 0, 0))], "an error"),
        ([chunk(1, NBDChunk.ERROR, struct.pack(">IH", 5, 9))], "its text"),
        ([chunk(1, NBDChunk.ERROR, struct.pack(">IH", 5, 0) + b"x")], "nothing more"),
        ([chunk(1, NBDChunk.ERROR, b"")], "a text"),
        ([simple(1)], "structured"),
    ],
)
def test_wrong_chunks_are_the_servers_fault(chunks, words):
    pair = Pair().open()
    pair.ask(NBDCommand.READ, 0, 1024, into=memoryview(bytearray(1024)))
    with pytest.raises(NBDError, match=words):
        pair.client.feed(b"".join(chunks))


def test_unknown_error_chunk_is_an_error_of_its_request():
    pair = Pair().open()
    cookie = pair.ask(NBDCommand.READ, 0, 1024, into=memoryview(bytearray(1024)))
    words = struct.pack(">IH", errno.EIO, 3) + b"bad" + b"more that a later NBD may have"
    (reply,) = pair.client.feed(chunk(cookie, nbd.CHUNK_IS_ERROR + 77, words))
    assert (reply.error, reply.text) == (errno.EIO, "bad")


def test_structured_reply_that_was_not_negotiated_is_the_servers_fault():
    pair = Pair(structured=False).open()
    cookie = pair.ask(NBDCommand.FLUSH)
    with pytest.raises(NBDError, match=f"{nbd.STRUCTURED_REPLY_MAGIC:#x}"):
        pair.client.feed(chunk(cookie, NBDChunk.NONE))


def test_pieces_of_a_read_that_never_adjoin_are_bounded():
    pair = Pair().open()
    cookie = pair.ask(NBDCommand.READ, 0, 32768, into=memoryview(bytearray(32768)))
    pieces = b"".join(hole(cookie, at, 1) for at in range(0, 32768, 2))
    with pytest.raises(NBDError, match="pieces"):
        pair.client.feed(pieces)


def test_server_that_refuses_the_export_is_quoted():
    client = ClientConversation("nothing")
    server = ServerConversation(EXPORTS)
    for _ in range(2):
        client.feed(server.take_outgoing())
        server.feed(client.take_outgoing())
    with pytest.raises(ExportRefused, match=r"ERR_UNKNOWN: .*'nothing'"):
        client.feed(server.take_outgoing())


def test_request_that_does_not_fit_the_export_is_our_mistake():
    client = ClientConversation()
    with pytest.raises(LocalError, match="open export"):
        client.request(NBDCommand.FLUSH)
    pair = Pair().open()
    for place in [(0, SIZE + 512), (-512, 512), (SIZE, 512)]:
        with pytest.raises(LocalError, match="within"):
            pair.client.request(NBDCommand.WRITE, *place)
    with pytest.raises(LocalError, match="at most"):
        pair.client.request(NBDCommand.WRITE, 0, nbd.PAYLOAD_LIMIT + 1)
    with pytest.raises(LocalError, match="memory"):
        pair.client.request(NBDCommand.READ, 0, 512)
    assert pair.client.in_flight == 0


# -- Bytes with faults ---------------------------------------------------------------------------


@BOTH
def test_every_cut_is_an_end_that_is_noticed(structured):
    pair = recorded(structured=structured)
    data = bytes(pair.to_server)
    for end in range(len(data)):
        assert server_with(data[:end]) == "none"
    server = ServerConversation({"disk": NBDExport(SIZE)})
    for byte in data[:-1]:
        assert isinstance(server.ended(), NBDEnded)
        server.feed(bytes([byte]))
        assert not server.over
    for end in range(len(pair.to_client)):
        assert client_with(bytes(pair.to_client[:end]), structured=structured) == "none"


@BOTH
def test_every_changed_byte_is_refused_with_a_typed_error_or_means_something_else(structured):
    pair = recorded(structured=structured)
    for side, data in ((server_with, pair.to_server), (client_with, pair.to_client)):
        said = Counter()
        for at, change in each_with_some(range(len(data)), [1, 0x80, 0xFF]):
            changed = bytearray(data)
            changed[at] ^= change
            if side is server_with:
                said[server_with(bytes(changed))] += 1
            else:
                said[client_with(bytes(changed), structured=structured)] += 1
        assert said["NBDError"] > 50, said


@BOTH
def test_extreme_lengths_everywhere_need_no_memory(structured):
    pair = recorded(structured=structured)
    for at, value in each_with_some(range(len(pair.to_server) - 3), EXTREMES):
        word = struct.pack(">I", value)
        server_with(bytes(pair.to_server[:at] + word + pair.to_server[at + 4 :]))
    for at, value in each_with_some(range(len(pair.to_client) - 3), EXTREMES):
        changed = pair.to_client[:at] + struct.pack(">I", value) + pair.to_client[at + 4 :]
        client_with(bytes(changed), structured=structured)


def test_damaged_conversations_do_no_harm():
    said = Counter(rounds(SEED, amount(1_000, 200_000)))
    print(f"seed {SEED}: {sum(said.values())} damaged conversations: {dict(sorted(said.items()))}")
    assert said["server", "NBDError"]
    assert said["client", "NBDError"]
    assert said["client", "UnexpectedReply"]


def test_an_error_is_final():
    server = greeted()
    with pytest.raises(NBDError, match="IHAVEOPT"):
        server.feed(bytes(16))
    with pytest.raises(NBDError, match="IHAVEOPT"):
        server.feed(option(NBDOption.LIST))
