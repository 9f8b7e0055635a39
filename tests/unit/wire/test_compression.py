"""Compression: blocks come back as they were, and a peer's block uses no memory beyond its size."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.lab.session.session import Session
from colobench.wire.compression import (
    METHODS,
    CompressionError,
    compressed_limit,
    compressor,
    decompressor,
    library,
)

each_method = pytest.mark.parametrize("method", METHODS)
#: Blocks that compress well, and such that do not at all.
blocks = st.one_of(
    st.binary(min_size=1, max_size=2000),
    st.integers(1, 1 << 19).map(bytes),
    st.integers(1, 1 << 19).map(lambda size: np.random.default_rng(size).bytes(size)),
)


@each_method
@given(st.lists(blocks, max_size=5), st.sampled_from([1, 3, 19]))
def test_blocks_come_back_in_their_order_within_the_limit(
    method: str, data: list[bytes], level: int
) -> None:
    there, back = compressor(method, level), decompressor(method)
    for block in data:
        compressed = there.compress(memoryview(block))
        assert len(compressed) <= compressed_limit(len(block))
        assert back.decompress(compressed, len(block)) == block


@each_method
@given(blocks, st.data())
def test_a_block_of_another_size_than_announced_is_refused(
    method: str, block: bytes, data: st.DataObject
) -> None:
    compressed = compressor(method, 1).compress(memoryview(block))
    other = data.draw(st.integers(1, 2 * len(block) + 1).filter(lambda size: size != len(block)))
    with pytest.raises(CompressionError):
        decompressor(method).decompress(compressed, other)


@each_method
@given(blocks, st.data())
def test_a_block_that_is_cut_off_is_refused(method: str, block: bytes, data: st.DataObject) -> None:
    compressed = compressor(method, 1).compress(memoryview(block))
    cut = data.draw(st.integers(0, len(compressed) - 1))
    with pytest.raises(CompressionError):
        decompressor(method).decompress(compressed[:cut], len(block))


@each_method
@given(st.binary(min_size=1, max_size=500))
def test_garbage_is_refused_or_of_the_announced_size(method: str, garbage: bytes) -> None:
    try:
        found = decompressor(method).decompress(garbage, 4096)
    except CompressionError:
        return
    assert len(found) == 4096


def test_a_wrong_checksum_of_zstandard_is_refused() -> None:
    zstd = library("zstd")
    options = {zstd.CompressionParameter.checksum_flag: 1}
    frame = bytearray(zstd.compress(bytes(range(256)), options=options))
    frame[-1] ^= 1
    with pytest.raises(CompressionError):
        decompressor("zstd").decompress(bytes(frame), 256)


def test_a_stream_that_ends_is_refused() -> None:
    frame = library("zstd").compress(bytes(1000))
    with pytest.raises(CompressionError, match="a stream that ends"):
        decompressor("zstd").decompress(frame, 1000)


def test_a_window_beyond_the_limit_is_refused() -> None:
    zstd = library("zstd")
    stream = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 25})
    compressed = stream.compress(bytes(1000), stream.FLUSH_BLOCK)
    with pytest.raises(CompressionError, match="not Zstandard's"):
        decompressor("zstd").decompress(compressed, 1000)


@each_method
def test_a_missing_library_is_one_clear_error_before_anything_starts(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = library(method).__name__
    real = importlib.import_module

    def missing(wanted: str, package: str | None = None) -> object:
        if wanted == name:
            raise ModuleNotFoundError(f"No module named {wanted!r}")
        return real(wanted, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(LocalError, match=rf"encoding {method}: expected the package .* pip"):
        Session(encoding=method, ram="8M")
    Session(ram="8M")


def test_a_session_without_compression_imports_no_library() -> None:
    import subprocess

    words = "import sys, colobench.node.migration.transports as _;"
    words += "assert not {'lz4', 'backports.zstd', 'compression.zstd'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", words], check=True)
