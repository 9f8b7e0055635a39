"""All colours of pages, plots and panels.

Colours that appear together stay apart for readers who do not tell red from green, or blue from
yellow; `tests/unit/lab/test_palette.py` has the least differences. Where they are small, a hatch, a
dash or a shape tells things apart, too.
"""

from __future__ import annotations

PRIMARY_COLOUR = "#3377ee"
SECONDARY_COLOUR = "#eeaa22"
TAKEOVER_COLOUR = "#882233"
#: Axes, legends and lines of plots that must be legible on light and on dark.
NEUTRAL_COLOUR = "#8b95a3"
#: Small print beside text, in a notebook: no single colour is legible on white and on black.
MUTED_COLOUR = "var(--jp-ui-font-color2, inherit)"

#: Sectors of a disk that the secondary's own guest has written.
ACTIVE_COLOUR = "#aabbaa"

#: Nothing happens yet, something is being done, all is well, something is wrong.
IDLE_COLOUR = NEUTRAL_COLOUR
BUSY_COLOUR = "#6644ee"
GOOD_COLOUR = "#00aa44"
BAD_COLOUR = "#aa4466"

#: Background of text as programs print it, on light and on dark; the last digit is opacity.
SHADE_COLOUR = "#8882"
#: Mark of a sentence that says that a page and its kernel are out of touch.
CONTACT_COLOUR = "#bb5500"
#: Pages of a map that are in none of its sets; the last two digits are opacity.
COLD_COLOUR = "#808a9628"
#: Lines and dots of `PHASE_HATCHES`.
HATCH_COLOUR = "#334455"

#: Bars of the bench whose target is met, and the mark of the target itself.
MET_COLOUR = GOOD_COLOUR
TARGET_COLOUR = "#cba135"

#: Phases of a checkpoint. The eight without a hatch stay far apart, the others nearly as far.
PHASE_COLOURS = {
    "request": "#6600ee",
    "stop": "#334477",
    "collect": "#eeaa22",
    "hash": "#888866",
    "copy": "#eeeeaa",
    "ram": "#3377ee",
    "devices": "#882233",
    "received": "#aabbaa",
    "flush": "#bb5500",
    "load": "#77bbdd",
    "resume": "#667777",
    "verify": "#b9c0ca",
}

#: Phases that have a hatch besides their colour, by Bokeh's names. Those of some strategies alone,
#: and the one in which a checkpoint is verified, which is no work of COLO's.
PHASE_HATCHES = {"hash": "dot", "copy": "cross", "verify": "right_diagonal_line"}

#: Things that are compared, in their order, legible on light and on dark. The first four stay
#: farthest apart.
SERIES_COLOURS = (
    "#226644",
    "#cc88aa",
    "#88aa00",
    "#8800ee",
    "#666688",
    "#6688ee",
    "#886600",
    "#888866",
)
#: Dashes of lines and shapes of dots in the same order, by Bokeh's names.
SERIES_DASHES = ("solid", "dashed", "dotted", "dotdash")
SERIES_MARKERS = ("circle", "square", "triangle", "diamond")

#: Custom properties of a page's style sheet, by the colour scheme of the reader's system.
PAGE_COLOURS = {
    "light": {
        "page": "#f6f7f9",
        "card": "#ffffff",
        "ink": "#1c2430",
        "muted": "#5b6675",
        "line": "#e1e5ea",
        "good": "#1f7a44",
        "bad": "#b3261e",
        "open": "#8a6100",
    },
    "dark": {
        "page": "#12161c",
        "card": "#1a2029",
        "ink": "#e4e8ee",
        "muted": "#9aa6b5",
        "line": "#2c3541",
        "good": "#5cc98a",
        "bad": "#ff8a80",
        "open": "#e5b84b",
    },
}
