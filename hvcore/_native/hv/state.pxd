"""What the virtual processors of one partition share, as native code sees it. The Python Partition owns it."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.state cimport fabric_t


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
    device_range_t *device_ranges   # of the root: what does not float
    u32 device_range_count
    u32 device_domain_bits  # width of device addresses; 0: there are no device domains
