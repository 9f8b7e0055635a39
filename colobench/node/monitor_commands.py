"""Monitor commands of both sides of a pair, with QEMU's names where QEMU has them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.colo_status import ColoStatus
from colobench.node.frame_socket import FrameSocket
from colobench.node.guest_control import GuestControl
from colobench.node.heartbeat import DatagramAddress
from colobench.node.monitor import Monitor, MonitorCommand
from colobench.node.network import Network
from colobench.node.peer_watchdog import Pairing
from colobench.node.takeover import Takeover

#: Time limit for a connection, seconds.
CONNECT_TIMEOUT = 10.0


class GuestCommands:
    """Commands that query, stop and start the guest.

    Parameters
    ----------
    guest, monitor
        Guest, and monitor for its events.
    lock
        Lock that is held while the guest is stopped, started or digested.
    check_outside_colo
        Function that raises LocalError while checkpoints stop and start the guest.
    """

    def __init__(
        self,
        guest: GuestControl,
        monitor: Monitor,
        lock: AbstractContextManager[object],
        check_outside_colo: Callable[[], None],
    ) -> None:
        self._guest, self._monitor, self._lock = guest, monitor, lock
        self._check_outside_colo = check_outside_colo

    def table(self) -> dict[str, MonitorCommand]:
        """Give the commands by name."""
        return {
            "query-status": MonitorCommand(self._query_status),
            "x-query-console": MonitorCommand(self._query_console),
            "x-query-digest": MonitorCommand(self._query_digest),
            "pmemsave": MonitorCommand(self._pmemsave, {"val": int, "size": int, "filename": str}),
            "stop": MonitorCommand(self._stop),
            "cont": MonitorCommand(self._cont),
        }

    def _query_status(self) -> dict[str, Any]:
        return {"status": self._guest.run_state, "running": self._guest.machine.running}

    def _query_console(self) -> dict[str, Any]:
        return {"text": self._guest.machine.console()}

    def _query_digest(self) -> dict[str, Any]:
        with self._lock:
            if self._guest.machine.running:
                raise LocalError("digest: expected a stopped guest, found it running")
            return self._guest.digests(self._guest.save_devices())

    def _pmemsave(self, val: int, size: int, filename: str) -> None:
        """Write `size` bytes of pc.ram, from the address `val` on, into a file, as in QEMU."""
        ram = self._guest.machine.ram
        block = ram.block("pc.ram")
        length = 0 if block is None else block.used_length
        if block is None or val < 0 or size < 0 or val + size > length:
            raise LocalError(
                f"pmemsave: expected a range within {length} bytes, found {size} bytes at {val}"
            )
        with self._lock:
            if self._guest.machine.running:
                raise LocalError("pmemsave: expected a stopped guest, found it running")
            try:
                ram.block_bytes(block)[val : val + size].tofile(filename)
            except OSError as error:
                raise LocalError(f"pmemsave {filename}: {error.strerror}") from error

    def _stop(self) -> None:
        with self._lock:
            self._check_outside_colo()
            self._guest.stop("paused")
        self._monitor.emit("STOP", {})

    def _cont(self) -> None:
        with self._lock:
            self._check_outside_colo()
            self._guest.start()
        self._monitor.emit("RESUME", {})


class NetworkCommands:
    """Commands that attach the guest's network, give it frames, and return its counters.

    Parameters
    ----------
    network, guest, status
        Network, its guest, and the COLO status of the process.
    """

    def __init__(self, network: Network, guest: GuestControl, status: ColoStatus) -> None:
        self._network, self._guest, self._status = network, guest, status

    def table(self) -> dict[str, MonitorCommand]:
        """Give the commands by name."""
        return {
            "x-netdev": MonitorCommand(self._netdev, {"uri": str}),
            "x-net-receive": MonitorCommand(self._receive, {"frame": str}),
            "x-query-guest": MonitorCommand(self._query_guest),
        }

    def _netdev(self, uri: str) -> None:
        link = Address.parse(uri).connect(CONNECT_TIMEOUT)
        self._network.attach_link(FrameSocket(link))

    def _receive(self, frame: str) -> None:
        if self._status.mode == "secondary":
            raise LocalError("frame: expected the primary or a survivor, found a secondary")
        try:
            data = bytes.fromhex(frame)
        except ValueError as error:
            raise LocalError(f"frame: expected hexadecimal digits, found {frame!r}") from error
        if not self._network.receive(data):
            raise LocalError("frame: the NIC's receive queue is full")

    def _query_guest(self) -> dict[str, Any]:
        guest = self._guest
        return {
            **guest.machine.describe(),
            "checkpoint": guest.checkpoint,
            "checkpoint-age": guest.checkpoint_age(),
            **self._network.statistics(),
        }


class ColoCommands:
    """Commands that query COLO's status and decide about a takeover.

    Parameters
    ----------
    status, takeover
        COLO status of the process, and the node's takeover.
    """

    def __init__(self, status: ColoStatus, takeover: Takeover) -> None:
        self._status, self._takeover = status, takeover

    def table(self) -> dict[str, MonitorCommand]:
        """Give the commands by name."""
        return {
            "query-colo-status": MonitorCommand(self._query_colo_status),
            "query-migrate-capabilities": MonitorCommand(self._query_capabilities),
            "migrate-set-capabilities": MonitorCommand(
                self._set_capabilities, {"capabilities": list}
            ),
            "x-colo-lost-heartbeat": MonitorCommand(self._takeover.told),
            "x-colo-heartbeat": MonitorCommand(
                self._watch_peer,
                {
                    **dict.fromkeys(("pairing", "node", "peer", "listen", "to"), str),
                    **dict.fromkeys(("interval", "limit"), int),
                },
                {"arbiter": str},
            ),
        }

    def _query_colo_status(self) -> dict[str, Any]:
        status = self._status
        return {"mode": status.mode, "last-mode": status.last_mode, "reason": status.reason}

    def _query_capabilities(self) -> list[dict[str, Any]]:
        return [{"capability": "x-colo", "state": self._status.enabled}]

    def _set_capabilities(self, capabilities: list[Any]) -> None:
        for each in capabilities:
            if not isinstance(each, dict) or each.get("capability") != "x-colo":
                raise LocalError(f"capability: expected x-colo, found {each!r}")
            if not isinstance(each.get("state"), bool):
                raise LocalError(f"capability x-colo: expected a boolean state, found {each!r}")
            self._status.enabled = each["state"]

    def _watch_peer(
        self,
        pairing: str,
        node: str,
        peer: str,
        listen: str,
        to: str,
        interval: int,
        limit: int,
        arbiter: str | None = None,
    ) -> None:
        self._takeover.watch(
            Pairing(
                pairing,
                node,
                peer,
                DatagramAddress.parse(listen),
                DatagramAddress.parse(to),
                interval / 1000,
                limit / 1000,
                None if arbiter is None else Address.parse(arbiter),
            )
        )
