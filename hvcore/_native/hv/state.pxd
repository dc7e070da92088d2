"""What the virtual processors of one partition share, as native code sees it. The Python Partition owns it."""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.hv.sorted_table cimport sorted_table_t
from hvcore._native.irq.state cimport fabric_t, message_port_t


cdef struct partition_t


cdef struct port_t:         # receives (TLFS 11); its owner's `ports` has it as long as it exists
    partition_t* owner      # NULL: the port is gone, and connections to it are dead
    message_port_t* buffers
    u64 posts               # messages that it took
    u32 id
    u32 vp_index            # ANY_VP: whichever is ready
    u16 base_flag
    u16 flag_count
    u8 kind                 # PORT_ of hv/ports.pxd
    u8 sint
    bint ring_waits         # a doorbell that was rung while the event ring was full


cdef struct connection_t:   # sends to one port; `connections` of the sending partition has it
    port_t* port
    u64 gpa                 # of a doorbell: which write rings it
    u64 value
    u32 id
    u8 size_bytes           # 0: any
    bint any_value

# Guest physical addresses of the machine that a device answers for.
cdef struct device_range_t:
    u64 first
    u64 last


cdef struct partition_t:
    u64 id
    u64 privileges
    u64 guest_os_id
    u64 hypercall_msr
    fabric_t fabric         # of its interrupt controllers; its time
    u32 exception_intercepts
    bint host_managed       # Python is the parent: intercepts become exits
    bint is_root
    bint cpuid_intercept    # any leaf
    bint suspended          # no VP of it runs
    bint has_doorbells      # a write to an unmapped page may be one
    u8* io_intercepts       # two bits a port: 1 read, 2 write; NULL: none
    u32 physical_bits       # MAXPHYADDR: what CPUID says, and what page tables may use
    u64 flush_generation    # from 1; grows when a processor whose TLB must not be flushed allows it again
    bint active             # its state: ports of any other partition take nothing
    sorted_table_t ports            # port_t by id
    sorted_table_t connections      # connection_t by id
    sorted_table_t doorbells        # those of its connections that a write rings, by GPA
    device_range_t *device_ranges   # of the root: what does not float
    u32 device_range_count
    u32 device_domain_bits  # width of device addresses; 0: there are no device domains
