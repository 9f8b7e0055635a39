"""A real QEMU as a child process, and the search for one that runs under KVM."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from colobench.errors import LocalError
from colobench.memory.kvm import KVMUnavailable, require_kvm
from colobench.processes.process import NodeProcess

PROGRAM = "qemu-system-x86_64"
#: Seconds that a QEMU may take to start, or to execute a command.
TIMEOUT = 30.0

_LAUNCHER = """
import os, sys
from colobench.node.parent import die_with
die_with(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


class QEMUUnavailable(LocalError):
    """No QEMU on this machine does the task under KVM; the message says what is missing."""


def check_command(command: Sequence[str]) -> None:
    """Refuse options that are added here, or by which QEMU would outlive its parent.

    Raises
    ------
    LocalError
    """
    for option in ("-incoming", "-daemonize"):
        if {option, f"-{option}"} & set(command):
            raise LocalError(f"QEMU: expected a command without {option}, found one with it")


class QEMUProcess(NodeProcess):
    """A QEMU, managed like a node of ours; its arguments begin with its program."""

    def _spawn(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", _LAUNCHER, str(os.getpid()), *arguments]
        # QEMU ends a value at a comma, unless it is doubled.
        monitor = str(self.qmp_path).replace(",", ",,")
        command += ["-qmp", f"unix:{monitor},server=on,wait=on"]
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        with open(self._errors, "wb") as errors:
            return subprocess.Popen(
                command,
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                # A terminal's Ctrl-C is for us alone.
                start_new_session=True,
            )

    def end(self) -> None:
        """End the process at once: nothing in it is worth an orderly end."""
        self.kill()
        super().end()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Have Ctrl-C wait for the end of a block, which would leave a process behind in its middle."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    interrupts: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupts:
        signal.raise_signal(signal.SIGINT)


def find_program() -> str:
    """Find QEMU's program.

    Raises
    ------
    QEMUUnavailable
        If there is none, or no KVM that creates a virtual machine.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise QEMUUnavailable(f"no {PROGRAM} on PATH")
    try:
        require_kvm(())
    except KVMUnavailable as error:
        raise QEMUUnavailable(f"no KVM: {str(error).removeprefix('kvm: ')}") from error
    return program
