/* SDM 3A 11.12: which MSRs exist, which way they go, their reserved bits, SELF IPI, derived logical ids. */
#include "kernel.h"

static void access(void)
{
    static const u8 read_write[] = {0x08, 0x0F, 0x2F, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x3E, 0x30, 0x28};
    static const u8 read_only[] = {0x02, 0x03, 0x0A, 0x0D, 0x10, 0x17, 0x18, 0x1F, 0x20, 0x27, 0x39};
    static const u8 absent[] = {0x00, 0x01, 0x04, 0x07, 0x09, 0x0C, 0x0E, 0x29, 0x2E, 0x31, 0x3A, 0x3D,
                                0x40, 0x7F, 0xFF};
    u64 value;
    for (u32 i = 0; i < sizeof read_write; i++) {
        EQ("read", rdmsr_fault(0x800 + read_write[i], &value), 256);
        if (read_write[i] == 0x30 || read_write[i] == 0x28)
            value = 0;
        EQ("write back", wrmsr_fault(0x800 + read_write[i], value), 256);
    }
    for (u32 i = 0; i < sizeof read_only; i++) {
        EQ("read of a read-only register", rdmsr_fault(0x800 + read_only[i], &value), 256);
        EQ("write of a read-only register", wrmsr_fault(0x800 + read_only[i], value), 13);
    }
    for (u32 i = 0; i < sizeof absent; i++) {
        EQ("read of a register that does not exist", rdmsr_fault(0x800 + absent[i], 0), 13);
        EQ("write of a register that does not exist", wrmsr_fault(0x800 + absent[i], 0), 13);
    }
    EQ("EOI cannot be read", rdmsr_fault(0x80B, 0), 13);
    EQ("SELF IPI cannot be read", rdmsr_fault(0x83F, 0), 13);
    EQ("EOI of 0", wrmsr_fault(0x80B, 0), 256);
    EQ("EOI of 1", wrmsr_fault(0x80B, 1), 13);
    EQ("ESR of 1", wrmsr_fault(0x828, 1), 13);
}

static void reserved(void)
{
    static const struct { u8 index; u32 bits; } list[] = {
        {0x08, 0xFFFFFF00}, {0x0F, 0xFFFFEC00}, {0x2F, 0xFFFEE800}, {0x32, 0xFFF8EF00}, {0x33, 0xFFFEE800},
        {0x34, 0xFFFEE800}, {0x35, 0xFFFE0800}, {0x36, 0xFFFE0800}, {0x37, 0xFFFEEF00}, {0x3E, 0xFFFFFFF4},
        {0x3F, 0xFFFFFF00}, {0x30, 0xFFF32000}};
    for (u32 i = 0; i < sizeof list / sizeof *list; i++) {
        u32 bad = 0, good = list[i].index == 0x3F ? 0x40 : MASKED | 0x40;
        if (list[i].index == 0x08 || list[i].index == 0x3E || list[i].index == 0x0F)
            good = 0;
        if (list[i].index == 0x30)
            good = 0x40 | 1 << 14;
        if (list[i].index == 0x0F)
            good = 0x1FF;
        for (int b = 0; b < 64; b++) {
            int reserved_bit = b < 32 ? (int)(list[i].bits >> b & 1) : list[i].index != 0x30;
            if (reserved_bit && wrmsr_fault(0x800 + list[i].index, (u64)good | 1UL << b) != 13) {
                bad++;
                note("bit", (u64)b | (u64)list[i].index << 8);
            }
        }
        EQ("reserved bits are #GP", bad, 0);
        if (list[i].index == 0x35 || list[i].index == 0x32)
            EQ("a refused write changes nothing", rd((u32)list[i].index << 4) & 0x60000, 0);
    }
    wrmsr(0x838, 0);
    EQ("initial count has 32 bits", wrmsr_fault(0x838, 1UL << 32), 13);
    cli();
    forget();
    wrmsr(0x830, SELF | 0x1040);
    EQ("delivery status reads 0", rdmsr(0x830) & 0x1000, 0);
    sti();
    spin(500);
}

static void self_ipi(void)
{
    cli();
    forget();
    int wrong = 0;
    for (u32 v = 0x20; v < 0x100; v++) {
        wrmsr(0x83F, v);
        wrong += !bit_of(IRR, (int)v);
        wrong += bit_of(TMR, (int)v);
        sti();
        wait_count(0, (int)v, 1);
        cli();
        wrong += taken[0][v] != 1;
    }
    EQ("SELF IPI", wrong, 0);
    wr(LVTE, 0xE1);
    wr(ESR, 0);
    forget();
    EQ("SELF IPI of an illegal vector is no fault", wrmsr_fault(0x83F, 5), 256);
    sti();
    spin(1000);
    EQ("its error interrupt", taken[0][0xE1], 1);
    wr(ESR, 0);
    EQ("send illegal vector", rd(ESR) & ~0x40u, 0x20);
    u64 icr = rdmsr(0x830);
    wrmsr(0x83F, 0x41);
    EQ("ICR is untouched", rdmsr(0x830), icr);
    forget();
    wr(ESR, 0);
    ipi(0, 3);
    spin(1000);
    EQ("ICR of an illegal vector is an error", taken[0][0xE1], 1);
    wr(ESR, 0);
    OK("in ESR", rd(ESR) & 0x20);
}

static void page_is_gone(void)
{
    /* In x2APIC mode the page is memory as any other: TPR must not change by it. */
    wr(TPR, 0x10);
    EQ("TPR by its MSR", read_cr8(), 1);
    wr(TPR, 0);
}

static void others(void)
{
    u32 id = rd(ID), logical = rd(LDR);
    EQ("logical id", logical, (id >> 4) << 16 | 1u << (id & 15));
}

static void to_x2(void) { x2apic_mode[cpu()] = 1; wrmsr(BASE, rdmsr(BASE) | X2); }

static void sent(const char *name, u32 destination, u32 low, u32 expected)
{
    u32 got = 0;
    forget();
    ipi(destination, low);
    spin(20000);
    for (int i = 0; i < processors; i++)
        got |= taken[i][low & 0xFF] << (4 * i);
    EQ(name, got, expected);
}

void test(void)
{
    run_everywhere(to_x2);
    access();
    reserved();
    self_ipi();
    page_is_gone();
    run_everywhere(others);
    sti();
    if (processors != 4)
        return;
    sent("physical", 2, 0x50, 0x0100);
    sent("FFh is no broadcast", 0xFF, 0x50, 0);
    sent("FFFFFFFFh is", 0xFFFFFFFF, 0x50, 0x1111);
    sent("nobody", 77, 0x50, 0);
    sent("logical", 0x0000000A, LOGICAL | 0x51, 0x1010);
    sent("logical, all of cluster 0", 0x0000FFFF, LOGICAL | 0x52, 0x1111);
    sent("logical, cluster 1", 0x0001FFFF, LOGICAL | 0x52, 0);
    sent("logical, nobody", 0, LOGICAL | 0x52, 0);
    sent("logical broadcast", 0xFFFFFFFF, LOGICAL | 0x53, 0x1111);
    sent("self", 3, SELF | 0x54, 1);
    sent("all", 3, ALL | 0x55, 0x1111);
    sent("others", 3, OTHERS | 0x56, 0x1110);
    sent("lowest priority to one", 0x0000000C, LOGICAL | LOWEST | 0x57, 0x0100);
}
