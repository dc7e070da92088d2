"""The interrupt hardware around the processors of one partition, as its memory, its ports and the APICs reach it.

All of it follows the clock of its fabric: counters of the 8254 are brought up to date when somebody looks at what
they drive, and `deadline` tells the scheduler when OUT of counter 0 changes next, if that can interrupt anybody.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.irq.apic_spec cimport LVT_LINT0, LVT_MASKED
from hvcore._native.irq.clock cimport call_attention, never_ticks
from hvcore._native.irq.inbox cimport lags_behind, notice, open_inbox
from hvcore._native.irq.ioapic cimport RTE_MASKED, ioapic_read, ioapic_reset, ioapic_set_pin, ioapic_write
from hvcore._native.irq.lvt cimport set_external_line
from hvcore._native.irq.pic cimport (
    NOBODY, pic_power_up, pics_acknowledge, pics_read, pics_set_line, pics_write, pics_write_elcr,
)
from hvcore._native.irq.pit cimport (
    counter_advance, counter_next_change, counter_power_up, latch_count, latch_status, pit_clock, pit_ticks, read_count,
    set_gate, write_control, write_count,
)
from hvcore._native.irq.platform_state cimport (
    IOAPIC_ADDRESS, IOAPIC_SIZE_BYTES, PIN_PIC, PIN_TIMER, pit_counter_t, platform_t,
)
from hvcore._native.irq.state cimport fabric_t, machine_event_t

cdef enum:
    PORT_SPEAKER = 0x61             # NMI status and control: gate and OUT of counter 2, the refresh toggle
    ISA_INTERRUPTS = 16
    TIMER_INPUT = 0                 # of the 8259 pair
    REFRESH_CONTROL = 0x54          # firmware leaves counter 1, the memory refresh, in mode 2, every 18 CLK pulses
    REFRESH_COUNT = 18


cdef inline void drive_intr(fabric_t *fabric, bint dropped) noexcept nogil:
    """INT of the 8259 pair, to LINT0 and pin 0, perhaps with a drop in between that only edges notice."""
    cdef platform_t *platform = fabric.platform
    cdef bint before = platform.ioapic.lines & (1 << PIN_PIC) != 0
    cdef u32 index
    if before and (dropped or not platform.pics[0].output):
        set_external_line(fabric, False)
        ioapic_set_pin(fabric, &platform.ioapic, PIN_PIC, False)
        before = False
    if platform.pics[0].output and not before:
        set_external_line(fabric, True)
        platform.intr_since = fabric.clock.now if fabric.clock.running else 0
        for index in range(fabric.count):
            # Nothing but the wire tells of an ExtINT: a processor that lags behind must look when it has come as far.
            if lags_behind(fabric.controllers[index]):
                open_inbox(fabric.controllers[index])
            else:
                notice(fabric.controllers[index])
        ioapic_set_pin(fabric, &platform.ioapic, PIN_PIC, True)


cdef inline void drive_timer(fabric_t *fabric, bint high) noexcept nogil:
    cdef platform_t *platform = fabric.platform
    if high == (platform.ioapic.lines & (1 << PIN_TIMER) != 0):
        return
    pics_set_line(platform.pics, TIMER_INPUT, high)
    drive_intr(fabric, False)
    ioapic_set_pin(fabric, &platform.ioapic, PIN_TIMER, high)


cdef inline void count_missed(platform_t *platform, u64 edges) noexcept nogil:
    """Rising edges of OUT that nobody was told of one by one: both inputs were masked."""
    platform.pics[0].counters.requested += edges
    platform.ioapic.counters[PIN_TIMER].asserted += edges
    platform.ioapic.counters[PIN_TIMER].masked += edges


cdef inline void platform_sync(fabric_t *fabric) noexcept nogil:
    """Bring counter 0 up to the present, and with it what it drives."""
    cdef platform_t *platform = fabric.platform
    cdef pit_counter_t *counter = &platform.pit.counters[0]
    cdef u64 edges
    counter_advance(counter, pit_clock(fabric.clock.now))
    edges = counter.edges
    counter.edges = 0
    platform.timer_interrupts += edges
    if edges > 1:
        count_missed(platform, edges - 1)
    if edges:
        drive_timer(fabric, False)
        drive_timer(fabric, True)
    drive_timer(fabric, counter.out)


cdef inline void platform_arm(fabric_t *fabric) noexcept nogil:
    """Tell the scheduler when OUT of counter 0 changes, unless both of its interrupts are masked."""
    cdef platform_t *platform = fabric.platform
    cdef bint masked = platform.pics[0].imr & 1 and platform.ioapic.entries[PIN_TIMER] & RTE_MASKED
    cdef u64 before = platform.deadline[0]
    platform.deadline[0] = never_ticks() if masked else pit_ticks(counter_next_change(&platform.pit.counters[0]))
    if platform.deadline[0] < before:
        call_attention(fabric.clock)


cdef inline bint platform_breaks_through(const fabric_t *fabric) noexcept nogil:
    """Whether the timer may reach a processor that has interrupts off: as NMI or INIT."""
    cdef u64 entry
    cdef u32 i
    if fabric.platform == NULL:
        return False
    for i in range(PIN_TIMER + 1):
        entry = fabric.platform.ioapic.entries[i]
        if not entry & RTE_MASKED and (entry >> 9) & 3 == 2:
            return True
    for i in range(fabric.count):
        entry = fabric.controllers[i].lapic.lvt[LVT_LINT0]
        if not entry & LVT_MASKED and (entry >> 9) & 3 == 2:
            return True
    return False


cdef inline void platform_act(machine_event_t *event, u64 now) noexcept nogil:
    """The deadline has come."""
    cdef fabric_t *fabric = <fabric_t *>event.owner
    platform_sync(fabric)
    platform_arm(fabric)


cdef inline void platform_reset(fabric_t *fabric) noexcept nogil:
    """As after power-up. Lines that devices drive stay as they are, and counters go on counting."""
    cdef platform_t *platform = fabric.platform
    cdef u64 now = pit_clock(fabric.clock.now)
    cdef u32 index
    pic_power_up(&platform.pics[0])
    pic_power_up(&platform.pics[1])
    for index in range(3):
        counter_power_up(&platform.pit.counters[index], now)
    write_control(&platform.pit.counters[1], REFRESH_CONTROL)
    write_count(&platform.pit.counters[1], REFRESH_COUNT)
    platform.pit.counters[1].edges = 0
    set_gate(&platform.pit.counters[2], False)
    platform.pit.refresh = False
    platform.pit.control = 0
    set_external_line(fabric, False)
    platform.ioapic.lines &= ~<u32>(1 << PIN_PIC | 1 << PIN_TIMER)
    platform.pics[0].lines &= ~<u8>1
    ioapic_reset(&platform.ioapic)
    platform_arm(fabric)


cdef inline void platform_set_pin(fabric_t *fabric, u32 pin, bint high) noexcept nogil:
    """A device drives a line: pin 1 or 3 to 23 of the I/O APIC, below 16 an input of the 8259 pair too."""
    cdef platform_t *platform = fabric.platform
    platform_sync(fabric)
    if pin < ISA_INTERRUPTS:
        pics_set_line(platform.pics, pin, high)
        drive_intr(fabric, False)
    ioapic_set_pin(fabric, &platform.ioapic, pin, high)


cdef inline u8 platform_acknowledge(fabric_t *fabric) noexcept nogil:
    """The acknowledge cycle of an ExtINT: the vector that the 8259 pair gives now. Without one the bus floats."""
    cdef u8 vector
    if fabric.platform == NULL:
        return NOBODY
    platform_sync(fabric)
    vector = pics_acknowledge(fabric.platform.pics)
    drive_intr(fabric, True)
    return vector


cdef inline bint platform_owns_memory(const fabric_t *fabric, u64 gpa) noexcept nogil:
    """Whether the partition's I/O APIC is at `gpa`."""
    return fabric.platform != NULL and gpa - <u64>IOAPIC_ADDRESS < IOAPIC_SIZE_BYTES


cdef inline u64 platform_read_memory(fabric_t *fabric, u64 gpa, u32 size_bytes) noexcept nogil:
    """Registers are dwords; of a wider access the rest is zero."""
    cdef u64 value
    cdef u32 offset = <u32>gpa & (IOAPIC_SIZE_BYTES - 1)
    platform_sync(fabric)
    value = <u64>ioapic_read(&fabric.platform.ioapic, offset & ~<u32>3) >> 8 * (offset & 3)
    return value if size_bytes >= 4 else value & ((<u64>1 << 8 * size_bytes) - 1)


cdef inline void platform_write_memory(fabric_t *fabric, u64 gpa, u32 size_bytes, u64 value) noexcept nogil:
    """A narrower access writes zeros above; one that does not begin at a register is ignored, and counted."""
    cdef u32 offset = <u32>gpa & (IOAPIC_SIZE_BYTES - 1)
    if size_bytes < 4:
        value &= (<u64>1 << 8 * size_bytes) - 1
    platform_sync(fabric)
    if not ioapic_write(fabric, &fabric.platform.ioapic, offset, <u32>value):
        fabric.platform.accesses_ignored += 1
    platform_arm(fabric)


cdef inline bint platform_owns_port(const fabric_t *fabric, u16 port) noexcept nogil:
    """8259 pair, ELCR, 8254, port 61h: the hypervisor's own before any intercept (digest 8.2)."""
    if fabric.platform == NULL:
        return False
    return (port & 0xFF7E == 0x20 or port & 0xFFFE == 0x4D0 or port & 0xFFFC == 0x40 or port == PORT_SPEAKER)


cdef inline u8 read_speaker_port(fabric_t *fabric) noexcept nogil:
    cdef platform_t *platform = fabric.platform
    cdef u64 now = pit_clock(fabric.clock.now)
    counter_advance(&platform.pit.counters[1], now)
    counter_advance(&platform.pit.counters[2], now)
    platform.pit.refresh ^= platform.pit.counters[1].edges & 1
    platform.pit.counters[1].edges = 0
    return <u8>(platform.pit.control | platform.pit.refresh << 4 | platform.pit.counters[2].out << 5)


cdef inline void write_speaker_port(fabric_t *fabric, u8 value) noexcept nogil:
    cdef pit_counter_t *counter = &fabric.platform.pit.counters[2]
    counter_advance(counter, pit_clock(fabric.clock.now))
    fabric.platform.pit.control = value & 0xF
    set_gate(counter, value & 1)


cdef inline void read_back(fabric_t *fabric, u8 command) noexcept nogil:
    """Latches counts (bit 5 clear) and status (bit 4 clear) of the counters in bits 3:1."""
    cdef pit_counter_t *counter
    cdef u32 index
    for index in range(3):
        if not (command >> (index + 1)) & 1:
            continue
        counter = &fabric.platform.pit.counters[index]
        counter_advance(counter, pit_clock(fabric.clock.now))
        if not command & 0x20:
            latch_count(counter)
        if not command & 0x10:
            latch_status(counter)


cdef inline void write_timer(fabric_t *fabric, u16 port, u8 value) noexcept nogil:
    """Ports 40h to 43h."""
    cdef u32 index = value >> 6 if port == 0x43 else port & 3
    cdef pit_counter_t *counter = &fabric.platform.pit.counters[index % 3]
    if index == 3:
        read_back(fabric, value)
        return
    counter_advance(counter, pit_clock(fabric.clock.now))
    if port == 0x43:
        write_control(counter, value)
    else:
        write_count(counter, value)


cdef inline u8 read_byte(fabric_t *fabric, u16 port) noexcept nogil:
    cdef pit_counter_t *counter
    if not platform_owns_port(fabric, port):
        return 0xFF
    if port & 0xFFFE == 0x4D0:
        return fabric.platform.pics[port & 1].level
    if port == PORT_SPEAKER:
        return read_speaker_port(fabric)
    if port & 0xFFFC != 0x40:
        return pics_read(fabric.platform.pics, port)
    if port == 0x43:
        return 0xFF                     # no operation (data sheet, read/write operations summary): the bus floats
    counter = &fabric.platform.pit.counters[port & 3]
    counter_advance(counter, pit_clock(fabric.clock.now))
    return read_count(counter)


cdef inline void write_byte(fabric_t *fabric, u16 port, u8 value) noexcept nogil:
    if not platform_owns_port(fabric, port):
        return
    if port & 0xFFFE == 0x4D0:
        pics_write_elcr(fabric.platform.pics, port, value)
    elif port == PORT_SPEAKER:
        write_speaker_port(fabric, value)
    elif port & 0xFFFC == 0x40:
        write_timer(fabric, port, value)
    else:
        pics_write(fabric.platform.pics, port, value)


cdef inline u64 platform_read_port(fabric_t *fabric, u16 port, u32 size_bytes) noexcept nogil:
    """Every chip here has eight data lines: a wider access is one of each port, and those of nobody float."""
    cdef u64 value = 0
    cdef u32 i
    platform_sync(fabric)
    for i in range(size_bytes):
        value |= <u64>read_byte(fabric, <u16>(port + i)) << 8 * i
    drive_intr(fabric, False)
    return value


cdef inline void platform_write_port(fabric_t *fabric, u16 port, u32 size_bytes, u64 value) noexcept nogil:
    cdef u32 i
    platform_sync(fabric)
    for i in range(size_bytes):
        write_byte(fabric, <u16>(port + i), <u8>(value >> 8 * i))
        platform_sync(fabric)
        drive_intr(fabric, False)
    platform_arm(fabric)


cdef inline void platform_eoi(fabric_t *fabric, u32 vector) noexcept nogil:
    """An EOI of a level-triggered vector was broadcast."""
    if fabric.platform != NULL:
        fabric.platform.end_level(fabric, vector)
