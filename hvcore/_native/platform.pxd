"""The native face of `platform`: the struct behind its object, for the partition that it is attached to."""
from hvcore._native.base.types cimport u16, u32, u64
from hvcore._native.irq.clock cimport clock_t
from hvcore._native.irq.platform_state cimport pin_route_t, platform_t
from hvcore._native.irq.state cimport fabric_t, machine_event_t


cdef class InterruptPlatform:
    cdef platform_t platform
    cdef machine_event_t event      # its deadline; the scheduler of the partition keeps a pointer while it is attached
    cdef fabric_t* fabric           # of that partition ...
    cdef clock_t own_clock          # ... or its own, without processors
    cdef fabric_t own_fabric
    cdef tuple receivers            # who owns the fabrics that the routing table names, this partition's excepted
    cdef void join(self, fabric_t* fabric) noexcept
    cdef void leave(self) noexcept
    cdef void take_routes(self, pin_route_t* routes, u32 count, tuple receivers) noexcept
    cdef void tell_receivers(self, fabric_t* beyond) noexcept
    cdef void reroute(self, fabric_t* gone) noexcept
    cdef bint end_of(self, const fabric_t* fabric, u32 vector) noexcept
    cdef u32 outer_pin(self, pin) except? 0xBAD
    cdef u64 own_gpa(self, gpa) except? 0xBAD
    cdef u16 own_port(self, port) except? 0xBAD
    cdef u32 power(self, size, u32 highest) except? 0xBAD
