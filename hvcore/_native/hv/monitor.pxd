"""Monitored notification pages: the hypervisor looks for what a sender marked, and signals it (digest 9.5).

A sender sets a pending bit with an ordinary store. Every trigger of an enabled group is looked at once in each of its
latencies (13 #40), which the page gives as hints: none means MONITOR_USUAL_LATENCY, and MONITOR_LEAST_LATENCY is the
least. A trigger whose armed bit is set waits one latency more after it was seen. While no processor runs, nobody can
set a bit: then a page without pending bits keeps no clock going.
"""
from hvcore._native.base.types cimport u16, u32, u64
from hvcore._native.hv.ports cimport connection_signal
from hvcore._native.hv.state cimport partition_t
from hvcore._native.hv.status cimport HV_SUCCESS
from hvcore._native.irq.clock cimport TICKS_PER_REFERENCE_UNIT, reference_time
from hvcore._native.irq.state cimport machine_event_t

cdef enum:
    MONITOR_GROUPS = 4
    MONITOR_TRIGGERS = 32               # of a group
    MONITOR_DISABLED = 1 << 4           # of the trigger state; below it a bit enables each group
    MONITOR_USUAL_LATENCY = 1000        # reference units of 100 ns
    MONITOR_LEAST_LATENCY = 100
    PRIVILEGE_SIGNAL_EVENTS_BIT = 37


cdef struct monitor_group_t:
    u32 pending
    u32 armed


cdef struct monitor_parameter_t:
    u32 connection_id
    u16 flag
    u16 reserved


cdef struct monitor_page_t:             # HV_MONITOR_PAGE
    u32 trigger_state
    u32 reserved0
    monitor_group_t[4] groups
    u64[3] reserved1
    u32[128] next_check                 # reference time of the sender, its low half; written by the hypervisor
    u16[128] latency                    # hints in reference units
    u64[32] reserved2
    monitor_parameter_t[128] parameters


cdef struct monitor_t:
    machine_event_t event
    partition_t* sender
    monitor_page_t* page                # a frame of the hypervisor
    u64[128] next_check                 # ticks; 0: its group was not enabled
    u32[4] seen                         # armed triggers that were found pending one latency ago
    u64 signals
    u64 refusals                        # signals that ended with an error, which nobody is told


cdef inline u64 latency_of(const monitor_page_t* page, u32 trigger) noexcept nogil:
    """Ticks between two looks at a trigger."""
    cdef u64 hint = page.latency[trigger]
    if hint == 0:
        hint = MONITOR_USUAL_LATENCY
    return max(hint, <u64>MONITOR_LEAST_LATENCY) * TICKS_PER_REFERENCE_UNIT


cdef inline void plan_check(monitor_t* monitor, u32 trigger, u64 now) noexcept nogil:
    cdef u64 next_check = now + latency_of(monitor.page, trigger)
    monitor.next_check[trigger] = next_check
    monitor.page.next_check[trigger] = <u32>reference_time(&monitor.sender.fabric.timebase, next_check)


cdef inline void pull_trigger(monitor_t* monitor, u32 trigger) noexcept nogil:
    """SignalEvent in the name of the sender; an error is counted and discarded."""
    cdef monitor_parameter_t parameter = monitor.page.parameters[trigger]
    if monitor.sender.privileges >> PRIVILEGE_SIGNAL_EVENTS_BIT & 1 \
            and connection_signal(monitor.sender, parameter.connection_id, parameter.flag) == HV_SUCCESS:
        monitor.signals += 1
    else:
        monitor.refusals += 1


cdef inline void check_trigger(monitor_t* monitor, u32 trigger, u64 now) noexcept nogil:
    """One look at one trigger, whose time has come."""
    cdef u32 group = trigger // MONITOR_TRIGGERS
    cdef u32 bit = <u32>1 << trigger % MONITOR_TRIGGERS
    cdef monitor_group_t* state = &monitor.page.groups[group]
    if state.pending & bit and state.armed & bit and not monitor.seen[group] & bit:
        monitor.seen[group] |= bit
    else:
        monitor.seen[group] &= ~bit
        if state.pending & bit:
            state.pending &= ~bit
            pull_trigger(monitor, trigger)
    plan_check(monitor, trigger, now)


cdef inline void check_group(monitor_t* monitor, u32 group, u64 now) noexcept nogil:
    """All triggers of an enabled group that are due; the first look is one latency after it was enabled."""
    cdef u32 trigger
    for trigger in range(group * MONITOR_TRIGGERS, (group + 1) * MONITOR_TRIGGERS):
        if monitor.next_check[trigger] == 0:
            plan_check(monitor, trigger, now)
        elif monitor.next_check[trigger] <= now:
            check_trigger(monitor, trigger, now)
        monitor.event.deadline = min(monitor.event.deadline, monitor.next_check[trigger])


cdef inline void forget_group(monitor_t* monitor, u32 group) noexcept nogil:
    cdef u32 trigger
    monitor.seen[group] = 0
    for trigger in range(group * MONITOR_TRIGGERS, (group + 1) * MONITOR_TRIGGERS):
        monitor.next_check[trigger] = 0


cdef inline void monitor_run(machine_event_t* event, u64 now) noexcept nogil:
    """Look at everything that is due at `now`; before its deadline that is nothing but what is pending."""
    cdef monitor_t* monitor = <monitor_t*>event.owner
    cdef u32 group
    cdef bint pending = False
    event.deadline = now + <u64>MONITOR_USUAL_LATENCY * TICKS_PER_REFERENCE_UNIT     # for groups that are enabled then
    for group in range(<u32>MONITOR_GROUPS):
        if monitor.page.trigger_state >> group & 1 and not monitor.page.trigger_state & MONITOR_DISABLED:
            check_group(monitor, group, now)
            pending = pending or monitor.page.groups[group].pending != 0
        else:
            forget_group(monitor, group)
    event.polls = not pending
