"""Runs of a cockpit that never had a pair, with records made up."""

from __future__ import annotations

import time

from colobench.lab.cockpit.run import CockpitRun, RunStage, Usage
from colobench.settings.settings import Settings
from records import make_record


def make_run(name, number=0, checkpoints=10, **settings):
    """Make a run that is over, with so many checkpoints, 10 ms apart."""
    run = CockpitRun(name, Settings().override(**{"ram": "8M"} | settings), 1.0, number)
    run.began = time.monotonic()
    run.underway.work_per_s = 1000.0
    run.underway.begin(run.began, 0, [])
    for each in range(1, checkpoints + 1):
        stopped = round((run.began + each / 100) * 1e9)
        record = make_record(
            each,
            pages=range(min(each, 1000)),
            primary_marks=(("stop", stopped),),
            settings=run.settings,
        )
        run.session.records.append(record)
    run.usage.append(Usage(0.1, "primary", 100 << 20))
    run.over = run.began + 1.0
    run.underway.end(run.over)
    run.stage = RunStage.ENDED
    return run
