"""Parts: frozen dataclasses of settings, each of which is declared once, as a field of its part.

A setting has one name: the keyword in Python, the key in JSON and the option of the command line
(``--writes-per-tick`` for ``writes_per_tick``) are the same. Names are those of the fields, unless
a field says otherwise, and no two settings of a whole have the same one.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from colobench.errors import LocalError
from colobench.fields.checks import check_type, show
from colobench.fields.kinds import Kind

_SETTING, _PART = "setting", "part"


@dataclass(frozen=True, slots=True)
class Setting:
    """Description of a setting.

    Attributes
    ----------
    name
        Name that users write.
    kind
        Kind of its values.
    help
        Description, without a verb in front and a full stop at the end.
    default
        Default value; None for a derived setting.
    derived
        Whether None stands for a value that follows from other settings of the same part, see
        `Part.complete`.
    option
        Option of the command line.
    qemu
        QEMU's name, or "".
    title
        Title of its part, the heading under which help lists it.
    or_none
        Whether it may be None, because of its kind or because its part may be None.
    agreed
        Whether both nodes of a pair must have the same value.
    """

    name: str
    kind: Kind
    help: str
    default: Any
    derived: bool
    option: str
    qemu: str
    title: str
    or_none: bool
    agreed: bool


def setting(
    kind: Kind,
    default: Any,
    help: str,
    *,
    name: str = "",
    option: str = "",
    qemu: str = "",
    derived: bool = False,
    agreed: bool = False,
) -> Any:
    """Declare a setting, as a field of a `Part`; see `Setting` for the parameters."""
    metadata = {"kind": kind, "help": help, "name": name, "option": option}
    metadata |= {"qemu": qemu, "derived": derived, "agreed": agreed}
    return dataclasses.field(default=default, metadata={_SETTING: metadata})


def part(
    kind: type[Part],
    *,
    default: Part | None = None,
    optional: bool = False,
    by_name: bool = False,
) -> Any:
    """Declare a part of a `Part`.

    Parameters
    ----------
    kind
        Type of the part.
    default
        Default part; None is a part with all defaults.
    optional
        Whether the part may be None, which is the default then.
    by_name
        Whether users may give the whole part, by the field's name.
    """
    metadata = {_PART: (kind, optional, by_name)}
    if default is None and not optional:
        default = kind()
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Part:
    """Base class of parts of settings, which are frozen dataclasses, too.

    Attributes
    ----------
    title
        Heading of the settings of the part.
    """

    title: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field, found in _own(type(self)):
            value = getattr(self, field.name)
            if not (value is None and found.derived):
                object.__setattr__(self, field.name, found.kind.check(found.name, value))
        for field, kind, optional, _ in _parts(type(self)):
            value = getattr(self, field.name)
            if not (value is None and optional):
                check_type(field.name, value, kind)
        self.complete()

    def complete(self) -> None:
        """Set derived settings, and check combinations; each setting by itself has been checked.

        Raises
        ------
        LocalError
            If settings cannot be combined.
        """

    def derive(self, name: str, value: Any) -> None:
        """Set a derived setting, unless it was given."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def values(self) -> dict[str, Any]:
        """Return all settings by their names, including those of parts."""
        found = {each.name: getattr(self, field.name) for field, each in _own(type(self))}
        for field, kind, _, _ in _parts(type(self)):
            of_part = getattr(self, field.name)
            names = [each.name for each in settings_of(kind)]
            found |= dict.fromkeys(names) if of_part is None else of_part.values()
        return {each.name: found[each.name] for each in settings_of(type(self))}

    def as_json(self) -> dict[str, Any]:
        """Return all settings by their names, in JSON's form; `from_json` is the inverse."""
        values = self.values()
        return {
            each.name: None if values[each.name] is None else each.kind.to_json(values[each.name])
            for each in settings_of(type(self))
        }

    def agreed(self) -> dict[str, Any]:
        """Return the settings on which both nodes must agree, by their names, in JSON's form.

        Empty lists are left out.
        """
        values = self.values()
        found = {
            each.name: None if values[each.name] is None else each.kind.to_agree(values[each.name])
            for each in settings_of(type(self))
            if each.agreed
        }
        return {name: value for name, value in found.items() if value != []}

    @classmethod
    def from_json(cls, found: object) -> Self:
        """Make settings from a JSON object; settings that it does not name have their defaults.

        Raises
        ------
        LocalError
            If it is not an object, has an unknown name, or has a value that a check refuses.
        """
        return cls().override_by(found)

    def override_by(self, found: object) -> Self:
        """Return a copy with the changes of a JSON object; see `override`."""
        if not isinstance(found, dict):
            raise LocalError(f"settings: expected a JSON object, found {show(found)}")
        check_names(type(self), found)
        return self._changed(found)

    def override(self, **changes: Any) -> Self:
        """Return a copy with these changes.

        Derived settings that were not given are derived anew.

        Parameters
        ----------
        changes
            Values by the names of settings, or of parts that may be given whole.

        Raises
        ------
        LocalError
            If a name is unknown, or a check refuses a value.
        """
        check_names(type(self), changes)
        return self._changed(changes)

    def _changed(self, changes: Mapping[str, Any]) -> Self:
        new: dict[str, Any] = {
            field.name: changes[found.name]
            for field, found in _own(type(self))
            if found.name in changes
        }
        new |= {name: None for name in self._derived_by_itself() if name not in new}
        for field, kind, optional, by_name in _parts(type(self)):
            value = getattr(self, field.name)
            if by_name and field.name in changes:
                value = changes[field.name]
                if not (value is None and optional):
                    check_type(field.name, value, kind)
            known = {each.name: each for each in settings_of(kind)}
            names = [*known, *names_of_parts(kind)]
            inner = {name: changes[name] for name in names if name in changes}
            if optional and inner and not any(map(_is_there, inner.values())):
                # None for a setting that cannot be None means that its optional part is left out.
                if not all(known[name].derived for name in inner):
                    value = None
                inner = {} if value is None else inner
            if inner:
                value = (kind() if value is None else value)._changed(inner)
            new[field.name] = value
        return dataclasses.replace(self, **new)

    def _derived_by_itself(self) -> list[str]:
        """Name the derived fields that have the value that follows from the others."""
        derived = [field.name for field, found in _own(type(self)) if found.derived]
        if not derived:
            return []
        try:
            anew = dataclasses.replace(self, **dict.fromkeys(derived))
        except LocalError:
            # One that was given has a value that the others need.
            return [name for name in derived if self._derives(name)]
        return [name for name in derived if getattr(anew, name) == getattr(self, name)]

    def _derives(self, name: str) -> bool:
        """Say whether a derived field has the value that follows from all others."""
        try:
            anew = dataclasses.replace(self, **{name: None})
        except LocalError:
            return False
        return bool(getattr(anew, name) == getattr(self, name))


def settings_of(kind: type[Part]) -> Iterator[Setting]:
    """Return the settings of a part and of its parts, in the order of their fields."""
    parts = {field.name: (inner, optional) for field, inner, optional, _ in _parts(kind)}
    own = {field.name: found for field, found in _own(kind)}
    for field in dataclasses.fields(kind):
        if field.name in own:
            yield own[field.name]
        elif field.name in parts:
            inner, optional = parts[field.name]
            for each in settings_of(inner):
                yield dataclasses.replace(each, or_none=True) if optional else each


def _is_there(value: object) -> bool:
    return value is not None


def check_names(kind: type[Part], names: Mapping[str, object]) -> None:
    """Raise LocalError for a name that no setting has."""
    known = [each.name for each in settings_of(kind)] + list(names_of_parts(kind))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
            raise LocalError(
                f"settings: expected the name of one, such as {', '.join(near)}, found {show(name)}"
            )


def _own(kind: type[Part]) -> Iterator[tuple[dataclasses.Field[Any], Setting]]:
    """Return the fields of a part that are settings."""
    for field in dataclasses.fields(kind):
        if _SETTING in field.metadata:
            of = dict(field.metadata[_SETTING])
            name = of.pop("name") or field.name
            option = of.pop("option") or f"--{name.replace('_', '-')}"
            yield (
                field,
                Setting(
                    name=name,
                    option=option,
                    default=field.default,
                    title=kind.title,
                    or_none=of["kind"].or_none,
                    **of,
                ),
            )


def _parts(kind: type[Part]) -> Iterator[tuple[dataclasses.Field[Any], type[Part], bool, bool]]:
    """Return the fields of a part that are parts: their types, and the flags of `part`."""
    for field in dataclasses.fields(kind):
        if _PART in field.metadata:
            yield field, *field.metadata[_PART]


def names_of_parts(kind: type[Part]) -> Iterator[str]:
    """Return the names of the parts that may be given whole."""
    for field, inner, _, by_name in _parts(kind):
        if by_name:
            yield field.name
        yield from names_of_parts(inner)
