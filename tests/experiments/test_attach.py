"""A running guest that is listened to: what is seen, and that nothing else changes."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

import hvcore
from hvcore import exits
from hvcore.experiments import Kind, StackDistances, TraceWriter, TranslationModel, read_trace
from hvcore.experiments.records import ASID_ALL

CODE, DATA, STACK = 0x1000, 0x20_0000, 0x8000
F, L, S, M, FLUSH, INVALIDATE = Kind
MIXTURE = bytes.fromhex(
    "b9 40000000"  # mov ecx, 64
    "be 00002000"  # mov esi, DATA
    "8b06"  # again: mov eax, [rsi]
    "ff4608"  # inc dword [rsi + 8]
    "50"  # push rax
    "894604"  # mov [rsi + 4], eax
    "58"  # pop rax
    "48 8b86 fc0f0000"  # mov rax, [rsi + 0xffc]: over the page's end
    "81c6 00100000"  # add esi, 4096
    "ffc9"  # dec ecx
    "75 e5"  # jnz again
    "bf 00003000"  # mov edi, 0x300000
    "b9 05000000 f3aa"  # mov ecx, 5; rep stosb
    "0f013e"  # invlpg [rsi]
    "0f20d8 0f22d8"  # mov rax, cr3; mov cr3, rax
    "f4"  # hlt
)


class Recorder:
    def __init__(self):
        self.chunks = []

    def consume(self, records):
        self.chunks.append(records)

    def rows(self):
        records = np.concatenate(self.chunks)
        return list(zip(*(records[name].tolist() for name in ("kind", "address", "size")), strict=True))


@contextmanager
def guest(code=MIXTURE, *, page_size="4 KiB", nested="4 KiB"):
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition()
        ram = child.map_memory(gpa=0, size="8 MiB", page_size=nested)
        ram[CODE : CODE + len(code)] = code
        vp = child.vps[0]
        vp.reset("long64", rip=CODE, rsp=STACK, page_size=page_size)
        yield vp


def expected_of_one_turn(rsi, first):
    rip = CODE + 10
    turn = [
        (F, rip, 2), (L, rsi, 4), (F, rip + 2, 3), (M, rsi + 8, 4), (F, rip + 5, 1), (S, STACK - 8, 8),
        (F, rip + 6, 3), (S, rsi + 4, 4), (F, rip + 9, 1), (L, STACK - 8, 8), (F, rip + 10, 7), (L, rsi + 0xFFC, 8),
        (F, rip + 17, 6), (F, rip + 23, 2), (F, rip + 25, 2),
    ]  # fmt: skip
    return [(F, CODE, 5), (F, CODE + 5, 5), *turn] if first else turn


def test_what_is_seen():
    expected = [(FLUSH, 0, 0)]  # before the first instruction: memory was mapped since the processor was made
    expected += [row for turn in range(64) for row in expected_of_one_turn(DATA + turn * 4096, turn == 0)]
    behind = CODE + 37
    expected += [(F, behind, 5), (F, behind + 5, 5), (F, behind + 10, 2)]
    expected += [(S, 0x30_0000 + at, 1) for at in range(5)]
    expected += [
        (F, behind + 12, 3), (INVALIDATE, DATA + 64 * 4096, 0), (F, behind + 15, 3), (F, behind + 18, 3), (FLUSH, 0, 0),
        (F, behind + 21, 1),
    ]  # fmt: skip
    recorder = Recorder()
    with guest() as vp:
        vp.attach(recorder)
        assert isinstance(vp.run(), exits.Halt)
    assert recorder.rows() == expected


@pytest.mark.parametrize("cuts", [(), (1,) * 30, (7, 100, 3, 333)])
def test_nothing_else_changes(cuts):
    """Counters, registers and memory are those of a run that nobody listens to, however it is cut."""
    states, seen = [], []
    for listen in (False, True):
        with guest() as vp:
            recorder = Recorder()
            if listen:
                vp.attach(recorder)
            for cut in cuts:
                vp.run(max_instructions=cut)
            assert isinstance(vp.run(), exits.Halt)
            counters = {name: count for name, count in vp.counters().items() if "halts" not in name}
            states.append((counters, vp.registers(), bytes(vp.partition.regions[0][0 : 4 << 20])))
            seen.append(sum(map(len, recorder.chunks)))
    assert states[0] == states[1]
    assert seen[0] == 0 < seen[1]


@pytest.mark.parametrize(("page_size", "nested"), [("4 KiB", "4 KiB"), ("4 KiB", "2 MiB"), ("2 MiB", "2 MiB")])
def test_page_sizes(page_size, nested):
    """Those of the tables, also for translations that were there before somebody listened."""
    shift = {"4 KiB": 12, "2 MiB": 21}
    with guest(page_size=page_size, nested=nested) as vp:
        vp.run(max_instructions=200)
        recorder = Recorder()
        vp.attach(recorder)
        vp.run()
    records = np.concatenate(recorder.chunks)
    accesses = records[records["kind"] < Kind.FLUSH]
    assert set(accesses["page_shift"].tolist()) == {shift[page_size]}
    assert set(accesses["nested_page_shift"].tolist()) == {shift[nested]}


def test_models_and_writers(tmp_path):
    """A model that listens counts what one counts that reads the recorded file."""
    live = TranslationModel.preset("skylake-server", nested_levels=4, nested_tlb="16")
    distances = StackDistances(kinds="LSM")
    with guest() as vp, TraceWriter(tmp_path / "a.npy") as npy, TraceWriter(tmp_path / "a.lackey.gz") as lackey:
        vp.attach(live, distances)
        vp.attach(npy, lackey)
        before = vp.counters()
        vp.run()
        used = vp.counters() - before
        vp.detach(npy, lackey)
        vp.detach()
        vp.rip = CODE
        vp.run()
    assert live.counters().instructions == used.instructions - 4    # iterations of REP are fetched once
    read = TranslationModel.preset("skylake-server", nested_levels=4, nested_tlb="16")
    assert read.run(read_trace(npy.path)) == live.counters()
    counts = live.counters()
    assert counts["dtlb-4K"].misses + counts["itlb-4K"].misses == counts.walks > 64
    assert distances.pages == 64 + 1 + 1
    assert lackey.dropped == 3 and lackey.count == npy.count


def test_device_memory_and_faults():
    """What fails is not seen; what is answered is."""
    code = bytes.fromhex("a1 0000009000000000 f4")  # mov eax, [0x90000000]; hlt
    recorder = Recorder()
    with guest(code) as vp:
        vp.reset("long64", rip=CODE, rsp=STACK, identity_map="4 GiB", page_size="2 MiB", tables=0x40_0000)
        vp.attach(recorder)
        access = vp.run()
        assert isinstance(access, exits.Mmio) and access.gpa == 0x9000_0000
        access.complete(7)
        assert isinstance(vp.run(), exits.Halt) and vp.rax == 7
    assert recorder.rows()[1:] == [(F, CODE, 9), (F, CODE, 9), (L, 0x9000_0000, 4), (F, CODE + 9, 1)]


def test_a_listener_that_fails():
    class Failing(Recorder):
        def consume(self, records):
            raise OSError("the disk is full")

    with guest() as vp:
        vp.attach(Failing())
        assert isinstance(vp.run(max_instructions=10), exits.Budget)
        with pytest.raises(OSError, match="the disk is full"):
            vp.run()
        vp.detach()
        assert isinstance(vp.run(), exits.Halt)


def test_refusals():
    with guest() as vp:
        with pytest.raises(TypeError, match="a method consume"):
            vp.attach(print)
        recorder = Recorder()
        with pytest.raises(ValueError, match="not attached"):
            vp.detach(recorder)

        class Meddling(Recorder):
            def consume(self, records):
                vp.detach()

        vp.attach(Meddling())
        vp.run()
        with pytest.raises(RuntimeError, match="attached to or detached"):
            vp.run()
        vp.detach()


def test_a_processor_that_goes():
    """What it did is delivered, and the others run on as before."""
    recorder = Recorder()
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        children = [hypervisor.root.create_partition() for _ in range(2)]
        for child in children:
            child.map_memory(gpa=0, size="8 MiB")[CODE : CODE + len(MIXTURE)] = MIXTURE
            child.vps[0].reset("long64", rip=CODE, rsp=STACK, page_size="4 KiB")
        first, second = (child.vps[0] for child in children)
        first.attach(recorder)
        first.run(max_instructions=50)
        children[0].destroy()
        assert isinstance(second.run(), exits.Halt)
        with pytest.raises(RuntimeError, match="does not exist any more"):
            first.attach(Recorder())
        second.attach(recorder)
        with pytest.raises(ValueError, match="attached twice"):
            second.attach(recorder)
    assert sum(len(chunk) for chunk in recorder.chunks) > 50


def test_address_spaces():
    """The PCID, where the guest uses them; a flush of all has none."""
    recorder = Recorder()
    with guest() as vp:
        vp.cr4 |= 1 << 17
        vp.cr3 |= 5
        vp.attach(recorder)
        vp.run()
    records = np.concatenate(recorder.chunks)
    accesses = records[records["kind"] < Kind.FLUSH]
    flushes = records[records["kind"] == Kind.FLUSH]
    assert set(accesses["asid"].tolist()) == {5}
    assert flushes["asid"].tolist() == [ASID_ALL, 5]
    assert records[records["kind"] == Kind.INVALIDATE]["asid"].tolist() == [5]
