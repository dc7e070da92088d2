/* Reference time (9.6): the counter, the page, frequencies, TSC, and what they have to do with each other. */
#include "synic.h"

struct page { volatile u32 sequence, reserved; volatile u64 scale; volatile i64 offset; };
static u8 page_at[4096] __attribute__((aligned(4096)));

static u64 by_page(void)
{
    struct page *page = (struct page *)page_at;
    for (;;) {
        u32 sequence = page->sequence;
        if (!sequence)
            return 0;
        u64 scaled = (u64)((unsigned __int128)rdtsc() * page->scale >> 64) + (u64)page->offset;
        if (page->sequence == sequence)
            return scaled;
    }
}

static volatile u64 last;
static volatile u32 lock, backwards, rounds;

static void race(void)
{
    for (int i = 0; i < 300; i++) {
        while (__sync_lock_test_and_set(&lock, 1))
            pause();
        u64 t = now();
        if (t <= last)
            backwards++;
        last = t;
        __sync_lock_release(&lock);
    }
    __sync_fetch_and_add(&rounds, 1);
}

void test(void)
{
    section("counter");
    u64 a = now(), b = now();
    TRUE("strictly monotonic", b > a);
    check("write", write_faults(TIME_REF_COUNT, 0), 13);
    u64 hz = rdmsr(TSC_FREQUENCY);
    check("write", write_faults(TSC_FREQUENCY, hz), 13);
    check("write", write_faults(APIC_FREQUENCY, 1), 13);
    TRUE("APIC", rdmsr(APIC_FREQUENCY) > 0);
    u64 t0 = now(), c0 = rdtsc();
    spin(20000);
    u64 t1 = now(), c1 = rdtsc();
    between("TSC per reference time, Hz", (c1 - c0) * 10000000 / (t1 - t0), hz - hz / 1000, hz + hz / 1000);
    check("write VP_INDEX", write_faults(VP_INDEX, 0), 13);
    check("write VP_RUNTIME", write_faults(VP_RUNTIME, 0), 13);

    section("page");
    check("reset", rdmsr(REFERENCE_TSC), 0);
    page_at[0] = 0xAA;
    wrmsr(REFERENCE_TSC, (u64)page_at | 0xF01);
    check("reserved bits are kept", rdmsr(REFERENCE_TSC), (u64)page_at | 0xF01);
    struct page *page = (struct page *)page_at;
    TRUE("valid", page->sequence != 0 && page->sequence != 0xFFFFFFFF);
    check("reserved", page->reserved, 0);
    unsigned __int128 whole = (unsigned __int128)10000000 << 64;
    u64 low = 0, rest = 0;                      /* (10^7 << 64) / hz by long division */
    for (int i = 127; i >= 0; i--) {
        rest = rest << 1 | (u64)(whole >> i & 1);
        low <<= 1;
        if (rest >= hz)
            rest -= hz, low |= 1;
    }
    check("scale", page->scale, low);
    u32 wrong = 0;
    for (int i = 0; i < 1000; i++) {
        u64 first = by_page(), counter = now(), second = by_page();
        wrong += counter < first || counter > second + 1;
    }
    check("page and counter agree", wrong, 0);
    wrmsr(REFERENCE_TSC, (u64)page_at);
    check("off: RAM is seen again", page_at[0], 0xAA);
    wrmsr(REFERENCE_TSC, 1UL << 60 | 1);
    check("beyond the space: accepted", rdmsr(REFERENCE_TSC), 1UL << 60 | 1);
    wrmsr(REFERENCE_TSC, (u64)page_at | 1);

    section("the TSC is moved");
    u32 sequence = page->sequence;
    u64 before = now();
    wrmsr(0x10, rdtsc() + 50000000);
    u64 after = now();
    between("reference time is not", after - before, 1, 100);
    if (processors == 1) {
        TRUE("another relation", page->sequence != sequence && page->sequence);
        between("page", by_page(), after, after + 100);
    } else
        check("processors differ: invalid", page->sequence, 0);
    wrmsr(0x3B, 0);
    after = now();
    TRUE("moved back: valid", page->sequence != 0);
    between("page", by_page(), after, after + 100);
    between("no jump", after - before, 1, 200);

    section("the TSC starts over");
    before = now();
    wrmsr(0x10, -20000UL);
    check("a page that would not last", page->sequence, 0);
    spin(300);
    TRUE("TSC", rdtsc() < 1000000000);
    between("reference time goes on", now() - before, 300, 420);
    wrmsr(0x3B, 0);
    TRUE("valid again", page->sequence != 0);
    between("no jump", now() - before, 301, 440);

    section("freeze");
    host(OP_FREEZE, 1, 0, 0, 0);
    check("sequence", page->sequence, 0);
    a = now();
    u64 tsc = rdtsc();
    while (rdtsc() - tsc < 10000)
        pause();
    between("stands, and every read gives more", now() - a, 1, 2);
    host(OP_FREEZE, 0, 0, 0, 0);
    TRUE("sequence", page->sequence != 0);
    b = now();
    between("no jump", b - a, 1, 30);
    between("page", by_page(), b, b + 50);

    section("several processors");
    for (int i = 1; i < processors; i++)
        start_on(i, race);
    race();
    for (int i = 1; i < processors; i++)
        wait_on(i);
    check("all took part", rounds, (u64)processors);
    check("never backwards", backwards, 0);

    section("idle");
    a = now(), c0 = rdtsc();
    u64 run = rdmsr(VP_RUNTIME);
    wrmsr(STIMER0 + 1, a + 100000), wrmsr(STIMER0, T_DIRECT | T_VECTOR(0x60) | T_ENABLE);
    cli();
    (void)rdmsr(GUEST_IDLE);
    between("idle until the timer, with IF=0", now(), a + 100000, a + 100010);
    check("the interrupt waits", seen[0][0x60], 0);
    sti();
    check("and comes", seen[0][0x60], 1);
    TRUE("run time does not count it", rdmsr(VP_RUNTIME) - run < 1000);
    between("TSC goes on", rdtsc() - c0, hz / 100, hz / 100 + hz / 1000);
    check("writing GUEST_IDLE", write_faults(GUEST_IDLE, 0), 13);
}
