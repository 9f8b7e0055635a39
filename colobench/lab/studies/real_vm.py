"""A real VM in a study: a QEMU under KVM where there is one, and elsewhere a recorded one.

Both send their checkpoints to the same receiver, die, and are brought back from its file.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colobench.errors import RemoteError
from colobench.lab.decode.decode import decode
from colobench.lab.decode.kept_pages import KeptPages
from colobench.lab.interrupt import interruptible
from colobench.lab.material import find_material
from colobench.memory.ram import PAGE_SIZE
from colobench.node.address import Address
from colobench.node.receive.receiver import Receiver
from colobench.node.receive.records import ReceivedCheckpoint
from colobench.peers.example_guest import IMAGE, example_command, read_counter
from colobench.peers.firmware import FIRST_BYTE
from colobench.peers.protected_qemu import ProtectedQEMU
from colobench.peers.qemu import QEMUUnavailable
from colobench.peers.recorded_session import open_session
from colobench.peers.session_sender import SentCheckpoint, SessionSender
from colobench.processes.session_directory import qemu_directory
from colobench.wire.replayed_session import ReplayedSession

#: Milliseconds between two checkpoints: the guest sleeps 50 ms after each round over its pages.
DELAY_MS: Final = 100
#: The recording, below the package's material.
RECORDING: Final = "datasets/qemu/colo-pc.xz"
_WAIT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """A guest that was brought back.

    Attributes
    ----------
    number
        Number of the checkpoint that it goes on from.
    counter
        Its counter in that checkpoint, or just after it.
    later
        Its counter some time later.
    """

    number: int
    counter: int
    later: int

    def __str__(self) -> str:
        return f"checkpoint {self.number}: the counter was {self.counter}, later {self.later}"


class RealVM(ABC):
    """A real VM whose checkpoints arrive here.

    Attributes
    ----------
    source
        Where its checkpoints come from.
    receiver
        Their receiver.
    """

    source: str
    receiver: Receiver

    def __init__(self) -> None:
        self._closing = ExitStack()
        self._directory = qemu_directory(self._closing)

    @property
    def file(self) -> Path:
        """The migration file with the last committed checkpoint."""
        return self._directory / "guest.migration"

    @property
    def checkpoints(self) -> list[ReceivedCheckpoint]:
        """The committed checkpoints, without the migration before them."""
        # A copy in one step: another thread appends.
        return [each for each in self.receiver.checkpoints.copy() if each.number]

    @abstractmethod
    def run(self, count: int) -> list[ReceivedCheckpoint]:
        """Wait for checkpoints, and give all until now.

        Parameters
        ----------
        count
            Number of checkpoints to wait for; of a recording, as many as it has but for the last.
        """

    @abstractmethod
    def kill(self) -> None:
        """Kill it without warning."""

    @abstractmethod
    def bring_back(self) -> BroughtBack:
        """Bring its guest back from the file, and look at its counter twice."""

    def close(self) -> None:
        """End everything, and remove the file."""
        self._closing.close()

    def __repr__(self) -> str:
        return f"<{self.source}: {len(self.checkpoints)} checkpoints>"


class LiveVM(RealVM):
    """A QEMU under KVM that runs a guest of our own.

    Raises
    ------
    QEMUUnavailable
        If this machine has no QEMU, or no KVM.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            vm = ProtectedQEMU(example_command(), self.file, delay_ms=DELAY_MS, image=IMAGE)
            self._vm = self._closing.enter_context(vm)
            self._vm.protect()
            version = self._vm.execute("query-version")["qemu"]
        except BaseException:
            self.close()
            raise
        self.source = "QEMU {major}.{minor}.{micro} under KVM".format(**version)
        assert self._vm.receiver is not None
        self.receiver = self._vm.receiver

    @interruptible("the VM is as it was before")
    def run(self, count: int) -> list[ReceivedCheckpoint]:
        """Wait for checkpoints, see `RealVM.run`."""
        wanted = len(self.checkpoints) + count
        deadline = time.monotonic() + _WAIT_SECONDS
        while len(self.checkpoints) < wanted:
            if self.receiver.error is not None:
                raise self.receiver.error
            if time.monotonic() >= deadline:
                raise RemoteError(f"QEMU: expected {wanted} checkpoints in {_WAIT_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
        return self.checkpoints

    def kill(self) -> None:
        """Kill QEMU with SIGKILL."""
        self._vm.kill()
        self.receiver.wait()

    @interruptible("the VM is as it was before")
    def bring_back(self) -> BroughtBack:
        """Start a fresh QEMU from the file."""
        number = self._vm.bring_back()
        counter = later = read_counter(self._vm)
        deadline = time.monotonic() + _WAIT_SECONDS
        while later == counter and time.monotonic() < deadline:
            later = read_counter(self._vm)
        return BroughtBack(number, counter, later)


class RecordedVM(RealVM):
    """A recorded session of such a QEMU, sent again.

    Parameters
    ----------
    why
        Why it is not a live one.
    """

    def __init__(self, why: str) -> None:
        super().__init__()
        self._recording = find_material() / RECORDING
        try:
            data, places = self._closing.enter_context(open_session(self._recording))
            address = f"unix:{self._directory / 'colo'}"
            self.receiver = self._closing.enter_context(Receiver(address, self.file))
            self._session = ReplayedSession(data, places)
            connection = Address.parse(address).connect(_WAIT_SECONDS)
            self._sender = SessionSender(self._session, connection)
            self._closing.enter_context(self._sender)
            self._sender.migrate()
        except BaseException:
            self.close()
            raise
        self._sent: Iterator[SentCheckpoint] = self._sender.checkpoints(self._session.recorded)
        self.source = f"a recording of QEMU ({why})"

    @interruptible("the VM is as it was before")
    def run(self, count: int) -> list[ReceivedCheckpoint]:
        """Send checkpoints, see `RealVM.run`."""
        for _ in range(min(count, self._session.recorded - 1 - len(self.checkpoints))):
            sent = next(self._sent)
            if not sent.loaded:
                raise RemoteError(str(sent))
        return self.checkpoints

    def kill(self) -> None:
        """End the connection, as the death of QEMU does."""
        self._sender.__exit__()
        self.receiver.wait()

    def bring_back(self) -> BroughtBack:
        """Read the counter in the file, and in the last checkpoint of the recording."""
        assert self.receiver.saved is not None
        counter, later = _counter_in(self.file), _counter_in(self._recording)
        return BroughtBack(self.receiver.saved, counter, later)


def _counter_in(stream: Path) -> int:
    """Give the guest's counter as a stream leaves it."""
    keeper = KeptPages("pc.ram", page=FIRST_BYTE // PAGE_SIZE)
    decode(stream, keeper=keeper)
    return int.from_bytes(keeper.content[:4], "little")


def real_vm() -> RealVM:
    """Start a real VM where QEMU and KVM are; elsewhere, send the recording of one.

    Returns
    -------
    RealVM
        The VM, whose checkpoints arrive from now on. Close it.
    """
    try:
        return LiveVM()
    except QEMUUnavailable as error:
        return RecordedVM(str(error))
