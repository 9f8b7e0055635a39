"""Check of the store's disk: the append-only file in an image against what the store answers.

The store answers from its RAM, so its answers do not show that its disk has lost something. The log
does: what it gives, executed from the beginning, must be what the store has. It is read with the
kernels of its format (`colobench.guest.append_only_file`), and executed by the model that judges
the clients' history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colobench.errors import LocalError
from colobench.guest.append_only_file import (
    AREAS_AT,
    BLOCK_FRESH,
    BLOCK_HEAD,
    SECOND_COPY,
    SECTOR,
    SMALLEST_DISK,
    SUPER_AREA,
    SUPER_AREA_BYTES,
    SUPER_GENERATION,
    block_bytes,
    open_block,
    superblock_sequence,
)
from colobench.guest.region import get_number
from colobench.kernels.jit import Bytes, Words, kernel
from colobench.lab.checker.store_model import check_operation, execute
from colobench.lab.clients.history import operations_of

#: Commands that empty the store; those before the last of them do not matter.
EMPTYING = frozenset((b"FLUSHALL", b"FLUSHDB"))
#: Wrong keys that a sentence names.
_SHOWN = 3
_NO_MARKS = np.zeros(0, np.uint64)


@dataclass(frozen=True, slots=True)
class LogVerdict:
    """Result of `check_log`.

    Attributes
    ----------
    commands
        Number of commands in the log.
    keys
        Number of keys that the store has.
    wrong
        Keys whose value differs, with the store's value and the log's; None is a missing key.
    """

    commands: int
    keys: int
    wrong: tuple[tuple[bytes, bytes | None, bytes | None], ...]

    @property
    def right(self) -> bool:
        """Whether the log gives what the store has."""
        return not self.wrong

    def __str__(self) -> str:
        first = "".join(
            f"\n  {key.decode('latin-1')}: expected {_shown(ours)}, found {_shown(logged)}"
            for key, ours, logged in self.wrong[:_SHOWN]
        )
        return (
            f"the log of {self.commands} commands gives {len(self.wrong)} of {self.keys} keys "
            f"another value than the store has{first}"
        )


def check_log(image: npt.NDArray[np.uint8], store: Mapping[bytes, bytes]) -> LogVerdict:
    """Compare the log in an image with what a store has.

    Parameters
    ----------
    image
        uint8[bytes], the guest's first disk after a flush. It is used as scratch.
    store
        All keys of the store, and their values.

    Raises
    ------
    LocalError
        If there is no append-only file in the image, or a command in it that is not modelled.
    """
    commands = list(read_commands(image))
    logged = replay(commands)
    every = sorted(store.keys() | logged.keys())
    wrong = tuple(
        (key, store.get(key), logged.get(key)) for key in every if store.get(key) != logged.get(key)
    )
    return LogVerdict(len(commands), len(store), wrong)


def since_emptied(commands: list[list[bytes]]) -> list[list[bytes]]:
    """Give the commands after the last one that empties the store."""
    emptied = [number for number, words in enumerate(commands) if words[0].upper() in EMPTYING]
    return commands[emptied[-1] + 1 if emptied else 0 :]


def replay(commands: list[list[bytes]]) -> dict[bytes, bytes]:
    """Execute commands from the last one on that empties the store; give the keys then.

    Raises
    ------
    LocalError
        If a command is not modelled.
    """
    store: dict[bytes, bytes] = {}
    for words in since_emptied(commands):
        for operation in operations_of(0, words, 0, None, None):
            check_operation(operation)
            value, _ = execute(operation, store.pop(operation.key, None))
            if value is not None:
                store[operation.key] = value
    return store


def read_commands(image: npt.NDArray[np.uint8]) -> Iterator[list[bytes]]:
    """Give the commands of an image's current log, without stamps of time.

    The log ends with the first block that is not whole; a command that is not whole is dropped.

    Parameters
    ----------
    image
        uint8[bytes], a disk. It is used as scratch.

    Raises
    ------
    LocalError
        If there is no append-only file.
    """
    found = np.zeros((len(image) // SECTOR, 3), np.int64)
    count = -1 if len(image) < SMALLEST_DISK else find_blocks(image, _NO_MARKS, found.reshape(-1))
    if count < 0:
        raise LocalError("image: expected an append-only file, found no superblock of one")
    pending = b""
    for at, length, fresh in found[:count].tolist():
        payload = image[at + BLOCK_HEAD : at + BLOCK_HEAD + length].tobytes()
        pending = payload if fresh else pending + payload
        commands, used = _split(pending)
        pending = pending[used:]
        yield from commands


def _split(stream: bytes) -> tuple[list[list[bytes]], int]:
    """Give the whole commands at the beginning of a stream, and the number of their bytes."""
    commands: list[list[bytes]] = []
    used = 0
    while (line := _line(stream, used)) is not None:
        words, at = [], used + len(line) + 2
        if line.startswith(b"#"):
            used = at
            continue
        for _ in range(int(line[1:])):
            length = _line(stream, at)
            if length is None:
                return commands, used
            at += len(length) + 2
            end = at + int(length[1:])
            if end + 2 > len(stream):
                return commands, used
            words.append(stream[at:end])
            at = end + 2
        commands.append(words)
        used = at
    return commands, used


def _line(stream: bytes, at: int) -> bytes | None:
    end = stream.find(b"\r\n", at)
    return None if end < 0 else stream[at:end]


@kernel("i8(u1[::1], u8[::1], i8[::1])")
def find_blocks(image: Bytes, marks: Words, found: Words) -> int:
    """Find the blocks of the current log of a disk.

    Parameters
    ----------
    image
        uint8[bytes], the disk, at least SMALLEST_DISK. Checksums become 0.
    marks
        uint64[0].
    found
        int64[3 * (bytes / 512)]: of each block the place in bytes, the bytes of its payload, and 1
        if it begins a command.

    Returns
    -------
    int
        Number of blocks, or -1 if the disk has no superblock.
    """
    size = len(image)
    first = superblock_sequence(image, 0, size)
    second = superblock_sequence(image, SECOND_COPY, size)
    if first <= 0 and second <= 0:
        return -1
    at = 0 if first > second else SECOND_COPY
    each = get_number(image, at + SUPER_AREA_BYTES)
    generation = get_number(image, at + SUPER_GENERATION)
    block = AREAS_AT + get_number(image, at + SUPER_AREA) * each
    end = block + each
    count = previous = 0
    while True:
        length, check = open_block(image, marks, block, end - block, generation, count, previous)
        if length <= 0:
            return count
        found[3 * count] = block
        found[3 * count + 1] = length
        found[3 * count + 2] = get_number(image, block + BLOCK_FRESH)
        block += block_bytes(length)
        previous = check
        count += 1


def _shown(value: bytes | None) -> str:
    if value is None:
        return "nothing"
    return value[-40:].decode("latin-1")
