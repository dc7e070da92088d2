/* Corners of SDM 3A 6 and 11: illegal vectors, accesses of other widths, gates that refuse, NMIs and HLT, strings. */
#include "kernel.h"

extern struct { u64 low, high; } idt[256];

static volatile u64 rips[16], seen_error, seen_flags, seen_rcx;
static volatile u32 at;
static void remember(struct frame *f)
{
    rips[at & 15] = f->rip;
    at++;
    seen_flags = f->rflags;
    seen_rcx = f->rcx;
    if (f->vector >= 32)
        eoi();
}

static u32 errors(void)                     /* since the last time */
{
    wr(ESR, 0);
    return rd(ESR);
}

static void reserved_registers(void)
{
    static const u8 none[] = {0x00, 0x01, 0x04, 0x05, 0x06, 0x07, 0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x2E,
                              0x3A, 0x3B, 0x3C, 0x3D, 0x3F};
    int missing = 0, wrong = 0;
    wr(LVTE, MASKED | 0xE1);
    (void)errors();
    for (u32 i = 0; i < sizeof none; i++) {
        wrong += mmio(none[i] * 16u) != 0;
        missing += errors() != 0x80;
        mmio_write(none[i] * 16u, 0xFFFFFFFF);
        missing += errors() != 0x80;
    }
    EQ("reserved registers are an illegal register address", missing, 0);
    EQ("and read 0", wrong, 0);
    int spoken = 0;
    for (u32 i = 0; i < 0x3F; i++) {
        int reserved = 0;
        for (u32 k = 0; k < sizeof none; k++)
            reserved |= none[k] == i;
        if (!reserved && i != EOI >> 4) {
            (void)mmio(i * 16);
            spoken += errors() != 0;
        }
    }
    EQ("the others are not", spoken, 0);
    /* 11.4.1: nothing but aligned accesses to 32 bits is defined; the machine goes on, nothing else changes */
    wr(TPR, 0x25);
    *(volatile u8 *)0xFEE00080 = 0x77;
    *(volatile u16 *)0xFEE00082 = 0x7777;
    *(volatile u32 *)0xFEE00084 = 0x77;
    *(volatile u64 *)0xFEE00088 = ~0UL;
    EQ("writes of other widths and places are dropped", mmio(TPR), 0x25);
    EQ("the bytes behind a register", *(volatile u32 *)0xFEE00084 | *(volatile u32 *)0xFEE0008C, 0);
    (void)*(volatile u64 *)0xFEE00080;
    (void)*(volatile u16 *)0xFEE00081;
    (void)*(volatile u64 *)0xFEE003FC;
    wr(TPR, 0);
    (void)errors();
}

static void illegal_vectors(void)
{
    wr(LVTE, MASKED | 0xE1);
    (void)errors();
    forget();
    wr(TDCR, 0xB);
    wr(LVTT, 0x0E);
    wr(TMICT, 100);
    spin(1000);
    wr(LVTT, MASKED);
    EQ("a timer with vector 14: received an illegal vector", errors(), 0x40);
    EQ("no exception 14", taken[0][14], 0);
    ipi(0, 0);
    EQ("IPI 0", errors() & 0x20, 0x20);
    ipi(0, LOWEST | LOGICAL | 0xF);
    EQ("lowest priority 15", errors() & 0x20, 0x20);
    ipi(0, 3 << 8 | 0x40);                  /* the remote read of the 82489DX */
    spin(300);
    EQ("reserved delivery mode", taken[0][0x40], 0);
    mmio_write(ICR2, 0x05FFFFFF);
    mmio_write(ICR, 0xFFF33000 | SELF | 0x40);
    EQ("reserved bits of ICR read 0", mmio(ICR), SELF | 0x40);
    EQ("and of its upper half", mmio(ICR2), 0x05000000);
    spin(300);
    EQ("sent", taken[0][0x40], 1);
    mmio_write(ICR2, 0);
    spin(300);
    EQ("its upper half sends nothing", taken[0][0x40], 1);
    mmio_write(ICR2, 0xAB000000);
    ipi(0xAB, 0x40);                        /* nobody: no accept error in these processors */
    EQ("sent to nobody", errors(), 0);
    (void)errors();
}

static void base_moves(void)
{
    u64 base = rdmsr(BASE);
    volatile u32 *ram = (u32 *)0xA00030;
    u32 version = rd(VERSION);
    *ram = 0x12345678;
    wr(TPR, 0x30);
    EQ("moved over RAM", wrmsr_fault(BASE, 0xA00000 | ENABLE | BSP), 256);
    EQ("version at the new place", *ram, version);
    *(volatile u32 *)0xA00080 = 0x40;
    EQ("TPR there", read_cr8(), 4);
    EQ("back", wrmsr_fault(BASE, base), 256);
    EQ("RAM is as it was", *ram, 0x12345678);
    EQ("registers are as they were", mmio(TPR), 0x40);
    wr(TPR, 0);
}

static void storm(struct frame *f)
{
    (void)f;
    if (taken[0][0x46] >= 50)
        wr(TMICT, 0);
    eoi();
    if (taken[0][0x46] >= 50 && bit_of(IRR, 0x46)) {        /* one may wait already */
        hooks[0x46] = 0;
        taken[0][0x46]--;
    }
}

static void storms(void)
{
    /* A period of one count: faster than its handler. It ends when the handler stops it. */
    hooks[0x46] = storm;
    forget();
    wr(TDCR, 0xB);
    wr(LVTT, PERIODIC | 0x46);
    wr(TMICT, 1);
    spin(3000);
    EQ("storm", taken[0][0x46], 50);
    hooks[0x46] = 0;
    wr(LVTT, 0x46);
    forget();
    wr(TMICT, 1);
    spin(1000);
    EQ("one shot of one count", taken[0][0x46], 1);
    wr(TDCR, 0xA);                          /* by 128 */
    wr(TMICT, 0xFFFFFFFF);
    u32 last = rd(TMCCT);
    int rises = 0;
    for (int i = 0; i < 2000; i++) {
        u32 now = rd(TMCCT);
        rises += now > last;
        last = now;
    }
    EQ("the count never rises", rises, 0);
    wr(TMICT, 0);
    wr(TDCR, 0xB);
    EQ("a new divider starts nothing", rd(TMCCT), 0);
    wr(LVTT, MASKED);
}

static void fix_gate(struct frame *f)       /* #NP or #GP: make the gate whole again */
{
    seen_error = f->error;
    seen_flags = f->rflags;
    rips[0] = f->rip;
    idt[0x47].low |= 1UL << 47;
    idt[0x47].low = (idt[0x47].low & ~(31UL << 40)) | 14UL << 40;
    if (bit_of(ISR, 0x47))
        eoi();
}

static void in_trap_gate(struct frame *f)
{
    (void)f;
    ipi(0, SELF | 0x57);
    at = taken[0][0x57];
    eoi();
}

static void gates(void)
{
    u64 label;
    /* 6.13: the error code of a fault during delivery is the vector * 8, IDT set, EXT set unless software asked */
    hooks[11] = hooks[13] = fix_gate;
    cli(); forget(); seen_error = 0;
    idt[0x47].low &= ~(1UL << 47);
    ipi(0, SELF | 0x47);
    __asm__ volatile("sti\n nop\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("interrupt by a gate that is not present: #NP(vector, IDT, EXT)", seen_error, 0x47 * 8 + 3);
    EQ("at the boundary where it was taken", rips[0], label);
    EQ("it had been acknowledged: in service, not requested", bit_of(IRR, 0x47) + bit_of(ISR, 0x47), 0);
    EQ("its handler did not run", taken[0][0x47], 0);
    cli(); seen_error = 0;
    idt[0x47].low &= ~(1UL << 47);
    __asm__ volatile("1: int $0x47\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("INT n by the same gate: #NP(vector, IDT)", seen_error, 0x47 * 8 + 2);
    EQ("a fault: at the INT itself, which then works", rips[0], label);
    EQ("worked", taken[0][0x47], 1);
    seen_error = 0;
    idt[0x47].low &= ~(31UL << 40);         /* type 0 */
    ipi(0, SELF | 0x47); sti(); spin(100); cli();
    EQ("a gate of no type: #GP(vector, IDT, EXT)", seen_error, 0x47 * 8 + 3);
    /* a trap gate leaves IF */
    hooks[11] = hooks[13] = 0;
    forget();
    idt[0x47].low |= 15UL << 40;
    hooks[0x47] = in_trap_gate;
    ipi(0, SELF | 0x47); sti(); spin(500); cli();
    EQ("trap gate: 57h came inside", order[0][0] * 256u + order[0][1], 0x4757);
    EQ("before its end", at, 1);
    idt[0x47].low = (idt[0x47].low & ~(31UL << 40)) | 14UL << 40;
    hooks[0x47] = 0;
}

static u8 *volatile string_at;
static void look_at_string(struct frame *f)
{
    u64 done = 4096 - f->rcx, wrong = 0;
    for (u64 i = 0; i < 4096; i++)
        wrong += string_at[i] != (i < done ? 0xA5 : 0);
    seen_error = wrong;
    remember(f);
}

static void strings(void)
{
    /* An interrupt in a repeated string instruction: RIP is that instruction, RCX what is left, memory agrees. */
    static u8 target[4096];
    u64 label, left, before;
    cli();
    wr(TDCR, 0xB);
    wr(LVTT, 0x48);
    for (u64 i = 0; i < 4096; i++)
        target[i] = 0;
    at = 0;
    string_at = target;
    hooks[0x48] = look_at_string;
    left = 4096;
    u8 *to = target;
    before = rdtsc();
    wr(TMICT, 150);
    __asm__ volatile("mov $0xA5, %%eax\n sti\n nop\n 1: rep stosb\n cli\n lea 1b(%%rip), %0"
                     : "=&r"(label), "+c"(left), "+D"(to) : : "rax", "memory");
    u64 after = rdtsc();
    EQ("once", at, 1);
    OK("every byte takes time", after - before > 4096);
    EQ("RIP of the string instruction", rips[0], label);
    OK("in its midst", seen_rcx > 0 && seen_rcx < 4096);
    EQ("what was stored agrees with RCX", seen_error, 0);
    EQ("all is done", left, 0);
    int wrong = 0;
    for (u64 i = 0; i < 4096; i++)
        wrong += target[i] != 0xA5;
    EQ("all is stored", wrong, 0);
    hooks[0x48] = 0;
    wr(LVTT, MASKED);
}

static volatile u64 go_at;
static void nmi_later(void) { while (rdtsc() < go_at) pause(); ipi(0, NMI); }
static void fixed_later(void) { while (rdtsc() < go_at) pause(); ipi(0, 0x59); }
static void (*volatile start_with)(void);     /* on processor 1, started by an interrupt: run_on would wait for it */
static void on_start(struct frame *f) { (void)f; eoi(); start_with(); }

static void sleeping(void)
{
    u64 label, before;
    hooks[0x4A] = on_start;
    hooks[2] = remember;
    hooks[0x59] = remember;
    /* HLT with IF = 0: an NMI wakes it, whatever waits in IRR */
    cli(); forget(); at = 0;
    start_with = nmi_later;
    before = rdtsc();
    go_at = before + 20000;
    ipi(0, SELF | 0x58);
    ipi(1, 0x4A);
    __asm__ volatile("hlt\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("NMI wakes HLT", at, 1);
    EQ("RIP behind HLT", rips[0], label);
    OK("not before it came", rdtsc() >= go_at);
    EQ("what waits in IRR did not wake it, and waits on", bit_of(IRR, 0x58), 1);
    sti(); spin(100); cli();
    EQ("comes with STI", taken[0][0x58], 1);
    /* HLT with IF = 1 below the priority of TPR sleeps; a higher vector wakes it */
    forget(); at = 0;
    start_with = fixed_later;
    go_at = rdtsc() + 20000;
    wr(TPR, 0x40);
    ipi(0, SELF | 0x41);
    ipi(1, 0x4A);
    __asm__ volatile("sti\n hlt\n 1: cli\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("59h wakes", order[0][0], 0x59);
    EQ("alone", total[0], 1);
    EQ("behind HLT", rips[0], label);
    OK("in time", rdtsc() >= go_at);
    wr(TPR, 0);
    sti(); spin(100); cli();
    EQ("41h with TPR", taken[0][0x41], 1);
    hooks[2] = hooks[0x59] = hooks[0x4A] = 0;
}

static volatile u32 depth_of_nmi, nmis, in_gp;
static void nmi_and_bad_iret(struct frame *f)
{
    if (nmis++ == 0) {
        ipi(0, NMI);                        /* waits for an IRET */
        spin(100);
        depth_of_nmi = nmis;
        f->cs = 0x1238;                     /* a selector behind the table: this handler's IRET is #GP */
    }
}
static void bad_iret(struct frame *f)
{
    in_gp = nmis;                           /* NMIs until this handler looked */
    seen_error = f->error;
    u64 *frame = (u64 *)f->rsp;             /* what IRET was about to pop */
    frame[1] = 8;
}

static void nmi_and_faults(void)
{
    hooks[2] = nmi_and_bad_iret;
    hooks[13] = bad_iret;
    cli();
    nmis = 0;
    ipi(0, NMI);
    spin(100);
    EQ("blocked in the handler", depth_of_nmi, 1);
    EQ("#GP of IRET names the selector", seen_error, 0x1238);
    EQ("IRET has unblocked NMIs though it faulted", in_gp, 2);
    EQ("two", nmis, 2);
    hooks[2] = hooks[13] = 0;
}

static void shadow_and_nmi(void)
{
    /* An NMI that arrives in the shadow of STI comes behind the instruction. */
    u64 label;
    hooks[2] = remember;
    cli(); at = 0;
    __asm__ volatile("movl $0xFEE00300, %%eax\n sti\n movl $0x400, (%%rax)\n 1: nop\n lea 1b(%%rip), %0"
                     : "=r"(label) : : "rax", "memory");
    EQ("NMI sent in the shadow of STI", rips[0], label);
    EQ("with IF", seen_flags >> 9 & 1, 1);
    cli(); at = 0;
    ipi(0, NMI);
    EQ("an NMI needs no IF", at, 1);
    EQ("which it finds clear", seen_flags >> 9 & 1, 0);
    hooks[2] = 0;
}

static void everywhere(void) { wr(LDR, 0); }
static void mode_clusters(void) { wr(DFR, 0x0FFFFFFF); }
static void mode_flat(void) { wr(DFR, 0xFFFFFFFF); }

static void empty_sets(void)
{
    run_everywhere(everywhere);
    forget();
    sti();
    ipi(0x01, LOGICAL | 0x60);
    ipi(0x00, LOGICAL | 0x60);
    ipi(0x01, LOGICAL | LOWEST | 0x61);
    ipi(0x00, LOGICAL | LOWEST | 0x61);
    ipi(0x77, LOWEST | 0x61);
    run_everywhere(mode_clusters);
    ipi(0x11, LOGICAL | 0x62);
    ipi(0x10, LOGICAL | LOWEST | 0x62);
    run_everywhere(mode_flat);
    spin(5000);
    int any = 0;
    for (int i = 0; i < processors; i++)
        any += (int)(taken[i][0x60] + taken[i][0x61] + taken[i][0x62]);
    EQ("nobody is addressed", any, 0);
    EQ("no errors", errors(), 0);
}

void test(void)
{
    cli();
    reserved_registers();
    sti();
    illegal_vectors();
    base_moves();
    storms();
    gates();
    sti();
    strings();
    nmi_and_faults();
    shadow_and_nmi();
    if (processors > 1)
        sleeping();
    empty_sets();
}
