"""A guest's RAM, held open from outside, so that it can be read after its node was killed."""

from __future__ import annotations

import os
from types import TracebackType

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.guest.disk_queue import DISK_SLOTS, SLOT_BYTES, STATE, SlotState
from colobench.guest.settings import GuestSettings
from colobench.memory.ram import PAGE_SIZE, lay_out

#: Name of the memfd behind a guest's RAM.
_MEMFD = "/memfd:colobench-ram"


class GuestRAM:
    """RAM of a living node's guest. The memfd stays after the node's end, as long as this is open.

    Parameters
    ----------
    pid
        Process id of the node.
    settings
        Settings of its guest.

    Raises
    ------
    LocalError
        If the process has no such RAM.
    """

    def __init__(self, pid: int, settings: GuestSettings) -> None:
        self._blocks = {block.name: block for block in lay_out(settings.block_sizes())}
        self._disks = len(settings.disks)
        try:
            self._fd = os.open(_find(pid), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LocalError(f"process {pid}: expected a guest's RAM, found {error}") from error

    def __enter__(self) -> GuestRAM:
        """Do nothing: it is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        os.close(self._fd)

    def main(self) -> npt.NDArray[np.uint8]:
        """Return the bytes of pc.ram."""
        block = self._blocks["pc.ram"]
        return self._read("pc.ram", block.used_length)

    def requests_under_way(self) -> int:
        """Return the number of requests to disks that the guest has not been told are done."""
        states = [
            self._read(f"disk{number}", DISK_SLOTS * SLOT_BYTES).view(np.uint64)[
                STATE // 8 :: SLOT_BYTES // 8
            ]
            for number in range(self._disks)
        ]
        return sum(int((each == SlotState.SUBMITTED).sum()) for each in states)

    def _read(self, name: str, length: int) -> npt.NDArray[np.uint8]:
        data = os.pread(self._fd, length, self._blocks[name].first_page * PAGE_SIZE)
        return np.frombuffer(data, np.uint8)


def _find(pid: int) -> str:
    """Return the path of the memfd; a guest makes its own before others can send it theirs."""
    directory = f"/proc/{pid}/fd"
    for number in sorted(map(int, os.listdir(directory))):
        path = f"{directory}/{number}"
        if os.readlink(path).startswith(_MEMFD):
            return path
    raise LocalError(f"process {pid}: expected a guest's RAM, found none")
