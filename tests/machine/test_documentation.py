"""The programs of docs/devices.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/devices.md"


def test_the_programs_run() -> None:
    names: dict[str, object] = {}
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(programs) == 5
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), names)
