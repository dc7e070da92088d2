"""The program of docs/iommu.md runs."""

from __future__ import annotations

import re
from pathlib import Path

from hvcore._native.iommu import PRESETS
from hvcore.iommu import FaultReason, geometry

PAGE = Path(__file__).resolve().parents[2] / "docs/iommu.md"


def test_the_program_runs() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(program, str(PAGE), "exec"), {})


def test_presets_and_structures() -> None:
    assert set(PRESETS) == {"full", "qemu-q35"}
    found = geometry(iotlb="64/4", pde=None)
    assert found["pde"] is None and found["iotlb"] is not None and found["iotlb"].sets == 16
    assert FaultReason(0x79) is FaultReason.SECOND_NOT_PRESENT
