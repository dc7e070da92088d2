"""The sse unit of handlers."""
from hvcore._native.cpu.state cimport handler_t

cdef void fill_handlers(handler_t* handlers) noexcept
