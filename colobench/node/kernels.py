"""The modules whose kernels a node needs, by what it is asked for, and their compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from colobench.guest.programs import Program
from colobench.kernels.note import is_noted, note
from colobench.settings.transport import Encoding, PageTransport, usable_cores

if TYPE_CHECKING:
    from colobench.kernels.warmup import Step

#: The host's side of a CPU, and RAM between guest, cache and socket, whatever the settings are.
_ALWAYS = (
    "colobench.guest.numba.command_cpu",
    *(
        f"colobench.kernels.{name}"
        for name in ("bitmap", "digest", "pages", "page_records", "socket_io")
    ),
)
_PACKETS, _TRACKING = "colobench.kernels.multifd", "colobench.kernels.tracking"
_XBZRLE = ("colobench.kernels.xbzrle", "colobench.kernels.xbzrle_records")


def kernel_modules(
    programs: Iterable[Program],
    transport: PageTransport,
    trackers: Iterable[str],
    encoding: Encoding = Encoding.NONE,
) -> tuple[str, ...]:
    """Name the modules with the kernels of guests, a transport, trackers and an encoding.

    Those whose kernels take longest to compile come first.
    """
    of_guests = (module for program in programs for module in program.modules)
    of_transport = () if transport is PageTransport.STREAM else (_PACKETS,)
    of_trackers = () if set(trackers) <= {"marked"} else (_TRACKING,)
    of_encoding = _XBZRLE if encoding is Encoding.XBZRLE else ()
    return (*of_guests, *of_transport, *_ALWAYS, *of_trackers, *of_encoding)


def all_kernel_modules() -> tuple[str, ...]:
    """Name all modules with kernels, those of the longest first."""
    programs = sorted(Program, key=lambda program: -len(program.modules))
    of_guests = (module for program in programs for module in program.modules)
    return (*of_guests, _PACKETS, *_ALWAYS, _TRACKING, *_XBZRLE)


def compile_kernels(modules: Sequence[str], progress: Callable[[Step], None]) -> None:
    """Compile what is not in the cache of the kernels of modules, on all cores that may be used.

    Parameters
    ----------
    modules
        Their names, those with the kernels that take longest first.
    progress
        Called as kernels become ready.
    """
    if is_noted(modules):
        return
    from colobench.kernels.warmup import compile_missing  # It takes numba.

    for step in compile_missing(modules, usable_cores()):
        progress(step)
    note(modules)
