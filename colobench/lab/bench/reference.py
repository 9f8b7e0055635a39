"""References in C: compiled with the machine's compiler into a temporary directory, and loaded."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from colobench.lab.bench.measured import Unavailable

FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
COMPILE_TIMEOUT = 60.0


def find_compiler() -> str:
    """Give the path of the C compiler: ``$CC``, or ``cc``.

    Raises
    ------
    Unavailable
        If there is none.
    """
    name = os.environ.get("CC", "cc")
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"no C compiler ({name}) on PATH")
    return path


class References:
    """The C files of this package as libraries, each compiled when it is first asked for."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._libraries: dict[str, ctypes.CDLL] = {}

    def function(self, name: str, *arguments: Any, result: Any = None) -> Callable[[], Any]:
        """Give a C function with its arguments bound to it, so that calling it costs little.

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
                [compiler, *FLAGS, "-o", str(library), str(source)],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=COMPILE_TIMEOUT,
            )
        if finished.returncode:
            complaint = (finished.stderr.strip().splitlines() or ["it says nothing"])[0]
            raise Unavailable(f"{compiler} cannot compile {name}.c: {complaint}")
        return library

    def close(self) -> None:
        """Remove what was compiled; what is loaded stays loaded."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None


def _passed(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise ValueError("expected a contiguous array")
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_size_t(argument) if isinstance(argument, int) else argument
