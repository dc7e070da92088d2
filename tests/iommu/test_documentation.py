"""The program of docs/iommu.md runs, and that of docs/models.md about devices."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvcore._native.iommu import PRESETS
from hvcore.iommu import FaultReason, geometry

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("page", "words"), [("iommu.md", "RemappingUnit"), ("models.md", "device.attach")])
def test_the_program_runs(page: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = [one for one in PROGRAM.findall((DOCS / page).read_text()) if words in one]
    exec(compile(program, page, "exec"), {})


def test_presets_and_structures() -> None:
    assert set(PRESETS) == {"full", "qemu-q35"}
    found = geometry(iotlb="64/4", pde=None)
    assert found["pde"] is None and found["iotlb"] is not None and found["iotlb"].sets == 16
    assert FaultReason(0x79) is FaultReason.SECOND_NOT_PRESENT
