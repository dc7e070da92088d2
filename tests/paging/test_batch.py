"""Batches against the reference walker of tests/mem, on random tables of both levels in every mode, marks included."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from random_tables import PAGES, Machine
from reference import ALIGNMENT, IMPLICIT, NESTED, OK, TABLE, USER, Memory, Processor, Second, walk

from hvcore.paging import PagingState
from hvcore.paging.translator import Translator

CASES = 60
PRIVILEGES = {"user": USER, "supervisor": 0, "implicit": IMPLICIT}
AC = 1 << 18


def state_of(processor: Processor, rflags: int) -> PagingState:
    return PagingState(
        cr0=processor.cr0,
        cr3=processor.cr3,
        cr4=processor.cr4,
        efer=processor.efer,
        rflags=rflags,
        pkru=processor.pkru,
        pkrs=processor.pkrs,
        physical_address_bits=processor.physical_bits,
    )


def status_of(expected: dict[str, Any]) -> int:
    """The number of a batch for an outcome of the reference."""
    if expected["status"] == TABLE:
        return 5 + expected["nested_status"]
    return 9 + expected["nested_status"] if expected["status"] == NESTED else expected["status"]


def row_of(expected: dict[str, Any]) -> dict[str, int]:
    """What the columns must hold."""
    status = expected["status"]
    return {
        "status": status_of(expected),
        "spa": expected["spa"] if status == OK else 0,
        "gpa": expected["address"] if status in (OK, NESTED, TABLE) else 0,
        "error_code": expected.get("error_code", 0),
        "page_shift": expected["page_shift"] if status in (OK, NESTED) else 0,
        "nested_page_shift": expected["nested_page_shift"] if status == OK else 0,
        "references": expected["references"],
        "nested_references": expected["nested_references"],
    }


@pytest.mark.parametrize("seed", range(4))
def test_random_tables(seed: int) -> None:
    """All columns, the few that have code of their own, and both through a cache."""
    outcomes: Counter[int] = Counter()
    for number in range(12):
        label = f"batch {seed}/{number}"
        rng = random.Random(label)
        machine = Machine(rng)
        before = machine.memory.read(0, PAGES << 12)
        processor = machine.set_mode()
        rflags, set_marks = rng.choice((2, 2 | AC)), rng.random() < 0.5
        privilege = rng.choice(list(PRIVILEGES))
        gvas = np.array([machine.address(processor) for _ in range(CASES)], np.uint64)
        accesses = np.array([rng.choice((1, 3, 4)) for _ in range(CASES)])
        if number % 2:
            accesses[:] = accesses[0]
        contents = Memory(before)
        second = Second(contents, machine.root << 12, machine.levels, 1 << machine.gpa_bits, machine.marks,
                        machine.mode_based)  # fmt: skip
        who = PRIVILEGES[privilege] | (ALIGNMENT if rflags & AC else 0)
        expected = [
            row_of(walk(processor, second, int(gva), int(access) | who, set_marks))
            for gva, access in zip(gvas, accesses, strict=True)
        ]
        translator = Translator(machine.memory, state_of(processor, rflags), gpa_space=machine.vp.space)
        for few in (False, True):
            for cache in (0, 64):
                machine.memory.write(0, before)
                columns = ("spa", "status", "references", "nested_references") if few else None
                found = translator.translate(
                    gvas, accesses, privilege=privilege, set_marks=set_marks, columns=columns, nested_cache=cache
                )
                for i, row in enumerate(expected):
                    wanted = {name: row[name] for name in found}
                    got = {name: int(found[name][i]) for name in found}
                    if cache:
                        assert got.pop("nested_references") <= wanted.pop("nested_references"), label
                    about = f"{label}, element {i}, {few=}, {cache=}: {processor}, gva={int(gvas[i]):#x}"
                    assert got == wanted, f"{about}, access={int(accesses[i])}, {privilege}, {set_marks=}"
                assert machine.memory.read(0, PAGES << 12) == contents, label
        outcomes.update(row["status"] for row in expected)
    assert outcomes[OK] > 50 and len(outcomes) > 5


def test_a_running_processor_and_the_one_that_was_saved_agree() -> None:
    """probe() of the VP, one by one, against a batch with the registers in a plain value."""
    rng = random.Random("saved")
    machine = Machine(rng)
    processor = machine.set_mode()
    gvas = [machine.address(processor) for _ in range(200)]
    translator = Translator(machine.memory, state_of(processor, 2), gpa_space=machine.vp.space)
    found = translator.translate(np.array(gvas, np.uint64), "w")
    probes = [machine.vp.probe(gva, 2, set_marks=False) for gva in gvas]
    assert [probe.references for probe in probes] == found.references.tolist()
    assert [probe.spa for probe in probes if probe.status == OK] == found.spa[found.ok].tolist()
