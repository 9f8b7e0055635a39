"""Picture of all of COLO, an SVG for light and dark pages: its parts, and the order of moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from colobench.lab.report.palette import (
    PAGE_COLOURS,
    PRIMARY_COLOUR,
    SECONDARY_COLOUR,
    TAKEOVER_COLOUR,
)

WIDTH, HEIGHT = 960, 586
TITLE = "COLO: a primary, a secondary, and what moves between them"
#: Steps of a checkpoint and of a failover, by the numbers in the picture.
STEPS = (
    "The guest runs, and writes pages of its RAM. A tracker notes them as dirty.",
    "Its output waits: no client may know what only the primary has.",
    (
        "A checkpoint: the guest stands still; dirty pages go into the secondary's RAM cache, the "
        "device state into a buffer."
    ),
    "All has arrived: VMSTATE_RECEIVED. This is the commit point.",
    "The held output is released to the clients, and the guest runs on.",
    "The secondary flushes its RAM cache into RAM, and loads the device state.",
    (
        "The primary dies. The arbiter grants the secondary, which drops what is not committed, "
        "and takes over."
    ),
)
#: Pages of the small maps that are dirty.
DIRTY = {3, 4, 9, 14, 15, 20}
COLUMNS, ROWS, SQUARE = 8, 3, 15


def draw_colo() -> str:
    """Draw the picture; gives the text of an SVG file."""
    parts = [
        _rectangle(0, 0, WIDTH, HEIGHT, "page", radius=10),
        *_hosts(),
        *_clients(),
        *_arbiter(),
        *_arrows(),
        *_legend(),
    ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title steps">\n'
        f'<title id="title">{TITLE}</title>\n<desc id="steps">{escape(" ".join(STEPS))}</desc>\n'
        f"<style>\n{_style()}\n</style>\n{_markers()}\n{body}\n</svg>\n"
    )


def _style() -> str:
    light, dark = (
        " ".join(
            f".{name} {{ fill: {colours[of]} }}"
            for name, of in (("page", "page"), ("card", "card"), ("ink", "ink"), ("muted", "muted"))
        )
        + f" .line {{ stroke: {colours['muted']} }} .arrow {{ stroke: {colours['ink']} }}"
        + f" .head {{ fill: {colours['ink']} }}"
        for colours in (PAGE_COLOURS["light"], PAGE_COLOURS["dark"])
    )
    return (
        "text { font: 14px sans-serif } .small { font-size: 13px } .title { font-weight: 600 } "
        ".line, .arrow { fill: none; stroke-width: 1.5 } .arrow { stroke-width: 2 } "
        f".primary {{ fill: {PRIMARY_COLOUR} }} .secondary {{ fill: {SECONDARY_COLOUR} }} "
        f".takeover {{ fill: {TAKEOVER_COLOUR} }} "
        f".number {{ fill: {PAGE_COLOURS['light']['card']} }}\n{light}\n"
        f"@media (prefers-color-scheme: dark) {{ {dark} }}"
    )


def _markers() -> str:
    return (
        '<defs><marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path class="head" d="M0 0 10 5 0 10z"/>'
        "</marker></defs>"
    )


def _text(x: float, y: float, text: str, style: str = "ink", anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _rectangle(
    x: float, y: float, width: float, height: float, style: str, radius: float = 6
) -> str:
    return (
        f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'
    )


def _box(x: float, y: float, width: float, height: float, style: str = "card") -> list[str]:
    return [
        _rectangle(x, y, width, height, style),
        _rectangle(x, y, width, height, "line"),
    ]


def _pages(x: float, y: float, marked: Iterable[int], style: str) -> list[str]:
    """Draw a small map of pages, some of them marked; a mark is a colour and a dot."""
    drawn, marked = [], set(marked)
    for page in range(COLUMNS * ROWS):
        left, top = x + page % COLUMNS * SQUARE, y + page // COLUMNS * SQUARE
        if page in marked:
            drawn.append(_rectangle(left, top, SQUARE, SQUARE, style, radius=0))
        drawn.append(_rectangle(left, top, SQUARE, SQUARE, "line", radius=0))
    return drawn


def _hosts() -> list[str]:
    return [
        *_box(250, 40, 250, 300),
        _text(266, 66, "primary", "ink title"),
        _text(266, 94, "guest: runs"),
        *_box(266, 112, 218, 34),
        _text(276, 134, "device state"),
        _text(266, 178, "RAM"),
        *_pages(266, 188, DIRTY, "primary"),
        _text(396, 215, "dirty pages", "muted small"),
        *_box(266, 284, 218, 40),
        _text(276, 309, "output that waits"),
        *_box(690, 40, 250, 300),
        _text(706, 66, "secondary", "ink title"),
        *_box(706, 112, 218, 34),
        _text(716, 134, "buffer: device state"),
        _text(706, 172, "RAM cache"),
        *_pages(706, 182, DIRTY, "secondary"),
        _text(836, 209, "new pages", "muted small"),
        _text(836, 294, "RAM, of the", "muted small"),
        _text(836, 311, "last whole", "muted small"),
        _text(836, 328, "checkpoint", "muted small"),
        *_pages(706, 282, (), "secondary"),
    ]


def _clients() -> list[str]:
    return [
        *_box(20, 270, 120, 66),
        _text(80, 298, "clients", "ink title", "middle"),
        _text(80, 318, "requests", "muted small", "middle"),
    ]


def _arbiter() -> list[str]:
    return [
        *_box(535, 262, 120, 66),
        _text(595, 290, "arbiter", "ink title", "middle"),
        _text(595, 310, "grants one", "muted small", "middle"),
    ]


def _arrow(path: str) -> str:
    return f'<path class="arrow" marker-end="url(#end)" d="{path}"/>'


def _number(x: float, y: float, number: int) -> str:
    style = "takeover" if number == len(STEPS) else "primary"
    return (
        f'<circle class="{style}" cx="{x}" cy="{y}" r="12"/>'
        f'<text class="number title" x="{x}" y="{y + 5}" text-anchor="middle">{number}</text>'
    )


def _arrows() -> list[str]:
    return [
        _number(482, 89, 1),
        _number(462, 304, 2),
        _arrow("M 484 129 H 702"),
        _text(611, 121, "device state", "ink small", "middle"),
        _arrow("M 480 205 H 702"),
        _text(611, 197, "dirty pages", "ink small", "middle"),
        _number(516, 205, 3),
        _number(516, 129, 3),
        _arrow("M 690 72 H 504"),
        _text(611, 62, "VMSTATE_RECEIVED", "ink small", "middle"),
        _number(516, 54, 4),
        _arrow("M 266 304 H 144"),
        _text(200, 292, "released", "ink small", "middle"),
        _number(200, 322, 5),
        _arrow("M 766 231 V 278"),
        _number(786, 254, 6),
        _text(804, 259, "flush", "ink small"),
        _arrow("M 655 295 H 686"),
        _text(670, 352, "take over", "ink small", "middle"),
        _number(670, 322, 7),
    ]


def _legend() -> list[str]:
    drawn, y = [], 384
    for number, step in enumerate(STEPS, 1):
        drawn.append(_number(38, y - 5, number))
        for line in _lines(step):
            drawn.append(_text(62, y, line))
            y += 19
        y += 10
    return drawn


def _lines(text: str, length: int = 130) -> Sequence[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= length:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
