"""Disks of a receiver, whose process is killed at a call that writes.

As a program: a directory, a seed, and numbers of calls. For each number N, the process that is
killed in place of its N-th call leaves its files in DIRECTORY/N, and the number of its calls in
DIRECTORY/N/calls if it has ended by itself. What was left is restored by a process that is killed
in place of its (N modulo 8 + 1)-th call.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colobench.block.clusters import CLUSTER_SIZE
from colobench.errors import LocalError
from colobench.node.address import Address
from colobench.node.disk.nbd_client import NBDClient
from colobench.node.receive.disks import ReceivedDisks, bring_image_together

NAMES = ("first.img", "second.img")
SIZE = 6 * CLUSTER_SIZE + 4096
CHECKPOINTS = 6
#: Writes to each disk before the first checkpoint, and between two.
WRITES = 4


def writes(steps: random.Random) -> list[tuple[int, bytes]]:
    """Give the writes to a disk until the next checkpoint."""
    lengths = [steps.choice((1, 9, 130)) * 512 for _ in range(WRITES)]
    return [
        (steps.randrange((SIZE - length) // 512 + 1) * 512, steps.randbytes(8) * (length // 8))
        for length in lengths
    ]


def contents(seed: int, checkpoint: int) -> list[bytes]:
    """Give the bytes that the disks have at a checkpoint."""
    steps = random.Random(seed)
    disks = [bytearray(SIZE) for _ in NAMES]
    for _ in range(checkpoint + 1):
        for disk in disks:
            for offset, data in writes(steps):
                disk[offset : offset + len(data)] = data
    return [bytes(disk) for disk in disks]


def follow(directory: Path, seed: int) -> None:
    """Serve disks, be their primary, and keep the file up to two checkpoints behind."""
    steps, lag = random.Random(seed), random.Random(seed)
    file, address = directory / "guest", f"unix:{directory / 'nbd'}"
    disks = ReceivedDisks([f"{directory / name},size={SIZE}" for name in NAMES], address)
    disks.serve(file)
    clients = [NBDClient(Address.parse(address), where.export) for where in disks.locations]
    saved = None
    for number in range(CHECKPOINTS + 1):
        for client in clients:
            for offset, data in writes(steps):
                client.write(offset, data)
        if not number:
            disks.begin()
        else:
            disks.check(number, saved)
            disks.commit()
        oldest = max(0 if saved is None else saved, number - 1)
        if (now := lag.randint(oldest, number)) != saved:
            save(file, disks, saved := now)
    for client in clients:
        client.write(0, bytes(SIZE - 512))
    disks.end(file, is_saved=True)
    for client in clients:
        client.close()


def save(file: Path, disks: ReceivedDisks, number: int) -> None:
    aside = file.with_suffix(".aside")
    aside.write_bytes(b"state" + disks.mark(number))
    os.replace(aside, file)


def restore(directory: Path) -> None:
    for name in NAMES:
        try:
            bring_image_together(str(directory / name), directory / "guest")
        except LocalError as error:
            print(error, file=sys.stderr)


def killed_at(call: int, action: Callable[[], object]) -> int:
    """Do something in a process that is killed in place of a call that writes; count the calls."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        calls = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def counts(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return counts

        for name in ("pwrite", "pwritev", "replace", "unlink", "ftruncate"):
            setattr(os, name, counted(getattr(os, name)))
        action()
        os.write(write, calls.to_bytes(4, "little"))
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read, "rb") as pipe:
        return int.from_bytes(pipe.read(), "little")


def main(directory: Path, seed: int, calls: list[int]) -> None:
    for call in calls:
        own = directory / str(call)
        own.mkdir()
        if count := killed_at(call, lambda own=own: follow(own, seed)):  # type: ignore[misc]
            (own / "calls").write_text(str(count))
        killed_at(call % 8 + 1, lambda own=own: restore(own))  # type: ignore[misc]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(each) for each in sys.argv[3:]])
