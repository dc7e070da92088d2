"""One counter of an 8254 (Intel 82C54 data sheet 231244): modes, counts, latches, exact to the CLK pulse.

A counter is brought up to a CLK pulse when somebody looks at it or changes it; how many pulses lie between costs
nothing. CLK pulse n of the machine is the first tick at which n pulses of 1193182 Hz have passed since tick 0.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.irq.clock cimport never_ticks
from hvcore._native.irq.platform_state cimport PIT_HERTZ, TICKS_PER_SECOND, pit_counter_t
from libc.string cimport memset

cdef enum:
    STATUS_OUT = 0x80
    STATUS_NULL_COUNT = 0x40


cdef inline u64 pit_clock(u64 ticks) noexcept nogil:
    """CLK pulses up to a time."""
    return ticks // TICKS_PER_SECOND * PIT_HERTZ + ticks % TICKS_PER_SECOND * PIT_HERTZ // TICKS_PER_SECOND


cdef inline u64 pit_ticks(u64 clock) noexcept nogil:
    """The first tick at which that many CLK pulses have passed; never, if that is beyond the end of time."""
    cdef u64 rest = clock % PIT_HERTZ * TICKS_PER_SECOND
    if clock // PIT_HERTZ >= never_ticks() // TICKS_PER_SECOND:
        return never_ticks()
    return clock // PIT_HERTZ * TICKS_PER_SECOND + (rest + PIT_HERTZ - 1) // PIT_HERTZ


cdef inline u32 modulus(const pit_counter_t *counter) noexcept nogil:
    return 10000 if counter.bcd else 65536


cdef inline u32 initial_count(const pit_counter_t *counter) noexcept nogil:
    """The count register as a number; 0 is the largest. 1 is illegal in modes 2 and 3 and counts as 2 there."""
    cdef u32 count = counter.written
    if counter.bcd:
        count = ((count >> 12) * 1000 + ((count >> 8) & 15) * 100 + ((count >> 4) & 15) * 10 + (count & 15)) % 10000
    if count == 0:
        return modulus(counter)
    return 2 if count == 1 and (counter.mode == 2 or counter.mode == 3) else count


cdef inline void set_out(pit_counter_t *counter, bint high) noexcept nogil:
    if high and not counter.out:
        counter.edges += 1
    counter.out = high


cdef inline bint waits_for_gate(const pit_counter_t *counter) noexcept nogil:
    """Modes 1 and 5 do not care for the level of GATE, the others count while it is high."""
    return not counter.gate and counter.mode != 1 and counter.mode != 5


cdef inline void begin_half(pit_counter_t *counter, bint high) noexcept nogil:
    """Mode 3: an odd count spends its extra CLK pulse with OUT high."""
    cdef u32 count = initial_count(counter)
    set_out(counter, high)
    counter.extra = high and count & 1
    counter.left = (count + 1) // 2 if high else count // 2
    counter.null_count = False


cdef inline void load(pit_counter_t *counter) noexcept nogil:
    """The CLK pulse that moves the count register into the counting element."""
    counter.load_next = False
    counter.loaded = True
    counter.expired = counter.strobe = False
    if counter.mode == 3:
        begin_half(counter, True)
        return
    counter.null_count = False
    counter.left = initial_count(counter)
    set_out(counter, counter.mode != 0 and counter.mode != 1)


cdef inline void run_once(pit_counter_t *counter, u64 clocks) noexcept nogil:
    """Modes 0, 1, 4, 5: a count ends once, then the counting element wraps and OUT stays."""
    cdef u32 wrap = modulus(counter)
    if counter.strobe:
        counter.strobe = False
        set_out(counter, True)
    if not counter.expired and clocks >= counter.left:
        counter.expired = True
        if counter.mode < 2:
            set_out(counter, True)
        else:
            set_out(counter, False)
            counter.strobe = clocks == counter.left
            set_out(counter, not counter.strobe)
    counter.left = (counter.left + wrap - <u32>(clocks % wrap)) % wrap


cdef inline void run_rate(pit_counter_t *counter, u64 clocks) noexcept nogil:
    """Mode 2: OUT is low for the last CLK pulse of a period."""
    cdef u64 beyond
    cdef u32 count
    if clocks >= counter.left:
        beyond = clocks - counter.left
        count = initial_count(counter)
        counter.null_count = False
        counter.edges += 1 + beyond // count
        counter.left = count - <u32>(beyond % count)
    else:
        counter.left -= <u32>clocks
    counter.out = counter.left != 1


cdef inline void run_square(pit_counter_t *counter, u64 clocks) noexcept nogil:
    """Mode 3: OUT turns over at the end of each half."""
    cdef u32 count
    while clocks >= counter.left:
        clocks -= counter.left
        begin_half(counter, not counter.out)
        count = initial_count(counter)
        counter.edges += clocks // count     # whole periods change nothing else
        clocks %= count
    counter.left -= <u32>clocks


cdef inline void counter_advance(pit_counter_t *counter, u64 clock) noexcept nogil:
    """Bring the counter up to a CLK pulse; one that it has seen already changes nothing."""
    cdef u64 clocks
    if clock <= counter.clock:
        return
    clocks = clock - counter.clock
    counter.clock = clock
    if counter.load_next:
        load(counter)
        clocks -= 1
    if not counter.loaded or clocks == 0:
        return
    if waits_for_gate(counter):
        if counter.strobe:
            counter.strobe = False
            set_out(counter, True)
    elif counter.mode == 2:
        run_rate(counter, clocks)
    elif counter.mode == 3:
        run_square(counter, clocks)
    else:
        run_once(counter, clocks)


cdef inline u64 counter_next_change(const pit_counter_t *counter) noexcept nogil:
    """The CLK pulse at which OUT changes next by itself; all ones: never, as things are."""
    if counter.load_next or counter.strobe:
        return counter.clock + 1        # what comes behind a load is known only then
    if not counter.loaded or counter.expired or waits_for_gate(counter):
        return never_ticks()
    if counter.mode == 2 and counter.left > 1:
        return counter.clock + counter.left - 1
    return counter.clock + counter.left


cdef inline u32 counting_element(const pit_counter_t *counter) noexcept nogil:
    """What a read of the count gives now, in binary or BCD.

    A count on its way is there already: no bus reads an 8254 within the CLK pulse of a write, and kernels that
    calibrate rely on it (they write FFFFh and expect FFh at once)."""
    cdef u32 count = initial_count(counter) if counter.load_next else counter.left
    if counter.mode == 3:
        count = count & ~<u32>1 if counter.load_next else 2 * count - (2 if counter.extra else 0)
    count %= modulus(counter)
    if not counter.bcd:
        return count
    return count // 1000 << 12 | count // 100 % 10 << 8 | count // 10 % 10 << 4 | count % 10


cdef inline u8 counter_status(const pit_counter_t *counter) noexcept nogil:
    return <u8>((STATUS_OUT if counter.out else 0) | (STATUS_NULL_COUNT if counter.null_count else 0)
                | counter.control)


cdef inline void latch_count(pit_counter_t *counter) noexcept nogil:
    """A second latch before the first was read is ignored."""
    if not counter.latched_bytes:
        counter.latched = <u16>counting_element(counter)
        counter.latched_bytes = counter.access
        counter.read_high = False


cdef inline void latch_status(pit_counter_t *counter) noexcept nogil:
    if not counter.status_latched:
        counter.latched_status = counter_status(counter)
        counter.status_latched = True


cdef inline void write_control(pit_counter_t *counter, u8 word) noexcept nogil:
    """A control word: OUT goes to where its mode starts, and counting waits for a count."""
    if word & 0x30 == 0:
        latch_count(counter)
        return
    counter.control = word & 0x3F
    counter.access = (word >> 4) & 3
    counter.mode = (word >> 1) & 7
    if counter.mode > 5:
        counter.mode -= 4                           # X10 and X11
    counter.bcd = word & 1
    counter.written = counter.latched_bytes = 0
    counter.write_high = counter.read_high = counter.status_latched = False
    counter.complete = counter.load_next = counter.loaded = counter.expired = counter.strobe = counter.extra = False
    counter.left = 0
    counter.null_count = True
    set_out(counter, counter.mode != 0)


cdef inline void take_count(pit_counter_t *counter) noexcept nogil:
    """The count register is complete: when it reaches the counting element is the mode's matter."""
    counter.null_count = True
    if counter.mode == 0 or counter.mode == 4 or (not counter.complete and (counter.mode == 2 or counter.mode == 3)):
        counter.load_next = True
    if counter.mode == 0:
        set_out(counter, False)
    counter.complete = True


cdef inline void write_count(pit_counter_t *counter, u8 value) noexcept nogil:
    if counter.access == 3 and not counter.write_high:
        counter.low_byte = value
        counter.write_high = True
        if counter.mode == 0:                       # the first of two bytes stops the counting
            counter.loaded = counter.load_next = False
            set_out(counter, False)
        return
    if counter.access == 3:
        counter.written = <u16>(value << 8 | counter.low_byte)
    else:
        counter.written = value if counter.access == 1 else <u16>(value << 8)
    counter.write_high = False
    take_count(counter)


cdef inline u8 read_count(pit_counter_t *counter) noexcept nogil:
    """A latched status first, then a latched count, else the counting element as it is."""
    cdef u32 count
    if counter.status_latched:
        counter.status_latched = False
        return counter.latched_status
    if counter.latched_bytes & 1:
        counter.latched_bytes &= ~1
        return <u8>counter.latched
    if counter.latched_bytes:
        counter.latched_bytes = 0
        return <u8>(counter.latched >> 8)
    count = counting_element(counter)
    if counter.access == 2 or counter.read_high:
        counter.read_high = False
        return <u8>(count >> 8)
    counter.read_high = counter.access == 3
    return <u8>count


cdef inline void set_gate(pit_counter_t *counter, bint high) noexcept nogil:
    """A rising edge triggers modes 1, 2, 3 and 5; low ends a low OUT of modes 2 and 3 at once."""
    cdef bint rises = high and not counter.gate
    counter.gate = high
    if counter.mode == 0 or counter.mode == 4 or not counter.complete:
        return
    if rises:
        counter.load_next = True
    elif not high and (counter.mode == 2 or counter.mode == 3):
        set_out(counter, True)


cdef inline void counter_power_up(pit_counter_t *counter, u64 clock) noexcept nogil:
    """The data sheet leaves the state before programming open: mode 0, without a count, OUT low."""
    memset(counter, 0, sizeof(pit_counter_t))
    counter.clock = clock
    counter.access = 3
    counter.control = 0x30
    counter.gate = True
    counter.null_count = True
