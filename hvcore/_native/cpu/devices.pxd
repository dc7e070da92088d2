"""Memory that native devices answer: the register page of the processor's own APIC, and the partition's I/O APIC.

Both lie over whatever is mapped there (hyperv-abi 10.1: the APIC page is the highest-priority overlay). Such a place
has a number instead of an SPA, beyond all memory; where the APIC page is mapped, the TLB's `known` table remembers it.
Of the APIC page an aligned access to four bytes is promised. Of other reads, bytes 4 to 15 of each register are 0;
other writes are dropped and counted (SDM 3A 11.4.1 leaves both undefined).
"""
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.state cimport op_t, vp_t
from hvcore._native.irq.apic_base cimport is_apic_page
from hvcore._native.irq.apic_registers cimport read_xapic, write_xapic
from hvcore._native.irq.platform cimport platform_owns_memory, platform_read_memory, platform_write_memory
from hvcore._native.irq.state cimport irq_t
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK
from hvcore._native.mem.tlb cimport known_entry_t, tlb_slot
from libc.string cimport memcpy, memset

cdef enum:
    NO_MEMORY = -1              # instead of an SPA: device memory that nobody here answers
    APIC_FRAME = -0x2000        # with the offset in the page
    PLATFORM_FRAME = -0x3000


cdef inline bint is_memory(u64 spa) noexcept nogil:
    return spa < <u64>PLATFORM_FRAME


cdef inline bint is_native_device(u64 spa) noexcept nogil:
    return not is_memory(spa) and spa != <u64>NO_MEMORY


cdef inline u64 native_device_at(const vp_t* vp, u64 gpa) noexcept nogil:
    """The number of the place, or zero if no native device is there."""
    if is_apic_page(vp.irq, gpa):
        return <u64>APIC_FRAME | (gpa & PAGE_OFFSET_MASK)
    if platform_owns_memory(vp.irq.fabric, gpa):
        return <u64>PLATFORM_FRAME | (gpa & PAGE_OFFSET_MASK)
    return 0


cdef inline bint is_known_apic(const vp_t* vp, u64 gva) noexcept nogil:
    """The APIC page has been written through this GVA before, and still may be."""
    cdef const known_entry_t* known = &vp.own_tlb.known[tlb_slot(gva)]
    return known.tag == gva & ~<u64>PAGE_OFFSET_MASK and known.spa == <u64>APIC_FRAME


cdef inline u64 time_of_access(const vp_t* vp) noexcept nogil:
    """Virtual time at the start of the instruction that accesses memory; of one that left no trace, the block's end."""
    cdef const op_t* op = vp.accessing
    cdef u64 end = vp.slice_end - <u64>vp.remaining
    if vp.block == NULL or op < &vp.block.operations[0] or op >= &vp.block.operations[vp.block.operation_count]:
        return end
    return end - <u64>(vp.block.count - op.position)


cdef inline u64 tell_access(const vp_t* vp) noexcept nogil:
    """Who acts on interrupt controllers, and when."""
    cdef u64 now = time_of_access(vp)
    vp.irq.time = vp.irq.fabric.clock.now = now
    return now


cdef inline void read_apic_bytes(irq_t* irq, u32 offset, u8* target, u32 size_bytes, u64 now) noexcept nogil:
    """Any bytes of the page."""
    cdef u32 value = 0, i, register = 0xFFFFFFFF
    for i in range(size_bytes):
        if (offset + i) >> 4 != register:
            register = (offset + i) >> 4
            value = read_xapic(irq, register, now)
        target[i] = <u8>(value >> (8 * ((offset + i) & 15))) if (offset + i) & 15 < 4 else 0


cdef inline void device_read(vp_t* vp, u64 place, u64 gpa, u8* target, u32 size_bytes) noexcept nogil:
    cdef u64 now = tell_access(vp), value
    cdef u32 offset = place & PAGE_OFFSET_MASK, register
    if place >= <u64>APIC_FRAME:
        if size_bytes == 4 and offset & 15 == 0:
            register = read_xapic(vp.irq, offset >> 4, now)
            memcpy(target, &register, 4)
        else:
            read_apic_bytes(vp.irq, offset, target, size_bytes, now)
    else:
        memset(target, 0, size_bytes)
        value = platform_read_memory(vp.irq.fabric, gpa, min(size_bytes, <u32>8))
        memcpy(target, &value, min(size_bytes, <u32>8))


cdef inline void device_write(vp_t* vp, u64 place, u64 gpa, const u8* source, u32 size_bytes) noexcept nogil:
    cdef u64 now = tell_access(vp), value = 0
    cdef u32 offset = place & PAGE_OFFSET_MASK
    memcpy(&value, source, min(size_bytes, <u32>8))
    if place < <u64>APIC_FRAME:
        platform_write_memory(vp.irq.fabric, gpa, min(size_bytes, <u32>8), value)
    elif size_bytes == 4 and offset & 15 == 0:
        write_xapic(vp.irq, offset >> 4, <u32>value, now)
    else:
        vp.irq.counters.apic_accesses_ignored += 1
