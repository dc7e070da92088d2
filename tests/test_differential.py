"""hvcore against the host's own processor: random instructions, everything that they change compared.

Registers, flags (undefined ones left out by the table), MXCSR, XMM, memory, faults with vector, error code and CR2.
`python tests/oracles/fuzz.py` runs the same for longer.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from oracles import native

_AVAILABLE, _REASON = native.available()
pytestmark = pytest.mark.skipif(not _AVAILABLE, reason=_REASON)

SEED = 2025
CASES_PER_BATCH = 8000
BATCHES = 4

LEFT_OUT = {
    "a far transfer or a door to the kernel": {
        "call", "jmp", "retf", "iret", "iretd", "iretq", "syscall", "sysret", "sysretq", "vmcall", "vmmcall", "vmgexit",
    },
    "port I/O": {
        "in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd",
    },
    "kernel entry or segment load": {"pop"},  # of FS and GS
    "loads a segment register": {"mov"},
    "answers from the host's descriptor tables": {"lar", "lsl", "verr", "verw"},
    "stores x87 state, and an MXCSR mask that has bit 17 on AMD": {"fxsave", "fxsave64"},
    "512 bytes of which half would be random: reserved bits of MXCSR": {"fxrstor", "fxrstor64"},
    "an approximation: each maker has tables of its own": {"rcpps", "rcpss", "rsqrtps", "rsqrtss"},
    "must not run on the host or has no repeatable answer": {
        "int", "int1", "hlt", "vmcall", "vmmcall", "swapgs", "cpuid", "rdtsc", "rdtscp", "sldt", "str", "sgdt", "sidt",
        "smsw", "lss", "lfs", "lgs",
    },
    "no prefetch: Intel's reserved no-op, which AMD calls invalid": {"reservednop"},
}  # fmt: skip
"""Rows that the host cannot confirm: the reason, and the mnemonics it may take out. Anything else must be covered."""


@pytest.fixture(scope="module")
def processors() -> Iterator[tuple[native.NativeProcessor, object]]:
    from oracles.emulated import EmulatedProcessor

    with native.NativeProcessor(capacity=CASES_PER_BATCH) as running:
        yield running, EmulatedProcessor()


@pytest.mark.parametrize("number", range(BATCHES))
def test_random_instructions(number: int, processors: tuple[native.NativeProcessor, object]) -> None:
    from oracles.cases import generate
    from oracles.host_choices import settle
    from oracles.templates import sort_rows

    templates = [template for _, template in sort_rows()[0]]
    batch = generate(templates, CASES_PER_BATCH, SEED + number)
    print(f"seed {SEED + number}: {len(batch.cases)} cases of {len(templates)} rows")
    left, right = (processor.run(batch.cases) for processor in processors)  # type: ignore[attr-defined]
    settled = settle(batch, left, right)
    print(f"{settled} cases left to the maker's choice")
    assert settled < CASES_PER_BATCH // 1000
    assert len({id(encoding.template) for encoding in batch.encodings}) == len(templates), "a row has no case"
    differences = native.compare(left, right, batch.undefined_flags)
    texts = [f"{batch.describe(int(text.split()[1].rstrip(':')))}\n  {text}" for text in differences[:10]]
    assert not differences, f"{len(differences)} differences\n" + "\n".join(texts)
    outcomes = left["status"]  # both outcomes must occur, or the cases are poor
    assert (outcomes == native.STATUS_STOPPED).sum() > CASES_PER_BATCH // 2
    assert (outcomes == native.STATUS_SIGNAL).sum() > CASES_PER_BATCH // 50


def test_nothing_is_left_out_silently() -> None:
    from oracles.templates import sort_rows

    covered, left_out = sort_rows()
    print(f"{len(covered)} rows covered, {len(left_out)} left out")
    for row, reason in left_out:
        if reason.startswith("the host has no "):
            continue
        mnemonics = next((names for text, names in LEFT_OUT.items() if text in reason), set())
        assert row.mnemonic in mnemonics, f"x64.txt:{row.line}: {row.mnemonic} is not compared: {reason}"
    assert len(covered) > 500
