"""The 8259A pair: requests, priorities, acknowledge cycles, commands (Intel 8259A data sheet 231468).

A request is a level, or an edge whose line is still high: a line that falls before the acknowledge cycle leaves the
default input 7. Edge or level is chosen per input by ELCR, and for all by LTIM. No function here reaches beyond the
pair: whoever changes something looks at `pics[0].output` behind it.
"""
from hvcore._native.base.types cimport u8, u16, u32
from hvcore._native.irq.platform_state cimport pic_counters_t, pic_t
from libc.string cimport memset

cdef extern from *:
    int trailing_zeros "__builtin_ctz"(u32 word) noexcept nogil

cdef enum:
    ICW1_NEEDS_ICW4 = 1
    ICW1_SINGLE = 2
    ICW1_INTERVAL_4 = 4             # MCS-80 vectors only
    ICW1_LEVEL = 8
    ICW1 = 0x10                     # D4: ICW1 and not an OCW
    ICW4_8086 = 1
    ICW4_AUTO_EOI = 2
    ICW4_NESTED = 0x10              # special fully nested
    OCW3 = 8                        # D3: OCW3 and not OCW2
    MASTER_ELCR = 0xF8              # inputs 0, 1, 2 are edges always ...
    SLAVE_ELCR = 0xDE               # ... and so are 8 and 13
    CASCADE = 2                     # the slave's INT is this input of the master
    NOBODY = 0xFF                   # an acknowledge cycle in which no chip drives the bus


cdef inline void pic_power_up(pic_t *pic) noexcept nogil:
    """The data sheet leaves the state before ICW1 open; here everything is masked. Devices drive their lines on."""
    cdef u8 lines = pic.lines
    cdef pic_counters_t counters = pic.counters
    memset(pic, 0, sizeof(pic_t))
    pic.lines = lines
    pic.counters = counters
    pic.imr = 0xFF
    pic.lowest = 7
    pic.poll_input = -1


cdef inline u8 pic_level_inputs(const pic_t *pic) noexcept nogil:
    return 0xFF if pic.icw1 & ICW1_LEVEL else pic.level


cdef inline u8 pic_requests(const pic_t *pic) noexcept nogil:
    """The interrupt request register."""
    return pic.lines & (pic.edges | pic_level_inputs(pic))


cdef inline int pic_highest(const pic_t *pic, u8 inputs) noexcept nogil:
    """The input of the highest priority among a set, or -1."""
    cdef u32 first = (pic.lowest + 1) & 7
    cdef u32 turned = ((<u32>inputs >> first) | (<u32>inputs << (8 - first))) & 0xFF
    return <int>((<u32>trailing_zeros(turned) + first) & 7) if turned else -1


cdef inline bint has_slave(const pic_t *pic, u32 index, u32 line) noexcept nogil:
    """Chip 0 is the master: whether its ICW3 says that a slave is at this input."""
    return index == 0 and not pic.icw1 & ICW1_SINGLE and (pic.icw3 >> line) & 1


cdef inline int pic_pending(const pic_t *pic, u32 index) noexcept nogil:
    """The input that INT is about now, or -1: of higher priority than whatever is in service."""
    cdef int wanted = pic_highest(pic, pic_requests(pic) & ~pic.imr)
    cdef int serving
    if wanted < 0 or not pic.ready or pic.next_icw:
        return -1
    # In special mask mode a masked input in service stands in nobody's way.
    serving = pic_highest(pic, pic.isr & ~pic.imr if pic.special_mask else pic.isr)
    if serving < 0 or ((wanted - pic.lowest - 1) & 7) < ((serving - pic.lowest - 1) & 7):
        return wanted
    if wanted == serving and pic.icw4 & ICW4_NESTED and has_slave(pic, index, <u32>wanted):
        return wanted
    return -1


cdef inline void pic_drive(pic_t *pic, u32 line, bint high) noexcept nogil:
    """A source drives an input."""
    cdef u8 bit = <u8>(1 << line)
    if high and not pic.lines & bit:
        pic.edges |= bit
        pic.counters.requested += 1
    if high:
        pic.lines |= bit
    else:
        pic.lines &= ~bit
        pic.edges &= ~bit


cdef inline void pics_update(pic_t *pics) noexcept nogil:
    """INT of both chips, after anything changed."""
    pics[1].output = pic_pending(&pics[1], 1) >= 0
    pic_drive(&pics[0], CASCADE, pics[1].output)
    pics[0].output = pic_pending(&pics[0], 0) >= 0


cdef inline void pics_set_line(pic_t *pics, u32 line, bint high) noexcept nogil:
    """ISA interrupt 0 to 15, not 2."""
    pic_drive(&pics[line >> 3], line & 7, high)
    pics_update(pics)


cdef inline void end_interrupt(pic_t *pic, u32 line, bint rotate) noexcept nogil:
    pic.isr &= ~<u8>(1 << line)
    if rotate:
        pic.lowest = <u8>line


cdef inline void begin_service(pic_t *pic, u32 line) noexcept nogil:
    """What an acknowledge cycle does in the chip that has the request."""
    pic.edges &= ~<u8>(1 << line)
    pic.isr |= <u8>(1 << line)
    if pic.icw4 & ICW4_AUTO_EOI:
        end_interrupt(pic, line, pic.rotates)


cdef inline u8 pic_vector(const pic_t *pic, u32 line) noexcept nogil:
    """ICW2 and the input. An 8259 left in MCS-80 mode gives the low byte of its CALL's address."""
    if pic.icw4 & ICW4_8086:
        return <u8>((pic.icw2 & 0xF8) | line)
    if pic.icw1 & ICW1_INTERVAL_4:
        return <u8>((pic.icw1 & 0xE0) | line << 2)
    return <u8>((pic.icw1 & 0xC0) | line << 3)


cdef inline u8 acknowledge_chip(pic_t *pic, u32 index) noexcept nogil:
    """INTA in one chip: the vector it gives. Without a request that is the default input 7's, and no ISR bit."""
    cdef int line = pic_pending(pic, index)
    if line < 0:
        pic.counters.spurious += 1
        return pic_vector(pic, 7)
    pic.counters.acknowledged += 1
    begin_service(pic, <u32>line)
    return pic_vector(pic, <u32>line)


cdef inline u8 pics_acknowledge(pic_t *pics) noexcept nogil:
    """The processor's acknowledge cycle. INT of a chip that was asked falls before it may rise again."""
    cdef int line = pic_pending(&pics[0], 0)
    cdef u8 vector = acknowledge_chip(&pics[0], 0)
    if line >= 0 and has_slave(&pics[0], 0, <u32>line):
        # The master is silent; the slave that finds its own number on the cascade lines answers.
        vector = NOBODY
        if line == CASCADE and pics[1].ready and (pics[1].icw3 & 7) == CASCADE:
            vector = acknowledge_chip(&pics[1], 1)
    pic_drive(&pics[0], CASCADE, False)
    pics_update(pics)
    return vector


cdef inline void write_icw1(pic_t *pic, u8 value) noexcept nogil:
    """Starts initialization: what the data sheet lists under ICW1 (a) to (f)."""
    pic.icw1 = value
    pic.edges = 0
    pic.imr = pic.isr = 0
    pic.lowest = 7
    pic.icw3 = 7
    pic.special_mask = pic.reads_isr = pic.rotates = pic.polls = False
    if not value & ICW1_NEEDS_ICW4:
        pic.icw4 = 0
    pic.next_icw = 2


cdef inline void write_ocw2(pic_t *pic, u8 value) noexcept nogil:
    cdef u32 command = value >> 5
    cdef int serving
    if command == 0 or command == 4:            # rotate in automatic EOI mode: clear, set
        pic.rotates = command == 4
    elif command == 6:                          # set priority
        pic.lowest = value & 7
    elif command == 3 or command == 7:          # specific EOI
        end_interrupt(pic, value & 7, command == 7)
    elif command == 1 or command == 5:          # non-specific EOI
        serving = pic_highest(pic, pic.isr & ~pic.imr if pic.special_mask else pic.isr)
        if serving >= 0:
            end_interrupt(pic, <u32>serving, command == 5)


cdef inline void write_ocw3(pic_t *pic, u32 index, u8 value) noexcept nogil:
    if value & 0x40:                            # ESMM
        pic.special_mask = value & 0x20 != 0
    if value & 4:                               # the request is frozen from here to the read
        pic.polls = True
        pic.poll_input = pic_pending(pic, index)
    elif value & 2:
        pic.reads_isr = value & 1


cdef inline void write_icw(pic_t *pic, u8 value) noexcept nogil:
    """ICW2, ICW3, ICW4, as many of them as ICW1 announced."""
    cdef bint cascaded = not pic.icw1 & ICW1_SINGLE
    if pic.next_icw == 2:
        pic.icw2 = value
        pic.next_icw = 3 if cascaded else (4 if pic.icw1 & ICW1_NEEDS_ICW4 else 0)
    elif pic.next_icw == 3:
        pic.icw3 = value
        pic.next_icw = 4 if pic.icw1 & ICW1_NEEDS_ICW4 else 0
    else:
        pic.icw4 = value & 0x1F
        pic.next_icw = 0
    pic.ready = pic.ready or pic.next_icw == 0


cdef inline void pics_write(pic_t *pics, u16 port, u8 value) noexcept nogil:
    """Ports 20h, 21h, A0h, A1h."""
    cdef u32 index = (port >> 7) & 1
    cdef pic_t *pic = &pics[index]
    if port & 1:
        if pic.next_icw:
            write_icw(pic, value)
        else:
            pic.imr = value
    elif value & ICW1:
        write_icw1(pic, value)
    elif value & OCW3:
        write_ocw3(pic, index, value)
    else:
        write_ocw2(pic, value)
    pics_update(pics)


cdef inline u8 pics_read(pic_t *pics, u16 port) noexcept nogil:
    """Ports 20h, 21h, A0h, A1h: a polled request, IMR, IRR or ISR."""
    cdef u32 index = (port >> 7) & 1
    cdef pic_t *pic = &pics[index]
    cdef int line = pic.poll_input
    if pic.polls:
        pic.polls = False
        pic.poll_input = -1
        if line < 0:
            return 0
        pic.counters.polled += 1
        begin_service(pic, <u32>line)
        if index == 1:
            pic_drive(&pics[0], CASCADE, False)
        pics_update(pics)
        return <u8>(0x80 | line)
    if port & 1:
        return pic.imr
    return pic.isr if pic.reads_isr else pic_requests(pic)


cdef inline void pics_write_elcr(pic_t *pics, u16 port, u8 value) noexcept nogil:
    """4D0h and 4D1h: a set bit makes the input level-triggered."""
    pics[port & 1].level = value & (SLAVE_ELCR if port & 1 else MASTER_ELCR)
    pics_update(pics)
