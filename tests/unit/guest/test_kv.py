"""The key-value store in guest RAM: answers, memory, marks, whatever the bytes and their pieces."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import naive
import naive_kv
from colobench.guest import heap, keyspace, kv, watches
from colobench.guest.buffers import BUFFER_BYTES
from colobench.guest.command_table import COMMANDS
from colobench.guest.commands import REPLY_ROOM
from naive_kv import OUT_OF_MEMORY, Redis, encode
from share import amount
from store_guest import (
    CLOCKED,
    FLUSHES,
    GARBAGE,
    KEYS,
    LONGEST_VALUE,
    MALFORMED,
    NOW,
    PAGE,
    PAGES,
    PIECES,
    READS,
    REQUESTS,
    ROOMS,
    STORE,
    WRITES,
    Guest,
)


@given(st.lists(REQUESTS | st.one_of(*CLOCKED), max_size=40), PIECES, ROOMS, st.booleans())
def test_any_pieces_and_any_room_give_the_replies_of_the_naive_twin(
    requests: list[list[bytes]], pieces: list[int], rooms: list[int], resp3: bool
) -> None:
    guest, whole, twin = Guest(), Guest(), Redis(NOW // 1000, LONGEST_VALUE, resp3)
    for each in (guest, whole):
        assert each.call(b"hello", b"3" if resp3 else b"2").startswith(b"%7" if resp3 else b"*14")
    data = b"".join(encode(*arguments) for arguments in requests)
    expected = b"".join(twin.call(*arguments) for arguments in requests)
    assert guest.send(data, pieces, rooms) == expected
    assert guest.requests == len(requests) + 1
    assert guest.region.check() == twin.keys
    assert guest.region.expiries() == twin.expiries
    guest.pool.blocks()
    assert whole.send(data) == expected
    assert whole.bytes == guest.bytes
    figures = guest.as_client(1).information()
    assert int(figures["total_commands_processed"]) == twin.requests + 1
    assert int(figures["keyspace_hits"]) == twin.hits
    assert int(figures["keyspace_misses"]) == twin.misses
    assert int(figures["total_error_replies"]) == twin.errors


class Store(RuleBasedStateMachine):
    """A store that is full most of the time, beside a twin that is told what was refused."""

    @initialize(pages=st.integers(4, 12))
    def start(self, pages: int) -> None:
        self.guest, self.twin, self.refused = Guest(pages * PAGE + 32), Redis(), 0

    def take(self, arguments: list[bytes]) -> None:
        before = dict(self.twin.keys)
        reply = self.guest.call(*arguments)
        if reply == OUT_OF_MEMORY:
            assert arguments[0].lower() in naive_kv.DENIED_WITHOUT_MEMORY
            self.refused += 1
            self.twin.keys = before
        else:
            assert reply == self.twin.call(*arguments)

    @rule(arguments=st.one_of(*WRITES))
    def write(self, arguments: list[bytes]) -> None:
        self.take(arguments)

    @rule(arguments=st.one_of(*READS))
    def read(self, arguments: list[bytes]) -> None:
        self.take(arguments)

    @rule(
        number=st.integers(0, 50),
        size=st.integers(0, 4000),
        kind=st.sampled_from([b"set", b"append", b"getset"]),
    )
    def fill(self, number: int, size: int, kind: bytes) -> None:
        self.take([kind, b"%d" % number, bytes([number]) * size])

    @rule(numbers=st.lists(st.integers(0, 50), min_size=1, max_size=9), size=st.integers(0, 900))
    def fill_with_many(self, numbers: list[int], size: int) -> None:
        pairs = [(b"%d" % number, bytes([number]) * size) for number in numbers]
        self.take([b"mset", *(part for pair in pairs for part in pair)])

    @precondition(lambda self: self.twin.keys)
    @rule(data=st.data())
    def delete_and_write_the_same_size_again(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.twin.keys)))
        value = self.twin.keys[key]
        assert self.guest.call(b"del", key) == self.twin.call(b"del", key)
        assert self.guest.call(b"set", key, value[::-1]) == b"+OK\r\n"
        self.twin.keys[key] = value[::-1]

    @rule(arguments=FLUSHES[0])
    def flush(self, arguments: list[bytes]) -> None:
        self.take(arguments)
        assert len(self.guest.region.blocks()) == 1

    @invariant()
    def memory_is_whole(self) -> None:
        assert self.guest.region.check() == self.twin.keys
        refused = self.guest.region.word(STORE + keyspace.REFUSED)
        assert refused == self.refused


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def fill(guest: Guest, size: int) -> int:
    """Set keys until memory is full; give how many there are."""
    number = 0
    while guest.call(b"set", b"%06d" % number, b"x" * size) == b"+OK\r\n":
        number += 1
    return number


@pytest.mark.parametrize("size", [0, 9, 100, 1000, 5000])
def test_a_full_store_refuses_writes_and_takes_them_again_after_a_delete(size: int) -> None:
    guest = Guest()
    keys = fill(guest, size)
    used = int(guest.information()["used_memory"])
    assert used >= int(guest.information()["maxmemory"]) * 0.9
    contents = guest.region.check()
    assert len(contents) == keys
    full = guest.call(b"mset", b"000000", b"y" * size, b"new", b"y" * (size + 64))
    assert full == OUT_OF_MEMORY
    assert guest.call(b"append", b"000000", b"z" * 20000) == OUT_OF_MEMORY
    assert guest.region.check() == contents
    assert guest.call(b"get", b"000001") == b"$%d\r\n%s\r\n" % (size, b"x" * size)
    assert guest.call(b"del", b"000001") == b":1\r\n"
    assert guest.call(b"set", b"999999", b"w" * size) == b"+OK\r\n"
    assert guest.call(b"set", b"999998", b"w" * size) == OUT_OF_MEMORY


def test_memory_of_many_small_values_serves_a_large_one() -> None:
    guest = Guest()
    keys = fill(guest, 10)
    for number in range(keys):
        assert guest.call(b"del", b"%06d" % number) == b":1\r\n"
    assert len(guest.region.blocks()) == 1
    total = int(guest.information()["maxmemory"])
    assert fill(guest, 30000) == total // (30000 + 1000)


def test_deleting_all_gives_everything_back_and_writes_few_pages() -> None:
    guest = Guest()
    fill(guest, 10)
    guest.waiting = encode(b"flushall")
    reply, marked = guest.execute()
    assert reply == b"+OK\r\n"
    assert guest.region.check() == {}
    assert len(guest.region.blocks()) == 1
    # The superblock's two pages and a bit, the heap's ends, the reply.
    assert len(marked) <= 7


def test_generations_that_run_out_bring_no_key_back() -> None:
    guest = Guest()
    for key in (b"a", b"b", b"c"):
        guest.call(b"set", key, b"1")
    assert guest.call(b"flushall") == b"+OK\r\n"
    at = STORE + keyspace.GENERATION
    guest.memory[at : at + 8] = np.frombuffer((2**23 - 1).to_bytes(8, "little"), dtype=np.uint8)
    assert guest.call(b"set", b"a", b"2") == b"+OK\r\n"
    assert guest.region.check() == {b"a": b"2"}
    assert guest.call(b"flushall") == b"+OK\r\n"
    assert guest.region.word(at) == 1
    assert guest.call(b"mget", b"a", b"b", b"c") == b"*3\r\n$-1\r\n$-1\r\n$-1\r\n"
    assert guest.call(b"set", b"c", b"3") == b"+OK\r\n"
    assert guest.region.check() == {b"c": b"3"}


def test_a_value_of_the_same_class_is_written_in_place() -> None:
    guest = Guest()
    for number in range(200):
        guest.call(b"set", b"%d" % number, b"x" * 300)
    blocks = guest.region.blocks()
    guest.waiting = encode(b"set", b"77", b"y" * 301)
    _, marked = guest.execute()
    assert guest.region.blocks() == blocks
    # What it counts, its client, the value and the reply, which may both cross a page's end.
    assert len(marked) <= 6
    guest.waiting = encode(b"get", b"77")
    _, marked = guest.execute()
    assert len(marked) <= 4


SCRAPS = st.sampled_from(
    b"*|$|\r\n|\r|\n|\0|1|3|-|9| |'|\"|\\|GET|SET a b|PING|*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
    b"|$4\r\nMSET\r\n|*3\r\n|*1\r\n$4\r\nQUIT\r\n|$32768\r\n|*5461\r\n|*99999999999\r\n"
    b"|COMMAND|INFO|CONFIG GET *|CLIENT SETNAME x|HELLO 3|*4\r\n".split(b"|")
)


@given(st.binary(max_size=400) | st.lists(SCRAPS, max_size=40).map(b"".join), PIECES, ROOMS)
@settings(max_examples=amount(100, 300))
def test_any_bytes_end_and_touch_nothing_else(
    data: bytes, pieces: list[int], rooms: list[int]
) -> None:
    guest, other = Guest(), Guest(garbage=GARBAGE[::-1].copy())
    # What lies behind the received bytes makes no difference, nor how they arrive.
    assert guest.send(data, pieces, rooms) == other.send(data)
    assert guest.closed == other.closed
    assert guest.region.check() == other.region.check()


#: What Redis answers with the same words …
REFUSED = {
    b"*1\r\n$%d\r\n" % (LONGEST_VALUE + 1): b"invalid bulk length",
    b"x" * 70000: b"too big inline request",
    b"*" + b"1" * BUFFER_BYTES: b"too big mbulk count string",
    b"*1\r\n$" + b"1" * BUFFER_BYTES: b"too big bulk count string",
}


@pytest.mark.parametrize("data", MALFORMED | REFUSED, ids=lambda data: repr(data[:20]))
def test_a_malformed_request_gets_a_protocol_error_and_ends_its_connection(data: bytes) -> None:
    guest = Guest()
    replies = guest.send(b"PING\r\n" + data + encode(b"PING"), [6])
    assert replies == b"+PONG\r\n-ERR Protocol error: %s\r\n" % (MALFORMED | REFUSED)[data]
    assert guest.closed
    assert guest.waiting == b""
    guest.closed = False
    assert guest.call(b"PING") == b"+PONG\r\n"


@pytest.mark.parametrize("data", [b"POST / HTTP/1.1\r\n", b"hOST: 127.0.0.1\r\n"])
def test_a_browsers_request_ends_its_connection_before_its_body_is_executed(data: bytes) -> None:
    guest = Guest()
    assert guest.send(b"PING\r\n" + data + b"\r\nSET a b\r\n") == b"+PONG\r\n"
    assert guest.closed
    guest.closed = False
    assert guest.call(b"DBSIZE") == b":0\r\n"


@pytest.mark.parametrize("count", [0, -1, -(2**62) - 1, -(2**63)])
def test_a_request_of_no_arguments_is_none(count: int) -> None:
    assert Guest().send(b"*%d\r\nPING\r\n" % count) == b"+PONG\r\n"


SIZES = [0, 1, 32725, 32726, 32727, 32728, 40000, LONGEST_VALUE, LONGEST_VALUE + 1]


@pytest.mark.parametrize("length", SIZES)
def test_a_value_of_any_length_up_to_the_longest_is_taken_and_given_back(length: int) -> None:
    guest = Guest()
    value = bytes(i % 251 for i in range(length))
    whole = encode(b"SET", b"a", value)
    header = whole.index(b"$%d\r\n" % length) + len(b"$%d\r\n" % length)
    replies = guest.send(whole[:header])
    if length > LONGEST_VALUE:
        assert replies == b"-ERR Protocol error: invalid bulk length\r\n"
        assert guest.closed
        return
    assert replies == b""
    assert guest.send(whole[header:], [1000] * 100) == b"+OK\r\n"
    # The reply has room in pieces alone, and what is asked meanwhile waits.
    rest = encode(b"GET", b"a") + encode(b"STRLEN", b"a")
    expected = b"$%d\r\n%s\r\n:%d\r\n" % (length, value, length)
    assert guest.send(rest, rooms=[700] * 100) == expected
    assert all(free for _, free in guest.pool.blocks().values())


def test_an_append_beyond_the_longest_value_is_refused() -> None:
    guest = Guest()
    assert guest.call(b"SET", b"a", b"x" * 30000) == b"+OK\r\n"
    more = LONGEST_VALUE - 30000
    assert guest.call(b"APPEND", b"a", b"y" * (more + 1)) == naive_kv.TOO_LONG
    assert guest.call(b"SETRANGE", b"a", b"%d" % (LONGEST_VALUE - 1), b"yy") == naive_kv.TOO_LONG
    assert guest.call(b"APPEND", b"a", b"y" * more) == b":%d\r\n" % LONGEST_VALUE
    assert len(guest.call(b"MGET", b"a", b"a")) == 2 * len(guest.call(b"GET", b"a")) + 4


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=40),
    st.lists(st.integers(1, 9000), max_size=40),
)
@settings(max_examples=40)
def test_a_large_request_is_the_same_however_it_arrives(
    values: list[bytes], pieces: list[int]
) -> None:
    arguments = [part for i, value in enumerate(values) for part in (b"%d" % i, value)]
    guest, other = Guest(), Guest()
    data = encode(b"MSET", *arguments) + encode(b"MGET", *arguments[::2]) + encode(b"PING")
    replies = guest.send(data, pieces)
    assert replies == other.send(data)
    whole = b"".join(b"$%d\r\n%s\r\n" % (len(value), value) for value in values)
    assert replies == b"+OK\r\n*%d\r\n%s+PONG\r\n" % (len(values), whole)
    assert all(free for _, free in guest.pool.blocks().values())


def test_a_request_for_which_there_is_no_memory_is_skipped_and_answered() -> None:
    guest = Guest()
    elements = b"$1\r\na\r\n" * 10**5
    assert guest.send(b"*100000\r\n" + elements + encode(b"PING")) == (OUT_OF_MEMORY + b"+PONG\r\n")
    # Within a transaction it is refused, and EXEC fails.
    data = encode(b"MULTI") + b"*100000\r\n" + elements + encode(b"EXEC")
    assert guest.send(data).startswith(b"+OK\r\n" + OUT_OF_MEMORY + b"-EXECABORT ")
    assert all(free for _, free in guest.pool.blocks().values())


def test_a_request_has_as_many_elements_as_in_redis() -> None:
    guest = Guest()
    assert guest.send(b"*2147483647\r\n$4\r\nMGET\r\n") == b""
    assert not guest.closed
    guest = Guest()
    keys = [b"%d" % (number % 10) for number in range(20000)]
    assert guest.call(b"DEL", *keys) == b":0\r\n"
    assert guest.call(b"EXISTS", *keys) == b":0\r\n"


@pytest.mark.parametrize("room", range(0, 150, 7))
def test_a_request_whose_reply_lacks_room_is_not_executed(room: int) -> None:
    guest = Guest()
    guest.call(b"MSET", b"n", b"5", b"v", b"x" * 140)
    before = guest.bytes
    for arguments in ([b"INCR", b"n"], [b"GET", b"v"], [b"GETSET", b"v", b"y"], [b"FLUSHALL"]):
        guest.waiting = encode(*arguments)
        replies, _ = guest.execute(room)
        fits = arguments[0] in (b"INCR", b"FLUSHALL") and room >= REPLY_ROOM
        assert guest.blocked != fits
        if not fits:
            assert replies == b""
            assert guest.bytes == before
            assert guest.waiting == encode(*arguments)
        before = guest.bytes


def test_replies_that_do_not_fit_wait_for_those_before() -> None:
    guest = Guest()
    guest.call(b"SET", b"v", b"x" * 100)
    guest.waiting = encode(b"GET", b"v") * 5
    replies, _ = guest.execute(350)
    assert replies == (b"$100\r\n" + b"x" * 100 + b"\r\n") * 3
    assert guest.blocked
    assert guest.waiting == encode(b"GET", b"v") * 2


@pytest.mark.parametrize("size", [0, 4096, kv.SMALLEST_STORE - 1])
def test_a_region_that_is_too_small_is_left_alone(size: int) -> None:
    memory, bitmap = GARBAGE.copy(), np.zeros(PAGES // 64, dtype=np.uint64)
    assert kv.initialize(memory, bitmap, STORE, size) == 0
    assert kv.initialize(memory, bitmap, (PAGES - 4) * PAGE, 5 * PAGE) == 0
    assert kv.initialize_clients(memory, bitmap, STORE, size) == 0
    assert kv.initialize_clients(memory, bitmap, (PAGES - 4) * PAGE, 9 * PAGE) == 0
    assert (memory == GARBAGE).all()
    assert not bitmap.any()


def test_a_fresh_store_in_empty_memory_leaves_its_table_clean() -> None:
    memory, bitmap = np.zeros(64 * PAGE, dtype=np.uint8), np.zeros(1, dtype=np.uint64)
    assert kv.initialize(memory, bitmap, 0, 64 * PAGE) == 1
    assert naive.pages_of(bitmap) == [0, 6, 63]


def test_what_is_not_a_store_executes_nothing_and_closes() -> None:
    guest = Guest()
    guest.memory[STORE] ^= 1
    assert guest.call(b"SET", b"a", b"b").startswith(b"-ERR store damaged: its header ")
    assert guest.closed
    assert guest.requests == 0


def test_the_hash_is_siphash() -> None:
    # The paper's example, for SipHash-2-4; `Region.entries` holds the store to the twin.
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    assert naive_kv.siphash(bytes(range(15)), key, 2, 4) == 0xA129CA6149BE45E5


def test_keys_spread_over_the_chains() -> None:
    guest = Guest(garbage=np.zeros_like(GARBAGE))
    keys = fill(guest, 0)
    region = guest.region
    chains = region.word(STORE + keyspace.CHAINS)
    table = STORE + keyspace.SUPERBLOCK_BYTES
    taken = sum(region.word(table + 8 * chain) != 0 for chain in range(chains))
    # As many as that many balls leave boxes that are not empty, roughly.
    assert abs(taken / chains - (1 - (1 - 1 / chains) ** keys)) < 0.05


def test_quit_answers_and_drops_what_follows() -> None:
    guest = Guest()
    assert guest.send(encode(b"quit") + encode(b"set", b"a", b"b")) == b"+OK\r\n"
    assert guest.closed
    guest.closed = False
    assert guest.call(b"exists", b"a") == b":0\r\n"


@pytest.mark.parametrize(
    "data",
    [encode(b"SET", b"a", b"\r\n$1\r\nb"), encode(b"INCR", b""), b"set 'a b' c\r\n", b"PING\n"],
)
def test_a_request_is_executed_when_its_last_byte_is_there(data: bytes) -> None:
    for length in range(1, len(data)):
        guest = Guest()
        guest.send(b"")
        guest.execute()
        before = guest.bytes
        assert guest.send(data[:length]) == b""
        assert guest.requests == 0
        assert guest.waiting == data[:length]
        assert guest.bytes == before
        assert guest.send(data[length:]) in (b"+OK\r\n", b":1\r\n", b"+PONG\r\n")


def test_a_request_for_nothing_is_skipped() -> None:
    guest = Guest()
    assert guest.send(b"*0\r\n*-1\r\n\r\n  \r\n\n" + encode(b"PING")) == b"+PONG\r\n"
    assert guest.requests == 1


LINES = {
    b"echo 'a b'\r\n": b"a b",
    b'  ECHO\t"a b"  \n': b"a b",
    b'echo "a\\x41\\n\\r\\t\\a\\b\\\\\\q\\xzz"\r\n': b"aA\n\r\t\a\b\\qxzz",
    b"echo 'it\\'s\\n'\r\n": b"it's\\n",
    b'echo a"b "\r\n': b"ab ",
    b'echo ""\r\n': b"",
}


@pytest.mark.parametrize("line", LINES, ids=repr)
def test_inline_requests_have_quotes_and_escapes(line: bytes) -> None:
    value = LINES[line]
    assert Guest().send(line) == b"$%d\r\n%s\r\n" % (len(value), value)
    # Between MULTI and EXEC, too, and in a line that no buffer holds.
    assert (
        Guest()
        .send(b"MULTI\n" + line + b"EXEC\n")
        .endswith(b"*1\r\n$%d\r\n%s\r\n" % (len(value), value))
    )
    padded = b" " * 40000 + line
    assert Guest().send(padded) == b"$%d\r\n%s\r\n" % (len(value), value)


def test_time_is_the_clock_it_was_given() -> None:
    assert Guest().call(b"TIME") == b"*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n"


def test_info_gives_the_sections_it_is_asked_for() -> None:
    guest = Guest()
    assert guest.call(b"INFO", b"keyspace") == b"$12\r\n# Keyspace\r\n\r\n"
    assert guest.call(b"INFO", b"nope") == b"$0\r\n\r\n"
    guest.call(b"MSET", b"a", b"1", b"b", b"2")
    assert guest.call(b"INFO", b"KeySpace") == (
        b"$44\r\n# Keyspace\r\ndb0:keys=2,expires=0,avg_ttl=0\r\n\r\n"
    )
    assert guest.call(b"INFO", b"cluster") == b"$30\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n"
    everything = guest.call(b"INFO")
    assert b"total_commands_processed:5\r\n" in everything
    assert guest.call(b"INFO", b"ALL") == everything.replace(b"processed:5", b"processed:6")
    sections = guest.call(b"INFO", b"server", b"stats").split(b"\r\n# ")
    assert [section.split(b"\r\n")[0] for section in sections[1:]] == [b"Server", b"Stats"]
    # What redis-cli --stat reads.
    assert guest.call(b"INFO", b"clients") == (
        b"$51\r\n# Clients\r\nconnected_clients:3\r\nblocked_clients:0\r\n\r\n"
    )
    assert guest.information()["total_connections_received"] == "7"
    used = int(guest.information()["used_memory"])
    assert used == sum(size for size, free in guest.region.blocks().values() if not free)
    total = guest.region.word(STORE + keyspace.HEAP + heap.TOTAL_BYTES)
    assert int(guest.information()["maxmemory"]) == total


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ("HELLO 4", b"-NOPROTO unsupported protocol version\r\n"),
        ("HELLO x", b"-ERR Protocol version is not an integer or out of range\r\n"),
        ("HELLO 2 AUTH a", b"-ERR Syntax error in HELLO option 'AUTH'\r\n"),
        ("HELLO 2 SETNAME", b"-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
        ("CLIENT SETNAME me", b"+OK\r\n"),
        ("CLIENT GETNAME", b"$-1\r\n"),
        ("CLIENT SETINFO LIB-NAME redis-py", b"+OK\r\n"),
        ("CLIENT NO-EVICT on", b"+OK\r\n"),
        ("CLIENT NO-EVICT maybe", b"-ERR syntax error\r\n"),
        ("CLIENT ID", b":1\r\n"),
        ("CLIENT KILL", b"-ERR unknown subcommand 'KILL'. Try CLIENT HELP.\r\n"),
        ("CLIENT setname", b"-ERR wrong number of arguments for 'client|setname' command\r\n"),
        ("CONFIG GET save", b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG GET AppendOnly", b"*2\r\n$10\r\nAppendOnly\r\n$2\r\nno\r\n"),
        ("CONFIG GET nope", b"*0\r\n"),
        ("CONFIG GET", b"-ERR wrong number of arguments for 'config|get' command\r\n"),
        ("CONFIG SET save 1", b"-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n"),
        ("COMMAND COUNT", b":%d\r\n" % len(COMMANDS)),
        ("COMMAND DOCS get", b"*0\r\n"),
        ("COMMAND INFO nope", b"*1\r\n$-1\r\n"),
        ("COMMAND NOPE", b"-ERR unknown subcommand 'NOPE'. Try COMMAND HELP.\r\n"),
    ],
)
def test_what_clients_ask_on_their_own_is_answered(words: str, reply: bytes) -> None:
    assert Guest().call(*words.encode().split()) == reply
    assert Guest().send(words.encode() + b"\r\n") == reply


PARTS = st.sampled_from([b"*", b"?", b"max", b"memory", b"-", b"policy", b"save", b"a"])
PARAMETERS = ["save", "appendonly", "databases", "maxmemory", "maxmemory-policy"]
PARAMETERS += ["proto-max-bulk-len"]


@given(st.lists(PARTS, max_size=5))
def test_patterns_of_config_match_as_in_a_shell(parts: list[bytes]) -> None:
    pattern = b"".join(parts)
    words = Guest().call(b"CONFIG", b"GET", pattern).split(b"\r\n")[2::4]
    assert [word.decode() for word in words] == fnmatch.filter(PARAMETERS, pattern.decode())


def test_names_of_clients_are_kept_and_listed_and_forgotten_with_their_connection() -> None:
    guest = Guest()
    assert guest.call(b"CLIENT", b"SETNAME", b"one") == b"+OK\r\n"
    assert guest.call(b"CLIENT", b"SETINFO", b"LIB-NAME", b"lib") == b"+OK\r\n"
    assert guest.call(b"CLIENT", b"SETINFO", b"lib-ver", b"8.1") == b"+OK\r\n"
    assert guest.as_client(1).call(b"HELLO", b"3", b"SETNAME", b"two").startswith(b"%7\r\n")
    assert guest.call(b"CLIENT", b"GETNAME") == b"$3\r\ntwo\r\n"
    assert guest.call(b"CLIENT", b"ID") == b":2\r\n"
    listed = guest.call(b"CLIENT", b"LIST")
    assert listed.startswith(b"=")
    assert b"\r\ntxt:id=1 " in listed
    lines = listed.split(b"\r\n")[1][4:].splitlines()
    clients = [dict(word.split(b"=", 1) for word in line.split(b" ")) for line in lines]
    assert [client[b"name"] for client in clients] == [b"one", b"two"]
    assert [client[b"resp"] for client in clients] == [b"2", b"3"]
    assert (clients[0][b"lib-name"], clients[0][b"lib-ver"]) == (b"lib", b"8.1")
    assert clients[1][b"cmd"] == b"client"
    guest.now += 5_000_000
    only = guest.call(b"CLIENT", b"LIST", b"ID", b"1", b"77")
    assert b"name=one" in only
    assert b" age=5 idle=5 " in only
    assert b"name=two" not in only
    guest.end_client(0)
    assert b"name=one" not in guest.call(b"CLIENT", b"LIST")
    assert guest.as_client(0).call(b"CLIENT", b"GETNAME") == b"$-1\r\n"
    assert guest.call(b"CLIENT", b"ID") == b":3\r\n"


def test_what_a_connection_had_is_given_back_with_it() -> None:
    guest = Guest()
    guest.call(b"CLIENT", b"SETNAME", b"one")
    guest.call(b"WATCH", b"a", b"b")
    guest.call(b"MULTI")
    guest.call(b"SET", b"a", b"b")
    guest.send(b"*1000\r\n" + b"$1000\r\n%s\r\n" % (b"x" * 1000) * 40)
    assert any(not free for _, free in guest.pool.blocks().values())
    guest.waiting = b""
    guest.end_client(0)
    assert all(free for _, free in guest.pool.blocks().values())
    assert guest.region.word(STORE + watches.WATCHES) == 0


def test_watched_keys_are_changed_by_others_by_flushes_and_by_time() -> None:
    def exec_after(*request: bytes, later: int = 0) -> bytes:
        guest = Guest()
        guest.call(b"SET", b"a", b"1", b"PX", b"50")
        guest.call(b"WATCH", b"a", b"b")
        if request:
            guest.as_client(1).call(*request)
        guest.now += later
        guest.as_client(0).call(b"MULTI")
        guest.call(b"PING")
        return guest.call(b"EXEC")

    done, outdated = b"*1\r\n+PONG\r\n", b"*-1\r\n"
    assert exec_after() == exec_after(b"GET", b"a") == exec_after(b"SET", b"c", b"1") == done
    for request in (
        [b"SET", b"a", b"1"], [b"INCR", b"b"], [b"DEL", b"a"], [b"FLUSHALL"], [b"PERSIST", b"a"],
        [b"MSET", b"b", b"1"], [b"APPEND", b"a", b"x"], [b"EXPIRE", b"a", b"9"],
    ):  # fmt: skip
        assert exec_after(*request) == outdated
    assert exec_after(later=50_000) == done
    assert exec_after(later=51_000) == outdated
    guest = Guest()
    assert guest.call(b"WATCH", *[b"%d" % n for n in range(193)]).startswith(b"-ERR too many keys")


def test_a_transactions_queue_and_replies_may_be_larger_than_any_buffer() -> None:
    guest = Guest()
    guest.call(b"SET", b"a", b"x" * 10000)
    data = encode(b"MULTI") + encode(b"GET", b"a") * 9 + encode(b"SET", b"b", b"y" * 40000)
    replies = guest.send(data + encode(b"EXEC"), rooms=[900] * 400)
    bulk = b"$10000\r\n%s\r\n" % (b"x" * 10000)
    assert replies == b"+OK\r\n" + b"+QUEUED\r\n" * 10 + b"*10\r\n" + bulk * 9 + b"+OK\r\n"
    assert all(free for _, free in guest.pool.blocks().values())
    # One that has no memory for its queue is refused as a whole.
    data = encode(b"MULTI") + encode(b"SET", b"c", b"z" * 20000) * 30 + encode(b"EXEC")
    replies = guest.send(data)
    assert OUT_OF_MEMORY in replies
    assert replies.endswith(b"because of previous errors.\r\n")
    assert guest.call(b"EXISTS", b"c") == b":0\r\n"
    # Replies without memory are errors of their commands, which were executed.
    guest.call(b"SET", b"d", b"w" * 30000)
    data = encode(b"MULTI") + encode(b"GET", b"d") * 9 + encode(b"INCR", b"n") + encode(b"EXEC")
    replies = guest.send(data)
    assert replies.endswith(b":1\r\n")
    assert b"-OOM no memory for a reply of this size\r\n" in replies


def test_keys_expire_when_their_time_has_passed_and_not_before() -> None:
    guest = Guest()
    guest.call(b"SET", b"a", b"1", b"PX", b"100")
    guest.call(b"SETEX", b"b", b"10", b"2")
    guest.now += 100_000
    assert guest.call(b"MGET", b"a", b"b") == b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
    assert guest.call(b"PTTL", b"a") == b":0\r\n"
    guest.now += 1000
    assert guest.call(b"GET", b"a") == b"$-1\r\n"
    assert guest.call(b"TTL", b"b") == b":10\r\n"
    assert guest.information()["expired_keys"] == "1"
    assert guest.information()["db0"] == "keys=1,expires=1,avg_ttl=9899"
    assert guest.call(b"INCR", b"a") == b":1\r\n"
    assert guest.call(b"TTL", b"a") == b":-1\r\n"
    guest.call(b"APPEND", b"b", b"2")
    assert guest.call(b"PTTL", b"b") == b":9899\r\n"
    guest.call(b"SET", b"b", b"3", b"KEEPTTL")
    assert guest.call(b"PTTL", b"b") == b":9899\r\n"
    guest.call(b"SET", b"b", b"3")
    assert guest.call(b"PTTL", b"b") == b":-1\r\n"
    guest.region.check()


def test_expired_keys_go_in_bounded_steps_though_nobody_asks() -> None:
    guest = Guest()
    for number in range(300):
        guest.call(b"SET", b"%d" % number, b"x", b"PX", b"%d" % (1 + number % 2 * 10**6))
    guest.now += 10_000
    for tick in range(4):
        before, keys = guest.memory.copy(), len(guest.region.entries())
        guest.frozen.freeze()
        arguments = guest.memory, guest.marks, STORE, guest.size, np.uint64(guest.now)
        for _ in range(2):
            kv.sweep_expired(*arguments, tick + 1)
        guest.hold_bounds(before, [(STORE, STORE + guest.size)])
        guest.region.check()
        # The table of this store has 1024 chains.
        assert keys == 300 - len(range(0, 300, 2)) or len(guest.region.entries()) < keys
    assert len(guest.region.entries()) == 150
    assert guest.call(b"DBSIZE") == b":150\r\n"
    assert guest.information()["expired_keys"] == "150"


def scanned(guest: Guest, *options: bytes, between: Iterable[list[bytes]] = ()) -> list[bytes]:
    """Scan all keys, with another request after each step."""
    found: list[bytes] = []
    cursor, between = b"0", iter(between)
    while True:
        words = guest.call(b"SCAN", cursor, *options).split(b"\r\n")
        cursor, found = words[2], found + words[5::2]
        if cursor == b"0":
            return [key for key in found if key]
        request = next(between, None)
        if request:
            guest.call(*request)


@given(
    st.sets(st.integers(0, 400), max_size=120),
    st.lists(st.tuples(st.booleans(), st.integers(401, 600)), max_size=60),
    st.integers(1, 40),
)
@settings(max_examples=25)
def test_a_scan_returns_every_key_that_is_there_all_the_time(
    stay: set[int], others: list[tuple[bool, int]], count: int
) -> None:
    guest = Guest()
    for number in stay:
        guest.call(b"SET", b"%d" % number, b"x")
    changes = [[b"SET", b"%d" % n, b"y"] if new else [b"DEL", b"%d" % n] for new, n in others]
    found = scanned(guest, b"COUNT", b"%d" % count, between=changes)
    assert {b"%d" % number for number in stay} <= set(found)
    assert all(found.count(b"%d" % number) == 1 for number in stay)
    assert set(scanned(guest, b"MATCH", b"1*")) == {
        key for key in guest.region.check() if key.startswith(b"1")
    }
    assert scanned(guest, b"TYPE", b"list") == []
    # Few keys come at once, and a cursor may be anything.
    assert guest.call(b"SCAN", b"18446744073709551615", b"COUNT", b"1").startswith(b"*2\r\n")


@given(st.lists(KEYS, max_size=20), st.lists(st.sampled_from("a*b?[]^-\\k"), max_size=6))
def test_keys_gives_those_that_match_and_have_not_expired(
    keys: list[bytes], pattern: list[str]
) -> None:
    guest = Guest()
    for number, key in enumerate(keys):
        guest.call(b"SET", key, b"x", b"PX", b"%d" % (1 + number % 3))
    guest.now += 2500
    words = guest.call(b"KEYS", b"*")
    guest.region.check()
    expiries = guest.region.expiries()
    there = {key for key, when in expiries.items() if when >= guest.now // 1000}
    assert words.startswith(b"*%d\r\n" % len(there))
    assert all(b"$%d\r\n%s\r\n" % (len(key), key) in words for key in there)
    assert guest.call(b"KEYS", "".join(pattern).encode()).startswith(b"*")
