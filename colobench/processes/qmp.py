"""A synchronous QMP client: commands from any thread, events as callbacks."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from qemu.qmp import (
    ConnectError,
    ExecInterruptedError,
    ExecuteError,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)
from qemu.qmp.message import Message

from colobench.errors import LocalError
from colobench.processes.errors import NodeGone, QMPCommandError
from colobench.processes.owner import Owner

#: As QMP has it: ``{"event": …, "data": …, "timestamp": {"seconds": …, "microseconds": …}}``.
Event = dict[str, Any]

_RETRY_SECONDS = 0.005
_logger = logging.getLogger(__name__)
# Otherwise Python prints the client's log messages whenever a node is killed.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class QMPConnection:
    """A connection to a node's monitor, or to QEMU's.

    The protocol is implemented by ``qemu.qmp``, whose client runs on an asyncio loop in a thread of
    its own: scripts need no loop, and a notebook's loop is left alone.

    Parameters
    ----------
    path
        The monitor's UNIX socket.
    timeout
        Seconds that the node may take to answer a command; None is for ever.
    """

    def __init__(self, path: str, *, timeout: float | None = 60.0) -> None:
        self._path = path
        self._timeout = timeout
        self._callbacks: list[Callable[[Event], None]] = []
        self._client = QMPClient()
        # A filter that drops every event, as the client would keep all of them.
        self._client.events.event_filter = self._deliver
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._thread = threading.Thread(target=self._run_loop, name="QMP client", daemon=True)
        self._owner = Owner()
        self._lock = threading.Lock()
        self._connected = False

    def __enter__(self) -> QMPConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def on_event(self, callback: Callable[[Event], None]) -> None:
        """Give events to `callback`, in order, each before the reply to any later command.

        A callback registered before `connect` misses none. It is called in the connection's own
        thread, must not take long, and cannot execute commands. What it raises is logged.
        """
        self._callbacks.append(callback)

    def connect(self, alive: Callable[[], bool] = lambda: True, *, timeout: float = 10.0) -> None:
        """Connect as soon as the node listens, and negotiate. Once only.

        Parameters
        ----------
        alive
            Whether the node's process lives, so that there is something to wait for.
        timeout
            Seconds to wait at most.

        Raises
        ------
        NodeGone
            If the process ended, or nobody listened and answered in time.
        """
        deadline = time.monotonic() + timeout
        self._socket = _dial(self._path, alive, deadline)
        try:
            self._loop = self._runner.get_loop()
            self._thread.start()
        except (OSError, RuntimeError, MemoryError) as error:
            # Out of descriptors or threads.
            self._socket.close()
            self._runner.close()
            raise LocalError(f"{self._path}: expected to connect, found {error}") from error
        self._connected = True
        try:
            asyncio.run_coroutine_threadsafe(self._negotiate(deadline), self._loop).result()
        except (ConnectError, TimeoutError) as error:
            self.close()
            raise NodeGone(f"{self._path}: expected QMP's greeting, found {error!r}") from error

    def execute(self, command: str, /, **arguments: Any) -> Any:
        """Execute a command.

        Parameters
        ----------
        command, arguments
            Its name and its arguments, with underscores for the hyphens in their names.

        Returns
        -------
        Any
            Node's answer, as Python's types for JSON.

        Raises
        ------
        QMPCommandError
            If the node refused it.
        NodeGone
            If the node ended or did not answer in time. The command may have been executed.
        """
        self._owner.check(command)
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        with self._lock:
            if not self._connected or threading.current_thread() is self._thread:
                raise LocalError(
                    f"{command}: expected an open connection and no event callback around the call"
                )
            reply = asyncio.run_coroutine_threadsafe(
                self._client.execute(command, named), self._loop
            )
        try:
            return reply.result(self._timeout)
        except ExecuteError as error:
            raise QMPCommandError(command, error.error_class, str(error)) from error
        except (StateError, ExecInterruptedError) as error:
            raise NodeGone(
                f"{self._path}: {command}: no answer, the connection has ended"
            ) from error
        except QMPError as error:
            raise NodeGone(f"{self._path}: {command}: no answer, {error}") from error
        except TimeoutError as error:
            reply.cancel()
            raise NodeGone(
                f"{self._path}: {command}: no answer within {self._timeout:g} s"
            ) from error

    def tell(self, command: str) -> None:
        """Send a command without arguments, without waiting for the answer."""
        self._owner.check(command)
        with self._lock:
            if self._connected:
                asyncio.run_coroutine_threadsafe(self._client.execute(command), self._loop)

    def drain(self, timeout: float) -> None:
        """Wait until all that an ended node has sent is delivered.

        Parameters
        ----------
        timeout
            Seconds to wait at most, for a connection that does not end.
        """
        if not self._owner.is_this_process():
            return
        with self._lock:
            if not self._connected:
                return
            ended = asyncio.run_coroutine_threadsafe(self._ended(), self._loop)
        with suppress(TimeoutError):
            ended.result(timeout)
        ended.cancel()

    def close(self) -> None:
        """Close the connection; commands still waiting raise NodeGone."""
        if not self._owner.is_this_process():
            return
        with self._lock:
            if not self._connected:
                return
            self._connected = False
        with suppress(OSError):
            # Do not wait until a stuck node has read all bytes.
            self._socket.shutdown(socket.SHUT_RDWR)
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._socket.close()

    def _run_loop(self) -> None:
        with self._runner:
            self._loop.run_forever()

    async def _negotiate(self, deadline: float) -> None:
        async with asyncio.timeout_at(deadline):
            await self._client.connect(self._socket)

    async def _ended(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def _disconnect(self) -> None:
        if self._client.runstate is Runstate.IDLE:
            return
        try:
            # It raises the error that ended the connection.
            await self._client.disconnect()
        except (EOFError, OSError):
            pass
        except Exception:
            # Not an end but a fault, such as a line that is longer than the client takes (10 MiB).
            _logger.exception("%s", self._path)

    def _deliver(self, message: Message) -> bool:
        for callback in self._callbacks:
            try:
                callback(dict(message))
            except Exception:
                _logger.exception("event callback %r", callback)
        return False


def _dial(path: str, alive: Callable[[], bool], deadline: float) -> socket.socket:
    """Connect to a UNIX socket that may not be there yet."""
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connection.close()
            if not alive():
                raise NodeGone(f"{path}: the process ended before it listened") from error
            if time.monotonic() >= deadline:
                raise NodeGone(f"{path}: nobody listened in time") from error
        except OSError as error:
            connection.close()
            raise LocalError(f"{path}: {error}") from error
        time.sleep(_RETRY_SECONDS)
