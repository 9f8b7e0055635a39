"""Values of settings, drawn by what their fields say, and as arguments of a command line."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from colobench.errors import LocalError
from colobench.fields.kinds import Choice, File, Flag, Integer, Kind, Number, Size, Texts, Written
from colobench.fields.part import Part, Setting, settings_of
from colobench.settings.compare import Quirk
from colobench.settings.settings import Settings

#: Texts of the settings whose kinds do not list them.
TEXTS = {
    "transport": [
        *("stream+unix", "stream+tcp", "multifd+unix", "multifd+tcp", "memfd+unix"),
        *("stream", "multifd", "memfd", "unix", "tcp"),
    ],
    "link": ["local", "1GbE", "wan20ms", "rate=300M,delay=2ms,jitter=1ms"],
    "trigger": [
        *("fixed:ms=7", "fixed:ms=none", "miscompare:maximum=50", "hybrid:passive_count=3"),
        *("degradation:target=0.25,minimum=5", "output:maximum=9", "dirty", "price:waiting=2.5"),
    ],
    "hostfwd": ["tcp:127.0.0.1:0-:6379", "tcp::0-:7", "tcp:127.0.0.1:7001-10.0.2.15:6379"],
    "disks": [
        *("/somewhere/a", "/somewhere/b,size=64M", "/somewhere/c,size=4K,replica=/else/c"),
        "/somewhere/d,, and %e'.img,size=1G",
    ],
    "quirks": list(Quirk),
    "trace_sha256": ["0" * 64, "0123456789abcdef" * 4],
}
#: Settings under which one or the other makes sense.
BASES = (
    Settings(),
    Settings().override(
        output="compare", hostfwd="tcp:127.0.0.1:0-:6379", heartbeat_limit=1000, guest="kv"
    ),
    Settings().override(transport="multifd"),
    Settings().override(transport="memfd", experiment=True),
    Settings().override(guest="replay", trace="/somewhere/trace.npz"),
    Settings().override(guest="sectors", disks="/somewhere/a,size=64M"),
    Settings().override(guest="kv", disks="/somewhere/a,size=64M"),
)


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    """Give values that the setting's kind takes, as JSON has them."""
    found = _values(setting.name, setting.kind)
    return st.none() | found if setting.or_none else found


def _values(name: str, kind: Kind) -> st.SearchStrategy[Any]:
    if isinstance(kind, Size):
        return st.integers(1, 2**20).map(lambda pages: min(kind.high, max(kind.low, pages << 12)))
    if isinstance(kind, Integer):
        return st.integers(kind.low, kind.high)
    if isinstance(kind, Number):
        return st.floats(kind.low, kind.high)
    if isinstance(kind, Flag):
        return st.booleans()
    if isinstance(kind, Choice):
        return st.sampled_from(list(kind.choices))
    if isinstance(kind, File):
        return st.text("abc .-=%é'\"", min_size=1).map(lambda text: f"/somewhere/{text}x")
    if isinstance(kind, Texts):
        return st.lists(st.sampled_from(TEXTS[name]), max_size=3)
    assert isinstance(kind, Written)
    return st.sampled_from(TEXTS[name])


@st.composite
def settings_values(draw: st.DrawFn, usual: Part = BASES[0]) -> Any:
    """Draw settings in which any value of any setting may be, as far as they go together."""
    every = draw(st.permutations(list(settings_of(type(usual)))))
    found = draw(st.sampled_from(BASES)) if type(usual) is Settings else usual
    for setting in every[: draw(st.integers(0, len(every)))]:
        try:
            found = found.override(**{setting.name: draw(values_of(setting))})
        except LocalError:
            # It does not go with the others.
            continue
    return found


def arguments_of(settings: Part, usual: Part) -> list[str]:
    """Give the command line that asks for settings where others are usual."""
    wanted, there = settings.as_json(), usual.as_json()
    arguments = []
    for each in settings_of(type(settings)):
        value = wanted[each.name]
        # What is derived follows others, unless it is given.
        if value == there[each.name] and not each.derived:
            continue
        if isinstance(each.kind, Flag):
            arguments.append(each.option if value else f"--no-{each.option[2:]}")
        elif isinstance(each.kind, Texts):
            arguments += [f"{each.option}={text}" for text in value or ["none"]]
        else:
            arguments.append(f"{each.option}={'none' if value is None else value}")
    return arguments
