"""PostMessage and SignalEvent through a connection, without Python (digest 4.8, 9.2, 9.3).

Errors come in the order of digest 13 #42: connection (12), port behind it (11), parameters (5, E), then the state of
the receiving SynIC (18) and its buffers (13). Privileges are the caller's to check.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.hv.sorted_table cimport table_find
from hvcore._native.hv.state cimport connection_t, partition_t, port_t
from hvcore._native.hv.status cimport (
    HV_INSUFFICIENT_BUFFERS, HV_INVALID_CONNECTION_ID, HV_INVALID_PARAMETER, HV_INVALID_PORT_ID,
    HV_INVALID_SYNIC_STATE, HV_INVALID_VP_INDEX, HV_SUCCESS,
)
from hvcore._native.irq.spec cimport PAYLOAD_SIZE_BYTES
from hvcore._native.irq.state cimport fabric_t, irq_t
from hvcore._native.irq.synic cimport irq_accepts_messages, irq_post_message, irq_signal_event, is_sint_ready

cdef enum:
    ANY_VP = 0xFFFFFFFF
    PORT_MESSAGE = 1
    PORT_EVENT = 2
    PORT_MONITOR = 3
    PORT_DOORBELL = 4
    HYPERVISOR_MESSAGE = 1 << 31    # types with this bit are not a guest's to send


cdef inline irq_t* controller_of(const fabric_t* fabric, u32 index) noexcept nogil:
    """The controller of a virtual processor by its index, or NULL."""
    cdef u32 low = 0, high = fabric.count, middle
    if index < high and fabric.controllers[index].index == index:
        return fabric.controllers[index]        # no index was left out
    while low < high:
        middle = (low + high) >> 1
        if fabric.controllers[middle].index < index:
            low = middle + 1
        else:
            high = middle
    if low == fabric.count or fabric.controllers[low].index != index:
        return NULL
    return fabric.controllers[low]


cdef inline bint is_alive(const connection_t* connection) noexcept nogil:
    """Its port exists, and the partition of the port is active."""
    return connection.port.owner is not NULL and connection.port.owner.active


cdef inline irq_t* receiver_of(const port_t* port) noexcept nogil:
    """The virtual processor that a message or an event would go to now; NULL: the port names none that exists.

    With HV_ANY_VP it is the lowest that is ready, or the lowest (9.3)."""
    cdef const fabric_t* fabric = &port.owner.fabric
    cdef irq_t* irq
    cdef u32 i
    if port.vp_index != <u32>ANY_VP:
        return controller_of(fabric, port.vp_index)
    for i in range(fabric.count):
        irq = fabric.controllers[i]
        if irq_accepts_messages(irq) if port.kind == PORT_MESSAGE else is_sint_ready(irq, port.sint):
            return irq
    return fabric.controllers[0] if fabric.count else NULL


cdef inline u16 port_post(port_t* port, u32 message_type, const u8* payload, u32 size_bytes) noexcept nogil:
    """Queue a message at a living message port."""
    cdef irq_t* irq
    if message_type == 0 or message_type & <u32>HYPERVISOR_MESSAGE or size_bytes > PAYLOAD_SIZE_BYTES:
        return HV_INVALID_PARAMETER
    irq = receiver_of(port)
    if irq is NULL:
        return HV_INVALID_VP_INDEX
    if not irq_accepts_messages(irq):
        return HV_INVALID_SYNIC_STATE
    if not irq_post_message(irq, port.buffers, port.sint, message_type, port.id, payload, size_bytes):
        return HV_INSUFFICIENT_BUFFERS
    port.posts += 1
    return HV_SUCCESS


cdef inline u16 connection_post(partition_t* sender, u32 connection_id, u32 message_type, const u8* payload,
                                u32 size_bytes) noexcept nogil:
    """HvCallPostMessage: HV_STATUS. `payload` has `size_bytes` bytes, or is not read when those are too many."""
    cdef connection_t* connection = <connection_t*>table_find(&sender.connections, connection_id)
    if connection is NULL:
        return HV_INVALID_CONNECTION_ID
    if not is_alive(connection) or connection.port.kind != PORT_MESSAGE:
        return HV_INVALID_PORT_ID
    return port_post(connection.port, message_type, payload, size_bytes)


cdef inline u16 connection_signal(partition_t* sender, u32 connection_id, u16 flag) noexcept nogil:
    """HvCallSignalEvent: HV_STATUS."""
    cdef connection_t* connection = <connection_t*>table_find(&sender.connections, connection_id)
    cdef port_t* port
    cdef irq_t* irq
    if connection is NULL:
        return HV_INVALID_CONNECTION_ID
    port = connection.port
    if not is_alive(connection) or port.kind != PORT_EVENT:
        return HV_INVALID_PORT_ID
    if flag >= port.flag_count:
        return HV_INVALID_PARAMETER
    irq = receiver_of(port)
    if irq is NULL:
        return HV_INVALID_VP_INDEX
    if irq_signal_event(irq, port.sint, <u32>port.base_flag + flag) < 0:
        return HV_INVALID_SYNIC_STATE
    return HV_SUCCESS
