"""The event rings of a virtual processor: ids of ports whose doorbell was rung, a ring for each SINT (digest 9.5)."""
from hvcore._native.base.types cimport u32
from hvcore._native.irq.spec cimport RING_SLOT_COUNT, SYNIC_ENABLE, event_ring_t
from hvcore._native.irq.state cimport irq_t
from hvcore._native.irq.observer cimport SOURCE_EVENT
from hvcore._native.irq.synic cimport announce_sint


cdef inline bint irq_accepts_rings(const irq_t *irq) noexcept nogil:
    """SynIC and event ring page are enabled. The rings are filled in any case: nothing that rings is lost."""
    return irq.event_ring is not NULL and irq.synic.control & irq.sirbp & SYNIC_ENABLE


cdef inline bint ring_append(irq_t *irq, u32 sint, u32 port_id) noexcept nogil:
    """Put a port id into the next slot. False: that one is still taken, and the ring is marked full."""
    cdef event_ring_t *ring = &(<event_ring_t *>irq.event_ring)[sint]
    cdef u32 head = irq.ring_heads[sint]
    if ring.port_ids[head]:
        ring.full = 1
        return False
    ring.port_ids[head] = port_id
    irq.ring_heads[sint] = (head + 1) % RING_SLOT_COUNT
    irq.counters.rings += 1
    return True


cdef inline void ring_announce(irq_t *irq, u32 sint) noexcept nogil:
    """The interrupt of the SINT, unless the reader masked it; until it unmasks, it is told no more."""
    cdef event_ring_t *ring = &(<event_ring_t *>irq.event_ring)[sint]
    if ring.masked or not irq.synic.control & SYNIC_ENABLE:
        return
    ring.masked = 1
    announce_sint(irq, sint, SOURCE_EVENT)
