"""Prediction of what a strategy costs: pause, degradation, traffic, latency, age and memory."""

from __future__ import annotations

from collections.abc import Mapping
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
from colobench.strategy.model.interval import LONGEST_MS, has_interval_model, run_time
from colobench.strategy.model.passes import passes
from colobench.strategy.model.slack import done_ms
from colobench.strategy.triggers import OnOutput

#: Most steps towards a fixed point; each is several times closer.
_ITERATIONS = 40


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of a strategy on a workload, over a link, on the calibrated machine.

    Attributes
    ----------
    run_ms, period_ms
        Time T that the guest runs between two checkpoints, and from one stop to the next, T + p.
    checkpoint
        A checkpoint after T.
    figures
        Values by the names of metrics of `colobench compare`: ``pause_p50_ms``, ``degradation``,
        ``bytes_per_s``, ``checkpoints_per_s``, ``commit_age_mean_ms``, ``commit_age_p99_ms``; if
        clients ask, ``latency_p50_ms`` and ``latency_p99_ms``; and ``primary_memory_bytes`` and
        ``secondary_memory_bytes`` if the calibration has them.
    """

    run_ms: float
    period_ms: float
    checkpoint: Checkpoint
    figures: Mapping[str, float]


def predict(
    axes: Axes, workload: Workload, link: LinkProperties, calibration: Calibration
) -> Prediction | None:
    """Predict the figures of a strategy; None if there is no model of one of its parts.

    With the run time T (`run_time`), the pause p and the period P = T + p:

    * degradation = 1 - done / P: the guest makes up for a part of each pause in its rests
      (`done_ms`). In its run time T it loses c D to its first writes to the D pages, and a share of
      the time in which the checkpoint is sent beside it (`Calibration`);
    * bytes a second = bytes of a checkpoint / P, checkpoints a second = 1 / P;
    * age of the newest commit: it falls to the commit lag L, and grows for P, so its mean is
      L + P / 2, and its percentile 99 is L + 0.99 P;
    * output latency with a buffer: a request at any moment is answered in the run in which it
      comes, or in the next one, and waits for that run's end and the release R. So its wait is
      uniform from R to R + P: with l the latency unprotected, p50 = l + R + P / 2 and
      p99 = l + R + 0.99 P;
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

    def after(ran: float) -> Checkpoint:
        return _after(ran, axes, workload, link, calibration)

    ran = run_time(axes.trigger, workload, after)
    if ran is None or ran >= LONGEST_MS:
        return None
    found = after(ran)
    period = ran + found.pause
    waiting = queueing(CAPTURES[axes.capture], found, ran)
    found = replace(found, commit=found.commit + waiting, release=found.release + waiting)
    figures = {
        "pause_p50_ms": found.pause,
        "degradation": 1 - _done_ms(ran, found, workload, calibration) / period,
        "bytes_per_s": 1000 * found.sent / period,
        "checkpoints_per_s": 1000 / period,
        "commit_age_mean_ms": found.commit + period / 2,
        "commit_age_p99_ms": found.commit + 0.99 * period,
        **output_latency(axes, workload, found, period),
        **extra_memory(axes, calibration, found),
    }
    return Prediction(ran, period, found, figures)


def _after(
    ran: float, axes: Axes, workload: Workload, link: LinkProperties, calibration: Calibration
) -> Checkpoint:
    """Predict the checkpoint after a run of so many milliseconds.

    The guest's work between two checkpoints has the part of the pause that it makes up for, so it
    depends on the pause, and the pause on the pages of that work: a fixed point.
    """
    found, work = _checkpoint(ran, 0.0, axes, workload, link, calibration), 0.0
    for _ in range(_ITERATIONS):
        before, work = work, _done_ms(ran, found, workload, calibration) * workload.work_per_ms
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
        return checkpoint(costs, capture, link, pages, work)

    def written(milliseconds: float) -> float:
        # What the guest makes up for, it does when it runs again.
        more = max(0.0, work - ran * workload.work_per_ms) if milliseconds >= ran else 0.0
        return workload.curve.at(milliseconds * workload.work_per_ms + more)

    passed = passes(ran, axes.pass_period_ms, axes.trigger, written, costs.send.at)
    left = written(passed.left_ms)
    found = checkpoint(costs, capture, link, left, work, flushed=max(pages, left))
    return replace(found, sent=found.sent + costs.sent.per_page * passed.pages)


def _done_ms(ran: float, found: Checkpoint, workload: Workload, calibration: Calibration) -> float:
    """Give the work of a period as time of the unprotected guest, milliseconds."""
    done = done_ms(ran, found.pause, workload.pace, calibration.page_ms * found.pages)
    lost = calibration.lost_beside * min(found.beside, ran)
    return max(0.0, min(done, ran + found.pause - lost))


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
    axes: Axes, workload: Workload, found: Checkpoint, period: float
) -> dict[str, float]:
    """Predict percentiles of the output latency, see `predict`; nothing if nobody asks.

    With the trigger ``output`` and requests further apart than a checkpoint takes, each request
    causes its own: l + the request of a checkpoint + R. Where output is compared, an answer that
    matches leaves after the time that was measured for it; a request while the guest stands still,
    a part p / P of all, waits for the rest of the pause.
    """
    base, base_99 = workload.latency_ms, workload.latency_p99_ms
    if axes.output == "compare":
        base, base_99 = workload.matched_ms, workload.matched_p99_ms
    if base is None or base_99 is None:
        return {}
    if axes.output == "compare":
        share = found.pause / period
        waits = {each: max(0.0, each - (1 - share)) * period for each in (0.5, 0.99)}
        return {
            "latency_p50_ms": base + waits[0.5],
            "latency_p99_ms": base_99 if waits[0.99] == 0 else base + waits[0.99],
        }
    at_once = isinstance(axes.trigger, OnOutput) and found.busy + found.pause < period
    if at_once:
        wait = found.request + found.release
        return {"latency_p50_ms": base + wait, "latency_p99_ms": base_99 + wait}
    return {
        "latency_p50_ms": base + found.release + 0.5 * period,
        "latency_p99_ms": base + found.release + 0.99 * period,
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
