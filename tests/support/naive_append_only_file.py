"""The append-only file once more: a disk is read as its format says, and its commands executed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from naive_kv import Redis, siphash

SECRET = 0x243F6A8885A308D3
WORD = 2**64 - 1


class Superblock(NamedTuple):
    """The words of a superblock that count."""

    sequence: int
    area_bytes: int
    area: int
    generation: int


def superblock(image: bytes) -> Superblock | None:
    """Give the newer superblock of a disk; None if it has none."""
    found = []
    for at in (0, 4096):
        magic, sequence, _, each, area, generation, check = struct.unpack_from("<7Q", image, at)
        whole = siphash(bytes(image[at : at + 48]), (SECRET, 0)) == check
        if whole and magic.to_bytes(8, "little") == b"colo-aof":
            found.append(Superblock(sequence, each, area, generation))
    return max(found, default=None)


def blocks(image: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Give place, payload and freshness of each block of the current log."""
    head = superblock(image)
    assert head is not None
    begin = at = 8192 + head.area * head.area_bytes
    previous = sequence = 0
    while at + 512 <= begin + head.area_bytes:
        magic, generation, number, length, fresh, check = struct.unpack_from("<6Q", image, at)
        wrong = magic.to_bytes(8, "little") != b"aofblock" or not 0 < length <= 65536 - 64
        if wrong or generation != head.generation or number != sequence:
            return
        whole = bytearray(image[at : at + 64 + length])
        whole[40:48] = bytes(8)
        if siphash(bytes(whole), (generation ^ SECRET, previous)) != check:
            return
        yield at, bytes(whole[64:]), bool(fresh)
        previous, sequence = check, sequence + 1
        at += -(-(64 + length) // 512) * 512


def commands(stream: bytes) -> tuple[list[list[bytes]], bytes]:
    """Give the whole commands of a stream, a time as one word, and the bytes that are left."""
    found = []
    while stream:
        line, newline, rest = stream.partition(b"\r\n")
        if not newline:
            break
        if line.startswith(b"#MS:"):
            found.append([line])
            stream = rest
            continue
        words = []
        for _ in range(int(line[1:])):
            line, newline, rest = rest.partition(b"\r\n")
            if not newline or len(rest) < int(line[1:]) + 2:
                return found, stream
            words.append(rest[: int(line[1:])])
            rest = rest[int(line[1:]) + 2 :]
        found.append(words)
        stream = rest
    return found, stream


def load(image: bytes) -> Redis:
    """Execute the current log of a disk; what is incomplete is dropped."""
    store, pending = Redis(), b""
    for _, payload, fresh in blocks(image):
        if fresh:
            pending = b""
            _call(store, [b"discard"])
        found, pending = commands(pending + payload)
        for words in found:
            _call(store, words)
    _call(store, [b"discard"])
    return store


def _call(store: Redis, words: list[bytes]) -> None:
    if words[0].startswith(b"#MS:"):
        store.now = int(words[0][4:])
    elif words != [b"discard"] or store.queue is not None:
        reply = store.call(*words)
        assert not reply.startswith(b"-"), (words, reply)
