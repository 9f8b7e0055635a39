"""The rooms: imports point downwards only, and importing the package brings in nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import colobench

PACKAGE = Path(colobench.__file__).parent
#: From the top downwards; a room may import from those in the lines below its own.
ROOMS = (
    {"ui"},
    {"lab"},
    {"peers"},
    {"processes"},
    {"node"},
    {"protocol"},
    {"net"},
    {"settings"},
    {"strategy"},
    {"guest"},
    {"block"},
    {"wire"},
    {"memory"},
    {"kernels"},
)
#: Within a room that has several, from the top downwards; modules of the room itself are below all.
SUBROOMS = {
    "ui": ({"panels"}, {"views"}, {"base"}),
    "lab": (
        {"course"},
        {"cockpit", "reproductions", "sweep", "miscompares"},
        {"bench", "compare", "studies", "torture", "traces"},
        {"decode"},
        {"report"},
        {"checker", "session"},
        {"clients"},
    ),
}
#: Rooms without I/O, clocks and threads, and the modules that would bring them in.
PURE = {"net", "block", "wire", "protocol", "strategy"}
IMPURE = {
    *("os", "select", "selectors", "socket", "subprocess", "threading", "time"),
    *("colobench.kernels.libc", "colobench.kernels.multifd", "colobench.kernels.socket_io"),
}
#: Modules that are in no room: these import what they like …
ABOVE = {"__init__", "__main__", "cli", "doctor"}
#: … and these may be imported by all, and import from nobody.
BELOW = {"errors", "fields", "text_table"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def height(room: str) -> int:
    return next(-depth for depth, rooms in enumerate(ROOMS) if room in rooms)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_name(path: Path) -> str:
    """Give the name by which a source file is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Find the modules of colobench that a source file imports, in whatever place of it."""
    found = set()
    for module, name in imported_names(path):
        # What is imported from the package itself is a module of it, or belongs to its top.
        found.add(f"{module}.{name}".rstrip(".") if module == "colobench" else module)
    return {name for name in found if name.split(".")[0] == "colobench"}


def imported_names(path: Path) -> set[tuple[str, str]]:
    """Find what a source file imports, in whatever place of it: modules, and names from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {(node.module, alias.name) for alias in node.names}
    return found


def may_import(room: str, module: str) -> bool:
    target = [*module.split("."), "__init__"][1]
    if room in ABOVE or target in BELOW or target == room:
        return True
    if room in BELOW or not any(target in rooms for rooms in ROOMS):
        return False
    return height(target) < height(room)


def subroom_height(room: str, module: str) -> tuple[str, int]:
    """Give the room within a room that a module is in, and how high that is."""
    name = [*module.split("."), "", ""][2]
    rows = SUBROOMS[room]
    return name, next((len(rows) - depth for depth, row in enumerate(rows) if name in row), 0)


@pytest.mark.parametrize("room", SUBROOMS)
def test_imports_within_a_room_point_downwards(room):
    for path in (PACKAGE / room).rglob("*.py"):
        if path == PACKAGE / room / "__init__.py":
            continue
        own, height = subroom_height(room, module_name(path))
        for module in imported(path):
            if module.split(".")[1] == room:
                name, target = subroom_height(room, module)
                assert target < height or name == own or height == target == 0, (path, module)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    wrong = {module for module in imported(path) if not may_import(room_of(path), module)}
    assert not wrong


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if room_of(path) in PURE],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_room_without_io_imports_nothing_that_does_some(path):
    names = imported_names(path)
    assert not {module for module, _ in names} & IMPURE
    assert not {f"{module}.{name}" for module, name in names} & IMPURE


def test_every_module_is_in_a_room_or_has_a_reason_not_to_be():
    known = set().union(*ROOMS) | ABOVE | BELOW
    assert {room_of(path) for path in SOURCES} <= known


@pytest.mark.parametrize(
    ("room", "module", "allowed"),
    [
        ("lab", "colobench.node.options", True),
        ("node", "colobench.lab.session.session", False),
        ("block", "colobench.guest.disk", False),
        ("settings", "colobench.strategy.compatibility", True),
        ("strategy", "colobench.settings.settings", False),
        ("wire", "colobench.wire.format", True),
        ("wire", "colobench.guest.settings", False),
        ("kernels", "colobench.errors", True),
        ("lab", "colobench.cli", False),
        ("lab", "colobench", False),
        ("cli", "colobench.ui", True),
        ("errors", "colobench.kernels", False),
        ("fields", "colobench.errors", True),
        ("node", "colobench.settings.settings", True),
        ("guest", "colobench.settings.settings", False),
    ],
)
def test_the_order_is_the_one_of_the_map(room, module, allowed):
    assert may_import(room, module) is allowed


def test_imports_have_no_circle():
    """Each module's imports, also those in functions, lead back to it by no way."""
    modules = {module_name(path): path for path in SOURCES}
    imports = {name: imported(path) & modules.keys() for name, path in modules.items()}
    # A package's own contents are what its __init__ is for.
    above = {"colobench", *(f"colobench.{name}" for name in ABOVE)}
    below = {name: found - above for name, found in imports.items() if name not in above}
    TopologicalSorter(below).prepare()


def test_importing_the_package_imports_no_heavy_library():
    code = "import colobench, sys; print(*{'numba', 'bokeh'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == []
