"""Numbers that isa/*.py writes and decode/spec.pxd names are the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvcore._native.isa import features, forms, native, nodes

SPEC = (Path(native.__file__).parent.parent / "decode/spec.pxd").read_text()


def members(enum: str) -> dict[str, int]:
    """Names and values of an enum of spec.pxd, without the prefix of the names."""
    body = re.search(rf"^cdef enum {enum}:.*\n((?:    .*\n|\n(?=    ))+)", SPEC, re.MULTILINE)
    assert body is not None, enum
    found, following = {}, 0
    for name, value in re.findall(r"^    [A-Z0-9]+?_(\w+)(?: = (\w+))?", body[1], re.MULTILINE):
        found[name] = int(value, 0) if value else following
        following = found[name] + 1
    return found


@pytest.mark.parametrize(("enum", "names"), [
    ("FormFlag", {name: 1 << i for i, name in enumerate(native.FLAGS)}),
    ("FormCheck", {name: 1 << i for i, name in enumerate(native.CHECKS)}),
    ("Place", {name: i for i, name in enumerate(native.PLACES)}),
    ("Lead", {name: i for i, name in enumerate(native.LEADS)}),
    ("Flow", {name: i for i, name in enumerate(features.FLOWS)}),
])  # fmt: skip
def test_enumerators(enum: str, names: dict[str, int]) -> None:
    assert members(enum) == {name.upper(): value for name, value in names.items()}


def test_key() -> None:
    first = dict(zip(forms.FIELDS, nodes.FIRST, strict=True))
    assert members("KeyField") == {
        "MODRM": first["rm"], "PP": first["pp"], "L": first["L"], "W": first["W66"], "66": first["W66"] + 1,
        "ADDRESS": first["address"], "B": first["B"], "EVEX_B": first["b"],
        **{name: first[name] for name in ("ND", "NF", "SCC")},
    }  # fmt: skip


def test_entries() -> None:
    assert members("Entry") == {"BASE": nodes.FORM, "SHIFT": nodes.SHIFT, "WIDTH": nodes.WIDTH, "MODRM": nodes.MODRM,
                                "NODE": nodes.NODE}  # fmt: skip
