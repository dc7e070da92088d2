"""Instructions that iced-x86 does not know, bit by bit from the specifications, and what makes bytes of theirs invalid.

Intel: APX (355828), AVX10.2 (361050), ISE reference (319433), ACE. test_llvm.py has every form that LLVM knows; here
are the rules that it overlooks, and instructions that it has not got.
"""

from __future__ import annotations

import pytest

from hvcore._native.instructions import decode_one

VALID = {
    # REX2: D5, then M0 R4 X4 B4 W R3 X3 B3
    "D518 01C0": "add r16,rax",
    "D548 89C8": "mov rax,r17",
    "D511 8B448810": "mov eax,[r24+rcx*4+10h]",
    "64D510 8B042510000000": "mov eax,fs:[10h]",                # mod = 0, base 5: none, whatever B4 says
    "D580 A2": "cpuid",
    "D591 B600": "movzx eax,byte ptr [r24]",
    "D504 88E0": "mov al,r12b",
    "D500 88E0": "mov al,spl",                                  # no AH with REX2
    "66D510 01C0": "add r16w,ax",
    "67D511 8B00": "mov eax,[r24d]",
    "D518 B80807060504030201": "mov r16,102030405060708h",
    "D500 50": "push rax", "D508 50": "pushp rax", "D519 5F": "popp r31",
    "D500 A18877665544332211": "jmpabs 1122334455667788h",
    "64D500 A18877665544332211": "jmpabs 1122334455667788h",
    "D580 AE38": "clflush [rax]",
    # EVEX map 4: ND is b, NF is bit 2 of aaa
    "62F47C08 01C8": "{evex} add eax,ecx", "62F46418 01C8": "add ebx,eax,ecx", "62F4641C 01C8": "{nf} add ebx,eax,ecx",
    "62F47D08 01C8": "{evex} add ax,cx", "62F4FC0C 01C8": "{nf} add rax,rcx", "62FCFC08 01C8": "{evex} add r16,rcx",
    "62F4FC08 00C8": "{evex} add al,cl",                        # W is ignored
    "62DC7818 010400": "add eax,[r24+r16],eax",                 # X4 is U, inverted
    "62F47C08 D1F0": "{evex} shl eax,1",                        # /6 is /4
    "62F47C18 69C104030201": "imulzu eax,ecx,1020304h", "62F47C1C 6BC104": "{nf} imulzu eax,ecx,4",
    "62F47F08 44C0": "{evex} sete al", "62F47F18 44C0": "setzue al",
    "62F47C08 44C1": "cfcmove eax,ecx", "62F47C0C 44C1": "cfcmove ecx,eax",
    "62F46418 44C1": "cmove ebx,eax,ecx", "62F47C1C 44C1": "cfcmove eax,eax,ecx",
    "62F40402 39C8": "ccmpb {dfv=} eax,ecx", "62F47C0A 39C8": "ccmpt {dfv=of,sf,zf,cf} eax,ecx",
    "62F41C04 85C8": "cteste {dfv=zf,cf} eax,ecx", "62F47C08 39C8": "ccmps {dfv=of,sf,zf,cf} eax,ecx",
    "62F47C08 F6C87F": "ctests {dfv=of,sf,zf,cf} al,7Fh",       # /1 is /0
    "62F46403 F7C904030201": "ctestae {dfv=of,sf} ecx,1020304h",
    "62F46418 FFF0": "push2 rbx,rax", "62F4E418 FFF0": "push2p rbx,rax", "62F46418 FFF3": "push2 rbx,rbx",
    "62F46418 8FC0": "pop2 rbx,rax", "62F4E418 8FC0": "pop2p rbx,rax",
    "62FC7C08 6000": "{evex} movbe eax,[r16]", "62F47D08 F1C1": "{evex} crc32 eax,cx",
    "62F46618 66C1": "adox ebx,eax,ecx", "62F26C0C F2C1": "{nf} andn eax,edx,ecx",
    "62FA7508 E608": "{evex} cmpbexadd [r16],ecx,ecx", "62F17C08 9000": "{evex} kmovw k0,[rax]",
    "62F47C08 01487F": "{evex} add [rax+7Fh],ecx",              # the displacement is not scaled
    "62F27D09 900408": "vpgatherdd xmm0,k1,[rax+xmm1]",
    # USER_MSR, MSR_IMM, MOVRS, UDB
    "F20F38F8C1": "urdmsr rcx,rax", "F30F38F8C1": "uwrmsr rax,rcx", "C4E77BF8C104030201": "urdmsr rcx,1020304h",
    "62F47F08 F8C1": "{evex} urdmsr rcx,rax", "62F77F08 F6C104030201": "{evex} rdmsr rcx,1020304h",
    "C4E77AF6C104030201": "wrmsrns 1020304h,rcx", "C4E77BF6C104030201": "rdmsr rcx,1020304h",
    "0F388A00": "movrs al,[rax]", "660F388B00": "movrs ax,[rax]", "480F388B00": "movrs rax,[rax]",
    "0F1820": "prefetchrst2 [rax]", "D6": "udb",
    # AVX10.2
    "62F56D08 58C1": "vaddbf16 xmm0,xmm2,xmm1", "62F36F08 C2C101": "vcmpltbf16 k0,xmm2,xmm1",
    "62F36D18 520002": "vminmaxps xmm0,xmm2,[rax]{1to4},2", "62F57D58 6CC1": "vcvttps2uqqs zmm0{sae},ymm1",
    "62F17E08 7EC1": "vmovd xmm0,xmm1", "62F17D08 D6C1": "vmovd xmm1,xmm0", "62F57E08 7EC1": "vmovw xmm1,xmm0",
    "62F17E08 2FC1": "vcomxss xmm0,xmm1", "62F36E08 42C103": "vmpsadbw xmm0,xmm2,xmm1,3",
    "62F57F08 1EC1": "vcvthf82ph xmm0,xmm1", "62F57C08 1BC1": "vcvtbiasph2hf8s xmm0,xmm0,xmm1",
    "62F26E08 DAC1": "vsm4key4 xmm0,xmm2,xmm1", "62F57E48 6F4001": "vmovrsd zmm0,[rax+40h]",
    # AMX: FP8, MOVRS, AVX512; TF32 and TRANSPOSE, which Intel withdrew; ACE
    "C4E570FDC2": "tdpbf8ps tmm0,tmm2,tmm1", "C4E27B4A0408": "tileloaddrs tmm0,[rax+rcx]",
    "62F27D48 4AC1": "tilemovrow zmm0,tmm1,eax", "62F37D48 07C105": "tilemovrow zmm0,tmm1,5",
    "C4E27148C2": "tmmultf32ps tmm0,tmm2,tmm1", "C4E27048C2": "ttmmultf32ps tmm0,tmm2,tmm1",
    "C4E27A5FC1": "ttransposed tmm0,tmm1", "C4E2726CC2": "ttdpbf16ps tmm0,tmm2,tmm1",
    "C4E2786E0408": "t2rpntlvwz0 tmm0,[rax+rcx]", "C4E578F80408": "t2rpntlvwz0rs tmm0,[rax+rcx]",
    "62F2FD48 4AC1": "tilemovrow tmm0,zmm1,eax", "62F26E48 5CC1": "top2bf16ps tmm0,zmm1,zmm2",
    "62F36C48 8DC107": "top4mxbf8ps tmm0,zmm1,zmm2,7", "62F6EC48 95C1": "bsrmovf bsr0,zmm2,zmm1",
    "62F6FE48 95C1": "bsrmovl bsr0,zmm1", "62F67E48 95C1": "bsrmovl zmm1,bsr0", "C4E2FB49C0": "bsrinit bsr0",
}  # fmt: skip

INVALID = {
    "62F46408 01C8": "ND = 0 and vvvv names a register", "62F47C00 01C8": "so does V'", "62F47C28 01C8": "L'L",
    "62F47C88 01C8": "z", "62F47C09 01C8": "the low bits of aaa", "62F47C0A 01C8": "the low bits of aaa",
    "62F47E08 01C8": "pp = F3", "62F47F08 01C8": "pp = F2", "62F47D08 00C8": "pp = 66 and byte operands",
    "62F47808 01C8": "U = 0 and a register in ModRM.rm",
    "62F47C0C 11C8": "no NF in ADC", "62F47C0C D1D0": "no NF in RCL", "62F47C0C F7D0": "no NF in NOT",
    "62F47F0C 44C0": "no NF in SETcc",
    "62F40412 39C8": "ND in CCMP", "62F40482 39C8": "z in CCMP", "62F40422 39C8": "L'L in CCMP",
    "62F45C18 FFF0": "PUSH2 of RSP", "62F46418 FFF4": "PUSH2 of RSP", "62F45C18 8FC0": "POP2 to RSP",
    "62F46418 8FC3": "POP2 to one register twice", "62F46408 FFF0": "PUSH2 with ND = 0",
    "62F46418 FF30": "PUSH2 of memory",
    "62F46518 FFF0": "PUSH2 with pp = 66", "62F4641C FFF0": "PUSH2 with NF",
    "66D500 A18877665544332211": "JMPABS with 66", "67D500 A18877665544332211": "JMPABS with 67",
    "F2D500 A18877665544332211": "JMPABS with F2", "F3D500 A18877665544332211": "JMPABS with F3",
    "F0D500 A18877665544332211": "JMPABS with LOCK", "D508 A18877665544332211": "JMPABS with W",
    "D500 A08877665544332211": "REX2 row Ax", "D500 A800": "REX2 row Ax", "D500 7000": "REX2 row 7x",
    "D500 E900000000": "REX2 row Ex", "D500 E400": "REX2 row Ex", "D580 30": "REX2 row 3x of map 1",
    "D580 8000000000": "REX2 row 8x of map 1", "D580 AE20": "REX2 and XSAVE", "D580 AE28": "REX2 and XRSTOR",
    "D580 C720": "REX2 and XSAVEC",
    "48D500 01C0": "REX before REX2", "D5004801C0": "REX behind REX2", "D5006601C0": "a prefix behind REX2",
    "D5000FAFC0": "an escape behind REX2", "D500C5F877": "VEX behind REX2", "D50062F47C0801C8": "EVEX behind REX2",
    "D500D50001C0": "REX2 twice", "F0D511 01C8": "LOCK and a register",
    "F062F47C080108": "LOCK and EVEX", "6662F47C080108": "66 and EVEX", "F362F47C080108": "F3 and EVEX",
    "4862F47C080108": "REX and EVEX",
    "D5C0 20C0": "there is no CR16", "D5C0 22C0": "there is no CR16", "D5C0 21C0": "there is no DR16",
    "C4E7FBF8C104030201": "W1 in map 7", "C4E773F8C104030201": "vvvv in map 7", "C4E77BF80104030201": "memory in map 7",
    "C4E77BF8C904030201": "/1 in map 7", "C4E77FF8C104030201": "L1 in map 7",
    "F20F388B00": "MOVRS with F2", "F30F388B00": "MOVRS with F3", "0F388BC0": "MOVRS of a register",
    "62F17C18 9000": "b in KMOV", "62F17C09 9000": "aaa in KMOV", "62E17C08 9000": "there is no K16",
    "62F27908 900408": "a gather without a mask", "62F27909 900408": "U = 0 and VSIB",
    "62F5ED08 58C1": "W1 in BF16 arithmetic", "62F56908 58C1": "U = 0 and registers",
    "62F56D68 58C1": "L'L = 3", "62F56D18 58C1": "no rounding in BF16 arithmetic", "62F56D88 58C1": "z without a mask",
    "C4E570FDC9": "tiles that are the same", "C4E2726CC9": "tiles that are the same",
}  # fmt: skip

OTHERWISE = {"D6": "salc", "D50A": "aad 0Ah", "6206": "bound eax,qword ptr [esi]"}
"""What bytes of 64-bit mode mean in 32-bit mode."""


@pytest.mark.parametrize("code", VALID)
def test_valid(code: str) -> None:
    octets = bytes.fromhex(code)
    found = decode_one(octets)
    assert (found.text if found.valid else None) == VALID[code]
    assert found.length == len(octets)


@pytest.mark.parametrize("code", INVALID)
def test_invalid(code: str) -> None:
    found = decode_one(bytes.fromhex(code) + bytes(8))
    assert not found.valid, f"{code}: {found.text}, but there is {INVALID[code]}"


@pytest.mark.parametrize("code", OTHERWISE)
def test_32_bit_mode(code: str) -> None:
    assert decode_one(bytes.fromhex(code), bits=32).text == OTHERWISE[code]


@pytest.mark.parametrize("code", [code for code in VALID if VALID[code]])
def test_every_byte_less_is_truncated(code: str) -> None:
    octets = bytes.fromhex(code)
    for size in range(1, len(octets)):
        found = decode_one(octets[:size])
        assert not found.valid and found.length <= size
