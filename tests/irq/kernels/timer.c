/* SDM 3A 11.5.4: the timer's three modes, dividers, changes in flight. */
#include "kernel.h"

static u64 per_count(void)                  /* ticks of the TSC for 256 counts at a divider of 1 */
{
    wr(LVTT, MASKED | 0x60);
    wr(TDCR, 0xB);
    wr(TMICT, 0xFFFFFFFF);
    u64 start = rdtsc();
    u32 first = rd(TMCCT);
    spin(100000);
    u32 second = rd(TMCCT);
    return (rdtsc() - start) * 256 / (first - second);
}

static u64 unit;                            /* of 256 counts */

static void one_shot(void)
{
    cli(); forget();
    wr(LVTT, 0x60);
    wr(TMICT, 1000);
    u64 start = rdtsc();
    OK("counts", rd(TMCCT) <= 1000 && rd(TMCCT) > 0);
    sti();
    OK("one shot", wait_count(0, 0x60, 1));
    NEAR("in time", when[0] - start, unit * 1000 / 256, 60 + unit * 10 / 256);
    EQ("stays at 0", rd(TMCCT), 0);
    EQ("initial count is kept", rd(TMICT), 1000);
    spin(unit * 3000 / 256);
    EQ("once", taken[0][0x60], 1);
    wr(LVTT, PERIODIC | 0x60);
    spin(unit * 3000 / 256);
    EQ("periodic does not start it again", taken[0][0x60], 1);
    wr(LVTT, 0x60);
    wr(TMICT, 1000);
    wr(TMICT, 0);
    EQ("0 stops it", rd(TMCCT), 0);
    spin(unit * 3000 / 256);
    EQ("and no interrupt comes", taken[0][0x60], 1);
    wr(TMICT, 1000);
    spin(unit * 500 / 256);
    wr(TMICT, 1000);
    OK("a write starts over", rd(TMCCT) > 900);
    spin(unit * 700 / 256);
    EQ("not yet", taken[0][0x60], 1);
    spin(unit * 500 / 256);
    EQ("now", taken[0][0x60], 2);
    if (!x2apic_mode[0])
        wr(TMCCT, 77);
    EQ("current count is read-only", rd(TMCCT), 0);
}

static void periodic(void)
{
    forget();
    wr(LVTT, PERIODIC | 0x61);
    wr(TMICT, 1000);
    u64 start = rdtsc();
    wait_count(0, 0x61, 20);
    NEAR("twenty periods", when[0] - start, unit * 20000 / 256, 100 + unit * 10 / 256);
    OK("reloads", rd(TMCCT) > 0);
    wr(LVTT, 0x61);
    u32 n = taken[0][0x61];
    spin(unit * 1500 / 256);
    EQ("one-shot in flight ends it with one more", taken[0][0x61], n + 1);
    spin(unit * 3000 / 256);
    EQ("then it stands", taken[0][0x61], n + 1);
    wr(TMICT, 1000);
    wr(LVTT, PERIODIC | 0x61);
    n = taken[0][0x61];
    spin(unit * 3500 / 256);
    EQ("periodic in flight goes on", taken[0][0x61], n + 3);
    wr(TMICT, 500);
    n = taken[0][0x61];
    spin(unit * 2250 / 256);
    EQ("a new count is taken at once", taken[0][0x61], n + 4);
    wr(LVTT, PERIODIC | MASKED | 0x61);
    n = taken[0][0x61];
    spin(unit * 2000 / 256);
    EQ("masked", taken[0][0x61], n);
    OK("counts on", rd(TMCCT));
    wr(LVTT, PERIODIC | 0x61);
    EQ("an expiry while masked is lost", bit_of(IRR, 0x61), 0);
    spin(unit * 600 / 256);
    OK("and it goes on", taken[0][0x61] - n - 1 <= 1);
    wr(LVTT, PERIODIC | 0x62);
    forget();
    spin(unit * 1100 / 256);
    OK("a new vector", taken[0][0x62] >= 2 && !taken[0][0x61]);
    cli();
    spin(unit * 2100 / 256);
    forget();
    sti();
    spin(50);
    EQ("expiries merge", taken[0][0x62], 1);
    wr(TMICT, 0);
    wr(LVTT, MASKED);
}

static void dividers(void)
{
    static const u8 codes[] = {0xB, 0, 1, 2, 3, 8, 9, 0xA};
    for (int i = 0; i < 8; i++) {
        wr(LVTT, 0x63);
        wr(TDCR, codes[i]);
        EQ("divide configuration", rd(TDCR), codes[i]);
        forget();
        wr(TMICT, 200);
        u64 start = rdtsc();
        wait_count(0, 0x63, 1);
        NEAR("divider", when[0] - start, (unit * 200 << i) / 256, 60 + unit * (1u << i) / 256);
    }
    wr(TDCR, 0xB);
    wr(TMICT, 1000);
    wr(TDCR, 0);
    u32 first = rd(TMCCT);
    u64 start = rdtsc();
    forget();
    wait_count(0, 0x63, 1);
    NEAR("divider changed in flight", when[0] - start, unit * 2 * first / 256, 60 + unit * 10 / 256);
    wr(TDCR, 0xB);
}

static void deadline(void)
{
    u64 value;
    wr(TMICT, 0);
    wr(LVTT, 0x64);
    EQ("deadline MSR in another mode", wrmsr_fault(DEADLINE, rdtsc() + 1000), 256);
    EQ("reads 0", rdmsr_fault(DEADLINE, &value) * 0 + value, 0);
    wr(TMICT, 0x10000000);
    wr(LVTT, TSC_DEADLINE | 0x64);
    EQ("mode switch stops the count", rd(TMCCT), 0);
    wr(TMICT, 1000);
    EQ("initial count is ignored", rd(TMCCT), 0);
    forget();
    u64 target = rdtsc() + 20000;
    wrmsr(DEADLINE, target);
    EQ("armed", rdmsr(DEADLINE), target);
    OK("deadline", wait_count(0, 0x64, 1));
    OK("not early", when[0] >= target);
    NEAR("in time", when[0], target, 60);
    EQ("then reads 0", rdmsr(DEADLINE), 0);
    spin(30000);
    EQ("once", taken[0][0x64], 1);
    wrmsr(DEADLINE, 1);
    spin(100);
    EQ("past", taken[0][0x64], 2);
    wrmsr(DEADLINE, rdtsc() + 10000);
    wrmsr(DEADLINE, rdtsc() + 40000);
    spin(20000);
    EQ("rewritten", taken[0][0x64], 2);
    spin(30000);
    EQ("later", taken[0][0x64], 3);
    wrmsr(DEADLINE, rdtsc() + 10000);
    wrmsr(DEADLINE, 0);
    spin(20000);
    EQ("disarmed", taken[0][0x64], 3);
    wrmsr(DEADLINE, rdtsc() + 10000);
    wr(LVTT, 0x64);
    wr(LVTT, TSC_DEADLINE | 0x64);
    EQ("mode switch disarms", rdmsr(DEADLINE), 0);
    spin(20000);
    EQ("nothing", taken[0][0x64], 3);
    wrmsr(DEADLINE, rdtsc() + 10000);
    wr(LVTT, MASKED | TSC_DEADLINE | 0x64);
    spin(20000);
    EQ("masked", taken[0][0x64], 3);
    EQ("expired all the same", rdmsr(DEADLINE), 0);
    wr(LVTT, TSC_DEADLINE | 0x64);
    spin(1000);
    EQ("does not come later", taken[0][0x64], 3);
    wrmsr(DEADLINE, ~0UL);
    EQ("far away", rdmsr(DEADLINE), ~0UL);
    spin(1000);
    EQ("nothing yet", taken[0][0x64], 3);
    wrmsr(DEADLINE, 0);
    /* TSC written while armed: the deadline is a value of the TSC (11.5.4.1) */
    u64 tsc = rdtsc();
    wrmsr(DEADLINE, tsc + 1000000);
    wrmsr(0x10, tsc + 2000000);
    spin(100);
    EQ("TSC moved past it", taken[0][0x64], 4);
    tsc = rdtsc();
    wrmsr(DEADLINE, tsc + 1000000);
    wrmsr(0x3B, rdmsr(0x3B) + 2000000);
    spin(100);
    EQ("TSC_ADJUST moved past it", taken[0][0x64], 5);
    wr(LVTT, MASKED);
    cli();
    wr(LVTT, TSC_DEADLINE | 0x64);
    forget();
    wrmsr(DEADLINE, rdtsc() + 5000);
    __asm__ volatile("sti; hlt; cli" : : : "memory");
    EQ("wakes HLT", taken[0][0x64], 1);
    wr(SVR, 0xFF);
    wrmsr(DEADLINE, rdtsc() + 500);
    spin(1000);
    wr(SVR, 0x1FF);
    wr(LVTT, TSC_DEADLINE | 0x64);
    sti();
    spin(500);
    EQ("nothing while disabled", taken[0][0x64], 1);
    wr(LVTT, MASKED);
}

static void reserved_mode(void)
{
    if (x2apic_mode[0])
        return;
    wr(LVTT, 3 << 17 | 0x65);
    forget();
    wr(TMICT, 100);
    spin(unit * 500 / 256);
    note("interrupts of the reserved mode", taken[0][0x65]);
    wr(TMICT, 0);
    wr(LVTT, MASKED);
}

void test(void)
{
    sti();
    unit = per_count();
    note("TSC for 256 counts", unit);
    one_shot();
    periodic();
    dividers();
    deadline();
    reserved_mode();
    wrmsr(BASE, rdmsr(BASE) | X2);
    x2apic_mode[0] = 1;
    one_shot();
    periodic();
    dividers();
    deadline();
}
