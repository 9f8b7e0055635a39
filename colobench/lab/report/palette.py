"""All colours of pages, plots and panels."""

from __future__ import annotations

PRIMARY_COLOUR = "#3377ee"
SECONDARY_COLOUR = "#eeaa22"
TAKEOVER_COLOUR = "#882233"
#: Axes, legends and lines of plots that must be legible on light and on dark.
NEUTRAL_COLOUR = "#8b95a3"
#: Small print beside text.
MUTED_COLOUR = "#6b7684"

#: Nothing happens yet, something is being done, all is well, something is wrong.
IDLE_COLOUR = NEUTRAL_COLOUR
BUSY_COLOUR = "#4a86d8"
GOOD_COLOUR = "#62a964"
BAD_COLOUR = "#d4606a"

#: Background of text as programs print it, on light and on dark; the last digit is opacity.
SHADE_COLOUR = "#8882"
#: Mark of a sentence that says that a page and its kernel are out of touch.
CONTACT_COLOUR = "#bb5500"
#: Pages of a map that are in none of its sets; the last two digits are opacity.
COLD_COLOUR = "#808a9628"
#: Lines over the phase in which a checkpoint is verified, which is no work of COLO's.
HATCH_COLOUR = "#334455"

#: Bars of the bench whose target is met, and the mark of the target itself.
MET_COLOUR = "#3fa7a0"
TARGET_COLOUR = "#cba135"

#: Phases of a checkpoint. Neighbours in a stack differ enough for every kind of colour blindness.
PHASE_COLOURS = {
    "request": "#a3adba",
    "stop": "#334477",
    "collect": "#eeaa22",
    "copy": "#55aa77",
    "ram": "#3377ee",
    "devices": "#882233",
    "received": "#aabbaa",
    "flush": "#bb5500",
    "load": "#77bbdd",
    "resume": "#667777",
    "verify": "#b9c0ca",
}

#: Things that are compared, in their order, legible on light and on dark (P. Tol, "Colour Schemes",
#: SRON technical note 2021, bright and muted; the darkest are left out).
SERIES_COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#999933",
    "#cc8899",
)

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
