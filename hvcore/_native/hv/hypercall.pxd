"""The control word of a hypercall, and what it may be for the calls that are executed natively (hyperv-abi 3.1, 4.1).

`row_of` says the same of these calls as hypercalls/table.py; tests/hypercalls/test_native.py compares both doors.
"""
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.hv.spec cimport PRIVILEGE_POST_MESSAGES, PRIVILEGE_SIGNAL_EVENTS
from hvcore._native.hv.status cimport (
    HV_INVALID_HYPERCALL_INPUT, HV_INVALID_PARAMETER, HV_INVALID_VTL_STATE, HV_SUCCESS,
)

cdef enum:
    CALL_SWITCH_ADDRESS_SPACE = 0x01
    CALL_FLUSH_SPACE = 0x02
    CALL_FLUSH_LIST = 0x03
    CALL_LONG_SPIN_WAIT = 0x08
    CALL_CLUSTER_IPI = 0x0B
    CALL_FLUSH_SPACE_EX = 0x13
    CALL_FLUSH_LIST_EX = 0x14
    CALL_CLUSTER_IPI_EX = 0x15
    CALL_POST_MESSAGE = 0x5C
    CALL_SIGNAL_EVENT = 0x5D

    NATIVE_CALLS = 32           # the lowest five bits tell them apart
    FAST_BYTES = 112            # RDX, R8 and XMM0 to XMM5
    ELEMENTS_PER_ENTRY = 64     # of a rep call; then the guest may take interrupts (3.4)
    CONTROL_RESERVED = 0xF000F000F8000000

# What the native door answers to the instruction.
cdef enum CallOutcome:
    CALL_DEFERRED           # nothing was done: it is Python's
    CALL_DONE
    CALL_DONE_LOOK          # done, and this processor or another may have an interrupt to take
    CALL_AGAIN              # the instruction runs again


cdef struct control_t:
    u32 code
    u32 variable_qwords
    u32 rep_count
    u32 rep_start
    bint fast
    bint reserved


# What a call is like; `is_native` false: nothing of it is known here.
cdef struct call_row_t:
    bint is_native
    bint variable
    u32 header_bytes            # fixed
    u32 element_bytes           # zero: a simple call
    u64 privilege


cdef inline control_t parse_control(u64 word) noexcept nogil:
    return control_t(code=<u32>word & 0xFFFF, fast=(word >> 16) & 1, variable_qwords=(word >> 17) & 0x3FF,
                     rep_count=(word >> 32) & 0xFFF, rep_start=(word >> 48) & 0xFFF,
                     reserved=word & <u64>CONTROL_RESERVED != 0)


cdef inline call_row_t simple_row(u32 header_bytes, bint variable, u64 privilege) noexcept nogil:
    return call_row_t(is_native=True, variable=variable, header_bytes=header_bytes, element_bytes=0,
                      privilege=privilege)


cdef inline call_row_t list_row(u32 header_bytes, bint variable) noexcept nogil:
    return call_row_t(is_native=True, variable=variable, header_bytes=header_bytes, element_bytes=8, privilege=0)


cdef inline call_row_t row_of(u32 code) noexcept nogil:
    if code == CALL_LONG_SPIN_WAIT or code == CALL_SWITCH_ADDRESS_SPACE:
        return simple_row(8, False, 0)
    if code == CALL_POST_MESSAGE:
        return simple_row(256, False, PRIVILEGE_POST_MESSAGES)
    if code == CALL_SIGNAL_EVENT:
        return simple_row(8, False, PRIVILEGE_SIGNAL_EVENTS)
    if code == CALL_CLUSTER_IPI:
        return simple_row(16, False, 0)
    if code == CALL_CLUSTER_IPI_EX:
        return simple_row(24, True, 0)
    if code == CALL_FLUSH_SPACE:
        return simple_row(24, False, 0)
    if code == CALL_FLUSH_SPACE_EX:
        return simple_row(32, True, 0)
    if code == CALL_FLUSH_LIST:
        return list_row(24, False)
    if code == CALL_FLUSH_LIST_EX:
        return list_row(32, True)
    return call_row_t(is_native=False, variable=False, header_bytes=0, element_bytes=0, privilege=0)


cdef inline u32 input_bytes(const call_row_t* row, const control_t* control) noexcept nogil:
    """Of the headers and the whole list."""
    return row.header_bytes + 8 * control.variable_qwords + row.element_bytes * control.rep_count


cdef inline int check_control(const call_row_t* row, const control_t* control) noexcept nogil:
    """HV_STATUS of the control word alone (3.3). No native call has output."""
    if control.reserved or (control.variable_qwords and not row.variable):
        return HV_INVALID_HYPERCALL_INPUT
    if row.element_bytes and control.rep_start >= control.rep_count:
        return HV_INVALID_HYPERCALL_INPUT
    if not row.element_bytes and (control.rep_count or control.rep_start):
        return HV_INVALID_HYPERCALL_INPUT
    if control.fast and input_bytes(row, control) > FAST_BYTES:
        return HV_INVALID_HYPERCALL_INPUT
    return HV_SUCCESS


cdef inline int check_vtl(u8 vtl) noexcept nogil:
    """HV_INPUT_VTL: reserved bits are zero, and only VTL 0 is enabled."""
    if vtl & 0xE0:
        return HV_INVALID_PARAMETER
    return HV_INVALID_VTL_STATE if vtl & 0x10 and vtl & 0x0F else HV_SUCCESS
