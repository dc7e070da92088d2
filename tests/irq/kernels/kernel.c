#include "kernel.h"

volatile u32 taken[8][256], total[8], fault[8];
volatile u8 order[8][256];
volatile u64 when[8], recover[8];
volatile int x2apic_mode[8];
handler_t hooks[256];
int processors;
struct { u64 low, high; } idt[256] __attribute__((aligned(16)));
extern char stubs[], stacks[];
static void (*volatile work[8])(void);
static volatile int alive[8];
static char *log_at = (char *)0x900008;     /* a count of bytes at 0x900000, the text behind it */

int cpu(void)
{
    u64 sp;
    __asm__("mov %%rsp, %0" : "=r"(sp));
    return (int)((sp - (u64)stacks) >> 14);
}

static void put(const char *text)
{
    while (*text)
        *log_at++ = *text++;
    *(volatile u64 *)0x900000 = (u64)log_at - 0x900008;
}

static void put_hex(u64 value)
{
    char text[17];
    int at = 16;
    text[16] = 0;
    do
        text[--at] = "0123456789abcdef"[value & 15];
    while (value >>= 4);
    put(text + at);
}

void report(const char *name, int ok, u64 got, u64 want)
{
    put(ok ? "ok   " : "FAIL ");
    put(name);
    if (!ok) {
        put(": ");
        put_hex(got);
        put(", expected ");
        put_hex(want);
    }
    put("\n");
}

void note(const char *name, u64 value)
{
    put("note ");
    put(name);
    put(" ");
    put_hex(value);
    put("\n");
}

static void finish(void)
{
    outb(0xF4, 0);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void interrupt(struct frame *frame)
{
    int me = cpu(), vector = (int)frame->vector;
    when[me] = rdtsc();
    order[me][total[me]++ & 255] = (u8)vector;
    taken[me][vector]++;
    if (hooks[vector])
        hooks[vector](frame);
    else if (vector == 2)
        ;
    else if (vector < 32 && recover[me]) {
        fault[me] = (u32)vector;
        frame->rip = recover[me];
    } else if (vector < 32) {
        put("FAIL exception ");
        put_hex((u64)vector);
        put(" at ");
        put_hex(frame->rip);
        put(" processor ");
        put_hex((u64)me);
        put("\n");
        finish();
    } else
        eoi();
}

u32 rd(u32 reg) { return x2apic_mode[cpu()] ? (u32)rdmsr(0x800 + (reg >> 4)) : mmio(reg); }

void wr(u32 reg, u32 value)
{
    if (x2apic_mode[cpu()])
        wrmsr(0x800 + (reg >> 4), value);
    else
        mmio_write(reg, value);
}

void ipi(u32 destination, u32 low)
{
    if (x2apic_mode[cpu()])
        wrmsr(0x830, (u64)destination << 32 | low);
    else {
        mmio_write(ICR2, destination << 24);
        mmio_write(ICR, low);
    }
}

void eoi(void) { wr(EOI, 0); }

int wrmsr_fault(u32 msr, u64 value)
{
    int me = cpu();
    fault[me] = 256;
    __asm__ volatile("movq $1f, %0\n wrmsr\n 1: movq $0, %0" : "=m"(recover[me])
                     : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
    return (int)fault[me];
}

int rdmsr_fault(u32 msr, u64 *value)
{
    int me = cpu();
    u32 a = 0, d = 0;
    fault[me] = 256;
    __asm__ volatile("movq $1f, %0\n rdmsr\n 1: movq $0, %0"
                     : "=m"(recover[me]), "+a"(a), "+d"(d) : "c"(msr) : "memory");
    if (value)
        *value = a | (u64)d << 32;
    return (int)fault[me];
}

void forget(void)
{
    for (int i = 0; i < 8; i++) {
        total[i] = 0;
        for (int v = 0; v < 256; v++)
            taken[i][v] = 0;
    }
}

void spin(u64 ticks)
{
    u64 start = rdtsc();
    while (rdtsc() - start < ticks)
        pause();
}

int wait_count(int who, int vector, u32 n)
{
    u64 start = rdtsc();
    while (taken[who][vector] < n)
        if (rdtsc() - start > 20000000)
            return 0;
    return 1;
}

void enable_apic(void) { wr(SVR, 0x1FF); }

void run_on(int who, void (*what)(void))
{
    if (who == cpu()) {
        what();
        return;
    }
    work[who] = what;
    while (work[who])
        pause();
}

void run_everywhere(void (*what)(void))
{
    for (int i = 0; i < processors; i++)
        run_on(i, what);
}

void line(int pin, int high) { outw(0xEE0, (u16)(pin | high << 8)); }

int bit_of(u32 reg, int vector) { return rd(reg + (u32)(vector >> 5) * 16) >> (vector & 31) & 1; }

void entry(u64 index)
{
    if (index) {
        enable_apic();
        alive[index] = 1;
        sti();
        for (;;) {
            if (work[index]) {
                work[index]();
                work[index] = 0;
            }
            pause();
        }
    }
    for (int i = 0; i < 256; i++) {
        u64 at = (u64)stubs + (u64)i * 32;
        idt[i].low = (at & 0xFFFF) | 8UL << 16 | 0x8EUL << 40 | (at >> 16 & 0xFFFF) << 48;
        idt[i].high = at >> 32;
    }
    processors = *(volatile int *)0x9FF008;
    outb(0x21, 0xFF);
    outb(0xA1, 0xFF);
    enable_apic();
    for (int i = 1; i < processors; i++)
        while (!alive[i])
            pause();
    test();
    put("end\n");
    finish();
}
