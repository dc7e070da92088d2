"""The programs of docs/decoder.md run, in order and in one namespace; those that want a package skip without it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hvcore as hv

PAGE = Path(__file__).resolve().parents[2] / "docs/decoder.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"# needs (.*)$", re.MULTILINE)


def missing(program: str) -> str:
    """The first package that it wants and that is not there."""
    for name in (match := NEEDS.search(program)) and match[1].split(", ") or ():
        try:
            importlib.import_module(name)
        except ImportError:
            return name
    return ""


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs(number: int) -> None:
    if name := missing(PROGRAMS[number]):
        pytest.skip(f"{name} is not installed")
    space: dict[str, Any] = {}
    for program in PROGRAMS[: number + 1]:
        if not NEEDS.search(program) or program is PROGRAMS[number]:
            exec(compile(program, str(PAGE), "exec"), space)


def test_frames_share_storage() -> None:
    pandas = pytest.importorskip("pandas")
    table = hv.decode(b"\x90\xc3" * 1000)
    frame = pandas.DataFrame(table.columns, copy=False)
    assert np.shares_memory(frame["offset"].to_numpy(), table.offset)


def test_arrow_shares_storage() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = hv.decode(b"\x90\xc3" * 1000)
    column = pyarrow.table(table)["immediate"].chunk(0)
    assert column.buffers()[1].address == table.immediate.ctypes.data


def test_polars_shares_storage() -> None:
    polars, _ = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    table = hv.decode(b"\x90\xc3" * 1000)
    assert np.shares_memory(polars.DataFrame(table)["immediate"].to_numpy(), table.immediate)


def test_every_column_and_fact_is_on_the_page() -> None:
    text = PAGE.read_text()
    facts = [name for name, value in vars(hv.facts).items() if isinstance(value, np.ndarray)]
    from hvcore.instruction_table import DTYPES

    columns = [name for name in DTYPES if name != "offset64" and not re.fullmatch(r"register[1-3]", name)]
    assert not [name for name in (*facts, *columns) if f"`{name}`" not in text]
