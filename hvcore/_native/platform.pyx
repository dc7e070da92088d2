# cython: language_level=3, auto_pickle=False
"""The interrupt hardware around the processors of one partition: I/O APIC, 8259 pair, 8254.

The object holds the struct of the irq room and translates between it and Python; every rule is in the room. Attached
to a partition its registers are where a PC has them; on its own it has a clock that `advance` moves, and no processor.
"""
cimport cython

from hvcore._native.base.types cimport u16, u32, u64
from hvcore._native.irq.clock cimport never_ticks
from hvcore._native.irq.ioapic cimport (
    ioapic_entry, ioapic_eoi, ioapic_read_register, ioapic_reroute, ioapic_write_register,
)
from hvcore._native.irq.lvt cimport set_external_line
from hvcore._native.irq.pic cimport pic_requests
from hvcore._native.irq.platform cimport (
    platform_acknowledge, platform_act, platform_arm, platform_eoi, platform_owns_memory, platform_owns_port,
    platform_read_memory, platform_read_port, platform_reset, platform_set_pin, platform_sync,
    platform_write_memory, platform_write_port,
)
from hvcore._native.irq.pin_routes cimport entry_identity
from hvcore._native.irq.platform_state cimport (
    IOAPIC_ADDRESS, IOAPIC_GSI_BASE, IOAPIC_PINS, PIN_PIC, PIN_TIMER, pic_t, pin_route_t,
)
from hvcore._native.irq.state cimport fabric_t, machine_event_t
from hvcore._native.irqchip cimport checked
from hvcore._native.space cimport require_thread
from libc.stdlib cimport free

GSI_BASE = IOAPIC_GSI_BASE
PINS = IOAPIC_PINS
ADDRESS = <u32>IOAPIC_ADDRESS
TIMER_PIN = PIN_TIMER
ENTRY_IDENTITY = entry_identity(~<u64>0)
"""What an interrupt of the I/O APIC is known by among the bits of its redirection entry."""


cdef bint end_routed(fabric_t* fabric, const fabric_t* ended_by, u32 vector) noexcept nogil:
    """An EOI of a level-triggered vector, as the platform of `fabric` hears it from the processors of `ended_by`."""
    platform_sync(fabric)
    return ioapic_eoi(fabric, &fabric.platform.ioapic, ended_by, vector)


cdef void end_level(void* ended_by, u32 vector) noexcept nogil:
    cdef fabric_t* fabric = <fabric_t*>ended_by
    end_routed(fabric, fabric, vector)
    if fabric.platform.beyond != NULL:
        end_routed(<fabric_t*>fabric.platform.beyond, fabric, vector)


cdef void act(machine_event_t* event, u64 now) noexcept nogil:
    platform_act(event, now)


# SAFETY: rows of the routing table point into the objects of `receivers`; no_gc_clear keeps those until __dealloc__.
@cython.final
@cython.no_gc_clear
cdef class InterruptPlatform:
    """I/O APIC, 8259 pair and 8254 of one partition.

    ISA interrupt n is input n of the 8259 pair and pin n of the I/O APIC. Pins 0 and 2 are driven inside: by the INT
    output of the 8259 pair, and by counter 0 of the 8254, which is ISA interrupt 0.

    Parameters
    ----------
    version : int
        Of the I/O APIC: 11h is the 82093AA; from 20h on it has an EOI register.
    requester : int
        Requester id with which the I/O APIC asks an interrupt remapping unit.
    extended_destinations : bool
        Bits 55:49 of an entry are destination bits 14:8 (CPUID 40000082h EAX.b2).

    Raises
    ------
    TypeError, ValueError
        An argument is not an integer or out of range.

    Examples
    --------
    >>> platform = InterruptPlatform()
    >>> platform.write_register(0x10 + 2 * 4, 0x8030)       # pin 4: level-triggered, vector 30h
    >>> platform.set_pin(4, True)
    >>> platform.pin_counters(4)["asserted"]
    1
    """

    def __cinit__(self, *, version=0x20, requester=0, bint extended_destinations=False):
        self.platform.ioapic.version = checked(version, 0x11, 0x2F, "version")
        self.platform.ioapic.requester = checked(requester, 0, 0xFFFF, "requester")
        self.platform.ioapic.extended = extended_destinations
        self.platform.deadline = &self.event.deadline
        self.own_fabric.clock = &self.own_clock
        self.own_fabric.platform = &self.platform
        self.event.run = act
        self.platform.end_level = end_level
        self.leave()
        platform_reset(self.fabric)

    def __dealloc__(self):
        free(self.platform.routes)

    cdef void join(self, fabric_t* fabric) noexcept:
        """Become the platform of `fabric`, and follow its clock from now on."""
        self.fabric = fabric
        self.event.owner = fabric
        fabric.platform = &self.platform
        set_external_line(fabric, self.platform.pics[0].output)
        platform_sync(fabric)
        platform_arm(fabric)

    cdef void leave(self) noexcept:
        """Be on its own; nobody reaches it any more but Python, and it has no row of the routing table."""
        self.platform.beyond = NULL
        self.take_routes(NULL, 0, ())
        if self.fabric != NULL:
            self.own_clock.now = self.fabric.clock.now
            set_external_line(self.fabric, False)
            self.fabric.platform = NULL
        self.own_fabric.platform = &self.platform
        self.fabric = &self.own_fabric
        self.event.owner = self.fabric

    cdef void take_routes(self, pin_route_t* routes, u32 count, tuple receivers) noexcept:
        """Have these rows of the routing table, which it frees, from now on. `receivers` own their fabrics."""
        self.tell_receivers(NULL)
        free(self.platform.routes)
        self.platform.routes, self.platform.route_count, self.receivers = routes, count, receivers
        self.tell_receivers(self.fabric)

    cdef void tell_receivers(self, fabric_t* beyond) noexcept:
        """EOIs of partitions that have an I/O APIC of their own come to `beyond`, too."""
        cdef fabric_t* fabric
        cdef u32 i
        for i in range(self.platform.route_count):
            fabric = <fabric_t*>self.platform.routes[i].fabric
            if fabric != self.fabric and fabric.platform != NULL:
                fabric.platform.beyond = beyond

    cdef void reroute(self, fabric_t* gone) noexcept:
        """The rows have changed; from `gone` no EOI comes any more."""
        platform_sync(self.fabric)
        ioapic_reroute(self.fabric, &self.platform.ioapic, gone)

    cdef bint end_of(self, const fabric_t* fabric, u32 vector) noexcept:
        """A processor of another partition ended a level; whether that came from here."""
        return end_routed(self.fabric, fabric, vector)

    @property
    def attached(self):
        """Whether it belongs to a partition."""
        return self.fabric != &self.own_fabric

    @property
    def requester(self):
        """Requester id of the I/O APIC for interrupt remapping."""
        return self.platform.ioapic.requester

    @requester.setter
    def requester(self, value):
        require_thread(self.fabric.clock.guard)
        self.platform.ioapic.requester = checked(value, 0, 0xFFFF, "requester")

    @property
    def extended_destinations(self):
        """15-bit destination ids in entries."""
        return self.platform.ioapic.extended != 0

    def reset(self):
        """All chips as after power-up. Lines that devices drive stay, and counters go on counting."""
        require_thread(self.fabric.clock.guard)
        platform_reset(self.fabric)

    def set_pin(self, pin, bint high):
        """Drive the line to a pin of the I/O APIC, below 16 also to the 8259 input of that ISA interrupt.

        Raises
        ------
        ValueError
            `pin` is not 0 to 23, or is 0 or 2, which are driven inside.
        """
        require_thread(self.fabric.clock.guard)
        platform_set_pin(self.fabric, self.outer_pin(pin), high)

    def pulse(self, pin):
        """One edge: high, and low again. The 8259 asks for a line that stays high until it is acknowledged."""
        require_thread(self.fabric.clock.guard)
        cdef u32 number = self.outer_pin(pin)
        platform_set_pin(self.fabric, number, True)
        platform_set_pin(self.fabric, number, False)

    cdef u32 outer_pin(self, pin) except? 0xBAD:
        cdef u32 number = <u32>checked(pin, 0, IOAPIC_PINS - 1, "pin")
        if number == PIN_PIC or number == PIN_TIMER:
            raise ValueError(f"pin must not be {number}: the 8259 pair drives 0 and the 8254 drives 2")
        return number

    def pin_level(self, pin):
        """Whether the line to a pin is high now."""
        require_thread(self.fabric.clock.guard)
        platform_sync(self.fabric)
        return (self.platform.ioapic.lines >> <u32>checked(pin, 0, IOAPIC_PINS - 1, "pin")) & 1 != 0

    @property
    def entries(self):
        """The 24 redirection entries as a tuple of 64-bit integers, with delivery status (b12) and remote IRR (b14)."""
        require_thread(self.fabric.clock.guard)
        platform_sync(self.fabric)
        return tuple([ioapic_entry(&self.platform.ioapic, pin) for pin in range(IOAPIC_PINS)])

    def read_register(self, index):
        """A 32-bit register of the I/O APIC by its index (0 ID, 1 VER, 2 ARB, 10h on: entries), IOREGSEL untouched."""
        require_thread(self.fabric.clock.guard)
        platform_sync(self.fabric)
        return ioapic_read_register(&self.platform.ioapic, <u32>checked(index, 0, 0xFF, "index"))

    def write_register(self, index, value):
        """Write a 32-bit register of the I/O APIC by its index, IOREGSEL untouched."""
        require_thread(self.fabric.clock.guard)
        cdef u32 at = <u32>checked(index, 0, 0xFF, "index")
        cdef u32 data = <u32>checked(value, 0, 0xFFFFFFFF, "value")
        platform_sync(self.fabric)
        ioapic_write_register(self.fabric, &self.platform.ioapic, at, data)
        platform_arm(self.fabric)

    def read_memory(self, gpa, size=4):
        """What a load of `size` bytes (1, 2, 4, 8) gets from the I/O APIC's page at FEC00000h."""
        require_thread(self.fabric.clock.guard)
        return platform_read_memory(self.fabric, self.own_gpa(gpa), self.power(size, 8))

    def write_memory(self, gpa, value, size=4):
        """A store of `size` bytes (1, 2, 4, 8) to the I/O APIC's page at FEC00000h."""
        require_thread(self.fabric.clock.guard)
        cdef u64 address = self.own_gpa(gpa)
        cdef u32 width = self.power(size, 8)
        platform_write_memory(self.fabric, address, width, checked(value, 0, ~<u64>0 >> (64 - 8 * width), "value"))

    cdef u64 own_gpa(self, gpa) except? 0xBAD:
        cdef u64 address = checked(gpa, 0, ~<u64>0, "gpa")
        if not platform_owns_memory(self.fabric, address):
            raise ValueError(f"gpa must be in the I/O APIC's page at {ADDRESS:#x}, not {address:#x}")
        return address

    cdef u32 power(self, size, u32 highest) except? 0xBAD:
        cdef u32 number = <u32>checked(size, 1, highest, "size")
        if number & (number - 1):
            raise ValueError(f"size must be a power of two, not {number}")
        return number

    cdef u16 own_port(self, port) except? 0xBAD:
        cdef u16 number = <u16>checked(port, 0, 0xFFFF, "port")
        if not platform_owns_port(self.fabric, number):
            raise ValueError(f"port must be one of the 8259 pair, ELCR, 8254 or 61h, not {number:#x}")
        return number

    def read_port(self, port, size=1):
        """IN from 20h, 21h, A0h, A1h, 4D0h, 4D1h, 40h-43h or 61h; a wider access takes the following ports along."""
        require_thread(self.fabric.clock.guard)
        return platform_read_port(self.fabric, self.own_port(port), self.power(size, 4))

    def write_port(self, port, value, size=1):
        """OUT to one of those ports."""
        require_thread(self.fabric.clock.guard)
        cdef u16 number = self.own_port(port)
        cdef u32 width = self.power(size, 4)
        platform_write_port(self.fabric, number, width, checked(value, 0, ~<u64>0 >> (64 - 8 * width), "value"))

    def eoi(self, vector):
        """An EOI broadcast, as local APICs send it for level-triggered vectors."""
        require_thread(self.fabric.clock.guard)
        platform_eoi(self.fabric, <u32>checked(vector, 0, 255, "vector"))

    @property
    def intr(self):
        """The INT output of the 8259 pair: the wire to LINT0 of the bootstrap processor, and pin 0."""
        require_thread(self.fabric.clock.guard)
        platform_sync(self.fabric)
        return self.platform.pics[0].output != 0

    def acknowledge(self):
        """The processor's acknowledge cycle: the vector of the 8259 pair. Without a request a spurious one."""
        require_thread(self.fabric.clock.guard)
        return platform_acknowledge(self.fabric)

    @property
    def pics(self):
        """Master and slave, each a dict: irr, isr, imr, elcr, its four ICWs and the rest of its state."""
        require_thread(self.fabric.clock.guard)
        platform_sync(self.fabric)
        return describe_pic(&self.platform.pics[0]), describe_pic(&self.platform.pics[1])

    def next_deadline(self):
        """Ticks at which OUT of counter 0 changes next; None if both of its interrupts are masked or it stands."""
        return None if self.event.deadline == never_ticks() else self.event.deadline

    def advance(self, now):
        """Let time pass on a platform that is attached to no partition, up to `now` ticks.

        Raises
        ------
        ValueError
            It is attached: its time is that of the machine. Or `now` lies behind its clock.
        """
        require_thread(self.fabric.clock.guard)
        if self.fabric != &self.own_fabric:
            raise ValueError("a platform that is attached to a partition follows the machine's clock")
        cdef u64 until = checked(now, self.own_clock.now, ~<u64>0, "now")
        while self.event.deadline <= until and self.event.deadline != never_ticks():
            self.own_clock.now = self.event.deadline
            act(&self.event, self.own_clock.now)
        self.own_clock.now = until
        platform_sync(self.fabric)
        platform_arm(self.fabric)

    def pin_counters(self, pin):
        """What happened to a pin since creation: asserted, delivered, merged, held, masked, lost, and so on."""
        return self.platform.ioapic.counters[<u32>checked(pin, 0, IOAPIC_PINS - 1, "pin")]

    def counters(self):
        """Sums over the pins, what both 8259s counted, and interrupts of the 8254. The keys are always the same."""
        total = dict.fromkeys(self.pin_counters(0), 0)
        for pin in range(IOAPIC_PINS):
            for key, value in self.pin_counters(pin).items():
                total[key] += value
        for index, chip in enumerate(("master", "slave")):
            counts = self.platform.pics[<u32>index].counters
            total.update({f"{chip}_{key}": value for key, value in counts.items()})
        total["timer_interrupts"] = self.platform.timer_interrupts
        total["accesses_ignored"] = self.platform.accesses_ignored
        return total


cdef dict describe_pic(const pic_t* pic):
    return {
        "irr": pic_requests(pic), "isr": pic.isr, "imr": pic.imr, "elcr": pic.level, "lines": pic.lines,
        "icw1": pic.icw1, "icw2": pic.icw2, "icw3": pic.icw3, "icw4": pic.icw4, "lowest": pic.lowest,
        "special_mask": pic.special_mask != 0, "rotates": pic.rotates != 0, "ready": pic.ready and not pic.next_icw,
    }
