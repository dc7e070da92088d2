"""The benchmark workloads: eleven small freestanding C programs, what each stresses and what each must compute.

`build` compiles one to a static ELF64 at 0x400000 that runs in 64-bit mode on a flat mapping with a 64 KiB stack,
SSE2, and 96 MiB of zeroed RAM at 0x10000000, and executes HLT with its checksum in RAX. `native_program` builds
the same source into an ordinary process that times itself, for the benchmarks' native column. The sources are in
the directory `workloads/` beside this file (a module shadows a directory without __init__.py of the same name).
"""
from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "workloads"

ENTRY = 0x400000            # _start: call workload(), HLT
CALLABLE_ENTRY = 0x400010   # jumps to workload(): callable like a function, returns
ARENA = 0x10000000
ARENA_BYTES = 96 << 20
STACK_BYTES = 64 << 10

_CODE_FLAGS = (
    "-O2", "-msse2", "-mcmodel=small", "-fno-pic", "-fno-pie", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fno-tree-loop-distribute-patterns",
)
_GUEST_FLAGS = ("-ffreestanding", "-nostdlib", "-static", "-mno-red-zone")
_GUEST_LINK_FLAGS = (
    "-nostdlib", "-static", "-no-pie", "-Wl,-z,noexecstack,--no-warn-rwx-segments,-T,flat.ld,--build-id=none",
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One program. The checksums are RAX at HLT."""

    name: str
    stresses: str
    checksum: int               # at the source's default size
    checksum_one: int           # built with REPS=1
    size_macro: str | None = "REPS"  # the macro that sets the amount of work; None: there is nothing to set

    @property
    def source(self) -> Path:
        return SOURCES / f"{self.name}.c"


# Checksums were computed natively on an x86-64 host from the same sources; those of movsb, memcpy8 and interp with
# REPS=1 by `native_program` below (the first two sum one byte per round, and the first byte happens to be 0).
# fib ignores REPS: its size is ARG (36), so REPS=1 leaves it as it is; null has no size at all.
WORKLOADS: tuple[Workload, ...] = (
    Workload("null", "start-up", 0x2A, 0x2A, None),
    Workload("sieve", "byte stores and loads in loops", 0x368A78, 0x245C5),
    Workload("sha256", "rotates, xors, register pressure", 0x8E0747A84DDA7CAB, 0xA880E7013987B57B),
    Workload("fib", "calls and returns", 0xE3D1B0, 0xE3D1B0, "ARG"),
    Workload("list", "pointer chasing over 64 MiB: TLB misses", 0x1FFFFE00000, 0x7FFFF80000),
    Workload("movsb", "rep movsb", 0x3E178, 0x0),
    Workload("memcpy8", "8-byte copy loop", 0x175650, 0x0),
    Workload("qsort", "branches, recursion", 0x20042C9F7, 0x80098D68),
    Workload("interp", "bytecode interpreter: indirect jumps", 0x6DE1A1FF7DAF7315, 0x41C47095),
    Workload("matmul", "packed SSE2 double arithmetic", 0x47FF03F8, 0x5FFEAFF),
    Workload("crc32", "table look-ups", 0x4CCFD05B, 0xDC8C9935),
)
BY_NAME: dict[str, Workload] = {workload.name: workload for workload in WORKLOADS}


def _compile(cc: str, *arguments: str | Path) -> None:
    done = subprocess.run([cc, *map(str, arguments)], check=False, cwd=SOURCES, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{cc} failed:\n{done.stderr}")


def _sized(name: str, reps: int | None, arg: int | None) -> tuple[str, list[str]]:
    """The file stem and the compiler flags of a workload in a given size."""
    if arg is not None and BY_NAME[name].size_macro != "ARG":
        raise ValueError(f"{name} takes no ARG")
    stem, flags = name, []
    for macro, value in (("REPS", reps), ("ARG", arg)):
        if value is not None:
            stem += f"-{macro.lower()}{value}"
            flags.append(f"-D{macro}={value}")
    return stem, flags


def build(name: str, out_dir: str | Path, reps: int | None = None, cc: str = "gcc", *,
          arg: int | None = None) -> Path:
    """Compile a workload for the guest; `reps` overrides REPS, `arg` fib's ARG. Returns the ELF's path."""
    out = Path(out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    stem, size = _sized(name, reps, arg)
    obj, elf = out / f"{stem}.o", out / f"{stem}.elf"
    _compile(cc, *_CODE_FLAGS, *_GUEST_FLAGS, *size, "-c", BY_NAME[name].source, "-o", obj)
    _compile(cc, *_GUEST_LINK_FLAGS, "start_flat.S", obj, "-o", elf)
    return elf


def native_program(name: str, out_dir: str | Path, reps: int | None = None, cc: str = "gcc", *,
                   arg: int | None = None) -> Path:
    """Compile a workload as a process of this x86-64 host, to be run with `run_native`."""
    out = Path(out_dir).resolve()
    out.mkdir(parents=True, exist_ok=True)
    stem, size = _sized(name, reps, arg)
    program = out / f"{stem}.native"
    _compile(cc, *_CODE_FLAGS, "-no-pie", "-Wl,-z,noexecstack", *size, BY_NAME[name].source, "native_main.c",
             "-o", program)
    return program


@dataclass(frozen=True, slots=True)
class NativeRun:
    """One timed call of workload() in a native process."""

    checksum: int
    nanoseconds: int


def run_native(program: Path, runs: int = 1) -> list[NativeRun]:
    """Run what `native_program` built, `runs` times in one process, each on a zeroed arena."""
    done = subprocess.run([str(program), str(runs)], capture_output=True, text=True, check=True)
    results = []
    for line in done.stdout.splitlines():
        checksum, nanoseconds = line.split()
        results.append(NativeRun(int(checksum, 16), int(nanoseconds)))
    return results
