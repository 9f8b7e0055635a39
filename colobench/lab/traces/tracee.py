"""A program under ptrace: started, made to execute system calls, followed through exec and exit.

The program runs at full speed between its stops, which are exec, exit and signals. It dies with
this process. Sources: ptrace(2); linux/ptrace.h; sys/user.h of x86-64.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from colobench.errors import LocalError

PTRACE_TRACEME, PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_SYSCALL = 0, 7, 9, 24
PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SETOPTIONS = 12, 13, 0x4200
PTRACE_O_TRACESYSGOOD, PTRACE_O_TRACEEXEC, PTRACE_O_TRACEEXIT = 1 << 0, 1 << 4, 1 << 6
PTRACE_O_EXITKILL = 1 << 20
PTRACE_EVENT_EXEC, PTRACE_EVENT_EXIT = 4, 6
_OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL
_SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000
#: prctl(2): no huge pages, for this process and after its exec.
PR_SET_THP_DISABLE = 41
#: x86-64: the instruction `syscall`; places in struct user_regs_struct.
SYSCALL_INSTRUCTION = b"\x0f\x05"
REGISTERS = 27
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP, CS = 7, 8, 9, 10, 12, 13, 14, 15, 16, 17
#: Last byte of the code segment of a program of 32 bits, whose system calls have other numbers.
_CODE_OF_32_BITS = 0x23
_ARGUMENTS = (RDI, RSI, RDX, R10, R8, R9)
_NO_SYSCALL = 2**64 - 1
SYS_CLOSE = 3
#: Least value of a system call that returns an error, as unsigned.
_ERRORS = 2**64 - 4095
#: Seconds that a program may take to end after SIGTERM.
END_SECONDS = 5.0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class RecordingUnavailable(LocalError):
    """A recording that cannot be made here, because a feature of the machine is missing."""


class Stop(enum.Enum):
    """Reason for which a program stands still, or is gone."""

    EXEC = "exec"
    EXITING = "exiting"
    ENDED = "ended"


class Tracee:
    """A program that stands still just after its exec.

    Parameters
    ----------
    command
        The program and its arguments.
    stdin, stdout
        As for `subprocess.Popen`.

    Attributes
    ----------
    pid
        Its process id, which is also that of its process group.
    stdin, stdout
        Its streams, where they are pipes.
    status
        Its exit status, negative for a signal; None while it lives.

    Raises
    ------
    LocalError
        If the program cannot be started.
    RecordingUnavailable
        If it cannot be traced here.
    """

    def __init__(
        self, command: Sequence[str], *, stdin: int | None = None, stdout: int | None = None
    ) -> None:
        if platform.machine() != "x86_64":
            raise RecordingUnavailable(
                f"record: expected an x86-64 processor, found {platform.machine()}"
            )
        try:
            self._process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, process_group=0, preexec_fn=_be_traced
            )
        except subprocess.SubprocessError as error:
            raise RecordingUnavailable(
                "record: ptrace: not permitted here (in a container, its seccomp profile decides)"
            ) from error
        except (OSError, ValueError) as error:
            raise LocalError(f"record: {command[0]} cannot be started: {error}") from error
        self.pid = self._process.pid
        self.stdin, self.stdout = self._process.stdin, self._process.stdout
        self.status: int | None = None
        try:
            self._wait()
            self._request(PTRACE_SETOPTIONS, 0, _OPTIONS)
        except BaseException:
            self.kill()
            raise

    def poll(self) -> Stop | None:
        """Look for a stop, and pass on signals.

        Returns
        -------
        Stop or None
            EXEC and EXITING leave the program standing until `go_on`. None if it runs.
        """
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG | WALL)
            if pid == 0:
                return None
            if not os.WIFSTOPPED(status):
                self._ended(status)
                break
            event = status >> 16
            if event == PTRACE_EVENT_EXEC:
                # Only behind the end of the system call do registers keep their values.
                self._request(PTRACE_SYSCALL)
                self._wait()
                return Stop.EXEC
            if event == PTRACE_EVENT_EXIT:
                return Stop.EXITING
            number = os.WSTOPSIG(status)
            self.go_on(0 if event or number in (signal.SIGTRAP, _SYSCALL_STOP) else number)
        return Stop.ENDED

    def go_on(self, number: int = 0) -> None:
        """Let the program run on, with a signal if `number` is not 0."""
        with suppress(ProcessLookupError):
            self._request(PTRACE_CONT, 0, number)

    def call(self, number: int, *arguments: int) -> int:
        """Have the program execute a system call where it stands; return the result.

        Raises
        ------
        OSError
            If the system call fails.
        RecordingUnavailable
            If it is a program of 32 bits.
        """
        registers = self._registers()
        if registers[CS] & 0xFF == _CODE_OF_32_BITS:
            raise RecordingUnavailable("record: expected a program of 64 bits, found one of 32")
        changed = list(registers)
        changed[RAX], changed[ORIG_RAX] = number, _NO_SYSCALL
        for place, argument in zip(_ARGUMENTS, arguments, strict=False):
            changed[place] = argument
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            instruction = os.pread(memory.fileno(), len(SYSCALL_INSTRUCTION), registers[RIP])
            os.pwrite(memory.fileno(), SYSCALL_INSTRUCTION, registers[RIP])
            self._set_registers(changed)
            signals = self._step()
            result = self._registers()[RAX]
            os.pwrite(memory.fileno(), instruction, registers[RIP])
        self._set_registers(registers)
        for each in signals:
            os.kill(self.pid, each)
        if result >= _ERRORS:
            raise OSError(2**64 - result, os.strerror(2**64 - result))
        return result

    def terminate(self) -> None:
        """Ask the program and its children to end, by SIGTERM."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the program, and those of its children that are still in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        while self.status is None:
            try:
                _, status = os.waitpid(self.pid, WALL)
            except ChildProcessError:
                self._ended(signal.SIGKILL)
                break
            if os.WIFSTOPPED(status):
                self.go_on()
            else:
                self._ended(status)
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                stream.close()

    def _ended(self, status: int) -> None:
        self.status = self._process.returncode = os.waitstatus_to_exitcode(status)

    def _wait(self) -> int:
        """Wait for a stop, and return its signal."""
        _, status = os.waitpid(self.pid, WALL)
        if not os.WIFSTOPPED(status):
            self._ended(status)
            raise LocalError(f"record: the program ended at its start, with status {self.status}")
        return os.WSTOPSIG(status)

    def _step(self) -> list[int]:
        """Execute one instruction; return the signals that arrived meanwhile."""
        signals: list[int] = []
        while True:
            self._request(PTRACE_SINGLESTEP)
            found = self._wait()
            if found == signal.SIGTRAP:
                return signals
            signals.append(found)

    def _registers(self) -> list[int]:
        found = (ctypes.c_uint64 * REGISTERS)()
        self._request(PTRACE_GETREGS, 0, ctypes.addressof(found))
        return list(found)

    def _set_registers(self, registers: Sequence[int]) -> None:
        values = (ctypes.c_uint64 * REGISTERS)(*registers)
        self._request(PTRACE_SETREGS, 0, ctypes.addressof(values))

    def _request(self, request: int, address: int = 0, data: int = 0) -> None:
        if _libc.ptrace(request, self.pid, address, data) < 0:
            number = ctypes.get_errno()
            if number == errno.ESRCH:
                raise ProcessLookupError(number, "the program has gone")
            raise RecordingUnavailable(f"record: ptrace: {os.strerror(number)}")


def _be_traced() -> None:
    """In the child, before exec: ask to be traced, and do without huge pages."""
    if _libc.ptrace(PTRACE_TRACEME, 0, 0, 0) < 0:
        sys.exit(1)
    _libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
