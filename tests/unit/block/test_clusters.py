"""Sets of clusters: the same as a Python set of their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colobench.block.clusters import CLUSTER_SIZE, ClusterSet, clusters_of
from colobench.errors import LocalError
from share import amount

SIZE = 20 * CLUSTER_SIZE + 512
places = st.integers(0, SIZE - 1).flatmap(
    lambda offset: st.tuples(st.just(offset), st.integers(1, SIZE - offset))
)
changes = st.lists(st.tuples(st.booleans(), places), max_size=20)
few = settings(deadline=None, max_examples=amount(30, 300))


def apply(steps) -> tuple[ClusterSet, set[int]]:
    clusters, twin = ClusterSet(SIZE), set()
    for adds, (offset, length) in steps:
        if adds:
            clusters.touch(offset, length)
            twin |= set(clusters_of(offset, length))
        else:
            clusters.remove_whole(offset, length)
            for number in range(21):
                begin, end = number * CLUSTER_SIZE, min((number + 1) * CLUSTER_SIZE, SIZE)
                if offset <= begin and end <= offset + length:
                    twin.discard(number)
    return clusters, twin


@few
@given(changes, places)
def test_it_is_a_set_of_numbers_of_clusters(steps, place):
    clusters, twin = apply(steps)
    assert len(clusters) == len(twin)
    assert clusters.byte_count == sum(512 if number == 20 else CLUSTER_SIZE for number in twin)
    assert clusters.meets(*place) is bool(twin & set(clusters_of(*place)))


@few
@given(changes, st.integers(1, 5))
def test_runs_give_each_cluster_once_and_are_as_long_as_they_may(steps, count):
    clusters, twin = apply(steps)
    found, offset = [], 0
    while run := clusters.next_run(offset, count * CLUSTER_SIZE):
        numbers = list(clusters_of(*run))
        assert len(numbers) <= count
        assert len(numbers) == count or numbers[-1] + 1 not in twin
        found += numbers
        offset = (numbers[-1] + 1) * CLUSTER_SIZE
    assert found == sorted(twin)


@few
@given(changes, changes)
def test_a_set_survives_its_bytes_and_a_union_has_both(steps, others):
    (clusters, twin), (other, its_twin) = apply(steps), apply(others)
    assert ClusterSet.from_bytes(SIZE, clusters.to_bytes()) == clusters
    assert len(clusters.union(other)) == len(twin | its_twin)
    assert clusters.copy() == clusters


@pytest.mark.parametrize("packed", [b"", bytes(2), bytes(4), b"\0\0\xff"])
def test_bytes_that_are_no_set_of_this_disk_are_refused(packed):
    with pytest.raises(LocalError, match=r"expected .* found"):
        ClusterSet.from_bytes(SIZE, packed)
