"""Runs one hypercall by the table, for guest code and for Python callers alike (hyperv-abi.md 3.3, 3.4).

Checks in the order of section 13, #42: code (2), control word (3), size (4), privilege (6); the rest is the handler's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hvcore.enums import Hypercall, Status
from hvcore.hypercalls.abi import PAGE_SIZE, Control, Refused, Result, Unfinished
from hvcore.hypercalls.call import Call, Progress
from hvcore.hypercalls.table import TABLE, Row

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor


def call_name(code: int) -> str:
    """What a call is counted as: its name, or its code if it is not implemented."""
    return Hypercall(code).name if code in TABLE else f"{code:#06x}"


def execute(
    hypervisor: Hypervisor,
    caller: Partition,
    vp: VirtualProcessor | None,
    control: int,
    input: bytes,
    *,
    limit: int | None = None,
) -> Result:
    """Run one entry of a hypercall.

    `vp` is the calling virtual processor, None for Python. `input` is what lies at the input address; missing bytes
    are zero. `limit` bounds the elements of this entry; an entry that stops there has `finished` False.
    """
    word = Control.parse(control)
    row = TABLE.get(word.code)
    if row is None:
        return Result(Status.INVALID_HYPERCALL_CODE, 0, b"")
    if not row.accepts(word):
        return Result(Status.INVALID_HYPERCALL_INPUT, 0, b"")
    reps = word.rep_count
    reads = row.input_size(reps, word.variable_qwords)
    if max(reads, row.output_size(reps), len(input)) > PAGE_SIZE:
        return Result(Status.INVALID_ALIGNMENT, word.rep_start, b"")
    if row.privilege & ~caller.privileges:
        return Result(Status.ACCESS_DENIED, word.rep_start, b"")
    input = input.ljust(reads, b"\0")
    header = row.input.unpack(input)
    variable = input[row.input.size : row.input.size + 8 * word.variable_qwords]
    try:
        if row.rep:
            return _repeat(row, hypervisor, caller, vp, word, header, input, limit)
        output = row.handler(Call(hypervisor, caller, vp, variable=variable), header)
    except Refused as refusal:
        return Result(refusal.status, word.rep_start, b"")
    except Unfinished:
        return Result(Status.SUCCESS, 0, b"", finished=False)
    return Result(Status.SUCCESS, 0, row.output.pack(output) if output else b"")


def _repeat(
    row: Row,
    hypervisor: Hypervisor,
    caller: Partition,
    vp: VirtualProcessor | None,
    word: Control,
    header: Any,
    input: bytes,
    limit: int | None,
) -> Result:
    left = word.rep_count - word.rep_start
    count = left if limit is None else min(left, limit)
    elements: Any = ()
    if row.element_in.itemsize:
        offset = row.input_size(word.rep_start, word.variable_qwords)
        elements = np.frombuffer(input, row.element_in, count, offset)
    variable = input[row.input.size : row.input.size + 8 * word.variable_qwords]
    progress: Progress = row.handler(Call(hypervisor, caller, vp, word.rep_start, count, elements, variable), header)
    completed = word.rep_start + progress.done
    finished = progress.status is not Status.SUCCESS or completed == word.rep_count
    return Result(progress.status, completed, progress.output, finished)
