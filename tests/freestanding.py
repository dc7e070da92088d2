"""Builds the kernels and drivers in C of the tests: freestanding code for 64-bit mode, without a library."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

INCLUDES = Path(__file__).parent
"""Where instructions.h is."""
COMPILER = shutil.which("gcc")
OPTIONS = (
    "-O2 -ffreestanding -nostdlib -static -fno-pic -no-pie -mno-red-zone -mgeneral-regs-only -fno-stack-protector"
    " -fcf-protection=none -fno-asynchronous-unwind-tables -fno-strict-aliasing -Wall -Wextra -Werror"
    " -Wl,--build-id=none -Wl,-z,noseparate-code,-z,noexecstack"
).split()


def build(sources: Sequence[Path], output: Path, *, text: int, options: Sequence[str] = ()) -> bytes:
    """Compile and link; the first source has the first byte, which goes to address `text`. The file as bytes."""
    flags = [*OPTIONS, f"-I{INCLUDES}", f"-Wl,-Ttext={text:#x}", *options]
    subprocess.run([str(COMPILER), *flags, *map(str, sources), "-o", str(output)], check=True)
    return output.read_bytes()
