/* What operating systems do at boot: calibrations, finding how the timer is wired, cleaning up after firmware. */
#include "chips.h"

static volatile u32 jiffies;
static void tick(struct frame *f)
{
    jiffies++;
    if (f->vector < 0x30)
        outb(0x20, 0x20);
    else
        eoi();
}

static int timer_works(void)
{
    u32 start = jiffies;
    sti();
    spin(10 * 4000000);
    cli();
    return jiffies - start > 4;
}

/* Channel 2 in mode 0 from FFFFh: the high byte is watched as it goes down. */
static int expect_high(u8 value, u64 *tsc, u64 *width)
{
    u64 before = 0, now = 0;
    int count;
    for (count = 0; count < 50000; count++) {
        (void)inb(0x42);
        if (inb(0x42) != value)
            break;
        before = now;
        now = rdtsc();
    }
    *width = rdtsc() - before;
    *tsc = now;
    return count > 5;
}

static void quick_calibration(void)
{
    u64 tsc = 0, later = 0, width, width2;
    outb(0x61, (u8)((inb(0x61) & ~2) | 1));
    outb(0x43, 0xB0);
    outb(0x42, 0xFF); outb(0x42, 0xFF);
    (void)inb(0x42); (void)inb(0x42);
    OK("high byte FFh", expect_high(0xFF, &tsc, &width));
    int i, good = 0;
    for (i = 1; i <= 233; i++) {
        if (!expect_high((u8)(0xFF - i), &later, &width2))
            break;
        if (width + width2 >= (later - tsc) >> 11)
            continue;
        good = 1;
        break;
    }
    OK("accurate to 500 ppm", good);
    u64 khz = (later - tsc) * 1193182 / (u64)(i * 256) / 1000;
    NEAR("TSC by the high byte of counter 2", khz, 1000000, 1500);
}

static u64 gated(u32 milliseconds)
{
    u32 latch = 1193182 / (1000 / milliseconds);
    outb(0x61, (u8)((inb(0x61) & ~2) | 1));
    outb(0x43, 0xB0);
    outb(0x42, (u8)latch); outb(0x42, (u8)(latch >> 8));
    u64 start = rdtsc();
    while (!(inb(0x61) & 0x20))
        ;
    return (rdtsc() - start) / milliseconds;
}

static u32 getit(void)                      /* BSD: a latched read of counter 0 */
{
    outb(0x43, 0);
    u32 low = inb(0x40);
    return low | (u32)inb(0x40) << 8;
}

static void delay(u32 clocks)
{
    u32 last = getit(), left = clocks;
    for (;;) {
        u32 now = getit(), gone = last >= now ? last - now : last + 11932 - now;
        last = now;
        if (gone >= left)
            return;
        left -= gone;
    }
}

static void calibrations(void)
{
    quick_calibration();
    NEAR("TSC by bit 5 of port 61h", gated(10), 1000000, 1000);
    NEAR("over 50 ms", gated(50), 1000000, 200);
    pit_mode(0x34, 11932);
    u64 start = rdtsc();
    wr(TDCR, 0xB);
    wr(LVTT, MASKED | 0xEF);
    wr(TMICT, 0xFFFFFFFF);
    u32 first = rd(TMCCT);
    delay(119318);
    u32 counts = first - rd(TMCCT);
    NEAR("100 ms of counter 0 by the TSC", rdtsc() - start, 100000000, 200000);
    NEAR("APIC timer by counter 0", counts, 20000000, 40000);
    /* by interrupts: jiffies of 4 ms */
    pic_init(1);
    hooks[0x20] = tick;
    wr(LVT0, EXTINT);
    pit_mode(0x34, 4773);
    outb(0x21, 0xFE);
    sti();
    u32 begin = jiffies;
    while (jiffies == begin)
        pause();
    begin = jiffies;
    first = rd(TMCCT);
    while (jiffies - begin < 25)
        pause();
    counts = first - rd(TMCCT);
    cli();
    NEAR("APIC timer over 25 ticks of 4 ms", counts, 20000000, 40000);
    outb(0x21, 0xFF);
    wr(LVT0, MASKED | EXTINT);
}

static void check_timer(void)
{
    hooks[0x30] = tick;
    for (int pin = 0; pin < 24; pin++)      /* firmware's traces */
        set_rte(pin, 0, MASKED);
    pic_init(3);                            /* AEOI for the way through the I/O APIC */
    outb(0x21, 0xFF);
    wr(LVT0, MASKED | EXTINT);
    pit_mode(0x34, 4773);
    set_rte(2, 0, 0x30);
    OK("timer at pin 2", timer_works());
    set_rte(2, 0, MASKED | 0x30);
    OK("not when masked", !timer_works());
    set_rte(0, 0, 0x30);
    OK("pin 0 is the 8259 pair: nothing while the timer is masked there", !timer_works());
    outb(0x21, 0xFE);
    hooks[0x30] = tick;
    set_rte(0, 0, 0x30);
    u32 start = jiffies;
    OK("as a fixed interrupt of INT, which falls with OUT of counter 0", timer_works());
    outb(0x21, 0xFF);
    set_rte(0, 0, MASKED);
    /* virtual wire: LINT0 as a fixed interrupt, then as ExtINT */
    pic_init(1);
    wr(LVT0, 0x30);
    outb(0x21, 0xFE);
    OK("LINT0 as a fixed interrupt", timer_works());
    outb(0x21, 0xFF);
    wr(LVT0, MASKED | 0x30);
    pic_init(1);
    wr(LVT0, EXTINT);
    outb(0x21, 0xFE);
    OK("LINT0 as ExtINT", timer_works());
    outb(0x21, 0xFF);
    wr(LVT0, MASKED);
    pic_init(1);
    set_rte(0, 0, EXTINT);
    outb(0x21, 0xFE);
    OK("pin 0 as ExtINT", timer_works());
    outb(0x21, 0xFF);
    set_rte(0, 0, MASKED);
    /* NMI watchdog of old: LINT0 as NMI */
    pic_init(1);
    forget();
    wr(LVT0, NMI);
    outb(0x21, 0xFE);
    spin(20000000);
    EQ("LINT0 as NMI, every 4 ms", taken[0][2], 5);
    outb(0x21, 0xFF);
    wr(LVT0, MASKED);
    pic_init(1);
    /* pin 2 while the processor sleeps */
    set_rte(2, 0, 0x30);
    start = jiffies;
    u64 begin = rdtsc();
    for (int i = 0; i < 10; i++)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    EQ("ten wakes", jiffies - start, 10);
    NEAR("of 4 ms", rdtsc() - begin, 40000000, 4100000);
    set_rte(2, 0, MASKED);
}

static void keep(struct frame *f) { (void)f; }

static void clean_up(void)
{
    /* what a crashed kernel left: requests and services */
    hooks[0x55] = hooks[0x91] = keep;
    cli();
    ipi(0, SELF | 0x55); sti(); spin(100);
    ipi(0, SELF | 0x91); spin(100);
    cli();
    ipi(0, SELF | 0x44); ipi(0, SELF | 0x33);
    wr(TPR, 0x10);
    hooks[0x55] = hooks[0x91] = 0;
    int queued = 1, rounds = 0;
    while (queued && rounds < 512) {
        queued = 0;
        for (u32 i = 0; i < 8; i++)
            queued |= rd(IRR + 16 * i) != 0;
        for (u32 i = 0; i < 8; i++) {
            u32 bits = rd(ISR + 16 * i);
            for (; bits; bits &= bits - 1) {
                eoi();
                rounds++;
            }
        }
        if (queued) {
            sti(); spin(50); cli();
        }
    }
    EQ("cleaned up", queued, 0);
    OK("PPR", rd(PPR) == 0x10);
    wr(TPR, 0);
    /* a maximal vector LVT error test and ESR as set up by kernels */
    wr(LVTE, 0xFE);
    wr(ESR, 0);
    EQ("no old errors", rd(ESR), 0);
    u32 version = rd(VERSION);
    wr(VERSION, version ^ 0xFF);
    EQ("version holds", rd(VERSION), version);
    wr(ESR, 0);
}

void test(void)
{
    calibrations();
    check_timer();
    clean_up();
}
