"""The I/O APIC: 24 pins, their redirection entries and how these become interrupts.

Intel 82093AA data sheet (290566), and version 20h of the later south bridges with its EOI register. Remappable entries
are those of the VT-d specification, 5.1.5.1; 15-bit destinations those of CPUID 40000082h.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.destination cimport widen_destination
from hvcore._native.irq.fabric cimport fabric_send, fabric_send_msi
from hvcore._native.irq.observer cimport SOURCE_IO_APIC
from hvcore._native.irq.pin_routes cimport route_of, send_routed
from hvcore._native.irq.platform_state cimport IOAPIC_PINS, ioapic_t, pin_route_t
from hvcore._native.irq.state cimport fabric_t, interrupt_message_t
from libc.string cimport memset

cdef enum:
    IOREGSEL = 0x00                     # offsets in its page
    IOWIN = 0x10
    IOEOI = 0x40                        # version 20h
    INDEX_ID = 0
    INDEX_VERSION = 1
    INDEX_ARBITRATION = 2
    INDEX_ENTRIES = 0x10                # two a pin
    VERSION_EOI = 0x20                  # from here on there is an EOI register

cdef enum:
    RTE_LOW_WRITABLE = 0x1AFFF          # all but delivery status (12) and remote IRR (14)
    RTE_LOGICAL = 1 << 11
    RTE_STATUS = 1 << 12
    RTE_ACTIVE_LOW = 1 << 13
    RTE_REMOTE_IRR = 1 << 14
    RTE_LEVEL = 1 << 15
    RTE_MASKED = 1 << 16
    RTE_REMAPPABLE = 1 << 16            # of the high half: bit 48
    MSI_BASE = 0xFEE00000
    MSI_REMAPPABLE = 1 << 4
    MODE_EXTINT = 7


cdef inline void ioapic_reset(ioapic_t *ioapic) noexcept nogil:
    """All entries are masked. What drives the pins drives them on."""
    cdef u32 pin
    ioapic.select = ioapic.id = ioapic.arbitration = 0
    ioapic.remote_irr = ioapic.waiting = 0
    ioapic.active = ioapic.lines
    for pin in range(<u32>IOAPIC_PINS):
        ioapic.entries[pin] = RTE_MASKED


cdef inline bint is_level(u64 entry) noexcept nogil:
    """Only fixed and lowest-priority interrupts have levels: SMI, NMI, INIT and ExtINT are edges (3.2.4)."""
    return entry & RTE_LEVEL and (entry >> 8) & 7 < 2


cdef inline void describe(const ioapic_t *ioapic, u64 entry, interrupt_message_t *message) noexcept nogil:
    """What an entry says when nothing remaps it."""
    memset(message, 0, sizeof(interrupt_message_t))
    message.destination = <u32>(entry >> 56)
    if ioapic.extended:
        message.destination |= <u32>((entry >> 49) & 0x7F) << 8
    message.destination = widen_destination(message.destination)
    message.vector = <u8>entry
    message.delivery_mode = (entry >> 8) & 7
    message.logical = entry & RTE_LOGICAL != 0
    message.level = is_level(entry)
    message.asserted = True


cdef inline int send_remapped(fabric_t *fabric, const ioapic_t *ioapic, u64 entry) noexcept nogil:
    """The request that a remapping unit gets: an MSI of the I/O APIC, in the format that bit 48 chooses."""
    cdef u64 address = MSI_BASE
    cdef u32 data = 0
    if (entry >> 32) & RTE_REMAPPABLE:
        address |= ((entry >> 49) & 0x7FFF) << 5 | ((entry >> 11) & 1) << 2 | MSI_REMAPPABLE
    else:
        address |= (entry >> 56) << 12 | ((entry >> 11) & 1) << 2
        data = <u32>entry & 0x7FF
    if is_level(entry):
        data |= 1 << 15 | 1 << 14
    return fabric_send_msi(fabric, ioapic.requester, address, data, SOURCE_IO_APIC)


cdef inline int send_entry(fabric_t *fabric, const ioapic_t *ioapic, u32 pin) noexcept nogil:
    """How many controllers accepted; -1: remapping refused.

    The hypervisor's table comes first. A handle that it does not have is a remapping unit's, if there is one."""
    cdef u64 entry = ioapic.entries[pin]
    cdef interrupt_message_t message
    cdef const pin_route_t *route = route_of(fabric.platform, entry)
    if route != NULL:
        fabric.platform.sent_to[pin] = route.fabric
        fabric.platform.sent_vector[pin] = route.vector
        return send_routed(route, is_level(entry))
    fabric.platform.sent_to[pin] = NULL
    if fabric.remap != NULL:
        return send_remapped(fabric, ioapic, entry)
    if fabric.platform.routes != NULL and (entry >> 32) & RTE_REMAPPABLE:
        return -1
    describe(ioapic, entry, &message)
    message.source = SOURCE_IO_APIC
    return fabric_send(fabric, NULL, &message)


cdef inline void deliver_level(fabric_t *fabric, ioapic_t *ioapic, u32 pin) noexcept nogil:
    """Send a level interrupt if its pin is active and no earlier one of it is on its way."""
    cdef u32 bit = <u32>1 << pin
    cdef u64 entry = ioapic.entries[pin]
    cdef int accepted
    if not ioapic.active & bit or entry & RTE_MASKED or not is_level(entry):
        ioapic.waiting &= ~bit
        return
    if ioapic.remote_irr & bit:
        return
    # Whoever accepts may end it at once, so the bits come first.
    ioapic.remote_irr |= bit
    ioapic.waiting &= ~bit
    accepted = send_entry(fabric, ioapic, pin)
    if accepted > 0:
        ioapic.counters[pin].delivered += 1
        return
    ioapic.remote_irr &= ~bit
    if accepted < 0:
        ioapic.counters[pin].blocked += 1
    else:
        ioapic.waiting |= bit
        ioapic.counters[pin].waiting += 1


cdef inline void deliver_edge(fabric_t *fabric, ioapic_t *ioapic, u32 pin) noexcept nogil:
    cdef int accepted = send_entry(fabric, ioapic, pin)
    if accepted > 0:
        ioapic.counters[pin].delivered += 1
    elif accepted < 0:
        ioapic.counters[pin].blocked += 1
    else:
        ioapic.counters[pin].lost += 1


cdef inline void pin_becomes_active(fabric_t *fabric, ioapic_t *ioapic, u32 pin) noexcept nogil:
    """An edge on a masked pin is lost; a level stays to be seen when the mask goes (3.2.4, bit 16)."""
    cdef u64 entry = ioapic.entries[pin]
    ioapic.counters[pin].asserted += 1
    if entry & RTE_MASKED:
        ioapic.counters[pin].masked += 1
    elif not is_level(entry):
        deliver_edge(fabric, ioapic, pin)
    else:
        if (ioapic.remote_irr >> pin) & 1:
            ioapic.counters[pin].held += 1
        deliver_level(fabric, ioapic, pin)


cdef inline void look_at_pin(fabric_t *fabric, ioapic_t *ioapic, u32 pin) noexcept nogil:
    """After the line or the polarity has changed."""
    cdef u32 bit = <u32>1 << pin
    cdef bint inverted = ioapic.entries[pin] & RTE_ACTIVE_LOW != 0
    cdef bint active = (ioapic.lines & bit != 0) != inverted
    if active == (ioapic.active & bit != 0):
        return
    ioapic.active ^= bit
    if active:
        pin_becomes_active(fabric, ioapic, pin)
    else:
        ioapic.waiting &= ~bit


cdef inline void ioapic_set_pin(fabric_t *fabric, ioapic_t *ioapic, u32 pin, bint high) noexcept nogil:
    """A source drives a pin."""
    cdef u32 bit = <u32>1 << pin
    if high and ioapic.lines & bit:
        ioapic.counters[pin].merged += 1
        return
    ioapic.lines = ioapic.lines | bit if high else ioapic.lines & ~bit
    look_at_pin(fabric, ioapic, pin)


cdef inline bint is_ended(const fabric_t *fabric, u32 pin, const fabric_t *ended_by, u32 vector) noexcept nogil:
    """Whether an EOI means this pin. `ended_by`: whose processors broadcast it; NULL: the EOI register, which knows
    nothing but the entry."""
    if ended_by == NULL or fabric.platform.sent_to[pin] == NULL:
        return (ended_by == NULL or ended_by == fabric) and <u8>fabric.platform.ioapic.entries[pin] == vector
    return fabric.platform.sent_to[pin] == <const void *>ended_by and fabric.platform.sent_vector[pin] == vector


cdef inline bint ioapic_eoi(fabric_t *fabric, ioapic_t *ioapic, const fabric_t *ended_by, u32 vector) noexcept nogil:
    """An EOI of a vector: every level entry of that vector may send again, and does if its pin is still active. False:
    there was none."""
    cdef bint found = False
    cdef u32 pin
    for pin in range(<u32>IOAPIC_PINS):
        if (ioapic.remote_irr >> pin) & 1 and is_level(ioapic.entries[pin]) \
                and is_ended(fabric, pin, ended_by, vector):
            ioapic.remote_irr &= ~(<u32>1 << pin)
            ioapic.counters[pin].eois += 1
            deliver_level(fabric, ioapic, pin)
            found = True
    return found


cdef inline void ioapic_reroute(fabric_t *fabric, ioapic_t *ioapic, const fabric_t *gone) noexcept nogil:
    """The table has changed: levels that nobody took may find somebody now. From `gone` no EOI comes any more."""
    cdef u32 pin
    for pin in range(<u32>IOAPIC_PINS):
        if gone != NULL and fabric.platform.sent_to[pin] == <const void *>gone:
            ioapic.remote_irr &= ~(<u32>1 << pin)
        deliver_level(fabric, ioapic, pin)


cdef inline u64 ioapic_entry(const ioapic_t *ioapic, u32 pin) noexcept nogil:
    """An entry as it is read."""
    return (ioapic.entries[pin] | (RTE_REMOTE_IRR if (ioapic.remote_irr >> pin) & 1 else 0)
            | (RTE_STATUS if (ioapic.waiting >> pin) & 1 else 0))


cdef inline void write_entry(fabric_t *fabric, ioapic_t *ioapic, u32 pin, u64 entry) noexcept nogil:
    """A new entry meets the pin as it is: an active level is sent, an edge that has passed is not.

    Leaving level mode forgets remote IRR, the way in which software ends an interrupt without an EOI register."""
    ioapic.entries[pin] = entry
    if not is_level(entry):
        ioapic.remote_irr &= ~(<u32>1 << pin)
    look_at_pin(fabric, ioapic, pin)
    deliver_level(fabric, ioapic, pin)


cdef inline void ioapic_write_register(fabric_t *fabric, ioapic_t *ioapic, u32 index, u32 value) noexcept nogil:
    """The register that IOREGSEL names."""
    cdef u32 pin = (index - INDEX_ENTRIES) >> 1
    cdef u64 writable
    if index == INDEX_ID:
        ioapic.id = ioapic.arbitration = (value >> 24) & 15
    elif index >= INDEX_ENTRIES and pin < IOAPIC_PINS:
        if not index & 1:
            write_entry(fabric, ioapic, pin, (ioapic.entries[pin] & ~<u64>0xFFFFFFFF) | (value & RTE_LOW_WRITABLE))
            return
        writable = 0xFF000000
        if ioapic.extended:
            writable |= 0x00FE0000
        if fabric.remap != NULL or fabric.platform.routes != NULL:
            writable |= 0x00FF0000
        write_entry(fabric, ioapic, pin, <u32>ioapic.entries[pin] | (value & writable) << 32)


cdef inline u32 ioapic_read_register(const ioapic_t *ioapic, u32 index) noexcept nogil:
    cdef u32 pin = (index - INDEX_ENTRIES) >> 1
    if index == INDEX_ID:
        return <u32>ioapic.id << 24
    if index == INDEX_VERSION:
        return (<u32>IOAPIC_PINS - 1) << 16 | ioapic.version
    if index == INDEX_ARBITRATION:
        return <u32>ioapic.arbitration << 24
    if index < INDEX_ENTRIES or pin >= IOAPIC_PINS:
        return 0
    return <u32>(ioapic_entry(ioapic, pin) >> (32 if index & 1 else 0))


cdef inline u32 ioapic_read(const ioapic_t *ioapic, u32 offset) noexcept nogil:
    """One of its dwords."""
    if offset == IOREGSEL:
        return ioapic.select
    return ioapic_read_register(ioapic, ioapic.select) if offset == IOWIN else 0


cdef inline bint ioapic_write(fabric_t *fabric, ioapic_t *ioapic, u32 offset, u32 value) noexcept nogil:
    """False: there is no such register."""
    if offset == IOREGSEL:
        ioapic.select = <u8>value
    elif offset == IOWIN:
        ioapic_write_register(fabric, ioapic, ioapic.select, value)
    elif offset == IOEOI and ioapic.version >= VERSION_EOI:
        ioapic_eoi(fabric, ioapic, NULL, value & 0xFF)
    else:
        return False
    return True
