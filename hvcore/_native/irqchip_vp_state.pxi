# Chapter of irqchip.pyx: the images of HvCallGetVpState and HvCallSetVpState, local APIC and synthetic timers
# (digest 4.12, 10.4).

cdef struct apic_image_t:               # 176 bytes
    u32 id
    u32 version
    u32 ldr
    u32 dfr
    u32 spurious
    u32[8] isr
    u32[8] tmr
    u32[8] irr
    u32 esr                             # as its register reads
    u32 icr_high
    u32 icr_low
    u32[7] lvt                          # timer, thermal, performance, LINT0, LINT1, error, CMCI
    u32 errors                          # since ESR was last written
    u32 initial_count
    u32 current_count
    u32 divide
    u32 remote_read


cdef struct timer_image_t:              # 40 bytes
    u32 undelivered                     # b0: its message waits
    u32 reserved
    u64 config
    u64 count
    u64 adjustment                      # of a periodic timer that is armed: its next expiry; 0: a period from now on
    u64 undelivered_expiration          # of the message that waits


cdef struct timers_image_t:             # 200 bytes
    timer_image_t[4] timers
    u64[5] reserved


cdef u64 time_of(const irq_t *irq) noexcept:
    """Ticks: now, as the processor sees it."""
    return max(irq.fabric.clock.now, irq.time)


cdef bytes apic_state(irq_t *irq):
    """The image. What was promised to a guest is not in it: it must write the EOI of what is in service."""
    cdef apic_image_t image
    cdef lapic_t *lapic = &irq.lapic
    cdef u32 i
    withdraw_promise(irq)
    memset(&image, 0, sizeof(apic_image_t))
    image.id, image.version, image.ldr = lapic.apic_id, VERSION_VALUE, <u32>read_apic(irq, APIC_LDR, 0)
    image.dfr, image.spurious = lapic.dfr, lapic.svr
    for i in range(8):
        image.isr[i], image.tmr[i] = read_vectors(lapic.isr, i), read_vectors(lapic.tmr, i)
        image.irr[i] = read_vectors(lapic.irr, i)
    image.esr, image.errors = lapic.esr, lapic.errors
    image.icr_high, image.icr_low = <u32>(lapic.icr >> 32), <u32>lapic.icr
    for i in range(<u32>LVT_COUNT):
        image.lvt[i] = lapic.lvt[i]
    image.initial_count, image.divide = lapic.initial_count, lapic.divide
    image.current_count = current_count(irq, time_of(irq))
    return (<const char *>&image)[:sizeof(apic_image_t)]


cdef bint is_lvt_sound(const apic_image_t *image) noexcept:
    """Entries that could have been written; all of them are masked in a software-disabled APIC (11.4.7.2)."""
    cdef u32 i
    for i in range(<u32>LVT_COUNT):
        if image.lvt[i] & ~(lvt_defined(i) | (LVT_REMOTE_IRR if i == LVT_LINT0 or i == LVT_LINT1 else 0)):
            return False
        if not image.spurious & SVR_ENABLE and not image.lvt[i] & LVT_MASKED:
            return False
    return True


cdef str fault_of_apic_image(const irq_t *irq, const apic_image_t *image):
    """What an APIC of the mode of this one cannot be, or None."""
    cdef u64 destinations = <u64>0xFFFFFFFF << 32 if is_x2apic(&irq.lapic) else <u64>0xFF << 56
    if image.version != VERSION_VALUE:
        return f"is of an APIC of version {image.version:#x}, not {<u32>VERSION_VALUE:#x}"
    if not is_x2apic(&irq.lapic) and image.ldr & 0xFFFFFF:
        return "has an LDR of x2APIC mode"
    if (image.isr[0] | image.tmr[0] | image.irr[0]) & 0xFFFF:
        return "has interrupts of vectors below 16"
    if (<u64>image.icr_high << 32 | image.icr_low) & ~(destinations | ICR_DEFINED) \
            or image.spurious & ~<u32>SVR_DEFINED or image.divide & ~<u32>DIVIDE_DEFINED \
            or ~image.dfr & 0x0FFFFFFF or (image.esr | image.errors) >> 8 or not is_lvt_sound(image):
        return "has reserved bits, or an LVT entry that a disabled APIC would have masked"
    return "has a count beyond its initial count" if image.current_count > image.initial_count else None


cdef void find_auto_eois(irq_t *irq) noexcept:
    """Requests that drop their ISR bit when they are taken are not in an image: those of SINTs with auto-EOI."""
    cdef u32 sint
    memset(irq.lapic.auto_eoi, 0, sizeof(irq.lapic.auto_eoi))
    for sint in range(SINT_COUNT):
        if irq.synic.sints[sint] & SINT_AUTO_EOI and has_vector(irq.lapic.irr, irq.synic.sints[sint] & SINT_VECTOR):
            put_vector(irq.lapic.auto_eoi, irq.synic.sints[sint] & SINT_VECTOR, True)


cdef int restore_apic(irq_t *irq, bytes octets) except -1:
    cdef const apic_image_t *image = <const apic_image_t *><const char *>octets
    cdef lapic_t *lapic = &irq.lapic
    cdef u64 now = time_of(irq)
    cdef u32 i
    if <size_t>len(octets) != sizeof(apic_image_t):
        raise ValueError(f"image must have {sizeof(apic_image_t)} bytes, not {len(octets)}")
    fault = fault_of_apic_image(irq, image)
    if fault is not None:
        raise ValueError("image " + fault)
    withdraw_promise(irq)
    if not is_x2apic(lapic):
        lapic.ldr = image.ldr
    lapic.dfr, lapic.svr = image.dfr, image.spurious
    for i in range(4):
        lapic.isr[i] = image.isr[2 * i] | <u64>image.isr[2 * i + 1] << 32
        lapic.tmr[i] = image.tmr[2 * i] | <u64>image.tmr[2 * i + 1] << 32
        lapic.irr[i] = image.irr[2 * i] | <u64>image.irr[2 * i + 1] << 32
    find_auto_eois(irq)
    lapic.esr, lapic.errors = image.esr, image.errors
    lapic.icr = (<u64>image.icr_high << 32 | image.icr_low) & ~<u64>ICR_STATUS
    for i in range(<u32>LVT_COUNT):
        lapic.lvt[i] = image.lvt[i]
    lapic.initial_count, lapic.divide = image.initial_count, image.divide
    lapic.timer_count, lapic.timer_start = image.current_count, now
    rearm_timer(irq, now)
    notice(irq)
    return 0


cdef bint can_say_undelivered(const synthetic_timer_t *timer) noexcept:
    """Its message waits where its configuration says: what it was before it was reprogrammed is not in an image."""
    return (timer.buffer.holder is not NULL and not timer.config & TIMER_DIRECT
            and timer.buffer.sint == timer_sint(timer.config))


cdef bytes timers_state(const irq_t *irq):
    cdef timers_image_t image
    cdef const synthetic_timer_t *timer
    cdef u32 i
    memset(&image, 0, sizeof(timers_image_t))
    for i in range(SYNTHETIC_TIMER_COUNT):
        timer = &irq.timers[i]
        image.timers[i].config, image.timers[i].count = timer.config, timer.count
        if timer.config & TIMER_PERIODIC and timer.deadline != never():
            image.timers[i].adjustment = timer.deadline
        if can_say_undelivered(timer):
            image.timers[i].undelivered = 1
            image.timers[i].undelivered_expiration = (<const timer_payload_t *>timer.buffer.message.payload).expiration
    return (<const char *>&image)[:sizeof(timers_image_t)]


cdef str fault_of_timer_image(const timer_image_t *image):
    """What a timer cannot be, or None."""
    cdef bint has_sint = not image.config & TIMER_DIRECT and timer_sint(image.config) != 0
    if not is_timer_config(image.config):
        return "a configuration with reserved bits, or in direct mode a vector below 16"
    if image.config & TIMER_ENABLE and not image.config & TIMER_DIRECT and not has_sint:
        return "an enabled timer whose messages go to SINT0"
    if image.undelivered > 1 or (image.undelivered and not has_sint):
        return "a message that waits at no SINT"
    return None


cdef void restore_timer(irq_t *irq, u32 index, const timer_image_t *image, u64 now) noexcept:
    """The message that waits is not delivered here: the SIM page may be restored later than the timers."""
    cdef synthetic_timer_t *timer = &irq.timers[index]
    cdef timer_payload_t payload
    discard_buffer(&timer.buffer, DISCARD_RESTORE)
    timer.config, timer.count = image.config, image.count
    timer.deadline = deadline_from(timer, now)
    if timer.deadline != never() and image.config & TIMER_PERIODIC and image.adjustment:
        timer.deadline = image.adjustment
    if image.undelivered:
        memset(&payload, 0, sizeof(timer_payload_t))
        payload.timer, payload.expiration = index, image.undelivered_expiration
        write_message(&timer.buffer.message, MESSAGE_TIMER_EXPIRED, 0, <const u8 *>&payload, sizeof(timer_payload_t))
        append_buffer(irq, &timer.buffer, timer_sint(image.config))
        irq.counters.messages_restored += 1
        arm_retry(irq)


cdef int restore_timers(irq_t *irq, bytes octets) except -1:
    cdef const timers_image_t *image = <const timers_image_t *><const char *>octets
    cdef u64 now = reference_time(&irq.fabric.timebase, time_of(irq))
    cdef u32 i
    if <size_t>len(octets) != sizeof(timers_image_t):
        raise ValueError(f"image must have {sizeof(timers_image_t)} bytes, not {len(octets)}")
    for i in range(SYNTHETIC_TIMER_COUNT):
        fault = fault_of_timer_image(&image.timers[i])
        if fault is not None:
            raise ValueError(f"image of timer {i} has {fault}")
    for i in range(SYNTHETIC_TIMER_COUNT):
        restore_timer(irq, i, &image.timers[i], now)
    find_next_deadline(irq)
    notice(irq)
    return 0
