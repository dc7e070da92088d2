# cython: language_level=3, auto_pickle=False
"""Ports and connections as objects: what hvcore/ports.py makes of them lives in native tables of their partitions.

An object keeps alive what its struct points to: a port the core of its partition, a connection that of the sender and
its port. It takes itself out of the tables when it is closed, or dies.
"""
cimport cython
from libc.stdlib cimport calloc, free

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

from hvcore._native.base.guard cimport guard_t
from hvcore._native.base.types cimport i64, u8, u16, u32, u64
from hvcore._native.engine cimport PartitionCore, Scheduler
from hvcore._native.hv.doorbells cimport partition_rings, ring_emptied
from hvcore._native.hv.monitor cimport monitor_page_t, monitor_run, monitor_t
from hvcore._native.hv.ports cimport PORT_DOORBELL, connection_post, connection_signal, is_alive
from hvcore._native.hv.sorted_table cimport table_insert, table_remove
from hvcore._native.hv.state cimport connection_t, partition_t, port_t
from hvcore._native.hv.spec cimport PRIVILEGE_POST_MESSAGES, PRIVILEGE_SIGNAL_EVENTS
from hvcore._native.hv.status cimport HV_ACCESS_DENIED, HV_INSUFFICIENT_BUFFERS
from hvcore._native.exits cimport Budget, Halt
from hvcore._native.irq.spec cimport message_t
from hvcore._native.irq.queue cimport discard_port
from hvcore._native.irq.state cimport irq_t
from hvcore._native.irq.synic cimport irq_take_message
from hvcore._native.irqchip cimport InterruptController, MessagePort, irq_of, port_of
from hvcore._native.mem.ram cimport PAGE_SHIFT, ram_at
from hvcore._native.space cimport SystemMemory, enter_guard, leave_guard, require_thread


cdef guard_t* guard_of(PartitionCore core) noexcept:
    """Of the machine that has this partition; NULL: none."""
    return core.partition.fabric.clock.guard if core is not None else NULL


# SAFETY: port.owner points into `core`; no_gc_clear keeps that until __dealloc__ has taken the port out of its tables.
@cython.no_gc_clear
cdef class Port:
    """One port in the table of the partition that receives.

    Parameters
    ----------
    core : PartitionCore
        Of that partition.
    id : int
        By which the partition has it; 24 bits.
    kind : int
        PortType.
    sint, vp_index, base_flag, flag_count : int
        Where messages and events go. The caller has checked them.
    """

    def __init__(self, PartitionCore core not None, u32 id, u8 kind, u8 sint, u32 vp_index, u16 base_flag,
                 u16 flag_count):
        if self.core is not None:
            raise RuntimeError("a port is made once")
        require_thread(guard_of(core))
        self.buffers = MessagePort()
        self.port.id, self.port.kind, self.port.sint, self.port.vp_index = id, kind, sint, vp_index
        self.port.base_flag, self.port.flag_count = base_flag, flag_count
        self.port.buffers = port_of(self.buffers)
        if not table_insert(&core.partition.ports, id, &self.port):
            raise MemoryError("the host has no memory for another port")
        self.core = core
        self.port.owner = &core.partition

    def __dealloc__(self):
        self.end()

    cdef u32 end(self) noexcept:
        if self.port.owner is NULL:
            return 0
        table_remove(&self.port.owner.ports, self.port.id, &self.port)
        self.port.owner = NULL
        return discard_port(self.port.buffers)

    def close(self):
        """Delete the port: its connection is dead from now on.

        Returns
        -------
        int
            How many queued messages were lost with it.
        """
        require_thread(guard_of(self.core))
        return self.end()

    @property
    def alive(self):
        """It was not deleted."""
        return self.port.owner is not NULL

    @property
    def id(self):
        return self.port.id

    @property
    def kind(self):
        """PortType as a number."""
        return self.port.kind

    @property
    def sint(self):
        return self.port.sint

    @property
    def flag_count(self):
        """Of an event port: the flags that its connection may name."""
        return self.port.flag_count

    @property
    def posts(self):
        """Messages that it took since it was made (port property 0)."""
        return self.port.posts

    @property
    def vp_index(self):
        """The virtual processor that messages and events go to, or HV_ANY_VP (port property 1)."""
        return self.port.vp_index

    @vp_index.setter
    def vp_index(self, u32 index):
        require_thread(guard_of(self.core))
        self.port.vp_index = index


@cython.no_gc_clear
cdef class Connection:
    """One connection in the table of the partition that sends.

    Parameters
    ----------
    core : PartitionCore
        Of that partition.
    id : int
        By which the partition has it; 24 bits.
    port : Port
        Where it leads.
    gpa, value, size, any_value
        Of a doorbell: the write that rings it; size 0 is any size.
    """

    def __init__(self, PartitionCore core not None, u32 id, Port port not None, *, u64 gpa=0, u64 value=0, u8 size=0,
                 bint any_value=False):
        if self.core is not None:
            raise RuntimeError("a connection is made once")
        require_thread(guard_of(core))
        self.port = port
        self.connection.port = &port.port
        self.connection.id, self.connection.gpa, self.connection.value = id, gpa, value
        self.connection.size_bytes, self.connection.any_value = size, any_value
        if not table_insert(&core.partition.connections, id, &self.connection):
            raise MemoryError("the host has no memory for another connection")
        if port.port.kind == PORT_DOORBELL and not table_insert(&core.partition.doorbells, gpa, &self.connection):
            table_remove(&core.partition.connections, id, &self.connection)
            raise MemoryError("the host has no memory for another doorbell")
        self.core = core
        core.partition.has_doorbells = core.partition.doorbells.count > 0

    def __dealloc__(self):
        self.end()

    cdef void end(self):
        cdef partition_t* sender
        self.stop()
        if self.core is None:
            return
        sender = &self.core.partition
        table_remove(&sender.connections, self.connection.id, &self.connection)
        table_remove(&sender.doorbells, self.connection.gpa, &self.connection)
        sender.has_doorbells = sender.doorbells.count > 0

    def close(self):
        """Take it out of the tables; messages that it queued stay."""
        require_thread(guard_of(self.core))
        self.end()

    def watch(self, Scheduler scheduler not None, SystemMemory memory not None, u64 spn):
        """Look at a monitored notification page from now on, until `unwatch` or the end of the connection.

        Parameters
        ----------
        scheduler : Scheduler
            Of the machine, whose time counts.
        spn : int
            The frame of the page, which belongs to the hypervisor.
        """
        require_thread(guard_of(self.core))
        if self.monitor is not NULL:
            raise RuntimeError("a connection watches one page")
        memory.check_range(spn << PAGE_SHIFT, sizeof(monitor_page_t))
        self.monitor = <monitor_t*>calloc(1, sizeof(monitor_t))
        if self.monitor is NULL:
            raise MemoryError("the host has no memory for a monitored notification page")
        self.monitor.sender = &self.core.partition
        self.monitor.page = <monitor_page_t*>ram_at(&memory.ram, spn << PAGE_SHIFT)
        self.monitor.event.owner, self.monitor.event.run = self.monitor, monitor_run
        self.monitor.event.ends = True
        self.scheduler, self.memory = scheduler, memory
        monitor_run(&self.monitor.event, scheduler.now)
        scheduler.add_event(&self.monitor.event)

    def unwatch(self):
        """Look no more."""
        require_thread(guard_of(self.core))
        self.stop()

    cdef void stop(self):
        if self.monitor is not NULL:
            self.scheduler.remove_event(&self.monitor.event)
            self.scheduler = self.memory = None
        free(self.monitor)
        self.monitor = NULL

    def monitor_counters(self):
        """Of the page that is watched: `signals` made, and `refusals`, those that ended with an error."""
        if self.monitor is NULL:
            return {"signals": 0, "refusals": 0}
        return {"signals": self.monitor.signals, "refusals": self.monitor.refusals}

    @property
    def alive(self):
        """Its port exists, and the partition of the port is active."""
        return is_alive(&self.connection) != 0

    @property
    def id(self):
        return self.connection.id

    @property
    def kind(self):
        """PortType as a number."""
        return self.connection.port.kind


def post(PartitionCore sender not None, u32 connection_id, u32 message_type, payload, size=None):
    """HvCallPostMessage by the partition `sender`, whose privileges are the caller's to check.

    Parameters
    ----------
    payload : buffer
        At most 240 bytes of it are looked at.
    size : int, optional
        Bytes of it that are meant, default all.

    Returns
    -------
    int
        HV_STATUS.
    """
    require_thread(guard_of(sender))
    cdef Py_buffer view
    cdef u64 wanted
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        wanted = <u64>view.len if size is None else size
        if wanted > <u64>view.len and wanted <= 240:
            raise ValueError(f"payload has {view.len} bytes, not {wanted}")
        return connection_post(&sender.partition, connection_id, message_type, <const u8*>view.buf,
                               <u32>min(wanted, <u64>0xFFFFFFFF))
    finally:
        PyBuffer_Release(&view)


def signal(PartitionCore sender not None, u32 connection_id, u16 flag):
    """HvCallSignalEvent by the partition `sender`, whose privileges are the caller's to check: HV_STATUS."""
    require_thread(guard_of(sender))
    return connection_signal(&sender.partition, connection_id, flag)


def ring(PartitionCore sender not None, u64 gpa, u32 size, u64 value):
    """A write of `size` bytes to an unmapped GPA of `sender`: whether a doorbell took it."""
    require_thread(guard_of(sender))
    return partition_rings(&sender.partition, gpa, size, value) != 0


def empty_ring(PartitionCore owner not None, InterruptController controller not None, u32 sint):
    """HvCallNotifyPortRingEmpty of a virtual processor of `owner`: what found the ring of `sint` full goes in now."""
    require_thread(guard_of(owner))
    ring_emptied(&owner.partition, irq_of(controller), sint)


include "ports_batch.pxi"
