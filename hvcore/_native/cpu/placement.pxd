"""Which virtual processor has which logical processor until the quantum ends, and when it goes on there.

A VP that cannot run and that nothing armed will wake takes part in nothing: no loop here comes past it but the
classification after Python code had a hand in the machine. Everything that decides is state of this struct and of the
VPs, and follows from what guests did, not from where a run was cut.
"""
from hvcore._native.base.types cimport i32, u32, u64
from hvcore._native.cpu.host_time cimport host_time_at, wait_until
from hvcore._native.cpu.machine_events cimport next_final_event, next_machine_event, poll_last
from hvcore._native.cpu.scheduler cimport LONG_QUANTUM, NO_PROCESSOR, SHARE_SCALE, WHOLE_PROCESSOR, scheduler_t
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.wake cimport is_asleep, is_suspended, is_wakeable, start_time_of
from hvcore._native.irq.clock cimport never_ticks
from hvcore._native.irq.events cimport receive_inbox
from hvcore._native.irq.state cimport irq_t

cdef extern from *:
    int lowest_bit "__builtin_ctzll"(u64 word) noexcept nogil


cdef inline bint is_member(const u64* processors, u32 processor) noexcept nogil:
    return processors[processor >> 6] >> (processor & 63) & 1


cdef inline u64 clock_of(const scheduler_t* scheduler, u32 processor) noexcept nogil:
    return max(scheduler.clocks[processor], scheduler.quantum_start)


cdef inline void end_quantum_by(scheduler_t* scheduler, u64 time) noexcept nogil:
    """Let a new quantum begin at `time`, or as soon as no clock has to go back for it."""
    scheduler.quantum_end = min(scheduler.quantum_end, max(time, scheduler.furthest))
    scheduler.active_end = min(scheduler.active_end, scheduler.quantum_end)


cdef inline void set_start_time(scheduler_t* scheduler, vp_t* vp, u64 time) noexcept nogil:
    """Of a VP that has no logical processor."""
    scheduler.waiting -= scheduler.start_times[vp.slot] != never_ticks()
    scheduler.waiting += time != never_ticks()
    scheduler.start_times[vp.slot] = time


cdef inline void take_processor(scheduler_t* scheduler, vp_t* vp, u32 processor) noexcept nogil:
    """Give a vacant logical processor to a VP."""
    cdef u32 at = scheduler.busy_count
    cdef u64 start = scheduler.start_times[vp.slot]
    set_start_time(scheduler, vp, never_ticks())
    scheduler.clocks[processor] = clock_of(scheduler, processor)
    scheduler.due[processor] = max(scheduler.clocks[processor], start)
    scheduler.holders[processor] = vp
    scheduler.vacant[processor >> 6] &= ~(<u64>1 << (processor & 63))
    while at and scheduler.busy[at - 1] > processor:
        scheduler.busy[at] = scheduler.busy[at - 1]
        at -= 1
    scheduler.busy[at] = processor
    scheduler.busy_count += 1
    vp.processor = processor
    vp.placed = True


cdef inline void bill(vp_t* vp) noexcept nogil:
    """Only where the guest's own doing ends its turn, so that a run that is cut is billed as a whole.

    Behind a turn of some ticks a cap wants so many of rest that the turn is no larger a part of both."""
    cdef u64 used = vp.runtime - vp.billed
    vp.share += used * SHARE_SCALE // vp.weight
    vp.billed = vp.runtime
    if used and vp.cap and vp.cap != WHOLE_PROCESSOR:
        vp.rests_until = vp.irq.time + (used * (WHOLE_PROCESSOR - vp.cap) + vp.cap - 1) // vp.cap
        vp.rested = True        # nor is this sleep a credit


cdef inline void leave_processor(scheduler_t* scheduler, vp_t* vp) noexcept nogil:
    """Make the logical processor of a VP vacant."""
    cdef u32 processor = vp.processor, i, kept = 0
    bill(vp)
    for i in range(scheduler.busy_count):
        if scheduler.busy[i] != processor:
            scheduler.busy[kept] = scheduler.busy[i]
            kept += 1
    scheduler.busy_count = kept
    scheduler.holders[processor] = NULL
    scheduler.vacant[processor >> 6] |= <u64>1 << (processor & 63)
    vp.placed = False
    if scheduler.active == vp:
        scheduler.active = NULL


cdef inline i32 find_vacant(const scheduler_t* scheduler, const vp_t* vp, u64 start) noexcept nogil:
    """Where a VP could go on soonest: the one that it had last, if that is no later, else the first of the best."""
    cdef i32 found = NO_PROCESSOR
    cdef u64 best = never_ticks(), word, time
    cdef u32 i, processor
    if is_member(scheduler.vacant, vp.processor) and is_member(vp.processors, vp.processor):
        found = <i32>vp.processor
        best = max(start, clock_of(scheduler, vp.processor))
        if best == start:
            return found
    for i in range((scheduler.processor_count + 63) >> 6):
        word = scheduler.vacant[i] & vp.processors[i]
        while word:
            processor = i << 6 | <u32>lowest_bit(word)
            word &= word - 1
            time = max(start, clock_of(scheduler, processor))
            if time < best:
                found, best = <i32>processor, time
                if best == start:
                    return found
    return found


cdef inline void place(scheduler_t* scheduler, vp_t* vp) noexcept nogil:
    """A VP that could not go on before now can: at once if a logical processor is vacant, else with a new quantum."""
    cdef u64 start = scheduler.start_times[vp.slot]
    cdef i32 processor = find_vacant(scheduler, vp, start)
    if processor != NO_PROCESSOR:
        take_processor(scheduler, vp, <u32>processor)
    if processor == NO_PROCESSOR or scheduler.alone:
        end_quantum_by(scheduler, start)


cdef inline void fill_processor(scheduler_t* scheduler, u32 processor) noexcept nogil:
    """Its VP stopped: the one that can go on there soonest has it now, of several the one with the least share."""
    cdef vp_t* best = NULL
    cdef vp_t* vp
    cdef u64 best_start = scheduler.quantum_end, start
    cdef u32 slot
    if scheduler.waiting == 0:
        return
    for slot in range(scheduler.cache.vp_count):
        start = scheduler.start_times[slot]
        if start == never_ticks():
            continue
        vp = scheduler.cache.vps[slot]
        start = max(start, clock_of(scheduler, processor))
        if is_member(vp.processors, processor) and (
                start < best_start or (start == best_start and best != NULL and vp.share < best.share)):
            best, best_start = vp, start
    if best != NULL:
        take_processor(scheduler, best, processor)


cdef inline void give_way(scheduler_t* scheduler, vp_t* vp) noexcept nogil:
    """A VP has halted or can run no more: another one may have its logical processor, or it keeps it and sleeps."""
    cdef u32 processor = vp.processor
    leave_processor(scheduler, vp)
    set_start_time(scheduler, vp, start_time_of(vp))
    fill_processor(scheduler, processor)
    if not vp.placed and scheduler.start_times[vp.slot] != never_ticks():
        place(scheduler, vp)


cdef inline void classify(scheduler_t* scheduler, vp_t* vp) noexcept nogil:
    """Whether and when a VP can go on may have changed. If it has not, nothing does."""
    cdef u64 start = start_time_of(vp)
    if is_suspended(vp) and vp.irq.inbox.count:
        scheduler.clock.actor = vp.irq
        while vp.irq.inbox.count:       # it comes to no time of its own: whoever looks at it sees what was sent
            receive_inbox(vp.irq)
    if not vp.placed and start != never_ticks() and scheduler.start_times[vp.slot] == never_ticks() \
            and not is_asleep(vp):
        vp.irq.time = max(vp.irq.time, scheduler.clock.now)         # who let it go on did it now
        start = max(start, vp.irq.time)
    if vp.placed:
        if start == never_ticks():
            give_way(scheduler, vp)
        else:
            scheduler.due[vp.processor] = max(scheduler.clocks[vp.processor], start)
    elif start != scheduler.start_times[vp.slot]:
        set_start_time(scheduler, vp, start)
        if start != never_ticks():
            vp.rested = True
            place(scheduler, vp)


cdef inline void classify_all(scheduler_t* scheduler) noexcept nogil:
    """After Python code."""
    cdef u32 i
    for i in range(scheduler.cache.vp_count):
        classify(scheduler, scheduler.cache.vps[i])


cdef inline void classify_noticed(scheduler_t* scheduler) noexcept nogil:
    """Those that were sent something."""
    cdef irq_t* irq = <irq_t*>scheduler.clock.noticed
    scheduler.clock.noticed = NULL
    while irq != NULL:
        irq.noticed = False
        if irq.processor != NULL:
            classify(scheduler, <vp_t*>irq.processor)
        irq = irq.next_noticed


cdef inline void forget_rest(scheduler_t* scheduler, u32 count) noexcept nogil:
    """Of the VPs in `order`, those that slept have no less a share now than the least of the others."""
    cdef u64 least = never_ticks()
    cdef vp_t* vp
    cdef u32 i
    for i in range(count):
        vp = scheduler.cache.vps[scheduler.order[i]]
        if not vp.rested:
            least = min(least, vp.share)
    if least != never_ticks():
        scheduler.share_floor = max(scheduler.share_floor, least)
    for i in range(count):
        vp = scheduler.cache.vps[scheduler.order[i]]
        if vp.rested:
            vp.share = max(vp.share, scheduler.share_floor)
            vp.rested = False


cdef inline void sort_by_share(scheduler_t* scheduler, u32 count) noexcept nogil:
    """The slots in `order`: the least share first, of equal ones the lower slot."""
    cdef vp_t** vps = scheduler.cache.vps
    cdef u32 gap = 1, i, at, slot
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap:
        for i in range(gap, count):
            slot = scheduler.order[i]
            at = i
            while at >= gap and (vps[scheduler.order[at - gap]].share > vps[slot].share
                                 or (vps[scheduler.order[at - gap]].share == vps[slot].share
                                     and scheduler.order[at - gap] > slot)):
                scheduler.order[at] = scheduler.order[at - gap]
                at -= gap
            scheduler.order[at] = slot
        gap //= 3


cdef inline u64 vacate_all(scheduler_t* scheduler) noexcept nogil:
    """Take all logical processors back; the earliest time at which a VP can go on."""
    cdef u64 earliest = never_ticks()
    cdef vp_t* vp
    cdef u32 i
    while scheduler.busy_count:
        vp = scheduler.holders[scheduler.busy[scheduler.busy_count - 1]]
        leave_processor(scheduler, vp)
        set_start_time(scheduler, vp, start_time_of(vp))
    if scheduler.waiting:
        for i in range(scheduler.cache.vp_count):
            earliest = min(earliest, scheduler.start_times[i])
    return earliest


cdef inline bint may_be_woken(const scheduler_t* scheduler) noexcept nogil:
    cdef u32 i
    for i in range(scheduler.cache.vp_count):
        if is_wakeable(scheduler.cache.vps[i]):
            return True
    return False


cdef inline bint begin_quantum(scheduler_t* scheduler) noexcept nogil:
    """Share the logical processors out. False: no VP can run, and nothing armed will wake one."""
    cdef u64 earliest = vacate_all(scheduler), now = host_time_at(&scheduler.host, scheduler.quantum_end)
    cdef u64 nearest = never_ticks()
    cdef u32 slot, count = 0, i
    cdef i32 processor
    if earliest > now:
        poll_last(scheduler, scheduler.furthest)
        classify_noticed(scheduler)
        earliest = vacate_all(scheduler)
    if earliest > now:
        # Nobody can run: time jumps, but not past what the machine does by itself.
        earliest = min(earliest, next_machine_event(scheduler, True) if may_be_woken(scheduler)
                       else next_final_event(scheduler))
        if earliest == never_ticks():
            scheduler.quantum_end = scheduler.quantum_start = scheduler.furthest
            return False
        now = max(scheduler.furthest, wait_until(&scheduler.host, earliest, &scheduler.canceled))
    scheduler.quantum_start = scheduler.quantum_end = scheduler.furthest = now
    if scheduler.waiting:
        for slot in range(scheduler.cache.vp_count):
            if scheduler.start_times[slot] <= now:
                scheduler.order[count] = slot
                count += 1
            else:
                nearest = min(nearest, scheduler.start_times[slot])
    if count == 0:
        return True             # the machine acts first
    forget_rest(scheduler, count)
    sort_by_share(scheduler, count)
    for i in range(count):
        processor = find_vacant(scheduler, scheduler.cache.vps[scheduler.order[i]], now)
        if processor != NO_PROCESSOR:
            take_processor(scheduler, scheduler.cache.vps[scheduler.order[i]], <u32>processor)
    scheduler.alone = count == 1
    scheduler.quantum_end = min(nearest, now + max(scheduler.quantum, <u64>(LONG_QUANTUM if scheduler.alone else 0)))
    return True
