"""The state of one virtual processor's interrupt controller: local APIC, SynIC and synthetic timers in one flat struct.

Owned by irqchip.InterruptController; the engine keeps the pointer. A queue links buffers that live elsewhere (in a
port, in a timer, in the intercepted VP's own irq_t), so a buffer names its holder, and its owner unlinks it at death.
One Hypervisor is used by one thread at a time; nothing here is locked.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.clock cimport clock_t, timebase_t
from hvcore._native.irq.observer cimport interrupt_tallies_t, observer_t
from hvcore._native.irq.platform_state cimport platform_t
from hvcore._native.irq.spec cimport message_t


cdef struct irq_t


# An interrupt on its way: what an ICR write, an MSI, an I/O APIC pin or a parent's assertion says (SDM 3A 11.6, 11.11).
cdef struct interrupt_message_t:
    u32 destination
    u32 source                          # who sends: an interrupt_source number (observer.pxd), 0 for nobody known
    u8 vector
    u8 delivery_mode                    # DELIVERY_ of spec.pxd
    u8 shorthand                        # of an IPI: 0 none, 1 self, 2 all, 3 all but self
    bint logical
    bint level
    bint asserted                       # level INIT: False is a de-assertion
    bint redirection_hint               # of an MSI


# What processors that are ahead in time sent at one moment.
cdef struct inbox_t:
    u64 time                            # ticks
    u64[4] vectors
    u64[4] levels
    u64[4] auto_eoi
    bint nmi
    bint init
    bint startup
    u8 startup_page
    bint external                       # ExtINT: the 8259 has a vector


# What has been sent and is not to be seen yet, by its moments, the earliest first.
cdef struct arrivals_t:
    u64 time                            # ticks of the earliest; never_ticks() while there is none
    u32 count
    inbox_t[8] moments                  # MOMENT_COUNT


# What a remapping unit makes of an interrupt request.
cdef enum RemapOutcome:
    REMAP_BLOCKED
    REMAP_SEND                          # what the message says now
    REMAP_POSTED                        # it is in a descriptor, and nobody has to be told


# What connects the interrupt controllers of one partition with each other and with what interrupts them.
cdef struct fabric_t:
    irq_t **controllers                 # in the order of VP indices
    u32 count
    clock_t *clock
    timebase_t timebase
    platform_t *platform                # NULL: the partition has no I/O APIC, 8259 and 8254
    void *unit                          # NULL: interrupt requests of devices are not remapped
    RemapOutcome (*remap)(void *unit, u32 requester, u64 address, u32 data,
                          interrupt_message_t *message) noexcept nogil
    bint reports_eois           # the parent is told of every EOI, not of level-triggered interrupts alone


# Something of the machine that happens at a time of its own, between quanta of its processors. `run` sets `deadline`
# to the next time.
cdef struct machine_event_t:
    u64 deadline                        # ticks; never_ticks() when nothing is due
    void *owner
    void (*run)(machine_event_t *event, u64 now) noexcept nogil
    bint ends                           # what it has begun comes to an end even if no processor ever runs again
    bint polls                          # it only looks at what processors write: while none runs, there is nothing new


cdef struct message_buffer_t:
    message_buffer_t *next
    message_buffer_t *previous
    irq_t *holder                       # in whose queue it waits; NULL: the buffer is free
    u8 sint                             # which queue
    u8 is_timer                         # its payload is stamped with the time of delivery
    message_t message


cdef struct message_port_t:
    message_buffer_t[16] buffers        # PORT_BUFFER_COUNT; one is free when it has no holder


cdef struct message_queue_t:
    message_buffer_t *first
    message_buffer_t *last


cdef struct lapic_t:                    # vector sets are 256 bits in four words, vector v is bit v % 64 of word v / 64
    u64[4] irr
    u64[4] isr
    u64[4] tmr                          # level-triggered
    u64[4] auto_eoi                     # requests in IRR that drop their ISR bit on delivery
    u64[4] level_eois                   # EOIs that the parent has to be told of
    u64 base                            # IA32_APIC_BASE
    u64 icr                             # as it was written: the destination is [63:56], with x2APIC [63:32]
    u64 timer_start                     # ticks at which `timer_count` was the current count
    u64 timer_deadline                  # ticks of the next expiry that makes an interrupt; never_ticks()
    u64 tsc_deadline                    # IA32_TSC_DEADLINE; 0 when not armed
    u32 apic_id                         # initial and x2APIC id; xAPIC uses its low byte
    u32 ldr                             # of xAPIC; x2APIC derives its own
    u32 dfr
    u32 svr
    u32 esr                             # as of its last write
    u32 errors                          # since then
    u32 divide
    u32 initial_count
    u32 timer_count                     # 0: the timer stands still
    u32[7] lvt                          # LVT_COUNT
    u8 tpr
    u8 nmi_pending
    u8 external_pending                 # an ExtINT message waits for its acknowledge cycle
    u8 init_pending                     # INIT and SIPI, until the processor comes to an instruction boundary
    u8 startup_pending
    u8 startup_page
    u8 pins                             # bit n: LINTn is asserted
    u8 owes_eois                        # level_eois is not empty


cdef struct synic_t:
    u64 control
    u64 siefp
    u64 simp
    u64[16] sints
    u32 waiting                         # bit n: queue n is not empty
    message_queue_t[16] queues
    u8 *message_page                    # hypervisor-owned frames, present whether or not the guest has mapped them
    u8 *event_page


cdef struct synthetic_timer_t:
    u64 config
    u64 count
    u64 deadline                        # reference time of the next expiry; NEVER when not armed
    message_buffer_t buffer


# The time-unhalted timer (9.7): it counts what its processor runs.
cdef struct unhalted_timer_t:
    u64 config
    u64 count
    u64 deadline                        # ticks of the processor's run time; never_ticks(): not armed
    u64 not_run                         # ticks of time that are no run time, while `running`
    bint running                        # the processor runs now


# The VP assist page (digest 2.1, 10.3).
cdef struct assist_t:
    u8 *page                            # its frame; NULL: there is none
    bint enabled                        # by VP_ASSIST_PAGE.b0
    bint promised                       # "No EOI required" was set, and has not been seen cleared


cdef struct irq_counters_t:             # these names are the keys of InterruptController.counters()
    u64 interrupts_requested
    u64 interrupts_merged               # requested while the same vector already waited in IRR
    u64 interrupts_withdrawn
    u64 interrupts_delivered
    u64 interrupts_lost                 # APIC software-disabled, or an illegal vector in the ICR
    u64 interrupts_masked               # a message came through a masked SINT
    u64 interrupts_polled               # a message or event came through a polling SINT
    u64 eois
    u64 eois_saved                      # of them, those that the guest left to its assist page
    u64 nmis_requested
    u64 nmis_merged
    u64 nmis_delivered
    u64 messages_queued
    u64 messages_delivered
    u64 messages_overwritten            # an intercept message replaced before it was delivered
    u64 messages_discarded_port         # removed from a queue because their port was deleted
    u64 messages_discarded_reset        # ... because the VP was reset
    u64 messages_discarded_restore      # ... because a saved state took the place of its queues
    u64 messages_discarded_vp           # ... because the VP, or the intercepted one, came to its end
    u64 messages_restored               # put into a queue by a saved state
    u64 messages_unread                 # delivered, but a reset cleared the slot before the guest did
    u64 messages_refused                # no free buffer in the port
    u64 events_signaled
    u64 events_merged                   # the flag was still set
    u64 events_refused                  # SynIC or SIEF page disabled, or SINT masked
    u64 timers_expired
    u64 timers_merged                   # expired while the previous message still waited in the timer's buffer
    u64 timers_skipped                  # periods given up because the VP was late
    u64 unhalted_expired
    u64 ipis_sent
    u64 ipis_unanswered                 # no APIC accepted it
    u64 externals_delivered             # ExtINT of the 8259
    u64 smis_ignored
    u64 inits_received
    u64 startups_received
    u64 startups_ignored                # the processor did not wait for one
    u64 apic_errors                     # that ESR tells of
    u64 apic_timer_expired
    u64 apic_accesses_ignored           # of its page: no aligned access to four bytes
    u64 sint_intercepts_merged          # a SINT with as-intercept was raised while the message of the last time waited
    u64 retries                         # scans because a slot was full a while ago
    u64 rings                           # port ids put into an event ring
    u64 rings_delayed                   # doorbells that found the ring full, and wait
    u64 rings_merged                    # ... and were rung again meanwhile


cdef struct irq_t:
    fabric_t *fabric
    u32 index                           # of the virtual processor
    u64 time                            # ticks: how far this processor has come
    arrivals_t inbox
    observer_t *observer                # NULL: nobody watches
    lapic_t lapic
    synic_t synic
    synthetic_timer_t[4] timers
    u64 next_deadline                   # the earliest of the timers' deadlines
    u64 now                             # the latest reference time that a caller has told
    message_buffer_t intercept          # this VP's one intercept buffer; waits in its parent's queue
    irq_counters_t counters
    u64[256] delivered                  # interrupts delivered to the core, per vector
    u64 retry_time                      # ticks: when messages that found a full slot are tried again
    u64 sirbp
    u8 *event_ring                      # a frame of the hypervisor like the message page; NULL: without doorbells
    u8[16] ring_heads                   # the slot that the next port id goes to, for each SINT
    u32 awaited_sints                   # bit n: the parent wants to know when slot n is free (7.4)
    u32 deliverable_sints               # ... and has not been told that it is (message 80000062)
    bint intercepts_sints               # as-intercept bits count: this VP is the root's
    message_buffer_t[16] sint_intercepts    # what they send, one for each SINT
    void *processor                     # the vp_t of the engine; NULL: a controller on its own
    irq_t *next_noticed                 # in the clock's list, while `noticed`
    bint noticed
    interrupt_tallies_t tallies
    u64 tsc_offset                      # of this processor's time-stamp counter
    unhalted_timer_t unhalted
    assist_t assist
