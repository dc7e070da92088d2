"""Test kernels in C, written from the SDM and the chips' data sheets: every check of every one of them holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from freestanding import COMPILER
from kernel_runner import KERNELS, build, run

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no gcc to build the kernels with")


@pytest.mark.parametrize(
    ("name", "processors", "logical"),
    [
        ("apic", 1, 1),
        ("x2apic", 1, 1),
        ("x2apic", 4, 4),
        ("ipi", 4, 4),
        ("smp", 8, 8),
        ("smp", 5, 2),
        ("order", 1, 1),
        ("corners", 2, 2),
        ("hyperv", 4, 4),
        ("timer", 1, 1),
        ("ioapic", 1, 1),
        ("ioapic", 4, 4),
        ("pic", 1, 1),
        ("wires", 1, 1),
        ("pit", 1, 1),
        ("boot", 1, 1),
    ],
)
def test_kernel(tmp_path: Path, name: str, processors: int, logical: int) -> None:
    lines = run(build(KERNELS / f"{name}.c", tmp_path / name), processors, logical)
    assert [line for line in lines if not line.startswith(("ok ", "note "))] == ["end"]
    assert len(lines) > 10
