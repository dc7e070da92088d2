"""SendSyntheticClusterIpi and its Ex form (hyperv-abi 4.9): an edge, fixed, to virtual processors by index."""
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.hv.hypercall cimport check_vtl
from hvcore._native.hv.status cimport HV_INVALID_PARAMETER, HV_SUCCESS
from hvcore._native.hv.vp_set cimport is_in_set, read_vp_set, vp_set_t, vps_of_mask
from hvcore._native.irq.lapic cimport request_from
from hvcore._native.irq.observer cimport SOURCE_IPI_HYPERCALL
from hvcore._native.irq.spec cimport LOWEST_VECTOR
from hvcore._native.irq.state cimport fabric_t


cdef inline int send_cluster_ipi(fabric_t* fabric, const u64* header, u32 variable_qwords,
                                 bint extended) noexcept nogil:
    """u32 vector, u8 VTL, three bytes zero; then a mask or a VP set. Indices that do not exist are ignored."""
    cdef u32 vector = <u32>header[0], i
    cdef vp_set_t targets
    cdef int status
    if not LOWEST_VECTOR <= vector <= 255 or header[0] >> 40:
        return HV_INVALID_PARAMETER
    status = check_vtl(<u8>(header[0] >> 32))
    if status != HV_SUCCESS:
        return status
    if extended:
        status = read_vp_set(&header[1], variable_qwords, &targets)
        if status != HV_SUCCESS:
            return status
    else:
        targets = vps_of_mask(&header[1])
    for i in range(fabric.count):
        if is_in_set(&targets, fabric.controllers[i].index):
            request_from(fabric.controllers[i], vector, False, False, SOURCE_IPI_HYPERCALL)
    return HV_SUCCESS
