"""The remapping unit as the hypervisor drives it: root, context and PASID tables in its reserve, and a queue for
invalidations (VT-d in scalable mode; iommu-facts.md 3, 4).

Every requester has a PASID directory and a PASID table of its own, of which only PASID 0 is used: requests come
without one. What `Translation` says of a requester is put there.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor

_GCMD, _GSTS, _RTADDR, _FSTS, _IQT, _IQA = 0x18, 0x1C, 0x20, 0x34, 0x88, 0x90
_ENABLE, _SET_ROOT, _QUEUE = 1 << 31, 1 << 30, 1 << 26
_SCALABLE = 1 << 10
_QUEUE_BYTES, _DESCRIPTOR_BYTES = 4096, 32
_WIDE = 1 << 11
"""IQA.DW: descriptors of 256 bits, which scalable mode needs."""
_PRESENT = 1
_CONTEXT, _IOTLB, _PASID_IOTLB, _PASID_CACHE = 1, 2, 6, 7
_GLOBAL, _DOMAIN, _PASID_SELECTIVE, _ALL_PASIDS = 1, 2, 2, 3
_SECOND, _NESTED = 2, 3
_FOUR_LEVELS = 2
"""AW of a second level of 48 bits."""


class Translation(NamedTuple):
    """How requests are translated: `second` is the SPA of second-level tables, `first` the GPA of x64 tables that are
    walked over them, None without. `None` for the whole: every request is blocked."""

    domain: int
    second: int
    first: int | None = None
    five_levels: bool = False


class UnitTables:
    """Tables and registers of the unit that belongs to the hypervisor."""

    def __init__(self, hypervisor: Hypervisor, unit: Any) -> None:
        self._memory = hypervisor.memory
        self._frames = hypervisor
        self._unit = unit
        self._root, self._queue = hypervisor.new_frames(2)
        self._contexts: dict[int, int] = {}
        self._entries: dict[int, int] = {}
        self._tail = 0
        self.invalidations = 0
        """Descriptors that went through the queue."""
        unit.write(_IQA, 8, self._queue << 12 | _WIDE)
        self._command(_QUEUE)
        unit.write(_RTADDR, 8, self._root << 12 | _SCALABLE)
        self._command(_SET_ROOT)
        self.invalidate(pack("<QQ", _CONTEXT | _GLOBAL << 4, 0), pack("<QQ", _PASID_CACHE | _ALL_PASIDS << 4, 0),
                        pack("<QQ", _IOTLB | _GLOBAL << 4, 0))
        self._command(_ENABLE)

    def set(self, requester_id: int, translation: Translation | None) -> None:
        """Translate the requests of a requester so from now on; nothing older is used once this returns."""
        spa = self._entry(requester_id)
        if translation is None:
            self._memory.write(spa, bytes(64))
        else:
            kind = _SECOND if translation.first is None else _NESTED
            first = 0 if translation.first is None else translation.first | translation.five_levels << 2
            words = (
                _PRESENT | _FOUR_LEVELS << 2 | kind << 6 | translation.second,
                translation.domain,
                first,
                0, 0, 0, 0, 0,
            )
            self._memory.write(spa, pack("<8Q", *words))
        self.invalidate(pack("<QQ", _PASID_CACHE | _ALL_PASIDS << 4, 0), pack("<QQ", _IOTLB | _GLOBAL << 4, 0))

    def flush(self, domain: int) -> None:
        """Forget every translation of a domain id."""
        self.invalidate(
            pack("<QQ", _IOTLB | _DOMAIN << 4 | domain << 16, 0),
            pack("<QQ", _PASID_IOTLB | _PASID_SELECTIVE << 4 | domain << 16, 0),
        )

    def invalidate(self, *descriptors: bytes) -> None:
        """Put descriptors into the queue; the unit has done them when this returns."""
        for descriptor in descriptors:
            descriptor = descriptor.ljust(_DESCRIPTOR_BYTES, b"\0")
            self._memory.write((self._queue << 12) + self._tail, descriptor)
            self._tail = (self._tail + len(descriptor)) % _QUEUE_BYTES
            self._unit.write(_IQT, 8, self._tail)
            self.invalidations += 1
        assert not self._unit.read(_FSTS, 4) & 0x70, "the unit refused an invalidation of the hypervisor's"

    def _command(self, bit: int) -> None:
        kept = self._unit.read(_GSTS, 4) & ~_SET_ROOT
        self._unit.write(_GCMD, 4, kept | bit)

    def _entry(self, requester_id: int) -> int:
        """SPA of the PASID table entry of a requester; tables are made when they are needed."""
        if requester_id not in self._entries:
            half = requester_id >> 7
            if half not in self._contexts:
                (self._contexts[half],) = self._frames.new_frames(1)
                self._memory.write((self._root << 12) + half * 8, pack("<Q", self._contexts[half] << 12 | _PRESENT))
            directory, table = self._frames.new_frames(2)
            self._memory.write(directory << 12, pack("<Q", table << 12 | _PRESENT))
            context = (self._contexts[half] << 12) + (requester_id & 0x7F) * 32
            self._memory.write(context, pack("<4Q", directory << 12 | _PRESENT, 0, 0, 0))
            self._entries[requester_id] = table << 12
            self.invalidate(pack("<QQ", _CONTEXT | _GLOBAL << 4, 0))
        return self._entries[requester_id]
