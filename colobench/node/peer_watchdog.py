"""Watch over a peer: a heartbeat both ways, and questions to the arbiter on its silence."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from colobench.errors import RemoteError
from colobench.node.address import Address
from colobench.node.arbiter_client import ArbiterClient, ArbiterUnreachable
from colobench.node.heartbeat import DatagramAddress, Heartbeat
from colobench.protocol.arbiter import ArbiterAnswer, check_name

#: Seconds for which an arbiter is asked before it is reported as unreachable and asked anew.
_ASK_SECONDS = 2.0
#: Seconds until an arbiter that answered with an error is asked again.
_ASK_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two nodes that watch each other: the arguments of ``x-colo-heartbeat``.

    Attributes
    ----------
    pairing, node, peer
        The pairing's id, this node's name in it, and the peer's.
    listen, to
        Where this node's heartbeat listens, and where the peer's does.
    interval, limit
        Seconds, see `colobench.node.heartbeat.Heartbeat`.
    arbiter
        The arbiter's address; None if a person or a program decides by ``x-colo-lost-heartbeat``.

    Raises
    ------
    LocalError
        If the arbiter would not accept a name.
    """

    pairing: str
    node: str
    peer: str
    listen: DatagramAddress
    to: DatagramAddress
    interval: float
    limit: float
    arbiter: Address | None

    def __post_init__(self) -> None:
        for what in ("pairing", "node", "peer"):
            check_name(what, getattr(self, what))


class PeerWatchdog:
    """Notices that the peer is silent, and asks the arbiter about it.

    Parameters
    ----------
    pairing
        The two nodes.
    on_lost
        Called at most once, in a thread of its own, with the seconds of silence.
    """

    def __init__(self, pairing: Pairing, on_lost: Callable[[float], None]) -> None:
        self._pairing, self._on_lost = pairing, on_lost
        self._arbiter = None if pairing.arbiter is None else ArbiterClient(pairing.arbiter)
        self._stopped = threading.Event()
        self._lost = threading.Lock()
        self._waiting: threading.Thread | None = None
        self._heartbeat = Heartbeat(
            pairing.listen,
            pairing.pairing,
            pairing.node,
            pairing.peer,
            self._peer_lost,
            interval=pairing.interval,
            limit=pairing.limit,
        )
        try:
            self._heartbeat.start(pairing.to)
        except BaseException:
            self._heartbeat.stop()
            raise

    @property
    def has_arbiter(self) -> bool:
        """Whether there is an arbiter to ask."""
        return self._arbiter is not None

    def colo_failed(self) -> None:
        """Stop beating, as COLO has ended with an error, so that both nodes ask after the limit.

        A host that dies closes no connections, so the end of one is no sooner proof than silence.
        """
        self._waiting = threading.Thread(target=self._wait_out, name="COLO failed", daemon=True)
        self._waiting.start()

    def ask(self, on_unreachable: Callable[[str], None]) -> ArbiterAnswer | None:
        """Ask the arbiter until it has decided.

        An arbiter that answers with an error is asked again like one that does not answer: it may
        have been crowded with questions, or full, and started again since.

        Parameters
        ----------
        on_unreachable
            Called with the reason for each question without a verdict.

        Returns
        -------
        ArbiterAnswer or None
            None if this was stopped.
        """
        assert self._arbiter is not None
        while not self._stopped.is_set():
            try:
                return self._arbiter.ask(self._pairing.pairing, self._pairing.node, _ASK_SECONDS)
            except RemoteError as error:
                if not self._stopped.is_set():
                    on_unreachable(str(error))
                if not isinstance(error, ArbiterUnreachable):
                    # An error is answered at once.
                    self._stopped.wait(_ASK_AGAIN_SECONDS)
        return None

    def stop(self) -> None:
        """Stop beating and asking, and wait until `on_lost` has returned.

        The thread that runs `on_lost` may call it, too; then that thread is not waited for.
        """
        self._stopped.set()
        if self._arbiter is not None:
            self._arbiter.close()
        self._heartbeat.stop()
        waiting = self._waiting
        # The heartbeat's thread must not join one that waits for the heartbeat's to end.
        if waiting is not None and not (
            waiting is threading.current_thread() or self._heartbeat.is_current_thread()
        ):
            waiting.join()

    def _wait_out(self) -> None:
        """Wait as long as a peer may be silent, then count it as lost."""
        self._heartbeat.stop()
        if not self._stopped.wait(self._pairing.limit):
            self._peer_lost()

    def _peer_lost(self) -> None:
        if self._lost.acquire(blocking=False):
            self._on_lost(self._heartbeat.silence)
