"""Where the sources are and what kind each file is."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hvcore"
NATIVE = PACKAGE / "_native"

ROOMS = ("base", "decode", "text", "mem", "model", "irq", "dma", "hv", "cpu", "sem")
"""Lowest first. A room may use those before it."""


def room_files() -> list[Path]:
    """Every .pxd of every room."""
    return sorted(path for room in ROOMS for path in (NATIVE / room).glob("*.pxd"))


def module_files() -> list[Path]:
    """The .pyx of every native module, the chapters that it includes, and its .pxd."""
    return sorted(path for path in NATIVE.glob("*.p[yx][xdi]")
                  if path.suffix in (".pyx", ".pxi", ".pxd") and path.stem != "__init__")


def python_files() -> list[Path]:
    """The Python layer: everything above the line."""
    return sorted(path for path in PACKAGE.rglob("*.py") if NATIVE not in path.parents)


def name(path: Path) -> str:
    """How tests call a file: relative to the package."""
    return path.relative_to(PACKAGE).as_posix()
