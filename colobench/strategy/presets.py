"""Presets: named strategies, each as what it changes of the usual settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """A named strategy.

    Attributes
    ----------
    axes
        Values of the axes that differ from the usual ones, as texts of settings.
    source
        Publication or version that it follows.
    good_for
        Half a sentence on when it is good.
    """

    axes: Mapping[str, str]
    source: str
    good_for: str


PRESETS = {
    "colo_v12": Preset(
        {},
        "COLO-Frame v12, 2015, patch 31",
        "the plain reference: few dirty pages, output that may wait",
    ),
    "colo_v11": Preset(
        {"layout": "buffered"},
        "COLO before patch 31",
        "shows the cost of one buffer for RAM and devices: memory and a longer pause",
    ),
    "colo": Preset(
        {"output": "compare", "trigger": "miscompare:maximum=10000"},
        "COLO, SoCC 2013; QEMU's default output and trigger",
        "guests whose outputs agree: answers leave after one comparison",
    ),
    "hybrid": Preset(
        {"output": "compare", "trigger": "hybrid"},
        "Gilbert, COLO hybrid mode, qemu-devel 2015",
        "guests whose outputs agree most of the time",
    ),
    "kemari": Preset(
        {"trigger": "output"},
        "Kemari, 2009",
        "rare output that has to leave at once; an idle guest runs on",
    ),
    "degradation": Preset(
        {"trigger": "degradation"},
        "HERE (HAL hal-04095419)",
        "a load that changes: the loss of work stays at 10 %",
    ),
    "dirty_volume": Preset(
        {"trigger": "dirty"},
        "a fork of QEMU with a limit of dirty pages",
        "a limit of the pause: no checkpoint has many more than 5,000 pages",
    ),
    "price_of_waiting": Preset(
        {"trigger": "price"},
        "Young, CACM 1974, with waiting output in place of failures",
        "one dial between few pauses and early answers",
    ),
    "remus": Preset(
        {"capture": "copy-then-send"},
        "Remus, NSDI 2008",
        "short pauses with many dirty pages; output waits no less, and a copy takes as much memory "
        "as RAM",
    ),
    "remus_adaptive": Preset(
        {"capture": "copy-then-send", "trigger": "price"},
        "Adaptive Remus, 2016: the interval follows the guest's output",
        "guests that answer in bursts: short intervals while output waits, long ones otherwise",
    ),
    "gap_precopy": Preset(
        {"capture": "gap-precopy"},
        "Derek Su, gap pre-copy for COLO, qemu-devel 2020",
        "short pauses where a part of the dirty pages is written seldom; more bytes, and it loses "
        "where every page is written again soon",
    ),
    "plover": Preset(
        {"output": "compare", "encoding": "divergent"},
        "PLOVER, NSDI 2018",
        "guests that write the same pages: only those that differ cross the link",
    ),
    "cow": Preset(
        {"capture": "copy-on-write"},
        "libckpt, USENIX 1995; VM-µCheckpoint",
        "the shortest pause; the guest's first write to a page that is not copied yet takes longer",
    ),
    "cow2": Preset(
        {"capture": "copy-on-write-2"},
        "Avi Kivity, qemu-devel 2009: two sync points open at once",
        "short checkpoints over a long way: one is cut while another travels; where the link is "
        "full, output waits longer",
    ),
    "multifd": Preset(
        {"transport": "multifd"},
        "QEMU's multifd; in COLO since QEMU 11",
        "many dirty pages, and cores to spare",
    ),
    "multifd_zstd": Preset(
        {"transport": "multifd", "encoding": "zstd"},
        "QEMU's multifd-compression=zstd",
        "pages that compress well, on a link of 1 Gbit/s or less",
    ),
    "memfd": Preset(
        {"transport": "memfd"},
        "ours: the secondary copies from the primary's mapped RAM",
        "the shortest copy of many pages, on one host only",
    ),
    "xbzrle": Preset(
        {"encoding": "xbzrle"},
        "QEMU's docs/xbzrle.txt; Svärd and others, VEE 2011",
        "pages of which little changes, on a link of 10 Gbit/s or less",
    ),
}
