"""Fuzzer of the reader and the loaders: `python tests/support/fuzz_streams.py --inputs 1000000`.

Recordings of a real QEMU, and a session of our own, are changed at random, by a seed. With atheris
(`pip install atheris`) and `--guided DIR`, libFuzzer looks for inputs that reach new code instead.
The reader must cover each input by items, and a loader must take it, wait for more, or refuse it by
a typed error. A failing input is written to a file.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from colobench.errors import ColobenchError
from colobench.memory.ram import PageMemory, lay_out
from colobench.peers.dataset import read_manifest, read_recording
from colobench.wire.decoded import TreeSink
from colobench.wire.errors import InvalidMessage
from colobench.wire.learning import LearningLoader
from colobench.wire.loadvm import (
    COLO_DEVICES,
    COLO_RAM,
    PRECOPY,
    Incoming,
    SectionLoader,
    vmdescription_section,
)
from colobench.wire.lookahead import Driver
from colobench.wire.messages import Message, message
from colobench.wire.multifd_reader import MultifdReader
from colobench.wire.reader import StreamReader
from colobench.wire.reading import Parser, Parsing, Steps, StreamBuffer, parse_bytes, sized_bytes
from wire_streams import BLOCKS, MACHINE, Primary, Queue, Register

DIRECTORY = Path(__file__).resolve().parents[2] / "datasets/qemu"
#: Bytes of a recording that are changed, around a place in it, besides its begin.
HEAD, PIECE = 512, 2048
INTERESTING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x7E, 0x10, 0x20, 0x40, 0x7F, 0x80, 0xFF)


#: Ways in which an input is read; the last two load it.
WAYS = ("session", "checkpoints", "channel", "any machine", "our machine")
#: Most RAM that a stream of any machine may have here.
RAM_LIMIT = 40 * 2**20


def check(data: bytes) -> int:
    """Read and load an input in each way; give the number of ways in which all of it is taken."""
    return sum(check_way(data, way) for way in WAYS)


def check_way(data: bytes, way: str) -> bool:
    """Read or load an input in one way; say whether all of it is taken."""
    if way in WAYS[3:]:
        return _load(data, way)
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
    return not sink.problems


def _load(data: bytes, way: str) -> bool:
    loader: SectionLoader
    if way == "any machine":
        loader = LearningLoader(_memory_of, RAM_LIMIT)
    else:
        sizes = {block.name: block.used_length for block in BLOCKS}
        loader = Incoming(MACHINE, _memory_of(sizes), [Register(), Queue()])
    buffer = StreamBuffer.over(bytearray(data))
    try:
        return Parsing(_conversation(loader, buffer), buffer).step()
    except ColobenchError:
        return False


#: Memories by their blocks. Making one takes longer than loading an input, so that it serves many.
_memories: dict[tuple[tuple[str, int], ...], PageMemory] = {}


def _memory_of(sizes: Mapping[str, int]) -> PageMemory:
    blocks = tuple(sizes.items())
    if blocks not in _memories:
        if len(_memories) == 8:
            _memories.pop(next(iter(_memories))).close()
        _memories[blocks] = PageMemory("fuzzed", lay_out(sizes))
    return _memories[blocks]


def _conversation(loader: SectionLoader, at: StreamBuffer) -> Parser[None]:
    """Load a migration, and the checkpoints up to the end of the buffer."""
    yield from loader.stream_header(at)
    yield from loader.load_sections(at, PRECOPY)
    yield from vmdescription_section(at)
    while len(at):
        offset = at.offset
        found, size = yield from message(at)
        if found is Message.VMSTATE_SEND:
            yield from loader.load_sections(at, COLO_RAM)
        elif size is not None:
            sections = yield from sized_bytes(size)
            parse_bytes(partial(loader.load_sections, stage=COLO_DEVICES), sections)
        elif found is not Message.CHECKPOINT_REQUEST:
            raise InvalidMessage("message", expected="a checkpoint", found=found, offset=offset)


def recordings() -> list[bytes]:
    """Read all recordings, and make a session of our own."""
    with closing(Primary()) as primary:
        ours = primary.migration([0, 1, 5], [70, 72, 73])
        ours += primary.checkpoint([1, 2, 71]) + primary.checkpoint([0])
    return [
        ours,
        *(
            read_recording(DIRECTORY / file["name"])
            for entry in read_manifest(DIRECTORY)
            for file in entry.files
        ),
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
    """Check that many inputs, each in one way, and give the figures."""
    chance, corpus = random.Random(seed), recordings()
    longest, total = 0.0, 0
    ways, clean = Counter[str](), Counter[str]()
    for number in range(inputs):
        way = chance.choice(WAYS)
        data = changed(chance, corpus[:1] if way == WAYS[-1] else corpus)
        started = time.process_time()
        try:
            clean[way] += check_way(data, way)
        except Exception:
            failed.write_bytes(data)
            print(f"input {number} of seed {seed} fails, read as {way}: {failed}", file=sys.stderr)
            raise
        longest = max(longest, time.process_time() - started)
        ways[way] += 1
        total += len(data)
        if number % 10_000 == 0:
            print(f"{number:,} of {inputs:,} inputs", file=sys.stderr)
    return {
        "inputs": inputs,
        "seed": seed,
        "bytes": total,
        "ways": {way: {"inputs": ways[way], "taken_entirely": clean[way]} for way in WAYS},
        "longest_cpu_ms": round(1000 * longest, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "peak_resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
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
