"""XBZRLE from a sender's RAM to a secondary's RAM cache: they are equal, whatever was written."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.memory.ram import PAGE_SIZE
from colobench.node.channel import Channel
from colobench.node.migration.buffered import BufferedSender
from colobench.node.migration.stream import StreamReceiver
from colobench.node.migration.xbzrle import XBZRLERecords, XBZRLESender
from colobench.settings.settings import Settings
from colobench.settings.transport import Encoding, PageTransport
from colobench.wire import savevm
from colobench.wire.format import SectionType
from colobench.wire.loadvm import COLO_BUFFER, COLO_RAM, PRECOPY, Incoming
from colobench.wire.ram import RAMRecordState
from wire_streams import BLOCKS, MACHINE, Primary, Secondary, fill, marked

ALL_PAGES = [block.first_page + i for block in BLOCKS for i in range(block.pages)]
#: Pages that the guest writes before a checkpoint, and the bytes that it changes in each.
page_writes = st.dictionaries(st.sampled_from(ALL_PAGES), st.sampled_from([0, 1, 30, 4096]))
histories = st.lists(page_writes, max_size=6)


def write(primary: Primary, written: dict[int, int], random: np.random.Generator) -> np.ndarray:
    """Change so many bytes of each page, and give the list of the pages."""
    for page, count in written.items():
        begin = page * PAGE_SIZE
        at = random.choice(PAGE_SIZE, count, replace=False)
        primary.memory.array[begin : begin + PAGE_SIZE][at] += np.uint8(1 + random.integers(255))
    return np.array(sorted(written), dtype=np.int32)


@contextmanager
def pair() -> Iterator[tuple[Primary, Secondary]]:
    """Make both sides, with RAM registered at the secondary."""
    with closing(Primary()) as primary, closing(Secondary()) as secondary:
        secondary.incoming = Incoming(MACHINE, secondary.memory, secondary.devices, xbzrle=True)
        fill(primary.memory, ALL_PAGES)
        yield primary, secondary


def migration(primary: Primary) -> bytes:
    """Give the first pass over RAM, with its pages as they are."""
    start = savevm.ram_section_start(savevm.RAM_SECTION_ID, BLOCKS)
    return start + primary.ram_section(SectionType.END, ALL_PAGES) + primary.device_buffer()


@settings(deadline=None, max_examples=60)
@given(histories, st.sampled_from([4, 32, 128]))
def test_secondary_has_the_primarys_ram_after_each_checkpoint(
    history: list[dict[int, int]], slots: int
) -> None:
    random = np.random.default_rng(3)
    with pair() as (primary, secondary):
        secondary.load(migration(primary), PRECOPY)
        writer = XBZRLERecords(primary.memory, slots * PAGE_SIZE)
        sender = BufferedSender(primary.memory, primary.records, writer)
        for written in history:
            pages = write(primary, written, random)
            sender.begin(SectionType.END, len(pages))
            sender.send(pages)
            sender.end()
            secondary.memory.bitmap[:] = 0
            buffer = sender.with_devices(primary.device_buffer())
            loaded = secondary.load(bytes(buffer), COLO_BUFFER)
            assert loaded.zero_pages == sender.section.zero_pages
            assert set(marked(secondary.memory)) <= set(pages.tolist())
            assert np.array_equal(secondary.memory.array, primary.memory.array)


def test_sections_longer_than_the_senders_buffer_arrive_over_a_socket() -> None:
    """Two passes and two checkpoints: as they are, all new to the cache, encoded, unchanged."""
    ours, theirs = socket.socketpair()
    random = np.random.default_rng(5)
    everything = np.array(ALL_PAGES, dtype=np.int32)
    with (
        pair() as (primary, secondary),
        closing(Channel(ours, 20)) as channel,
        closing(Channel(theirs, 20)) as peer,
    ):
        StreamReceiver(peer)
        records = RAMRecordState(BLOCKS)
        sender = XBZRLESender(channel, primary.memory, records, XBZRLERecords(primary.memory))
        counts = []

        def send(kind: SectionType, *behind: bytes) -> None:
            sender.begin(kind, len(everything))
            sender.send(everything)
            sender.end()
            counts.append((sender.section.encoded_pages, sender.section.bytes_saved))
            for data in behind:
                channel.write(data)
            channel.flush()

        def send_all() -> None:
            channel.write(savevm.ram_section_start(savevm.RAM_SECTION_ID, BLOCKS))
            send(SectionType.PART)
            send(SectionType.END, primary.device_buffer())

        thread = threading.Thread(target=send_all)
        thread.start()
        peer.parse(secondary.incoming.load_sections(peer.buffer, PRECOPY))
        thread.join()
        for written in (dict.fromkeys(ALL_PAGES, 9), {}):
            write(primary, written, random)
            thread = threading.Thread(target=send, args=(SectionType.END, savevm.EOF))
            thread.start()
            loaded = peer.parse(secondary.incoming.load_sections(peer.buffer, COLO_RAM))
            thread.join()
            assert np.array_equal(secondary.memory.array, primary.memory.array)
    not_zero = len(ALL_PAGES) - loaded.zero_pages
    assert [encoded for encoded, _ in counts[:2]] == [0, 0]
    assert counts[2][0] == len(ALL_PAGES)
    assert counts[3] == (not_zero, not_zero * (PAGE_SIZE + 8))


def test_node_that_encodes_nothing_imports_no_kernel_for_it() -> None:
    code = "import colobench.node.secondary, sys; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "colobench.kernels.page_records" in found.stdout.split()
    assert not [module for module in found.stdout.split() if "xbzrle" in module]


@pytest.mark.parametrize("pages", [PageTransport.MULTIFD, PageTransport.MEMFD])
def test_encoding_is_refused_where_records_cannot_say_it(pages: PageTransport) -> None:
    with pytest.raises(LocalError, match=f"encoding xbzrle: expected .* found {pages.value}"):
        Settings().override(transport=pages.value, encoding="xbzrle")
    assert Settings().override(encoding="xbzrle").checkpoint.encoding is Encoding.XBZRLE
