"""A process: the machine, its network, its monitor; and the node that it is for now.

A node is one side of one pair, and lasts as long as that. The machine outlives it: after a failover
the survivor's process is a `Primary` without a peer, which a new secondary may join.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from colobench.guest.machine import Machine
from colobench.guest.tcp import LOST_RETRANSMISSION
from colobench.kernels.jit import warmup
from colobench.node.bugs import Bug
from colobench.node.monitor import Monitor
from colobench.node.network import Network
from colobench.node.options import Options
from colobench.node.transport import usable_cores
from colobench.node.workers import Workers

if TYPE_CHECKING:
    from colobench.node.node import Node


class Host:
    """What a process has from its start to its end.

    Parameters
    ----------
    options
        What it was started with.
    first
        Makes the node that it is at first.

    Attributes
    ----------
    machine, network, workers, monitor
        The guest; its frames' way to the outside; threads that share a job; the QMP server.
    node
        What this process is now.
    quitting
        Set when the process is to end.
    """

    def __init__(self, options: Options, first: Callable[[Host], Node]) -> None:
        self.options = options
        self.machine = Machine(options.guest, options.tracker)
        if options.bug is Bug.LOST_RETRANSMISSION:
            self.machine.plant(LOST_RETRANSMISSION)
        self.network = Network(
            self.machine,
            options.output,
            options.compare,
            lambda error: self.died("network", error),
        )
        self.machine.devices += self.network.devices()
        self.workers = Workers(max(options.channels, min(2, usable_cores())))
        self.quitting = threading.Event()
        self.exit_code = 0
        self.monitor = Monitor(options.qmp, {})
        self.node = first(self)
        self.monitor.set_commands(self.node.commands())

    def succeed(self, successor: Node) -> None:
        """Be another node from now on."""
        predecessor, self.node = self.node, successor
        self.monitor.set_commands(successor.commands())
        predecessor.retire()

    def run(self) -> int:
        """Serve until told to quit; returns the exit code."""
        try:
            # A checkpoint must not wait for a kernel that is still to be loaded, or compiled.
            for _ in warmup():
                pass
            # What is there by now stays; looking through it for garbage would take milliseconds.
            gc.collect()
            gc.freeze()
            self.network.begin()
            # Whoever can connect finds a node that is ready.
            self.node.begin()
            self.monitor.start()
            self.quitting.wait()
            self.monitor.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        finally:
            self._end()
        return self.exit_code

    def quit(self) -> None:
        """End the process in order."""
        self.quitting.set()

    def died(self, who: str, error: BaseException) -> None:
        """End the process because there is nothing to go on with, as QEMU does."""
        if self.quitting.is_set():
            return
        print(f"{who}: {error}", file=sys.stderr, flush=True)
        self.exit_code = 1
        self.quitting.set()

    def _end(self) -> None:
        """Stop everything, in an order in which nobody waits for what is gone."""
        self.quitting.set()
        self.node.end()
        self.network.close()
        self.workers.close()
        self.monitor.close(flush=True)
        self.machine.close()
