"""The native face of irqchip: the structs behind its objects. What to do with them is in the rooms irq/*.pxd.

The engine takes the pointer once, keeps a reference to the object beside it, and works without the GIL from then on.
"""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.clock cimport clock_t
from hvcore._native.irq.observer cimport observer_t, trace_ring_t
from hvcore._native.irq.state cimport fabric_t, irq_t, message_port_t


cdef class MessagePort:
    cdef message_port_t port


cdef class Synic:
    cdef irq_t irq


cdef class InterruptController(Synic):
    cdef tuple pages                # the borrowed buffers of the SIM, SIEF, event ring and assist page
    cdef object observation         # who owns irq.observer
    cdef clock_t own_clock          # of a controller that belongs to no partition ...
    cdef fabric_t own_fabric
    cdef irq_t *alone
    cdef object owner               # ... or who owns the fabric
    cdef void join(self, fabric_t *fabric, object owner, u32 index) noexcept
    cdef void leave(self) noexcept


cdef class InterruptObservation:
    cdef trace_ring_t ring
    cdef u64* edges
    cdef u32 edge_count
    cdef u32 buckets
    cdef observer_t* observer_of(self, InterruptController controller) except NULL


cdef int connect_controller(fabric_t *fabric, InterruptController controller, object owner, u32 index) except -1
cdef irq_t *irq_of(InterruptController controller) noexcept
cdef message_port_t *port_of(MessagePort port) noexcept
cdef u64 checked(object value, u64 lowest, u64 highest, str name) except? 0xBAD
