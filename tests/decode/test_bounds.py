"""Ends of buffers and of the address space: single instructions against a guard page, cut off at every byte.

The buffers end where memory ends, in a process of their own: a byte too many would kill it. test_sweep.py does the same
for whole buffers.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import subprocess
import sys
from pathlib import Path

import pytest

import hvcore as hv
from hvcore._native.isa import forms, table
from tests.decode import encoder

SEED = 4711
ROOT = Path(__file__).parents[2]
PAGE = mmap.PAGESIZE
WHOLE = (1 << 64) - 1


class GuardedPage:
    """A page with nothing behind it that could be read."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 2 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        if libc.mprotect(address + PAGE, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.end = address + PAGE

    def at_end(self, code: bytes) -> ctypes.Array[ctypes.c_char]:
        """The bytes, the last of them being the last of the page."""
        ctypes.memmove(self.end - len(code), code, len(code))
        return (ctypes.c_char * len(code)).from_address(self.end - len(code))


def read_beyond() -> None:
    """What must not survive."""
    ctypes.string_at(GuardedPage().at_end(b"\x90"), 2)


def decode_every_cut() -> None:
    """Every form of each mode, and every shorter string. A whole instruction decodes as it does with bytes behind it; a
    part of one is truncated, or an instruction of its own."""
    page = GuardedPage()
    all_forms = forms.load(table.load())
    for root, (bits, vendor) in enumerate(forms.ROOTS):
        if vendor == "amd":
            continue
        rng = random.Random(SEED + root)
        for form in all_forms:
            if form.when[root] is None:
                continue
            code = encoder.encode(form, rng, root)
            whole = hv.decode_one(code + bytes(15), bits=bits)
            for size in range(1, len(code) + 1):
                found = hv.decode_one(page.at_end(code[:size]), bits=bits)
                assert found.length <= size
                if size >= whole.length and whole.valid:
                    assert (found.form, found.length) == (whole.form, whole.length), code.hex()
                elif whole.valid:
                    assert not found.valid, f"{code[:size].hex()} of {code.hex()}"


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is looked for in Linux's libc")
@pytest.mark.parametrize(("action", "survives"), [("read_beyond", False), ("decode_every_cut", True)])
def test_nothing_behind_the_end_is_read(action: str, survives: bool) -> None:
    done = subprocess.run([sys.executable, "-c", f"from tests.decode import test_bounds; test_bounds.{action}()"],
                          cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode == 0) == survives, done.stderr


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_empty_and_single_bytes(bits: int) -> None:
    with pytest.raises(ValueError, match="offset 0"):
        hv.decode_one(b"", bits=bits)
    assert len(hv.decode(b"", bits=bits)) == 0
    for byte in range(256):
        code = bytes((byte,))
        found = hv.decode_one(code, bits=bits)
        longer = hv.decode_one(code + bytes(15), bits=bits)
        assert found.length == 1
        assert found.valid == (longer.valid and longer.length == 1), code.hex()
        rows = hv.decode(code, bits=bits)
        assert list(rows.length) == [1] and bool(rows.form[0]) == found.valid


@pytest.mark.parametrize(("code", "ip", "target"), [
    ("EB FE", WHOLE - 1, WHOLE - 1),                        # to itself, and the next instruction is at 0
    ("EB 00", WHOLE, 1),
    ("EB 80", 0, WHOLE - 0x7D),
    ("E9 FFFFFF7F", WHOLE - 4, 0x7FFFFFFF),
    ("E8 00000080", 0, WHOLE - 0x7FFFFFFA),
    ("0F84 10000000", WHOLE - 7, 14),
])  # fmt: skip
def test_targets_wrap(code: str, ip: int, target: int) -> None:
    octets = bytes.fromhex(code)
    assert hv.decode_one(octets, ip=ip).target == target
    assert hv.decode(octets, ip=ip, columns=("target",)).target.tolist() == [target]


def test_relative_addresses_wrap() -> None:
    """RIP + displacement, as text."""
    assert hv.decode_one(bytes.fromhex("488B05 10000000"), ip=WHOLE - 7).text == "mov rax,[0Fh]"
