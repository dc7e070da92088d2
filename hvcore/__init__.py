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
    from hvcore import experiments as experiments
    from hvcore import paging as paging
    from hvcore._native import facts as facts
    from hvcore._native.engine import Segment, Table
    from hvcore._native.facts import Access, Element, Flags, Flow, OperandKind, Prefix, Register
    from hvcore._native.instructions import Instruction, decode_one
    from hvcore._native.operands import (
        FarOperand,
        ImmediateOperand,
        MemoryOperand,
        Operand,
        RegisterOperand,
        TargetOperand,
    )
    from hvcore.costs import PageCosts
    from hvcore.counters import Counters
    from hvcore.enums import Hypercall, PartitionProperty, PartitionState, Privilege
    from hvcore.errors import ExitNotCompleted, GuestError, HypercallError
    from hvcore.hypervisor import Hypervisor
    from hvcore.instruction_table import InstructionTable
    from hvcore.listing import format
    from hvcore.machine.device import Device, DmaStatus
    from hvcore.machine.msix import MsixTable
    from hvcore.machine.pci import Bar, PciFunction
    from hvcore.machine.virtio_block import VirtioBlock
    from hvcore.memory import MemoryRegion
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor
    from hvcore.registers import RegisterName
    from hvcore.status import Status
    from hvcore.sweeps import decode, iterate, lengths

__version__ = "0.1.0"

__all__ = [
    "Access",
    "Bar",
    "Counters",
    "Device",
    "DmaStatus",
    "Element",
    "ExitNotCompleted",
    "FarOperand",
    "Flags",
    "Flow",
    "GuestError",
    "Hypercall",
    "HypercallError",
    "Hypervisor",
    "ImmediateOperand",
    "Instruction",
    "InstructionTable",
    "MemoryOperand",
    "MemoryRegion",
    "MsixTable",
    "Operand",
    "OperandKind",
    "PageCosts",
    "Partition",
    "PartitionProperty",
    "PartitionState",
    "PciFunction",
    "Prefix",
    "Privilege",
    "Register",
    "RegisterName",
    "RegisterOperand",
    "Segment",
    "Status",
    "Table",
    "TargetOperand",
    "VirtioBlock",
    "VirtualProcessor",
    "decode",
    "decode_one",
    "enums",
    "errors",
    "exits",
    "experiments",
    "facts",
    "format",
    "iterate",
    "lengths",
    "paging",
]

if not TYPE_CHECKING:  # checkers know the names by the imports above, and misspelt ones as wrong
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "Access": "_native.facts:Access",
            "Bar": "machine.pci:Bar",
            "Counters": "counters:Counters",
            "Device": "machine.device:Device",
            "DmaStatus": "machine.device:DmaStatus",
            "Element": "_native.facts:Element",
            "ExitNotCompleted": "errors:ExitNotCompleted",
            "Flags": "_native.facts:Flags",
            "Flow": "_native.facts:Flow",
            "GuestError": "errors:GuestError",
            "Hypercall": "enums:Hypercall",
            "HypercallError": "errors:HypercallError",
            "Hypervisor": "hypervisor:Hypervisor",
            "Instruction": "_native.instructions:Instruction",
            "InstructionTable": "instruction_table:InstructionTable",
            "MemoryRegion": "memory:MemoryRegion",
            "MsixTable": "machine.msix:MsixTable",
            "FarOperand": "_native.operands:FarOperand",
            "ImmediateOperand": "_native.operands:ImmediateOperand",
            "MemoryOperand": "_native.operands:MemoryOperand",
            "Operand": "_native.operands:Operand",
            "RegisterOperand": "_native.operands:RegisterOperand",
            "TargetOperand": "_native.operands:TargetOperand",
            "OperandKind": "_native.facts:OperandKind",
            "PageCosts": "costs:PageCosts",
            "Partition": "partition:Partition",
            "PartitionProperty": "enums:PartitionProperty",
            "PartitionState": "enums:PartitionState",
            "PciFunction": "machine.pci:PciFunction",
            "Prefix": "_native.facts:Prefix",
            "Privilege": "enums:Privilege",
            "Register": "_native.facts:Register",
            "RegisterName": "registers:RegisterName",
            "Segment": "_native.engine:Segment",
            "Status": "status:Status",
            "Table": "_native.engine:Table",
            "VirtioBlock": "machine.virtio_block:VirtioBlock",
            "VirtualProcessor": "processor:VirtualProcessor",
            "decode": "sweeps:decode",
            "decode_one": "_native.instructions:decode_one",
            "enums": "enums",
            "errors": "errors",
            "exits": "exits",
            "experiments": "experiments",
            "paging": "paging",
            "facts": "_native.facts",
            "format": "listing:format",
            "iterate": "sweeps:iterate",
            "lengths": "sweeps:lengths",
        },
    )
