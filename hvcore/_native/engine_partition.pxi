# Chapter of engine.pyx: what the processors of one partition share.

# SAFETY: scheduler and platform point at each other and into this object; no_gc_clear keeps both until __dealloc__
# has taken them apart.
@cython.no_gc_clear
cdef class PartitionCore:
    """What the processors of one partition share. The Python Partition keeps it up to date.

    Parameters
    ----------
    memory : SystemMemory, optional
        Of the machine in which it is.
    """

    def __dealloc__(self):
        self.partition.fabric.count = 0     # its processors are gone, some without a word to the scheduler
        self.detach()
        free(self.partition.io_intercepts)
        free(self.partition.device_ranges)
        free(self.partition.fabric.controllers)
        free(self.partition.ports.entries)
        free(self.partition.connections.entries)
        free(self.partition.doorbells.entries)

    def __cinit__(self, SystemMemory memory=None):
        self.memory = memory
        if memory is not None:
            self.own_clock.guard = &memory.guard
        self.cpuid_leaves = set()
        self.msr_ranges = []
        self.partition.physical_bits = PHYSICAL_BITS
        self.partition.fabric.clock = &self.own_clock
        self.partition.flush_generation = 1
        timebase_reset(&self.partition.fabric.timebase)
        self.partition.fabric.timebase.stopped = True

    cdef int connect(self, InterruptController controller, u32 index) except -1:
        """Make a controller one of this partition."""
        require_thread(self.partition.fabric.clock.guard)
        cdef fabric_t* fabric = &self.partition.fabric
        controller.intercepts_sints = self.partition.is_root
        connect_controller(fabric, controller, self, index)
        fabric.timebase.running_count += 1
        follow_time(fabric, fabric.clock.now)
        update_reference_page(fabric, fabric.clock.now)

    cdef void disconnect(self, InterruptController controller) noexcept:
        """It is reached by nobody any more."""
        cdef fabric_t* fabric = &self.partition.fabric
        cdef u32 i, kept = 0
        for i in range(fabric.count):
            if fabric.controllers[i] != irq_of(controller):
                fabric.controllers[kept] = fabric.controllers[i]
                kept += 1
        fabric.count = kept
        controller.leave()
        update_reference_page(fabric, fabric.clock.now)

    cdef void detach(self) noexcept:
        if self.platform is not None:
            self.scheduler.remove_event(&self.platform.event)
            self.platform.leave()
            self.platform = None

    def attach_platform(self, InterruptPlatform platform, Scheduler scheduler not None):
        """Give it an I/O APIC, an 8259 pair and an 8254, or with None take them away.

        Raises
        ------
        ValueError
            `platform` belongs to a partition already.
        """
        require_thread(self.partition.fabric.clock.guard)
        if platform is not None and platform.attached:
            raise ValueError("platform must be free: it belongs to a partition already")
        self.detach()
        if platform is None:
            return
        scheduler.add_event(&platform.event)
        self.scheduler = scheduler
        self.partition.fabric.clock = &scheduler.scheduler.clock
        self.platform = platform
        platform.join(&self.partition.fabric)

    def route_pins(self, rows, PartitionCore gone=None):
        """The rows of the routing table that are of its I/O APIC, which it must have, instead of those it had.

        Parameters
        ----------
        rows : sequence of (entry, PartitionCore, VP indices, vector, multicast)
        gone : a partition that has ended: levels that wait for its EOI are free again.
        """
        require_thread(self.partition.fabric.clock.guard)
        cdef PartitionCore receiver
        cdef u32 count = <u32>len(rows), row = 0, vp
        cdef pin_route_t* routes = <pin_route_t*>calloc(count + 1, sizeof(pin_route_t))
        if routes == NULL:
            raise MemoryError("the host has no memory for routes of an I/O APIC")
        for entry, receiver, vps, vector, multicast in rows:
            routes[row].identity = entry_identity(entry)
            routes[row].fabric = &receiver.partition.fabric
            routes[row].vector, routes[row].multicast = vector, multicast
            for vp in vps:
                routes[row].vps[vp >> 6] |= <u64>1 << (vp & 63)
            row += 1
        self.platform.take_routes(routes, count, tuple([one for _, one, *_ in rows if one is not self]))
        self.platform.reroute(&gone.partition.fabric if gone is not None else NULL)

    def end_routed(self, PartitionCore receiver not None, u8 vector):
        """A processor of another partition ended a level; whether a pin of this I/O APIC had sent it."""
        require_thread(self.partition.fabric.clock.guard)
        return self.platform is not None and bool(self.platform.end_of(&receiver.partition.fabric, vector))

    def send_msi(self, address, data, requester=0):
        """A device writes `data` to `address` (SDM 3A 11.11): how many controllers accepted.

        Returns
        -------
        int or None
            None: interrupt remapping refused it.
        """
        require_thread(self.partition.fabric.clock.guard)
        cdef u64 at = checked(address, 0, ~<u64>0, "address")
        cdef u32 word = <u32>checked(data, 0, 0xFFFFFFFF, "data")
        if at >> 20 != 0xFEE:
            raise ValueError(f"address must be in FEE00000h to FEEFFFFFh, not {at:#x}")
        cdef int accepted = fabric_send_msi(&self.partition.fabric, <u32>checked(requester, 0, 0xFFFF, "requester"),
                                            at, word, 0)
        return None if accepted < 0 else accepted

    def send_interrupt(self, u64 destination, u8 mode, u8 vector, *, bint logical=False, bint level=False):
        """A message of its parent to its controllers, as an APIC would send it: how many accepted.

        Parameters
        ----------
        destination : an APIC id, or what a logical destination is; FFh and FFFFFFFFh: all.
        mode : the delivery mode of an ICR: 0 fixed, 1 lowest priority, 4 NMI, 5 INIT, 6 SIPI.
        """
        require_thread(self.partition.fabric.clock.guard)
        cdef interrupt_message_t message
        memset(&message, 0, sizeof(message))
        if destination >> 32:
            return 0
        message.destination = widen_destination(<u32>destination)
        message.delivery_mode = mode
        message.vector = vector
        message.logical = logical
        message.level = level
        message.asserted = True
        message.source = SOURCE_PARENT
        return fabric_send(&self.partition.fabric, NULL, &message)

    def addressed(self, u64 destination, bint logical):
        """The VP indices whose controllers a destination means, ascending."""
        cdef fabric_t* fabric = &self.partition.fabric
        cdef u32 i
        return [fabric.controllers[i].index for i in range(fabric.count)
                if not destination >> 32
                and is_addressed(fabric.controllers[i], widen_destination(<u32>destination), logical)]

    def execute_native(self, u32 code, bytes header not None, u32 variable_qwords, bytes elements not None,
                       VirtualProcessor vp):
        """One entry of a hypercall that native code executes, its control word and privilege checked by the caller.

        Returns
        -------
        (HV_STATUS, elements done, blocked)
            Blocked: a target inhibits flushes of its TLB; nothing was done, and `vp`, if there is one, waits.
        """
        require_thread(self.partition.fabric.clock.guard)
        cdef call_t call
        cdef call_result_t result
        if not row_of(code).is_native or len(header) != row_of(code).header_bytes + 8 * variable_qwords:
            raise ValueError(f"code must be that of a native call, header as long as it says: {code:#x}, {len(header)}")
        call.cache = self.scheduler.cache if self.scheduler is not None else NULL
        call.partition = &self.partition
        call.vp = vp.vp if vp is not None else NULL
        call.code = code
        call.variable_qwords = variable_qwords
        call.count = <u32>len(elements) // 8
        call.header = <const u64*><const char*>header
        call.elements = <const u64*><const char*>elements
        result = execute_call(&call)
        if result.blocked and vp is not None:
            vp.vp.flush_waits = self.partition.flush_generation
        return result.status, result.done, bool(result.blocked)

    @property
    def privileges(self):
        return self.partition.privileges

    @privileges.setter
    def privileges(self, u64 mask):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.privileges = mask

    @property
    def physical_bits(self):
        """MAXPHYADDR of its processors; they take a new value over when they are reset."""
        return self.partition.physical_bits

    @physical_bits.setter
    def physical_bits(self, u32 bits):
        require_thread(self.partition.fabric.clock.guard)
        if not 32 <= bits <= 52:
            raise ValueError(f"physical_bits must be 32 to 52, not {bits}")
        self.partition.physical_bits = bits

    @property
    def guest_os_id(self):
        return self.partition.guest_os_id

    @guest_os_id.setter
    def guest_os_id(self, u64 value):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.guest_os_id = value

    @property
    def hypercall_msr(self):
        return self.partition.hypercall_msr

    @hypercall_msr.setter
    def hypercall_msr(self, u64 value):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.hypercall_msr = value

    @property
    def host_managed(self):
        """Python is the parent: intercepts become exits."""
        return bool(self.partition.host_managed)

    @host_managed.setter
    def host_managed(self, bint value):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.host_managed = value

    @property
    def is_root(self):
        return bool(self.partition.is_root)

    @is_root.setter
    def is_root(self, bint value):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.is_root = value

    @property
    def suspended(self):
        return bool(self.partition.suspended)

    @suspended.setter
    def suspended(self, bint value):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.suspended = value

    @property
    def active(self):
        """Its state: ports of any other partition take nothing."""
        return bool(self.partition.active)

    @active.setter
    def active(self, bint value):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.active = value

    @property
    def has_doorbells(self):
        """Writes to unmapped pages are offered to the service as doorbells first."""
        return bool(self.partition.has_doorbells)

    @property
    def reports_eois(self):
        """Every EOI of its processors is intercepted (type 0Eh), not only those of level-triggered interrupts."""
        return bool(self.partition.fabric.reports_eois)

    @reports_eois.setter
    def reports_eois(self, bint value):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.fabric.reports_eois = value

    @property
    def creation_time(self):
        """Ticks at which reference time was 0, had it never stood still."""
        return self.partition.fabric.timebase.origin

    @property
    def device_domain_bits(self):
        """Width of device addresses that CPUID shows, 0 without device domains."""
        return self.partition.device_domain_bits

    @device_domain_bits.setter
    def device_domain_bits(self, u32 bits):
        require_thread(self.partition.fabric.clock.guard)
        self.partition.device_domain_bits = bits

    def set_device_ranges(self, ranges):
        """Of the root: the (first, last) GPAs that devices of the machine answer for; all others float."""
        require_thread(self.partition.fabric.clock.guard)
        cdef list wanted = list(ranges)
        cdef device_range_t *made = <device_range_t*>calloc(max(1, len(wanted)), sizeof(device_range_t))
        cdef Py_ssize_t i
        if made == NULL:
            raise MemoryError("the host has no memory for ranges of device memory")
        for i, (first, last) in enumerate(wanted):
            made[i].first, made[i].last = first, last
        free(self.partition.device_ranges)
        self.partition.device_ranges = made
        self.partition.device_range_count = <u32>len(wanted)

    def set_io_intercept(self, u32 first, u32 last, u8 access):
        """Intercept reads (1), writes (2), both or neither of ports `first` to `last`."""
        require_thread(self.partition.fabric.clock.guard)
        cdef u32 port
        if self.partition.io_intercepts == NULL:
            self.partition.io_intercepts = <u8*>calloc(IO_BITMAP_BYTES, 1)
            if self.partition.io_intercepts == NULL:
                raise MemoryError("the host has no memory for an I/O bitmap")
        for port in range(first, min(last, <u32>0xFFFF) + 1):
            self.partition.io_intercepts[port >> 2] &= ~(3 << 2 * (port & 3))
            self.partition.io_intercepts[port >> 2] |= (access & 3) << 2 * (port & 3)

    def set_msr_intercept(self, u32 first, u32 last, int access):
        """Intercept those MSRs of the range that nobody serves."""
        require_thread(self.partition.fabric.clock.guard)
        self.msr_ranges = [kept for kept in self.msr_ranges if kept[:2] != (first, last)]
        if access:
            self.msr_ranges.append((first, last, access))

    def set_cpuid_intercept(self, leaf, bint on):
        """Intercept a CPUID leaf, or all with None."""
        require_thread(self.partition.fabric.clock.guard)
        if on:
            self.cpuid_leaves.add(leaf)
        else:
            self.cpuid_leaves.discard(leaf)
        self.partition.cpuid_intercept = len(self.cpuid_leaves) > 0

    def set_exception_intercept(self, u8 vector, bint on):
        require_thread(self.partition.fabric.clock.guard)
        if vector > 31:
            raise ValueError(f"vector must be 0 to 31, not {vector}")
        self.partition.exception_intercepts &= ~(<u32>1 << vector)
        self.partition.exception_intercepts |= <u32>on << vector
