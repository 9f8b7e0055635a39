"""A question or two to the guest by hand, and what redis-cli is told, where it is installed."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass

from colobench.lab.clients.closed_loop import ClientsStalled
from colobench.lab.clients.resp import ErrorReply, Reply, ReplyParser, encode
from colobench.lab.interrupt import interruptible
from colobench.lab.session.session import Session, session_outcome
from colobench.text_table import align


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, its answer, and how long that took in ms."""

    request: str
    reply: Reply
    milliseconds: float


class Transcript(list[Exchange]):
    """Requests and answers; shows itself as a table."""

    def __repr__(self) -> str:
        rows = [(each.request, f"{each.milliseconds:.2f} ms", show(each.reply)) for each in self]
        return "\n".join(align(rows, right=(1,)))


@interruptible(session_outcome)
def ask(session: Session, *lines: str, timeout: float = 10.0) -> Transcript:
    """Ask a session's guest over a connection of its own, and wait for each answer.

    Parameters
    ----------
    session
        With a `hostfwd` to the guest's port 6379.
    lines
        Requests as one writes them in redis-cli, such as ``SET greeting hello``.
    timeout
        Seconds for each answer.

    Raises
    ------
    ClientsStalled
        If an answer does not come.
    """
    found = Transcript()
    with socket.create_connection(session.address(), timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parser = ReplyParser()
        for line in lines:
            asked = time.monotonic()
            connection.sendall(encode(*map(str.encode, shlex.split(line))))
            reply = _receive(connection, parser, line)
            found.append(Exchange(line, reply, (time.monotonic() - asked) * 1000))
    return found


def _receive(connection: socket.socket, parser: ReplyParser, line: str) -> Reply:
    try:
        while data := connection.recv(1 << 16):
            for reply in parser.feed(data):
                return reply
    except TimeoutError as error:
        raise ClientsStalled(f"{line}: expected an answer, found none in time") from error
    raise ClientsStalled(f"{line}: expected an answer, found the connection closed")


@interruptible(session_outcome)
def redis_cli(session: Session, line: str, timeout: float = 10.0) -> str:
    """Ask the same through redis-cli; says so if there is none on this machine."""
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
    """Write an answer as redis-cli does, an array in brackets."""
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
