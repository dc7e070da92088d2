"""The native face of irqchip: the structs behind its objects. What to do with them is in the rooms irq/*.pxd.

The engine takes the pointer once, keeps a reference to the object beside it, and works without the GIL from then on.
"""
from hvcore._native.irq.state cimport irq_t, message_port_t


cdef class MessagePort:
    cdef message_port_t port


cdef class InterruptController:
    cdef irq_t irq
    cdef tuple pages                # the borrowed buffers of the SIM and the SIEF page


cdef irq_t *irq_of(InterruptController controller) noexcept
cdef message_port_t *port_of(MessagePort port) noexcept
