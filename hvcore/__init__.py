"""hvcore: a Hyper-V that you can import.

Everything is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.lazy import attributes

if TYPE_CHECKING:
    from hvcore import enums as enums
    from hvcore import errors as errors
    from hvcore import exits as exits
    from hvcore._native.decoder import decode_instruction as decode_one
    from hvcore._native.engine import Segment, Table
    from hvcore.costs import PageCosts
    from hvcore.counters import Counters
    from hvcore.enums import Hypercall, PartitionProperty, PartitionState, Privilege
    from hvcore.errors import ExitNotCompleted, GuestError, HypercallError
    from hvcore.hypervisor import Hypervisor
    from hvcore.instruction_table import InstructionTable
    from hvcore.memory import MemoryRegion
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor
    from hvcore.registers import RegisterName
    from hvcore.status import Status
    from hvcore.sweeps import decode, iterate, lengths

__version__ = "0.1.0"

__all__ = [
    "Counters",
    "ExitNotCompleted",
    "GuestError",
    "Hypercall",
    "HypercallError",
    "Hypervisor",
    "InstructionTable",
    "MemoryRegion",
    "PageCosts",
    "Partition",
    "PartitionProperty",
    "PartitionState",
    "Privilege",
    "RegisterName",
    "Segment",
    "Status",
    "Table",
    "VirtualProcessor",
    "decode",
    "decode_one",
    "enums",
    "errors",
    "exits",
    "iterate",
    "lengths",
]

__getattr__, __dir__ = attributes(
    __name__,
    {
        "Counters": "counters:Counters",
        "ExitNotCompleted": "errors:ExitNotCompleted",
        "GuestError": "errors:GuestError",
        "Hypercall": "enums:Hypercall",
        "HypercallError": "errors:HypercallError",
        "Hypervisor": "hypervisor:Hypervisor",
        "InstructionTable": "instruction_table:InstructionTable",
        "MemoryRegion": "memory:MemoryRegion",
        "PageCosts": "costs:PageCosts",
        "Partition": "partition:Partition",
        "PartitionProperty": "enums:PartitionProperty",
        "PartitionState": "enums:PartitionState",
        "Privilege": "enums:Privilege",
        "RegisterName": "registers:RegisterName",
        "Segment": "_native.engine:Segment",
        "Status": "status:Status",
        "Table": "_native.engine:Table",
        "VirtualProcessor": "processor:VirtualProcessor",
        "decode": "sweeps:decode",
        "decode_one": "_native.decoder:decode_instruction",
        "enums": "enums",
        "errors": "errors",
        "exits": "exits",
        "iterate": "sweeps:iterate",
        "lengths": "sweeps:lengths",
    },
)
