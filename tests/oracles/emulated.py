"""hvcore as the second implementation: EmulatedProcessor runs the same cases as NativeProcessor.

One child partition whose virtual processor is in 64-bit user mode, in the same address space as native_runner.c makes:
a code page, two data pages, nothing around them. Every exception is intercepted, so a run always ends with one; only
INT3 goes through an IDT, to a handler that raises one.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from hvcore._native.engine import Segment
from hvcore._native.exits import ExceptionRaised
from hvcore.hypervisor import Hypervisor

from .native import (
    CASE_DTYPE,
    CODE_ADDRESS,
    CODE_FILLER,
    DATA_ADDRESS,
    DATA_BYTES,
    PAGE,
    REGISTER_NAMES,
    REPORTED_FLAGS,
    RESULT_DTYPE,
    RSP,
    STATUS_SIGNAL,
    STATUS_STOPPED,
    STATUS_TIMEOUT,
    STOP_BYTES,
    WINDOW_BYTES,
    Array,
    data_checksum,
    initial_data,
)

STOP = 0xF4
"""HLT behind the tested code: in user mode it is a #GP, and RIP says that it was this one."""

INSTRUCTION_LIMIT = 100_000
_GENERAL_PROTECTION, _BREAKPOINT, _PAGE_FAULT = 13, 3, 14

# What Linux gives a process, so that selectors can be read and pushed by tested code.
_USER_CODE, _USER_DATA = 0x33, 0x2B
_FLAGS_IN = 0x240CD5
_PRESENT, _WRITABLE, _USER, _NO_EXECUTE = 1, 2, 4, 1 << 63

# Guest physical addresses.
_TABLES, _CODE, _DATA, _SYSTEM, _RAM = 0x1000, 0x10000, 0x12000, 0x15000, 0x20000

# A page far from where tests reach: GDT, IDT and TSS, a stack, and the handler of #BP.
_SYSTEM_ADDRESS = 0x6F0000000000
_GDT, _IDT, _TSS, _HANDLER_STACK, _HANDLER = 0, 0x100, 0x200, 0x800, 0xF00


class EmulatedProcessor:
    """Runs cases on a virtual processor of hvcore."""

    def __init__(self) -> None:
        self.hypervisor = Hypervisor(memory="8 MiB", processors=1)
        self.partition = self.hypervisor.root.create_partition(vps=1)
        self.ram = self.partition.map_memory(gpa=0, size=_RAM)
        self.vp: Any = self.partition.vps[0]
        for vector in range(32):
            self.partition.core.set_exception_intercept(vector, True)
        self._make_tables()
        self._enter_user_mode()
        self.ram[_CODE : _CODE + PAGE] = bytes([CODE_FILLER]) * PAGE
        self._dirty = slice(_CODE, _CODE)
        self._make_breakpoint_handler()

    def _make_tables(self) -> None:
        """Four levels: the code page readable and executable, the data pages writable, both for the user."""
        free = _TABLES + PAGE
        tables: dict[tuple[int, int], int] = {}
        pages = [(CODE_ADDRESS, _CODE, _PRESENT | _USER)]
        pages += [(DATA_ADDRESS + at, _DATA + at, _PRESENT | _USER | _WRITABLE | _NO_EXECUTE) for at in (0, PAGE)]
        pages += [(_SYSTEM_ADDRESS, _SYSTEM, _PRESENT | _USER | _WRITABLE)]
        for address, target, rights in pages:
            table = _TABLES
            for level in (39, 30, 21):
                key = (level, address >> level)
                if key not in tables:
                    tables[key] = free
                    self._set_entry(table, address >> level, free | _PRESENT | _USER | _WRITABLE)
                    free += PAGE
                table = tables[key]
            self._set_entry(table, address >> 12, target | rights)

    def _set_entry(self, table: int, index: int, value: int) -> None:
        at = table + 8 * (index & 511)
        self.ram[at : at + 8] = struct.pack("<Q", value)

    def _make_breakpoint_handler(self) -> None:
        """A gate to a HLT in user mode, on a stack of its own: the frame there says where INT3 was."""
        code_segment = 0x00AFFB000000FFFF
        handler = _SYSTEM_ADDRESS + _HANDLER
        gate = (handler & 0xFFFF) | _USER_CODE << 16 | 1 << 32 | 0xEE << 40 | (handler >> 16 & 0xFFFF) << 48
        system = bytearray(PAGE)
        struct.pack_into("<Q", system, _GDT + (_USER_CODE & ~7), code_segment)
        struct.pack_into("<QQ", system, _IDT + 16 * _BREAKPOINT, gate, handler >> 32)
        struct.pack_into("<Q", system, _TSS + 0x24, _SYSTEM_ADDRESS + _HANDLER_STACK)
        system[_HANDLER] = STOP
        self.ram[_SYSTEM : _SYSTEM + PAGE] = system
        self.vp.gdtr = (_SYSTEM_ADDRESS + _GDT, 0xFF)
        self.vp.idtr = (_SYSTEM_ADDRESS + _IDT, 0xFF)
        self.vp.tr = Segment(_SYSTEM_ADDRESS + _TSS, 103, 0x40, 0x8B)

    def _enter_user_mode(self) -> None:
        vp = self.vp
        vp.cr3 = _TABLES
        vp.cr4 = 0x620  # PAE, OSFXSR, OSXMMEXCPT
        vp.efer = 0xD01  # SCE, LME, LMA, NXE
        vp.cr0 = 0x80050033  # PG, AM, WP, NE, ET, MP, PE: as Linux has it
        vp.cs = Segment(0, 0xFFFFFFFF, _USER_CODE, 0xA0FB)
        vp.ss = Segment(0, 0xFFFFFFFF, _USER_DATA, 0xC0F3)
        for name in ("ds", "es", "fs", "gs"):
            setattr(vp, name, Segment(0, 0, 0, 0))

    def run(self, cases: Array) -> Array:
        """Run all cases and return one result for each."""
        if cases.dtype != CASE_DTYPE:
            raise TypeError("cases must have CASE_DTYPE")
        results = np.zeros(len(cases), dtype=RESULT_DTYPE)
        for case, result in zip(cases, results, strict=True):
            self._load(case)
            self._finish(case, result, self.vp.run(max_instructions=INSTRUCTION_LIMIT))
        return results

    def _load(self, case: np.void) -> None:
        vp, ram = self.vp, self.ram
        ram[_DATA : _DATA + DATA_BYTES] = initial_data(case)
        ram[self._dirty] = bytes([CODE_FILLER]) * (self._dirty.stop - self._dirty.start)
        offset, length = int(case["code_offset"]), int(case["code_length"])
        code = case["code"].tobytes()[:length]
        if offset + length + STOP_BYTES <= PAGE:
            code += bytes([STOP])
        self._dirty = slice(_CODE + offset, _CODE + offset + len(code))
        ram[self._dirty] = code
        for name, value in zip(REGISTER_NAMES, case["gpr"].tolist(), strict=True):
            setattr(vp, name, value)
        octets = case["xmm"].tobytes()
        for number in range(16):
            setattr(vp, f"xmm{number}", int.from_bytes(octets[16 * number : 16 * number + 16], "little"))
        vp.mxcsr = int(case["mxcsr"]) & 0xFFFF
        vp.rflags = int(case["rflags"]) & _FLAGS_IN | 0x202
        vp.rip = CODE_ADDRESS + offset

    def _finish(self, case: np.void, result: np.void, exit: Any) -> None:
        vp = self.vp
        result["gpr"] = [getattr(vp, name) for name in REGISTER_NAMES]
        octets = b"".join(getattr(vp, f"xmm{number}").to_bytes(16, "little") for number in range(16))
        result["xmm"] = np.frombuffer(octets, dtype=np.uint8).reshape(16, 16)
        result["mxcsr"] = vp.mxcsr
        result["rflags"] = vp.rflags & REPORTED_FLAGS
        result["rip"] = rip = vp.rip
        data = self.ram[_DATA : _DATA + DATA_BYTES]
        offset = int(case["window_offset"])
        result["window"] = np.frombuffer(data, dtype=np.uint8)[offset : offset + WINDOW_BYTES]
        result["checksum"] = data_checksum(data)
        # The parts of the native record that hvcore has no say in.
        for name in ("x87_control", "x87_status", "x87_tags", "st"):
            result[name] = case[name]
        if not isinstance(exit, ExceptionRaised):
            result["status"] = STATUS_TIMEOUT
            return
        end = CODE_ADDRESS + int(case["code_offset"]) + int(case["code_length"])
        if rip == end and exit.vector == _GENERAL_PROTECTION:
            result["status"] = STATUS_STOPPED
            return
        result["status"] = STATUS_SIGNAL
        result["trap"] = exit.vector
        result["error_code"] = exit.error_code or 0
        if exit.vector == _PAGE_FAULT:
            result["fault_address"] = exit.address
        if rip == _SYSTEM_ADDRESS + _HANDLER:
            frame = self.ram[_SYSTEM + _HANDLER_STACK - 40 : _SYSTEM + _HANDLER_STACK]
            result["rip"], _, flags, result["gpr"][RSP], _ = struct.unpack("<5Q", frame)
            result["rflags"] = flags & REPORTED_FLAGS
            result["trap"] = _BREAKPOINT
