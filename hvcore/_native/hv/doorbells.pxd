"""Doorbells: a write that matches a connection puts the id of its port into an event ring of the root (digest 9.5)."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.hv.ports cimport ANY_VP, controller_of, is_alive
from hvcore._native.hv.sorted_table cimport sorted_table_t, table_position
from hvcore._native.hv.state cimport connection_t, partition_t, port_t
from hvcore._native.irq.ring cimport irq_accepts_rings, ring_announce, ring_append
from hvcore._native.irq.state cimport fabric_t, irq_t


cdef inline irq_t* ring_holder(const port_t* port) noexcept nogil:
    """The virtual processor whose ring takes the port's id: with HV_ANY_VP the lowest that reads one, or the lowest."""
    cdef const fabric_t* fabric = &port.owner.fabric
    cdef u32 i
    if port.vp_index != <u32>ANY_VP:
        return controller_of(fabric, port.vp_index)
    for i in range(fabric.count):
        if irq_accepts_rings(fabric.controllers[i]):
            return fabric.controllers[i]
    return fabric.controllers[0] if fabric.count else NULL


cdef inline bint port_ring(port_t* port) noexcept nogil:
    """The doorbell was rung. What a full ring cannot take waits for HvCallNotifyPortRingEmpty. False: nobody hears it,
    since the virtual processor of the port is gone."""
    cdef irq_t* irq = ring_holder(port)
    if irq is NULL:
        return False
    if not ring_append(irq, port.sint, port.id):
        irq.counters.rings_merged += port.ring_waits
        irq.counters.rings_delayed += not port.ring_waits
        port.ring_waits = True
    ring_announce(irq, port.sint)
    return True


cdef inline bint partition_rings(partition_t* sender, u64 gpa, u32 size_bytes, u64 value) noexcept nogil:
    """A write of the guest: whether a doorbell took it."""
    cdef const sorted_table_t* doorbells = &sender.doorbells
    cdef u32 position = table_position(doorbells, gpa)
    cdef connection_t* connection
    while position < doorbells.count and doorbells.entries[position].key == gpa:
        connection = <connection_t*>doorbells.entries[position].item
        if connection.size_bytes in (0, size_bytes) and (connection.any_value or connection.value == value) \
                and is_alive(connection):
            return port_ring(connection.port)
        position += 1
    return False


cdef inline void ring_emptied(partition_t* owner, irq_t* irq, u32 sint) noexcept nogil:
    """HvCallNotifyPortRingEmpty: doorbells that found the ring full are put into it now, as many as fit."""
    cdef port_t* port
    cdef u32 i
    cdef bint appended = False
    for i in range(owner.ports.count):
        port = <port_t*>owner.ports.entries[i].item
        if port.ring_waits and port.sint == sint and ring_holder(port) is irq:
            if not ring_append(irq, sint, port.id):
                break
            port.ring_waits = False
            appended = True
    if appended:
        ring_announce(irq, sint)
