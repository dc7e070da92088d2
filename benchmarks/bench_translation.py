"""What do a TLB miss and a block that must be decoded cost, in turns of an empty loop?"""

from struct import pack

import pytest

from benchmarks.guest import CODE, DATA, child_running
from benchmarks.measure import report, run_rounds, timed

EMPTY_LOOP = bytes.fromhex("48ffc9 75fb f4")  # dec rcx; jnz back; hlt
CHASE = bytes.fromhex("488b00 48ffc9 75f8 f4")  # mov rax, [rax]; dec rcx; jnz back; hlt
PAGE = 4096
PAGES_MISSING = 4096  # twice the TLB's entries, in order: no entry lives to be used again
PAGES_HITTING = 64
LINE = 64

MIXTURE = (  # 8 instructions, 28 bytes
    "4801d8"  # add rax, rbx
    "488b0c24"  # mov rcx, [rsp]
    "488d548310"  # lea rdx, [rbx + rax*4 + 16]
    "0fafc3"  # imul eax, ebx
    "4883f905"  # cmp rcx, 5
    "0fb6f1"  # movzx esi, cl
    "660fefc1"  # pxor xmm0, xmm1
    "7400"  # jz to the next
)
MIXTURE_INSTRUCTIONS = 8


def circle(pages):
    """`pages` pages, each with a pointer to the next at an offset of its own, so that they share no cache set."""
    places = [DATA + page * PAGE + page * LINE % PAGE for page in range(pages)]
    memory = bytearray(pages * PAGE)
    for place, following in zip(places, places[1:] + places[:1], strict=True):
        memory[place - DATA : place - DATA + 8] = pack("<Q", following)
    return memory


def chase(vp, turns):
    """Go on along the circle that RAX points into: nanoseconds per turn."""
    vp.rip, vp.rcx = CODE, turns
    return timed(vp.run, turns)


@pytest.mark.parametrize("page_size", ["4 KiB", "2 MiB"])
def test_tlb_miss(benchmark, smoke, page_size):
    """A pointer chase over pages that the TLB holds, and over more. Walks are nested: both levels have such pages."""
    rounds, turns = (1, 1000) if smoke else (9, 200_000)
    arguments = {"memory": "32 MiB", "page_size": page_size}
    with (
        child_running(EMPTY_LOOP, **arguments) as (looper, _),
        child_running(CHASE, **arguments) as (hitter, near),
        child_running(CHASE, **arguments) as (misser, far),
    ):
        for vp, ram, pages in ((hitter, near, PAGES_HITTING), (misser, far, PAGES_MISSING)):
            ram[DATA : DATA + pages * PAGE] = circle(pages)
            vp.rax = DATA
        measures = {
            "turn of an empty loop": lambda: chase(looper, turns),
            "turn with a load that hits": lambda: chase(hitter, turns),
            "turn with a load that misses": lambda: chase(misser, turns),
        }
        results = run_rounds(benchmark, measures, rounds)
        done = (1 if smoke else rounds + 1) * turns
        assert hitter.counters().tlb_misses < 1000
        assert misser.counters().tlb_misses >= done
    ratios = report(benchmark, results, "turn of an empty loop")
    miss = ratios["turn with a load that misses"] - ratios["turn with a load that hits"]
    benchmark.extra_info["miss"] = miss
    print(f"  a miss costs {miss:.1f} turns of an empty loop")


def test_decoding(benchmark, smoke):
    """Straight code that runs for the first time, against the same code once it is decoded."""
    rounds, copies = (1, 50) if smoke else (15, 9000)
    code = bytes.fromhex(MIXTURE) * copies + b"\xf4"
    instructions = copies * MIXTURE_INSTRUCTIONS
    with child_running(EMPTY_LOOP) as (looper, _), child_running(code) as (vp, ram):

        def run():
            vp.rip = CODE
            vp.run()

        def run_undecoded():
            ram[CODE : CODE + len(code)] = code
            return timed(run, instructions)

        measures = {
            "turn of an empty loop": lambda: chase(looper, 1000 if smoke else 200_000),
            "instruction that is new": run_undecoded,
            "instruction that is decoded": lambda: timed(run, instructions),
        }
        results = run_rounds(benchmark, measures, rounds)
    ratios = report(benchmark, results, "turn of an empty loop")
    decoding = ratios["instruction that is new"] - ratios["instruction that is decoded"]
    benchmark.extra_info["decoding"] = decoding
    print(f"  decoding an instruction costs {decoding:.1f} turns of an empty loop")
