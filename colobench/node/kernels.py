"""Modules with the kernels that a node needs for its settings, and their compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from colobench.guest.programs import Program
from colobench.kernels.note import is_noted, note
from colobench.settings.settings import Settings
from colobench.settings.transport import Encoding, PageTransport, usable_cores

if TYPE_CHECKING:
    from colobench.kernels.warmup import Step

#: Modules that all settings need: the host's side of a CPU; RAM between guest, cache and socket.
_ALWAYS = (
    "colobench.guest.numba.command_cpu",
    *(
        f"colobench.kernels.{name}"
        for name in ("bitmap", "digest", "pages", "page_records", "socket_io")
    ),
)
_PACKETS, _TRACKING = "colobench.kernels.multifd", "colobench.kernels.tracking"
_COMPRESSED_PACKETS = "colobench.kernels.compressed_packets"
_XBZRLE = ("colobench.kernels.xbzrle", "colobench.kernels.xbzrle_records")


def kernel_modules(
    programs: Iterable[Program],
    transport: PageTransport,
    trackers: Iterable[str],
    encoding: Encoding = Encoding.NONE,
) -> tuple[str, ...]:
    """Return the modules with the kernels of guests, a transport, trackers and an encoding.

    The modules with the longest compilation come first.
    """
    of_guests = (module for program in programs for module in program.modules)
    of_transport: tuple[str, ...] = () if transport is PageTransport.STREAM else (_PACKETS,)
    if encoding.compression is not None and transport is PageTransport.MULTIFD:
        of_transport = (_COMPRESSED_PACKETS,)
    of_trackers = () if set(trackers) <= {"marked"} else (_TRACKING,)
    of_encoding = _XBZRLE if encoding is Encoding.XBZRLE else ()
    return (*of_guests, *of_transport, *_ALWAYS, *of_trackers, *of_encoding)


def modules_for(settings: Settings, with_guest: bool = True) -> tuple[str, ...]:
    """Name the modules with the kernels that a node with these settings runs."""
    programs, checkpoint = [settings.guest.program] if with_guest else [], settings.checkpoint
    pages, trackers = checkpoint.transport.pages, [checkpoint.tracker]
    return kernel_modules(programs, pages, trackers, checkpoint.encoding)


def all_kernel_modules() -> tuple[str, ...]:
    """Return all modules with kernels, those with the longest compilation first."""
    programs = sorted(Program, key=lambda program: -len(program.modules))
    of_guests = (module for program in programs for module in program.modules)
    return (*of_guests, _PACKETS, _COMPRESSED_PACKETS, *_ALWAYS, _TRACKING, *_XBZRLE)


def compile_kernels(modules: Sequence[str], progress: Callable[[Step], None]) -> None:
    """Compile the kernels of modules that are not in the cache, on all usable cores.

    Parameters
    ----------
    modules
        Names of the modules, those with the longest compilation first.
    progress
        Function that is called when kernels become ready.
    """
    if is_noted(modules):
        return
    from colobench.kernels.warmup import compile_missing  # It takes numba.

    for step in compile_missing(modules, usable_cores()):
        progress(step)
    note(modules)
