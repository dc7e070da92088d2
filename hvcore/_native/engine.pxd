"""The objects that run guest code. Not for downstream: decoder.pxd is."""
from hvcore._native.base.status cimport REASON_COUNT
from hvcore._native.base.types cimport i64, u32, u64, u8
from hvcore._native.cpu.cache cimport block_cache_t
from hvcore._native.cpu.scheduler cimport scheduler_t
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.hv.state cimport partition_t
from hvcore._native.irq.clock cimport clock_t
from hvcore._native.irq.state cimport fabric_t, machine_event_t
from hvcore._native.irqchip cimport InterruptController
from hvcore._native.platform cimport InterruptPlatform
from hvcore._native.space cimport GpaSpace, SystemMemory


cdef class PartitionCore:
    cdef partition_t partition
    cdef public u64 creation_flags
    cdef set cpuid_leaves
    cdef object msr_ranges
    cdef SystemMemory memory        # whose guard the clocks have
    cdef clock_t own_clock          # until a scheduler takes its processors
    cdef Scheduler scheduler        # whose clock its controllers follow
    cdef readonly InterruptPlatform platform
    cdef int connect(self, InterruptController controller, u32 index) except -1
    cdef void detach(self) noexcept
    cdef void disconnect(self, InterruptController controller) noexcept


cdef class PartitionTime:
    cdef PartitionCore core
    cdef fabric_t* fabric
    cdef object frame               # of the reference TSC page
    cdef readonly dict reenlightenment      # MSR -> value
    cdef u64 now(self) noexcept
    cdef int require_frequency(self, str name, u64 hertz, u64 least, u64 most) except -1


cdef class RegisterFile:
    cdef vp_t* vp


cdef class VirtualProcessor(RegisterFile):
    cdef readonly PartitionCore core
    cdef readonly GpaSpace space
    cdef readonly InterruptController interrupts
    cdef Scheduler scheduler
    cdef public u64 assist_msr
    cdef u64[REASON_COUNT] exit_counts
    cdef u64 spa_of(self, u64 gpa, u8 right) except? 0
    cdef bytes take_records(self)


cdef class Scheduler:
    cdef scheduler_t* scheduler
    cdef block_cache_t* cache
    cdef SystemMemory memory
    cdef dict vps                   # address of the vp_t -> VirtualProcessor
    cdef public object service
    cdef bint running
    cdef u32 tap_count              # processors that are listened to
    cdef object failure             # of who listened, when a run had an exit to give
    cdef int deliver(self) except -1
    cdef int deliver_last(self) except -1
    cdef int count_taps(self, int change) except -1
    cdef void set_taps(self, u32 count) noexcept
    cdef int grow(self) except -1
    cdef int add_event(self, machine_event_t* event) except -1
    cdef void remove_event(self, machine_event_t* event) noexcept
    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef object run_for(self, VirtualProcessor only, i64 budget)
    cdef int verify_code(self) except -1
    cdef object run_loop(self, VirtualProcessor only, i64 budget)
    cdef bint serve(self, VirtualProcessor vp, u32 reason) except -1
    cdef bint serve_msr(self, VirtualProcessor vp) except -1
    cdef bint ring_doorbell(self, VirtualProcessor vp) except -1
    cdef bint tell_parent(self, VirtualProcessor vp, u32 reason) except -1
