"""What the loader says to each section type in each stage, and errors that keep their cause."""

from __future__ import annotations

import colobench as cb


def test_the_table_of_stages_is_found_by_asking_the_loader():
    answers = {(each.stage, each.section): each for each in cb.probe_stages()}
    accepted = {key for key, each in answers.items() if each.accepted}
    assert ("COLO_RAM", "PART") in accepted
    assert ("COLO_DEVICES", "FULL") in accepted
    assert {("COLO_RAM", "FULL"), ("COLO_RAM", "START"), ("COLO_DEVICES", "PART")} & accepted == (
        set()
    )
    for each in answers.values():
        assert each.accepted or ("expected" in each.error and "found" in each.error)


def test_provoked_errors_are_of_several_kinds_and_one_keeps_its_cause():
    errors = cb.provoke_errors()
    assert len({type(each) for each in errors}) >= 4
    assert [str(each.__cause__) in str(each) for each in errors if each.__cause__] == [True]
