"""The command line, ``colobench`` or ``python -m colobench``, which may be interrupted at once.

The handling of an interrupt is set up before anything is imported that takes time.
"""

# `signal` imports `enum`, which takes longer than all of this.
import _signal  # type: ignore[import-not-found]
import os
import sys

_INTERRUPTED = 128 + 2


def _leave(number: int, frame: object) -> None:
    """End on the spot: nothing has been started yet, or all has ended."""
    try:
        os.write(2, b"colobench: interrupted\n")
    finally:
        os._exit(_INTERRUPTED)


def _open_standard_streams() -> None:
    """Give a process whose standard input, output or error is closed the null device there.

    Otherwise the next file or socket that the process opens would have that number.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # `open` takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR if descriptor else os.O_RDONLY), True)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(descriptor, "w" if descriptor else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def main() -> int:
    """Run the command line; returns the exit status."""
    _signal.signal(_signal.SIGINT, _leave)
    _open_standard_streams()
    from colobench.cli.main import main as run

    try:
        return run()
    finally:
        _signal.signal(_signal.SIGINT, _leave)


if __name__ == "__main__":
    sys.exit(main())
