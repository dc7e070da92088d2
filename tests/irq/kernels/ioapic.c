/* 82093AA, with the EOI register of version 20h: window, entries, edges, levels, masks, destinations. */
#include "chips.h"

static volatile u32 in_handler_irr, in_handler_remote, in_handler_tmr, again;
static int quiet_after, quiet_pin;

static void registers(void)
{
    u32 version = io_read(1);
    EQ("24 entries", version >> 16 & 0xFF, 23);
    OK("version", (version & 0xFF) == 0x11 || (version & 0xFF) == 0x20);
    *ioapic(0) = 0x1F;
    EQ("index register", *ioapic(0) & 0xFF, 0x1F);
    io_write(0, 0xFFFFFFFF);
    EQ("id has four bits", io_read(0), 0x0F000000);
    EQ("arbitration id is loaded with it", io_read(2), 0x0F000000);
    io_write(0, 0);
    io_write(1, 0);
    EQ("version is read-only", io_read(1), version);
    for (int pin = 0; pin < 24; pin++) {
        io_write(0x10 + 2 * (u32)pin, MASKED | 0xFE | REMOTE | PENDING);
        EQ("status and remote IRR are read-only", rte(pin), MASKED | 0xFE);
        io_write(0x11 + 2 * (u32)pin, 0xFFFFFFFF);
        EQ("destination", io_read(0x11 + 2 * (u32)pin) >> 24, 0xFF);
        io_write(0x10 + 2 * (u32)pin, 0xFFFFFFFF & ~0x700u);
        EQ("bits of an entry", rte(pin), 0x1A8FF);
        io_write(0x10 + 2 * (u32)pin, MASKED);
        io_write(0x11 + 2 * (u32)pin, 0);
    }
    EQ("an index behind the entries", io_read(0x40) == 0 || io_read(0x40) == 0xFFFFFFFF, 1);
}

static void edges(void)
{
    forget();
    set_rte(5, 0, 0x50);
    line(5, 1); spin(500);
    EQ("edge", taken[0][0x50], 1);
    spin(500);
    EQ("once", taken[0][0x50], 1);
    line(5, 0); spin(500);
    EQ("not by the falling edge", taken[0][0x50], 1);
    EQ("no remote IRR", rte(5), 0x50);
    set_rte(5, 0, MASKED | 0x50);
    line(5, 1);
    set_rte(5, 0, 0x50);
    spin(500);
    EQ("an edge while masked is lost", taken[0][0x50], 1);
    line(5, 0); line(5, 1); spin(500);
    EQ("the next one comes", taken[0][0x50], 2);
    line(5, 0);
    cli();
    line(5, 1); line(5, 0); line(5, 1); line(5, 0);
    EQ("requested", bit_of(IRR, 0x50), 1);
    EQ("edge in TMR", bit_of(TMR, 0x50), 0);
    sti(); spin(500);
    EQ("edges merge in IRR", taken[0][0x50], 3);
    set_rte(5, 0, LOW | 0x50);              /* with the line low: active */
    spin(500);
    forget();
    line(5, 1); spin(500);
    EQ("active low: not by the rising edge", taken[0][0x50], 0);
    line(5, 0); spin(500);
    EQ("but the falling one", taken[0][0x50], 1);
    set_rte(5, 0, MASKED);
}

static void level_handler(struct frame *f)
{
    in_handler_remote = rte(quiet_pin);
    in_handler_tmr = (u32)bit_of(TMR, (int)f->vector);
    again++;
    if (quiet_after && --quiet_after == 0)
        line(quiet_pin, 0);
    eoi();
}

static void levels(void)
{
    hooks[0x51] = level_handler;
    forget();
    quiet_pin = 6; quiet_after = 1;
    set_rte(6, 0, LEVEL | 0x51);
    line(6, 1); spin(500);
    EQ("level, quiet before EOI", taken[0][0x51], 1);
    EQ("remote IRR in the handler", in_handler_remote & REMOTE, REMOTE);
    EQ("TMR in the handler", in_handler_tmr, 1);
    EQ("remote IRR behind it", rte(6), LEVEL | 0x51);
    quiet_after = 3; forget();
    line(6, 1); spin(500);
    EQ("again for as long as it is asserted", taken[0][0x51], 3);
    cli(); forget(); quiet_after = 0;
    line(6, 1); line(6, 0);
    EQ("requested", bit_of(IRR, 0x51), 1);
    sti(); spin(500);
    EQ("a level that was accepted comes though it is gone", taken[0][0x51], 1);
    cli(); forget();
    line(6, 1); line(6, 0); line(6, 1);
    quiet_after = 1;
    sti(); spin(500);
    EQ("one", taken[0][0x51], 1);
    /* masks */
    set_rte(6, 0, MASKED | LEVEL | 0x51);
    line(6, 1); forget(); spin(300);
    EQ("masked level", taken[0][0x51], 0);
    quiet_after = 1;
    io_write(0x1C, LEVEL | 0x51); spin(300);
    EQ("comes when it is unmasked", taken[0][0x51], 1);
    io_write(0x1C, MASKED | LEVEL | 0x51);
    line(6, 1); line(6, 0);
    io_write(0x1C, LEVEL | 0x51); forget(); spin(300);
    EQ("a level that came and went while masked leaves nothing", taken[0][0x51], 0);
    /* mask in the handler, EOI, unmask: as Linux does for threaded interrupts */
    cli(); forget(); quiet_after = 0;
    line(6, 1);
    io_write(0x1C, MASKED | LEVEL | 0x51);
    EQ("a mask leaves remote IRR", rte(6), MASKED | LEVEL | REMOTE | 0x51);
    sti(); spin(300);
    EQ("accepted before the mask", taken[0][0x51], 1);
    EQ("no more while masked; remote IRR ended by EOI", rte(6), MASKED | LEVEL | 0x51);
    quiet_after = 1;
    io_write(0x1C, LEVEL | 0x51); spin(300);
    EQ("unmasked with the line asserted", taken[0][0x51], 2);
    /* active low */
    set_rte(6, 0, MASKED);
    line(6, 1);
    set_rte(6, 0, LEVEL | LOW | 0x51); spin(300);
    forget(); quiet_after = 0;
    hooks[0x51] = 0;
    cli(); line(6, 0); EQ("active low", bit_of(IRR, 0x51), 1);
    line(6, 1); sti(); spin(300);
    EQ("once", taken[0][0x51], 1);
    set_rte(6, 0, MASKED);
    line(6, 0);
}

static void keep(struct frame *f) { (void)f; }

static void ends(void)
{
    /* The EOI register, an EOI for another vector, entries that share a vector, suppressed broadcasts */
    hooks[0x52] = keep;
    forget();
    set_rte(7, 0, LEVEL | 0x52);
    line(7, 1); spin(300);
    EQ("one, not ended", taken[0][0x52], 1);
    *ioapic(0x40) = 0x53;
    EQ("EOI register, another vector", rte(7) & REMOTE, REMOTE);
    line(7, 0);
    *ioapic(0x40) = 0x52;
    EQ("EOI register", rte(7) & REMOTE, 0);
    EQ("is none of the local APIC's", bit_of(ISR, 0x52), 1);
    eoi();
    hooks[0x52] = 0;
    if (rd(VERSION) >> 24 & 1) {
        wr(SVR, 0x11FF);
        forget();
        line(7, 1); spin(300);
        EQ("suppressed broadcast: once", taken[0][0x52], 1);
        EQ("ended in the local APIC", bit_of(ISR, 0x52), 0);
        EQ("not in the I/O APIC", rte(7) & REMOTE, REMOTE);
        line(7, 0);
        *ioapic(0x40) = 0x52;
        EQ("until its EOI register", rte(7) & REMOTE, 0);
        line(7, 1); spin(300);
        EQ("and again", taken[0][0x52], 2);
        line(7, 0);
        *ioapic(0x40) = 0x52;
        wr(SVR, 0x1FF);
    }
    /* two pins of one vector */
    forget(); cli();
    set_rte(8, 0, LEVEL | 0x52);
    line(7, 1); line(8, 1);
    EQ("both remote", (rte(7) & rte(8)) & REMOTE, REMOTE);
    line(7, 0); line(8, 0);
    sti(); spin(300);
    EQ("one for both", taken[0][0x52], 1);
    EQ("one EOI for both", (rte(7) | rte(8)) & REMOTE, 0);
    set_rte(8, 0, MASKED);
    /* TMR follows what was accepted last (11.8.4): an edge takes the broadcast from a level in service */
    hooks[0x52] = keep;
    forget();
    line(7, 1); spin(100); line(7, 0);
    EQ("level in TMR", bit_of(TMR, 0x52), 1);
    cli();
    ipi(0, SELF | 0x52);
    EQ("an edge clears TMR", bit_of(TMR, 0x52), 0);
    hooks[0x52] = 0;
    eoi();
    sti(); spin(300);
    EQ("both were taken", taken[0][0x52], 2);
    EQ("then nothing tells the I/O APIC", rte(7) & REMOTE, REMOTE);
    set_rte(7, 0, MASKED | 0x52);           /* the way of old kernels: edge, then level */
    EQ("edge clears remote IRR", rte(7) & REMOTE, 0);
    hooks[0x52] = level_handler;
    quiet_pin = 7; quiet_after = 2;
    forget();
    set_rte(7, 0, LEVEL | 0x52);
    line(7, 1); spin(200);
    EQ("works again", taken[0][0x52], 2);
    set_rte(7, 0, MASKED);
    hooks[0x52] = 0;
}

static volatile u32 nested[4], nested_at;
static void nest(struct frame *f)
{
    nested[nested_at++ & 3] = (u32)f->vector;
    line((int)f->vector == 0x61 ? 9 : 10, 0);
    sti();
    spin(200);
    cli();
    eoi();
}

static void simultaneous(void)
{
    hooks[0x61] = hooks[0x81] = nest;
    set_rte(9, 0, LEVEL | 0x61);
    set_rte(10, 0, LEVEL | 0x81);
    cli(); forget();
    line(9, 1); line(10, 1);
    sti(); spin(1000);
    EQ("both", taken[0][0x61] + taken[0][0x81], 2);
    EQ("the higher vector first", nested[0], 0x81);
    set_rte(9, 0, MASKED); set_rte(10, 0, MASKED);
    hooks[0x61] = hooks[0x81] = 0;
}

static void modes(void)
{
    forget();
    set_rte(11, 0, NMI | 0x33);
    line(11, 1); spin(300); line(11, 0);
    EQ("NMI", taken[0][2], 1);
    set_rte(11, 0, 2 << 8);
    line(11, 1); spin(300); line(11, 0);
    set_rte(11, 0xFFu << 24, 0x54);
    forget();
    line(11, 1); spin(300); line(11, 0);
    EQ("physical FFh", taken[0][0x54], 1);
    set_rte(11, 9u << 24, 0x54);
    forget();
    line(11, 1); spin(300); line(11, 0);
    EQ("physical, nobody", taken[0][0x54], 0);
    EQ("an edge that nobody takes leaves no status", rte(11), 0x54);
    wr(ESR, 0);
    set_rte(11, 0, 0x05);
    line(11, 1); spin(300); line(11, 0);
    wr(ESR, 0);
    EQ("received an illegal vector", rd(ESR) & 0x60, 0x40);
    EQ("and no interrupt", taken[0][5], 0);
    set_rte(11, 0, MASKED);
    /* the line itself: pin 2 is OUT of the timer */
    hooks[0x55] = 0;
    outb(0x43, 0x30);                       /* mode 0: OUT is low */
    set_rte(2, 0, 0x55);
    forget();
    outb(0x43, 0x34);                       /* mode 2: high */
    spin(300);
    EQ("OUT of counter 0 is pin 2", taken[0][0x55], 1);
    set_rte(2, 0, MASKED);
}

static void set_logical(void) { wr(LDR, 1u << cpu() << 24); }
static void raise(void) { wr(TPR, 0x70); }
static void lower(void) { wr(TPR, 0); }

static u32 who(u32 high, u32 low)
{
    u32 got = 0;
    forget();
    set_rte(12, high << 24, low);
    line(12, 1); spin(20000); line(12, 0); spin(5000);
    for (int i = 0; i < processors; i++)
        got |= taken[i][low & 0xFF] << (4 * i);
    set_rte(12, 0, MASKED);
    return got;
}

static volatile u32 level_hits;
static void far_level(struct frame *f) { (void)f; if (++level_hits == 5) line(12, 0); eoi(); }

static void destinations(void)
{
    run_everywhere(set_logical);
    EQ("physical 2", who(2, 0x90), 0x0100);
    EQ("logical 1010", who(0xA, LOGICAL | 0x91), 0x1010);
    EQ("lowest priority", who(0xC, LOGICAL | LOWEST | 0x92), 0x0100);
    run_on(2, raise);
    EQ("lowest priority by TPR", who(0xC, LOGICAL | LOWEST | 0x92), 0x1000);
    run_on(2, lower);
    EQ("broadcast", who(0xFF, 0x93), 0x1111);
    EQ("logical nobody", who(0xF0, LOGICAL | 0x94), 0);
    hooks[0x95] = far_level;
    set_rte(12, 3u << 24, LEVEL | 0x95);
    forget();
    line(12, 1); spin(50000);
    EQ("level on another processor", taken[3][0x95], 5);
    EQ("ended", rte(12) & REMOTE, 0);
    level_hits = 0;
    set_rte(12, 0xAu << 24, LEVEL | LOGICAL | LOWEST | 0x95);
    forget();
    line(12, 1); spin(50000);
    EQ("lowest priority level", taken[1][0x95] + taken[3][0x95], 5);
    EQ("ended", rte(12) & REMOTE, 0);
    set_rte(12, 0, MASKED);
}

void test(void)
{
    sti();
    registers();
    edges();
    levels();
    ends();
    simultaneous();
    modes();
    if (processors >= 4)
        destinations();
    wrmsr(BASE, rdmsr(BASE) | X2);
    x2apic_mode[0] = 1;
    edges();
    levels();
    ends();
}
