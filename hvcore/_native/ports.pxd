"""The native face of ports: the structs behind its objects."""
from hvcore._native.base.types cimport u32
from hvcore._native.engine cimport PartitionCore
from hvcore._native.hv.state cimport connection_t, port_t
from hvcore._native.irqchip cimport MessagePort


cdef class Port:
    cdef port_t port
    cdef PartitionCore core             # None until the port is in its table
    cdef readonly MessagePort buffers
    cdef u32 end(self) noexcept


cdef class Connection:
    cdef connection_t connection
    cdef PartitionCore core             # None until the connection is in its table
    cdef readonly Port port
    cdef void end(self) noexcept
