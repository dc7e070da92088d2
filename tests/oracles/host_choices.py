"""What a processor may decide for itself: where hvcore is an Intel processor and the host may be another.

Each choice is a predicate over one case; settle() takes those cases out of a comparison by giving both the same result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .cases import Batch
from .native import RDI, RSI, RSP, Array

PAGE_FAULT, STACK_FAULT, GENERAL_PROTECTION = 14, 12, 13
NEAR = 16
"""Bytes by which the address of a fault may lie behind the start of its operand."""

Choice = Callable[[str, np.void, np.void], bool]


def _reaches(address: int, start: int) -> bool:
    return 0 <= address - start < NEAR


def comparison_order(mnemonic: str, native: np.void, other: np.void) -> bool:
    """CMPS with two operands that both fault: hvcore reads the one at RSI first, AMD the one at RDI."""
    if not mnemonic.startswith("cmps") or native["trap"] != PAGE_FAULT or other["trap"] != PAGE_FAULT:
        return False
    at = [int(record["fault_address"]) for record in (native, other)]
    source, target = (int(other["gpr"][register]) & 0xFFFFFFFF for register in (RSI, RDI))
    return _reaches(at[0], target) and _reaches(at[1], source)


def call_order(mnemonic: str, native: np.void, other: np.void) -> bool:
    """CALL to a bad address with a bad stack: Intel looks at the target first, AMD pushes first."""
    if mnemonic != "call" or other["trap"] != GENERAL_PROTECTION:
        return False
    top = int(other["gpr"][RSP]) - 8
    return native["trap"] == STACK_FAULT or (native["trap"] == PAGE_FAULT and _reaches(native["fault_address"], top))


CHOICES: tuple[Choice, ...] = (comparison_order, call_order)


def settle(batch: Batch, native: Array, other: Array) -> int:
    """Where a choice explains a difference, make `native` say what `other` says; how many cases that were."""
    differing = (native["trap"] != other["trap"]) | (native["fault_address"] != other["fault_address"])
    settled = 0
    for index in np.flatnonzero(differing):
        mnemonic = batch.encodings[index].template.mnemonic
        if any(choice(mnemonic, native[index], other[index]) for choice in CHOICES):
            for name in ("trap", "error_code", "fault_address"):
                native[name][index] = other[name][index]
            settled += 1
    return settled
