/* x2APIC mode with the MSRs of the TLFS: both ways to each register, ids of 32 bits (10.1). */
#include "synic.h"
static volatile u64 ldr[8];
static void x2(void) { wrmsr(0x1B, rdmsr(0x1B) | 1 << 10); ldr[cpu()] = rdmsr(0x80D); }
void test(void)
{
    for (int i = 0; i < processors; i++)
        run_on(i, x2);
    section("x2APIC");
    check("base", rdmsr(0x1B) >> 10 & 3, 3);
    for (u64 i = 0; i < (u64)processors; i++) {
        forget();
        wrmsr(MSR_ICR, i << 32 | 0x50);
        TRUE("by ICR MSR", wait_for((int)i, 0x50, 1));
        hypercall(0x0B | 1 << 16, 0x51, 1UL << i);
        TRUE("by hypercall", wait_for((int)i, 0x51, 1));
        wrmsr(MSR_ICR, ldr[i] << 32 | 1 << 11 | 0x52);
        TRUE("logical", wait_for((int)i, 0x52, 1));
        check("only that", total[0] + total[1] + total[2] + total[3], 3);
        host(OP_ASSERT, 0, 0x53, i, 0);
        TRUE("asserted", wait_for((int)i, 0x53, 1));
        host(OP_ASSERT, 0, 0x54, ldr[i], 2);
        TRUE("asserted, logical", wait_for((int)i, 0x54, 1));
    }
    wrmsr(MSR_TPR, 0x80);
    check("TPR", rdmsr(0x808), 0x80);
    wrmsr(0x808, 0);
    check("TPR", rdmsr(MSR_TPR), 0);
    ending[0x55] = END_NONE;
    wrmsr(0x83F, 0x55);
    check("self", seen[0][0x55], 1);
    check("ISR", rdmsr(0x812) >> 21 & 1, 1);
    wrmsr(MSR_EOI, 0);
    check("EOI MSR", rdmsr(0x812), 0);
    check("ICR reads", rdmsr(MSR_ICR), rdmsr(0x830));
    check("EOI of x2APIC, not 0", write_faults(0x80B, 1), 13);
    check("EOI MSR, not 0", write_faults(MSR_EOI, 1), 256);
    wrmsr(VP_ASSIST, (u64)assist_pages[0] | 1);
    ending[0x56] = END_LAZY;
    forget();
    wrmsr(0x83F, 0x56);
    wrmsr(0x83F, 0x56);
    check("spared", lazy_saved[0], 2);
    synic_on(), sint(2, 0x57);
    u64 port = host(OP_MESSAGE_PORT, 2, 0, 0, 0);
    host(OP_POST, port, 2, 8, 0);
    spin(10);
    slot(2)->type = 0;
    fence();
    check("one", seen[0][0x57], 1);
    ending[0x57] = END_NONE;
    wrmsr(EOM, 0);
    spin(10);
    check("two", seen[0][0x57], 2);
    slot(2)->type = 0;
    host(OP_POST, port, 2, 8, 0);
    slot(2)->type = 0;
    wrmsr(0x80B, 0);
    spin(10);
    check("three", seen[0][0x57], 3);
    check("four", slot(2)->type, 1);
}
