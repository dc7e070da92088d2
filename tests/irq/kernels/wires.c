/* ExtINT beside the APIC's own interrupts, LINT0 in its modes, pins of the I/O APIC under changing entries. */
#include "chips.h"

static volatile u32 seen_ppr, seen_isr, at;
static volatile u64 rips[8];
static void isa(struct frame *f)            /* of the 8259: no EOI for the APIC */
{
    rips[at++ & 7] = f->rip;
    seen_ppr = rd(PPR);
    seen_isr = (u32)bit_of(ISR, (int)f->vector);
    outb(0x20, 0x20);
}
static void off(int pin) { line(pin, 0); }

static void extint(void)
{
    u64 label;
    cli();
    pic_init(1);
    outb(0x21, 0xF7);
    hooks[0x23] = isa;
    wr(LVT0, EXTINT | 0x99);
    forget(); at = 0;
    wr(TPR, 0xFF);
    line(3, 1);
    EQ("nothing in IRR", bit_of(IRR, 0x23) | bit_of(IRR, 0x99), 0);
    __asm__ volatile("sti\n nop\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("ExtINT asks no priority", taken[0][0x23], 1);
    EQ("behind the shadow of STI", rips[0], label);
    EQ("its vector is the 8259's, not the entry's", taken[0][0x99], 0);
    EQ("not in service in the APIC", seen_isr, 0);
    EQ("PPR is TPR", seen_ppr, 0xFF);
    wr(TPR, 0);
    off(3); cli(); forget();
    /* both: ExtINT first, then the APIC's */
    line(3, 1);
    ipi(0, SELF | 0xF0);
    sti(); spin(200); cli();
    EQ("both", total[0], 2);
    EQ("ExtINT first", order[0][0], 0x23);
    off(3);
    /* masked at LINT0, then unmasked with INTR high */
    wr(LVT0, MASKED | EXTINT);
    line(3, 1); forget();
    sti(); spin(200);
    EQ("masked", total[0], 0);
    wr(LVT0, EXTINT);
    spin(200); cli();
    EQ("INTR is a level: comes with the mask gone", taken[0][0x23], 1);
    off(3);
    /* software-disabling masks LINT0 */
    wr(SVR, 0xFF);
    line(3, 1); forget();
    sti(); spin(200); cli();
    EQ("a disabled APIC lets no ExtINT through", total[0], 0);
    EQ("for its mask is set", rd(LVT0), MASKED | EXTINT);
    wr(SVR, 0x1FF);
    off(3);
    /* ExtINT wakes HLT whatever TPR says */
    wr(LVT0, EXTINT);
    wr(TPR, 0xFF);
    forget();
    pit_mode(0x30, 50);
    outb(0x21, 0xFE);
    hooks[0x20] = isa;
    __asm__ volatile("sti; hlt; cli" : : : "memory");
    EQ("wakes HLT", taken[0][0x20], 1);
    wr(TPR, 0);
    outb(0x21, 0xFF);
    wr(LVT0, MASKED);
}

static u32 ends;
static void lint(struct frame *f)
{
    (void)f;
    seen_isr = rd(LVT0);
    if (++ends == 3) {                      /* quiet: the 8259 takes its request back */
        outb(0x21, 0xFF);
    }
    eoi();
}

static void lint0(void)
{
    /* LINT0 as an interrupt of the APIC: an edge of INT, or a level for as long as INT is high */
    cli();
    pic_init(1);
    outb(0x21, 0xF7);
    hooks[0x71] = lint;
    forget(); ends = 0;
    wr(LVT0, 0x71);
    line(3, 1);
    EQ("edge: in IRR", bit_of(IRR, 0x71), 1);
    EQ("an edge in TMR", bit_of(TMR, 0x71), 0);
    sti(); spin(300); cli();
    EQ("once", taken[0][0x71], 1);
    outb(0x20, 0x0C);
    EQ("the 8259 still has its request", inb(0x20) & 0x87, 0x83);
    outb(0x20, 0x20);
    off(3);
    wr(LVT0, MASKED | 0x71);
    line(3, 1);
    wr(LVT0, 0x71);
    sti(); spin(300); cli();
    EQ("an edge that passed while masked", taken[0][0x71], 1);
    off(3);
    wr(LVT0, LEVEL | 0x71);
    forget(); ends = 0;
    line(3, 1);
    sti(); spin(1000); cli();
    EQ("level: until it is quiet", taken[0][0x71], 3);
    EQ("remote IRR in the handler", seen_isr, LEVEL | 0x4000 | 0x71);
    EQ("ended", rd(LVT0), LEVEL | 0x71);
    off(3);
    wr(LVT0, MASKED);
}

static void quiet(struct frame *f) { (void)f; line(6, 0); eoi(); }
static void keep(struct frame *f) { (void)f; }

static void entries(void)
{
    cli(); forget();
    hooks[0x61] = quiet;
    hooks[0x62] = quiet;
    /* a level that nobody takes waits in the entry, and goes where the entry then says */
    set_rte(6, 0x55u << 24, LEVEL | 0x61);
    line(6, 1);
    EQ("delivery status: not accepted", rte(6) & (PENDING | REMOTE), PENDING);
    io_write(0x1D, 0);
    sti(); spin(300); cli();
    EQ("accepted with a destination", taken[0][0x61], 1);
    EQ("status is idle", rte(6), LEVEL | 0x61);
    /* the vector changes while the first is in service: EOI of the old one does not end the entry */
    forget();
    hooks[0x61] = keep;
    set_rte(6, 0, LEVEL | 0x61);
    line(6, 1); line(6, 0);
    sti(); wait_count(0, 0x61, 1); cli();
    io_write(0x1C, LEVEL | 0x62);
    eoi();
    EQ("remote IRR outlasts the EOI of the old vector", rte(6) & REMOTE, REMOTE);
    *ioapic(0x40) = 0x62;
    EQ("the EOI register ends it", rte(6) & REMOTE, 0);
    line(6, 1);
    sti(); spin(300); cli();
    EQ("then it works with the new one", taken[0][0x62], 1);
    /* polarity is seen by its change: a pin at rest becomes active */
    set_rte(6, 0, MASKED);
    forget();
    set_rte(6, 0, LEVEL | 0x62);
    EQ("inactive", bit_of(IRR, 0x62), 0);
    hooks[0x62] = keep;
    io_write(0x1C, LEVEL | LOW | 0x62);
    EQ("active by its polarity", bit_of(IRR, 0x62), 1);
    io_write(0x1C, LEVEL | 0x62);
    EQ("and not any more; remote IRR stays", rte(6) & REMOTE, REMOTE);
    hooks[0x62] = 0;
    sti(); spin(300); cli();
    EQ("one", taken[0][0x62], 1);
    EQ("ended", rte(6) & REMOTE, 0);
    /* an edge while the vector is in service is one more */
    set_rte(6, 0, MASKED);
    forget();
    set_rte(6, 0, 0x63);
    hooks[0x63] = keep;
    line(6, 1); line(6, 0);
    sti(); wait_count(0, 0x63, 1);
    line(6, 1); line(6, 0);
    EQ("requested while in service", bit_of(IRR, 0x63) + bit_of(ISR, 0x63), 2);
    hooks[0x63] = 0;
    eoi();
    spin(300); cli();
    EQ("two", taken[0][0x63], 2);
    set_rte(6, 0, MASKED);
    /* byte and word accesses of its window: IOREGSEL has eight bits */
    *(volatile u8 *)0xFEC00000 = 1;
    EQ("IOREGSEL by a byte", *ioapic(0x10) >> 16 & 0xFF, 23);
    *ioapic(0) = 0xFFFFFF01;
    EQ("its upper bits are reserved", *ioapic(0) & 0xFF, 1);
    (void)*(volatile u8 *)0xFEC00013;
    (void)*(volatile u64 *)0xFEC00010;
    *(volatile u64 *)0xFEC00018 = ~0UL;
    EQ("elsewhere nothing happens", io_read(1) >> 16 & 0xFF, 23);
}

void test(void)
{
    outb(0x43, 0x30);                       /* counter 0 is quiet */
    extint();
    lint0();
    entries();
    wrmsr(BASE, rdmsr(BASE) | X2);
    x2apic_mode[0] = 1;
    extint();
    lint0();
    entries();
}
