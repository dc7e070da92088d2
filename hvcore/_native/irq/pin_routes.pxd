"""Entries of the machine's I/O APIC that the hypervisor's routing table has: where their interrupts go instead.

HvCallMapDeviceInterrupt and HvCallRetargetDeviceInterrupt make them (hyperv-abi 4.11); hvcore/routing.py keeps the
table. An entry is known by what it sends, whichever pin it is programmed at. A target is looked for when the interrupt
is sent, so that a processor may come and go.
"""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.fabric cimport receive_message
from hvcore._native.irq.lapic cimport irq_priority
from hvcore._native.irq.observer cimport SOURCE_IO_APIC
from hvcore._native.irq.platform_state cimport pin_route_t, platform_t
from hvcore._native.irq.state cimport fabric_t, interrupt_message_t, irq_t
from libc.string cimport memset

cdef enum:
    IDENTITY_LOW = 0xFFF            # vector, delivery mode, destination mode (in remappable format handle[15])
    IDENTITY_HIGH = 0xFFFF          # of [63:48]: format and handle, or destination


cdef inline u64 entry_identity(u64 entry) noexcept nogil:
    """What names an interrupt: neither mask, trigger and polarity nor the status bits."""
    return entry & (<u64>IDENTITY_HIGH << 48 | IDENTITY_LOW)


cdef inline const pin_route_t *route_of(const platform_t *platform, u64 entry) noexcept nogil:
    """The row of the table that has this entry, or NULL."""
    cdef u64 identity = entry_identity(entry)
    cdef u32 i
    for i in range(platform.route_count):
        if platform.routes[i].identity == identity:
            return &platform.routes[i]
    return NULL


cdef inline int send_routed(const pin_route_t *route, bint level) noexcept nogil:
    """Request the interrupt: of all processors with multicast, else of the one of lowest priority, and of equals the
    first. How many accepted."""
    cdef fabric_t *fabric = <fabric_t *>route.fabric
    cdef interrupt_message_t message
    cdef irq_t *irq
    cdef irq_t *best = NULL
    cdef int accepted = 0
    cdef u32 i
    memset(&message, 0, sizeof(message))
    message.vector, message.level, message.source = route.vector, level, SOURCE_IO_APIC
    for i in range(fabric.count):
        irq = fabric.controllers[i]
        if not (route.vps[irq.index >> 6] >> (irq.index & 63)) & 1:
            continue
        if route.multicast:
            accepted += receive_message(irq, &message)
        elif best == NULL or irq_priority(irq) < irq_priority(best):
            best = irq
    return receive_message(best, &message) if best != NULL else accepted
