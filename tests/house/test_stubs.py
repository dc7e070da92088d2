"""Every native module that Python code imports has a stub, and stubtest agrees with it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from .sources import NATIVE, ROOT

MODULES = sorted(path.stem for path in NATIVE.glob("*.pyx") if not path.stem.startswith("engine_"))
ALLOWED = ROOT / "tests/house/stubtest_allowlist.txt"


@pytest.mark.parametrize("module", MODULES)
def test_there_is_a_stub(module: str) -> None:
    assert (NATIVE / f"{module}.pyi").exists()


def test_stubs_match_the_modules() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    modules = [f"hvcore._native.{module}" for module in MODULES]
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--allowlist", str(ALLOWED), "--ignore-unused-allowlist", *modules],
        cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
