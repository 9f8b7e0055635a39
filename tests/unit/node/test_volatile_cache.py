"""A volatile cache is the disk while it lives; after a loss of power the flushed part is there."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colobench.block.generation import ImageEvent
from colobench.node.disk.generation_file import DiskImage
from colobench.node.disk.image import FileImage
from colobench.node.disk.planted_bugs import EmptyFlush
from colobench.node.disk.volatile_cache import VolatileCache
from share import amount

SECTORS = 16
SIZE = SECTORS * 512

requests = st.tuples(
    st.sampled_from(["write", "fua", "flush", "discard", "zeroes", "read"]),
    st.integers(0, SECTORS - 1),
    st.integers(1, SECTORS),
)


@settings(
    max_examples=amount(50, 1000), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(requests, max_size=40))
def test_cache_is_the_disk_and_what_was_flushed_survives_it(
    tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    """Each sector of the image has a content since the last flush that covers it."""
    path = tmp_path / "image"
    path.unlink(missing_ok=True)
    cache = VolatileCache(FileImage(str(path), SIZE))
    now, since = [0] * SECTORS, [{0} for _ in range(SECTORS)]
    for number, (kind, first, count) in enumerate(steps, 1):
        last = min(first + count, SECTORS)
        offset, length = first * 512, (last - first) * 512
        if kind == "flush":
            cache.flush()
            since = [{each} for each in now]
        elif kind == "read":
            expected = b"".join(bytes([each]) * 512 for each in now[first:last])
            assert cache.read(offset, length) == expected
        else:
            value = number if kind in ("write", "fua") else 0
            match kind:
                case "write" | "fua":
                    cache.write(offset, bytes([value]) * length, kind == "fua")
                case "discard":
                    cache.discard(offset, length)
                case "zeroes":
                    cache.write_zeroes(offset, length)
            for sector in range(first, last):
                now[sector] = value
                since[sector] = {value} if kind == "fua" else since[sector] | {value}
    cache.close()
    image = path.read_bytes()
    for sector, values in enumerate(since):
        found = image[sector * 512 : sector * 512 + 512]
        assert found == found[:1] * 512
        assert found[0] in values


def test_a_cache_loses_what_was_not_flushed_and_keeps_it_otherwise(tmp_path: Path) -> None:
    for kind, kept in ((VolatileCache, True), (EmptyFlush, False)):
        path = tmp_path / kind.__name__
        cache = kind(FileImage(str(path), 1 << 20))
        for offset in range(0, 1 << 20, 4096):
            cache.write(offset, b"x" * 4096)
        cache.flush()
        cache.close()
        assert (path.read_bytes() == b"x" * (1 << 20)) == kept


def test_image_below_a_volatile_cache_is_one_of_another_boot(tmp_path: Path) -> None:
    """All of it is copied when it becomes one of a pair again, as after a loss of power."""
    path = str(tmp_path / "image")
    for cache, known in ((None, True), (VolatileCache, False)):
        image = DiskImage(path, 1 << 20, cache)
        image.on(ImageEvent.OPENED_BY_GUEST)
        image.on(ImageEvent.PAIRED, identifier="1" * 32)
        image.close()
        again = DiskImage(path)
        assert (again.found.changed is not None) == known
        again.close()


def test_extents_of_a_cache_are_data(tmp_path: Path) -> None:
    cache = VolatileCache(FileImage(str(tmp_path / "image"), SIZE))
    cache.write(0, b"d" * 512)
    assert cache.extents(0, SIZE, 10) == [(SIZE, False)]
    cache.close()
