"""References in C, compiled with the machine's compiler into a temporary directory."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np

from colobench.errors import LocalError
from colobench.lab.bench.measured import Unavailable

FLAGS = ("-O3", "-shared", "-fPIC")
#: Variable with the name of one of `INSTRUCTION_SETS`, to which references are limited.
ENVIRONMENT_VARIABLE = "COLOBENCH_BENCH_INSTRUCTIONS"
_X86 = platform.machine() == "x86_64"
COMPILE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class InstructionSet:
    """Vector instructions of references.

    Attributes
    ----------
    name
        Name of the set, and the end of the names of C functions that need it.
    words
        Description of a reference that uses it.
    flags
        Flags with which the compiler uses this set and no larger one.
    features
        LLVM's names of the processor's features that it needs.
    """

    name: str
    words: str
    flags: tuple[str, ...]
    features: tuple[str, ...]


#: All sets, from the largest one to the one that any processor has.
INSTRUCTION_SETS = {
    each.name: each
    for each in (
        InstructionSet(
            "avx512",
            "C with AVX-512",
            ("-march=native",),
            ("avx512f", "avx512bw", "avx512vbmi2"),
        ),
        InstructionSet(
            "avx2", "C with AVX2", ("-march=native", "-mno-avx512f"), ("avx2", "popcnt")
        ),
        InstructionSet("neon", "C with NEON", ("-march=native",), ("neon",)),
        InstructionSet(
            "plain", "C for any processor", ("-march=x86-64",) if _X86 else ("-march=native",), ()
        ),
    )
}


def find_instructions(name: str | None = None) -> InstructionSet:
    """Return an instruction set: that of the name, of the environment, or the largest one.

    Raises
    ------
    LocalError
        If the name is unknown, or this processor lacks the set.
    """
    name = name or os.environ.get(ENVIRONMENT_VARIABLE)
    available = _available()
    for each in available:
        if name in (None, each.name):
            return each
    expected = ", ".join(each.name for each in available)
    raise LocalError(f"instructions of C references: expected one of {expected}, found {name!r}")


def _available() -> list[InstructionSet]:
    """Return the instruction sets of this processor, the largest one first."""
    has = llvmlite.binding.get_host_cpu_features()
    return [
        each
        for each in INSTRUCTION_SETS.values()
        if all(has.get(feature) for feature in each.features)
    ]


def find_compiler() -> str:
    """Give the path of the C compiler: ``$CC``, or ``cc``.

    Raises
    ------
    Unavailable
        If there is no compiler.
    """
    name = os.environ.get("CC", "cc")
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"no C compiler ({name}) on PATH")
    return path


class References:
    """C files of this package as libraries, each compiled at its first use.

    Parameters
    ----------
    instructions
        One of `INSTRUCTION_SETS`; None for the result of `find_instructions`.

    Attributes
    ----------
    instructions
        Largest set that the compiler may use.
    """

    def __init__(self, instructions: str | None = None) -> None:
        self.instructions = find_instructions(instructions)
        self._directory: Path | None = None
        self._libraries: dict[str, ctypes.CDLL] = {}

    def best(self, *names: str) -> InstructionSet:
        """Return the largest usable one of the instruction sets for which a reference is written.

        Parameters
        ----------
        names
            Names of `INSTRUCTION_SETS`; any processor has ``plain``, which need not be named.
        """
        available = _available()
        allowed = available[available.index(self.instructions) :]
        return next(each for each in allowed if each.name in (*names, "plain"))

    def function(self, name: str, *arguments: Any, result: Any = None) -> Callable[[], Any]:
        """Return a C function with bound arguments, so that a call costs little.

        Parameters
        ----------
        name
            ``file.function``: the C file of this package, without its end, and the function.
        arguments
            Arrays, of which the address is passed, and integers, passed as ``size_t`` or, if they
            are ctypes' numbers, as these.
        result
            The ctypes type that it returns; None for ``void``.

        Raises
        ------
        Unavailable
            If there is no compiler, it fails, or this machine's library has no such function.
        """
        library, _, symbol = name.partition(".")
        try:
            function = self._load(library)[symbol]
        except AttributeError as error:
            raise Unavailable(f"this processor lacks what C's {symbol} needs") from error
        passed = [_passed(argument) for argument in arguments]
        function.argtypes = [type(each) for each in passed]
        function.restype = result

        def call() -> Any:
            # The arrays live as long as this does.
            _ = arguments
            return function(*passed)

        return call

    def _load(self, name: str) -> ctypes.CDLL:
        if name not in self._libraries:
            self._libraries[name] = ctypes.CDLL(str(self._compile(name)))
        return self._libraries[name]

    def _compile(self, name: str) -> Path:
        compiler = find_compiler()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="colobench-bench-"))
        library = self._directory / f"{name}.so"
        with as_file(files(__package__) / "c" / f"{name}.c") as source:
            finished = subprocess.run(
                [compiler, *FLAGS, *self.instructions.flags, "-o", str(library), str(source)],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=COMPILE_TIMEOUT,
                # A compiler that is interrupted leaves its own files behind.
                env=os.environ | {"TMPDIR": str(self._directory)},
            )
        if finished.returncode:
            complaint = (finished.stderr.strip().splitlines() or ["it says nothing"])[0]
            raise Unavailable(f"{compiler} cannot compile {name}.c: {complaint}")
        return library

    def close(self) -> None:
        """Remove the compiled files; loaded libraries stay loaded."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None


def _passed(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise ValueError("expected a contiguous array")
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_size_t(argument) if isinstance(argument, int) else argument
