/* 8259A: initialization, masks, priorities, cascade, ends of interrupts, rotation, polling,
   special mask, ELCR, spurious. */
#include "chips.h"

static u8 seen_isr[16], seen_slave[16];
static int hold;                            /* the handler sends no EOI */
static void handler(struct frame *f)
{
    int irq = (int)f->vector - 0x20;
    seen_isr[irq & 15] = pic_isr(0x20);
    seen_slave[irq & 15] = pic_isr(0xA0);
    if (hold)
        return;
    if (irq >= 8)
        outb(0xA0, 0x20);
    outb(0x20, 0x20);
}

static void pulse(int pin) { line(pin, 1); line(pin, 0); }
static void idle(void) { spin(300); }

static void start(u8 icw4, u8 master, u8 slave)
{
    cli();
    pic_init(icw4);
    for (int pin = 1; pin < 16; pin++)
        if (pin != 2)
            line(pin, 0);
    outb(0x21, master); outb(0xA1, slave);
    hold = 0;
    forget();
    sti();
}

static void initialization(void)
{
    start(1, 0xFF, 0xFF);
    outb(0x21, 0xA5);
    EQ("IMR", inb(0x21), 0xA5);
    outb(0xA1, 0x5A);
    EQ("IMR of the slave", inb(0xA1), 0x5A);
    outb(0x20, 0x11); outb(0x21, 0x20); outb(0x21, 4); outb(0x21, 1);
    EQ("ICW1 clears IMR", inb(0x21), 0);
    outb(0x21, 0xFF);
    EQ("IRR after it: the timer's line at most", pic_irr(0x20) & 0xFE, 0);
    EQ("ISR", pic_isr(0x20), 0);
}

static void edges(void)
{
    start(1, 0xF7, 0xFF);
    line(3, 1); idle();
    EQ("IRQ 3", taken[0][0x23], 1);
    EQ("ISR in its handler", seen_isr[3], 8);
    EQ("not again for a high line", taken[0][0x23], 1);
    line(3, 0); line(3, 1); idle();
    EQ("the next edge", taken[0][0x23], 2);
    line(3, 0);
    outb(0x21, 0xFF);
    line(3, 1);
    EQ("IRR while masked", pic_irr(0x20) & 8, 8);
    idle();
    EQ("masked", taken[0][0x23], 2);
    outb(0x21, 0xF7); idle();
    EQ("comes when unmasked, the line is still high", taken[0][0x23], 3);
    line(3, 0);
    outb(0x21, 0xFF); pulse(3);
    EQ("the line fell: no request", pic_irr(0x20) & 8, 0);
    outb(0x21, 0xF7); idle();
    EQ("nothing", taken[0][0x23], 3);
    start(1, 0xFB, 0xFD);
    line(9, 1); idle();
    EQ("IRQ 9 by the cascade", taken[0][0x29], 1);
    EQ("ISR of the master: input 2", seen_isr[9], 4);
    EQ("ISR of the slave", seen_slave[9], 2);
    start(1, 0xFF, 0xFD);
    line(9, 1); idle();
    EQ("cascade masked", taken[0][0x29], 0);
    EQ("IRR of the master", pic_irr(0x20) & 4, 4);
    line(9, 0);
}

static void priorities(void)
{
    start(1, 0x00 | 1, 0);
    cli();
    line(7, 1); line(1, 1); line(14, 1); line(8, 1); line(5, 1); line(3, 1);
    sti(); idle();
    static const u8 want[] = {0x21, 0x28, 0x2E, 0x23, 0x25, 0x27};
    for (int i = 0; i < 6; i++)
        EQ("order", order[0][i], want[i]);
    start(1, 1, 0);
    hold = 1;
    line(5, 1); idle();
    EQ("5 in service", pic_isr(0x20), 0x20);
    line(6, 1); idle();
    EQ("6 waits", taken[0][0x26], 0);
    line(3, 1); idle();
    EQ("3 preempts", pic_isr(0x20), 0x28);
    outb(0x20, 0x20);
    EQ("non-specific EOI ends the highest", pic_isr(0x20), 0x20);
    line(3, 0);
    outb(0x20, 0x65); idle();
    EQ("specific EOI: 6 comes", taken[0][0x26], 1);
    outb(0x20, 0x61);
    EQ("specific EOI of another", pic_isr(0x20), 0x40);
    outb(0x20, 0x66);
    EQ("of it", pic_isr(0x20), 0);
    start(1, 0xFB, 0);
    hold = 1;
    line(12, 1); idle();
    line(9, 1); idle();
    EQ("fully nested: the slave's better request waits at the master", taken[0][0x29], 0);
    outb(0x20, 0x20); idle();
    EQ("until the master's EOI", taken[0][0x29], 1);
    outb(0xA0, 0x20); outb(0x20, 0x20);
    EQ("slave", pic_isr(0xA0), 0x10);
    outb(0xA0, 0x20);
    start(0x11, 0xFB, 0);
    hold = 1;
    line(12, 1); idle();
    line(9, 1); idle();
    EQ("special fully nested mode lets it in", taken[0][0x29], 1);
    outb(0xA0, 0x20); outb(0xA0, 0x20); outb(0x20, 0x20);
    EQ("ended", pic_isr(0xA0) | pic_isr(0x20), 0);
}

static void rotation(void)
{
    start(1, 1, 0);
    outb(0x20, 0xC4);                       /* set priority: 4 is lowest, 5 highest */
    cli();
    line(1, 1); line(5, 1); line(4, 1); line(6, 1);
    sti(); idle();
    static const u8 want[] = {0x25, 0x26, 0x21, 0x24};
    for (int i = 0; i < 4; i++)
        EQ("set priority", order[0][i], want[i]);
    start(1, 1, 0);
    hold = 1;
    line(3, 1); idle();
    outb(0x20, 0xA0);                       /* rotate on non-specific EOI: 3 becomes lowest */
    hold = 0;
    EQ("ended", pic_isr(0x20), 0);
    cli();
    line(3, 0); line(3, 1); line(4, 1); line(1, 1);
    sti(); idle();
    EQ("rotation: 4 first", order[0][1], 0x24);
    EQ("then 1", order[0][2], 0x21);
    EQ("3 last", order[0][3], 0x23);
    outb(0x20, 0xE1);                       /* rotate on specific EOI */
    cli(); forget();
    line(1, 0); line(4, 0); line(1, 1); line(4, 1);
    sti(); idle();
    EQ("rotate on specific EOI", order[0][0], 0x24);
    outb(0x20, 0xC7);
}

static void automatic(void)
{
    start(3, 1, 0);
    hold = 1;
    line(3, 1); idle();
    EQ("AEOI: nothing in service in the handler", seen_isr[3], 0);
    line(3, 0); line(3, 1); idle();
    EQ("again without an EOI", taken[0][0x23], 2);
    outb(0x20, 0x80);                       /* rotate in AEOI mode */
    line(3, 0); line(3, 1); idle();
    cli(); forget();
    line(3, 0); line(3, 1); line(4, 1);
    sti(); idle();
    EQ("rotation in AEOI", order[0][0], 0x24);
    outb(0x20, 0x00);
}

static void special(void)
{
    start(1, 1, 0);
    hold = 1;
    line(3, 1); idle();
    line(5, 1); idle();
    EQ("5 waits behind 3", taken[0][0x25], 0);
    outb(0x21, 0x09);
    outb(0x20, 0x68); idle();
    EQ("special mask: a masked one in service holds nobody", taken[0][0x25], 1);
    EQ("both in service", pic_isr(0x20), 0x28);
    outb(0x20, 0x65); outb(0x20, 0x63);
    outb(0x20, 0x48);
    EQ("ended", pic_isr(0x20), 0);
}

static void polling(void)
{
    start(1, 0xF7, 0xFF);
    cli();
    outb(0x20, 0x0C);
    EQ("poll, nothing", inb(0x20) & 0x80, 0);
    line(3, 1);
    outb(0x20, 0x0C);
    EQ("poll", inb(0x20) & 0x87, 0x83);
    EQ("it acknowledges", pic_isr(0x20), 8);
    EQ("IRR", pic_irr(0x20) & 8, 0);
    outb(0x20, 0x20);
    sti(); idle();
    EQ("no interrupt", taken[0][0x23], 0);
    outb(0x20, 0x0B);
    EQ("reads go back to ISR", inb(0x20), 0);
}

static void spurious(void)
{
    /* IRQ 3 withdrawn before the acknowledge: with wires to LINT0 it is the request that goes; nothing remains */
    start(1, 1, 0);
    cli();
    line(3, 1); line(3, 0);
    sti(); idle();
    EQ("withdrawn: nothing, or the default input 7", taken[0][0x23], 0);
    EQ("no ISR bit", pic_isr(0x20), 0);
    note("spurious 7", taken[0][0x27]);
    if (taken[0][0x27])
        outb(0x20, 0x20);
}

static void levels(void)
{
    outb(0x4D0, 0xFF); outb(0x4D1, 0xFF);
    EQ("ELCR has no 0, 1, 2", inb(0x4D0), 0xF8);
    EQ("nor 8 and 13", inb(0x4D1), 0xDE);
    outb(0x4D0, 0x20); outb(0x4D1, 0);
    start(1, 0xDF, 0);
    cli();
    hold = 1;
    line(5, 1);
    sti(); idle();
    EQ("level", taken[0][0x25], 1);
    outb(0x20, 0x20); idle();
    EQ("again after EOI", taken[0][0x25], 2);
    line(5, 0);
    outb(0x20, 0x20); idle();
    EQ("quiet", taken[0][0x25], 2);
    line(5, 1); line(5, 0);
    outb(0x4D0, 0);
}

void test(void)
{
    sti();
    for (int v = 0x20; v < 0x30; v++)
        hooks[v] = handler;
    wr(LVT0, EXTINT);
    outb(0x43, 0x30);                       /* counter 0 quiet */
    initialization();
    edges();
    priorities();
    rotation();
    automatic();
    special();
    polling();
    spurious();
    levels();
    /* the same with the pair behind pin 0 of the I/O APIC, and with the APIC disabled: INTR itself */
    wr(LVT0, MASKED);
    set_rte(0, 0, EXTINT);
    edges();
    priorities();
    set_rte(0, 0, MASKED);
    wrmsr(BASE, rdmsr(BASE) & ~ENABLE);
    edges();
    priorities();
    automatic();
    start(1, 0xFF, 0xFF);
}
