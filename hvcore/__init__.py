"""hvcore: a Hyper-V that you can import.

The names are loaded when they are first used, so that importing hvcore costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    from hvcore.memory import MemoryRegion
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor
    from hvcore.registers import RegisterName
    from hvcore.status import Status

__version__ = "0.1.0"

__all__ = [
    "Counters",
    "ExitNotCompleted",
    "GuestError",
    "Hypercall",
    "HypercallError",
    "Hypervisor",
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
    "decode_one",
    "enums",
    "errors",
    "exits",
]

_HOMES = {
    "Counters": "counters",
    "ExitNotCompleted": "errors",
    "GuestError": "errors",
    "Hypercall": "enums",
    "HypercallError": "errors",
    "Hypervisor": "hypervisor",
    "MemoryRegion": "memory",
    "PageCosts": "costs",
    "Partition": "partition",
    "PartitionProperty": "enums",
    "PartitionState": "enums",
    "Privilege": "enums",
    "RegisterName": "registers",
    "Segment": "_native.engine",
    "Status": "status",
    "Table": "_native.engine",
    "VirtualProcessor": "processor",
}
"""Which module each class comes from."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"hvcore.{_HOMES[name]}"), name)
    elif name == "decode_one":
        value = import_module("hvcore._native.decoder").decode_instruction
    elif name in __all__:
        value = import_module(f"hvcore.{name}")
    else:
        raise AttributeError(f"module 'hvcore' has no attribute {name!r}", name=name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
