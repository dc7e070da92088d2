"""The examples run and say what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SAYS = {
    "count_page_walks.py": ["second level of 4 KiB: 40", "second level of 2 MiB: 40"],
    "packets_behind_an_iommu.py": [
        "pages of 4 KiB, IOTLB 16/16: 1.00 misses, 1.00 entries",
        "pages of 4 KiB, IOTLB 64/16: 1.00 misses, 1.00 entries",
        "pages of 4 KiB, IOTLB 512/16: 0.01 misses, 0.01 entries",
        "pages of 2 MiB, IOTLB 16/16: 0.54 misses, 0.54 entries",
        "pages of 2 MiB, IOTLB 64/16: 0.00 misses, 0.00 entries",
        "pages of 2 MiB, IOTLB 512/16: 0.00 misses, 0.00 entries",
    ],
    "trace_a_program.py": [
        "trace: /bin/true as recorded",
        "accesses: 167,424, of them 127,757 instruction fetches",
        "pages of 4 KiB: 77; misses by entries: 16: 1,197, 32: 186, 64: 80",
        "pages of 2 MiB: 6; misses by entries: 16: 6",
        "Skylake: 139 walks, 1.06 references each",
        "nested references: 1,148 with second-level pages of 4 KiB, 861 with 2 MiB",
        "plot: ",
    ],
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line, start in zip(done.stdout.splitlines(), SAYS[name], strict=True):
        assert line.startswith(start), line
