"""A room is structs and inline functions: no Python object, no state, no lock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .sources import name, room_files

PYTHON_TYPES = "object|list|dict|str|bytes|bytearray|tuple|set|frozenset|unicode"
PYTHON = re.compile(rf"(?:^[ \t]+(?:cdef )?|[(,] *|cdef (?:inline )?)(?:{PYTHON_TYPES}) +\w+ *[,(=)\n]", re.MULTILINE)
FORBIDDEN = {
    "a class": re.compile(r"\bcdef\s+(?:public\s+|api\s+)*class\b"),
    "a def": re.compile(r"^\s*(?:def|cpdef(?!\s+enum))\s", re.MULTILINE),
    "the GIL": re.compile(r"\bwith\s+gil\b"),
    "a raise": re.compile(r"^\s*(?:raise|try|except)\b", re.MULTILINE),
    "a memoryview": re.compile(r"\[:+1?\]"),
    "state": re.compile(r"^cdef\s+(?!inline|enum|struct|union|extern|packed)[^(\n]*$", re.MULTILINE),
}
HEAD = re.compile(r"^cdef\s+(?!enum|struct|union|extern|packed)[^\n(]*\([^)]*\)[^\n]*$", re.MULTILINE)


def code(path: Path) -> str:
    """The text without comments and docstrings."""
    text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
    return re.sub(r"#[^\n]*", "", text)


@pytest.mark.parametrize("path", room_files(), ids=name)
def test_no_python_objects(path: Path) -> None:
    text = code(path)
    found = [what for what, pattern in FORBIDDEN.items() if pattern.search(text)]
    found += [match.group().strip() for match in PYTHON.finditer(text)]
    assert not found, f"{name(path)} holds {', '.join(found)}"


@pytest.mark.parametrize("path", room_files(), ids=name)
def test_every_function_is_inline_noexcept_nogil(path: Path) -> None:
    for head in HEAD.findall(code(path)):
        flat = " ".join(head.split())
        assert flat.startswith("cdef inline "), f"{name(path)}: not inline: {flat}"
        assert flat.removesuffix(":").endswith("noexcept nogil"), f"{name(path)}: not noexcept nogil: {flat}"


@pytest.mark.parametrize("path", room_files(), ids=name)
def test_extern_functions_are_noexcept_nogil(path: Path) -> None:
    blocks = re.findall(r"^cdef extern ([^\n]*):\n((?:[ \t]+[^\n]*\n|\n)+)", code(path), re.MULTILINE)
    for source, block in blocks:
        wanted = "noexcept" if source.endswith(" nogil") else "noexcept nogil"
        for line in block.splitlines():
            if "(" in line and not line.strip().startswith(("ctypedef", "struct", "enum")):
                assert line.rstrip().endswith(wanted), f"{name(path)}: {line.strip()}"


@pytest.mark.parametrize("path", room_files(), ids=name)
def test_a_room_says_what_it_is(path: Path) -> None:
    if path.stem != "__init__":
        assert path.read_text().startswith('"""'), f"{name(path)} opens without a docstring"
