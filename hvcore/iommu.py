"""The remapping unit: an Intel VT-d IOMMU of a partition, see docs/iommu.md.

`RemappingUnit` is the unit itself; the rest names its numbers and says what it remembers in the notation of
hvcore.experiments.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from hvcore._native.iommu import CACHE_NAMES, COLUMNS, DEFAULT_CACHES, PRESETS, Geometry, RemappingUnit
from hvcore.experiments.structures import Structure

if TYPE_CHECKING:
    from hvcore.experiments.models import TranslationModel

__all__ = [
    "CACHE_NAMES",
    "COLUMNS",
    "DEFAULT_CACHES",
    "PRESETS",
    "FaultReason",
    "Geometry",
    "RemapStatus",
    "RemappingUnit",
    "geometry",
    "geometry_of",
]  # fmt: skip


TRANSLATION_CACHES = ("iotlb", "pde", "pdpte", "pml4e", "pml5e")
"""Those of CACHE_NAMES that a TranslationModel can have too."""


class RemapStatus(IntEnum):
    """How a DMA request ended: column `status`."""

    OK = 0
    FAULT = 1
    """The unit refuses it; `reason` says why."""
    INTERRUPT = 2
    """It lies in the interrupt address range, FEE00000h to FEEFFFFFh: no memory."""
    PROTECTED = 3
    """It lies in a protected memory region."""
    NO_MEMORY = 4
    """The unit lets it through, to where the partition has no such memory or not the right to it."""


class FaultReason(IntEnum):
    """Fault reasons as records have them (VT-d, fault reason encodings)."""

    NONE = 0
    ROOT_NOT_PRESENT = 0x1
    CONTEXT_NOT_PRESENT = 0x2
    CONTEXT_INVALID = 0x3
    ADDRESS_BEYOND = 0x4
    WRITE_DENIED = 0x5
    READ_DENIED = 0x6
    ENTRY_UNREADABLE = 0x7
    ROOT_UNREADABLE = 0x8
    CONTEXT_UNREADABLE = 0x9
    ROOT_RESERVED = 0xA
    CONTEXT_RESERVED = 0xB
    ENTRY_RESERVED = 0xC
    TRANSLATED_BLOCKED = 0xD
    OUTPUT_INTERRUPT = 0xE
    IR_REQUEST_RESERVED = 0x20
    IR_INDEX = 0x21
    IR_NOT_PRESENT = 0x22
    IR_UNREADABLE = 0x23
    IR_RESERVED = 0x24
    IR_COMPATIBILITY = 0x25
    IR_SOURCE = 0x26
    IR_DESCRIPTOR_UNREADABLE = 0x27
    IR_DESCRIPTOR_RESERVED = 0x28
    IR_ILLEGAL = 0x29
    SM_ROOT_POINTER = 0x30
    SM_MODE = 0x31
    SM_ROOT_UNREADABLE = 0x38
    SM_ROOT_NOT_PRESENT = 0x39
    SM_ROOT_RESERVED = 0x3A
    SM_CONTEXT_UNREADABLE = 0x40
    SM_CONTEXT_NOT_PRESENT = 0x41
    SM_CONTEXT_RESERVED = 0x42
    SM_CONTEXT_INVALID = 0x43
    SM_NO_DEVICE_TLB = 0x44
    SM_NO_PASID = 0x45
    SM_PASID_RANGE = 0x46
    SM_RID_PASID = 0x48
    SM_DIRECTORY_UNREADABLE = 0x50
    SM_DIRECTORY_NOT_PRESENT = 0x51
    SM_DIRECTORY_RESERVED = 0x52
    SM_PASID_UNREADABLE = 0x58
    SM_PASID_NOT_PRESENT = 0x59
    SM_PASID_RESERVED = 0x5A
    SM_PASID_INVALID = 0x5B
    SM_NO_SUPERVISOR = 0x5D
    FIRST_UNREADABLE = 0x70
    FIRST_NOT_PRESENT = 0x71
    FIRST_RESERVED = 0x72
    FIRST_POINTER = 0x73
    FIRST_BEYOND = 0x74
    FIRST_TOP_READ_DENIED = 0x75
    FIRST_READ_DENIED = 0x76
    FIRST_WRITE_DENIED = 0x77
    SECOND_UNREADABLE = 0x78
    SECOND_NOT_PRESENT = 0x79
    SECOND_RESERVED = 0x7A
    SECOND_POINTER = 0x7B
    SM_NOT_CANONICAL = 0x80
    SM_USER_DENIED = 0x81
    SM_PASS_THROUGH_BEYOND = 0x83
    SM_ADDRESS_BEYOND = 0x84
    SM_WRITE_DENIED = 0x85
    SM_READ_DENIED = 0x86
    SM_INTERRUPT_ADDRESS = 0x87
    SM_PASID_SIZE = 0x89
    FIRST_NOT_SNOOPED = 0x90
    FIRST_UPDATE_FAILED = 0x91


def geometry(**caches: str | Structure | None) -> dict[str, Structure | None]:
    """Caches for `RemappingUnit(caches=...)` in the notation of hvcore.experiments: `geometry(iotlb="64/4 fifo")`.

    Raises
    ------
    ValueError
        A name is none of CACHE_NAMES, or a text is no structure.
    """
    unknown = set(caches) - set(CACHE_NAMES)
    if unknown:
        raise ValueError(f"caches must be of {', '.join(CACHE_NAMES)}, not {', '.join(sorted(unknown))}")
    return {name: Structure.parse(cache) if isinstance(cache, str) else cache for name, cache in caches.items()}


def geometry_of(model: TranslationModel) -> dict[str, Structure | None]:
    """Caches for `RemappingUnit(caches=...)` that remember translations as `model` does: its TLB, named "iotlb", and
    its walk caches. What it has not got the unit has not got either; the other caches keep their default.

    Raises
    ------
    ValueError
        `model` has a structure that a unit has not, as a TLB of two levels or a nested one.
    """
    found: dict[str, Structure | None] = dict.fromkeys(TRANSLATION_CACHES)
    for structure in model.structures:
        if structure.name not in found:
            raise ValueError(f"a unit has {', '.join(found)}; the model also has {structure.name!r}")
        found[structure.name] = structure
    return found
