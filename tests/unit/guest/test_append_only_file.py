"""The store's append-only file: what a disk that was cut off anywhere gives back to a new guest."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_append_only_file as naive
from colobench.guest import append_only_file as aof
from colobench.guest.append_only_disk import BLOCKS, FLUSH_SLOT
from durable_guest import MIB, NOW, DurableGuest
from naive_kv import encode
from share import amount
from store_guest import (
    CLOCKED,
    EXPIRES,
    FLUSHES,
    KEYS,
    READS,
    TRANSACTIONS,
    VALUES,
    WRITES,
    request,
)
from tcp_peer import Client, connect

#: Times that pass soon, so that keys expire while the log goes on.
SOON = st.integers(1, 4).map(lambda n: b"%d" % n)
SHORT = [
    st.tuples(request(b"set", KEYS, VALUES), SOON).map(lambda both: [*both[0], b"px", both[1]]),
    request(b"pexpire", KEYS, SOON),
    request(b"getex", KEYS, st.just(b"px"), SOON),
]
REQUESTS = st.one_of(
    *WRITES, *SHORT, *SHORT, *SHORT, *READS, *CLOCKED, *EXPIRES, *TRANSACTIONS, *FLUSHES
)
SIZE = 2 * MIB
MISCONF = b"-MISCONF Errors writing to the AOF file: "

Contents = dict[bytes, tuple[bytes, int]]


def empty(size: int = SIZE) -> bytearray:
    return bytearray(size)


def seen(store: naive.Redis, now: int) -> Contents:
    """Give what a twin's clients would see at that time, µs."""
    expiries = store.expiries
    return {
        key: (value, expiries.get(key, 0))
        for key, value in store.keys.items()
        if not expiries.get(key) or expiries[key] >= now // 1000
    }


@settings(max_examples=amount(60, 1000), deadline=None)
@given(st.lists(st.tuples(REQUESTS, st.integers(0, 2)), max_size=30), st.booleans(), st.data())
def test_a_loaded_log_gives_the_keys_and_times_of_the_store(
    requests: list[tuple[list[bytes], int]], rewrites: bool, data: st.DataObject
) -> None:
    guest = DurableGuest(empty())
    turns = st.integers(0, 3)
    if rewrites:
        for key in range(200):
            guest.call(b"set", b"other%d" % key, b"x" * key)
    for number, (arguments, passed) in enumerate(requests):
        if rewrites and number == 3:
            guest.call(b"discard")
            assert guest.call(b"bgrewriteaof").startswith(b"+")
        guest.now += passed * 1000
        guest.call(*arguments)
        for _ in range(data.draw(turns)):
            guest.turn()
    guest.settle()
    assert guest.word(aof.REWRITE_STATUS) == 0
    image = bytes(guest.disk.image)
    again = DurableGuest(bytearray(image), now=guest.now)
    assert again.contents() == guest.contents()
    assert seen(naive.load(image), guest.now) == guest.contents()
    again.region.check()


def test_relative_times_and_effects_are_written_as_redis_propagates_them() -> None:
    guest = DurableGuest(empty())
    for arguments in (
        [b"SET", b"a", b"1", b"EX", b"10", b"NX"], [b"SETEX", b"b", b"10", b"2"], [b"INCR", b"a"],
        [b"EXPIRE", b"a", b"20"], [b"GETEX", b"a", b"PERSIST"], [b"GETDEL", b"b"],
        [b"SETNX", b"a", b"0"], [b"DEL", b"b"], [b"MSETNX", b"c", b"3", b"d", b"4"],
        [b"GETSET", b"c", b"5"], [b"MULTI"], [b"GET", b"a"], [b"EXEC"],
        [b"MULTI"], [b"APPEND", b"c", b"6"], [b"SETRANGE", b"d", b"1", b"7"], [b"EXEC"],
        [b"INCR", b"c", b"wrong"], [b"FLUSHALL"],
    ):  # fmt: skip
        guest.call(*arguments)
    guest.settle()
    stream = b"".join(payload for _, payload, _ in naive.blocks(guest.disk.image))
    found, rest = naive.commands(stream)
    now = NOW // 1000
    assert rest == b""
    assert [b" ".join(words).lower() for words in found] == [
        b"#ms:%d" % now, b"set a 1 pxat %d" % (now + 10_000), b"set b 2 pxat %d" % (now + 10_000),
        b"incr a", b"pexpireat a %d" % (now + 20_000), b"persist a", b"del b",
        b"mset c 3 d 4", b"set c 5", b"multi", b"append c 6", b"setrange d 1 7", b"exec",
        b"flushall",
    ]  # fmt: skip


def test_a_log_cut_off_at_any_byte_of_its_last_blocks_gives_the_commands_before() -> None:
    guest = DurableGuest(empty())
    states = [guest.contents()]
    for number in range(4):
        guest.call(b"mset", b"key%d" % number, b"v" * 20, b"last", b"%d" % number)
        guest.settle()
        states.append(guest.contents())
    image, places = bytes(guest.disk.image), [at for at, *_ in naive.blocks(guest.disk.image)]
    assert len(places) == 4
    lengths = [64 + len(payload) for _, payload, _ in naive.blocks(image)]
    for block in (2, 3):
        for byte in range(lengths[block]):
            cut = bytearray(image)
            begin = places[block] + byte
            for at in range(begin, places[3] + 512):
                cut[at] = 0xA5
            again = DurableGuest(cut)
            assert again.contents() == states[block]
            if byte % 50 == 0:
                again.call(b"set", b"after", b"1")
                again.settle()
                more = DurableGuest(again.disk.image)
                assert more.contents() == states[block] | {b"after": (b"1", 0)}
                assert seen(naive.load(bytes(again.disk.image)), NOW) == more.contents()


def test_an_incomplete_command_is_dropped_and_the_log_goes_on_after_it() -> None:
    guest = DurableGuest(empty(), size=16 * MIB)
    guest.call(b"set", b"a", b"1")
    guest.settle()
    guest.call(b"set", b"long", b"x" * 300_000)
    guest.call(b"multi")
    guest.call(b"set", b"b", b"1")
    guest.call(b"exec")
    guest.settle()
    image, found = bytes(guest.disk.image), list(naive.blocks(guest.disk.image))
    assert len(found) > 4
    cut = bytearray(image)
    cut[found[3][0]] ^= 1
    again = DurableGuest(cut, size=16 * MIB)
    assert again.contents() == {b"a": (b"1", 0)}
    assert " 0 bytes of an incomplete command" not in again.console
    again.call(b"set", b"c", b"2")
    again.settle()
    last = DurableGuest(again.disk.image, size=16 * MIB)
    assert last.contents() == {b"a": (b"1", 0), b"c": (b"2", 0)}
    assert seen(naive.load(bytes(again.disk.image)), NOW) == last.contents()


@settings(max_examples=amount(40, 1000), deadline=None)
@given(st.integers(0, 2**32), st.lists(st.booleans(), max_size=7))
def test_a_loss_of_power_loses_no_flushed_command_and_tears_none(
    seed: int, kept: list[bool]
) -> None:
    chance = random.Random(seed)
    guest = DurableGuest(empty(1 * MIB))
    states, positions = [guest.contents()], [0]
    for number in range(chance.randrange(1, 60)):
        if chance.random() < 0.1:
            guest.call(b"bgrewriteaof")
        key = b"key%d" % chance.randrange(12)
        command = chance.choice([b"set", b"append", b"del", b"setrange"])
        words = {b"del": [], b"setrange": [b"3", b"y" * 9]}.get(
            command, [b"%d" % number * chance.choice([1, 9, 900])]
        )
        guest.call(command, key, *words)
        states.append(guest.contents())
        positions.append(guest.word(aof.APPENDED))
        for _ in range(chance.randrange(3)):
            guest.drive()
            slots = guest.submitted()
            chance.shuffle(slots)
            for slot in slots[: chance.randrange(4)]:
                guest.perform(slot)
    flushed = guest.word(aof.FLUSHED)
    image = guest.disk.after_loss(kept)
    again = DurableGuest(image)
    least = max(n for n, position in enumerate(positions) if position <= flushed)
    assert again.contents() in states[least:]


@settings(max_examples=amount(25, 500), deadline=None)
@given(st.integers(0, 2**32))
def test_a_guest_goes_on_from_any_checkpoint_and_does_requests_again(seed: int) -> None:
    chance = random.Random(seed)
    guest = DurableGuest(empty())
    for number in range(30):
        guest.call(b"append", b"key%d" % chance.randrange(5), b"x" * chance.randrange(2000))
        if number == 10:
            guest.call(b"bgrewriteaof")
        guest.drive()
        for slot in guest.submitted():
            if chance.random() < 0.7:
                guest.perform(slot)
        if chance.random() < 0.2:
            # The survivor has RAM and disk of this moment; what was under way may be on the disk.
            survivor = DurableGuest(bytearray(guest.disk.image), load=False)
            survivor.memory[:] = guest.memory
            for slot in survivor.submitted():
                if chance.random() < 0.5:
                    survivor.perform(slot)
                    survivor.queue.clear()
            guest = survivor
    guest.settle()
    again = DurableGuest(bytearray(guest.disk.image))
    assert again.contents() == guest.contents()


def test_always_holds_answers_until_the_flush_for_many_clients_at_once() -> None:
    guest = DurableGuest(empty())
    clients = [connect(guest, Client(40_000 + n, 6379)) for n in range(5)]
    frames = []
    for number, client in enumerate(clients):
        client.out = encode(b"set", b"key%d" % number, b"v") + encode(b"ping")
        frames += client.say()
    answers = guest.exchange(*frames)
    for client in clients:
        client.hear(answers)
        assert client.heard == client.out == b""
    flushes = guest.disk.flushes
    guest.settle()
    assert guest.disk.flushes == flushes + 1
    answers = guest.exchange()
    for client in clients:
        client.hear(answers)
        assert client.heard == b"+OK\r\n+PONG\r\n"
    # An answer to a read waits for nothing once all is flushed.
    clients[0].out = encode(b"get", b"key3")
    clients[0].hear(guest.exchange(*clients[0].say()))
    assert clients[0].heard.endswith(b"$1\r\nv\r\n")


@pytest.mark.parametrize("policy", ["everysec", "no"])
def test_other_policies_answer_at_once_and_flush_each_second_or_never(policy: str) -> None:
    guest = DurableGuest(empty(), policy)
    client = connect(guest, Client(40_000, 6379))
    guest.settle()
    before = guest.disk.flushes
    for number in range(100):
        client.out = encode(b"set", b"key%d" % number, b"v")
        client.hear(guest.exchange(*client.say()))
        assert client.heard == b"+OK\r\n" * (number + 1)
        guest.now += 50_000
        guest.settle()
    flushes = guest.disk.flushes - before
    assert flushes == 0 if policy == "no" else 4 <= flushes <= 6


def test_a_full_disk_refuses_writes_and_answers_reads_until_a_rewriting_makes_room() -> None:
    guest = DurableGuest(empty(512 << 10))
    reply = b"+OK\r\n"
    guest.call(b"config", b"set", b"appendfsync", b"no")
    for number in range(2000):
        # Too much remains for the other area, so no rewriting helps.
        reply = guest.call(b"set", b"key%d" % number, b"x" * 2000)
        guest.settle()
        if reply != b"+OK\r\n":
            break
    assert reply == MISCONF + b"No space left on device\r\n"
    assert guest.call(b"get", b"key1") == b"$2000\r\n" + b"x" * 2000 + b"\r\n"
    assert guest.call(b"ping").startswith(MISCONF)
    assert guest.information()["aof_last_write_status"] == "err"


def test_a_growing_log_is_rewritten_unasked() -> None:
    guest = DurableGuest(empty(512 << 10))
    for number in range(2000):
        assert guest.call(b"set", b"key", b"%d" % number * 300) == b"+OK\r\n"
        guest.now += 100_000
        guest.settle()
    assert int(guest.information()["aof_current_size"]) < 200_000
    again = DurableGuest(guest.disk.image)
    assert again.contents() == guest.contents()


@pytest.mark.parametrize("kind", [1, 2])
def test_an_error_of_the_disk_refuses_writes_until_the_request_succeeds(kind: int) -> None:
    guest = DurableGuest(empty())
    guest.call(b"set", b"a", b"1")
    guest.settle()
    guest.disk.fault = lambda kinds, offset: 5 if kinds == kind else 0
    assert guest.call(b"set", b"b", b"2") == b"+OK\r\n"
    guest.settle()
    assert guest.call(b"set", b"c", b"3") == MISCONF + b"Input/output error\r\n"
    assert guest.call(b"get", b"a") == b"$1\r\n1\r\n"
    assert guest.information()["aof_last_write_status"] == "err"
    guest.disk.fault = lambda kinds, offset: 0
    guest.now += 2_000_000
    guest.settle()
    assert guest.information()["aof_last_write_status"] == "ok"
    assert guest.call(b"set", b"c", b"3") == b"+OK\r\n"
    guest.settle()
    assert DurableGuest(guest.disk.image).contents() == guest.contents()


def test_a_failed_rewriting_leaves_the_log_as_it_was() -> None:
    guest = DurableGuest(empty())
    for number in range(50):
        guest.call(b"set", b"key%d" % number, b"x" * 5000)
    guest.settle()
    middle = 8192 + (SIZE - 8192) // 2 // 4096 * 4096
    guest.disk.fault = lambda kind, offset: 5 if kind == 1 and offset >= middle else 0
    guest.call(b"bgrewriteaof")
    guest.settle()
    assert guest.information()["aof_last_bgrewrite_status"] == "err"
    assert guest.call(b"set", b"a", b"1") == b"+OK\r\n"
    guest.settle()
    assert DurableGuest(bytearray(guest.disk.image)).contents() == guest.contents()
    guest.disk.fault = lambda kind, offset: 0
    guest.call(b"bgrewriteaof")
    guest.settle()
    assert guest.information()["aof_last_bgrewrite_status"] == "ok"


def test_a_store_that_is_loading_says_so() -> None:
    guest = DurableGuest(empty())
    guest.call(b"set", b"a", b"1")
    guest.settle()
    again = DurableGuest(bytearray(guest.disk.image), load=False)
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    assert again.call(b"get", b"a") == loading
    assert again.call(b"multi") == loading
    assert again.information()["loading"] == "1"
    again.load()
    assert again.call(b"get", b"a") == b"$1\r\n1\r\n"


def test_a_disk_with_other_data_is_not_touched() -> None:
    image = bytearray(b"important" * 233_017)[:SIZE]
    guest = DurableGuest(image)
    assert guest.phase == aof.UNUSABLE
    assert guest.call(b"set", b"a", b"1") == MISCONF + b"Invalid argument\r\n"
    assert guest.call(b"get", b"a") == b"$-1\r\n"
    assert "other data" in guest.console
    guest.settle()
    assert guest.disk.image == image
    assert not guest.disk.written


def test_appendonly_is_turned_off_and_on_as_in_redis() -> None:
    guest = DurableGuest(empty(), appendonly=False)
    assert guest.call(b"config", b"get", b"appendonly") == encode(b"appendonly", b"no")
    guest.call(b"set", b"a", b"1")
    guest.settle()
    assert guest.call(b"config", b"set", b"appendonly", b"maybe").startswith(b"-ERR CONFIG SET")
    assert guest.call(b"config", b"set", b"appendonly", b"yes") == b"+OK\r\n"
    guest.call(b"set", b"b", b"2")
    guest.settle()
    assert DurableGuest(bytearray(guest.disk.image)).contents() == guest.contents()
    assert guest.call(b"config", b"set", b"appendonly", b"no", b"appendfsync", b"no") == b"+OK\r\n"
    assert guest.call(b"config", b"get", b"appendfsync") == encode(b"appendfsync", b"no")
    before = guest.contents()
    guest.call(b"set", b"c", b"3")
    guest.settle()
    assert DurableGuest(bytearray(guest.disk.image)).contents() == before
    assert guest.call(b"config", b"set", b"maxmemory", b"1").endswith(b"immutable config\r\n")
    assert guest.call(b"config", b"set", b"foo", b"1").startswith(b"-ERR Unknown option")


@pytest.mark.parametrize("back_us", [150_000, 86_000_000_000])
def test_log_is_executed_again_as_it_was_though_the_clock_was_set_back(back_us: int) -> None:
    guest = DurableGuest(empty())
    for key in (b"gone", b"still there"):
        guest.call(b"set", key, b"no number", b"px", b"100")
    guest.now += 200_000
    assert guest.call(b"get", b"gone") == b"$-1\r\n"
    guest.now -= back_us
    assert guest.call(b"incr", b"gone") == b":1\r\n"
    assert guest.call(b"incr", b"still there") == b":1\r\n"
    guest.settle()
    again = DurableGuest(bytearray(guest.disk.image), now=guest.now)
    assert again.contents() == {b"gone": (b"1", 0), b"still there": (b"1", 0)}
    assert again.call(b"set", b"new", b"x") == b"+OK\r\n"


@pytest.mark.parametrize(
    ("words", "name", "why"),
    [
        ("appendonly maybe nope x", "nope", None),
        ("nope x appendonly maybe", "nope", None),
        ("appendfsync wrong databases 2", "databases", "can't set immutable config"),
        ("databases 2 nope x", "databases", "can't set immutable config"),
        ("appendfsync always appendfsync no", "appendfsync", "duplicate parameter"),
        ("appendonly yes appendonly maybe", "appendonly", "duplicate parameter"),
        ("appendfsync no APPENDFSYNC no nope x", "APPENDFSYNC", "duplicate parameter"),
        ("appendonly maybe appendfsync x", "appendonly", "argument must be 'yes' or 'no'"),
    ],
)
def test_errors_of_config_set_are_found_in_the_order_of_redis(
    words: str, name: str, why: str | None
) -> None:
    # What redis-server 7.0.15 answers, in which save can be set, too.
    guest = DurableGuest(empty())
    error = f"Unknown option or number of arguments for CONFIG SET - '{name}'"
    if why:
        error = f"CONFIG SET failed (possibly related to argument '{name}') - {why}"
    reply = guest.call(b"config", b"set", *words.encode().split())
    assert reply == f"-ERR {error}\r\n".encode()
    policy = encode(b"appendfsync", b"always")
    assert guest.call(b"config", b"get", b"appendfsync") == policy


def test_slots_of_the_two_logs_and_of_the_flush_are_apart() -> None:
    assert 2 * BLOCKS <= FLUSH_SLOT
