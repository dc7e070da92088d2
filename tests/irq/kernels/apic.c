/* SDM 3A chapter 11: existence, IA32_APIC_BASE, registers of the page, errors, priorities, nesting. */
#include "kernel.h"

static void registers(void)
{
    u32 a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    EQ("CPUID.1:EDX.9", d >> 9 & 1, 1);
    EQ("initial id", b >> 24, 0);
    EQ("IA32_APIC_BASE", rdmsr(BASE), 0xFEE00000 | ENABLE | BSP);
    EQ("id", mmio(ID), 0);
    OK("version is of an integrated APIC", (mmio(VERSION) & 0xFF) >= 0x10 && (mmio(VERSION) & 0xFF) <= 0x15);
    OK("at least 6 LVT entries", (mmio(VERSION) >> 16 & 0xFF) >= 5);

    mmio_write(TPR, 0xFFFFFFA5);
    EQ("TPR has eight bits", mmio(TPR), 0xA5);
    EQ("CR8 is TPR[7:4]", read_cr8(), 10);
    EQ("PPR is TPR with nothing in service", mmio(PPR), 0xA5);
    write_cr8(3);
    EQ("MOV CR8 clears TPR[3:0]", mmio(TPR), 0x30);
    write_cr8(0);
    mmio_write(LDR, 0xFFFFFFFF);
    EQ("LDR has eight bits", mmio(LDR), 0xFF000000);
    mmio_write(LDR, 0x01000000);
    mmio_write(DFR, 0);
    EQ("DFR[27:0] are ones", mmio(DFR), 0x0FFFFFFF);
    mmio_write(DFR, 0xFFFFFFFF);
    EQ("DFR", mmio(DFR), 0xFFFFFFFF);
    mmio_write(ICR2, 0xFFFFFFFF);
    EQ("ICR[55:32] are reserved", mmio(ICR2), 0xFF000000);
    mmio_write(ICR2, 0);
    u32 fixed_bits[][2] = {{LVTT, 0x000700FF}, {LVT0, 0x0001A7FF}, {LVT1, 0x0001A7FF}, {LVTE, 0x000100FF},
                           {LVT_THERMAL, 0x000107FF}, {LVT_PMC, 0x000107FF}};
    for (int i = 0; i < 6; i++) {
        mmio_write(fixed_bits[i][0], 0xFFFFFFFF);
        u32 got = mmio(fixed_bits[i][0]);
        EQ("LVT entries keep their bits alone", got & ~(0x1000 | 0x4000 | fixed_bits[i][1]), 0);
        mmio_write(fixed_bits[i][0], MASKED | 0x20);
        EQ("LVT entry", mmio(fixed_bits[i][0]), MASKED | 0x20);
    }
    mmio_write(TDCR, 0xFFFFFFFF);
    EQ("divide configuration has bits 0, 1, 3", mmio(TDCR), 0xB);
    mmio_write(TDCR, 0);
    mmio_write(PPR, 0xFF);
    EQ("PPR is read-only", mmio(PPR), 0);
    mmio_write(VERSION, 0);
    OK("version is read-only", mmio(VERSION));
    mmio_write(ISR + 0x10, 0xFFFFFFFF);
    mmio_write(IRR + 0x10, 0xFFFFFFFF);
    mmio_write(TMR + 0x10, 0xFFFFFFFF);
    EQ("ISR is read-only", mmio(ISR + 0x10), 0);
    EQ("IRR is read-only", mmio(IRR + 0x10), 0);
    EQ("TMR is read-only", mmio(TMR + 0x10), 0);
    mmio_write(ESR, 0);
    EQ("those writes are no errors, or illegal registers", mmio(ESR) & ~0x80u, 0);
}

static void errors(void)
{
    cli();
    mmio_write(LVTE, 0xE1);
    mmio_write(ESR, 0);
    mmio_write(ESR, 0);
    EQ("ESR clear", mmio(ESR), 0);
    forget();
    ipi(0, 5);
    EQ("ESR shows nothing before it is written", mmio(ESR), 0);
    mmio_write(ESR, 0);
    OK("send illegal vector", mmio(ESR) & 0x20);
    sti();
    spin(2000);
    cli();
    EQ("error interrupt", taken[0][0xE1], 1);
    EQ("no interrupt 5", taken[0][5], 0);
    mmio_write(ESR, 0);
    EQ("ESR cleared by the second write", mmio(ESR), 0);
    forget();
    ipi(0, SELF | 0xF);
    sti();
    spin(2000);
    cli();
    EQ("vector 15 to self is an error", taken[0][0xE1], 1);
    mmio_write(ESR, 0);
    EQ("sent, and perhaps received", mmio(ESR) & ~0x40u, 0x20);
    mmio_write(LVTE, 0xE1);
    forget();
    (void)mmio(0x40);
    mmio_write(0x3F4 & ~15u, 0x40);          /* 3F0: SELF IPI exists in x2APIC mode alone */
    sti();
    spin(2000);
    cli();
    EQ("no self-IPI through the page", taken[0][0x40], 0);
    mmio_write(ESR, 0);
    EQ("illegal register address", mmio(ESR), 0x80);
    forget();
    ipi(0, NMI | 3);                        /* vector ignored */
    EQ("NMI of vector 3 is no error", taken[0][2], 1);
    mmio_write(ESR, 0);
    EQ("no error", mmio(ESR), 0);
    mmio_write(LVTE, MASKED | 0xE1);
    forget();
    ipi(0, 5);
    sti();
    spin(2000);
    EQ("masked error", taken[0][0xE1], 0);
    mmio_write(ESR, 0);
    mmio_write(LVTE, 0xE1);
    spin(2000);
    EQ("it does not come later", taken[0][0xE1], 0);
    mmio_write(ESR, 0);
}

static void vectors(void)
{
    cli();
    forget();
    int missing = 0, merged = 0;
    for (u32 v = 0x20; v < 0x100; v++) {
        ipi(0, SELF | v);
        if (bit_of(IRR, (int)v) != 1)
            missing++;
        sti();
        wait_count(0, (int)v, 1);
        cli();
        if (taken[0][v] != 1 || bit_of(IRR, (int)v) || bit_of(ISR, (int)v))
            missing++;
    }
    EQ("all vectors by self", missing, 0);
    forget();
    for (u32 v = 0x20; v < 0x100; v++) {
        ipi(0, v);
        ipi(0, v);
    }
    sti();
    spin(200000);
    cli();
    int wrong = 0;
    for (u32 i = 0; i < 0xE0; i++)
        wrong += order[0][i] != 0xFF - i;
    for (u32 v = 0x20; v < 0x100; v++)
        merged += taken[0][v] != 1;
    EQ("highest first", wrong, 0);
    EQ("one request for two", merged, 0);
    EQ("nothing else", total[0], 0xE0);
}

static void ends_with_frame(struct frame *f) { (void)f; eoi(); }

static void low_vectors(void)
{
    static const u8 list[] = {0x10, 0x11, 0x15, 0x1E, 0x1F};
    for (int i = 0; i < 5; i++) {
        u8 v = list[i];
        hooks[v] = ends_with_frame;
        forget();
        ipi(0, SELF | v);
        sti();
        spin(1000);
        cli();
        EQ("an interrupt of vector 10h to 1Fh has no error code", taken[0][v], 1);
        hooks[v] = 0;
    }
}

static void priorities(void)
{
    int wrong = 0, wrong_cr8 = 0;
    cli();
    for (u32 tpr = 0; tpr < 0x100; tpr += 5)
        for (u32 v = 0x20; v < 0x100; v += 13) {
            forget();
            mmio_write(TPR, tpr);
            ipi(0, SELF | v);
            sti();
            spin(300);
            cli();
            u32 expected = (v >> 4) > (tpr >> 4);
            wrong += taken[0][v] != expected;
            wrong += bit_of(IRR, (int)v) == (int)expected;
            sti();
            write_cr8(0);
            __asm__ volatile("nop; nop");
            cli();
            wrong_cr8 += taken[0][v] != 1;
        }
    mmio_write(TPR, 0);
    EQ("TPR holds classes back", wrong, 0);
    EQ("MOV CR8 lets them in", wrong_cr8, 0);
    u64 bad = 16;
    fault[0] = 256;
    __asm__ volatile("movq $1f, %0\n mov %1, %%cr8\n 1: movq $0, %0" : "=m"(recover[0]) : "r"(bad) : "memory");
    EQ("CR8 above 15 is #GP", fault[0], 13);
}

static u32 depth, ppr_seen[8], deep;
static void nest(struct frame *f)
{
    u32 v = (u32)f->vector;
    ppr_seen[depth++] = mmio(PPR);
    if (depth > deep)
        deep = depth;
    if (v == 0x45) {
        ipi(0, SELF | 0x45);                /* again: one in IRR, one in ISR */
        ipi(0, SELF | 0x4F);                /* the same class waits */
        ipi(0, SELF | 0x31);
        ipi(0, SELF | 0x67);                /* preempts */
        sti();
        spin(500);
        cli();
        EQ("in service and requested", bit_of(ISR, 0x45) + bit_of(IRR, 0x45), 2);
        EQ("same class waits", bit_of(IRR, 0x4F), 1);
        hooks[0x45] = 0;
    }
    if (v == 0x67) {
        mmio_write(TPR, 0x7F);
        ppr_seen[6] = mmio(PPR);
        mmio_write(TPR, 0x6F);
        ppr_seen[7] = mmio(PPR);
        mmio_write(TPR, 0x23);
        ppr_seen[5] = mmio(PPR);
        mmio_write(TPR, 0);
    }
    depth--;
    eoi();
}

static void nesting(void)
{
    cli();
    forget();
    hooks[0x45] = hooks[0x67] = nest;
    ipi(0, SELF | 0x45);
    sti();
    spin(3000);
    cli();
    u8 want[] = {0x45, 0x67, 0x4F, 0x45, 0x31};
    for (int i = 0; i < 5; i++)
        EQ("order of nested interrupts", order[0][i], want[i]);
    EQ("count", total[0], 5);
    EQ("depth", deep, 2);
    EQ("PPR in 45h", ppr_seen[0], 0x40);
    EQ("PPR in 67h", ppr_seen[1], 0x60);
    EQ("PPR, TPR above", ppr_seen[6], 0x7F);
    EQ("PPR, TPR of the same class", ppr_seen[7], 0x6F);
    EQ("PPR, TPR below", ppr_seen[5], 0x60);
    hooks[0x45] = hooks[0x67] = 0;
    mmio_write(EOI, 0);
    EQ("EOI with nothing in service", mmio(PPR), 0);
}

static void keep(struct frame *f) { (void)f; }

static void order_of_ends(void)
{
    cli();
    forget();
    hooks[0x50] = hooks[0x80] = hooks[0xB0] = keep;
    ipi(0, SELF | 0x50);
    sti();
    wait_count(0, 0x50, 1);
    ipi(0, SELF | 0x80);
    wait_count(0, 0x80, 1);
    ipi(0, SELF | 0xB0);
    wait_count(0, 0xB0, 1);
    cli();
    EQ("three in service", bit_of(ISR, 0x50) + bit_of(ISR, 0x80) + bit_of(ISR, 0xB0), 3);
    EQ("PPR", mmio(PPR), 0xB0);
    eoi();
    EQ("EOI ends the highest", bit_of(ISR, 0x50) * 4 + bit_of(ISR, 0x80) * 2 + bit_of(ISR, 0xB0), 6);
    EQ("PPR after it", mmio(PPR), 0x80);
    eoi();
    eoi();
    EQ("all ended", mmio(PPR) | (u32)bit_of(ISR, 0x50), 0);
    hooks[0x50] = hooks[0x80] = hooks[0xB0] = 0;
}

static void software_disable(void)
{
    cli();
    forget();
    mmio_write(LVT0, MASKED | EXTINT);
    mmio_write(LVT1, 0x60);
    mmio_write(LVTT, 0x61);
    mmio_write(LVTE, 0xE1);
    hooks[0x90] = keep;
    ipi(0, SELF | 0x90);
    sti();
    wait_count(0, 0x90, 1);
    cli();
    ipi(0, SELF | 0x70);                    /* in IRR */
    mmio_write(SVR, 0x0FF);
    EQ("masks are set", (mmio(LVT1) & mmio(LVTT) & mmio(LVTE)) >> 16 & 1, 1);
    mmio_write(LVTT, 0x61);
    EQ("and cannot be cleared", mmio(LVTT), MASKED | 0x61);
    EQ("IRR is kept", bit_of(IRR, 0x70), 1);
    EQ("ISR is kept", bit_of(ISR, 0x90), 1);
    forget();
    ipi(0, 0x33);
    EQ("no new requests", bit_of(IRR, 0x33), 0);
    ipi(0, NMI);
    EQ("NMI is taken", taken[0][2], 1);
    mmio_write(EOI, 0);
    EQ("EOI works", bit_of(ISR, 0x90), 0);
    mmio_write(SVR, 0xFFFFFFFF);
    EQ("SVR keeps its bits alone", mmio(SVR) & ~0x1000u, 0x3FF);
    mmio_write(SVR, 0x1FF);
    EQ("masks stay", (mmio(LVT1) & mmio(LVTT) & mmio(LVTE)) >> 16 & 1, 1);
    forget();
    sti();
    spin(2000);
    cli();
    EQ("what had been requested comes now", taken[0][0x70], 1);
    hooks[0x90] = 0;
}

static void reset_values(void)
{
    static const u32 masked[] = {LVTT, LVT_THERMAL, LVT_PMC, LVT0, LVT1, LVTE};
    EQ("DFR", mmio(DFR), 0xFFFFFFFF);
    EQ("SVR", mmio(SVR), 0xFF);
    EQ("TPR", mmio(TPR), 0);
    EQ("LDR", mmio(LDR), 0);
    EQ("id", mmio(ID), 0);
    EQ("ICR", mmio(ICR) | mmio(ICR2), 0);
    EQ("timer counts", mmio(TMICT) | mmio(TMCCT) | mmio(TDCR), 0);
    for (int i = 0; i < 6; i++)
        EQ("LVT entries after a reset", mmio(masked[i]), MASKED);
    u32 any = 0;
    for (u32 i = 0; i < 8; i++)
        any |= mmio(IRR + 16 * i) | mmio(ISR + 16 * i) | mmio(TMR + 16 * i);
    EQ("IRR, ISR, TMR", any, 0);
}

static void base_register(void)
{
    u64 base = rdmsr(BASE);
    cli();
    EQ("reserved bits 7:0", wrmsr_fault(BASE, base | 1), 13);
    EQ("reserved bit 9", wrmsr_fault(BASE, base | 0x200), 13);
    EQ("reserved bit 63", wrmsr_fault(BASE, base | 1UL << 63), 13);
    EQ("EXTD without EN", wrmsr_fault(BASE, (base & ~ENABLE) | X2), 13);
    mmio_write(TPR, 0x20);
    mmio_write(LVTT, 0x61);
    mmio_write(TMICT, 0x10000000);
    mmio_write(LDR, 0x01000000);
    mmio_write(ICR2, 0x01000000);
    ipi(1, SELF | 0x44);
    EQ("disable", wrmsr_fault(BASE, base & ~ENABLE), 256);
    u32 a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    EQ("CPUID.1:EDX.9 follows", d >> 9 & 1, 0);
    EQ("disabled to x2APIC is #GP", wrmsr_fault(BASE, base | X2), 13);
    EQ("disabled to disabled with EXTD is #GP", wrmsr_fault(BASE, (base & ~ENABLE) | X2), 13);
    EQ("x2APIC MSRs are #GP", rdmsr_fault(0x802, 0), 13);
    EQ("enable", wrmsr_fault(BASE, base), 256);
    reset_values();
    mmio_write(SVR, 0x1FF);
    EQ("x2APIC MSRs are #GP in xAPIC mode", rdmsr_fault(0x802, 0), 13);
    EQ("and writes", wrmsr_fault(0x80B, 0), 13);
    mmio_write(TPR, 0x35);
    mmio_write(LVT1, 0x62);
    EQ("xAPIC to x2APIC", wrmsr_fault(BASE, base | X2), 256);
    x2apic_mode[0] = 1;
    EQ("TPR is kept", rd(TPR), 0x35);
    EQ("LVT is kept", rd(LVT1), 0x62);
    EQ("SVR is kept", rd(SVR), 0x1FF);
    EQ("ICR high is not", rdmsr(0x830) >> 32, 0);
    EQ("x2APIC to xAPIC is #GP", wrmsr_fault(BASE, base), 13);
    EQ("x2APIC EXTD without EN is #GP", wrmsr_fault(BASE, (base & ~ENABLE) | X2), 13);
    EQ("x2APIC to x2APIC", wrmsr_fault(BASE, base | X2), 256);
    EQ("IA32_APIC_BASE", rdmsr(BASE), base | X2);
    EQ("x2APIC to disabled", wrmsr_fault(BASE, base & ~ENABLE), 256);
    x2apic_mode[0] = 0;
    EQ("disabled to enabled", wrmsr_fault(BASE, base), 256);
    reset_values();
    mmio_write(SVR, 0x1FF);
}

void test(void)
{
    registers();
    errors();
    vectors();
    low_vectors();
    priorities();
    nesting();
    order_of_ends();
    software_disable();
    base_register();
}
