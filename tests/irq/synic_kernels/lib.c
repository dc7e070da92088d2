#include "synic.h"

u8 sim_pages[8][4096] __attribute__((aligned(4096))), sief_pages[8][4096] __attribute__((aligned(4096)));
u8 assist_pages[8][4096] __attribute__((aligned(4096)));
u8 input_page[4096] __attribute__((aligned(4096))), output_page[4096] __attribute__((aligned(4096)));
volatile u32 seen[8][256], total[8], faulted[8], lazy_saved[8];
volatile u8 order[8][512];
u8 ending[256];
void (*hooks[256])(struct frame *);
int processors, role;
static volatile u64 resume_at[8];
static void (*volatile job[8])(void);
static volatile u32 alive;
static u64 idt[512] __attribute__((aligned(16)));
extern u8 stub_table[];
static volatile u64 *const mail = (u64 *)0x1F0000;
static const char *current = "";

static void put(const char *text)
{
    volatile u64 *length = (u64 *)0x500000;
    while (*text)
        ((volatile char *)0x500008)[(*length)++] = *text++;
}

static void put_number(u64 value)
{
    char digits[17], *at = digits + 16;
    *at = 0;
    do
        *--at = "0123456789abcdef"[value & 15];
    while (value >>= 4);
    put(at);
}

void section(const char *name) { current = name; }

static void line(int ok, const char *name, u64 got, const char *relation, u64 want)
{
    put(ok ? "ok " : "FAIL ");
    put(current);
    put(": ");
    put(name);
    if (!ok) {
        put(" = ");
        put_number(got);
        put(relation);
        put_number(want);
    }
    put("\n");
}

void check(const char *name, u64 got, u64 want) { line(got == want, name, got, ", not ", want); }

void between(const char *name, u64 got, u64 low, u64 high)
{
    line(got >= low && got <= high, name, got, got < low ? " < " : " > ", got < low ? low : high);
}

u64 host(u32 operation, u64 a, u64 b, u64 c, u64 d)
{
    mail[2] = a, mail[3] = b, mail[4] = c, mail[5] = d;
    __asm__ volatile("outl %0, %1" : : "a"(operation), "d"((u16)0xEE0) : "memory");
    return mail[6];
}

static void end(void)
{
    put("end\n");
    __asm__ volatile("outb %b0, %1" : : "a"(0), "d"((u16)0xF4) : "memory");
    for (;;)
        halt();
}

int cpu(void) { return (int)rdmsr(VP_INDEX); }

u64 hypercall(u64 control, u64 input, u64 output) { return call_page(control, input, output); }

void finish_interrupt(int how)
{
    if (how == END_LAZY) {
        u8 spared;
        __asm__ volatile("lock btrl $0, %1; setc %0" : "=r"(spared), "+m"(*(u32 *)assist_pages[cpu()]) : : "memory");
        if (spared)
            lazy_saved[cpu()]++;
        else
            wrmsr(MSR_EOI, 0);
    } else if (how == END_MSR)
        wrmsr(MSR_EOI, 0);
}

void on_interrupt(struct frame *frame)
{
    int me = cpu();
    u32 vector = (u32)frame->vector;
    order[me][total[me]++ & 511] = (u8)vector;
    seen[me][vector]++;
    if (hooks[vector])
        hooks[vector](frame);
    else if (vector < 32 && vector != 2) {
        if (!resume_at[me]) {
            put("FAIL exception ");
            put_number(vector);
            put(" at ");
            put_number(frame->rip);
            put("\n");
            end();
        }
        faulted[me] = vector;
        frame->rip = resume_at[me];
    } else if (vector != 2)
        finish_interrupt(ending[vector]);
}

u32 write_faults(u32 msr, u64 value)
{
    int me = cpu();
    faulted[me] = 256;
    __asm__ volatile("movq $1f, %0\n wrmsr\n 1: movq $0, %0" : "=m"(resume_at[me])
                     : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
    return faulted[me];
}

u32 read_faults(u32 msr)
{
    int me = cpu();
    faulted[me] = 256;
    __asm__ volatile("movq $1f, %0\n rdmsr\n 1: movq $0, %0" : "=m"(resume_at[me]) : "c"(msr) : "eax", "edx", "memory");
    return faulted[me];
}

u32 store_faults(volatile void *at, u8 byte)
{
    int me = cpu();
    faulted[me] = 256;
    __asm__ volatile("movq $1f, %0\n movb %2, (%1)\n 1: movq $0, %0" : "=m"(resume_at[me])
                     : "r"(at), "q"(byte) : "memory");
    return faulted[me];
}

void synic_on(void)
{
    int me = cpu();
    wrmsr(SIMP, (u64)sim_pages[me] | 1);
    wrmsr(SIEFP, (u64)sief_pages[me] | 1);
    wrmsr(SCONTROL, 1);
}

struct message *slot(int number) { return (struct message *)(sim_pages[cpu()] + number * 256); }

volatile u64 *flags_of(int number) { return (volatile u64 *)(sief_pages[cpu()] + number * 256); }

int take(int number, struct message *copy)
{
    struct message *message = slot(number);
    if (!message->type)
        return 0;
    if (copy)
        *copy = *message;
    message->type = 0;
    fence();
    if (message->flags & 1)
        wrmsr(EOM, 0);
    return 1;
}

void sint(int number, u64 value) { wrmsr(SINT0 + (u32)number, value); }

void forget(void)
{
    for (int i = 0; i < 8; i++) {
        total[i] = lazy_saved[i] = 0;
        for (int v = 0; v < 256; v++)
            seen[i][v] = 0;
    }
}

void spin(u64 units)
{
    u64 start = now();
    while (now() - start < units)
        pause();
}

int wait_for(int who, int vector, u32 count)
{
    u64 start = now();
    while (seen[who][vector] < count)
        if (now() - start > 100000)
            return 0;
    return 1;
}

void start_on(int who, void (*work)(void)) { job[who] = work; }

void wait_on(int who)
{
    while (job[who])
        pause();
}

void run_on(int who, void (*work)(void))
{
    if (who == cpu()) {
        work();
        return;
    }
    start_on(who, work);
    wait_on(who);
}

static void load_table(void)
{
    struct { u16 limit; u64 base; } __attribute__((packed)) table = { sizeof idt - 1, (u64)idt };
    __asm__ volatile("lidt %0" : : "m"(table));
}

void kernel_main(u64 index)
{
    load_table();
    if (index) {
        __asm__ volatile("lock incl %0" : "+m"(alive));
        sti();
        for (;;) {
            if (job[index]) {
                job[index]();
                job[index] = 0;
            }
            pause();
        }
    }
    role = (int)mail[0], processors = (int)mail[1];
    u64 code_segment;
    __asm__("mov %%cs, %0" : "=r"(code_segment));
    for (u64 i = 0; i < 256; i++) {
        u64 at = (u64)stub_table + i * 16;
        idt[2 * i] = (at & 0xFFFF) | code_segment << 16 | 0x8E00UL << 32 | (at >> 16 & 0xFFFF) << 48;
        idt[2 * i + 1] = at >> 32;
    }
    host(OP_START, 0, 0, 0, 0);
    wrmsr(GUEST_OS_ID, 0x8100000606000000);
    wrmsr(HYPERCALL, (u64)hypercall_page | 1);
    while (alive != (u32)processors - 1)
        pause();
    sti();
    test();
    end();
}
