/* Event flags (9.3), signals by the root, direct signals, several processors. */
#include "synic.h"

static u64 found[8][32];

static void collect(struct frame *frame)
{
    int me = cpu();
    for (u32 i = 0; i < 32; i++) {
        u64 taken = 0;
        __asm__ volatile("lock xchg %0, %1" : "+r"(taken), "+m"(flags_of(7)[i]) : : "memory");
        found[me][i] |= taken;
    }
    finish_interrupt(ending[frame->vector]);
}

static void enable(void) { synic_on(); sint(7, 0x57); }
static void disable(void) { wrmsr(SIEFP, 0); }

void test(void)
{
    u64 port = host(OP_EVENT_PORT, 7, 0, 0, 2048);
    section("refused");
    check("SynIC off", host(OP_SIGNAL, port, 0, 0, 0), 0x18);
    synic_on();
    check("masked", host(OP_SIGNAL, port, 0, 0, 0), 0x18);
    sint(7, MASKED | POLLING | 0x57);
    check("masked and polling", host(OP_SIGNAL, port, 0, 0, 0), 0x18);
    sint(7, 0x57);
    wrmsr(SIEFP, (u64)sief_pages[0]);
    check("no page", host(OP_SIGNAL, port, 0, 0, 0), 0x18);
    wrmsr(SIEFP, (u64)sief_pages[0] | 1);
    check("flag beyond the port", host(OP_SIGNAL, port, 2048, 0, 0), 5);
    check("no connection", host(OP_SIGNAL, 99999, 0, 0, 0), 0x12);
    for (int i = 0; i < 32; i++)
        check("nothing was set", flags_of(7)[i], 0);

    section("flags");
    static const u16 numbers[] = { 0, 1, 7, 8, 63, 64, 1000, 2046, 2047 };
    for (u32 i = 0; i < sizeof numbers / 2; i++) {
        u32 f = numbers[i];
        forget();
        check("signal", host(OP_SIGNAL, port, f, 0, 0), 0);
        check("again", host(OP_SIGNAL, port, f, 0, 0), 0);
        spin(10);
        check("one interrupt", seen[0][0x57], 1);
        check("bit", flags_of(7)[f / 64], 1UL << f % 64);
        u32 *word = (u32 *)(sief_pages[0] + 7 * 256 + f / 32 * 4);
        __asm__ volatile("lock btrl %1, %0" : "+m"(*word) : "r"(f % 32) : "memory");
        check("only that one", flags_of(7)[f / 64], 0);
    }
    check("neighbours", flags_of(6)[31] | flags_of(8)[0], 0);

    section("base");
    u64 based = host(OP_EVENT_PORT, 7, 0, 100, 10);
    check("signal", host(OP_SIGNAL, based, 9, 0, 0), 0);
    check("absolute", flags_of(7)[1], 1UL << (109 - 64));
    check("beyond", host(OP_SIGNAL, based, 10, 0, 0), 5);
    flags_of(7)[1] = 0;

    section("polling");
    sint(7, POLLING);
    forget();
    check("signal", host(OP_SIGNAL, port, 5, 0, 0), 0);
    spin(10);
    check("bit", flags_of(7)[0], 32);
    check("no interrupt", total[0], 0);
    flags_of(7)[0] = 0;

    section("auto-EOI");
    sint(7, AUTO_EOI | 0x57), ending[0x57] = END_NONE;
    forget();
    for (u32 i = 0; i < 5; i++)
        host(OP_SIGNAL, port, i, 0, 0), spin(5);
    check("no EOI is owed", seen[0][0x57], 5);
    check("bits", flags_of(7)[0], 31);
    flags_of(7)[0] = 0;

    section("direct");
    check("newly", host(OP_SIGNAL_DIRECT, 0, 7, 3, 0), 1UL << 32);
    check("again", host(OP_SIGNAL_DIRECT, 0, 7, 3, 0), 0);
    flags_of(7)[0] = 0;
    sint(7, 0x57), ending[0x57] = END_MSR;

    section("the page moves");
    host(OP_SIGNAL, port, 77, 0, 0);
    wrmsr(SIEFP, (u64)sief_pages[3] | 1);
    check("its flags with it", ((u64 *)(sief_pages[3] + 7 * 256))[1], 1UL << 13);
    check("RAM is seen again", flags_of(7)[1], 0);
    wrmsr(SIEFP, (u64)sief_pages[0] | 1);
    flags_of(7)[1] = 0;

    section("any processor");
    for (int i = 0; i < processors; i++)
        run_on(i, enable);
    hooks[0x57] = collect;
    u64 any = host(OP_EVENT_PORT, 7, ANY_VP, 0, 2048);
    forget();
    host(OP_SIGNAL, any, 300, 0, 0);
    spin(50);
    check("one interrupt of all", seen[0][0x57] + seen[1][0x57] + seen[2][0x57] + seen[3][0x57], 1);
    for (int i = 0; i < processors; i++) {
        u64 one = host(OP_EVENT_PORT, 7, (u64)i, 0, 2048);
        forget();
        for (u32 f = 0; f < 2048; f += 3)
            check("signal", host(OP_SIGNAL, one, f, 0, 0), 0);
        spin(200);
        u32 right = 0;
        for (u32 f = 0; f < 2048; f++)
            right += (found[i][f / 64] >> f % 64 & 1) == (f % 3 == 0 || (f == 300));
        check("each flag where it belongs", right, 2048);
        TRUE("interrupts", seen[i][0x57] > 0);
        run_on(i, disable);
        check("off", host(OP_SIGNAL, one, 1, 0, 0), 0x18);
    }
    check("nobody", host(OP_SIGNAL, any, 1, 0, 0), 0x18);
}
