"""All settings as fields of a form, with what does not go together refused, and the reason.

Fields, their order, kinds and words follow from the declared settings. What is refused follows from
trying: each choice is put into the settings as they are, whose own checks say no or nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from colobench.errors import LocalError
from colobench.fields.kinds import Choice, Flag, Integer, Kind, Number, Size, Texts, Written
from colobench.fields.part import Setting, settings_of
from colobench.fields.sizes import write_size
from colobench.lab.session.places import check_libraries, check_memory
from colobench.lab.session.record import check_all_are_kept
from colobench.settings.checkpoint import Strategy
from colobench.settings.settings import Settings
from colobench.strategy.presets import PRESETS
from colobench.strategy.written import read_setting

#: Between the texts of a list, as its commas and spaces are parts of texts.
SEPARATOR = ";"
#: A path that the checks of settings take, as they open no file.
_SOME_FILE = "/some/file"

#: Settings without a field: figures are those of all checkpoints.
LEFT_OUT = ("keep_records",)
_SETTINGS = {each.name: each for each in settings_of(Settings) if each.name not in LEFT_OUT}
_AXES = {each.name: each for each in settings_of(Strategy)}


class FieldKind(enum.Enum):
    """Controls of a form."""

    CHOICE = "choice"
    FLAG = "flag"
    NUMBER = "number"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class FormOption:
    """A choice of a field.

    Attributes
    ----------
    text
        Text of the choice; empty for the value that follows from other settings, or for none.
    refused
        Reason why it does not go with the other settings; empty if it does.
    """

    text: str
    refused: str = ""


@dataclass(frozen=True, slots=True)
class FormField:
    """A setting as a field of a form.

    Attributes
    ----------
    name, title, help, unit
        As of the setting; `title` is that of its group.
    kind
        Control that it needs.
    text
        Its value as text; ``on`` or ``off`` of a flag.
    empty
        What an empty text stands for; empty if there is always a text.
    options
        Choices, of a choice all and of a text those that are suggested.
    is_open
        Whether a choice takes other texts, too.
    refused
        Reason why the whole field cannot be changed; empty if it can.
    error
        Error in its text; empty if there is none.
    changed
        Whether it differs from the first choices.
    """

    name: str
    title: str
    help: str
    unit: str
    kind: FieldKind
    text: str
    empty: str = ""
    options: tuple[FormOption, ...] = ()
    is_open: bool = False
    refused: str = ""
    error: str = ""
    changed: bool = False


@dataclass
class SettingsForm:
    """Choices of all settings.

    Parameters
    ----------
    usual
        First choices, with all records kept.

    Attributes
    ----------
    changes
        Values that were chosen and differ from the first choices, by name, as JSON has them. They
        need not go together.
    unread
        Texts that are no value of their setting, by name, each with the error.

    Examples
    --------
    >>> form = SettingsForm()
    >>> form.choose("layout", "buffered")
    >>> [each.refused for each in form.field("transport").options if "memfd" in each.text]
    ['layout buffered: expected transport stream, whose pages fit into the buffer, found memfd']
    """

    usual: Settings = field(default_factory=Settings)
    changes: dict[str, Any] = field(default_factory=dict)
    unread: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_all_are_kept(self.usual)

    def choose(self, name: str, text: str) -> None:
        """Choose the value of a setting by its text; the empty text is none, or the derived value.

        A text that cannot be read is kept with its error.

        Raises
        ------
        LocalError
            If no field has this name.
        """
        if name not in _SETTINGS:
            raise LocalError(f"settings: expected the name of one, found {name!r}")
        setting = _SETTINGS[name]
        self.unread.pop(name, None)
        try:
            value = _read(setting, text)
            if value is not None:
                setting.kind.check(name, value)
        except LocalError as error:
            self.unread[name] = text, str(error)
            return
        usual = self.usual.as_json()[name]
        if value == (None if setting.derived and self._derives(name, {}) else usual):
            self.changes.pop(name, None)
        else:
            self.changes[name] = value

    def choose_preset(self, name: str) -> None:
        """Choose all axes of a named strategy, one of `PRESETS`."""
        for axis in _AXES:
            self.unread.pop(axis, None)
            self.changes.pop(axis, None)
        for axis, text in PRESETS[name].axes.items():
            self.changes[axis] = read_setting(_AXES[axis], text)

    def preset(self) -> str:
        """Name the preset that is chosen; empty if it is none."""
        axes = {name: value for name, value in self.changes.items() if name in _AXES}
        for name, preset in PRESETS.items():
            if axes == {axis: read_setting(_AXES[axis], t) for axis, t in preset.axes.items()}:
                return name
        return ""

    def reset(self) -> None:
        """Go back to the first choices."""
        self.changes.clear()
        self.unread.clear()

    @property
    def error(self) -> str:
        """Why no session can have the present choices; empty if one can."""
        for _, error in self.unread.values():
            return error
        return _refusal(self.usual, self.changes, whole=True)

    def settings(self) -> Settings:
        """Give the settings that are chosen.

        Raises
        ------
        LocalError
            If they do not go together.
        """
        if error := self.error:
            raise LocalError(error)
        return self.usual.override_by(self.changes)

    def fields(self) -> list[FormField]:
        """Give a field for each setting, group by group, with what is refused at present."""
        present = _refusal(self.usual, self.changes)
        known = self.usual if present else self.usual.override_by(self.changes)
        values = known.as_json() | (self.changes if present else {})
        return [self._field(each, values, present) for each in _SETTINGS.values()]

    def field(self, name: str) -> FormField:
        """Give the field of a setting."""
        return next(each for each in self.fields() if each.name == name)

    def _field(self, setting: Setting, values: dict[str, Any], present: str) -> FormField:
        kind, name = _control(setting.kind), setting.name
        text, error = self.unread.get(name, ("", ""))
        if not error:
            derives = setting.derived and not present and self._derives(name, self.changes)
            text = "" if derives else _write(values[name])
            error = present if present.partition(":")[0] == name else ""
        options = tuple(self._options(setting, values, present))
        refused = self._refused(setting, values, options, present) if not error else ""
        return FormField(
            name=name,
            title=setting.title,
            help=_words(setting),
            unit=getattr(setting.kind, "unit", ""),
            kind=kind,
            text=text,
            empty=_empty(setting, values[name]),
            options=options,
            is_open=isinstance(setting.kind, Written) and not setting.kind.closed,
            refused=refused,
            error=error,
            changed=name in self.changes or name in self.unread,
        )

    def _derives(self, name: str, changes: dict[str, Any]) -> bool:
        """Say whether the value of a derived setting is the one that follows from the others."""
        try:
            derived = self.usual.override_by({**changes, name: None})
            found = self.usual.override_by(changes)
        except LocalError:
            return False
        return bool(derived.as_json()[name] == found.as_json()[name])

    def _options(
        self, setting: Setting, values: dict[str, Any], present: str
    ) -> Iterator[FormOption]:
        kind = setting.kind
        if isinstance(kind, Choice):
            texts = tuple(kind.choices)
        elif isinstance(kind, Written | Texts):
            texts = kind.known
        else:
            return
        for text in texts:
            yield FormOption(text, self._reason(setting, [text], values, present))

    def _refused(
        self,
        setting: Setting,
        values: dict[str, Any],
        options: tuple[FormOption, ...],
        present: str,
    ) -> str:
        """Say why nothing else than the present value can be chosen, unless something can."""
        if setting.name in self.changes:
            return ""
        if options:
            others = [each for each in options if each.text != _write(values[setting.name])]
            reasons = [each.refused for each in others]
            return reasons[0] if reasons and all(reasons) else ""
        samples = list(_samples(setting, values[setting.name]))
        # A value that was only tried is nothing that anybody has written.
        return self._reason(setting, samples, values, present).removesuffix(
            f", found {samples[0] if samples else ''}"
        )

    def _reason(
        self, setting: Setting, samples: list[Any], values: dict[str, Any], present: str
    ) -> str:
        """Say why none of some values goes with the other settings; empty if one does."""
        reason = ""
        for sample in samples:
            found = _refusal(self.usual, self.changes | {setting.name: sample})
            # What is wrong already, or only lacks a text of another field, is not this one's fault.
            if not found or found == present or _lacks_text(found, setting, values):
                return ""
            reason = reason or found
        return reason


def _refusal(usual: Settings, changes: dict[str, Any], *, whole: bool = False) -> str:
    """Give the error that these changes cause; `whole` checks this machine, too."""
    try:
        found = usual.override_by(changes)
        if whole:
            check_memory(found)
        check_libraries(found)
    except LocalError as error:
        return str(error)
    return ""


def _lacks_text(refusal: str, setting: Setting, values: dict[str, Any]) -> bool:
    """Say whether an error is that of another setting, a text that nobody has written yet."""
    named = refusal.partition(":")[0]
    is_text = named in _SETTINGS and _control(_SETTINGS[named].kind) is FieldKind.TEXT
    return is_text and named != setting.name and not values[named]


def _samples(setting: Setting, value: Any) -> Iterator[Any]:
    """Give some other values, of which at least one goes with others if any value does."""
    kind = setting.kind
    if isinstance(kind, Flag):
        yield not value
    elif isinstance(kind, Integer | Number):
        near = [kind.low, kind.low + 1, kind.high]
        if value is not None:
            near = [each for each in (value + 1, value - 1) if kind.low <= each <= kind.high] + near
        yield from (each for each in near if each != value)
    elif kind.metavar in ("FILE", "DIR"):
        yield _SOME_FILE


def _control(kind: Kind) -> FieldKind:
    if isinstance(kind, Flag):
        return FieldKind.FLAG
    if isinstance(kind, Choice) or (isinstance(kind, Written) and kind.known):
        return FieldKind.CHOICE
    if isinstance(kind, Integer | Number):
        return FieldKind.NUMBER
    return FieldKind.TEXT


def _read(setting: Setting, text: str) -> Any:
    """Read a field's text; gives a value of JSON."""
    text = text.strip()
    if isinstance(setting.kind, Flag):
        return text == "on"
    if isinstance(setting.kind, Texts):
        parts = (each.strip() for each in text.split(SEPARATOR))
        return [setting.kind.from_text(each) for each in parts if each]
    if not text and (setting.or_none or setting.derived):
        return None
    try:
        value = setting.kind.from_text(text)
    except LocalError as error:
        raise LocalError(f"{setting.name}: {error}") from error
    checked = setting.kind.check(setting.name, value)
    return None if checked is None else setting.kind.to_json(checked)


def _write(value: Any) -> str:
    """Write a value of JSON for a field."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return f"{SEPARATOR} ".join(map(str, value))
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return "" if value is None else str(value)


def _empty(setting: Setting, value: Any) -> str:
    if setting.derived:
        return f"by itself: {_write(value)}" if value is not None else "by itself"
    return "none" if setting.or_none or isinstance(setting.kind, Texts) else ""


def _words(setting: Setting) -> str:
    """Write help, the range and QEMU's name as sentences."""
    kind, words = setting.kind, f"{setting.help[0].upper()}{setting.help[1:]}."
    if isinstance(kind, Integer | Number):
        unit = f" {kind.unit}" if kind.unit else ""
        words += f" From {kind.low:,} to {kind.high:,}{unit}."
    elif isinstance(kind, Size):
        words += f" From {write_size(kind.low)} to {write_size(kind.high)}."
    elif isinstance(kind, Texts):
        words += f" Several are parted by “{SEPARATOR}”."
    return f"{words} QEMU: {setting.qemu}." if setting.qemu else words
