"""The state of the scheduler: logical processors, who has them, and what waits. Its rules: placement, schedule."""
from hvcore._native.base.types cimport i32, u32, u64
from hvcore._native.cpu.cache cimport block_cache_t
from hvcore._native.cpu.host_time cimport host_time_t
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.irq.clock cimport clock_t
from hvcore._native.irq.state cimport machine_event_t

cdef enum:
    PROCESSORS_MAXIMUM = 2048
    SET_WORDS = 32              # of a set of logical processors
    LONG_QUANTUM = 1 << 18      # ticks, when one VP alone can run
    SHARE_SCALE = 10000         # the largest weight
    WHOLE_PROCESSOR = 0x10000   # the cap that is none
    NO_PROCESSOR = -1


cdef struct scheduler_t:
    block_cache_t* cache
    u32 processor_count
    u64 quantum                 # ticks
    u64 quantum_start
    u64 quantum_end
    bint alone                  # one VP alone could run when the quantum began
    u64 furthest                # the clock that is ahead of all others
    u64 last_sent               # when a processor last sent something to another
    u64[PROCESSORS_MAXIMUM] clocks      # how far each logical processor has come; before the quantum's start: that
    u64[PROCESSORS_MAXIMUM] due         # when the VP that has it goes on
    vp_t* holders[PROCESSORS_MAXIMUM]
    u32[PROCESSORS_MAXIMUM] busy        # logical processors that have a holder, ascending
    u32 busy_count
    u64[SET_WORDS] vacant               # those that have none
    u64* start_times            # by slot, of VPs without logical processor: when they could go on; never: they cannot
    u32* order                  # room for the slots of all VPs
    u32 waiting                 # VPs that could go on at some time and have no logical processor
    u64 share_floor             # the least share of those that did not sleep: sleep is no credit
    vp_t* active                # whose slice goes on, however often the run was cut in between ...
    u64 active_end
    i32 last                    # the logical processor that ran last
    bint touched                # Python code may have changed any VP
    vp_t* current               # the VP that the last return is about
    int canceled                # set by another thread
    clock_t clock
    machine_event_t** events    # of the machine's own hardware
    u32 event_count
    host_time_t host            # whether time follows the host's clock
