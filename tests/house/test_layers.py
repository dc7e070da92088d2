"""Imports run downward only: Python layer > native modules > rooms, and among the rooms sem > cpu > hv > irq > ...."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .sources import NATIVE, PACKAGE, ROOMS, module_files, name, python_files, room_files

OWN = re.compile(r"^\s*(?:from\s+(hvcore[\w.]*|\.+[\w.]*)\s+c?import|c?import\s+(hvcore[\w.]*))", re.MULTILINE)
IMPORT = re.compile(r"^\s*from\s+hvcore(?!\._native)[\w.]*\s+import|^\s*import\s+hvcore(?!\._native)", re.MULTILINE)
PYTHON_FACES = {
    "decoder", "engine", "exits", "facts", "formatter", "instructions", "iommu", "irqchip", "models", "operands",
    "ports", "space", "sweep", "table_builder", "traces", "translator",
}  # fmt: skip
"""The native modules that the Python layer may import; units of handlers are the engine's own."""
TABLES = {"cli/info.py": {"isa"}}
"""Who may read a table as data."""
LIBRARIES = {"libc", "cpython", "cython"}


def imports(path: Path) -> list[str]:
    """Names under hvcore._native that a native file cimports or imports, relative ones refused."""
    found = []
    for one, other in OWN.findall(path.read_text()):
        assert not (one or other).startswith("."), f"{name(path)}: write imports out in full"
        found.append((one or other).removeprefix("hvcore.").removeprefix("_native."))
    return found


def test_the_rooms_are_all_known() -> None:
    folders = {path.name for path in NATIVE.iterdir() if path.is_dir() and (path / "__init__.pxd").exists()}
    assert folders == {*ROOMS, "isa"}


@pytest.mark.parametrize("path", room_files(), ids=name)
def test_a_room_uses_only_rooms_below(path: Path) -> None:
    own = ROOMS.index(path.parent.name)
    for target in imports(path):
        room = target.split(".")[0]
        assert room in ROOMS, f"{name(path)} reaches up to {target}: rooms never see modules"
        assert ROOMS.index(room) <= own, f"{name(path)} reaches up to {target}"


@pytest.mark.parametrize("path", room_files(), ids=name)
def test_a_room_imports_nothing_else(path: Path) -> None:
    for word in re.findall(r"^\s*(?:from\s+([\w.]+)\s+cimport|cimport\s+([\w.]+))", path.read_text(), re.MULTILINE):
        top = (word[0] or word[1]).split(".")[0]
        assert top in LIBRARIES | {"hvcore"}, f"{name(path)} uses {top}"
    assert not re.search(r"^\s*(from\s+\S+\s+)?import\s", path.read_text(), re.MULTILINE), f"{name(path)}: imports"


def test_rooms_have_no_circles() -> None:
    """Files of one room may use each other, one way."""
    uses = {path.relative_to(NATIVE).with_suffix("").as_posix().replace("/", "."): set(imports(path))
            for path in room_files()}
    done: set[str] = set()

    def visit(file: str, trail: tuple[str, ...]) -> None:
        assert file not in trail, " > ".join([*trail, file])
        if file in done or file not in uses:
            return
        for other in sorted(uses[file]):
            visit(other, (*trail, file))
        done.add(file)

    for file in uses:
        visit(file, ())


@pytest.mark.parametrize("path", [*module_files(), *room_files(), *sorted((NATIVE / "isa").glob("*.py"))], ids=name)
def test_native_code_never_imports_the_python_layer(path: Path) -> None:
    assert not IMPORT.search(path.read_text())


@pytest.mark.parametrize("path", python_files(), ids=name)
def test_python_code_imports_native_modules_only(path: Path) -> None:
    for target in re.findall(r"hvcore\._native\.(\w+)", path.read_text()):
        assert target in PYTHON_FACES | TABLES.get(name(path), set()), f"{name(path)} reaches into {target}"


def test_a_room_and_a_module_never_share_a_name() -> None:
    """The folder would shadow the extension."""
    assert not {path.stem for path in NATIVE.glob("*.pyx")} & {path.name for path in NATIVE.iterdir() if path.is_dir()}


def test_the_package_is_where_it_should_be() -> None:
    assert (PACKAGE / "py.typed").exists()
