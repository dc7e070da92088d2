/* SDM 3A 11.6: destinations of IPIs in xAPIC mode, lowest priority, NMI and INIT to others. 4 processors. */
#include "kernel.h"

static volatile u32 logical[8], format;
static void set_logical(void) { wr(DFR, format); wr(LDR, logical[cpu()] << 24); }

static void sent(const char *name, u32 destination, u32 low, u32 expected)
{
    u32 got = 0, vector = (low & 0x700) == NMI ? 2 : low & 0xFF;
    forget();
    ipi(destination, low);
    EQ("delivery status", rd(ICR) & 0x1000, 0);
    spin(20000);
    for (int i = 0; i < processors; i++)
        got |= taken[i][vector] << (4 * i);
    EQ(name, got, expected);
}

static u32 spread(u32 destination, u32 low, u32 times)
{
    u32 sum = 0;
    forget();
    for (u32 i = 0; i < times; i++) {
        ipi(destination, low);
        spin(3000);
    }
    for (int i = 0; i < processors; i++)
        sum += taken[i][low & 0xFF];
    return sum;
}

static void raise_priority(void) { wr(TPR, 0x60); }
static void lower_priority(void) { wr(TPR, 0); }
static void off(void) { wr(SVR, 0xFF); }
static void on(void) { wr(SVR, 0x1FF); }

static volatile u32 arrived;
static void count_up(struct frame *f) { (void)f; __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST); eoi(); }
static void answer(struct frame *f) { (void)f; eoi(); ipi(0, 0x72); }
static void flood(void)
{
    for (int i = 0; i < 200; i++) {
        ipi(0, ALL | 0x73);
        ipi(0, OTHERS | 0x74);
    }
}


void test(void)
{
    sti();
    for (int i = 0; i < 4; i++)
        logical[i] = 1u << i;
    format = 0xFFFFFFFF;
    run_everywhere(set_logical);
    sent("physical 0", 0, 0x50, 0x0001);
    sent("physical 3", 3, 0x51, 0x1000);
    sent("physical, nobody", 9, 0x51, 0);
    sent("physical FFh", 0xFF, 0x52, 0x1111);
    sent("NMI to 1", 1, NMI, 0x0010);
    sent("NMI to others", 0, OTHERS | NMI, 0x1110);
    sent("flat 0110", 6, LOGICAL | 0x53, 0x0110);
    sent("flat 1111", 0xFF, LOGICAL | 0x53, 0x1111);
    sent("flat, nobody", 0xF0, LOGICAL | 0x53, 0);
    sent("flat, none", 0, LOGICAL | 0x53, 0);
    sent("self", 2, SELF | 0x54, 0x0001);
    sent("all", 2, ALL | 0x55, 0x1111);
    sent("others", 2, OTHERS | 0x56, 0x1110);
    sent("a level IPI that is asserted is an edge", 1, LEVEL | 1 << 14 | 0x57, 0x0010);
    sent("an SMI is no interrupt", 1, 2 << 8, 0);
    sent("INIT level de-assert", 0, ALL | LEVEL | 5 << 8, 0);
    EQ("a destination of several keeps counts", spread(0xF, LOGICAL | LOWEST | 0x58, 40), 40);
    run_on(0, raise_priority);
    run_on(1, raise_priority);
    run_on(3, raise_priority);
    sent("lowest priority goes to 2", 0xF, LOGICAL | LOWEST | 0x75, 0x0100);
    sent("lowest priority, of 0 and 1", 0x3, LOGICAL | LOWEST | 0x75, 0x0001);
    run_everywhere(lower_priority);
    run_on(1, off);
    sent("disabled by software takes no fixed interrupt", 1, 0x59, 0);
    sent("but NMI", 1, NMI, 0x0010);
    sent("lowest priority passes it by", 2, LOGICAL | LOWEST | 0x5A, 0);
    run_on(1, on);

    logical[0] = 0x11; logical[1] = 0x12; logical[2] = 0x21; logical[3] = 0x22;
    format = 0x0FFFFFFF;
    run_everywhere(set_logical);
    sent("cluster 1", 0x13, LOGICAL | 0x60, 0x0011);
    sent("cluster 1, member 1", 0x12, LOGICAL | 0x60, 0x0010);
    sent("cluster 2", 0x2F, LOGICAL | 0x60, 0x1100);
    sent("cluster 3", 0x3F, LOGICAL | 0x60, 0);
    sent("cluster broadcast", 0xFF, LOGICAL | 0x60, 0x1111);
    sent("lowest priority within a cluster", 0x22, LOGICAL | LOWEST | 0x61, 0x1000);
    format = 0xFFFFFFFF;
    run_everywhere(set_logical);

    hooks[0x70] = count_up;
    arrived = 0;
    ipi(0, OTHERS | 0x70);
    u64 limit = rdtsc();
    while (arrived < 3 && rdtsc() - limit < 1000000)
        pause();
    EQ("others run in parallel", arrived, 3);
    hooks[0x71] = answer;
    forget();
    for (u32 i = 0; i < 50; i++) {
        ipi(2, 0x71);
        if (!wait_count(0, 0x72, i + 1))
            break;
    }
    EQ("ping pong", taken[0][0x72], 50);
    forget();
    run_on(1, flood);
    spin(100000);
    int silent = 0;
    for (int i = 0; i < 4; i++)
        silent += !taken[i][0x73] + (i != 1 && !taken[i][0x74]);
    EQ("a flood reaches everybody", silent, 0);
    EQ("but itself", taken[1][0x74], 0);
}
