"""Figures over all checkpoints are refused with settings that drop old records."""

from __future__ import annotations

import pytest

import colobench as cb
from colobench.errors import LocalError
from colobench.lab.cockpit.run import CockpitRun
from colobench.lab.compare.run import begin_comparison
from colobench.lab.session.session import Session
from colobench.lab.studies.demo import run_demo
from colobench.settings.settings import Settings


@pytest.mark.parametrize(
    "use",
    [
        lambda **settings: CockpitRun("one", Settings().override(**settings), 1.0),
        lambda **settings: begin_comparison(["colo_v12"], guest="uniform", **settings),
        lambda **settings: cb.compare(["colo_v12"], guest="uniform", **settings),
        lambda **settings: cb.sweep([{}], checkpoints=1, ram="8M", **settings),
        lambda **settings: run_demo(Session(ram="8M", **settings), 1),
    ],
)
def test_figures_of_all_checkpoints_refuse_to_drop_some(use):
    with pytest.raises(LocalError, match=r"keep_records: expected none .*, found 10"):
        use(keep_records=10)
