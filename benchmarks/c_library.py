"""Compiles a C file that stands beside the benchmarks, with the flags of the package's own modules."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

FLAGS = ("-O2", "-g0", "-fno-ipa-icf", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC")
"""COMPILE of setup.py."""


def load(source: str) -> ctypes.CDLL:
    """The functions of `source`."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "library.so"
        subprocess.run(["gcc", *FLAGS, "-o", library, Path(__file__).parent / source], check=True)
        return ctypes.CDLL(str(library))
