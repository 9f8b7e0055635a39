"""Nodes with different settings find out in the first thing that the primary says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colobench.fields.part import settings_of
from colobench.settings.settings import Settings
from colobench.wire import agreement
from colobench.wire.agreement import encode_agreement, parse_agreement
from colobench.wire.errors import HeaderError, SettingsDiffer, StreamEnded
from colobench.wire.format import BE32
from colobench.wire.reading import parse_bytes
from setting_values import settings_values


def read(data: bytes, ours: dict[str, Any]) -> None:
    parse_bytes(lambda at: parse_agreement(at, ours), data)


@given(settings_values(), settings_values())
def test_each_setting_that_differs_is_named_with_both_values(
    ours: Settings, theirs: Settings
) -> None:
    data, wanted, told = encode_agreement(theirs.agreed()), ours.agreed(), theirs.agreed()
    if wanted == told:
        read(data, wanted)
        return
    with pytest.raises(SettingsDiffer) as caught:
        read(data, wanted)
    for name in wanted.keys() | told.keys():
        differs = wanted.get(name) != told.get(name)
        assert (name in caught.value.expected) == differs
        assert (name in caught.value.found) == differs


def test_what_both_nodes_must_have_is_said_by_the_fields() -> None:
    agreed = {each.name for each in settings_of(Settings) if each.agreed}
    with_disks = Settings().override(disks="disk,size=4K")
    assert agreed == with_disks.agreed().keys()
    # As in the stream of a pair without disks, which are the same as before there were any.
    assert agreed - {"disks"} == Settings().agreed().keys()
    assert agreed == {
        *("ram", "transport", "encoding", "multifd_channels", "layout", "output", "variant"),
        *("verify", "trace_sha256", "capture", "disks"),
    }


def test_a_setting_that_one_node_does_not_know_is_named() -> None:
    with pytest.raises(SettingsDiffer, match="expected dedup null, found dedup true"):
        read(encode_agreement({"dedup": True}), {})


@given(st.binary(max_size=200))
def test_garbage_is_one_typed_error(data: bytes) -> None:
    with pytest.raises((HeaderError, StreamEnded)):
        read(data, {})


@pytest.mark.parametrize("text", [b"[]", b"{", b"[" * 5000, b"3", b"\xff"])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    head = encode_agreement({})[: -len(b"{}") - BE32.size]
    with pytest.raises(HeaderError, match="expected a JSON object"):
        read(head + BE32.pack(len(text)) + text, {})
    with pytest.raises(HeaderError, match="expected at most"):
        read(head + BE32.pack(agreement.LENGTH_LIMIT + 1), {})
