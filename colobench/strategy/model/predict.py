"""Prediction of what a strategy costs: pause, degradation, traffic, latency, age and memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from colobench.guest.settings import PAGE_SIZE
from colobench.strategy.model.checkpoint import (
    CAPTURES,
    ENCODINGS,
    CaptureModel,
    Checkpoint,
    checkpoint,
)
from colobench.strategy.model.inputs import Axes, Calibration, LinkProperties, Workload
from colobench.strategy.model.interval import Interval, has_interval_model, intervals
from colobench.strategy.model.passes import passes
from colobench.strategy.model.slack import done_ms
from colobench.strategy.model.tabulated import Tabulated
from colobench.strategy.model.waits import uniform_percentiles

#: Most steps towards a fixed point; each is several times closer.
_ITERATIONS = 40


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of a strategy on a workload, over a link, on the calibrated machine.

    Attributes
    ----------
    run_ms, period_ms
        Mean time T that the guest runs between two checkpoints, and from one stop to the next.
    checkpoint
        A checkpoint after that time.
    figures
        Values by the names of metrics of `colobench compare`: ``pause_p50_ms``, ``degradation``,
        ``bytes_per_s``, ``checkpoints_per_s``, ``commit_lag_p50_ms``, ``commit_age_mean_ms``,
        ``commit_age_p99_ms``; if clients ask, ``latency_p50_ms`` and ``latency_p99_ms``; and
        ``primary_memory_bytes`` and ``secondary_memory_bytes`` if the calibration has them.
    """

    run_ms: float
    period_ms: float
    checkpoint: Checkpoint
    figures: Mapping[str, float]


def predict(
    axes: Axes, workload: Workload, link: LinkProperties, calibration: Calibration
) -> Prediction | None:
    """Predict the figures of a strategy; None if there is no model of one of its parts.

    The trigger itself is asked for one checkpoint after another (`intervals`). Each has its run
    time T, its pause p and the period P = T + p. Then, over all of these:

    * pause, p50: the median of p;
    * degradation = 1 - the sum of what is done, divided by that of P: the guest makes up for a part
      of each pause in its rests (`done_ms`). In its run time T it loses c D to its first writes to
      the D pages, and a share of the time in which it is sent beside the guest (`Calibration`);
    * bytes a second = sum of bytes / sum of P, checkpoints a second = their number / sum of P;
    * age of the newest commit: it falls to the commit lag L, and grows for P: uniform from L to
      L + P in a part P of all time;
    * output latency with a buffer: a request at any moment is answered in the run in which it
      comes, or in the next one, and waits for that run's end and the release R. So its wait is
      uniform from R to R + P, in a part P of all time; see `output_latency`;
    * with two open epochs, L and R include the wait of a cut checkpoint, see `queueing`.

    Source: the synchronous and asynchronous cases of Remus (NSDI 2008) and COLO-Frame v12, with
    request times that are uniform over the period (Poisson arrivals see time averages: R. Wolff,
    Operations Research 30, 1982).

    Parameters
    ----------
    axes
        Axes of the strategy.
    workload
        What the guest does, measured.
    link
        Such as a `colobench.settings.link.Link`.
    calibration
        Costs of this machine for the strategy's transport, encoding, layout, capture and output.
    """
    if not has_model(axes):
        return None

    def exact(ran: float) -> Checkpoint:
        return _after(ran, axes, workload, link, calibration)

    def dirty(ran: float) -> float:
        return workload.curve.at(ran * workload.work_per_ms)

    spread, preparation = calibration.spread, calibration.preparation
    made = intervals(axes.trigger, workload, Tabulated(exact).at, dirty, spread, preparation)
    if made is None:
        return None
    ran, period = _mean(each.ran for each in made), _mean(each.period for each in made)
    found = exact(ran)
    capture = CAPTURES[axes.capture]
    timed = [_timed(each, capture) for each in made]
    done = _mean(_done_ms(each, workload, calibration) for each in made)
    ages = uniform_percentiles([each.commit for each in timed], [each.period for each in made])
    figures = {
        "pause_p50_ms": statistics.median(each.pause for each in made),
        "degradation": 1 - done / period,
        "bytes_per_s": 1000 * _mean(each.found.sent for each in made) / period,
        "checkpoints_per_s": 1000 / period,
        "commit_lag_p50_ms": statistics.median(each.commit for each in timed),
        "commit_age_mean_ms": ages.mean,
        "commit_age_p99_ms": ages.p99,
        **output_latency(axes, workload, made, [each.release for each in timed]),
        **extra_memory(axes, calibration, found),
    }
    return Prediction(ran, period, found, figures)


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _timed(made: Interval, capture: CaptureModel) -> Checkpoint:
    """Give a checkpoint whose commit and release have the wait of this one, see `queueing`.

    What disturbs a single pause does not move them: most of it is the load, and waking the guest.
    """
    found = made.found
    waiting = queueing(capture, found, made.ran)
    return replace(found, commit=found.commit + waiting, release=found.release + waiting)


def _after(
    ran: float, axes: Axes, workload: Workload, link: LinkProperties, calibration: Calibration
) -> Checkpoint:
    """Predict the checkpoint after a run of so many milliseconds.

    The guest's work between two checkpoints has the part of the pause that it makes up for, so it
    depends on the pause, and the pause on the pages of that work: a fixed point.
    """
    found, work = _checkpoint(ran, 0.0, axes, workload, link, calibration), 0.0
    for _ in range(_ITERATIONS):
        done = _done_ms(Interval(ran, 1.0, found), workload, calibration)
        before, work = work, done * workload.work_per_ms
        if abs(work - before) <= 1e-6 * work:
            break
        found = _checkpoint(ran, work, axes, workload, link, calibration)
    return found


def _checkpoint(
    ran: float,
    work: float,
    axes: Axes,
    workload: Workload,
    link: LinkProperties,
    calibration: Calibration,
) -> Checkpoint:
    """Predict the checkpoint after a run, and after so much work."""
    capture, costs = CAPTURES[axes.capture], calibration.costs
    pages = workload.curve.at(work)
    if not capture.passes:
        return checkpoint(costs, capture, link, pages, work, contents=workload.contents)

    def written(milliseconds: float) -> float:
        # What the guest makes up for, it does when it runs again.
        more = max(0.0, work - ran * workload.work_per_ms) if milliseconds >= ran else 0.0
        return workload.curve.at(milliseconds * workload.work_per_ms + more)

    passed = passes(ran, axes.pass_period_ms, axes.trigger, written, costs.send.at)
    left = written(passed.left_ms)
    contents = workload.contents
    found = checkpoint(costs, capture, link, left, work, max(pages, left), contents)
    return replace(found, sent=found.sent + costs.sent.of_pages(passed.pages, 0.0, contents.age))


def _done_ms(made: Interval, workload: Workload, calibration: Calibration) -> float:
    """Give the work of a period as time of the unprotected guest, milliseconds."""
    ran, found = made.ran, made.found
    done = done_ms(ran, made.pause, workload.pace, calibration.page_ms * found.pages)
    lost = calibration.lost_beside * min(found.beside, ran)
    return max(0.0, min(done, made.period - lost))


def queueing(capture: CaptureModel, found: Checkpoint, ran: float) -> float:
    """Predict for how many milliseconds a cut checkpoint waits until the one before has been sent.

    Only where two epochs may be open, and the guest is cut whenever the table allows it: a third
    cut waits until the first epoch is loaded, which takes w + loaded after its own cut, or two
    periods: so w = 2 P − loaded. It is 0 if the way is long and the bytes few.
    """
    if capture.open_epochs == 1 or ran > found.busy * (1 + 1e-6):
        return 0.0
    return max(0.0, capture.open_epochs * (ran + found.pause) - found.loaded)


def has_model(axes: Axes) -> bool:
    """Say whether there is a model of each part of a strategy."""
    return (
        axes.capture in CAPTURES and axes.encoding in ENCODINGS and has_interval_model(axes.trigger)
    )


def output_latency(
    axes: Axes, workload: Workload, made: Sequence[Interval], releases: Sequence[float]
) -> dict[str, float]:
    """Predict percentiles of the output latency, see `predict`; nothing if nobody asks.

    To the wait for the release comes the unprotected latency: the percentile 50 of both, and for
    the percentile 99 the larger of that of the one and the median of the other. A trigger that
    looks at output makes checkpoints follow requests, so for it the requests are those of
    `FrameOutput`, and not uniform. Where output is compared, an answer that matches leaves after
    the time that was measured for it; a request while the guest stands still, a part p / P of all,
    waits for the rest of the pause.
    """
    base, base_99 = workload.latency_ms, workload.latency_p99_ms
    if axes.output == "compare":
        base, base_99 = workload.matched_ms, workload.matched_p99_ms
    if base is None or base_99 is None:
        return {}
    if axes.output == "compare":
        # Requests of the part of the time in which the guest runs wait for nothing.
        waits = [each for one in made for each in (0.0, 0.0)]
        lengths = [each for one in made for each in (0.0, one.pause)]
        parts = [each for one in made for each in (one.ran, one.pause)]
        found = uniform_percentiles(waits, lengths, parts)
    elif any(each.asked for each in made):
        known = [
            wait + release
            for each, release in zip(made, releases, strict=True)
            for wait in each.asked
        ]
        found = uniform_percentiles(known, [0.0] * len(known), [1.0] * len(known))
    else:
        found = uniform_percentiles(releases, [each.period for each in made])
    return {
        "latency_p50_ms": base + found.p50,
        "latency_p99_ms": max(base_99 + found.p50, base + found.p99),
    }


def extra_memory(axes: Axes, calibration: Calibration, found: Checkpoint) -> dict[str, float]:
    """Predict the extra memory: as calibrated, but for a buffer that has all pages (D P).

    The other buffers have the same size whatever the number of dirty pages: memory for copies is
    as large as RAM, and the RAM cache, too.
    """
    more = 0.0
    if axes.layout == "buffered":
        more = PAGE_SIZE * (found.pages - calibration.most_pages)
    sides = {
        "primary_memory_bytes": calibration.primary_memory_bytes,
        "secondary_memory_bytes": calibration.secondary_memory_bytes,
    }
    return {name: each + more for name, each in sides.items() if each is not None}
