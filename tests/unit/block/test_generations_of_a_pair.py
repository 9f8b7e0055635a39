"""Two images through joins, writes, kills and restarts: what is copied is enough, and no more.

The nodes are those of `colobench.node.disk.generation_file.DiskImage` without files: what a killed
one has left behind is what it had noted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from colobench.block.clusters import CLUSTER_SIZE, ClusterSet
from colobench.block.generation import (
    Generation,
    ImageEvent,
    ImageState,
    Relation,
    WrongImageState,
    differing,
    relate,
)
from share import amount

CLUSTERS = 6
SIZE = CLUSTERS * CLUSTER_SIZE
clusters = st.integers(0, CLUSTERS - 1)


@dataclass
class Image:
    """An image: its generation, a value for each cluster, and a secondary's layers."""

    generation: Generation
    data: list[int]
    hidden: dict[int, int] = field(default_factory=dict)
    active: dict[int, int] = field(default_factory=dict)

    def note(self, numbers) -> None:
        if self.generation.changed is not None:
            changed = self.generation.changed.copy()
            for cluster in numbers:
                changed.touch(cluster * CLUSTER_SIZE, 1)
            self.generation = replace(self.generation, changed=changed)

    def merge(self) -> None:
        self.note({*self.hidden, *self.active})
        for cluster, value in (*self.hidden.items(), *self.active.items()):
            self.data[cluster] = value


class PairOfImages(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.identifiers = (f"{number:032x}" for number in itertools.count(1))
        self.values = itertools.count(100)
        self.images = [
            Image(Generation(next(self.identifiers), SIZE), [side] * CLUSTERS) for side in (1, 2)
        ]
        self.primary: Image | None = None
        self.secondary: Image | None = None
        #: Clusters that the primary has written, and that are on their way.
        self.forwards: list[tuple[int, int]] = []
        #: What the last guest's disk has.
        self.truth: list[int] | None = None

    def on(self, image: Image, event: ImageEvent, identifier: str = "") -> None:
        image.generation = image.generation.on(
            event, identifier=identifier or next(self.identifiers), checkpoint=1
        )

    def torn(self) -> list[Image]:
        """Give the images that a secondary follows with, or has left behind."""
        following = ImageState.FOLLOWING
        return [image for image in self.images if image.generation.state is following]

    def other(self) -> Image:
        return self.images[self.images[0] is self.primary]

    @precondition(lambda self: self.primary is None)
    @rule(choice=st.sampled_from((0, 1)))
    def a_guest_is_started_on_the_current_image(self, choice):
        relation = relate(*(image.generation for image in self.images))
        assert relation is not Relation.SPLIT
        if relation is not Relation.UNRELATED:
            choice = int(relation is Relation.SECOND_IS_CURRENT)
            assert self.images[choice].data == self.truth
        image = self.images[choice]
        if image.generation.state in (ImageState.FOLLOWING, ImageState.COPYING):
            assert relation is Relation.UNRELATED
            with pytest.raises(WrongImageState):
                self.on(image, ImageEvent.OPENED_BY_GUEST)
            return
        self.on(image, ImageEvent.OPENED_BY_GUEST)
        self.primary, self.truth = image, image.data

    @precondition(lambda self: self.primary and not self.secondary)
    @rule(killed_after=st.sampled_from((None, None, None, None, 0, 3)))
    def another_node_joins(self, killed_after):
        """Only what may differ is copied, and then all is equal; or the node dies before."""
        joining = self.other()
        copied = differing(self.primary.generation, joining.generation)
        self.on(joining, ImageEvent.COPY_BEGINS)
        for cluster in range(CLUSTERS if killed_after is None else killed_after):
            if copied.meets(cluster * CLUSTER_SIZE, 1):
                joining.data[cluster] = self.primary.data[cluster]
        if killed_after is not None:
            return
        assert joining.data == self.primary.data
        shared = next(self.identifiers)
        for image in (self.primary, joining):
            self.on(image, ImageEvent.PAIRED, shared)
        joining.hidden, joining.active = {}, {}
        self.secondary, self.forwards = joining, []

    @precondition(lambda self: self.primary)
    @rule(cluster=clusters)
    def the_guest_writes(self, cluster):
        value = next(self.values)
        self.primary.note([cluster])
        self.primary.data[cluster] = value
        self.forwards.append((cluster, value))

    @precondition(lambda self: self.secondary)
    @rule(cluster=clusters)
    def the_secondarys_guest_writes(self, cluster):
        self.secondary.active[cluster] = next(self.values)

    @precondition(lambda self: self.secondary and self.forwards)
    @rule()
    def a_write_arrives(self):
        cluster, value = self.forwards.pop(0)
        self.secondary.hidden.setdefault(cluster, self.secondary.data[cluster])
        self.secondary.data[cluster] = value

    @precondition(lambda self: self.secondary)
    @rule()
    def a_checkpoint_is_committed(self):
        while self.forwards:
            self.a_write_arrives()
        self.secondary.hidden, self.secondary.active = {}, {}
        for image in (self.primary, self.secondary):
            self.on(image, ImageEvent.COMMIT)

    @precondition(lambda self: self.secondary)
    @rule()
    def the_secondary_is_killed(self):
        self.on(self.primary, ImageEvent.LEFT_ALONE)
        self.secondary = None

    @precondition(lambda self: self.secondary)
    @rule()
    def the_primary_is_killed(self):
        self.secondary.merge()
        self.on(self.secondary, ImageEvent.TAKEN_OVER)
        self.primary, self.secondary = self.secondary, None
        self.truth = self.primary.data

    @precondition(lambda self: self.primary)
    @rule(merging=st.booleans())
    def all_are_killed(self, merging):
        if self.secondary and merging:
            self.secondary.merge()
        self.primary = self.secondary = None

    @precondition(lambda self: self.primary)
    @rule()
    def all_end_as_they_should(self):
        self.on(self.primary, ImageEvent.CLEAN_END)
        if self.secondary:
            self.secondary.merge()
            self.on(self.secondary, ImageEvent.CLEAN_END)
        self.primary = self.secondary = None

    @precondition(lambda self: self.primary is None and self.torn())
    @rule()
    def a_killed_secondary_is_undone(self):
        for image in self.torn():
            image.active = {}
            image.merge()
            self.on(image, ImageEvent.CLEAN_END)


TestPairOfImages = PairOfImages.TestCase
TestPairOfImages.settings = settings(
    deadline=None, max_examples=amount(100, 3000), stateful_step_count=40
)


@pytest.mark.parametrize("end", ["the secondary", "the primary", "all", "merging", "well"])
@pytest.mark.parametrize("write", ["on its way", "arrived", "committed", "of the secondary"])
def test_after_each_end_of_a_pair_with_each_kind_of_write_a_join_makes_the_images_equal(write, end):
    pair = PairOfImages()
    pair.a_guest_is_started_on_the_current_image(0)
    pair.another_node_joins(None)
    if write == "of the secondary":
        pair.the_secondarys_guest_writes(2)
    else:
        pair.the_guest_writes(2)
    if write == "arrived":
        pair.a_write_arrives()
    if write == "committed":
        pair.a_checkpoint_is_committed()
    {
        "the secondary": pair.the_secondary_is_killed,
        "the primary": pair.the_primary_is_killed,
        "all": lambda: pair.all_are_killed(False),
        "merging": lambda: pair.all_are_killed(True),
        "well": pair.all_end_as_they_should,
    }[end]()
    if pair.primary is None:
        pair.a_guest_is_started_on_the_current_image(0)
    pair.another_node_joins(None)


def test_after_a_kill_of_either_node_less_than_all_is_copied():
    """The machine above would pass if everything were copied always."""
    for kill in (PairOfImages.the_primary_is_killed, PairOfImages.the_secondary_is_killed):
        pair = PairOfImages()
        pair.a_guest_is_started_on_the_current_image(0)
        pair.another_node_joins(None)
        pair.the_guest_writes(1)
        pair.a_checkpoint_is_committed()
        pair.the_guest_writes(2)
        kill(pair)
        pair.the_guest_writes(3)
        found = differing(pair.primary.generation, pair.other().generation)
        expected = ClusterSet(SIZE)
        expected.touch(CLUSTER_SIZE, 3 * CLUSTER_SIZE)
        assert found == expected
