"""What translate takes and refuses: shapes, types, columns, storage; and the sources: saved memory, a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import RAM, Guest

import hvcore as hv
from hvcore.paging import AddressSpace, PagingState, SavedAddressSpace, TranslationStatus

COLUMNS = ("gpa", "spa", "page_shift", "nested_page_shift", "status", "error_code", "references", "nested_references")


@pytest.fixture(scope="module")
def space() -> AddressSpace:
    space = AddressSpace(4, 4)
    space.map(gva=0, gpa=1 << 30, size="1 MiB")
    return space


def test_any_shape_and_order(space: AddressSpace) -> None:
    gvas = np.arange(24, dtype=np.uint64).reshape(2, 3, 4) * 4096
    plain = space.translate(gvas.reshape(-1))
    narrow, signed = gvas.astype(np.uint32), gvas.astype(np.int64)
    for variant in (gvas, gvas[:, ::-1], gvas.T, np.asfortranarray(gvas), signed, narrow):
        found = space.translate(variant)
        assert found.spa.shape == variant.shape and (found.spa - (1 << 30) == variant).all()
    assert set(plain) == set(COLUMNS) and plain.columns["status"].dtype == np.uint8 and len(plain) == 24
    assert len(space.translate([])) == 0
    assert space.translate([[1, 2], [3, 4]]).gpa.tolist() == [[(1 << 30) + i for i in row] for row in ([1, 2], [3, 4])]
    assert space.translate([2**64 - 1]).status.tolist() == [TranslationStatus.NOT_PRESENT]


def test_only_the_columns_that_are_wanted(space: AddressSpace) -> None:
    found = space.translate([0, 4096], columns=("spa", "status"))
    assert set(found) == {"spa", "status"}
    with pytest.raises(AttributeError, match="gpa"):
        _ = found.gpa
    again = space.translate([4096, 0], out=found)
    assert again.spa is found.spa and found.spa.tolist() == [(1 << 30) + 4096, 1 << 30]


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_alone(space: AddressSpace, name: str) -> None:
    gvas = [0, 5, 1 << 40, 0x8000_0000_0000]
    assert (space.translate(gvas, columns=[name])[name] == space.translate(gvas)[name]).all()


def test_access_of_each_element(space: AddressSpace) -> None:
    mixed = AddressSpace(4, None)
    mixed.map(gva=0, gpa=0, size="4 KiB", access="r")
    found = mixed.translate([0, 0, 0, 0], np.array([1, 2, 4, 3]))
    assert found.error_code.tolist() == [0, 3, 17, 3]
    assert mixed.translate_one(0, 2).status == TranslationStatus.DENIED


def test_one_is_a_batch_of_one(space: AddressSpace) -> None:
    for gva in (0, 0xF_FFFF, 0x10_0000, 1 << 47, np.uint64(5)):
        for access in ("r", "w", 4):
            one, rights = space.translate_one(gva, access), access if isinstance(access, str) else [access]
            many = space.translate([gva], rights)
            assert all(getattr(one, name) == many[name][0] for name in COLUMNS)
    for error, name, arguments in (
        (TypeError, "integer", {"gva": 1.5}), (ValueError, "gva", {"gva": -1}), (ValueError, "gva", {"gva": 1 << 64}),
        (ValueError, "access", {"gva": 0, "access": 9}), (ValueError, "access", {"gva": 0, "access": "z"}),
    ):  # fmt: skip
        with pytest.raises(error, match=name):
            space.translate_one(**arguments)


REFUSED: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "gvas", {"gvas": [1.5]}),
    (TypeError, "gvas", {"gvas": ["a"]}),
    (ValueError, "gvas", {"gvas": [-1]}),
    (TypeError, "gvas", {"gvas": [2**64]}),
    (ValueError, "access", {"access": "rz"}),
    (ValueError, "access", {"access": [1]}),
    (ValueError, "access", {"access": [1, 8]}),
    (TypeError, "access", {"access": [1.0, 2.0]}),
    (ValueError, "privilege", {"privilege": "root"}),
    (ValueError, "columns", {"columns": ["host"]}),
    (ValueError, "columns", {"columns": []}),
    (ValueError, r"out\['spa'\]", {"out": {"spa": np.zeros(3, np.uint64)}}),
    (ValueError, r"out\['spa'\]", {"out": {"spa": np.zeros(2, np.int64)}}),
    (ValueError, r"out\['spa'\]", {"out": {"spa": np.zeros(4, np.uint64)[::2]}}),
    (TypeError, r"out\['spa'\]", {"out": {"spa": [0, 0]}}),
    (ValueError, "out", {"out": {"where": np.zeros(2)}}),
    (ValueError, "nested_cache", {"nested_cache": 3}),
    (ValueError, "nested_cache", {"nested_cache": 1 << 30}),
]


@pytest.mark.parametrize(("error", "name", "arguments"), REFUSED)
def test_what_is_refused_is_named(space: AddressSpace, error: type[Exception], name: str, arguments: Any) -> None:
    with pytest.raises(error, match=name):
        space.translate(**{"gvas": [1, 2], **arguments})


def test_read_only_storage_is_refused(space: AddressSpace) -> None:
    status = np.zeros(1, np.uint8)
    status.flags.writeable = False
    with pytest.raises(ValueError, match=r"out\['status'\]"):
        space.translate([0], out={"status": status})


def test_a_saved_memory(tmp_path: Path) -> None:
    """The tables of a space, saved as a file, an array and bytes, give the same again."""
    space = AddressSpace(4, 4, memory="8 MiB")
    space.map(gva=0x40_0000, gpa=0, size="1 MiB", frames="permuted", access="rx")
    gvas = np.arange(0x3F_F000, 0x51_0000, 0x234, dtype=np.uint64)
    expected = space.translate(gvas)
    dump = space.memory.read(0, space.memory.size + space.memory.reserve)
    file = tmp_path / "memory.raw"
    file.write_bytes(dump)
    for memory in (file, str(file), dump, np.frombuffer(dump, np.uint64), bytearray(dump)):
        saved = SavedAddressSpace(memory, space.state, nested_root=space.nested_root)
        found = saved.translate(gvas)
        assert all((found[name] == expected[name]).all() for name in COLUMNS)
    with pytest.raises(ValueError, match="set_marks"):
        saved = SavedAddressSpace(dump, space.state, nested_root=space.nested_root)
        saved.translate(gvas, set_marks=True)
    writable = bytearray(dump)
    saved = SavedAddressSpace(writable, space.state, nested_root=space.nested_root, writable=True)
    saved.translate(gvas, set_marks=True)
    assert writable != dump
    saved.state = PagingState.for_levels(4, cr3=0x40_0000_0000)
    assert saved.translate_one(0).status == TranslationStatus.TABLE_UNMAPPED


def test_wrong_memories_and_states() -> None:
    state = PagingState.for_levels(4)
    for error, name, arguments in (
        (ValueError, "memory", {"memory": b"short"}),
        (TypeError, "memory", {"memory": 5}),
        (ValueError, "memory", {"memory": np.zeros((4, 8192), np.uint8)[:, ::2]}),
        (ValueError, "memory", {"memory": bytes(8192), "writable": True}),
        (ValueError, "nested_root", {"memory": bytes(8192), "nested_root": 5}),
        (ValueError, "nested", {"memory": bytes(8192), "nested": 6}),
    ):
        with pytest.raises(error, match=name):
            SavedAddressSpace(**{"state": state, **arguments})
    for name, value in (("cr3", -1), ("cpl", 4), ("physical_address_bits", 60), ("cr4", "x")):
        with pytest.raises(ValueError, match=name):
            PagingState(**{name: value})
    with pytest.raises(ValueError, match="levels"):
        PagingState.for_levels(1)


def test_a_running_processor() -> None:
    guest = Guest()
    guest.enter(guest.vp)
    gvas = np.arange(0, RAM, 0x1111, dtype=np.uint64)
    found = guest.vp.translate(gvas)
    assert (found.gpa == gvas).all() and (found.references + found.nested_references == 24).all()
    assert guest.vp.translate_one(0x1234).spa == guest.partition.space.lookup(0x1234)[0]
    runs = guest.vp.translate_range(0, RAM)
    assert runs.gpa[0] == 0 and runs.size.sum() == RAM
    state = guest.vp.paging_state()
    assert (state.cr3, state.levels) == (guest.vp.cr3, 4)


def test_a_processor_that_another_thread_runs() -> None:
    from threading import Thread

    guest = Guest()
    outcome: list[str] = []

    def translate() -> None:
        try:
            guest.vp.translate([0])
        except RuntimeError as error:
            outcome.append(str(error))

    with guest.hypervisor.exclusive():
        thread = Thread(target=translate)
        thread.start()
        thread.join()
    assert outcome and "another thread" in outcome[0]


def test_the_package_is_there() -> None:
    assert hv.paging.AddressSpace is AddressSpace and "AddressSpace" in dir(hv.paging)
