"""Model of one checkpoint: its times and bytes, from its pages, its capture and the link."""

from __future__ import annotations

from dataclasses import dataclass

from colobench.strategy.model.costs import CheckpointCosts
from colobench.strategy.model.inputs import NO_CONTENTS, Contents, LinkProperties


@dataclass(frozen=True, slots=True)
class CaptureModel:
    """Model of a capture.

    Attributes
    ----------
    sends_in_pause
        Whether the guest stands still while the checkpoint is sent and loaded.
    open_epochs
        Checkpoints that may be on their way at the same time.
    passes
        Whether passes between checkpoints send pages, too; see `colobench.strategy.model.passes`.
    """

    sends_in_pause: bool
    open_epochs: int = 1
    passes: bool = False


#: Encoding with which dirty pages are those of both guests, of which some are sent.
DIVERGENT = "divergent"

#: Models by the name of the capture. See `checkpoint`.
CAPTURES = {
    "stop-and-send": CaptureModel(sends_in_pause=True),
    "copy-then-send": CaptureModel(sends_in_pause=False),
    "copy-on-write": CaptureModel(sends_in_pause=False),
    "copy-on-write-2": CaptureModel(sends_in_pause=False, open_epochs=2),
    "gap-precopy": CaptureModel(sends_in_pause=True, passes=True),
}
#: Encodings, all with bytes as of `ByteCosts`. Pages as they are: D P and a record each. XBZRLE: a
#: page that is sent for the first time as it is, and of others the changed bytes, in proportion to
#: the work (Svärd and others, VEE 2011). zstd and lz4: a ratio, which falls as the guest's writes
#: fill a page. Divergent: hashes of all pages, and those whole that differ (PLOVER, NSDI 2018).
ENCODINGS = frozenset({"none", "xbzrle", "zstd", "lz4", DIVERGENT})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint; times in milliseconds, from the stop unless said otherwise.

    Attributes
    ----------
    pages, sent
        Dirty pages, and bytes from primary to secondary.
    request
        From when it is due until the guest stops.
    pause
        Until the guest runs again.
    commit, release
        Until the secondary has committed, and until the output is released.
    busy
        From the resume until the guest can be stopped for the next checkpoint.
    beside
        From the resume until the secondary has loaded it: processors are busy with it beside the
        guest. Waiting for a link is left out.
    loaded
        Until the primary knows that the secondary has loaded it.
    alone
        The pause without what the link adds: the part that other work of the machine disturbs.
    """

    pages: float
    sent: float
    request: float
    pause: float
    commit: float
    release: float
    busy: float
    loaded: float
    beside: float = 0.0
    alone: float = 0.0


def checkpoint(
    costs: CheckpointCosts,
    capture: CaptureModel,
    link: LinkProperties,
    pages: float,
    work: float,
    flushed: float | None = None,
    contents: Contents = NO_CONTENTS,
) -> Checkpoint:
    """Predict a checkpoint.

    On the machine alone, each time is a line over the pages D, and so is that of copying pages,
    with another slope from where several threads share it (`CheckpointCosts`). A link with the
    rate B and the one-way delay d lengthens the sending from s(D) to max(s(D), bytes / B), because
    pages are read, sent and stored at the same time. Then:

    * stop and send (COLO-Frame v12, 2015): the pause is p(D) + max(0, bytes / B − s(D)) + 2 d, as
      the guest waits until the secondary says LOADED;
    * gap pre-copy: likewise, with the pages that its passes left;
    * copy, then send (Remus, NSDI 2008, section 3): the pause is that of the copy, p(D), and the
      link lengthens only the time until the commit and until the next checkpoint can begin;
    * copy on write: likewise, and the pause is that of arming the pages (J. Plank and others,
      "Libckpt", USENIX 1995);
    * copy on write with two epochs (A. Kivity, qemu-devel 2009): likewise, but a request is not
      answered, and the next checkpoint can begin after half of the time that one takes, or when
      its bytes have left, max(s(D), bytes / B), whichever is later.

    The commit is d later, and the primary knows of it 2 d later. A request and its reply take 2 d,
    in which the guest runs.

    Parameters
    ----------
    costs
        Costs without a link.
    capture
        One of `CAPTURES`.
    link
        Rate in bits per second, delay and jitter in microseconds.
    pages, work
        Distinct dirty pages, and steps of work since the last checkpoint.
    flushed
        Pages that the secondary flushes, if these are more than the pages that are sent.
    contents
        What an encoding by contents finds in the pages.
    """
    sent = costs.sent.at(pages, work, contents.whole(work), contents.age)
    way = (link.delay_us + link.jitter_us / 2) / 1000
    on_link = 8000 * sent / link.rate if link.rate else 0.0
    longer = max(0.0, on_link - costs.send.at(pages))
    copy, flush = costs.copy.at(pages), costs.flush.at(pages if flushed is None else flushed)
    alone = pause_alone(costs, pages, capture.sends_in_pause, flushed)
    all_alone = max(costs.loaded.at(pages) + copy + flush, alone)
    loaded = all_alone + longer + 2 * way
    pause = alone + longer + 2 * way if capture.sends_in_pause else alone
    if capture.open_epochs == 1:
        request = costs.request.at(pages) + 2 * way
        busy = request if capture.sends_in_pause else loaded - pause + request
    else:
        request = 0.0
        on_stream = max(costs.send.at(pages), on_link)
        busy = max(loaded / capture.open_epochs, on_stream) - pause
    return Checkpoint(
        pages=pages,
        sent=sent,
        request=request,
        pause=pause,
        commit=costs.commit.at(pages) + copy + longer + way,
        release=costs.release.at(pages) + copy + longer + 2 * way,
        busy=max(request, busy),
        loaded=loaded,
        beside=0.0 if capture.sends_in_pause else all_alone - alone,
        alone=alone,
    )


def pause_alone(
    costs: CheckpointCosts, pages: float, sends_in_pause: bool, flushed: float | None = None
) -> float:
    """Give the pause without a link: that of the line, the copy and, if in the pause, the flush."""
    flush = costs.flush.at(pages if flushed is None else flushed) if sends_in_pause else 0.0
    return costs.pause.at(pages) + costs.copy.at(pages) + flush
