"""Two and three partitions of guest code that send each other messages and events by hypercall (TLFS 11; 9.2, 9.3).

The receiver reads its slots in an interrupt handler and sends EOMs; the senders try again after INSUFFICIENT_BUFFERS.
"""

from struct import pack

import numpy as np
import pytest

from hvcore.enums import ANY_VP, Hypercall, ServiceReason
from hvcore.exits import Budget, Halt
from hvcore.hypervisor import Hypervisor

CODE, IDT, LOG, INPUT, STACK, TABLES = 0x200000, 0x201000, 0x210000, 0x202000, 0x280000, 0x300000
SIM, SIEF, SINT, VECTOR = 0x10000, 0x11000, 2, 0x30
SCONTROL, SIEFP, SIMP, SINT0 = 0x40000080, 0x40000082, 0x40000083, 0x40000090
MASKED, AUTO_EOI = 1 << 16, 1 << 17

# handler: mov eax,[rsi]; test eax,eax; jz done; mov rax,[rsi+16]; mov [r15],rax; add r15,8; movzx ebx,byte [rsi+5]
#          mov dword [rsi],0; mfence; test bl,1; jz done; mov ecx,EOM; xor eax,eax; xor edx,edx; wrmsr; jmp handler
# done:    mov ecx,EOI; xor eax,eax; xor edx,edx; wrmsr; iretq
# main:    sti; hlt; jmp main
RECEIVER = bytes.fromhex(
    "8b06 85c0 742a 488b4610 498907 4983c708 0fb65e05 c70600000000 0faef0 f6c301 740d b984000040 31c0 31d2 0f30 ebd0"
    "b970000040 31c0 31d2 0f30 48cf fb f4 ebfc"
)
RECEIVER_MAIN = 0x3D
# again:   mov [rdi+16],r12; mov ecx,0x5C; mov rdx,rdi; vmcall; test ax,ax; jnz refused; inc r12; dec r13; jnz again
#          cli; hlt
# refused: inc r14; mov ecx,1000
# wait:    dec ecx; jnz wait; jmp again
SENDER = bytes.fromhex(
    "4c896710 b95c000000 4889fa 0f01c1 6685c0 750a 49ffc4 49ffcd 75e4 fa f4 49ffc6 b9e8030000 ffc9 75fc ebd4"
)
# handler: lock btr dword [rdi],0; jnc eoi; inc r12; mov ecx,0x1005D; mov rdx,rsi; vmcall; mov r14,rax
# eoi:     mov ecx,EOI; xor eax,eax; xor edx,edx; wrmsr; iretq
# main:    sti; hlt; jmp main
# serve:   mov ecx,0x1005D; mov rdx,rsi; vmcall; jmp main
PLAYER = bytes.fromhex(
    "f00fba3700 7311 49ffc4 b95d000100 4889f2 0f01c1 4989c6 b970000040 31c0 31d2 0f30 48cf fb f4 ebfc"
    "b95d000100 4889f2 0f01c1 ebef"
)
PLAYER_MAIN, PLAYER_SERVE = 0x25, 0x29


class Machine:
    def __init__(self, hypervisor):
        self.hypervisor, self.root = hypervisor, hypervisor.root

    def guest(self, *, vps=1):
        """A child with RAM, hypercalls enabled, the SIM and the SIEF page of every processor in place."""
        child = self.root.create_partition(vps=vps, privileges=0x5FF | 1 << 36 | 1 << 37)
        first = self.hypervisor.free_pages.allocate(8)
        deposit = pack("<Q8Q", child.id, *range(first, first + 8))
        assert self.root.hypercall(Hypercall.DEPOSIT_MEMORY, deposit).status == 0
        child.core.guest_os_id, child.core.hypercall_msr = 1, 1
        return child, child.map_memory(gpa=CODE, size="2 MiB")

    def start(self, vp, ram, code, entry, *, offset=0, setting=VECTOR):
        """Run `code` at its entry, with its handler, at offset 0, on VECTOR."""
        ram[offset : offset + len(code)] = code
        for msr, value in (
            *((SCONTROL, 1), (SIMP, SIM + 0x2000 * vp.index | 1), (SIEFP, SIEF + 0x2000 * vp.index | 1)),
            (SINT0 + SINT, setting),
        ):
            vp.rcx, vp.rdx, vp.rax = msr, 0, value
            if not self.hypervisor.service(vp, ServiceReason.MSR_WRITE):
                assert vp.interrupts.write_msr(msr, value, 0)
        vp.interrupts.apic_enabled = True
        vp.reset(
            mode="long64", rip=CODE + offset + entry, rsp=STACK - 0x4000 * vp.index, identity_map="4 MiB",
            tables=TABLES + 0x10000 * vp.index,
        )  # fmt: skip
        vp.start()
        handler, idt = CODE + offset, IDT - CODE + 0x1000 * (offset != 0)
        gate = pack("<HHBBHIxxxx", handler & 0xFFFF, vp.cs.selector, 0, 0x8E, handler >> 16, 0)
        ram[idt + 16 * VECTOR : idt + 16 * VECTOR + 16] = gate
        vp.idtr = vp.idtr._replace(base=CODE + idt, limit=0xFFF)
        vp.explicit_suspend = False

    def link(self, sender, receiver, number, info):
        """A port and a connection of the same number."""
        port = pack("<QIIQ24sQ", receiver.id, number, 0, sender.id, info, 0)
        assert self.root.hypercall(Hypercall.CREATE_PORT, port).status == 0
        kind = info[:4] + bytes(28)
        connection = pack("<QIIQII32sQ", sender.id, number, 0, receiver.id, number, 0, kind, 0)
        assert self.root.hypercall(Hypercall.CONNECT_PORT, connection).status == 0


@pytest.fixture(params=[1, 2, 3])
def machine(request):
    with Hypervisor(memory="64 MiB", processors=request.param) as hypervisor:
        yield Machine(hypervisor)


def logged(ram, vp, offset=LOG - CODE):
    end = vp.r15 - CODE
    return np.frombuffer(ram[offset:end], np.uint64)


@pytest.mark.parametrize("setting", [VECTOR, VECTOR | AUTO_EOI], ids=["eoi", "auto-eoi"])
def test_three_senders_and_a_receiver_that_is_saved_again_and_again(machine, setting):
    """Every post is read once and in order for each sender; a full port makes its sender wait (status 13)."""
    count = 200
    receiver, ram = machine.guest()
    vp = receiver.vps[0]
    machine.start(vp, ram, RECEIVER, RECEIVER_MAIN, setting=setting)
    vp.registers(rsi=SIM + 256 * SINT, r15=LOG)
    senders = []
    for number in range(1, 4):
        sender, sender_ram = machine.guest()
        machine.link(sender, receiver, number, pack("<IIIIQ", 1, 0, SINT, ANY_VP, 0))
        machine.start(sender.vps[0], sender_ram, SENDER, 0, setting=MASKED)
        sender_ram[INPUT - CODE : INPUT - CODE + 16] = pack("<IIII", number, 0, 1, 8)
        sender.vps[0].registers(rdi=INPUT, r12=number << 32, r13=count, r14=0)
        senders.append(sender.vps[0])
    buffers = [port.buffers for port in receiver.ports.values()]
    for _ in range(2000):
        stopped = machine.hypervisor.run(max_instructions=5000)
        state = vp.interrupts.save(buffers)
        vp.interrupts.restore(state, buffers)
        if isinstance(stopped, Halt):
            break
        assert isinstance(stopped, Budget)
    log = logged(ram, vp)
    for number in range(1, 4):
        assert (log[log >> 32 == number] & 0xFFFFFFFF).tolist() == list(range(count))
    assert log.size == 3 * count
    assert sum(sender.r14 for sender in senders) == receiver.counters()["messages_refused"]
    counters = receiver.counters()
    assert counters["messages_queued"] == 3 * count
    assert counters["messages_restored"] == counters["messages_discarded_restore"]


def test_any_vp_goes_to_the_lowest_that_is_ready(machine):
    """HV_ANY_VP: VP 0 has no SIM page, so everything comes to VP 1 (9.2 step 2)."""
    receiver, ram = machine.guest(vps=2)
    vp = receiver.vps[1]
    machine.start(vp, ram, RECEIVER, RECEIVER_MAIN, offset=0x800)
    vp.registers(rsi=SIM + 0x2000 + 256 * SINT, r15=LOG)
    sender, sender_ram = machine.guest()
    machine.link(sender, receiver, 1, pack("<IIIIQ", 1, 0, SINT, ANY_VP, 0))
    machine.start(sender.vps[0], sender_ram, SENDER, 0, setting=MASKED)
    sender_ram[INPUT - CODE : INPUT - CODE + 16] = pack("<IIII", 1, 0, 1, 8)
    sender.vps[0].registers(rdi=INPUT, r12=0, r13=50, r14=0)
    assert isinstance(machine.hypervisor.run(max_instructions=1_000_000), Halt)
    assert logged(ram, vp).tolist() == list(range(50))


def test_a_forgotten_eom_costs_a_millisecond(machine):
    """13 #40: the hypervisor tries a full slot again after 1 ms, also when its reader has halted meanwhile."""
    receiver, ram = machine.guest()
    vp = receiver.vps[0]
    forgetful = bytearray(RECEIVER)
    forgetful[0x21] = 0xEB  # jz done -> jmp done: no EOM
    machine.start(vp, ram, bytes(forgetful), RECEIVER_MAIN, setting=VECTOR | AUTO_EOI)
    # With auto-EOI the handler must not send the EOI that would scan the queues too: iretq at once.
    ram[0x30:0x32] = b"\x48\xcf"
    vp.registers(rsi=SIM + 256 * SINT, r15=LOG)
    sender, sender_ram = machine.guest()
    machine.link(sender, receiver, 1, pack("<IIIIQ", 1, 0, SINT, 0, 0))
    machine.start(sender.vps[0], sender_ram, SENDER, 0, setting=MASKED)
    sender_ram[INPUT - CODE : INPUT - CODE + 16] = pack("<IIII", 1, 0, 1, 8)
    sender.vps[0].registers(rdi=INPUT, r12=0, r13=6, r14=0)
    vp.explicit_suspend = True
    assert isinstance(machine.hypervisor.run(max_instructions=100_000), Halt)
    vp.explicit_suspend = False
    assert isinstance(machine.hypervisor.run(max_instructions=50_000_000), Halt)
    assert logged(ram, vp).tolist() == list(range(6))
    assert receiver.counters()["retries"] == 5
    assert machine.hypervisor.scheduler.now >= 5 * 1_000_000


def test_two_players_signal_each_other(machine):
    """Events by fast hypercall: each handler clears its flag and signals back (9.3)."""
    (one, one_ram), (two, two_ram) = machine.guest(), machine.guest()
    for sender, receiver, number in ((one, two, 7), (two, one, 9)):
        machine.link(sender, receiver, number, pack("<IIIIHHI", 2, 0, SINT, 0, 0, 4, 0))
    for player, ram, number, entry in ((one, one_ram, 7, PLAYER_SERVE), (two, two_ram, 9, PLAYER_MAIN)):
        machine.start(player.vps[0], ram, PLAYER, entry)
        player.vps[0].registers(rdi=SIEF + 256 * SINT, rsi=number, r12=0)
    assert isinstance(machine.hypervisor.run(max_instructions=40_000), Budget)
    rounds = one.vps[0].r12, two.vps[0].r12
    assert rounds[0] > 20 and 0 <= rounds[1] - rounds[0] <= 1
    signaled = [player.counters()["events_signaled"] for player in (one, two)]
    assert abs(signaled[0] - rounds[0]) <= 1 and abs(signaled[1] - rounds[1]) <= 1
    assert one.vps[0].r14 == two.vps[0].r14 == 0
