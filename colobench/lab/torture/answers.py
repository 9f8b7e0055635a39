"""Answers of a survivor, told apart from the last ones of the node that was killed."""

from __future__ import annotations

from collections.abc import Sequence

from colobench.lab.clients.closed_loop import Answered


def survivors_first_answers(
    answers: Sequence[Answered], killed_ns: int, limit_ms: int
) -> dict[int, Answered]:
    """Give the survivor's first answer to each client.

    Answers within half of the heartbeat's limit after the kill were sent by the node that was
    killed, since no node takes over so soon.

    Parameters
    ----------
    answers
        Answers in the order in which they came.
    killed_ns
        Time of the kill, CLOCK_MONOTONIC in ns.
    limit_ms
        The heartbeat's limit.

    Returns
    -------
    dict
        Answers by the client's number; a client without one is not there.
    """
    soonest = killed_ns + limit_ms * 1_000_000 // 2
    first: dict[int, Answered] = {}
    for answered in reversed(answers):
        if answered.returned < soonest:
            break
        first[answered.client] = answered
    return first
