"""What a node does when its peer falls silent: it asks the arbiter who may go on alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from colobench.errors import ColobenchError
from colobench.node.address import Address
from colobench.node.arbiter_client import ArbiterClient, ArbiterUnreachable
from colobench.node.heartbeat import DatagramAddress, Heartbeat

#: Seconds for which an arbiter is asked before it is said that it does not answer; then again.
_ASK_SECONDS = 2.0


class Watch:
    """A node's heartbeat in one pairing, and its arbiter.

    Parameters
    ----------
    pairing, node, peer
        The pairing's id and the names of both nodes in it.
    listen, to
        Where this node's heartbeat listens, and where the peer's does.
    interval, limit
        Seconds, see `colobench.node.heartbeat.Heartbeat`.
    arbiter
        Where the arbiter is; None if somebody else decides.
    on_lost, on_granted, on_refused, on_unreachable
        Called in a thread of their own: the peer is silent, with the seconds of silence; this node
        may serve alone; it must not, with the name of who may; there is no answer, with the reason.
    """

    def __init__(
        self,
        pairing: str,
        node: str,
        peer: str,
        listen: DatagramAddress,
        to: DatagramAddress,
        interval: float,
        limit: float,
        arbiter: Address | None,
        *,
        on_lost: Callable[[float], None],
        on_granted: Callable[[], None],
        on_refused: Callable[[str], None],
        on_unreachable: Callable[[str], None],
    ) -> None:
        self._pairing, self._node, self._limit = pairing, node, limit
        self._arbiter = None if arbiter is None else ArbiterClient(arbiter)
        self._on_lost, self._on_granted = on_lost, on_granted
        self._on_refused, self._on_unreachable = on_refused, on_unreachable
        self._stopped = threading.Event()
        self._lost = threading.Lock()
        self._asking: threading.Thread | None = None
        self._heartbeat = Heartbeat(
            listen, pairing, node, peer, self._peer_lost, interval=interval, limit=limit
        )
        try:
            self._heartbeat.start(to)
        except BaseException:
            self._heartbeat.stop()
            raise

    def colo_failed(self) -> None:
        """COLO has ended with an error: beat no more, so that both sides ask after the limit.

        A host that dies closes no connections, so the end of one is no sooner proof than silence.
        """
        self._asking = threading.Thread(target=self._wait_and_ask, name="COLO failed", daemon=True)
        self._asking.start()

    def stop(self) -> None:
        """Beat no more, ask nobody any more, and wait for what is done about an answer."""
        self._stopped.set()
        if self._arbiter is not None:
            self._arbiter.close()
        self._heartbeat.stop()
        asking = self._asking
        # Who is told of a grant by the heartbeat's thread must not wait for one that waits for it.
        if asking is not None and not (
            asking is threading.current_thread() or self._heartbeat.is_current_thread()
        ):
            asking.join()

    def figures(self) -> dict[str, Any]:
        """Give the heartbeat's counters."""
        return self._heartbeat.figures()

    def _wait_and_ask(self) -> None:
        self._heartbeat.stop()
        if not self._stopped.wait(self._limit):
            self._peer_lost()

    def _peer_lost(self) -> None:
        if not self._lost.acquire(blocking=False):
            return
        self._on_lost(self._heartbeat.silence)
        if self._arbiter is None:
            return
        while not self._stopped.is_set():
            try:
                verdict = self._arbiter.ask(self._pairing, self._node, _ASK_SECONDS)
            except ArbiterUnreachable as error:
                if not self._stopped.is_set():
                    self._on_unreachable(str(error))
                continue
            except ColobenchError as error:
                self._on_unreachable(str(error))
                return
            if verdict.granted:
                self._on_granted()
            else:
                self._on_refused(verdict.holder)
            return
