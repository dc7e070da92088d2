"""The state of the interrupt hardware around the processors of one partition: I/O APIC, 8259 pair, 8254.

Wires: ISA interrupt n reaches input n of the 8259 pair and pin n of the I/O APIC, but for two: OUT of counter 0 is
ISA interrupt 0 and pin 2, and pin 0 is the INT output of the 8259 pair. Owned by platform.InterruptPlatform.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64

cdef enum:
    IOAPIC_PINS = 24
    IOAPIC_ADDRESS = 0xFEC00000
    IOAPIC_SIZE_BYTES = 0x1000
    IOAPIC_GSI_BASE = 0             # MADT: pin n is global system interrupt n
    PIN_PIC = 0                     # driven by the 8259 pair
    PIN_TIMER = 2                   # driven by the 8254: MADT overrides ISA interrupt 0 to it
    PIT_HERTZ = 1193182             # CLK of all three counters
    TICKS_PER_SECOND = 1000000000


cdef struct pin_counters_t:         # these names are the keys of InterruptPlatform.pin_counters()
    u64 asserted                    # the pin became active, as its entry's polarity has it
    u64 delivered                   # interrupts that at least one controller accepted
    u64 merged                      # asserted by its source while it was active already
    u64 held                        # became active while an earlier level interrupt of it had no EOI yet
    u64 masked                      # became active while the entry was masked: an edge is lost, a level may come later
    u64 lost                        # an edge that no controller accepted
    u64 waiting                     # a level that no controller accepted: it is tried again
    u64 blocked                     # refused by interrupt remapping
    u64 eois                        # EOIs that ended a level interrupt of it


cdef struct ioapic_t:
    u64[24] entries                 # as they are read, but for delivery status and remote IRR
    u32 lines                       # level of each pin, as its source drives it
    u32 active                      # the same after polarity
    u32 remote_irr                  # level interrupts that were accepted and have had no EOI
    u32 waiting                     # delivery status: a level interrupt that nobody accepted
    u32 requester                   # requester id of the I/O APIC, for interrupt remapping
    u8 select                       # IOREGSEL
    u8 id
    u8 arbitration
    u8 version
    bint extended                   # 15-bit destinations (CPUID 40000082h EAX.b2)
    pin_counters_t[24] counters


cdef struct pic_counters_t:         # these names are keys of InterruptPlatform.counters()
    u64 requested                   # rising edges of inputs
    u64 acknowledged
    u64 polled
    u64 spurious                    # acknowledge cycles that found no request


cdef struct pic_t:                  # one 8259A
    u8 lines                        # level of each input
    u8 edges                        # seen a rising edge since the last acknowledge or ICW1
    u8 isr
    u8 imr
    u8 level                        # ELCR
    u8 icw1
    u8 icw2
    u8 icw3
    u8 icw4
    u8 next_icw                     # 2, 3 or 4: which one the next write to A0 = 1 is; 0: OCW1
    u8 lowest                       # input of the lowest priority
    bint ready                      # ICWs are complete since power-up
    bint rotates                    # in automatic EOI mode
    bint special_mask
    bint reads_isr
    bint polls                      # the next read is an acknowledge
    int poll_input                  # what the poll command found, or -1
    bint output                     # INT
    pic_counters_t counters


cdef struct pit_counter_t:          # one of the three counters of an 8254
    u64 clock                       # CLK pulses that it has seen
    u32 left                        # CLK pulses to the end of its count, half-cycle or period
    u64 edges                       # rising edges of OUT since somebody asked
    u16 written                     # count register
    u16 latched
    u8 low_byte                     # first byte of a count of two
    u8 latched_status
    u8 control                      # the control word, as the status gives it
    u8 access                       # RW1, RW0: 1 low byte, 2 high byte, 3 both
    u8 mode                         # 0 to 5
    u8 latched_bytes                # still to be read: bit 0 low, bit 1 high
    bint bcd
    bint gate
    bint out
    bint extra                      # mode 3: this half is the longer one of an odd count
    bint write_high                 # of a count of two, the second byte comes next
    bint read_high
    bint status_latched
    bint null_count                 # the count register has not reached the counting element
    bint complete                   # a count was written since the control word
    bint load_next                  # the next CLK pulse loads the counting element
    bint loaded                     # it counts
    bint expired                    # modes 0, 1, 4, 5: the count has ended and OUT will not change by itself
    bint strobe                     # modes 4, 5: OUT is low for this CLK pulse


cdef struct pit_t:
    pit_counter_t[3] counters
    bint refresh                    # port 61h bit 4
    u8 control                      # port 61h bits 3:0


cdef struct pin_route_t:            # a row of the routing table (pin_routes.pxd)
    u64 identity                    # of the entry
    void *fabric                    # fabric_t of the partition that receives it
    u64[32] vps                     # which of its processors, by VP index
    u8 vector
    bint multicast


cdef struct platform_t:
    ioapic_t ioapic
    pic_t[2] pics
    pit_t pit
    # What an EOI of a level-triggered vector does. By a pointer, as handlers of instructions have it in line.
    void (*end_level)(void *fabric, u32 vector) noexcept nogil
    u64 intr_since                  # ticks: processors that have not come as far do not see INT yet
    u64 *deadline                   # where the scheduler reads when OUT of counter 0 changes next (ticks)
    u64 timer_interrupts            # rising edges of OUT of counter 0
    u64 accesses_ignored            # writes to its page where there is no register
    pin_route_t *routes             # of the machine's I/O APIC; NULL: nobody has ever mapped one of its interrupts
    u32 route_count
    void *sent_to[24]               # per pin: the fabric that its last level went to by the table; NULL: by its entry
    u8[24] sent_vector
    void *beyond                    # the fabric of the machine's I/O APIC while that routes to this partition
