"""The share of the long runs: every case is tried without it, and everything with all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import share

CASES = st.lists(st.integers(), min_size=1, max_size=20, unique=True)


@given(CASES, CASES, st.integers(1, 9), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.integers(0))
def test_each_case_is_tried_and_a_long_run_tries_all(cases, others, short, part, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share, "SHARE", part)
        patch.setattr(share, "SEED", seed)
        pairs = share.each_with_some(cases, others, short)
        assert len(set(pairs)) == len(pairs)
        assert {case for case, _ in pairs} == set(cases)
        picked = share.some(cases, short)
        assert [case for case in cases if case in picked] == picked
        assert len(picked) >= min(short, len(cases))
        if part == 1:
            assert len(pairs) == len(cases) * len(others)
            assert picked == cases
