"""The C references of the kernels do what the kernels do, with each instruction set of this CPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colobench
import naive
from colobench.errors import LocalError
from colobench.kernels.bitmap import LIST_SLACK
from colobench.lab.bench.reference import INSTRUCTION_SETS, find_instructions

SOURCES = Path(colobench.__file__).parent / "lab/bench/c"
WORDS = 200
PAGES = 64 * 3
SIZE = PAGES * naive.PAGE_SIZE

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def available(name: str) -> bool:
    """Say whether this processor has an instruction set."""
    try:
        find_instructions(name)
    except LocalError:
        return False
    return True


for_cpu = pytest.mark.parametrize("cpu", [name for name in INSTRUCTION_SETS if available(name)])


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    """Give a function that builds one of the sources for a CPU and loads it."""
    directory = tmp_path_factory.mktemp("references")

    def build(name: str, cpu: str) -> Any:
        library = directory / f"{name}-{cpu}.so"
        if not library.exists():
            command = [
                "cc",
                "-O3",
                *INSTRUCTION_SETS[cpu].flags,
                "-Wall",
                "-Wextra",
                "-Werror",
                "-shared",
            ]
            source = SOURCES / f"{name}.c"
            subprocess.run([*command, "-fPIC", "-o", str(library), str(source)], check=True)
        return ctypes.CDLL(str(library))

    return build


def call(function: Any, *arguments: np.ndarray | int) -> int:
    """Call a C function with arrays as pointers and integers as size_t."""
    function.restype = ctypes.c_size_t
    return function(
        *(
            ctypes.c_size_t(each) if isinstance(each, int) else ctypes.c_void_p(each.ctypes.data)
            for each in arguments
        )
    )


def lines(bytes_: bytes | int) -> np.ndarray:
    """Make memory that begins at a multiple of 64, with the bytes or of that many zeros."""
    length = bytes_ if isinstance(bytes_, int) else len(bytes_)
    room = np.zeros(length + 64, dtype=np.uint8)
    begin = -room.ctypes.data % 64
    memory = room[begin : begin + length]
    if isinstance(bytes_, bytes):
        memory[:] = np.frombuffer(bytes_, dtype=np.uint8)
    return memory


def bitmaps() -> list[np.ndarray]:
    """Make bitmaps of all densities and lengths, with runs over the borders of words."""
    random = np.random.default_rng(1)
    made = []
    for words in (0, 1, 2, 63, 64, 65, 66, 129, WORDS):
        for density in (0, 0.001, 0.1, 0.5, 0.9, 1):
            bits = random.random(64 * words) < density
            made.append(np.packbits(bits, bitorder="little").view(np.uint64))
            runs = np.repeat(random.random(4 * words) < density, 16)
            made.append(np.packbits(runs, bitorder="little").view(np.uint64))
    return made


@for_cpu
def test_c_lists_pages_and_runs_as_the_kernels_do(build, cpu):
    library = build("bitmap", cpu)
    names = [name for name in INSTRUCTION_SETS if hasattr(library, f"list_pages_{name}")]
    assert {cpu, "plain"} <= {*names, "neon"}
    for bitmap in bitmaps():
        expected, runs = naive.pages_of(bitmap), naive.runs_of(bitmap)
        for name in names:
            pages = np.zeros(len(expected) + LIST_SLACK, dtype=np.int32)
            count = call(getattr(library, f"list_pages_{name}"), bitmap, len(bitmap), pages)
            assert pages[:count].tolist() == expected
        starts, lengths = np.zeros((2, len(runs) + LIST_SLACK), dtype=np.int32)
        count = call(library.list_runs, bitmap, len(bitmap), starts, lengths)
        found = zip(starts[:count].tolist(), lengths[:count].tolist(), strict=True)
        assert list(found) == runs


@for_cpu
def test_c_copies_and_flushes_as_the_kernels_do(build, cpu):
    library = build("pages", cpu)
    random = np.random.default_rng(2)
    cache = lines(random.bytes(SIZE))
    for name in ("copy_nontemporal", "copy_nontemporal_ahead", "copy_memcpy"):
        for length in (0, 100, 4096, SIZE):
            ram = lines(SIZE)
            call(getattr(library, name), ram, cache, length)
            assert ram.tobytes() == cache[:length].tobytes() + bytes(SIZE - length)
    for name in ("flush_memcpy", "flush_nontemporal"):
        for count in (0, 1, 2, 7, 100, PAGES):
            ram = lines(random.bytes(SIZE))
            pages = np.sort(random.choice(PAGES, count, replace=False)).astype(np.int32)
            expected = naive.flush(
                ram.tobytes(), cache.tobytes(), naive.bitmap_of(pages.tolist(), 3)
            )
            call(getattr(library, name), ram, cache, pages, count)
            assert ram.tobytes() == expected


@for_cpu
def test_c_finds_zero_and_different_pages_as_the_kernels_do(build, cpu):
    library = build("pages", cpu)
    random = np.random.default_rng(3)
    memory, other = lines(SIZE), lines(SIZE)
    for array in (memory, other):
        for page in random.choice(PAGES, 60, replace=False):
            byte = random.choice([0, 255, 2048, 4095, random.integers(4096)])
            array[page * naive.PAGE_SIZE + byte] = 1
    for pages in (0, 1, 64, 100, PAGES):
        part, rest = (array[: pages * naive.PAGE_SIZE].tobytes() for array in (memory, other))
        bitmap = np.zeros(3, dtype=np.uint64)
        zero, different = naive.zero_pages(part), naive.different_pages(part, rest)
        assert call(library.zero_pages, memory, pages, bitmap) == len(zero)
        assert naive.pages_of(bitmap) == sorted(zero)
        bitmap[:] = 0
        assert call(library.different_pages, memory, other, pages, bitmap) == len(different)
        assert naive.pages_of(bitmap) == sorted(different)
