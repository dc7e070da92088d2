# Chapter of engine.pyx: the time of a partition. The rules are those of irq/clock.pxd and irq/reference_page.pxd.

cdef enum:
    TSC_FREQUENCY_MAXIMUM = 10000000000
    APIC_FREQUENCY_MINIMUM = 1000000
    APIC_FREQUENCY_MAXIMUM = 1000000000


@cython.final
cdef class PartitionTime:
    """Reference time of a partition, the page that relates it to the TSC, and frequencies. Times are of 100 ns.

    Parameters
    ----------
    core : PartitionCore
    begin : int
        Ticks of its creation. Time runs when a processor does.
    frame : buffer
        Where the reference TSC page is: 4096 writable bytes, kept.
    """

    def __init__(self, PartitionCore core not None, u64 begin, frame not None):
        cdef unsigned char[::1] view = frame
        if view.shape[0] != PAGE_SIZE:
            raise ValueError(f"frame must have {PAGE_SIZE} bytes, not {view.shape[0]}")
        self.core, self.frame, self.reenlightenment = core, frame, {}
        self.fabric = &core.partition.fabric
        self.fabric.timebase.origin = <i64>begin
        self.fabric.timebase.page = <reference_page_t*>&view[0]

    cdef u64 now(self) noexcept:
        return self.core.scheduler.now if self.core.scheduler is not None else self.fabric.clock.now

    @property
    def reference(self):
        """The reference time now. Reading the MSR gives more each time; this does not count as reading."""
        return counted_reference(&self.fabric.timebase, self.now())

    @property
    def running(self):
        """Reference time runs: it is not frozen, and at least one processor is not explicitly suspended."""
        return not self.fabric.timebase.stopped

    @property
    def frozen(self):
        """Property TimeFreeze."""
        return bool(self.fabric.timebase.frozen)

    @frozen.setter
    def frozen(self, bint value):
        require_thread(self.fabric.clock.guard)
        self.fabric.timebase.frozen = value
        follow_time(self.fabric, self.now())

    def restore(self, u64 reference):
        """Set the reference time, also back. Raises ValueError beyond 2**63 ticks."""
        require_thread(self.fabric.clock.guard)
        if reference > (<u64>1 << 63) // TICKS_PER_REFERENCE_UNIT:
            raise ValueError(f"reference must be at most {(1 << 63) // TICKS_PER_REFERENCE_UNIT}, not {reference}")
        restore_time(self.fabric, reference, self.now())

    def restore_tsc(self, u64 tsc, u32 sequence):
        """Set the TSC of every processor, and the sequence that the page's next contents follow."""
        require_thread(self.fabric.clock.guard)
        cdef u64 now = self.now()
        cdef u32 i
        for i in range(self.fabric.count):
            self.fabric.controllers[i].tsc_offset = tsc - tsc_of_ticks(&self.fabric.timebase, now)
        self.fabric.timebase.sequence = sequence
        update_reference_page(self.fabric, now)

    @property
    def page_enabled(self):
        """REFERENCE_TSC.b0. Enabling computes the page anew."""
        return bool(self.fabric.timebase.page_enabled)

    @page_enabled.setter
    def page_enabled(self, bint value):
        require_thread(self.fabric.clock.guard)
        self.fabric.timebase.page_enabled = value
        update_reference_page(self.fabric, self.now())

    @property
    def page_sequence(self):
        """The sequence that the page shows; 0 while it is not valid."""
        return self.fabric.timebase.sequence if self.fabric.timebase.page_valid else 0

    @property
    def invariant_tsc(self):
        """TSC_INVARIANT_CONTROL.b0: CPUID.80000007:EDX[8] says so."""
        return bool(self.fabric.timebase.invariant_tsc)

    @invariant_tsc.setter
    def invariant_tsc(self, bint value):
        require_thread(self.fabric.clock.guard)
        self.fabric.timebase.invariant_tsc = value

    @property
    def tsc_frequency(self):
        """Hz, 1 to 10 GHz. Settable while there is no processor: they rely on it."""
        return self.fabric.timebase.tsc_frequency

    @tsc_frequency.setter
    def tsc_frequency(self, u64 hertz):
        self.require_frequency("tsc_frequency", hertz, TICKS_PER_SECOND, TSC_FREQUENCY_MAXIMUM)
        self.fabric.timebase.tsc_frequency = hertz

    @property
    def apic_frequency(self):
        """Hz of the APIC timers, 1 MHz to 1 GHz. Settable while there is no processor."""
        return self.fabric.timebase.apic_frequency

    @apic_frequency.setter
    def apic_frequency(self, u64 hertz):
        self.require_frequency("apic_frequency", hertz, APIC_FREQUENCY_MINIMUM, APIC_FREQUENCY_MAXIMUM)
        self.fabric.timebase.apic_frequency = hertz

    cdef int require_frequency(self, str name, u64 hertz, u64 least, u64 most) except -1:
        require_thread(self.fabric.clock.guard)
        if not least <= hertz <= most:
            raise ValueError(f"{name} must be {least} to {most} Hz, not {hertz}")
        if self.fabric.count:
            raise RuntimeError(f"{name} cannot change: the partition has processors")
        return 0


def reference_scale(u64 tsc_frequency):
    """TscScale of the reference TSC page: floor((10**7 << 64) / Hz). Raises ValueError below 10**7 Hz."""
    if tsc_frequency <= REFERENCE_UNITS_PER_SECOND:
        raise ValueError(f"tsc_frequency must be more than {REFERENCE_UNITS_PER_SECOND} Hz, not {tsc_frequency}")
    return scale_of(tsc_frequency)


def reference_from_tsc(u64 tsc, u64 scale, i64 offset):
    """((tsc * scale) >> 64) + offset, modulo 2**64: the formula of the page."""
    return reference_of_tsc(tsc, scale, offset)
