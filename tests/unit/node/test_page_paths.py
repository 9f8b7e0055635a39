"""Every way that pages travel brings the same pages, over real sockets, whatever their number."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE, RAM, RAMCache, lay_out
from colobench.node.address import Address
from colobench.node.channel import Channel
from colobench.node.connection import PeerLost
from colobench.node.migration.compressed_multifd import (
    CompressedMultifdReceiver,
    CompressedMultifdSender,
)
from colobench.node.migration.compressed_stream import CompressedRecords, CompressedStreamSender
from colobench.node.migration.memfd import MemfdReceiver, MemfdSender
from colobench.node.migration.multifd import MultifdReceiver, MultifdSender
from colobench.node.migration.page_path import PageReceiver, PageSender
from colobench.node.migration.stream import StreamReceiver, StreamSender
from colobench.node.migration.xbzrle import XBZRLERecords, XBZRLESender
from colobench.node.wait import Wait
from colobench.node.workers import Workers
from colobench.wire import savevm
from colobench.wire.compression import METHODS, compressor
from colobench.wire.errors import HeaderError
from colobench.wire.format import SectionType
from colobench.wire.loadvm import COLO_RAM, PRECOPY, Incoming
from colobench.wire.ram import RAMRecordState
from wire_streams import MACHINE, marked

BLOCKS = lay_out({"pc.ram": 9000 * PAGE_SIZE, "vga.vram": 100 * PAGE_SIZE})
MEMORY_PAGES = BLOCKS[-1].first_page + 128
WAIT = 30.0
WAYS = (
    *("stream", "xbzrle", "zstd", "lz4"),
    *("multifd", "multifd-2", "multifd_zstd-2", "multifd_lz4", "memfd", "memfd-2"),
)


class Sides:
    """Both sides of one way, connected."""

    def __init__(self, way: str, directory: Path, closing_all: ExitStack) -> None:
        self.ram = RAM("ram", BLOCKS)
        closing_all.callback(self.ram.close)
        self.cache = RAMCache("cache", BLOCKS)
        closing_all.callback(self.cache.close)
        # Each side has a thread for each channel, as nodes have.
        self.workers, self.peer_workers = Workers(2), Workers(2)
        closing_all.callback(self.workers.close)
        closing_all.callback(self.peer_workers.close)
        address = Address.parse(f"unix:{directory}/{way}")
        self.listener, _ = address.listen()
        closing_all.callback(self.listener.close)
        self.main = Channel(address.connect(WAIT), WAIT)
        closing_all.callback(self.main.close)
        self.peer = Channel(self.listener.accept()[0], WAIT)
        closing_all.callback(self.peer.close)
        self.address = address
        name, _, channels = way.partition("-")
        self.count = int(channels or 1)
        self.sender, self.receiver = self._make(name)
        self.incoming = Incoming(
            MACHINE,
            self.cache,
            [],
            multifd=name.startswith("m"),
            xbzrle=name == "xbzrle",
            compression=name if name in METHODS else None,
        )

    def _make(self, name: str) -> tuple[PageSender, PageReceiver]:
        if name in ("stream", "xbzrle"):
            records = RAMRecordState(BLOCKS)
            if name == "stream":
                return StreamSender(self.main, self.ram, records), StreamReceiver(self.peer)
            writer = XBZRLERecords(self.ram)
            encoder = XBZRLESender(self.main, self.ram, records, writer)
            return encoder, StreamReceiver(self.peer)
        if name in METHODS:
            compressing = CompressedRecords(self.ram, compressor(name, 1))
            records = RAMRecordState(BLOCKS)
            return CompressedStreamSender(
                self.main, self.ram, records, compressing
            ), StreamReceiver(self.peer)
        if name.startswith("multifd_"):
            method = name.removeprefix("multifd_"), 1
            return (
                CompressedMultifdSender(self.main, self.ram, self.count, self.workers, *method),
                CompressedMultifdReceiver(
                    self.peer, self.cache, self.count, self.peer_workers, *method
                ),
            )
        classes = {
            "multifd": (MultifdSender, MultifdReceiver),
            "memfd": (MemfdSender, MemfdReceiver),
        }
        sender, receiver = classes[name]
        return (
            sender(self.main, self.ram, self.count, self.workers),
            receiver(self.peer, self.cache, self.count, self.peer_workers),
        )

    def connect(self) -> None:
        with side(self.sender.connect, self.address, Wait("the secondary", WAIT)):
            self.receiver.accept(self.listener, Wait("page channels", WAIT))

    def send(self, lists: Sequence[list[int]]) -> None:
        self.sender.begin(SectionType.END, sum(map(len, lists)))
        for pages in lists:
            self.sender.send(np.array(pages, dtype=np.int32))
        self.sender.end()
        self.main.write(savevm.EOF)
        self.main.flush()

    def section(self, *lists: list[int], first: bool = False) -> int:
        """Carry one section of so many lists; how many zero pages came."""

        if first:
            self.main.write(savevm.ram_section_start(savevm.RAM_SECTION_ID, BLOCKS))
        with side(self.send, lists):
            stage = PRECOPY if first else COLO_RAM
            loaded = self.peer.parse(self.incoming.load_sections(self.peer.buffer, stage))
        return loaded.zero_pages


@contextmanager
def side(function: Any, *arguments: Any) -> Iterator[None]:
    """Do something in a thread of its own, and end with it."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT)
        assert not thread.is_alive()


@pytest.fixture(params=WAYS)
def sides(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sides]:
    with ExitStack() as closing_all:
        sides = Sides(request.param, tmp_path, closing_all)
        sides.connect()
        yield sides


def test_every_way_brings_the_same_pages(sides: Sides) -> None:
    random = np.random.default_rng(2)
    every_page = [b.first_page + i for b in BLOCKS for i in range(b.pages)]
    sides.ram.array[: BLOCKS[0].used_length] = random.integers(
        1, 256, BLOCKS[0].used_length, dtype=np.uint8
    )
    sides.section(every_page, first=True)
    assert np.array_equal(sides.cache.array, sides.ram.array)
    for count in (1, 200, 0, 5000, 40, 40):
        pages = sorted(random.choice(every_page, count, replace=False).tolist())
        for page in pages:
            content = sides.ram.array[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
            content[:] = 0 if page % 5 == 0 else content
            content[random.integers(PAGE_SIZE, size=9)] += np.uint8(page % 5)
        sides.cache.bitmap[:] = 0
        # In two parts, as where a breakpoint holds half of the pages back.
        zero_pages = sides.section(pages[: count // 2], pages[count // 2 :])
        assert np.array_equal(sides.cache.array, sides.ram.array)
        assert set(marked(sides.cache)) <= set(pages)
        if sides.sender.section.encoded_pages == 0:
            assert marked(sides.cache) == pages
        assert zero_pages == sides.sender.section.zero_pages


def test_end_of_the_main_connection_is_that_of_all_others(sides: Sides) -> None:
    sides.section([0, 1], first=True)
    sides.main.shut_down()
    with pytest.raises(PeerLost):
        sides.peer.parse(sides.incoming.load_sections(sides.peer.buffer, COLO_RAM))
    with pytest.raises(PeerLost):
        sides.send([list(range(5000))])


@pytest.mark.parametrize(("sending", "receiving"), [("memfd", "multifd"), ("multifd", "memfd")])
def test_sides_that_disagree_about_the_descriptor_do_not_meet(
    tmp_path: Path, sending: str, receiving: str
) -> None:
    with ExitStack() as closing_all:
        sides = Sides(sending, tmp_path, closing_all)
        classes: dict[str, Any] = {"multifd": MultifdReceiver, "memfd": MemfdReceiver}
        receiver = classes[receiving](sides.peer, sides.cache, 1, sides.workers)
        with (
            side(sides.sender.connect, sides.address, Wait("the secondary", WAIT)),
            pytest.raises((HeaderError, LocalError), match="descriptor of the primary's RAM"),
        ):
            receiver.accept(sides.listener, Wait("page channels", WAIT))
