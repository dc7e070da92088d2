# Chapter of engine.pyx: the scheduler, and what happens between two stretches of guest code.

cdef i64 budget_of(max_instructions) except -1:
    cdef u64 most = <u64>1 << 62
    return <i64>(most if max_instructions is None else checked(max_instructions, 0, most, "max_instructions"))


cdef class Scheduler:
    """Runs the virtual processors of a machine on its logical processors, one thread of the host at a time.

    Parameters
    ----------
    memory : SystemMemory
    processors : int
        Logical processors, 1 to 2048.
    quantum : int
        Ticks.
    host_time : bool
        Time follows the host's monotonic clock between quanta.
    """

    def __cinit__(self, SystemMemory memory not None, u32 processors, quantum, bint host_time=False):
        cdef u64 frames = memory.ram.size_bytes >> PAGE_SHIFT
        cdef u32 processor
        if not 1 <= processors <= PROCESSORS_MAXIMUM:
            raise ValueError(f"processors must be 1 to {PROCESSORS_MAXIMUM}, not {processors}")
        self.memory = memory
        self.vps = {}
        self.scheduler = <scheduler_t*>calloc(1, sizeof(scheduler_t))
        self.cache = <block_cache_t*>calloc(1, sizeof(block_cache_t))
        if self.scheduler == NULL or self.cache == NULL:
            raise MemoryError("the host has no memory for a scheduler")
        self.cache.machine.direct = <direct_t*>malloc(DIRECT_SIZE * sizeof(direct_t))
        self.cache.buckets = <block_t**>calloc(BUCKETS, sizeof(block_t*))
        self.cache.frames = <block_t**>calloc(frames, sizeof(block_t*))
        self.cache.code_frames = <u64*>malloc(CODE_FRAMES * sizeof(u64))
        self.cache.arena = <u8*>malloc(ARENA_BYTES)
        if self.cache.machine.direct == NULL or self.cache.buckets == NULL or self.cache.frames == NULL \
                or self.cache.code_frames == NULL or self.cache.arena == NULL:
            raise MemoryError("the host has no memory for a block cache")
        self.cache.isa = isa()
        self.cache.handlers = handlers
        self.cache.prepare, self.cache.fall_through, self.cache.head_end = prepare, fall_through, head_end
        self.cache.invalid, self.cache.unimplemented = invalid, unimplemented
        self.cache.machine.ram = &memory.ram
        self.cache.machine.read_slow, self.cache.machine.write_slow = read_slow, write_slow
        self.cache.machine.commit, self.cache.machine.unwind = commit, unwind
        self.cache.machine.note, self.cache.note_fetch = note, note_fetch
        self.cache.machine.read_port, self.cache.machine.write_port = read_port, write_port
        self.cache.machine.hypercall = hypercall
        self.cache.machine.read_msr, self.cache.machine.write_msr = read_msr, write_msr
        self.cache.machine.enter_found, self.cache.machine.enter_linked = enter_found, enter_linked
        self.scheduler.cache = self.cache
        self.scheduler.clock.guard = &memory.guard
        self.scheduler.host.followed = host_time
        self.scheduler.processor_count = processors
        self.scheduler.last = NO_PROCESSOR
        for processor in range(processors):
            self.scheduler.vacant[processor >> 6] |= <u64>1 << (processor & 63)
        self.quantum = quantum
        drop_all(self.cache)

    def __dealloc__(self):
        if self.cache != NULL:
            free(self.cache.machine.direct)
            free(self.cache.buckets)
            free(self.cache.frames)
            free(self.cache.code_frames)
            free(self.cache.arena)
            free(self.cache.vps)
        free(self.cache)
        if self.scheduler != NULL:
            free(self.scheduler.events)
            free(self.scheduler.start_times)
            free(self.scheduler.order)
        free(self.scheduler)

    @property
    def now(self):
        """Virtual time in ticks of 1 ns: that of the processor which is being served, or which ran last."""
        return self.scheduler.clock.now

    @property
    def quantum(self):
        """Ticks for which a VP keeps a logical processor that others wait for, and the most that one processor runs
        ahead of another. Raises ValueError when it is not 1 to 2**32."""
        return self.scheduler.quantum

    @quantum.setter
    def quantum(self, value):
        require_thread(&self.memory.guard)
        if not 1 <= value <= 1 << 32:
            raise ValueError(f"quantum must be 1 to {1 << 32} instructions, not {value}")
        self.scheduler.quantum = value

    def __enter__(self):
        """One thread at a time, any number of times. Raises RuntimeError when another one is inside."""
        self.enter()

    def __exit__(self, kind, error, trace):
        self.leave()

    cdef int enter(self) except -1:
        return enter_guard(&self.memory.guard)

    cdef void leave(self) noexcept:
        leave_guard(&self.memory.guard)

    def cancel(self):
        """Make a run in another thread return at once. Without one, the next run returns immediately."""
        self.scheduler.canceled = 1

    cdef int grow(self) except -1:
        """Room for another VP in all lists."""
        cdef u64 count = self.cache.vp_count + 1
        cdef void* vps = realloc(self.cache.vps, count * sizeof(vp_t*))
        if vps != NULL:
            self.cache.vps = <vp_t**>vps
        cdef void* start_times = realloc(self.scheduler.start_times, count * sizeof(u64))
        if start_times != NULL:
            self.scheduler.start_times = <u64*>start_times
        cdef void* order = realloc(self.scheduler.order, count * sizeof(u32))
        if order != NULL:
            self.scheduler.order = <u32*>order
        if vps == NULL or start_times == NULL or order == NULL:
            raise MemoryError("the host has no memory for another virtual processor")

    def add(self, VirtualProcessor vp not None, processors, u32 weight, u32 cap):
        """Take a VP on, to run on some of `processors`, with HV_PARTITION_PROPERTY CPU_WEIGHT and CPU_CAP."""
        require_thread(&self.memory.guard)
        self.set_processors(vp, processors)
        self.grow()
        vp.vp.machine = &self.cache.machine
        vp.vp.direct = self.cache.machine.direct
        vp.vp.slot = self.cache.vp_count
        vp.vp.weight, vp.vp.cap = weight, cap
        vp.vp.rests_until = 0 if cap else never_ticks()
        vp.vp.processor = processors[vp.vp.index % len(processors)]
        vp.vp.slice_start = vp.vp.slice_end = vp.vp.irq.time = self.now
        vp.vp.irq.processor = vp.vp
        vp.scheduler = self
        vp.core.scheduler = self
        vp.core.partition.fabric.clock = &self.scheduler.clock
        self.cache.vps[vp.vp.slot] = vp.vp
        self.scheduler.start_times[vp.vp.slot] = never_ticks()
        self.cache.vp_count += 1
        self.scheduler.touched = True
        self.vps[<u64>vp.vp] = vp

    def set_processors(self, VirtualProcessor vp not None, processors):
        """Let a VP run on these logical processors alone, a list of at least one; from the next quantum on."""
        require_thread(&self.memory.guard)
        cdef u32 processor
        memset(vp.vp.processors, 0, sizeof(vp.vp.processors))
        for processor in processors:
            vp.vp.processors[processor >> 6] |= <u64>1 << (processor & 63)
        end_quantum_by(self.scheduler, 0)

    def set_weight(self, VirtualProcessor vp not None, u32 weight):
        """HV_PARTITION_PROPERTY CPU_WEIGHT, 1 to 10,000: the part of a contended logical processor that it gets."""
        require_thread(&self.memory.guard)
        bill(vp.vp)
        vp.vp.weight = weight

    def set_cap(self, VirtualProcessor vp not None, u32 cap):
        """HV_PARTITION_PROPERTY CPU_CAP, 0 to 10000h, which is all of a logical processor. Its next turn is the first
        that is measured by it; with 0 there is none."""
        require_thread(&self.memory.guard)
        bill(vp.vp)
        vp.vp.cap = cap
        vp.vp.rests_until = 0 if cap else never_ticks()

    def remove(self, VirtualProcessor vp not None):
        """Let a VP go. It cannot run any more. One that is gone already stays so."""
        require_thread(&self.memory.guard)
        cdef u32 i
        if vp.scheduler is None:
            return
        classify_noticed(self.scheduler)
        if vp.vp.placed:
            leave_processor(self.scheduler, vp.vp)
        else:
            set_start_time(self.scheduler, vp.vp, never_ticks())
        self.cache.vp_count -= 1
        for i in range(vp.vp.slot, self.cache.vp_count):
            self.cache.vps[i] = self.cache.vps[i + 1]
            self.cache.vps[i].slot = i
            self.scheduler.start_times[i] = self.scheduler.start_times[i + 1]
        if vp.vp.tap != NULL:
            self.deliver_last()         # a guest may delete a processor in the midst of a run
            release_tap(vp.vp)
            self.set_taps(self.tap_count - 1)
        vp.scheduler = None
        vp.core.partition.flush_generation += vp.vp.tlb_flush_inhibit
        vp.vp.irq.processor = NULL
        set_suspended(vp.vp, True)
        vp.core.disconnect(vp.interrupts)
        self.vps.pop(<u64>vp.vp, None)

    cdef int add_event(self, machine_event_t* event) except -1:
        """Let hardware of the machine act at its deadlines."""
        cdef machine_event_t** grown = <machine_event_t**>realloc(
            self.scheduler.events, (self.scheduler.event_count + 1) * sizeof(machine_event_t*))
        if grown == NULL:
            raise MemoryError("the host has no memory for another event of the machine")
        self.scheduler.events = grown
        grown[self.scheduler.event_count] = event
        self.scheduler.event_count += 1

    cdef void remove_event(self, machine_event_t* event) noexcept:
        cdef u32 i, kept = 0
        for i in range(self.scheduler.event_count):
            if self.scheduler.events[i] != event:
                self.scheduler.events[kept] = self.scheduler.events[i]
                kept += 1
        self.scheduler.event_count = kept

    def run(self, VirtualProcessor only, max_instructions=None):
        """Run all VPs until an exit of `only`, or of any with None; its budget is `max_instructions`."""
        return self.run_for(only, budget_of(max_instructions))

    cdef object run_for(self, VirtualProcessor only, i64 budget):
        self.enter()
        try:
            if self.running:
                raise RuntimeError("run() was called while this machine is running")
            if only is not None and only.vp.answer_pending:
                raise ExitNotCompleted("the last exit was a read: complete it before running on")
            if self.memory.exported or self.memory.released:
                self.verify_code()
            self.running = True
            try:
                stopped = self.run_loop(only, budget)
                self.deliver_last()
                return stopped
            finally:
                self.running = self.scheduler.clock.running = False
                self.scheduler.clock.now = self.now
        finally:
            self.leave()

    cdef int count_taps(self, int change) except -1:
        if self.running:
            raise RuntimeError("a processor that runs cannot be attached to or detached from")
        self.set_taps(self.tap_count + change)
        return 0

    cdef void set_taps(self, u32 count) noexcept:
        """Blocks are built anew when the first listener comes and when the last one goes."""
        self.tap_count = count
        if self.cache.notes_fetches != (count != 0):
            self.cache.notes_fetches = count != 0
            self.cache.full = True      # all are forgotten before the next one runs

    cdef int deliver(self) except -1:
        """Give what was noted to who listens."""
        cdef VirtualProcessor vp
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        for vp in list(self.vps.values()):
            if vp.vp.tap != NULL and vp.vp.tap.count:
                vp.take_noted(vp.take_records())
        return 0

    cdef int deliver_last(self) except -1:
        """The same when a run has an exit to give: it must reach its caller, so a failure waits for the next run."""
        if self.tap_count:
            try:
                self.deliver()
            except BaseException as failure:
                self.failure = failure
        return 0

    cdef int verify_code(self) except -1:
        """Python may have written decoded code through a view: forget what lies under one."""
        for spa, size_bytes in self.memory.exported + self.memory.released:
            drop_range(self.cache, spa, size_bytes)
        self.memory.released = []

    cdef object run_loop(self, VirtualProcessor only, i64 budget):
        cdef vp_t* chosen = only.vp if only is not None else NULL
        cdef VirtualProcessor vp
        cdef u32 reason
        if chosen != NULL and chosen.exit_waits:
            chosen.exit_waits = False
            return exit_for(only, chosen.exit.reason)
        if chosen != NULL and chosen.shutdown:
            return plain_exit(only, REASON_TRIPLE_FAULT)
        self.scheduler.touched = True
        while True:
            PyErr_CheckSignals()    # before a stretch, never behind it: an exit must reach its caller
            if self.tap_count or self.failure is not None:
                self.deliver()
            with nogil:
                self.scheduler.clock.running = True
                reason = schedule(self.scheduler, chosen, &budget, 1 if self.tap_count else QUANTA_BETWEEN_SIGNALS)
            if reason == REASON_NONE:
                continue
            self.scheduler.touched = True
            if chosen != NULL and self.scheduler.current == chosen:
                vp = only
            elif self.scheduler.current == NULL or (<u64>self.scheduler.current) not in self.vps:
                if only is None:
                    raise RuntimeError("this machine has no virtual processor that could run")
                vp = only
            else:
                vp = self.vps[<u64>self.scheduler.current]
            if reason == REASON_HALT or reason == REASON_BUDGET or reason == REASON_CANCELED:
                return plain_exit(only if only is not None else vp, reason)
            vp.vp.counters.exits += 1
            vp.exit_counts[reason] += 1
            if self.serve(vp, reason):
                continue
            if only is None or vp is only:
                return exit_for(vp, reason)
            else:
                vp.vp.exit_waits = True

    cdef bint serve(self, VirtualProcessor vp, u32 reason) except -1:
        """Do what needs no caller. False: it becomes an exit."""
        cdef exit_t* exit = &vp.vp.exit
        if reason == REASON_HYPERCALL:
            vp.vp.registers[SLOT_RIP] = exit.rip
            if self.service(vp, SERVICE_HYPERCALL):
                vp.vp.registers[SLOT_RIP] = exit.rip + exit.length
            return True
        if reason == REASON_MSR:
            return self.serve_msr(vp)
        if reason == REASON_APIC_EOI and self.service(vp, SERVICE_EOI):
            return True
        if reason == REASON_IO_PORT and vp.vp.partition.is_root:
            if exit.access == RIGHT_READ:
                vp.vp.answer_pending = True
            self.service(vp, SERVICE_IO_PORT)
            return True
        if reason == REASON_MEMORY and vp.vp.partition.is_root and not exit.rights and exit.gva_valid \
                and not exit.access & RIGHT_EXECUTE:
            self.service(vp, SERVICE_DEVICE_MEMORY)
            # The read and what the instruction does with it are one: no interrupt comes between them.
            vp.vp.shadow = vp.vp.shadow or exit.access == RIGHT_READ
            return True
        if reason == REASON_CPUID and None not in vp.core.cpuid_leaves and exit.index not in vp.core.cpuid_leaves:
            vp.rax, vp.rbx, vp.rcx, vp.rdx = tuple(vp.vp.cpuid)
            return True
        if reason == REASON_MEMORY and exit.retired and self.ring_doorbell(vp):
            return True
        if vp.vp.partition.host_managed or vp.vp.partition.is_root:
            return False
        if reason == REASON_MEMORY and exit.retired:
            undo_write(vp.vp)               # if no doorbell takes it, it has not happened
        return self.tell_parent(vp, reason)

    cdef bint ring_doorbell(self, VirtualProcessor vp) except -1:
        """Offer a write to the doorbells of the partition, whoever manages it."""
        return vp.vp.partition.has_doorbells and self.service(vp, SERVICE_UNMAPPED_WRITE)

    cdef bint serve_msr(self, VirtualProcessor vp) except -1:
        """The Python layer's register, an intercept, or #GP."""
        cdef exit_t* exit = &vp.vp.exit
        cdef bint write = exit.access == RIGHT_WRITE
        if self.service(vp, SERVICE_MSR_WRITE if write else SERVICE_MSR_READ):
            return True
        for first, last, access in vp.core.msr_ranges:
            if first <= exit.index <= last and access & (2 if write else 1):
                return False if vp.vp.partition.host_managed else self.tell_parent(vp, REASON_MSR)
        vp.vp.registers[SLOT_RIP] = exit.rip
        vp.vp.pending_interruption = PENDING_GENERAL_PROTECTION
        return True

    cdef bint tell_parent(self, VirtualProcessor vp, u32 reason) except -1:
        """An intercept message, with the VP at the instruction."""
        vp.vp.exit.reason = reason
        if reason in (REASON_IO_PORT, REASON_MSR, REASON_CPUID):
            vp.vp.registers[SLOT_RIP] = vp.vp.exit.rip
        vp.vp.shutdown = False
        self.service(vp, SERVICE_INTERCEPT)
        return True
