"""Requests to the guest's store by hand, by a client of ours or by redis-cli."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass

from colobench.lab.clients.resp import ErrorReply, Reply
from colobench.lab.clients.store_connection import StoreConnection
from colobench.lab.interrupt import interruptible
from colobench.lab.session.session import Session, session_outcome
from colobench.text_table import align


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, its answer, and the milliseconds between them."""

    request: str
    reply: Reply
    milliseconds: float


class Transcript(list[Exchange]):
    """Requests and answers, shown as a table."""

    def __repr__(self) -> str:
        rows = [(each.request, f"{each.milliseconds:.2f} ms", show(each.reply)) for each in self]
        return "\n".join(align(rows, right=(1,)))


@interruptible(session_outcome)
def ask(session: Session, *lines: str, timeout: float = 10.0) -> Transcript:
    """Send requests to a session's guest over a connection of its own, and wait for each answer.

    Parameters
    ----------
    session
        Session with a `hostfwd` to the guest's port 6379.
    lines
        Requests in the syntax of redis-cli, such as ``SET greeting hello``.
    timeout
        Seconds for each answer.

    Raises
    ------
    ClientsStalled
        If an answer does not come.
    """
    found = Transcript()
    with StoreConnection(session.address(), timeout) as connection:
        for line in lines:
            asked = time.monotonic()
            reply = connection.ask(*map(str.encode, shlex.split(line)))
            found.append(Exchange(line, reply, (time.monotonic() - asked) * 1000))
    return found


@interruptible(session_outcome)
def redis_cli(session: Session, line: str, timeout: float = 10.0) -> str:
    """Send a request through redis-cli; returns a sentence if it is not installed."""
    program = shutil.which("redis-cli")
    if program is None:
        return "redis-cli is not installed here, and not needed"
    host, port = session.address()
    command = [program, "-h", host, "-p", str(port), *shlex.split(line)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return done.stdout.strip()


def show(reply: Reply) -> str:
    """Write an answer in the notation of redis-cli, an array in brackets."""
    match reply:
        case None:
            return "(nil)"
        case ErrorReply(message):
            return f"(error) {message}"
        case bytes():
            return '"' + reply.decode("latin-1") + '"'
        case int():
            return f"(integer) {reply}"
        case list():
            return "[" + ", ".join(map(show, reply)) + "]"
    return reply
