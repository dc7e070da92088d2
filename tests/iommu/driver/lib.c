/* What a kernel gives a driver: registers, pages, interrupts; and the device that the tests drive. */
#include "vtd.h"

volatile u8 *unit;
volatile u64 *engine;
u64 engine_pasid = NO_PASID;
volatile u32 fault_count, fault_interrupts, overflows, wait_interrupts, interrupts[256];
struct fault faults[64];

static struct { u64 magic, line, what; char file[16]; } *const report = (void *)0x8000;

void fail(const char *file, int line, u64 what) {
    for (int i = 0; i < 15 && file[i]; i++) report->file[i] = file[i];
    report->line = line;
    report->what = what;
    for (;;) __asm__ volatile("cli; hlt");
}

u32 get32(u32 offset) { return *(volatile u32 *)(unit + offset); }
u64 get64(u32 offset) { return *(volatile u64 *)(unit + offset); }
void put32(u32 offset, u32 value) { *(volatile u32 *)(unit + offset) = value; }
void put64(u32 offset, u64 value) { *(volatile u64 *)(unit + offset) = value; }

void *new_pages(u64 count) {
    static u64 next = 0x200000;
    u64 found = next;
    next += count * PAGE;
    CHECK(next <= 0xC00000);
    for (u64 i = 0; i < count * PAGE / 8; i++) ((u64 *)found)[i] = 0;
    return (void *)found;
}

/* Interrupts. */

struct frame;
static volatile u32 *const apic = (volatile u32 *)0xFEE00000;
static u64 gates[512];

static void end_of_interrupt(void) { apic[0xB0 / 4] = 0; }

/* Every record from FRI on that has F, round the array; then the status. */
__attribute__((interrupt)) static void fault_handler(struct frame *f) {
    (void)f;
    u32 status = get32(FSTS), index = status >> 8 & 255;
    fault_interrupts++;
    for (;;) {
        u32 place = FRO(cap) + 16 * index, high = get32(place + 12);
        if (!(high & 1u << 31)) break;
        u32 source = get32(place + 8);
        struct fault *to = &faults[fault_count++ & 63];
        to->page = get64(place);
        to->source = (u16)source;
        to->reason = (u8)high;
        to->write = !(high >> 30 & 1);
        to->index = index;
        to->has_pasid = source >> 31;
        to->pasid = high >> 8 & 0xFFFFF;
        put32(place + 12, 1u << 31);
        index = (index + 1) % NFR(cap);
    }
    overflows += get32(FSTS) & PFO;
    put32(FSTS, PFO | PPF | 1u << 7);
    end_of_interrupt();
}

__attribute__((interrupt)) static void wait_handler(struct frame *f) {
    (void)f;
    wait_interrupts++;
    put32(ICS, 1);
    end_of_interrupt();
}

/* Pin 10 stays high until its third interrupt is served. */
static void device_interrupt(u8 vector) {
    if (++interrupts[vector] == 3 && vector == PIN_VECTOR) set_pin(10, 0);
    end_of_interrupt();
}

#define DEVICE_HANDLER(n) \
    __attribute__((interrupt)) static void device_handler_##n(struct frame *f) { \
        (void)f; device_interrupt(FIRST_DEVICE_VECTOR + n); }
DEVICE_HANDLER(0) DEVICE_HANDLER(1) DEVICE_HANDLER(2) DEVICE_HANDLER(3)
DEVICE_HANDLER(4) DEVICE_HANDLER(5) DEVICE_HANDLER(6) DEVICE_HANDLER(7) DEVICE_HANDLER(16)

static void set_gate(u8 vector, void *handler) {
    u64 at = (u64)handler;
    gates[2 * vector] = (at & 0xFFFF) | 8ul << 16 | 0x8E00ul << 32 | (at >> 16 & 0xFFFF) << 48;
    gates[2 * vector + 1] = at >> 32;
}

void take_interrupts(void) {
    struct __attribute__((packed)) { u16 limit; u64 base; } idt = { sizeof gates - 1, (u64)gates };
    void *handlers[] = { device_handler_0, device_handler_1, device_handler_2, device_handler_3,
                         device_handler_4, device_handler_5, device_handler_6, device_handler_7 };
    set_gate(FAULT_VECTOR, fault_handler);
    set_gate(WAIT_VECTOR, wait_handler);
    set_gate(POSTED_VECTOR, device_handler_16);
    for (int i = 0; i < DEVICE_VECTORS; i++) set_gate(FIRST_DEVICE_VECTOR + i, handlers[i]);
    __asm__ volatile("lidt %0" : : "m"(idt));
    apic[0xF0 / 4] = 0x1FF;
}

void breathe(void) { __asm__ volatile("sti; nop; nop; nop; cli" : : : "memory"); }

/* The engine: source, PASID, address, data, command (size | kind << 8), status. */

static int run_engine(u16 source, u64 address, u64 data, u64 what) {
    engine[0] = source;
    engine[1] = engine_pasid;
    engine[2] = address;
    engine[3] = data;
    engine[4] = what;
    return (int)engine[5];
}

int dma_read(u16 source, u64 iova, u64 *value) {
    int status = run_engine(source, iova, 0, 8 | 1 << 8);
    *value = engine[3];
    return status;
}

int dma_write(u16 source, u64 iova, u64 value) { return run_engine(source, iova, value, 8 | 2 << 8); }
int dma_message(u16 source, u64 address, u32 data) { return run_engine(source, address, data, 4 | 3 << 8); }
void set_pin(u32 pin, int level) { run_engine(0, pin, (u64)level, 4 << 8); }
