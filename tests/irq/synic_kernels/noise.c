/* Random values into every synthetic MSR, random bytes into overlay pages and hypercalls; then all still works. */
#include "synic.h"

enum { ROUNDS = 6000 };
static u8 scratch[8][16][4096] __attribute__((aligned(4096)));
static u8 inputs[8][4096] __attribute__((aligned(4096)));
static u64 seeds[8];
static volatile u32 messages;

static u64 roll(void)
{
    u64 *seed = &seeds[cpu()];
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return *seed;
}

static u64 value_of(void)
{
    u64 page = (u64)scratch[cpu()][roll() % 16];
    switch (roll() % 8) {
    case 0: return roll();
    case 1: return roll() & 0xFFFFF;
    case 2: return 0;
    case 3: return ~0UL;
    case 4: return 1UL << roll() % 64;
    case 5: return now() + roll() % 100;
    default: return page | (roll() & 3 ? 1 : roll() & 0xFFF);
    }
}

/* Vectors from 20h: stubs of exceptions with an error code do not serve interrupts. */
static void one_msr(void)
{
    static const u32 all[] = { VP_INDEX, VP_RUNTIME, TIME_REF_COUNT, REFERENCE_TSC, TSC_FREQUENCY, MSR_EOI, MSR_TPR,
                               VP_ASSIST, SCONTROL, SVERSION, SIEFP, SIMP, EOM, SIRBP, UNHALTED_COUNT, 0x40000106,
                               0x40000107, 0x40000108, 0x40000118, 0x10, 0x3B };
    u64 value = value_of();
    switch (roll() % 6) {
    case 0: write_faults(SINT0 + (u32)roll() % 16, value | 0x20); break;
    case 1: write_faults(STIMER0 + (u32)roll() % 8, value | 0x200); break;
    case 2: write_faults(MSR_ICR, (value & ~0x700UL) | 0x20); break;
    case 3: {
        u32 msr = 0x40000000 + (u32)roll() % 0x120;
        if (msr != GUEST_IDLE)
            read_faults(msr);
        break;
    }
    default: {
        u32 msr = all[roll() % (sizeof all / 4)];
        write_faults(msr, msr == MSR_TPR && !(roll() & 7) ? value & 0x1F : value);
    }
    }
}

static void one_call(void)
{
    static const u16 codes[] = { 0x02, 0x03, 0x08, 0x0B, 0x13, 0x14, 0x15, 0x46, 0x50, 0x53, 0x5A, 0x5C, 0x5D, 0x7E,
                                 0x8B, 0x94, 0xC0, 0xC1, 0xE3, 0xE5, 0x9A };
    u64 *words = (u64 *)inputs[cpu()];
    for (int i = 0; i < 40; i++)
        words[i] = roll() & 1 ? value_of() : roll() & 3;
    u64 control = codes[roll() % (sizeof codes / 2)] | (roll() & 3 ? 0 : 1 << 16) | (roll() & 3 ? 0 : roll() % 4 << 17);
    if (!(roll() & 3))
        control |= (roll() % 5) << 32;
    if ((control & 0xFFFF) == 0xE3)
        words[5] = (u64)scratch[cpu()][roll() % 16] >> 12;      /* a page that it writes */
    hypercall(control, roll() & 7 ? (u64)words : value_of(), (u64)inputs[cpu()] + 2048);
}

static void quiet(void)
{
    wrmsr(MSR_TPR, 0), wrmsr(0x3B, 0);
    for (u32 i = 0; i < 4; i++)
        wrmsr(STIMER0 + 2 * i, 0), wrmsr(STIMER0 + 2 * i + 1, 0);
    wrmsr(UNHALTED_CONFIG, 0), wrmsr(SCONTROL, 0);
    for (u32 i = 0; i < 16; i++)
        wrmsr(SINT0 + i, MASKED);
    wrmsr(VP_ASSIST, 0), wrmsr(SIMP, 0), wrmsr(SIEFP, 0), wrmsr(SIRBP, 0);
    for (int i = 0; i < 300; i++)
        wrmsr(MSR_EOI, 0);
}

static void work(void)
{
    int me = cpu();
    seeds[me] = 0x9E3779B97F4A7C15 + (u64)me + *(volatile u64 *)0x1F0200 * 1000;    /* the host may vary it */
    sti();
    for (int i = 0; i < ROUNDS; i++)
        switch (roll() % 4) {
        case 0: one_call(); break;
        case 1: store_faults(&scratch[me][roll() % 16][roll() % 4096], (u8)roll()); break;
        default: one_msr();
        }
    quiet();
}

static void spurious(struct frame *frame)
{
    wrmsr(MSR_EOI, 0);
    (void)frame;
}

static void count(struct frame *frame)
{
    while (take(2, 0))
        messages++;
    wrmsr(MSR_EOI, 0);
    (void)frame;
}

static void sane(void)
{
    int me = cpu();
    for (u32 i = 0; i < 4096; i++)
        sim_pages[me][i] = 0;
    synic_on();
    for (int i = 0; i < 16; i++)
        slot(i)->type = 0;
    wrmsr(EOM, 0);
    for (int i = 0; i < 16; i++)
        slot(i)->type = 0;
    sint(2, 0x52);
    messages = 0;
    u64 port = host(OP_MESSAGE_PORT, 2, (u64)me, 0, 0);
    check("posts", host(OP_POST, port, 16, 100, 0), 16);
    sti();
    spin(200);
    check("messages", messages, 16);
    forget();
    wrmsr(STIMER0, T_DIRECT | T_VECTOR(0x60) | T_AUTO), wrmsr(STIMER0 + 1, now() + 50);
    spin(200);
    check("timer", seen[me][0x60], 1);
    hypercall(0x0B | 1 << 16, 0x61, 1UL << me);
    spin(50);
    check("IPI", seen[me][0x61], 1);
    check("nothing in service", *(volatile u32 *)0xFEE000A0UL, 0);
}

void test(void)
{
    section("noise");
    for (int v = 16; v < 256; v++)
        hooks[v] = spurious;
    for (int i = 1; i < processors; i++)
        start_on(i, work);
    work();
    for (int i = 1; i < processors; i++)
        wait_on(i);
    for (int i = 0; i < processors; i++)
        run_on(i, quiet);
    hooks[0x52] = count, hooks[0x60] = hooks[0x61] = 0;
    for (int i = 0; i < processors; i++)
        run_on(i, sane);
}
