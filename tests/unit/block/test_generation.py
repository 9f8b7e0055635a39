"""Generations: which image is current, where two differ, and what a text of one says."""

from __future__ import annotations

import json
import random
import zlib
from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.generation import (
    IMAGE_TABLE,
    Generation,
    ImageEvent,
    ImageState,
    InvalidGeneration,
    Relation,
    WrongImageState,
    checkpoint_text,
    differing,
    read_generation,
    relate,
)
from colobench.errors import LocalError
from colobench.protocol.table import text

SIZE = 10 * CLUSTER_SIZE
BOOT = "0b1d"
identifiers = iter(f"{number:032x}" for number in range(1, 1 << 30))


def image(size: int = SIZE) -> Generation:
    return Generation(next(identifiers), size, boot=BOOT)


def after(generation: Generation, *events: ImageEvent) -> Generation:
    for event in events:
        generation = generation.on(event, identifier=next(identifiers), checkpoint=1)
    return generation


def wrote(generation: Generation, cluster: int) -> Generation:
    changed = generation.changed.copy()
    changed.touch(cluster * CLUSTER_SIZE, 512)
    return replace(generation, changed=changed)


def pair() -> tuple[Generation, Generation]:
    """Give both images of a pair that has just begun."""
    primary = after(image(), ImageEvent.OPENED_BY_GUEST)
    secondary = after(image(), ImageEvent.COPY_BEGINS)
    shared = next(identifiers)
    return (
        primary.on(ImageEvent.PAIRED, identifier=shared),
        secondary.on(ImageEvent.PAIRED, identifier=shared),
    )


def check(first: Generation, second: Generation, relation: Relation, differ: set[int]) -> None:
    """Check relation and difference, seen from both sides."""
    turned = {
        Relation.FIRST_IS_CURRENT: Relation.SECOND_IS_CURRENT,
        Relation.SECOND_IS_CURRENT: Relation.FIRST_IS_CURRENT,
    }
    assert relate(first, second) is relation
    assert relate(second, first) is turned.get(relation, relation)
    expected = ClusterSet(SIZE)
    for cluster in differ:
        expected.touch(cluster * CLUSTER_SIZE, 512)
    assert differing(first, second) == differing(second, first) == expected


def test_a_killed_secondarys_image_is_older_and_differs_where_the_primary_went_on():
    primary, secondary = pair()
    primary = wrote(after(primary, ImageEvent.COMMIT, ImageEvent.LEFT_ALONE), 3)
    secondary = after(secondary, ImageEvent.COMMIT, ImageEvent.KILLED)
    check(primary, secondary, Relation.FIRST_IS_CURRENT, {3})


def test_a_killed_primarys_image_is_older_and_differs_where_either_has_written():
    primary, secondary = pair()
    primary = wrote(after(primary, ImageEvent.COMMIT), 2)
    secondary = wrote(after(secondary, ImageEvent.COMMIT, ImageEvent.TAKEN_OVER), 5)
    check(primary, secondary, Relation.SECOND_IS_CURRENT, {2, 5})
    check(replace(primary, changed=None), secondary, Relation.SECOND_IS_CURRENT, set(range(10)))


def test_of_two_killed_nodes_the_primarys_image_is_current():
    primary, secondary = pair()
    check(wrote(primary, 1), secondary, Relation.FIRST_IS_CURRENT, {1})
    again = after(wrote(primary, 1), ImageEvent.OPENED_BY_GUEST)
    check(wrote(again, 4), secondary, Relation.FIRST_IS_CURRENT, {1, 4})


def test_after_a_clean_end_the_primarys_image_is_current_and_stays_so_when_it_is_used_alone():
    primary, secondary = pair()
    primary = after(wrote(primary, 1), ImageEvent.CLEAN_END)
    secondary = after(wrote(secondary, 2), ImageEvent.CLEAN_END)
    check(primary, secondary, Relation.FIRST_IS_CURRENT, {1, 2})
    primary = wrote(after(primary, ImageEvent.OPENED_BY_GUEST), 7)
    primary = after(primary, ImageEvent.CLEAN_END, ImageEvent.OPENED_BY_GUEST)
    check(primary, secondary, Relation.FIRST_IS_CURRENT, {1, 2, 7})


def test_two_guests_that_went_on_from_one_pair_are_split():
    primary, secondary = pair()
    primary = wrote(after(primary, ImageEvent.LEFT_ALONE), 1)
    secondary = wrote(after(secondary, ImageEvent.TAKEN_OVER), 2)
    check(primary, secondary, Relation.SPLIT, {1, 2})


def test_images_that_were_no_pair_differ_everywhere():
    check(image(), image(), Relation.UNRELATED, set(range(10)))
    primary, secondary = pair()
    copying = after(secondary, ImageEvent.KILLED, ImageEvent.COPY_BEGINS)
    check(primary, copying, Relation.UNRELATED, set(range(10)))
    repaired = after(secondary, ImageEvent.REPAIRED)
    check(primary, repaired, Relation.UNRELATED, set(range(10)))


def test_a_copy_of_an_image_with_its_generation_is_equal():
    secondary = after(pair()[1], ImageEvent.CLEAN_END)
    check(secondary, secondary, Relation.EQUAL, set())


def test_images_of_different_sizes_are_not_compared():
    with pytest.raises(LocalError, match="the same size"):
        differing(image(), image(SIZE + 512))


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((ImageEvent.PAIRED,), "has ended.*no checkpoint committed.*lost with the process"),
        ((ImageEvent.PAIRED, ImageEvent.COMMIT, ImageEvent.KILLED), "has ended"),
        ((), "was not complete"),
        ((ImageEvent.CLEAN_END,), "was not complete"),
    ],
)
def test_no_guest_is_started_on_a_torn_image_until_it_is_repaired(events, words):
    torn = after(image(), ImageEvent.COPY_BEGINS, *events)
    with pytest.raises(WrongImageState, match=words):
        after(torn, ImageEvent.OPENED_BY_GUEST)
    repaired = after(torn, ImageEvent.REPAIRED, ImageEvent.OPENED_BY_GUEST)
    assert (repaired.state, repaired.peer) == (ImageState.IN_USE, "")


def test_an_event_that_the_table_lacks_is_refused_by_name():
    with pytest.raises(WrongImageState, match=r"that is clean: expected .* found TAKEN_OVER"):
        after(image(), ImageEvent.TAKEN_OVER)


def test_after_another_boot_what_was_not_flushed_may_differ_everywhere():
    primary = pair()[0]
    assert primary.read_in(BOOT) == primary
    assert primary.read_in("1b").changed is None
    clean = after(primary, ImageEvent.CLEAN_END)
    assert clean.read_in("1b") == clean


def test_the_table_prints_and_a_clean_end_of_every_use_is_clean_or_an_incomplete_copy():
    assert "OPENED_BY_GUEST" in text(IMAGE_TABLE)
    for state, row in IMAGE_TABLE.items():
        if ImageEvent.KILLED in row:
            assert row[ImageEvent.KILLED] == (state, ())
            assert row[ImageEvent.CLEAN_END][0] in (ImageState.CLEAN, ImageState.COPYING)
        assert row[ImageEvent.COPY_BEGINS][0] is ImageState.COPYING


sizes = st.integers(1, 500 * 128).map(lambda sectors: sectors * 512)


@given(
    sizes,
    st.sampled_from(ImageState),
    st.one_of(st.none(), st.integers(0, (1 << 63) - 1)),
    st.one_of(st.none(), st.integers(0, 1 << 30)),
    st.sampled_from(("", "f" * 32)),
)
def test_a_generation_survives_its_text(size, state, checkpoint, seed, peer):
    if state is ImageState.COPYING:
        peer = ""
    changed = None
    if seed is not None:
        changed = ClusterSet(size)
        changed.touch(random.Random(seed).randrange(size), 1)
    generation = Generation("e" * 32, size, state, peer, checkpoint, changed, BOOT)
    assert read_generation(generation.to_text()) == generation


@given(st.one_of(st.none(), st.integers(0, (1 << 63) - 1)), st.integers(0, 1 << 62))
def test_a_checkpoint_is_noted_by_writing_over_the_beginning_of_the_text(before, number):
    generation = replace(image(), checkpoint=before)
    old, new = generation.to_text(), checkpoint_text(number)
    assert len(new) == len(checkpoint_text(before))
    assert read_generation(new + old[len(new) :]) == replace(generation, checkpoint=number)


TEXT = image().to_text()


@given(
    st.one_of(
        st.text('{}[]":,\\0aé\n', max_size=30),
        st.integers(0, len(TEXT)).map(lambda end: TEXT[:end]),
    )
)
def test_text_that_is_no_generation_is_refused_with_a_typed_error(text):
    if text.strip() != TEXT.strip():
        with pytest.raises(InvalidGeneration):
            read_generation(text)


bomb = b64encode(zlib.compress(bytes(1 << 24))).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 2),
        ("version", True),
        ("generation", "g" * 32),
        ("generation", None),
        ("peer", "12"),
        ("state", "open"),
        ("size", 511),
        ("size", 513),
        ("size", 1 << 60),
        ("checkpoint", -1),
        ("checkpoint", "1"),
        ("boot", "x" * 100),
        ("changed", bomb),
        ("changed", "!"),
        ("changed", "AAAA"),
        ("changed", 5),
        ("changed", b64encode(zlib.compress(bytes(1))).decode()),
        ("further", 1),
    ],
)
def test_a_wrong_member_is_refused_by_name(name, value):
    members = json.loads(TEXT)
    members[name] = value
    with pytest.raises(InvalidGeneration, match=r"generation of an image: .*expected .* found"):
        read_generation(json.dumps(members))


@pytest.mark.parametrize("text", ["[]", "1", "{}", "[" * 100_000])
def test_json_that_is_no_object_with_its_members_is_refused(text):
    with pytest.raises(InvalidGeneration):
        read_generation(text)
