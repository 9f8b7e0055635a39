"""Fuzzer of the stream's reader: `python tests/support/fuzz_streams.py --inputs 1000000`.

Recordings of a real QEMU are changed at random, by a seed. With atheris (`pip install atheris`) and
`--guided DIR`, libFuzzer looks for inputs that reach new code instead. Each input must be covered
by items, without another error. A failing input is written to a file.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from colobench.peers.dataset import read_manifest, read_recording
from colobench.wire.decoded import TreeSink
from colobench.wire.lookahead import Driver
from colobench.wire.multifd_reader import MultifdReader
from colobench.wire.reader import StreamReader
from colobench.wire.reading import Steps, StreamBuffer

DIRECTORY = Path(__file__).resolve().parents[2] / "datasets/qemu"
#: Bytes of a recording that are changed, around a place in it, besides its begin.
HEAD, PIECE = 512, 2048
INTERESTING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x7E, 0x10, 0x20, 0x40, 0x7F, 0x80, 0xFF)


def check(data: bytes) -> int:
    """Read an input in each way; give the number of ways in which it was explained entirely."""
    clean = 0
    for way in ("session", "checkpoints", "channel"):
        at, sink = StreamBuffer(4096, 1 << 22), TreeSink()
        parser: Steps[Any]
        if way == "channel":
            parser = MultifdReader(at, sink).stream()
        else:
            reader = StreamReader(at, sink)
            parser = reader.session() if way == "session" else reader.checkpoints()
        Driver(at, io.BytesIO(data).readinto).run(parser)
        sink.end()
        leaves = sum(part.length for part in sink.root.walk() if not part.parts)
        assert at.offset == len(data) == leaves, (way, at.offset, len(data), leaves)
        clean += not sink.problems
    return clean


def recordings() -> list[bytes]:
    """Read all recordings."""
    return [
        read_recording(DIRECTORY / file["name"])
        for entry in read_manifest(DIRECTORY)
        for file in entry.files
    ]


def changed(chance: random.Random, corpus: list[bytes]) -> bytes:
    """Make an input: pieces of recordings, in a few places of which something is wrong."""
    whole = chance.choice(corpus)
    place = chance.randrange(len(whole))
    data = bytearray(whole[:HEAD] + whole[place : place + chance.randrange(PIECE)])
    if chance.random() < 0.3:
        other = chance.choice(corpus)
        place = chance.randrange(len(other))
        data += other[place : place + chance.randrange(PIECE)]
    for _ in range(chance.randrange(5)):
        at = chance.randrange(len(data) + 1)
        size = chance.choice((0, 1, 2, 4, 8))
        kind = chance.randrange(4)
        if kind == 0:
            data[at : at + size] = chance.choice(INTERESTING).to_bytes(8, "big")[-size or 8 :]
        elif kind == 1:
            data[at:at] = bytes([chance.choice(INTERESTING)]) * size
        elif kind == 2:
            del data[at : at + size]
        else:
            data[at : at + size] = chance.randbytes(size)
    return bytes(data)


def run(inputs: int, seed: int, failed: Path) -> dict[str, Any]:
    """Check that many inputs, and give the figures."""
    chance, corpus = random.Random(seed), recordings()
    begin, longest, total, clean = time.monotonic(), 0.0, 0, 0
    for number in range(inputs):
        data = changed(chance, corpus)
        started = time.monotonic()
        try:
            clean += check(data)
        except Exception:
            failed.write_bytes(data)
            print(f"input {number} of seed {seed} fails: {failed}", file=sys.stderr)
            raise
        longest = max(longest, time.monotonic() - started)
        total += len(data)
        if number % 10_000 == 0:
            print(f"{number:,} of {inputs:,} inputs", file=sys.stderr)
    return {
        "inputs": inputs,
        "seed": seed,
        "bytes": total,
        "explained_entirely": clean,
        "longest_ms": round(1000 * longest, 1),
        "seconds": round(time.monotonic() - begin, 1),
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }


def run_guided(inputs: int, seed: int, corpus: Path) -> None:
    """Let libFuzzer choose the inputs by the code that they reach, from a directory of inputs."""
    import atheris

    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(recordings()):
        (corpus / f"recording-{number}").write_bytes(data[: HEAD + PIECE])

    def one_input(data: bytes) -> None:
        check(data)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], str(corpus), f"-runs={inputs}", f"-seed={seed}"], one_input)
    atheris.Fuzz()


def main() -> None:
    """Parse the options, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--failed", type=Path, default=Path("failed-stream"))
    words = "let atheris choose the inputs; DIR keeps those that reach new code"
    parser.add_argument("--guided", type=Path, metavar="DIR", help=words)
    options = parser.parse_args()
    if options.guided:
        run_guided(options.inputs, options.seed, options.guided)
        return
    figures = run(options.inputs, options.seed, options.failed)
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
