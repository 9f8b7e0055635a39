"""Compression of pages by well-known libraries: Zstandard and LZ4.

Both work on a connection's blocks in order. Zstandard is one stream for each connection, flushed
behind each block, as in QEMU's multifd, so that a block can refer to those before it. Each block of
LZ4 stands alone.

The libraries are imported when they are first used: Zstandard is in Python from 3.14 on, and the
package ``backports.zstd`` before; LZ4 is the package ``lz4``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Final, Protocol

from colobench.errors import ColobenchError, LocalError

#: Levels of Zstandard. Higher ones need windows beyond `_WINDOW_LOG`.
ZSTD_LEVELS: Final = (1, 19)
#: Most of a Zstandard stream that a decompressor keeps: 2 ** 23 bytes. A stream that asks for more
#: is refused.
_WINDOW_LOG: Final = 23
_LIBRARIES: Final = {
    "zstd": "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
    "lz4": "lz4.block",
}


class CompressionError(ColobenchError):
    """A block that is not compressed data of the announced length."""


class Compressor(Protocol):
    """One side of a connection that compresses."""

    def compress(self, data: memoryview) -> bytes:
        """Compress a block."""


class Decompressor(Protocol):
    """One side of a connection that decompresses."""

    def decompress(self, data: bytes | bytearray | memoryview, size: int) -> bytes:
        """Decompress a block that has `size` bytes then; no more memory is used for it.

        Raises
        ------
        CompressionError
            If it does not have exactly these bytes.
        """


def compressed_limit(size: int) -> int:
    """Give the most bytes that a compressed block of `size` bytes takes with either library."""
    return size + size // 128 + 1024


def library(method: str) -> ModuleType:
    """Import the library of a method.

    Raises
    ------
    LocalError
        If it is not installed.
    """
    name = _LIBRARIES[method]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LocalError(
            f"encoding {method}: expected the package {name.removesuffix('.block')}, found none "
            f"({error}); pip install 'colobench[compression]' brings it"
        ) from error


def compressor(method: str, level: int) -> Compressor:
    """Make a compressor, of that level if the method has levels.

    Raises
    ------
    LocalError
        If the library is not installed.
    """
    return _COMPRESSORS[method](library(method), level)


def decompressor(method: str) -> Decompressor:
    """Make a decompressor.

    Raises
    ------
    LocalError
        If the library is not installed.
    """
    return _DECOMPRESSORS[method](library(method))


class _ZstdCompressor:
    def __init__(self, zstd: ModuleType, level: int) -> None:
        self._stream = zstd.ZstdCompressor(level=level)

    def compress(self, data: memoryview) -> bytes:
        compressed: bytes = self._stream.compress(data, self._stream.FLUSH_BLOCK)
        return compressed


class _ZstdDecompressor:
    def __init__(self, zstd: ModuleType) -> None:
        limit = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        self._stream, self._error = zstd.ZstdDecompressor(options=limit), zstd.ZstdError

    def decompress(self, data: bytes | bytearray | memoryview, size: int) -> bytes:
        stream = self._stream
        try:
            block: bytes = stream.decompress(data, size)
            # The last bytes may have come without the end of their block.
            more = 0 if stream.needs_input or stream.eof else len(stream.decompress(b"", 1))
        except (self._error, EOFError) as error:
            raise CompressionError(f"not Zstandard's: {error}") from error
        if len(block) != size or more or not stream.needs_input:
            longer = "more than " if more else "a stream that ends, " if stream.eof else ""
            raise CompressionError(f"{longer}{len(block)} bytes")
        return block


class _LZ4Compressor:
    def __init__(self, block: ModuleType, level: int) -> None:
        self._library = block

    def compress(self, data: memoryview) -> bytes:
        compressed: bytes = self._library.compress(data, store_size=False)
        return compressed


class _LZ4Decompressor:
    def __init__(self, block: ModuleType) -> None:
        self._library = block

    def decompress(self, data: bytes | bytearray | memoryview, size: int) -> bytes:
        try:
            block: bytes = self._library.decompress(data, uncompressed_size=size)
        except (self._library.LZ4BlockError, ValueError) as error:
            raise CompressionError(f"not LZ4's: {error}") from error
        if len(block) != size:
            raise CompressionError(f"{len(block)} bytes")
        return block


_COMPRESSORS: Final[Mapping[str, Callable[[ModuleType, int], Compressor]]] = {
    "zstd": _ZstdCompressor,
    "lz4": _LZ4Compressor,
}
_DECOMPRESSORS: Final[Mapping[str, Callable[[ModuleType], Decompressor]]] = {
    "zstd": _ZstdDecompressor,
    "lz4": _LZ4Decompressor,
}
#: Names of the methods.
METHODS: Final = tuple(_LIBRARIES)
