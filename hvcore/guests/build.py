"""Assemble and link the root guest: `python -m hvcore.guests.build` writes root.elf next to this file.

The image is reduced to what a loader reads (ELF header, program headers, segment bytes), so that the same sources
give the same bytes whatever the linker adds in the way of section names, notes and build ids.
`python -m hvcore.guests.build --check` compares with the committed image instead of writing it.
"""
from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGE = HERE / "root.elf"

_PREFIXES = ("", "x86_64-linux-gnu-", "x86_64-pc-linux-gnu-", "x86_64-elf-")
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_LOAD = 1


class ToolsMissing(RuntimeError):
    """No assembler and linker for x86-64 on this machine."""


def find_tools() -> tuple[str, str]:
    """The first `as` and `ld` of one prefix that both know x86-64 (a native `as` on another host does not)."""
    for prefix in _PREFIXES:
        assembler, linker = shutil.which(prefix + "as"), shutil.which(prefix + "ld")
        if assembler is None or linker is None:
            continue
        knows_64 = subprocess.run([assembler, "--64", "--version"], check=False, capture_output=True).returncode == 0
        emulations = subprocess.run([linker, "-V"], check=False, capture_output=True, text=True).stdout
        if knows_64 and "elf_x86_64" in emulations:
            return assembler, linker
    raise ToolsMissing("need GNU as and ld for x86-64 (binutils)")


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], check=False, cwd=HERE, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{Path(str(command[0])).name} failed:\n{done.stderr}")


def canonical(elf: bytes) -> bytes:
    """`elf` without section headers and everything behind the last loaded byte."""
    fields = list(_ELF_HEADER.unpack_from(elf))
    program_offset, program_count = fields[5], fields[10]
    end = program_offset + program_count * _PROGRAM_HEADER.size
    for index in range(program_count):
        kind, _, offset, _, _, size, _, _ = _PROGRAM_HEADER.unpack_from(
            elf, program_offset + index * _PROGRAM_HEADER.size)
        if kind == _PT_LOAD:
            end = max(end, offset + size)
    fields[6] = fields[11] = fields[12] = fields[13] = 0  # section header offset, entry size, count, name index
    return _ELF_HEADER.pack(*fields) + elf[_ELF_HEADER.size:end]


def build() -> bytes:
    """The bytes of the root guest's ELF image, made from root.S."""
    assembler, linker = find_tools()
    with tempfile.TemporaryDirectory() as scratch:
        obj, elf = Path(scratch, "root.o"), Path(scratch, "root.elf")
        _run(assembler, "--64", "-I", ".", "-o", obj, "root.S")
        _run(linker, "-T", "root.ld", "-nostdlib", "-static", "--build-id=none", "-s",
             "-z", "noexecstack", "-z", "max-page-size=4096", "-o", elf, obj)
        return canonical(elf.read_bytes())


def main(arguments: list[str]) -> int:
    image = build()
    if arguments == ["--check"]:
        same = IMAGE.exists() and IMAGE.read_bytes() == image
        print(f"{IMAGE.name}: {'matches its sources' if same else 'differs from its sources'}")
        return 0 if same else 1
    IMAGE.write_bytes(image)
    print(f"{IMAGE}: {len(image)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
