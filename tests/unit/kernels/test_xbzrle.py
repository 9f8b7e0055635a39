"""XBZRLE: encodings are QEMU's to the byte, decoding gives the page back and stays inside of it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import colobench
import naive
from colobench.errors import LocalError
from colobench.kernels import xbzrle as kernels
from colobench.kernels.pages import PAGE_SIZE
from colobench.kernels.xbzrle import MALFORMED, OVERFLOW, SLACK
from colobench.lab.bench.reference import INSTRUCTION_SETS, find_instructions

#: Bytes around a page, and around an output, that nothing may touch.
MARGIN = 512


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), dtype=np.uint8)


def encode(old: bytes, new: bytes, limit: int = PAGE_SIZE) -> bytes | None:
    """Encode with the kernel, pages in the middle of something; None for an overflow."""
    out = np.full(limit + SLACK + MARGIN, 0xEE, dtype=np.uint8)
    around = bytes(MARGIN)
    length = kernels.encode(
        as_array(around + old + around), MARGIN, as_array(new + around), 0, out, limit
    )
    assert (out[limit + SLACK :] == 0xEE).all()
    assert length <= limit
    return None if length == OVERFLOW else out[:length].tobytes()


def decode(page: bytes, data: bytes) -> tuple[int, bytes]:
    """Decode with the kernel, page and data in the middle of something that must not matter."""
    memory = np.full(PAGE_SIZE + 2 * MARGIN, 0xEE, dtype=np.uint8)
    memory[MARGIN : MARGIN + PAGE_SIZE] = as_array(page)
    # What lies behind the data would go on as an encoding.
    surrounded = as_array(b"\1\1\7" + data + b"\1\1\7" * 20)
    length = kernels.decode(memory, MARGIN, surrounded, 3, len(data))
    assert (memory[:MARGIN] == 0xEE).all()
    assert (memory[MARGIN + PAGE_SIZE :] == 0xEE).all()
    return length, memory[MARGIN : MARGIN + PAGE_SIZE].tobytes()


def changed(page: bytes, runs: list[tuple[int, int]]) -> bytes:
    """Give a page with other bytes in the runs (begin, length), as far as they are inside."""
    result = bytearray(page)
    for begin, length in runs:
        for at in range(begin, min(begin + length, PAGE_SIZE)):
            result[at] = page[at] ^ (1 + at % 255)
    return bytes(result)


OLD = np.random.default_rng(3).integers(0, 256, PAGE_SIZE, dtype=np.uint8).tobytes()


@st.composite
def changed_pages(draw: st.DrawFn) -> bytes:
    """Give `OLD` with runs changed, many short ones or some long ones, or each byte by chance."""
    if draw(st.booleans()):
        random = np.random.default_rng(draw(st.integers(0, 1000)))
        chance = draw(st.sampled_from([0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99]))
        return changed(OLD, [(int(at), 1) for at in np.flatnonzero(random.random(4096) < chance)])
    longest = draw(st.sampled_from([3, 70, 300, 4096]))
    begins = st.one_of(st.integers(0, PAGE_SIZE - 1), st.sampled_from([0, 63, 64, 4032, 4095]))
    return changed(OLD, draw(st.lists(st.tuples(begins, st.integers(1, longest)), max_size=40)))


@given(changed_pages())
@settings(deadline=None, max_examples=300)
def test_encoding_is_that_of_qemu_and_decodes_to_the_page(new):
    encoding = encode(OLD, new)
    assert encoding == naive.xbzrle_encode(OLD, new, PAGE_SIZE)
    if encoding is not None:
        length, page = decode(OLD, encoding)
        assert page == new
        differing = [at for at in range(PAGE_SIZE) if OLD[at] != new[at]]
        assert length == (differing[-1] + 1 if differing else 0)


@given(changed_pages(), st.integers(-5, 5))
@settings(deadline=None, max_examples=300)
def test_limit_is_that_of_qemu_to_the_byte(new, beyond):
    whole = naive.xbzrle_encode(OLD, new, 3 * PAGE_SIZE)
    limit = max(0, len(whole) + beyond)
    assert encode(OLD, new, limit) == naive.xbzrle_encode(OLD, new, limit)


@pytest.mark.parametrize("first", [0, 1])
def test_slack_is_enough_for_as_many_runs_as_there_can_be(first):
    new = changed(OLD, [(at, 1) for at in range(first, PAGE_SIZE, 2)])
    for limit in range(700):
        assert encode(OLD, new, limit) is None


#: Old and new page of QEMU's docs/devel/migration/xbzrle.rst, and the 24 bytes it gives for them.
DOCUMENTED_OLD = bytes(1001) + bytes(range(5, 0x14)) + bytes.fromhex("6800006b006d") + bytes(3074)
DOCUMENTED_NEW = bytes(1001) + bytes(range(1, 0x10)) + bytes.fromhex("680000670069") + bytes(3074)
DOCUMENTED = "e9070f0102030405060708090a0b0c0d0e0f030167010169"

ZEROS = bytes(PAGE_SIZE)


def ones_at(*runs: tuple[int, int]) -> bytes:
    page = bytearray(PAGE_SIZE)
    for begin, length in runs:
        page[begin : begin + length] = b"\1" * length
    return bytes(page)


@pytest.mark.parametrize(
    ("runs", "encoding"),
    [
        ([], b""),
        ([(0, 1)], b"\0\1\1"),
        ([(4095, 1)], b"\xff\x1f\1\1"),
        ([(0, 1), (4095, 1)], b"\0\1\1\xfe\x1f\1\1"),
        ([(62, 1), (64, 1)], b"\x3e\1\1\1\1\1"),
        ([(63, 2)], b"\x3f\2\1\1"),
        ([(64, 64)], b"\x40\x40" + b"\1" * 64),
        ([(60, 72)], b"\x3c\x48" + b"\1" * 72),
        ([(127, 127)], b"\x7f\x7f" + b"\1" * 127),
        ([(128, 128)], b"\x80\1\x80\1" + b"\1" * 128),
        # Exactly a page, and a byte more.
        ([(3, 4093)], b"\3\xfd\x1f" + b"\1" * 4093),
        ([(2, 4094)], None),
        ([(0, 4096)], None),
        # With unchanged bytes at the end it is two bytes less.
        ([(0, 4091)], b"\0\xfb\x1f" + b"\1" * 4091),
        ([(0, 4092)], None),
        ([(0, 4093)], None),
    ],
)
def test_known_changes_have_known_encodings(runs, encoding):
    new = bytearray(PAGE_SIZE)
    for begin, length in runs:
        new[begin : begin + length] = b"\1" * length
    assert encode(ZEROS, bytes(new)) == encoding
    if encoding is not None:
        assert decode(ZEROS, encoding) == (sum(runs[-1]) if runs else 0, new)


def test_documented_example_is_met():
    assert encode(DOCUMENTED_OLD, DOCUMENTED_NEW) == bytes.fromhex(DOCUMENTED)
    assert decode(DOCUMENTED_OLD, bytes.fromhex(DOCUMENTED)) == (1022, DOCUMENTED_NEW)


@pytest.mark.parametrize(("limit", "encoding"), [(1, None), (2, b"")])
def test_even_an_unchanged_page_needs_room_for_a_length(limit, encoding):
    assert encode(OLD, OLD, limit) == encoding


@pytest.mark.parametrize(
    ("data", "decoded"),
    [
        (b"", 0),
        # Lengths in more bytes than they need.
        (b"\x80\0\x81\0\7", 1),
        (b"\x85\0\1\7", 6),
        (b"\0", MALFORMED),
        (b"\5", MALFORMED),
        (b"\0\0", MALFORMED),
        (b"\0\0\7", MALFORMED),
        (b"\0\x80\0\7", MALFORMED),
        (b"\0\1", MALFORMED),
        (b"\0\2\7", MALFORMED),
        (b"\0\x81", MALFORMED),
        (b"\x80", MALFORMED),
        (b"\x80\x80\1\1\7", MALFORMED),
        (b"\0\x81\x80\1\7", MALFORMED),
        (b"\0\1\7\0\1\7", MALFORMED),
        (b"\0\1\7\x80\0\1\7", MALFORMED),
        (b"\0\1\7\5", MALFORMED),
        (b"\xff\x1f\1\7", 4096),
        (b"\x80\x20\1\7", MALFORMED),
        (b"\xff\x1f\2\7\7", MALFORMED),
        (b"\xff\x7f\1\7", MALFORMED),
        (b"\0\x80\x20" + bytes(4096), 4096),
        (b"\1\x80\x20" + bytes(4096), MALFORMED),
        (b"\0\x81\x20" + bytes(4097), MALFORMED),
    ],
)
def test_decoder_takes_what_qemu_takes(data, decoded):
    assert decode(OLD, data) == naive.xbzrle_decode(OLD, data)
    assert decode(OLD, data)[0] == decoded


small_bytes = st.binary(max_size=30).map(lambda data: bytes(byte % 9 for byte in data))


@given(st.one_of(st.binary(max_size=300), small_bytes, st.binary(min_size=4000, max_size=9000)))
@settings(deadline=None, max_examples=300)
def test_garbage_stays_inside_of_the_page(data):
    assert decode(OLD, data) == naive.xbzrle_decode(OLD, data)


@given(changed_pages(), st.data())
@settings(deadline=None)
def test_damaged_encoding_stays_inside_of_the_page(new, data):
    encoding = bytearray(naive.xbzrle_encode(OLD, new, 3 * PAGE_SIZE) or b"\0\1\1")
    at = data.draw(st.integers(0, len(encoding) - 1))
    encoding[at] = data.draw(st.integers(0, 255))
    cut = bytes(encoding[: data.draw(st.integers(0, len(encoding)))])
    assert decode(OLD, cut) == naive.xbzrle_decode(OLD, cut)


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(0, 2**32))
@settings(deadline=None)
def test_many_pages_have_the_encodings_of_each(pages, seed):
    random = np.random.default_rng(seed)
    old = random.integers(0, 256, 8 * PAGE_SIZE, dtype=np.uint8)
    chances = random.choice([0, 0.01, 0.2, 0.6, 1], (8, 1))
    new = old ^ (random.random((8, PAGE_SIZE)) < chances).reshape(-1).view(np.uint8)
    out = np.zeros(len(pages) * PAGE_SIZE + SLACK, dtype=np.uint8)
    lengths = np.full(len(pages) + 1, 77, dtype=np.int32)
    total = kernels.encode_pages(
        old, new, np.array(pages, dtype=np.int32), len(pages), out, lengths
    )
    encodings = [
        naive.xbzrle_encode(
            naive.page(old.tobytes(), page), naive.page(new.tobytes(), page), PAGE_SIZE
        )
        for page in pages
    ]
    assert out[:total].tobytes() == b"".join(each or b"" for each in encodings)
    expected = [OVERFLOW if each is None else len(each) for each in encodings]
    assert lengths.tolist() == [*expected, 77]


#: Works on pages that end where the memory of the process ends.
EDGE = """
import ctypes, mmap
import numpy as np
from colobench.kernels import xbzrle
libc = ctypes.CDLL(None, use_errno=True)

def last_page():
    array = np.frombuffer(mmap.mmap(-1, 8192), dtype=np.uint8)
    assert libc.mprotect(ctypes.c_void_p(array.ctypes.data + 4096), 4096, 0) == 0
    return array[:4096]

old, new, data = last_page(), last_page(), last_page()
out = np.zeros(4096 + xbzrle.SLACK, dtype=np.uint8)
for changed in ([4095], range(4000, 4096), [4033, 4050], range(60, 4096), range(4032, 4096)):
    new[:] = 0
    new[list(changed)] = 7
    length = xbzrle.encode(old, 0, new, 0, out, 4096)
    assert length > 0
    data[4096 - length:] = out[:length]
    copy = last_page()
    assert xbzrle.decode(copy, 0, data, 4096 - length, length) == changed[-1] + 1
    assert (copy == new).all()
for end in ([0], [128], [0, 128], [0, 1], [0, 2, 7]):
    data[4096 - len(end):] = end
    assert xbzrle.decode(last_page(), 0, data, 4096 - len(end), len(end)) == -1
"""


def test_nothing_is_read_or_written_beyond_the_end_of_memory():
    subprocess.run([sys.executable, "-c", EDGE], check=True)


def available(name):
    try:
        find_instructions(name)
    except LocalError:
        return False
    return True


@pytest.fixture(scope="module", params=[name for name in INSTRUCTION_SETS if available(name)])
def reference(tmp_path_factory, request):
    """The C that the kernels are measured against, with each instruction set that is there."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed")
    source = Path(colobench.__file__).parent / "lab/bench/c/xbzrle.c"
    library = tmp_path_factory.mktemp("reference") / "xbzrle.so"
    flags = [
        "-O3",
        *INSTRUCTION_SETS[request.param].flags,
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
    ]
    subprocess.run([compiler, *flags, "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


def encoders(reference):
    """Give the encoders of the C library that this CPU can run."""
    names = [f"xbzrle_encode_{name}" for name in INSTRUCTION_SETS]
    for function in (getattr(reference, name) for name in names if hasattr(reference, name)):
        function.restype = ctypes.c_int64
        yield function


@given(new=changed_pages(), beyond=st.one_of(st.none(), st.integers(-5, 5)))
@settings(deadline=None)
def test_reference_in_c_encodes_the_same_within_its_limit(reference, new, beyond):
    limit = PAGE_SIZE
    if beyond is not None:
        limit = max(0, len(naive.xbzrle_encode(OLD, new, 3 * PAGE_SIZE)) + beyond)
    for function in encoders(reference):
        out = ctypes.create_string_buffer(b"\xee" * (limit + 8), limit + 8)
        length = function(OLD, new, out, ctypes.c_int64(limit))
        found = None if length < 0 else out.raw[:length]
        assert found == naive.xbzrle_encode(OLD, new, limit)
        assert out.raw[limit:] == b"\xee" * 8


@given(
    data=st.one_of(
        st.binary(max_size=300),
        small_bytes,
        changed_pages().map(lambda new: naive.xbzrle_encode(OLD, new, 3 * PAGE_SIZE)),
    )
)
@settings(deadline=None)
def test_reference_in_c_decodes_the_same(reference, data):
    page = ctypes.create_string_buffer(OLD + b"\xee" * 8, PAGE_SIZE + 8)
    reference.xbzrle_decode.restype = ctypes.c_int64
    length = reference.xbzrle_decode(page, data, ctypes.c_int64(len(data)))
    assert (length, page.raw[:PAGE_SIZE]) == naive.xbzrle_decode(OLD, data)
    assert page.raw[PAGE_SIZE:] == b"\xee" * 8


@pytest.mark.parametrize("chance", [0, 0.01, 0.1, 0.5])
def test_reference_in_c_encodes_many_pages_the_same(reference, chance):
    random = np.random.default_rng(1)
    old = random.integers(0, 256, 64 * PAGE_SIZE, dtype=np.uint8)
    new = old ^ (random.random(len(old)) < chance).view(np.uint8)
    pages = np.arange(0, 64, 3, dtype=np.int32)
    results = []
    names = [f"xbzrle_encode_pages_{name}" for name in INSTRUCTION_SETS]
    functions = [getattr(reference, name) for name in names if hasattr(reference, name)]
    for function in [kernels.encode_pages, *functions]:
        out = np.zeros(len(pages) * PAGE_SIZE + SLACK, dtype=np.uint8)
        lengths = np.zeros(len(pages), dtype=np.int32)
        arguments = [old, new, pages, len(pages), out, lengths]
        if function is not kernels.encode_pages:
            function.restype = ctypes.c_int64
            arguments = [
                ctypes.c_int64(each)
                if isinstance(each, int)
                else each.ctypes.data_as(ctypes.c_void_p)
                for each in arguments
            ]
        total = function(*arguments)
        results.append((total, out[:total].tobytes(), lengths.tolist()))
    assert all(result == results[0] for result in results)
