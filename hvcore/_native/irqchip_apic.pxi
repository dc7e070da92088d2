# Chapter of irqchip.pyx: the local APIC as its page and its MSRs show it, and controllers that reach each other.

cdef enum:
    PAGE_END = 4096
    MSR_BASE = 0x1B
    MSR_DEADLINE = 0x6E0
    MSR_FIRST = 0x800
    MSR_LAST = 0x8FF
    PHYSICAL_BITS = 46


cdef int connect_controller(fabric_t *fabric, InterruptController controller, object owner, u32 index) except -1:
    """Make a controller one of a fabric that lives as long as `owner`, in the order of VP indices."""
    cdef irq_t **grown = <irq_t **>realloc(fabric.controllers, (fabric.count + 1) * sizeof(irq_t *))
    cdef u32 at = fabric.count
    if grown == NULL:
        raise MemoryError("the host has no memory for another interrupt controller")
    fabric.controllers = grown
    while at and grown[at - 1].index > index:
        grown[at] = grown[at - 1]
        at -= 1
    grown[at] = &controller.irq
    fabric.count += 1
    controller.join(fabric, owner, index)
    return 0


@cython.final
cdef class InterruptFabric:
    """Interrupt controllers that reach each other without a partition, with a clock that is set by hand.

    Examples
    --------
    >>> fabric = InterruptFabric()
    >>> first, second = (fabric.add(InterruptController(
    ...     apic_id=i, message_page=bytearray(4096), event_page=bytearray(4096))) for i in range(2))
    >>> second.apic.write(0xF0, 0x1FF)
    >>> first.apic.write(0x310, 1 << 24)
    >>> first.apic.write(0x300, 0x40)
    >>> second.pending_vector()
    64
    """
    cdef fabric_t fabric
    cdef clock_t clock
    cdef list controllers

    def __cinit__(self):
        self.controllers = []
        self.fabric.clock = &self.clock
        timebase_reset(&self.fabric.timebase)

    def __dealloc__(self):
        free(self.fabric.controllers)

    def add(self, InterruptController controller not None):
        """Take a controller on, and reset it: its VP index is the number of those before it.

        Raises
        ------
        ValueError
            It belongs to another fabric or to a partition.
        """
        if controller.owner is not None:
            raise ValueError("controller belongs to a fabric or a partition already")
        connect_controller(&self.fabric, controller, self, self.fabric.count)
        self.controllers.append(controller)
        controller.reset()
        return controller

    @property
    def now(self):
        """Ticks of 1 ns. Setting it lets every controller do what is due until then."""
        return self.clock.now

    @now.setter
    def now(self, ticks):
        cdef u64 to = checked(ticks, self.clock.now, never() - 1, "now")
        cdef u32 i
        for i in range(self.fabric.count):
            irq_advance(self.fabric.controllers[i], to)
        self.clock.now = to

    def send_msi(self, address, data):
        """A message-signaled interrupt (SDM 3A 11.11): how many APICs accepted it."""
        return fabric_send_msi(&self.fabric, 0, checked(address, 0, ~<u64>0, "address"),
                               <u32>checked(data, 0, 0xFFFFFFFF, "data"), 0)


@cython.final
cdef class LocalApic:
    """The registers of one local APIC (SDM 3A chapter 11), at the time of its fabric or partition."""
    cdef InterruptController controller
    cdef irq_t *irq

    def __init__(self):
        raise TypeError("a LocalApic is what InterruptController.apic gives")

    cdef u64 time(self):
        return time_of(self.irq)

    cdef u32 register_at(self, object offset) except? 0xBAD:
        cdef u32 at = <u32>checked(offset, 0, PAGE_END - 16, "offset")
        if at & 15:
            raise ValueError(f"offset must be a multiple of 16, not {at:#x}")
        if not is_apic_page(self.irq, self.irq.lapic.base):
            raise ValueError("there is a register page only in xAPIC mode")
        return at >> 4

    def read(self, offset):
        """Four bytes of the register page. A reserved register reads 0 and is an error for ESR."""
        require_thread(self.irq.fabric.clock.guard)
        return read_xapic(self.irq, self.register_at(offset), self.time())

    def write(self, offset, value):
        """Store four bytes into the register page."""
        require_thread(self.irq.fabric.clock.guard)
        write_xapic(self.irq, self.register_at(offset), <u32>checked(value, 0, 0xFFFFFFFF, "value"), self.time())

    def read_msr(self, index):
        """IA32_APIC_BASE, IA32_TSC_DEADLINE or a register of x2APIC (800h-8FFh); None where RDMSR raises #GP.

        Raises
        ------
        ValueError
            The MSR is none of these.
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef u32 msr = self.known_msr(index)
        cdef u64 value = 0
        if msr == MSR_BASE:
            return self.irq.lapic.base
        if msr == MSR_DEADLINE:
            return self.irq.lapic.tsc_deadline
        return value if read_x2apic(self.irq, msr - MSR_FIRST, self.time(), &value) else None

    def write_msr(self, index, value):
        """The same for WRMSR: False is a #GP, and nothing changed.

        Raises
        ------
        ValueError
            The MSR is none of these, or IA32_APIC_BASE of a virtual processor, which is its register apic_base.
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef u32 msr = self.known_msr(index)
        cdef u64 new = checked(value, 0, ~<u64>0, "value")
        if msr == MSR_BASE:
            if self.controller.owner is not None and not isinstance(self.controller.owner, InterruptFabric):
                raise ValueError("index 0x1b: set apic_base of the virtual processor, whose translations depend on it")
            return write_apic_base(self.irq, new, PHYSICAL_BITS) != 0
        if msr == MSR_DEADLINE:
            write_tsc_deadline(self.irq, new, self.time())
            return True
        return write_x2apic(self.irq, msr - MSR_FIRST, new, self.time()) != 0

    cdef u32 known_msr(self, object index) except? 0xBAD:
        cdef u32 msr = <u32>checked(index, 0, 0xFFFFFFFF, "index")
        if msr not in (MSR_BASE, MSR_DEADLINE) and not MSR_FIRST <= msr <= MSR_LAST:
            raise ValueError(f"index must be 0x1b, 0x6e0 or 0x800..0x8ff, not {msr:#x}")
        return msr

    def set_pin(self, pin, bint asserted):
        """LINT0 or LINT1 changes its level; whether that made an interrupt at once."""
        require_thread(self.irq.fabric.clock.guard)
        return set_local_pin(self.irq, <u32>checked(pin, 0, 1, "pin"), asserted) != 0

    def raise_local(self, entry):
        """Thermal (1), performance (2) or CMCI (6) interrupt; False if its LVT entry is masked."""
        require_thread(self.irq.fabric.clock.guard)
        cdef u32 index = <u32>checked(entry, 0, LVT_COUNT - 1, "entry")
        if index not in (1, 2, 6):
            raise ValueError(f"entry must be 1, 2 or 6, not {index}")
        return local_interrupt(self.irq, index) != 0

    @property
    def external_pending(self):
        """The processor would take an ExtINT, whose vector the 8259 has."""
        return takes_external(self.irq) != 0

    def take_reset_messages(self):
        """(whether an INIT waits, the page of a SIPI that waits or None), which the processor takes herewith."""
        require_thread(self.irq.fabric.clock.guard)
        cdef bint init = self.irq.lapic.init_pending
        page = self.irq.lapic.startup_page if self.irq.lapic.startup_pending else None
        self.irq.lapic.startup_pending = False
        if init:
            lapic_init(self.irq)
        return bool(init), page

    @property
    def next_event(self):
        """Ticks at which the controller has something to do next, or None."""
        cdef u64 deadline = irq_next_event(self.irq)
        return None if deadline == never() else deadline

    def state(self):
        """The LAPIC state image (digest 10.4): 176 bytes, those of hvcore.vp_states.LOCAL_APIC.

        A "No EOI required" that the guest has not used is taken back: the image does not have it.
        """
        require_thread(self.irq.fabric.clock.guard)
        return apic_state(self.irq)

    def restore(self, bytes image not None):
        """Take a state image over: all but id and version, which are the processor's own, and TPR, which is CR8.

        Raises
        ------
        ValueError
            It is not 176 bytes of an APIC of this version, or of one in another mode, or has what cannot be; nothing
            changed.
        """
        require_thread(self.irq.fabric.clock.guard)
        restore_apic(self.irq, image)


cdef LocalApic apic_of(InterruptController controller):
    cdef LocalApic apic = LocalApic.__new__(LocalApic)
    apic.controller, apic.irq = controller, &controller.irq
    return apic
