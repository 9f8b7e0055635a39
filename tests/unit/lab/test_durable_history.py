"""What may be lost when all hosts have died, and what may not."""

from __future__ import annotations

import random

import pytest

from colobench.lab.checker.append_only_log import replay
from colobench.lab.checker.durable_history import DurableVerdict, check_durable
from colobench.lab.checker.store_model import execute
from colobench.lab.clients.closed_loop import requests
from colobench.lab.clients.history import History, Operation, operations_of

SECOND = 1_000_000_000
#: Nanoseconds between two requests, of which each is answered before the next.
STEP = SECOND // 20
COUNT = 100
END = COUNT * STEP


def run(seed: int = 1) -> tuple[History, list[list[bytes]]]:
    """Let a store answer a client one request after the other; give the history and its log."""
    history, log = History(), []
    store: dict[bytes, bytes | None] = {}
    for number, words in zip(range(COUNT), requests(0, seed=seed, mix=MIX), strict=False):
        [operation] = operations_of(0, words, number * STEP, None, None)
        value, answer = execute(operation, store.get(operation.key))
        if value != store.get(operation.key):
            log.append(list(words))
        store[operation.key] = value
        history.operations += operations_of(
            0, words, operation.call, operation.call + STEP - 1, answer
        )
    return history, log


MIX = {"register SET": 5, "log APPEND": 5, "counter INCR": 3, "register GET": 3, "register DEL": 1}


def judge(
    history: History, log: list[list[bytes]], policy: str, finals: list[Operation] | None = None
) -> DurableVerdict:
    """Judge a log whose guest is started after the end, and answers with what the log gives."""
    store = replay(log)
    reads = [
        Operation(1, key, "GET", (), END + STEP, END + 2 * STEP, store.get(key))
        for key in history.keys
    ]
    return check_durable(history, finals or reads, log, policy, END)


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_a_whole_log_is_right(policy: str) -> None:
    verdict = judge(*run(), policy)
    assert verdict.violations == ()
    assert verdict.linearizable
    assert (verdict.lost, verdict.lost_ms) == (0, 0)


@pytest.mark.parametrize(("policy", "right"), [("always", False), ("everysec", True), ("no", True)])
def test_only_always_loses_no_write_of_the_last_second(policy: str, right: bool) -> None:
    history, log = run()
    verdict = judge(history, log[:-5], policy)
    assert verdict.lost > 0
    assert 0 < verdict.lost_ms < 2000
    assert (not verdict.violations) == right


@pytest.mark.parametrize(("policy", "right"), [("everysec", False), ("no", True)])
def test_everysec_loses_no_older_write(policy: str, right: bool) -> None:
    history, log = run()
    verdict = judge(history, log[: len(log) // 4], policy)
    assert verdict.lost_ms > 2100
    assert (not verdict.violations) == right


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_a_log_without_a_write_before_others_is_no_beginning(policy: str) -> None:
    history, log = run()
    sets = [number for number, words in enumerate(log) if words[0] in (b"SET", b"APPEND")]
    del log[random.Random(policy).choice(sets[:-8])]
    assert judge(history, log, policy).violations


def test_a_lost_increment_is_found_although_it_is_not_unique() -> None:
    history, log = run()
    last = max(number for number, words in enumerate(log) if words[0] == b"INCR")
    del log[last]
    verdict = judge(history, log, "always")
    assert verdict.linearizable is False
    assert verdict.lost == 0


def test_a_guest_that_answers_otherwise_than_its_log_says_is_found() -> None:
    history, log = run()
    store = replay(log)
    reads = [
        Operation(1, key, "GET", (), END + STEP, END + 2 * STEP, store.get(key))
        for key in history.keys
    ]
    reads[0] = Operation(1, reads[0].key, "GET", (), END + STEP, END + 2 * STEP, b"other")
    assert "other than the log says" in judge(history, log, "no", reads).violations[0]


def test_an_answer_that_arrives_after_the_end_binds_always() -> None:
    history, log = run()
    words = [b"SET", b"late", b"<7.7>"]
    history.operations += operations_of(7, words, END - 1, END + 1, "OK")
    assert judge(history, log, "always").violations
    assert not judge(history, [*log, words], "always").violations
