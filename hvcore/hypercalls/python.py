"""The door for Python callers: what they may get wrong is checked, then they get what guest code gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.enums import Hypercall
from hvcore.hypercalls.abi import PAGE_SIZE, Control, Result
from hvcore.hypercalls.dispatch import call_name, execute
from hvcore.hypercalls.table import TABLE

if TYPE_CHECKING:
    from hvcore.partition import Partition


def python_call(
    caller: Partition,
    call: Hypercall | int,
    input: bytes,
    *,
    reps: int | None,
    start: int,
    fast: bool,
    variable: int | None,
) -> Result:
    """Partition.hypercall."""
    hypervisor = caller.hypervisor
    row = TABLE.get(int(call))
    if not 0 <= call <= 0xFFFF:
        raise ValueError(f"call must be a call code, 0 to 0xFFFF, not {call:#x}")
    if len(input) > PAGE_SIZE:
        raise ValueError(f"input has {len(input)} bytes: a hypercall takes at most {PAGE_SIZE}")
    if hypervisor.partitions.get(caller.id) is not caller:
        raise ValueError(f"{caller!r} does not exist any more")
    if variable is not None and not 0 <= variable <= 0x3FF:
        raise ValueError(f"variable must be 0 to 1023 qwords, not {variable}")
    if row is not None:
        beyond = len(input) - row.input.size
        if variable is None:
            variable = -(-beyond // 8) if row.variable and not row.rep and beyond > 0 else 0
            input += bytes(-beyond % 8 if variable else 0)
        reps = _repetitions(row.rep, reps, beyond - 8 * variable, row.element_in.itemsize)
        wanted = row.input_size(reps, variable)
        if len(input) < wanted:
            raise ValueError(f"input of {row.code.name} must have {wanted} bytes, not {len(input)}")
    if not 0 <= start < 4096:
        raise ValueError(f"start must be 0 to 4095, not {start}")
    word = Control(int(call), fast, variable or 0, reps or 0, start).word()
    with hypervisor.exclusive():
        while True:
            result = execute(hypervisor, caller, None, word, bytes(input))
            if result.finished:
                caller.hypercalls_by_name[call_name(call)] += 1
                return result


def _repetitions(rep: bool, reps: int | None, list_bytes: int, element_bytes: int) -> int:
    """The rep count of a call from Python: given, or counted from the input, or 0 for a simple call."""
    if not rep:
        if reps is not None:
            raise ValueError("reps is only for rep calls")
        return 0
    if reps is None:
        if not element_bytes:
            raise ValueError("reps must say how many: this call has no input list to count")
        reps = max(list_bytes, 0) // element_bytes
    if not 0 <= reps < 4096:
        raise ValueError(f"reps must be 0 to 4095, not {reps}")
    return reps
