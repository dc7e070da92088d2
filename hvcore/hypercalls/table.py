"""The table of hypercalls: one row per call code, in order (hyperv-abi.md 4.1).

A row names the handler, the layouts and the privilege that the caller needs; what else a call checks is in its
handler. Any call may be fast whose input fits into registers and that has no output (section 13, #27).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvcore.enums import Hypercall, Privilege
from hvcore.hypercalls import (
    device_interrupts,
    domains,
    gpa,
    intercepts,
    interrupts,
    messages,
    native,
    partitions,
    pool,
    ports,
    processors,
    states,
)
from hvcore.hypercalls.abi import FAST_INPUT_BYTES, Control, Layout, Nothing, Partition
from hvcore.hypercalls.call import Call

GPN = np.dtype("<u8")
NAME = np.dtype("<u4")
VALUE = np.dtype("V16")
NONE = np.dtype("V0")


@dataclass(frozen=True, slots=True)
class Row:
    """One call: simple, or with `rep` one that walks a list of elements. With `variable` the input's fixed header may
    be followed by a header of as many qwords as the control word says (section 3.1). `has_output` tells from the input
    whether this call has output at all."""

    code: Hypercall
    handler: Callable[[Call, Any], Any]
    input: Layout[Any]
    output: Layout[Any]
    privilege: Privilege
    rep: bool = False
    element_in: np.dtype[Any] = NONE
    element_out: np.dtype[Any] = NONE
    variable: bool = False
    has_output: Callable[[Any], bool] | None = None

    def input_size(self, reps: int, variable_qwords: int = 0) -> int:
        """Bytes of the headers and the list."""
        return self.input.size + 8 * variable_qwords + reps * self.element_in.itemsize

    def output_size(self, reps: int) -> int:
        """Bytes of output, of all elements."""
        return self.output.size + reps * self.element_out.itemsize

    def accepts(self, control: Control) -> bool:
        """The control word is legal for this call (section 3.3)."""
        reps = control.rep_count
        in_order = control.rep_start < reps if self.rep else reps == control.rep_start == 0
        reads = self.input_size(reps, control.variable_qwords)
        in_registers = reads <= FAST_INPUT_BYTES and self.output_size(reps) == 0
        legal = not control.reserved and (self.variable or not control.variable_qwords)
        return legal and in_order and (in_registers or not control.fast)


_NO_PRIVILEGE = Privilege(0)
_PARENT = Privilege.CREATE_PARTITIONS
_POOL = Privilege.ACCESS_MEMORY_POOL
_PORT = Privilege.CREATE_PORT
_MANAGE = Privilege.CPU_MANAGEMENT
_START = Privilege.START_VIRTUAL_PROCESSOR
_CONNECT = Privilege.CONNECT_PORT


def _simple(
    code: Hypercall,
    handler: Callable[[Call, Any], Any],
    input: type[Any],
    privilege: Privilege,
    output: type[Any] = Nothing,
    *,
    variable: bool = False,
    has_output: Callable[[Any], bool] | None = None,
) -> Row:
    return Row(
        code, handler, Layout(input), Layout(output), privilege, variable=variable, has_output=has_output
    )


def _rep(
    code: Hypercall,
    handler: Callable[[Call, Any], Any],
    input: type[Any],
    privilege: Privilege,
    element_in: np.dtype[Any] = NONE,
    element_out: np.dtype[Any] = NONE,
) -> Row:
    return Row(code, handler, Layout(input), Layout(Nothing), privilege, True, element_in, element_out)



def _native(code: Hypercall, input: type[Any], *, rep: bool = False, variable: bool = False) -> Row:
    """A call that guest code makes without leaving native code; hv/hypercall.pxd has the same row."""
    handler = native.repeated(code) if rep else native.simple(code)
    element = GPN if rep else NONE
    return Row(code, handler, Layout(input), Layout(Nothing), _NO_PRIVILEGE, rep, element, variable=variable)


_ROWS = (
    _native(Hypercall.SWITCH_VIRTUAL_ADDRESS_SPACE, native.SpaceInput),
    _native(Hypercall.FLUSH_VIRTUAL_ADDRESS_SPACE, native.FlushInput),
    _native(Hypercall.FLUSH_VIRTUAL_ADDRESS_LIST, native.FlushInput, rep=True),
    _native(Hypercall.NOTIFY_LONG_SPIN_WAIT, native.SpinWaitInput),
    _native(Hypercall.SEND_SYNTHETIC_CLUSTER_IPI, native.ClusterIpiInput),
    _native(Hypercall.FLUSH_VIRTUAL_ADDRESS_SPACE_EX, native.FlushExInput, variable=True),
    _native(Hypercall.FLUSH_VIRTUAL_ADDRESS_LIST_EX, native.FlushExInput, rep=True, variable=True),
    _native(Hypercall.SEND_SYNTHETIC_CLUSTER_IPI_EX, native.ClusterIpiExInput, variable=True),
    _simple(Hypercall.CREATE_PARTITION, partitions.create_partition, partitions.CreateInput, _PARENT, partitions.Word),
    _simple(Hypercall.INITIALIZE_PARTITION, partitions.initialize_partition, Partition, _PARENT),
    _simple(Hypercall.FINALIZE_PARTITION, partitions.finalize_partition, Partition, _PARENT),
    _simple(Hypercall.DELETE_PARTITION, partitions.delete_partition, Partition, _PARENT),
    _simple(
        Hypercall.GET_PARTITION_PROPERTY,
        partitions.get_partition_property,
        partitions.GetInput,
        _PARENT,
        partitions.Word,
    ),
    _simple(Hypercall.SET_PARTITION_PROPERTY, partitions.set_partition_property, partitions.SetInput, _PARENT),
    _simple(
        Hypercall.GET_PARTITION_ID, partitions.get_partition_id, Nothing, Privilege.ACCESS_PARTITION_ID, partitions.Word
    ),
    _rep(Hypercall.DEPOSIT_MEMORY, pool.deposit_memory, Partition, _POOL, element_in=GPN),
    _rep(Hypercall.WITHDRAW_MEMORY, pool.withdraw_memory, pool.PoolInput, _POOL, element_out=GPN),
    _simple(Hypercall.GET_MEMORY_BALANCE, pool.get_memory_balance, pool.PoolInput, _POOL, pool.Balance),
    _rep(Hypercall.MAP_GPA_PAGES, gpa.map_gpa_pages, gpa.MapInput, _PARENT, element_in=GPN),
    _rep(Hypercall.UNMAP_GPA_PAGES, gpa.unmap_gpa_pages, gpa.MapInput, _PARENT),
    _simple(Hypercall.INSTALL_INTERCEPT, intercepts.install_intercept, intercepts.InstallInput, _PARENT),
    _simple(Hypercall.CREATE_VP, processors.create_vp, processors.CreateVpInput, _PARENT),
    _simple(Hypercall.DELETE_VP, processors.delete_vp, processors.DeleteVpInput, _PARENT),
    _rep(
        Hypercall.GET_VP_REGISTERS,
        processors.get_vp_registers,
        processors.RegistersInput,
        _NO_PRIVILEGE,
        element_in=NAME,
        element_out=VALUE,
    ),
    _rep(
        Hypercall.SET_VP_REGISTERS,
        processors.set_vp_registers,
        processors.RegistersInput,
        _NO_PRIVILEGE,
        element_in=processors.REGISTER_VALUE,
    ),
    _simple(
        Hypercall.TRANSLATE_VIRTUAL_ADDRESS,
        processors.translate_virtual_address,
        processors.TranslateInput,
        _PARENT,
        processors.TranslateOutput,
    ),
    _simple(Hypercall.READ_GPA, gpa.read_gpa, gpa.ReadInput, _PARENT, gpa.ReadOutput),
    _simple(Hypercall.WRITE_GPA, gpa.write_gpa, gpa.WriteInput, _PARENT, gpa.WriteOutput),
    _simple(
        Hypercall.ASSERT_VIRTUAL_INTERRUPT_OLD,
        interrupts.assert_virtual_interrupt_old,
        interrupts.OldAssertInput,
        _PARENT,
    ),
    _simple(Hypercall.CLEAR_VIRTUAL_INTERRUPT, interrupts.clear_virtual_interrupt, Partition, _PARENT),
    _simple(Hypercall.CREATE_PORT_OLD, ports.create_port_old, ports.OldCreatePortInput, _PORT),
    _simple(Hypercall.DELETE_PORT, ports.delete_port, ports.PortInput, _PORT),
    _simple(Hypercall.CONNECT_PORT_OLD, ports.connect_port_old, ports.OldConnectPortInput, _CONNECT),
    _simple(
        Hypercall.GET_PORT_PROPERTY, ports.get_port_property, ports.GetPortPropertyInput, _PORT, ports.PortProperty
    ),
    _simple(Hypercall.DISCONNECT_PORT, ports.disconnect_port, ports.PortInput, _CONNECT),
    _simple(Hypercall.POST_MESSAGE, messages.post_message, messages.PostMessageInput, Privilege.POST_MESSAGES),
    _simple(Hypercall.SIGNAL_EVENT, messages.signal_event, messages.SignalEventInput, Privilege.SIGNAL_EVENTS),
    _simple(Hypercall.SET_PORT_PROPERTY, ports.set_port_property, ports.SetPortPropertyInput, _PORT),
    _simple(Hypercall.NOTIFY_PORT_RING_EMPTY, ports.notify_port_ring_empty, ports.RingEmptyInput, _NO_PRIVILEGE),
    _simple(
        Hypercall.MAP_DEVICE_INTERRUPT,
        device_interrupts.map_device_interrupt,
        device_interrupts.MapInput,
        _MANAGE,
        device_interrupts.MapOutput,
        variable=True,
    ),
    _simple(
        Hypercall.UNMAP_DEVICE_INTERRUPT,
        device_interrupts.unmap_device_interrupt,
        device_interrupts.UnmapInput,
        _MANAGE,
    ),
    _simple(
        Hypercall.RETARGET_DEVICE_INTERRUPT,
        device_interrupts.retarget_device_interrupt,
        device_interrupts.RetargetInput,
        _NO_PRIVILEGE,
        variable=True,
    ),
    _simple(
        Hypercall.ASSERT_VIRTUAL_INTERRUPT,
        interrupts.assert_virtual_interrupt,
        interrupts.AssertInterruptInput,
        _PARENT,
    ),
    _simple(Hypercall.CREATE_PORT, ports.create_port, ports.CreatePortInput, _PORT),
    _simple(Hypercall.CONNECT_PORT, ports.connect_port, ports.ConnectPortInput, _CONNECT),
    _simple(Hypercall.ATTACH_DEVICE, domains.attach_device, domains.AttachDeviceInput, _MANAGE),
    _simple(Hypercall.DETACH_DEVICE, domains.detach_device, domains.DetachDeviceInput, _MANAGE),
    _simple(Hypercall.CREATE_DEVICE_DOMAIN, domains.create_device_domain, domains.CreateInput, _NO_PRIVILEGE),
    _simple(Hypercall.ATTACH_DEVICE_DOMAIN, domains.attach_device_domain, domains.AttachDomainInput, _NO_PRIVILEGE),
    _rep(
        Hypercall.MAP_DEVICE_GPA_PAGES, domains.map_device_gpa_pages, domains.MapInput, _NO_PRIVILEGE, element_in=GPN
    ),
    _rep(Hypercall.UNMAP_DEVICE_GPA_PAGES, domains.unmap_device_gpa_pages, domains.UnmapInput, _NO_PRIVILEGE),
    _simple(Hypercall.DETACH_DEVICE_DOMAIN, domains.detach_device_domain, domains.DetachDomainInput, _NO_PRIVILEGE),
    _simple(Hypercall.DELETE_DEVICE_DOMAIN, domains.delete_device_domain, domains.DomainInput, _NO_PRIVILEGE),
    _simple(Hypercall.CONFIGURE_DEVICE_DOMAIN, domains.configure_device_domain, domains.ConfigureInput, _NO_PRIVILEGE),
    _simple(Hypercall.FLUSH_DEVICE_DOMAIN, domains.flush_device_domain, domains.CreateInput, _NO_PRIVILEGE),
    _simple(
        Hypercall.GET_IOMMU_CAPABILITIES,
        domains.get_iommu_capabilities,
        domains.CapabilitiesInput,
        _NO_PRIVILEGE,
        domains.Capabilities,
    ),
    _simple(
        Hypercall.GET_LOGICAL_DEVICE_PROPERTY,
        domains.get_logical_device_property,
        domains.PropertyInput,
        _NO_PRIVILEGE,
        domains.Word,
    ),
    _simple(
        Hypercall.SIGNAL_EVENT_DIRECT,
        messages.signal_event_direct,
        messages.SignalDirectInput,
        _NO_PRIVILEGE,
        messages.SignalDirectOutput,
    ),
    _simple(
        Hypercall.POST_MESSAGE_DIRECT, messages.post_message_direct, messages.PostDirectInput, _NO_PRIVILEGE
    ),
    _simple(Hypercall.START_VIRTUAL_PROCESSOR, processors.start_vp, processors.StartVpInput, _START),
    _rep(
        Hypercall.GET_VP_INDEX_FROM_APIC_ID,
        processors.get_vp_index_from_apic_id,
        processors.ApicIdInput,
        _NO_PRIVILEGE,
        element_in=NAME,
        element_out=NAME,
    ),
    _simple(
        Hypercall.GET_VP_STATE,
        states.get_vp_state,
        states.VpStateInput,
        _NO_PRIVILEGE,
        states.VpStateOutput,
        variable=True,
        has_output=states.has_output,
    ),
    _simple(Hypercall.SET_VP_STATE, states.set_vp_state, states.VpStateInput, _NO_PRIVILEGE, variable=True),
    _simple(
        Hypercall.GET_VP_SET_FROM_MDA,
        interrupts.get_vp_set_from_mda,
        interrupts.MdaInput,
        _PARENT,
        interrupts.VpSet,
    ),
    _simple(
        Hypercall.RESTORE_PARTITION_TIME, partitions.restore_partition_time, partitions.RestoreTimeInput, _PARENT
    ),
)

TABLE: dict[int, Row] = {row.code: row for row in _ROWS}
