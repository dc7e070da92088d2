"""What connects the APICs of one partition: messages from ICRs, I/O APICs, devices and parents to those they mean.

A message that nobody takes has no effect but in the answer. Delivery of an accepted message cannot fail later: what
its receiver then loses (disabled APIC, illegal vector), the receiver counts.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.apic_spec cimport (
    BROADCAST, DELIVERY_EXTERNAL, DELIVERY_FIXED, DELIVERY_INIT, DELIVERY_LOWEST_PRIORITY, DELIVERY_NMI, DELIVERY_SMI,
    DELIVERY_STARTUP, MSI_ADDRESS, MSI_ASSERT, MSI_LEVEL, MSI_LOGICAL, MSI_REDIRECTION_HINT, SHORTHAND_NONE,
    SHORTHAND_OTHERS, SHORTHAND_SELF,
)
from hvcore._native.irq.destination cimport arbitrate, is_addressed, widen_destination
from hvcore._native.irq.inbox cimport lags_behind
from hvcore._native.irq.lapic cimport is_enabled, request_from, request_nmi
from hvcore._native.irq.observer cimport SOURCE_MSI
from hvcore._native.irq.spec cimport LOWEST_VECTOR
from hvcore._native.irq.startup cimport request_external, request_init, request_startup
from hvcore._native.irq.state cimport REMAP_POSTED, REMAP_SEND, RemapOutcome, fabric_t, interrupt_message_t, irq_t


cdef inline bint receive_message(irq_t *irq, const interrupt_message_t *message) noexcept nogil:
    """One APIC takes a message. False: it was without effect, and its receiver has counted why."""
    cdef u8 mode = message.delivery_mode
    if mode == DELIVERY_FIXED or mode == DELIVERY_LOWEST_PRIORITY:
        request_from(irq, message.vector, message.level, False, message.source)
        return lags_behind(irq) or (is_enabled(&irq.lapic) and message.vector >= LOWEST_VECTOR)
    if mode == DELIVERY_NMI:
        request_nmi(irq, message.source)
    elif mode == DELIVERY_INIT:
        request_init(irq)
    elif mode == DELIVERY_STARTUP:
        request_startup(irq, message.vector)
    elif mode == DELIVERY_EXTERNAL:
        request_external(irq)
    elif mode == DELIVERY_SMI:
        irq.counters.smis_ignored += 1      # there is no system-management mode (digest 10.1)
        return False
    else:
        return False
    return True


cdef inline int send_to_all(fabric_t *fabric, const irq_t *excepted, const interrupt_message_t *message) noexcept nogil:
    cdef int accepted = 0
    cdef u32 i
    for i in range(fabric.count):
        if fabric.controllers[i] != excepted and is_addressed(fabric.controllers[i], message.destination,
                                                              message.logical):
            accepted += receive_message(fabric.controllers[i], message)
    return accepted


cdef inline int fabric_send(fabric_t *fabric, irq_t *sender, const interrupt_message_t *message) noexcept nogil:
    """Deliver a message to whom it means; how many APICs accepted it.

    `sender` is NULL for a device, which has no shorthand. An 8-bit destination of FFh has been widened to BROADCAST. A
    level de-assertion of INIT has no effect (11.6.1)."""
    cdef interrupt_message_t whole = message[0]
    cdef const irq_t *excepted = sender if message.shorthand == SHORTHAND_OTHERS else NULL
    cdef u32 destination = message.destination
    cdef irq_t *chosen
    if message.delivery_mode == DELIVERY_INIT and message.level and not message.asserted:
        return 0
    if message.shorthand == SHORTHAND_SELF:
        return receive_message(sender, message) if sender != NULL else 0
    if message.shorthand != SHORTHAND_NONE:
        whole.destination = destination = <u32>BROADCAST
        whole.logical = False
    if message.delivery_mode == DELIVERY_LOWEST_PRIORITY or (
            message.redirection_hint and message.logical and message.delivery_mode == DELIVERY_FIXED):
        chosen = arbitrate(fabric, excepted, &whole)
        return receive_message(chosen, message) if chosen != NULL else 0
    if not whole.logical and destination < fabric.count \
            and fabric.controllers[destination].lapic.apic_id == destination \
            and is_addressed(fabric.controllers[destination], destination, False):
        return receive_message(fabric.controllers[destination], message)        # ids are VP indices, nearly always
    return send_to_all(fabric, excepted, &whole)


cdef inline void decode_msi(u64 address, u32 data, u32 source, interrupt_message_t *message) noexcept nogil:
    """What an MSI says (SDM 3A 11.11), where no remapping unit reads it otherwise."""
    message.destination = widen_destination((address >> 12) & 0xFF)
    message.source = source if source else SOURCE_MSI
    message.vector = <u8>data
    message.delivery_mode = (data >> 8) & 7
    message.shorthand = SHORTHAND_NONE
    message.logical = address & MSI_LOGICAL != 0
    message.level = data & MSI_LEVEL != 0
    message.asserted = not message.level or data & MSI_ASSERT != 0
    message.redirection_hint = address & MSI_REDIRECTION_HINT != 0


cdef inline int fabric_send_msi(fabric_t *fabric, u32 requester, u64 address, u32 data, u32 source) noexcept nogil:
    """A write of `data` to `address` by a device: how many APICs accepted, or -1 if the remapper blocked it. What it
    posted without telling anybody was accepted by one.

    A remapper finds the message decoded as if there were none (11.11) and makes another of it."""
    cdef interrupt_message_t message
    cdef RemapOutcome outcome
    decode_msi(address, data, source, &message)
    if fabric.remap != NULL:
        outcome = fabric.remap(fabric.unit, requester, address, data, &message)
        if outcome != REMAP_SEND:
            return 1 if outcome == REMAP_POSTED else -1
    elif address >> 20 != MSI_ADDRESS:
        return 0
    if not message.asserted:
        return 0
    return fabric_send(fabric, NULL, &message)
