"""The tracker `kvm`: KVM's log of the pages that a virtual CPU wrote."""

from __future__ import annotations

import numpy as np

from colobench.memory.kvm import KVMError, KVMUnavailable, VirtualMachine
from colobench.memory.kvm_trial import WritingCPU
from colobench.memory.ram import RAM
from colobench.memory.tracker import (
    Tracker,
    TrackerUnavailable,
    Words,
    require_small_pages,
)


class KVMLog(Tracker):
    """Tracker for a guest that is run by KVM, which protects each page until its first write.

    KVM_GET_DIRTY_LOG copies the log, and KVM_CLEAR_DIRTY_LOG empties it and protects the pages
    again: those of the copy alone, as KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 has it. The log has no
    writes of this process.

    Attributes
    ----------
    vm
        The virtual machine over the RAM that is watched.
    """

    name = "kvm"
    _probe_writers = " (by a virtual CPU)"

    def __init__(self, ram: RAM) -> None:
        super().__init__(ram)
        require_small_pages(self.name)
        self._writer: WritingCPU | None = None
        try:
            self.vm = VirtualMachine(ram)
        except (KVMUnavailable, KVMError) as error:
            raise TrackerUnavailable(str(error)) from error

    def close(self) -> None:
        """Release the virtual machine."""
        try:
            super().close()
        finally:
            if self._writer is not None:
                self._writer.close()
            self.vm.close()

    def _arm(self) -> None:
        self.vm.log_dirty_pages(True)
        self.vm.take_log(np.zeros_like(self.ram.bitmap))

    def _collect(self, into: Words) -> None:
        self.vm.take_log(into)

    def _disarm(self) -> None:
        self.vm.log_dirty_pages(False)

    def _touch(self, page: int) -> None:
        """Write to a page by a virtual CPU."""
        if self._writer is None:
            self._writer = WritingCPU(self.vm, self.ram)
        self._writer.write(page)
