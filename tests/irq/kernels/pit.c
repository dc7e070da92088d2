/* 8254 and port 61h: read-back, latches, access, six modes of counter 2, OUT as IRQ 0, gate and speaker. */
#include "chips.h"

static void clocks(u32 n)                   /* at least n CLK pulses, by the TSC of 1 GHz */
{
    spin(n * 839);
}

static u32 count2(void) { return pit_read(2); }
static int out2(void) { return inb(0x61) >> 5 & 1; }
static void gate(int on) { outb(0x61, (u8)((inb(0x61) & 0x0C) | (on ? 1 : 0))); }

static void access(void)
{
    gate(1);
    pit_mode(0xB0, 0x8000);
    clocks(10);
    EQ("status: mode 0, both bytes, OUT low, loaded", pit_status(2), 0x30);
    outb(0x43, 0xB0);
    EQ("a control word: null count, OUT low", pit_status(2), 0x70);
    outb(0x42, 0x34);
    EQ("half a count", pit_status(2) & 0x40, 0x40);
    outb(0x42, 0x12);
    clocks(3);
    EQ("loaded", pit_status(2) & 0x40, 0);
    u32 a = count2();
    OK("counts down from 1234h", a <= 0x1234 && a > 0x1200);
    outb(0x43, 0x90);                       /* low byte only */
    outb(0x42, 0x80);
    clocks(4);
    a = inb(0x42);
    OK("low byte access", a < 0x80 && a > 0x60);
    outb(0x43, 0xA0);                       /* high byte only: the low one is 0 */
    outb(0x42, 0x10);
    clocks(4);
    EQ("high byte access", inb(0x42), 0x0F);
    EQ("status shows the access", pit_status(2) & 0x3F, 0x20);
    pit_mode(0xB4, 0x5000);
    clocks(4);
    outb(0x43, 0x80);                       /* latch */
    clocks(50);
    outb(0x43, 0x80);                       /* ignored: the first is not read */
    u32 low = inb(0x42), high = inb(0x42), latched = low | high << 8;
    OK("the first latch counts", latched <= 0x4FFE && latched > 0x4FE0);
    u32 now = count2();
    OK("then the running count", now < latched - 40);
    outb(0x43, 0xC8);                       /* read-back: count and status of counter 2 */
    EQ("status first", inb(0x42) & 0x3F, 0x34);
    low = inb(0x42); high = inb(0x42);
    OK("then the count", (low | high << 8) < 0x5000);
    outb(0x43, 0xCE);                       /* counters 0, 1 and 2 */
    (void)inb(0x40);
    (void)inb(0x41);
    EQ("read-back of all", inb(0x42) & 0x3F, 0x34);
    low = inb(0x40), low |= (u32)inb(0x40) << 8;
    low = inb(0x41);
    low = inb(0x42), high = inb(0x42);
    pit_mode(0xB5, 0x1000);                 /* BCD: 1000 */
    clocks(4);
    a = count2();
    OK("BCD", a <= 0x999 && a > 0x980 && (a & 0xF) <= 9);
}

static void modes(void)
{
    /* mode 0 */
    gate(1);
    pit_mode(0xB0, 100);
    EQ("mode 0: low", out2(), 0);
    clocks(95);
    EQ("still", out2(), 0);
    clocks(10);
    EQ("high behind the count", out2(), 1);
    OK("and wraps", count2() > 0xFF00);
    pit_mode(0xB0, 100);
    clocks(20);
    gate(0);
    u32 a = count2();
    clocks(50);
    EQ("gate stops it", count2(), a);
    EQ("OUT stays", out2(), 0);
    gate(1);
    clocks(100);
    EQ("goes on", out2(), 1);
    /* mode 1 */
    gate(0);
    pit_mode(0xB2, 50);
    EQ("mode 1: high", out2(), 1);
    clocks(60);
    EQ("until the gate rises", out2(), 1);
    gate(1);
    clocks(3);
    EQ("low", out2(), 0);
    clocks(30);
    gate(0); gate(1);
    clocks(30);
    EQ("retriggered", out2(), 0);
    clocks(30);
    EQ("high", out2(), 1);
    /* mode 2 */
    gate(1);
    pit_mode(0xB4, 100);
    EQ("mode 2: high", out2(), 1);
    int lows = 0;
    for (int i = 0; i < 30000; i++)
        lows += !out2();
    OK("low for one pulse of a hundred", lows > 0 && lows < 6000);
    gate(0);
    EQ("gate low: OUT high", out2(), 1);
    a = count2(); clocks(20);
    EQ("stands", count2(), a);
    gate(1); clocks(3);
    OK("reloads", count2() > 90);
    /* mode 3 */
    pit_mode(0xB6, 1000);
    clocks(400);
    EQ("mode 3: high half", out2(), 1);
    clocks(300);
    EQ("low half", out2(), 0);
    clocks(500);
    EQ("high again", out2(), 1);
    a = count2();
    EQ("counts by two", a & 1, 0);
    EQ("status: OUT and mode", pit_status(2), 0xB6);
    pit_mode(0xBE, 1000);                   /* mode 7 is 3 */
    EQ("mode 7", pit_status(2) & 0x0E, 0x0E & pit_status(2));
    /* mode 4 */
    pit_mode(0xB8, 50);
    EQ("mode 4: high", out2(), 1);
    clocks(30);
    EQ("high", out2(), 1);
    clocks(30);
    EQ("high behind the strobe", out2(), 1);
    /* mode 5 */
    gate(0);
    pit_mode(0xBA, 50);
    clocks(10);
    EQ("mode 5: waits for the gate", pit_status(2) & 0xC0, 0xC0);
    gate(1);
    clocks(3);
    EQ("loaded by it", pit_status(2) & 0x40, 0);
    clocks(100);
    EQ("high", out2(), 1);
}

static volatile u64 ticks[64];
static volatile u32 tick;
static void on_tick(struct frame *f) { (void)f; ticks[tick++ & 63] = rdtsc(); outb(0x20, 0x20); }

static void irq0(void)
{
    cli();
    pic_init(1);
    hooks[0x20] = on_tick;
    wr(LVT0, EXTINT);
    pit_mode(0x34, 1193);
    outb(0x21, 0xFE);
    tick = 0;
    sti();
    spin(21000000);
    cli();
    NEAR("21 ticks in 21 ms", tick, 21, 1);
    NEAR("1193 pulses", (ticks[15] - ticks[5]) / 10, 1193 * 838095 / 1000, 600);
    pit_mode(0x36, 2386);
    tick = 0;
    sti();
    spin(20500000);
    NEAR("mode 3: one a period", tick, 10, 1);
    pit_mode(0x30, 5000);
    tick = 0;
    spin(10000000);
    EQ("mode 0: one", tick, 1);
    outb(0x43, 0x34); outb(0x40, 0); outb(0x40, 0);
    tick = 0;
    clocks(65536 * 2 + 100);
    EQ("a count of 0 is 65536", tick >= 1 && tick <= 2, 1);
    outb(0x21, 0xFF);
    wr(LVT0, MASKED);
}

static void port_61(void)
{
    int changes = 0;
    u8 last = inb(0x61) & 0x10;
    for (int i = 0; i < 2000; i++) {
        u8 now = inb(0x61) & 0x10;
        changes += now != last;
        last = now;
    }
    OK("refresh toggle", changes > 0);
    outb(0x61, 3);
    EQ("gate and speaker read back", inb(0x61) & 0x0F, 3);
    outb(0x61, 0xFF);
    EQ("bits 7:6 are status", inb(0x61) & 0xC0, 0);
    outb(0x61, 0);
}

void test(void)
{
    sti();
    access();
    modes();
    irq0();
    port_61();
}
