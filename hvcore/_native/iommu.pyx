"""Module `iommu`: a VT-d remapping unit as an object.

Contract: whatever comes from Python is checked here and names itself in the exception; whatever a guest writes into
registers and tables is answered as the specification says. Batches release the GIL once.
"""
from collections import namedtuple
from operator import index

import numpy

from hvcore._native.models import POLICIES

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.batch cimport requester_t, translate_all
from hvcore._native.dma.cache cimport cache_clear, cache_held, cache_key_at, forget_all
from hvcore._native.dma.columns cimport dma_columns_t
from hvcore._native.dma.copy cimport MESSAGE_BYTES, copy_all
from hvcore._native.dma.flight cimport flight_t, fly, land
from hvcore._native.dma.memory cimport view_refresh
from hvcore._native.dma.registers cimport unit_read, unit_write
from hvcore._native.dma.remap cimport remap_request
from hvcore._native.dma.spec cimport (
    CAP_CM, CAP_FL1GP_SHIFT, CAP_FRO_SHIFT, CAP_MGAW_SHIFT, CAP_NFR_SHIFT, CAP_PHMR, CAP_PLMR, CAP_SAGAW_SHIFT,
    CAP_SLLPS_SHIFT,
    ECAP_DT, ECAP_EIM, ECAP_IR, ECAP_IRO_SHIFT, ECAP_SC, EVENT_IM, FRCD_F, NO_PASID, REASON_COUNT, REG_CAP, REG_CCMD,
    REG_ECAP, REG_FECTL, REG_FSTS, REG_ICS, REG_IECTL, REG_IQA, REG_IQT, REG_IRTA, REG_LAST, REG_PHMBASE,
    REG_PHMLIMIT, REG_PLMBASE, REG_PLMLIMIT, REG_PMEN, REG_RTADDR, REG_VER, VERSION,
)
from hvcore._native.dma.state cimport MESSAGE_COUNT, TAG_COUNT, VIEW_ENTRIES, cache_t, context_t, tag_t, unit_t
from hvcore._native.dma.translate cimport dma_request, dma_t, is_interrupt
from hvcore._native.engine cimport PartitionCore
from hvcore._native.irq.fabric cimport decode_msi, fabric_send
from hvcore._native.irq.state cimport (
    REMAP_BLOCKED, REMAP_POSTED, REMAP_SEND, RemapOutcome, fabric_t, interrupt_message_t,
)
from hvcore._native.irqchip cimport checked
from hvcore._native.mem.descend cimport space_translate
from hvcore._native.mem.format cimport ENTRY_ADDRESS, REMAPPING_SNOOP, REMAPPING_TRANSIENT, RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.second_level cimport nested_entry_t, second_level_t, space_t
from hvcore._native.model.structure cimport EMPTY, KEY_ASID_SHIFT, KEY_PAGE_SHIFT
from hvcore._native.models cimport ModelCore
from hvcore._native.space cimport GpaSpace, SystemMemory, enter_guard, leave_guard, require_thread
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strchr

include "iommu_presets.pxi"
include "iommu_caches.pxi"
include "iommu_registers.pxi"


# What is large and called from several places, compiled once.

cdef void serve_request(unit_t* unit, u32 source, u32 pasid, u64 iova, u64 access, u32 at, const context_t* known,
                        dma_t* done) noexcept nogil:
    dma_request(unit, source, pasid, iova, access, at, known, done)


cdef void serve_flight(unit_t* unit, const context_t* context, u64 access, flight_t* flight) noexcept nogil:
    fly(unit, context, access, flight)


cdef bint serve_lane(unit_t* unit, const context_t* context, const flight_t* flight, u32 lane, u64 iova,
                     bint remembers, dma_t* done) noexcept nogil:
    return land(unit, context, flight, lane, iova, remembers, done)


cdef void name_requester(requester_t* who, u32 source, u32 pasid, u64 access, u32 at) noexcept nogil:
    memset(who, 0, sizeof(requester_t))
    who.request, who.fly, who.land = serve_request, serve_flight, serve_lane
    who.source, who.pasid, who.access, who.at = source, pasid, access, at


cdef RemapOutcome serve_interrupt(unit_t* unit, u32 source, u64 address, u32 data, u8* reason,
                                  interrupt_message_t* message) noexcept nogil:
    return remap_request(unit, source, address, data, reason, message)


cdef second_level_t reach(space_t* space, u64 gpa, u8 access, bint set_marks) noexcept nogil:
    return space_translate(space, gpa, access, set_marks)


cdef int deliver(fabric_t* fabric, const interrupt_message_t* message) noexcept nogil:
    return fabric_send(fabric, NULL, message)


cdef class RemappingUnit:
    """One VT-d unit: registers, translation tables in the memory of the partition that owns it, caches, faults.

    Parameters
    ----------
    memory : SystemMemory
    space : GpaSpace of the partition that programs the unit. Every pointer in its registers and tables, and the result
        of every translation, is a guest physical address of this partition, and goes through this space.
    preset : a key of PRESETS.
    cap, ecap : int, instead of the preset's.
    scalable : False takes scalable mode, first-level and nested translation out of them.
    caching_mode : CAP.CM: faulting entries are remembered too, as of a unit that a hypervisor shadows.
    host_address_bits : HAW, the width of addresses that tables may name; default: that of `space`.
    caches : what is remembered, by name: "contexts", "pasids", "iotlb", "interrupts", and "pde", "pdpte", "pml4e" and
        "pml5e" for the paging-structure caches. Each value is a `Geometry`, anything else with its four attributes
        (hvcore.experiments.Structure), or None for no such cache. Names that are left out keep their default;
        None instead of a dictionary: no caches at all, so every request reads its tables.

    Raises
    ------
    ValueError
        A parameter is out of range, or the registers of `cap` and `ecap` overlap.
    """

    def __cinit__(self, SystemMemory memory not None, GpaSpace space not None, *, preset="full", cap=None, ecap=None,
                  bint scalable=True, bint caching_mode=False, host_address_bits=None, caches=()):
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
        if space.space.ram != &memory.ram:
            raise ValueError("space must lie in memory")
        bits = space.gpa_bits if host_address_bits is None else host_address_bits
        self.memory, self.space = memory, space
        self.blocks = []
        self.unit.ram = &memory.ram
        self.unit.view.space = &space.space
        self.unit.deliver, self.unit.view.reach = deliver, reach
        self.unit.view.mask = VIEW_ENTRIES - 1
        self.unit.host_bits = <u32>checked(bits, 32, 52, "host_address_bits")
        self.unit.cap = checked(PRESETS[preset][0] if cap is None else cap, 0, ~<u64>0, "cap")
        self.unit.ecap = checked(PRESETS[preset][1] if ecap is None else ecap, 0, ~<u64>0, "ecap")
        if not scalable:
            self.unit.cap &= ~<u64>_SCALABLE_CAP
            self.unit.ecap &= ~<u64>_SCALABLE_ECAP
        if caching_mode:
            self.unit.cap |= CAP_CM
        self.unit.view.entries = <nested_entry_t*>self.take(VIEW_ENTRIES * sizeof(nested_entry_t), 0)
        self.unit.tags = <tag_t*>self.take(TAG_COUNT * sizeof(tag_t), 0)
        read_capabilities(&self.unit)
        self.unit.registers = <u32*>self.take(self.unit.region_bytes, 0)
        self.unit.writable = <u32*>self.take(self.unit.region_bytes, 0)
        self.unit.clearing = <u32*>self.take(self.unit.region_bytes, 0)
        place_registers(&self.unit)
        place_caches(self, None if caches is None else dict(DEFAULT_CACHES, **dict(caches)))

    def __dealloc__(self):
        self.part()
        for block in self.blocks or ():
            free(<void*><u64>block)

    cdef void* take(self, u64 size_bytes, int fill) except NULL:
        """Memory for as long as the unit lives."""
        cdef void* block = calloc(size_bytes, 1)
        if block == NULL:
            raise MemoryError("the host has no memory for a remapping unit")
        self.blocks.append(<u64>block)
        if fill:
            memset(block, fill, size_bytes)
        return block

    @property
    def cap(self):
        """The capability register."""
        return self.unit.cap

    @property
    def ecap(self):
        """The extended capability register."""
        return self.unit.ecap

    @property
    def region_size(self):
        """Bytes of the register page or pages."""
        return self.unit.region_bytes

    def read(self, offset, size=4):
        """A register, by an aligned read of 4 or 8 bytes; any other is counted and gives all ones."""
        require_thread(&self.memory.guard)
        return unit_read(&self.unit, checked(offset, 0, ~<u64>0, "offset"), <u32>checked(size, 1, 8, "size"))

    def write(self, offset, size, value):
        """Write a register; accesses other than aligned ones of 4 or 8 bytes are counted and ignored."""
        cdef u64 at = checked(offset, 0, ~<u64>0, "offset")
        cdef u32 count = <u32>checked(size, 1, 8, "size")
        cdef u64 word = checked(value, 0, ~<u64>0 >> (64 - 8 * count), "value")
        enter_guard(&self.memory.guard)
        with nogil:
            unit_write(&self.unit, at, count, word)
        leave_guard(&self.memory.guard)

    def reset(self):
        """Registers as after power on, nothing remembered; counts stay, and so does the connection."""
        require_thread(&self.memory.guard)
        cdef unit_t* unit = &self.unit
        cdef u32 i
        forget_all(unit)
        cache_clear(&unit.interrupts)
        for i in range(unit.region_bytes // 4):
            unit.registers[i] = 0
        unit.root = unit.interrupt_table = unit.next_fault = 0
        self.unit.message_count = 0
        place_registers(unit)

    def connect(self, PartitionCore core not None):
        """Be the remapping unit of a partition's interrupt controllers: MSIs and I/O APIC entries go through this unit,
        and its own events go there. Raises RuntimeError if the partition has another unit, ValueError if it lies in
        another memory."""
        require_thread(&self.memory.guard)
        cdef fabric_t* fabric = &core.partition.fabric
        if fabric.unit != NULL and fabric.unit != <void*>&self.unit:
            raise RuntimeError("the partition has a remapping unit already")
        if core.scheduler is not None and core.scheduler.memory is not self.memory:
            raise ValueError("core must be of a partition in the memory of the unit")
        self.part()
        self.partition = core
        self.unit.fabric = fabric
        fabric.unit, fabric.remap = &self.unit, remap_for_fabric

    def disconnect(self):
        """Undo `connect`: interrupts are not remapped any more."""
        require_thread(&self.memory.guard)
        self.part()

    cdef void part(self) noexcept:
        if self.partition is not None:
            self.unit.fabric.unit, self.unit.fabric.remap = NULL, NULL
        self.partition, self.unit.fabric = None, NULL

    def messages(self):
        """The MSIs that the unit itself has sent since the last call, the latest 64: (address, data) each."""
        require_thread(&self.memory.guard)
        cdef u64 count = self.unit.message_count, first = count - min(count, <u64>MESSAGE_COUNT), i
        found = [(self.unit.messages[i % MESSAGE_COUNT].address, self.unit.messages[i % MESSAGE_COUNT].data)
                 for i in range(first, count)]
        self.unit.message_count = 0
        return found

    def counters(self):
        """Everything that was counted: numbers by name, "reasons" of faults by code, and "structures" by name as
        (lookups, hits, misses, evictions, invalidations)."""
        cdef u32 i
        found = dict(self.unit.counters)
        found["reasons"] = {i: self.unit.reasons[i] for i in range(REASON_COUNT) if self.unit.reasons[i]}
        found["structures"] = {name: counts_of(cache_named(&self.unit, name)) for name in CACHE_NAMES
                               if cache_named(&self.unit, name).exists}
        return found

    def contents(self, name):
        """What a cache holds, as (number, tag, size code) of its keys: source, PASID, index or page, by cache.

        Raises KeyError if there is no such cache."""
        cdef cache_t* cache
        cdef u64 entry, key
        if name not in CACHE_NAMES or not cache_named(&self.unit, name).exists:
            raise KeyError(f"there is no cache {name!r}")
        cache = cache_named(&self.unit, name)
        keys = [cache_key_at(cache, entry) for entry in range(cache.entries)]
        return [(key >> KEY_PAGE_SHIFT, key >> KEY_ASID_SHIFT & 0xFFFF, key & 3) for key in keys if key != <u64>EMPTY]

    def accept_interrupt(self, source, address, data):
        """Take an interrupt request of `source` as far as delivery, which is left out: ("send", message), ("posted",
        None), or ("blocked", fault reason). `message` is a dictionary of its fields. Caches, posted descriptors, fault
        records and counts are as after any request."""
        require_thread(&self.memory.guard)
        cdef interrupt_message_t message
        cdef u8 reason = 0
        cdef RemapOutcome outcome
        cdef u32 requester = <u32>checked(source, 0, 0xFFFF, "source"), word = <u32>checked(data, 0, 0xFFFFFFFF, "data")
        cdef u64 at = checked(address, 0xFEE00000, 0xFEEFFFFF, "address")
        decode_msi(at, word, 0, &message)
        outcome = serve_interrupt(&self.unit, requester, at, word, &reason, &message)
        if outcome == REMAP_BLOCKED:
            return "blocked", reason
        return ("posted", None) if outcome == REMAP_POSTED else ("send", dict(message))

    def interrupt(self, source, address, data):
        """An MSI of a device: how many APICs accepted it; -1: the unit blocked it, 1 also if it was posted quietly."""
        require_thread(&self.memory.guard)
        return dma_interrupt(&self.unit, <u32>checked(source, 0, 0xFFFF, "source"),
                             checked(address, 0xFEE00000, 0xFEEFFFFF, "address"),
                             <u32>checked(data, 0, 0xFFFFFFFF, "data"))

    def translate_into(self, source, const u64[::1] iovas not None, access, *, pasid=None, at=0,
                       u64[::1] gpa=None, u64[::1] spa=None, u8[::1] page_shift=None, u8[::1] nested_page_shift=None,
                       u8[::1] status=None, u8[::1] reason=None, u8[::1] table_references=None,
                       u8[::1] references=None, u8[::1] nested_references=None):
        """`translate` into arrays that exist, of the length of `iovas`."""
        cdef dma_columns_t out
        cdef requester_t who
        cdef u64 count = iovas.shape[0]
        for name, column in (("gpa", gpa), ("spa", spa), ("page_shift", page_shift), ("status", status),
                             ("nested_page_shift", nested_page_shift), ("reason", reason), ("references", references),
                             ("table_references", table_references), ("nested_references", nested_references)):
            if column is not None and len(column) != iovas.shape[0]:
                raise ValueError(f"{name} must have {iovas.shape[0]} elements, not {len(column)}")
        if count == 0:
            return
        out.gpa = &gpa[0] if gpa is not None else NULL
        out.spa = &spa[0] if spa is not None else NULL
        out.page_shift = &page_shift[0] if page_shift is not None else NULL
        out.nested_page_shift = &nested_page_shift[0] if nested_page_shift is not None else NULL
        out.status = &status[0] if status is not None else NULL
        out.reason = &reason[0] if reason is not None else NULL
        out.table_references = &table_references[0] if table_references is not None else NULL
        out.references = &references[0] if references is not None else NULL
        out.nested_references = &nested_references[0] if nested_references is not None else NULL
        make_requester(&who, source, pasid, access, at)
        enter_guard(&self.memory.guard)
        with nogil:
            translate_all(&self.unit, &who, &iovas[0], count, &out)
        leave_guard(&self.memory.guard)

    def translate(self, source, iovas, access=RIGHT_READ, *, pasid=None, at=0, out=None, columns=None):
        """Translate DMA addresses of one requester, one after the other, as requests of their own.

        Parameters
        ----------
        source : requester id: bus << 8 | device << 3 | function.
        iovas : integers 0 to 2**64 - 1, one dimension.
        access : 1 read, 2 write, 3 both (an atomic operation); + 4: a read of no bytes; + 8: privileged.
        pasid : of requests that carry one.
        at : 0 untranslated, 1 a translation request, 2 translated.
        out : dictionary of columns to write anew.
        columns : names of those to make; default: all of COLUMNS.

        Returns
        -------
        dict of arrays
            By column; `page_shift` is that of the first level and `nested_page_shift` that of the second, 0 where there
            is none. A request that is refused is recorded as a fault, never raised.

        Raises
        ------
        TypeError, ValueError
            An argument is not what it should be.
        """
        addresses = device_addresses(iovas)
        unknown = [name for name in columns or () if name not in COLUMNS]
        if unknown:
            raise ValueError(f"columns must be of {', '.join(COLUMNS)}, not {', '.join(map(repr, unknown))}")
        if out is None:
            out = {name: numpy.zeros(addresses.size, COLUMNS[name])
                   for name in (COLUMNS if columns is None else columns)}
        self.translate_into(source, addresses, access, pasid=pasid, at=at, **out)
        return out

    def read_memory(self, source, iova, size, *, pasid=None):
        """DMA read: bytes, all ones in pages that the unit refuses."""
        found = bytearray(checked(size, 0, <u64>1 << 62, "size"))
        self.copy(source, device_addresses(iova), found, RIGHT_READ, pasid)
        return bytes(found)

    def write_memory(self, source, iova, data, *, pasid=None):
        """DMA write: how many bytes of the buffer reached memory. Four bytes to an interrupt address are an MSI."""
        return self.copy(source, device_addresses(iova), data, RIGHT_WRITE, pasid)

    def read_batch(self, source, iovas, data, *, pasid=None):
        """`len(data) / len(iovas)` bytes from each address into a writable buffer; how many were granted."""
        return self.copy(source, device_addresses(iovas), data, RIGHT_READ, pasid)

    def write_batch(self, source, iovas, data, *, pasid=None):
        """`len(data) / len(iovas)` bytes to each address, in order; how many reached memory. Parts of four bytes to
        interrupt addresses are MSIs, as in `write_memory`."""
        return self.copy(source, device_addresses(iovas), data, RIGHT_WRITE, pasid)

    def copy(self, source, const u64[::1] iovas not None, data, access, pasid=None):
        """The same for either direction: RIGHT_READ fills `data`, RIGHT_WRITE takes from it.

        Raises ValueError if the buffer does not divide into equal parts, or one would end behind 2**64."""
        cdef Py_buffer buffer
        cdef requester_t who
        cdef u64 count = iovas.shape[0], copied = 0, part, i
        make_requester(&who, source, pasid, access, 0)
        PyObject_GetBuffer(data, &buffer,
                           PyBUF_ND | PyBUF_FORMAT | (0 if who.access & RIGHT_WRITE else PyBUF_WRITABLE))
        try:
            if buffer.format != NULL and strchr(buffer.format, b"O") != NULL:
                raise TypeError("data must be bytes or numbers, not references to Python objects")
            if count == 0 or <u64>buffer.len % count:
                raise ValueError(f"data of {buffer.len} bytes must divide into {count} equal parts")
            part = <u64>buffer.len // count
            for i in range(count):
                if part and iovas[i] > ~<u64>0 - (part - 1):
                    raise ValueError(f"iovas must leave room for {part} bytes below 2**64, not be {iovas[i]:#x}")
            enter_guard(&self.memory.guard)
            with nogil:
                if part == MESSAGE_BYTES and who.access & RIGHT_WRITE and who.pasid == <u32>NO_PASID:
                    copied = write_words(&self.unit, &who, &iovas[0], count, <u8*>buffer.buf)
                else:
                    copied = copy_all(&self.unit, &who, &iovas[0], count, <u8*>buffer.buf, part)
            leave_guard(&self.memory.guard)
        finally:
            PyBuffer_Release(&buffer)
        return copied


COLUMNS = {"gpa": numpy.uint64, "spa": numpy.uint64, "page_shift": numpy.uint8, "nested_page_shift": numpy.uint8,
           "status": numpy.uint8, "reason": numpy.uint8, "table_references": numpy.uint8, "references": numpy.uint8,
           "nested_references": numpy.uint8}
"""The columns of a batch and their types."""


include "iommu_devices.pxi"
