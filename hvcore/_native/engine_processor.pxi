# Chapter of engine.pyx: the virtual processor as Python sees it.

InterceptRecord = namedtuple("InterceptRecord", (
    "message_type", "instruction_length", "instruction_bytes", "access", "gpa", "gva", "gva_valid", "port", "size",
    "value", "string", "rep", "msr", "defaults", "vector", "error_code", "software", "parameter"))

Walk = namedtuple("Walk", (
    "status", "nested_status", "error_code", "address", "spa", "page_shift", "nested_page_shift", "references",
    "nested_references", "rights", "nested_rights", "nested_access", "key", "is_global", "overlay"))

REASON_NAMES = {REASON_IO_PORT: "io_port", REASON_MEMORY: "memory", REASON_MSR: "msr", REASON_CPUID: "cpuid",
                REASON_HYPERCALL: "hypercall", REASON_EXCEPTION: "exception", REASON_TRIPLE_FAULT: "triple_fault",
                REASON_UNSUPPORTED: "unsupported", REASON_APIC_EOI: "apic_eoi", REASON_WINDOW: "interrupt_window",
                REASON_SINT_DELIVERABLE: "sint_deliverable"}

# Reason -> HV_MESSAGE_TYPE (hyperv-abi 8.3); memory: unmapped, with rights the next number.
MESSAGES = {REASON_IO_PORT: 0x80010000, REASON_MEMORY: 0x80000000, REASON_MSR: 0x80010001, REASON_CPUID: 0x80010002,
            REASON_EXCEPTION: 0x80010003, REASON_APIC_EOI: 0x80010004, REASON_WINDOW: 0x80010008,
            REASON_TRIPLE_FAULT: 0x80000021, REASON_UNSUPPORTED: 0x80000022, REASON_SINT_DELIVERABLE: 0x80000062}


cdef class VirtualProcessor(RegisterFile):
    """A virtual processor. Registers are attributes; `run` executes until an exit.

    Parameters
    ----------
    core, space, interrupts
        What it shares with its partition, and its own interrupt controller.
    index : int
        VP index; also its initial APIC id.
    """

    def __init__(self, PartitionCore core not None, GpaSpace space not None, InterruptController interrupts not None,
                 u32 index):
        self.core, self.space, self.interrupts = core, space, interrupts
        self.vp.contexts = <tlb_context_t*>calloc(TLB_CONTEXTS, sizeof(tlb_context_t))
        if self.vp.contexts == NULL:
            raise MemoryError("the host has no memory for the TLBs of a virtual processor")
        self.vp.partition = &core.partition
        self.vp.space = &space.space
        self.vp.irq = irq_of(interrupts)
        self.vp.index = index
        core.connect(interrupts, index)
        vp_reset(self.vp)

    def __dealloc__(self):
        release_tap(self.vp)
        free(self.vp.contexts)

    @property
    def index(self):
        return self.vp.index

    @property
    def cpl(self):
        """Current privilege level."""
        return self.vp.cpl

    @property
    def mxcsr(self):
        return self.vp.mxcsr

    @mxcsr.setter
    def mxcsr(self, u32 value):
        require_thread(guard_of(self.vp))
        if value & ~<u32>MXCSR_MASK:
            raise ValueError(f"mxcsr cannot hold {value:#x}")
        self.vp.mxcsr = value

    @property
    def pkru(self):
        """Rights of protection keys for user-mode addresses."""
        return self.vp.pkru

    @pkru.setter
    def pkru(self, u32 value):
        require_thread(guard_of(self.vp))
        self.vp.pkru = value
        flush_translations(self.vp)

    @property
    def pkrs(self):
        """IA32_PKRS: rights of protection keys for supervisor-mode addresses."""
        return self.vp.pkrs

    @pkrs.setter
    def pkrs(self, u32 value):
        require_thread(guard_of(self.vp))
        self.vp.pkrs = value
        flush_translations(self.vp)

    def reset(self):
        """Power-on state (SDM 3A table 10-1)."""
        require_thread(guard_of(self.vp))
        vp_reset(self.vp)

    def start(self):
        """Let a processor run that waits for its start-up message."""
        require_thread(guard_of(self.vp))
        self.vp.startup_suspend = False

    def suspend_for_intercept(self, bint inhibit_flushes=False):
        """InterceptSuspend, until the parent clears it: an intercept message is on its way.

        With `inhibit_flushes` the TLB keeps what it has until then: hypercalls that would flush it wait."""
        require_thread(guard_of(self.vp))
        self.vp.intercept_suspend = True
        self.vp.tlb_flush_inhibit |= inhibit_flushes

    def read_register(self, u32 name):
        """The value of an HV_REGISTER_NAME as int of up to 128 bits; None for an unknown name."""
        if APIC_NAMES <= name <= APIC_NAMES + APIC_SELF_IPI:
            return read_apic_name(self.vp, name - APIC_NAMES)
        return read_named(self.vp, name)

    def write_register(self, u32 name, value):
        """Set an HV_REGISTER_NAME: an HV_STATUS."""
        require_thread(guard_of(self.vp))
        if APIC_NAMES <= name <= APIC_NAMES + APIC_SELF_IPI:
            return write_apic_name(self.vp, name - APIC_NAMES, value)
        return write_named(self.vp, name, value)

    def run(self, *, max_instructions=None):
        """Execute until an exit of this VP; at most `max_instructions` retire. Clears ExplicitSuspend.

        The machine's other VPs run meanwhile. While this one waits for them, without a timer of its own, their
        instructions count: a VP that nobody wakes ends with `Budget`, or without others with `Halt`.

        Returns
        -------
        one of the classes of hvcore.exits

        Raises
        ------
        RuntimeError
            The VP was removed, an exit has not been answered, or another thread is running this machine.
        TypeError, ValueError
            `max_instructions` is no integer from 0 to 2**62.
        """
        cdef i64 budget = budget_of(max_instructions)
        require_thread(guard_of(self.vp))
        if self.scheduler is None:
            raise RuntimeError("this virtual processor does not exist any more")
        set_suspended(self.vp, False)
        return self.scheduler.run_for(self, budget)

    def cancel(self):
        """Make the run that another thread is in return `Canceled` at once; without one, the next run does."""
        if self.scheduler is not None:
            self.scheduler.cancel()

    def answer(self, value):
        """What the last exit asked for: called by `complete` of the exit."""
        require_thread(guard_of(self.vp))
        cdef exit_t* exit = &self.vp.exit
        if exit.reason == REASON_MEMORY:
            data = int(value).to_bytes(64, "little")
            answer_give(self.vp, <const u8*><const char*>data)
        elif exit.reason == REASON_MSR:
            self.rax, self.rdx = value & 0xFFFFFFFF, value >> 32
        elif exit.string:
            exit.value = value
            exit.answered = True
        elif exit.size_bytes == 4:
            self.vp.registers[RAX] = value
        else:
            data = int(value).to_bytes(8, "little")
            memcpy(&self.vp.registers[RAX], <const char*>data, exit.size_bytes)
        self.vp.answer_pending = False

    def device_access(self):
        """Of the last exit, an access to device memory: (GPA, bytes in size, what was written or None for a read)."""
        cdef exit_t* exit = &self.vp.exit
        if exit.access & RIGHT_WRITE:
            return exit.gpa, exit.size_bytes, (<const char*>self.vp.written)[:exit.size_bytes]
        return exit.gpa, exit.size_bytes, None

    def start_tap(self):
        """Note every access, fetch and flush from now on, for `take_noted`. Raises RuntimeError while it runs."""
        require_thread(guard_of(self.vp))
        start_tap(self)

    def stop_tap(self):
        """Stop noting; what has not been taken yet is, now. Raises RuntimeError while it runs."""
        require_thread(guard_of(self.vp))
        stop_tap(self)

    def take_noted(self, bytes records not None):
        """Called with the bytes of `record_t`s that were noted: at least after each run, and after each quantum."""

    cdef bytes take_records(self):
        return taken_records(self.vp)

    def counters(self):
        """What happened on this VP since it was made, by name."""
        cdef dict names = self.vp.counters
        names["runtime_ticks"], names["idle_ticks"] = self.vp.runtime, self.vp.idle
        names["device_reads_lost"] = self.vp.device_reads_lost
        return names

    def native_calls(self):
        """How many hypercalls of this VP's code native code has finished, by call code."""
        return {code if row_of(code).is_native else code + 0x40: self.vp.native_calls[<u32>code]
                for code in range(NATIVE_CALLS) if self.vp.native_calls[<u32>code]}

    def exit_counters(self):
        """How often each reason ended a stretch of execution, by name."""
        return {name: self.exit_counts[<u32>reason] for reason, name in REASON_NAMES.items()
                if self.exit_counts[<u32>reason]}

    @property
    def intercept(self):
        """The facts of the last exit as an InterceptRecord, for messages to a parent that is guest code."""
        cdef exit_t* exit = &self.vp.exit
        kind = MESSAGES.get(exit.reason, 0)
        if exit.reason == REASON_MEMORY:
            kind += exit.rights
        access = {RIGHT_READ: 0, RIGHT_WRITE: 1, RIGHT_READ | RIGHT_WRITE: 1, RIGHT_EXECUTE: 2}.get(exit.access, 0)
        return InterceptRecord(
            kind, exit.length, self.instruction_bytes(), access, exit.gpa, exit.gva, bool(exit.gva_valid), exit.port,
            exit.size_bytes, exit.value, bool(exit.string), bool(exit.repeated), exit.index,
            (self.vp.cpuid[0], self.vp.cpuid[2], self.vp.cpuid[3], self.vp.cpuid[1]), exit.index,
            exit.error_code if exit.gva_valid else None, False, exit.gva)

    def instruction_bytes(self):
        """Up to sixteen bytes at RIP, to the end of their page; empty if they cannot be read."""
        cdef walk_t found
        vp_walk(self.vp, self.vp.registers[SLOT_RIP], RIGHT_EXECUTE, &found)
        if found.status != WALK_OK:
            return b""
        size = min(<u64>16, PAGE_SIZE - (found.spa & PAGE_OFFSET_MASK))
        return (<const char*>ram_at(self.vp.space.ram, found.spa))[:size]

    def translate_for_hypercall(self, u64 gva, u32 flags):
        """(result code, GPA, cache type, overlay) as HvCallTranslateVirtualAddress wants them (hyperv-abi 11.1)."""
        require_thread(guard_of(self.vp))
        cdef u64 access = flags & 7
        cdef walk_request_t request = self.vp.request
        cdef walk_t found
        cdef bint user = False
        request.set_marks = flags & TRANSLATE_SET_MARKS != 0
        if flags & TRANSLATE_IGNORE_PRIVILEGE:
            request.no_user_fetch = request.no_user_data = False
            request.user_keys = request.supervisor_keys = 0
        elif flags & (TRANSLATE_SUPERVISOR | TRANSLATE_USER):
            user = flags & TRANSLATE_USER != 0
        else:
            user = self.vp.cpl == 3
        if flags & TRANSLATE_OVERRIDE_SMAP or (self.vp.rflags_system & FLAG_AC and not flags & TRANSLATE_ENFORCE_SMAP):
            access |= ACCESS_ALIGNMENT
        vp_translate(self.vp, &request, access | (RIGHT_USER if user else 0), gva, &found)
        if flags & TRANSLATE_SUPERVISOR and user and found.status == WALK_OK:
            vp_translate(self.vp, &request, access, gva, &found)        # both have to be allowed
        if found.status == WALK_OK or self.vp.paging == PAGING_NONE:
            return 0, found.address, CACHE_WRITE_BACK, bool(found.overlay)
        if found.status == WALK_NOT_PRESENT or found.status == WALK_NOT_CANONICAL:
            return 1, 0, CACHE_WRITE_BACK, False
        if found.status == WALK_RIGHTS:
            return 2, 0, CACHE_WRITE_BACK, False
        if found.status == WALK_RESERVED:
            return 3, 0, CACHE_WRITE_BACK, False
        code = 7 if found.nested_status == SECOND_OVERLAY else 4
        if found.nested_status == SECOND_RIGHTS:
            code = 6 if found.nested_access & RIGHT_WRITE else 5
        return code, found.address, CACHE_WRITE_BACK, False

    def walk(self, u64 gva, u64 access=RIGHT_READ):
        """Translate without side effects: (status, gpa, spa, page shift, second-level page shift, references of the
        guest's tables, references of the second level)."""
        require_thread(guard_of(self.vp))
        cdef walk_t found
        vp_walk(self.vp, gva, access, &found)
        return (<int>found.status, found.address, found.spa, found.page_shift, found.nested_page_shift,
                found.references, found.nested_references)

    def probe(self, u64 gva, u64 access=RIGHT_READ, *, bint set_marks=False):
        """One walk with all that it found out, in the paging mode that the registers say; nothing is counted.

        Parameters
        ----------
        access : int
            1 read, 2 write, 4 execute; 8 a user-mode access, 32 an implicit one, 64 with EFLAGS.AC. Not the VP's own.
        set_marks : bool
            Set accessed and dirty bits, as an access would.
        """
        require_thread(guard_of(self.vp))
        cdef walk_request_t request = self.vp.request
        cdef walk_t found
        request.set_marks = set_marks
        vp_translate(self.vp, &request, access, gva, &found)
        return Walk(
            <int>found.status, <int>found.nested_status, found.error_code, found.address, found.spa, found.page_shift,
            found.nested_page_shift, found.references, found.nested_references, found.rights, found.nested_rights,
            found.nested_access, found.key, bool(found.is_global), bool(found.overlay))

    cdef u64 spa_of(self, u64 gpa, u8 right) except? 0:
        cdef second_level_t found = space_translate(self.vp.space, gpa, right, False)
        return found.spa if found.status == SECOND_OK else <u64>-1

    def read_gpa(self, u64 gpa, u32 n):
        """`n` bytes of one page as the VP sees it, overlays included; None if they are not readable."""
        require_thread(guard_of(self.vp))
        cdef u64 spa = self.spa_of(gpa, RIGHT_READ)
        if spa == <u64>-1 or (gpa & PAGE_OFFSET_MASK) + n > PAGE_SIZE:
            return None
        return (<const char*>ram_at(self.vp.space.ram, spa))[:n]

    def write_gpa(self, u64 gpa, bytes data not None):
        """Store into one page as the VP would; False if it is not writable."""
        require_thread(guard_of(self.vp))
        cdef u64 spa = self.spa_of(gpa, RIGHT_WRITE)
        if spa == <u64>-1 or (gpa & PAGE_OFFSET_MASK) + len(data) > PAGE_SIZE:
            return False
        memcpy(ram_at(self.vp.space.ram, spa), <const char*>data, len(data))
        ram_written(self.vp.space.ram, spa, len(data))
        return True

    def assert_init(self):
        """INIT: processor state, and all but the first wait for a start-up message.

        Between runs at once, from a processor that is ahead in time when its time has come; so is a SIPI."""
        require_thread(guard_of(self.vp))
        request_init(self.vp.irq)
        take_init(self.vp)

    def assert_startup(self, u8 page):
        """SIPI, if it is waited for: real mode at page * 4 KiB."""
        require_thread(guard_of(self.vp))
        request_startup(self.vp.irq, page)
        take_init(self.vp)

    def assert_local(self, int pin):
        """A pulse on LINT0 or LINT1: what comes of it says the local vector table."""
        require_thread(guard_of(self.vp))
        pulse_local_pin(self.vp.irq, pin)

    def assert_external(self, u8 vector):
        """ExtINT; False while an acknowledged one has not been cleared."""
        require_thread(guard_of(self.vp))
        if self.vp.external_acknowledged:
            return False
        self.vp.external_pending = True
        self.vp.external_vector = vector
        return True

    def withdraw_external(self):
        """Take an ExtINT back that the processor has not acknowledged."""
        require_thread(guard_of(self.vp))
        self.vp.external_pending = False

    @property
    def external_acknowledged(self):
        """The processor has taken an ExtINT, and the parent has not cleared it."""
        return bool(self.vp.external_acknowledged)

    @external_acknowledged.setter
    def external_acknowledged(self, bint value):
        require_thread(guard_of(self.vp))
        self.vp.external_acknowledged = value
