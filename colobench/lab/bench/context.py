"""Context of measurements: memory that is allocated once, C references, and a scale of sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt
import psutil

from colobench.lab.bench.measured import Measured, Unavailable
from colobench.lab.bench.reference import References
from colobench.lab.bench.timing import Sampler, alternate
from colobench.memory.ram import RAM, lay_out
from colobench.processes.hostinfo import Cores
from colobench.processes.resource_limits import usable_memory

Samples = Sequence[Sequence[float]]

GIB, MIB, PAGE_SIZE = 1 << 30, 1 << 20, 4096
ROUNDS = 11
#: Seconds of samples below which more rounds are made, as other work on the machine varies.
ENOUGH_SECONDS = 0.4
#: Memory that must stay free, in addition to that of a case, bytes.
SPARE_BYTES = 256 * MIB


class BenchContext(contextlib.AbstractContextManager["BenchContext"]):
    """Memory, C references and scale of measurements; it is closed at the end.

    Parameters
    ----------
    rounds
        Number of samples of each thing that is compared; the median counts.
    shrink
        Factor by which all sizes are smaller, for tests that only check that cases run. Rows name
        the actual sizes.
    peers
        Whether other systems are measured, too.
    instructions
        Instruction set of the C references, see `colobench.lab.bench.reference`.

    Attributes
    ----------
    rounds, peers
        As the parameters.
    references
        The functions in C.
    failures
        Descriptions of cases that failed.
    closing
        Stack of resources that are closed with this context.
    """

    def __init__(
        self,
        *,
        rounds: int = ROUNDS,
        shrink: int = 1,
        peers: bool = False,
        instructions: str | None = None,
    ) -> None:
        self.rounds = rounds
        self.peers = peers
        self.references = References(instructions)
        self.failures: list[str] = []
        self.closing = contextlib.ExitStack()
        self.closing.callback(self.references.close)
        self.closing.callback(self.release)
        self._shrink = shrink
        self._memory: dict[str, RAM] = {}
        self._cores: Cores | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove compiled references, release memory, end threads."""
        self.closing.close()

    def size(self, full: int, multiple: int = 1) -> int:
        """Give a number of bytes, pages or calls at this context's scale.

        Parameters
        ----------
        full
            Size in a real measurement.
        multiple
            Number of which the result is a multiple, at least once.
        """
        return max(full // self._shrink // multiple, 1) * multiple

    def reserve(self, wanted: int) -> None:
        """Check that the machine has this much memory free; raises `Unavailable`."""
        free = min(float(psutil.virtual_memory().available), usable_memory()) - SPARE_BYTES
        if wanted > free:
            raise Unavailable(f"{wanted / GIB:.1f} GiB of memory, where {free / GIB:.1f} are free")

    def memory(self, name: str, size: int) -> RAM:
        """Return guest RAM of a number of bytes, all touched; the same for the same name."""
        if name not in self._memory:
            self.reserve(size)
            self._memory[name] = RAM(f"bench-{name}", lay_out({"pc.ram": size}))
        return self._memory[name]

    def noise(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """Return RAM with a number of random bytes."""
        known = name in self._memory
        array = self.memory(name, size).array
        if not known:
            chance, words = np.random.default_rng(0), array.view(np.uint64)
            for begin in range(0, len(words), MIB):
                part = words[begin : begin + MIB]
                part[:] = chance.integers(1, 2**64, len(part), dtype=np.uint64)
        return array

    def release(self) -> None:
        """Free the memory of the subject that was measured."""
        for each in self._memory.values():
            each.close()
        self._memory.clear()

    @property
    def cores(self) -> Cores:
        """Measure of the cores that the machine provides."""
        if self._cores is None:
            self._cores = Cores(self.size(128 * MIB, 2 * PAGE_SIZE))
            self.closing.callback(self._cores.close)
        return self._cores

    def compare(
        self, *samplers: Sampler, enough_seconds: float = ENOUGH_SECONDS
    ) -> list[list[float]]:
        """Take samples in turn; see `alternate`."""
        return alternate(samplers, self.rounds, enough_seconds / self._shrink)


def as_rates(samples: Samples, amount: float, two_threads: Sequence[float] = ()) -> Measured:
    """Convert seconds into GB/s.

    Parameters
    ----------
    samples
        Seconds of ours and of the reference.
    amount
        Bytes that each of them handled.
    two_threads
        As in `Measured`.
    """
    ours, reference = ([amount / each / 1e9 for each in part] for part in samples)
    return Measured(ours, reference, two_threads)


def as_times(samples: Samples, units: float, two_threads: Sequence[float] = ()) -> Measured:
    """Convert seconds into a unit of which `units` make a second; parameters as of `as_rates`."""
    ours, reference = ([units * each for each in part] for part in samples)
    return Measured(ours, reference, two_threads)


def thousands(count: int) -> str:
    """Write a number of pages in short form: ``50k``."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else f"{count}"


def binary(size: int) -> str:
    """Write a number of bytes in the largest unit that it is a whole number of: ``1 GiB``."""
    for unit, scale in (("GiB", GIB), ("MiB", MIB), ("KiB", 1 << 10)):
        if size % scale == 0:
            return f"{size // scale} {unit}"
    return f"{size} B"
