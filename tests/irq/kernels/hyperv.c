/* TLFS 9 to 12: synthetic MSRs of the APIC, reference time, timers by message and by vector, SINTs, lazy EOI, IPIs. */
#include "kernel.h"

enum {
    OS_ID = 0x40000000, HYPERCALL, VP_INDEX, REF_COUNT = 0x40000020, REF_TSC, TSC_HZ, APIC_HZ,
    HV_EOI = 0x40000070, HV_ICR, HV_TPR, ASSIST, SCONTROL = 0x40000080, SVERSION, SIEFP, SIMP, EOM,
    SINT = 0x40000090, CONFIG = 0x400000B0, COUNT = 0x400000B1,
    ON = 1, CYCLIC = 2, LAZY = 4, AUTO = 8, DIRECT = 1 << 12,
    SINT_MASKED = 1 << 16, AUTO_EOI = 1 << 17, POLLING = 1 << 18,
    TIMER_MESSAGE = 0x80000010,
};
struct message {
    u32 type; u8 size, flags; u16 zero; u64 sender;
    u32 timer, zero2; u64 expired, delivered, rest[27];
};
static u8 pages[4][4096] __attribute__((aligned(4096)));
#define HYPERCALL_PAGE ((u64)pages[0])
#define MESSAGES ((volatile struct message *)pages[1])
#define EVENTS ((u64)pages[2])
#define ASSIST_PAGE ((volatile u32 *)pages[3])

static u64 now(void) { return rdmsr(REF_COUNT); }

static void timer_config(u32 n, u64 value) { wrmsr(CONFIG + 2 * n, value); }
static void timer_count(u32 n, u64 value) { wrmsr(COUNT + 2 * n, value); }

static u64 hypercall(u64 control, u64 one, u64 two)     /* a fast one */
{
    u64 status;
    register u64 r8 __asm__("r8") = two;
    __asm__ volatile("call *%[page]" : "=a"(status), "+c"(control), "+d"(one), "+r"(r8) : [page] "r"(HYPERCALL_PAGE)
                     : "r9", "r10", "r11", "memory", "cc");
    return status;
}

static void basics(void)
{
    u32 a = 0x40000000, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    EQ("vendor", b == 0x7263694D && c == 0x666F736F && d == 0x76482074, 1);
    OK("leaves", a >= 0x40000005);
    a = 0x40000001, c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    EQ("Hv#1", a, 0x31237648);
    a = 0x40000003, c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    EQ("run time, reference counter, SynIC, timers, APIC, hypercalls, index", a & 0x7F, 0x7F);
    EQ("no hypercall page before there is a guest id", (wrmsr(HYPERCALL, HYPERCALL_PAGE | 1), rdmsr(HYPERCALL) & 1), 0);
    wrmsr(OS_ID, 1UL << 48 | 0x4711);
    wrmsr(HYPERCALL, HYPERCALL_PAGE | 1);
    EQ("hypercall page", rdmsr(HYPERCALL), HYPERCALL_PAGE | 1);
    EQ("index", rdmsr(VP_INDEX), 0);
    EQ("is read-only", wrmsr_fault(VP_INDEX, 0), 13);
    EQ("frequency of the TSC", rdmsr(TSC_HZ), 1000000000);
    EQ("of the APIC timer", rdmsr(APIC_HZ), 200000000);
    EQ("unknown call", hypercall(0x10000 | 0xFFF, 0, 0) & 0xFFFF, 2);
}

static void apic_registers(void)
{
    cli(); forget();
    wrmsr(HV_TPR, 0x40);
    EQ("TPR is that of the page and CR8", rd(TPR) + read_cr8(), 0x44);
    EQ("TPR above 255", wrmsr_fault(HV_TPR, 0x100), 13);
    wrmsr(HV_ICR, SELF | 0x41);
    wrmsr(HV_ICR, SELF | 0x50);
    EQ("ICR", bit_of(IRR, 0x41) + bit_of(IRR, 0x50), 2);
    sti(); spin(200); cli();
    EQ("50h alone is above TPR", taken[0][0x50] * 2 + taken[0][0x41], 2);
    wrmsr(HV_TPR, 0);
    sti(); spin(200); cli();
    EQ("41h", taken[0][0x41], 1);
    EQ("EOI cannot be read", rdmsr_fault(HV_EOI, 0), 13);
    wrmsr(HV_ICR, 0x77UL << 56 | 0x50);
    EQ("destination in [63:56]", rdmsr(HV_ICR), 0x77UL << 56 | 0x50);
    EQ("is that of the page", rd(ICR2) >> 24, 0x77);
}

static void clock(void)
{
    u64 tsc = rdtsc(), ref = now();
    spin(3000000);
    NEAR("reference time is TSC / 100", now() - ref, (rdtsc() - tsc) / 100, 10);
    u64 last = now();
    int stuck = 0;
    for (int i = 0; i < 1000; i++) {
        u64 next = now();
        stuck += next <= last;
        last = next;
    }
    EQ("strictly increasing", stuck, 0);
    EQ("read-only", wrmsr_fault(REF_COUNT, 5), 13);
    /* the page */
    volatile struct { u32 sequence, zero; u64 scale; long offset; } *page = (void *)EVENTS;
    wrmsr(REF_TSC, EVENTS | 1);
    OK("valid", page->sequence);
    int wrong = 0;
    for (int i = 0; i < 1000; i++) {
        u64 before = now(), value;
        unsigned __int128 product = (unsigned __int128)rdtsc() * page->scale;
        value = (u64)(product >> 64) + (u64)page->offset;
        u64 after = now();
        wrong += value + 1 < before || value > after;
    }
    EQ("the page agrees with the counter", wrong, 0);
    wrmsr(REF_TSC, 0);
}

static void synic_on(void)
{
    EQ("version", rdmsr(SVERSION), 1);
    for (u32 i = 0; i < 16; i++)
        EQ("SINTs are masked at first", rdmsr(SINT + i), SINT_MASKED);
    wrmsr(SIMP, (u64)pages[1] | 1);
    wrmsr(SIEFP, EVENTS | 1);
    wrmsr(SCONTROL, 1);
    EQ("vector 5", wrmsr_fault(SINT + 2, 5), 13);
    EQ("vector 5, masked", wrmsr_fault(SINT + 2, SINT_MASKED | 5), 256);
    wrmsr(SINT + 2, 0xA2);
    wrmsr(SINT + 3, AUTO_EOI | 0xA3);
    wrmsr(SINT + 4, POLLING | 0xA4);
    wrmsr(SINT + 5, SINT_MASKED | 0xA5);
}

static volatile u64 arrived;
static volatile u32 seen;
static void take(struct frame *f)           /* as a driver: read, free the slot, EOM if more waits, EOI */
{
    u32 sint = (u32)f->vector & 15;
    volatile struct message *slot = &MESSAGES[sint];
    arrived = now();
    while (slot->type) {
        seen++;
        slot->type = 0;
        __asm__ volatile("mfence" : : : "memory");
        if (!(slot->flags & 1))
            break;
        wrmsr(EOM, 0);
    }
    if (sint != 3)
        wrmsr(HV_EOI, 0);
}

static void by_message(void)
{
    forget(); seen = 0;
    hooks[0xA2] = hooks[0xA3] = 0;
    u64 due = now() + 5000;
    timer_config(0, ON | 2 << 16);
    EQ("enabled without a count", rdmsr(CONFIG) & ON, ON);
    timer_count(0, due);
    sti();
    OK("comes", wait_count(0, 0xA2, 1));
    cli();
    volatile struct message *slot = &MESSAGES[2];
    EQ("type", slot->type, TIMER_MESSAGE);
    EQ("size of the payload", slot->size, 24);
    EQ("number", slot->timer, 0);
    EQ("expiration", slot->expired, due);
    OK("delivery is not before it", slot->delivered >= due && slot->delivered < due + 10);
    EQ("no other waits", slot->flags & 1, 0);
    EQ("one-shot: disabled now", rdmsr(CONFIG), 2 << 16);
    EQ("the count is kept", rdmsr(COUNT), due);
    /* the slot is busy: the next one waits, and says so */
    timer_config(0, AUTO | 2 << 16);
    timer_count(0, now() + 100);
    EQ("a count enables", rdmsr(CONFIG), AUTO | ON | 2 << 16);
    timer_config(1, AUTO | 2 << 16);
    timer_count(1, now() + 200);
    spin(50000);
    EQ("flag", slot->flags & 1, 1);
    EQ("the old message is still there", slot->expired, due);
    sti(); spin(500); cli();
    EQ("no interrupt for those that wait", taken[0][0xA2], 1);
    slot->type = 0;
    wrmsr(EOM, 0);
    EQ("EOM brings the next", slot->type, TIMER_MESSAGE);
    OK("whose delivery is late", slot->delivered > slot->expired + 100);
    EQ("of timer 0", slot->timer, 0);
    EQ("one more waits", slot->flags & 1, 1);
    slot->type = 0;
    sti(); spin(500); cli();                /* its handler's EOI looks, too */
    EQ("timer 1 behind EOI", slot->timer, 1);
    slot->type = 0;
    sti(); spin(500); cli();
    EQ("three interrupts", taken[0][0xA2], 3);
}

static void periodic(void)
{
    hooks[0xA2] = hooks[0xA3] = take;
    forget(); seen = 0;
    u64 start = now();
    timer_count(2, 1000);
    timer_config(2, ON | CYCLIC | 2 << 16);
    sti();
    wait_count(0, 0xA2, 20);
    NEAR("twenty periods of 100 us", arrived - start, 20000, 20);
    timer_config(2, 0);
    u32 n = taken[0][0xA2];
    spin(500000);
    OK("stopped", taken[0][0xA2] - n <= 1);
    EQ("a message each", seen, taken[0][0xA2]);
    /* auto-EOI */
    forget(); seen = 0;
    timer_count(1, 500);
    timer_config(1, ON | CYCLIC | 3 << 16);
    wait_count(0, 0xA3, 10);
    timer_config(1, 0);
    EQ("auto-EOI: nothing is in service", bit_of(ISR, 0xA3), 0);
    OK("ten without an EOI", taken[0][0xA3] >= 10);
    /* polling, masked */
    forget();
    timer_config(1, AUTO | 4 << 16);
    timer_count(1, now() + 100);
    spin(30000);
    EQ("polling: a message and no interrupt", (MESSAGES[4].type == TIMER_MESSAGE) + taken[0][0xA4], 1);
    MESSAGES[4].type = 0;
    timer_config(1, AUTO | 5 << 16);
    timer_count(1, now() + 100);
    spin(30000);
    EQ("masked: a message and no interrupt", (MESSAGES[5].type == TIMER_MESSAGE) + taken[0][0xA5], 1);
    MESSAGES[5].type = 0;
    timer_config(1, 0);
    cli();
}

static void direct(void)
{
    forget();
    timer_config(3, AUTO | DIRECT | 0xB0 << 4);
    sti();
    u64 due = now() + 3000;
    timer_count(3, due);
    OK("direct", wait_count(0, 0xB0, 1));
    cli();
    NEAR("in time", now(), due, 10);
    EQ("no message", MESSAGES[0].type, 0);
    EQ("in the past: at once", (timer_count(3, 1), bit_of(IRR, 0xB0)), 1);
    sti(); spin(300); cli();
    EQ("auto-enable off: a count does not start it",
       (timer_config(3, DIRECT | 0xB0 << 4), timer_count(3, now() + 10), rdmsr(CONFIG + 6) & ON), 0);
    timer_config(3, ON | DIRECT | 0xB0 << 4);
    timer_count(3, 0);
    EQ("a count of 0 stops", rdmsr(CONFIG + 6) & ON, 0);
    EQ("direct with vector 5", wrmsr_fault(CONFIG + 6, ON | DIRECT | 5 << 4), 13);
    EQ("reserved bits", wrmsr_fault(CONFIG + 6, 1UL << 40), 13);
    /* wakes HLT */
    forget();
    timer_config(3, AUTO | DIRECT | 0xB0 << 4);
    due = now() + 100000;
    timer_count(3, due);
    __asm__ volatile("sti; hlt; cli" : : : "memory");
    EQ("wakes HLT", taken[0][0xB0], 1);
    NEAR("at its time", now(), due, 10);
    /* lazy, and late: a processor that was away for many periods */
    forget();
    timer_count(3, 1000);
    timer_config(3, ON | CYCLIC | DIRECT | 0xB0 << 4);
    cli();
    spin(2000000);
    sti(); spin(100); cli();
    EQ("periods merge in IRR", taken[0][0xB0] <= 2, 1);
    timer_config(3, 0);
    sti(); spin(1000); cli();
}

static volatile u32 promised;
static void lazy(struct frame *f)
{
    (void)f;
    if (ASSIST_PAGE[0] & 1) {               /* BTR in a real kernel */
        __asm__ volatile("lock; andl $~1, %0" : "+m"(ASSIST_PAGE[0]));
        promised++;
    } else
        wrmsr(HV_EOI, 0);
}

static void lazy_eoi(void)
{
    wrmsr(ASSIST, (u64)pages[3] | 1);
    EQ("assist page", rdmsr(ASSIST), (u64)pages[3] | 1);
    hooks[0x60] = hooks[0x80] = lazy;
    forget();
    sti();
    for (int i = 0; i < 20; i++) {
        ipi(0, SELF | 0x60);
        spin(100);
    }
    EQ("all came", taken[0][0x60], 20);
    EQ("none needed an EOI", promised, 20);
    EQ("nothing in service", rd(PPR) | (u32)bit_of(ISR, 0x60), 0);
    cli(); forget(); promised = 0;
    ipi(0, SELF | 0x60);
    ipi(0, SELF | 0x80);
    sti(); spin(500); cli();
    EQ("two at once", taken[0][0x60] + taken[0][0x80], 2);
    OK("the first had to write EOI, or all was done at its end", promised <= 1);
    EQ("nothing in service", rd(PPR), 0);
    wrmsr(ASSIST, 0);
    hooks[0x60] = hooks[0x80] = 0;
}

static void set_up(void)
{
    EQ("index", rdmsr(VP_INDEX), (u64)cpu());
}

static void cluster_ipis(void)
{
    run_everywhere(set_up);
    if (processors < 4)
        return;
    forget();
    sti();
    EQ("status", hypercall(0x10000 | 0x0B, 0x70, 0xA), 0);
    spin(20000);
    EQ("processors 1 and 3", taken[0][0x70] + taken[1][0x70] * 2u + taken[2][0x70] * 4u + taken[3][0x70] * 8u, 0xA);
    EQ("vector 15", hypercall(0x10000 | 0x0B, 0x0F, 0xA) & 0xFFFF, 5);
    EQ("a processor that does not exist is left out", hypercall(0x10000 | 0x0B, 0x70, 1UL << 40), 0);
    cli();
}

void test(void)
{
    basics();
    apic_registers();
    clock();
    synic_on();
    by_message();
    periodic();
    direct();
    lazy_eoi();
    cluster_ipis();
}
