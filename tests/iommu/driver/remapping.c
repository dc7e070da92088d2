/* Interrupt remapping: messages, refusals, posting, the I/O APIC's pins. */
#include "vtd.h"

enum { A = 0x0308, B = 0x0309, IO_APIC = 0xFF00 };
enum { V = FIRST_DEVICE_VECTOR };
static volatile u64 *table;

static void flush_entries(u32 first, u32 mask) {
    submit(4 | 1 << 4 | (u64)mask << 27 | (u64)first << 32, 0);
    wait_for_queue();
}

static void set_entry(u32 index, u64 low, u64 high) {
    table[2 * index] = 0;
    table[2 * index + 1] = high;
    table[2 * index] = low;
    flush_entries(index, 0);
}

#define VERIFY(source) (1ul << 18 | (source))

/* 256 entries; translation stays off. */
static void start_remapping(u64 extended) {
    open_unit();
    put32(FSTS, 0x71);
    start_queue();
    start_fault_event();
    table = new_pages(1);
    put64(IRTA, (u64)table | extended << 11 | 7);
    command(SIRTP, 1);
    submit(4, 0);
    wait_for_queue();
    command(IRE, 1);
    if (get32(GSTS) & CFI) command(CFI, 0);
}

static u64 message_address(u32 index) { return 0xFEE00010 | (index & 0x7FFF) << 5 | index >> 15 << 2; }

static void expect(u16 source, u64 address, u32 data, u8 vector) {
    u32 before = interrupts[vector];
    SAME(dma_message(source, address, data), 0);
    breathe();
    SAME(interrupts[vector], before + 1);
}

static void refuse(u16 source, u64 address, u32 data, u8 reason, u64 index) {
    u32 before = fault_count;
    CHECK(dma_message(source, address, data));
    breathe();
    SAME(fault_count, before + 1);
    struct fault *found = &faults[before & 63];
    SAME(found->reason, reason);
    SAME(found->source, source);
    if (reason != 0x25) SAME(found->page, index << 48);
}

void messages(void) {
    open_unit();
    if (!IR(ecap)) return;
    SAME(dma_message(A, 0xFEE00000, V), 0);                     /* nothing is remapped yet */
    breathe();
    SAME(interrupts[V], 1);
    start_remapping(0);
    set_entry(5, V << 16 | 1, VERIFY(A));
    expect(A, message_address(5), 0, V);
    set_entry(5, (V + 1) << 16 | 1, VERIFY(A));
    expect(A, message_address(5), 0xFF, V + 1);                 /* data say nothing without SHV */
    for (u32 i = 0; i < 4; i++) set_entry(16 + i, (V + i) << 16 | 1, VERIFY(A));
    for (u32 i = 0; i < 4; i++) expect(A, message_address(16) | 1 << 3, i, (u8)(V + i));
    for (u32 i = 0; i < 4; i++) table[2 * (16 + i)] = (V + 3 - i) << 16 | 1;
    flush_entries(16, 2);
    for (u32 i = 0; i < 4; i++) expect(A, message_address(16) | 1 << 3, i, (u8)(V + 3 - i));

    /* Who may: all functions but for bits of SQ, or a range of buses. */
    set_entry(6, V << 16 | 1, 1ul << 18 | 3 << 16 | A);
    expect(A | 7, message_address(6), 0, V);
    set_entry(6, V << 16 | 1, 2ul << 18 | 0x0205);
    expect(0x05FF, message_address(6), 0, V);
    refuse(0x0600, message_address(6), 0, 0x26, 6);
    set_entry(6, V << 16 | 1, 0);
    expect(0x1234, message_address(6), 0, V);

    /* Logical and lowest-priority: what systems in flat mode write. */
    ((volatile u32 *)0xFEE00000)[0xE0 / 4] = ~0u;
    ((volatile u32 *)0xFEE00000)[0xD0 / 4] = 1u << 24;
    set_entry(6, 1ul << 40 | V << 16 | 1 << 5 | 1 << 3 | 1 << 2 | 1, VERIFY(A));
    expect(A, message_address(6), 0, V);

    /* Compatibility format: as CFI says. */
    refuse(A, 0xFEE00000, V, 0x25, 0);
    command(CFI, 1);
    expect(A, 0xFEE00000, V, V);
    command(CFI, 0);
    refuse(A, 0xFEE00000, V, 0x25, 0);
    command(IRE, 0);
    expect(A, 0xFEE00000, V, V);
}

void blocked_messages(void) {
    open_unit();
    if (!IR(ecap)) return;
    start_remapping(0);
    set_entry(5, V << 16 | 1, VERIFY(A));
    refuse(B, message_address(5), 0, 0x26, 5);
    refuse(A, message_address(7), 0, 0x22, 7);
    refuse(A, message_address(256), 0, 0x21, 256);
    refuse(A, message_address(0x8005), 0, 0x21, 0x8005);
    refuse(A, message_address(5) | 1 << 3, 1 << 16, 0x20, 5);
    set_entry(5, V << 16 | 1 << 12 | 1, VERIFY(A));
    refuse(A, message_address(5), 0, 0x24, 5);
    set_entry(5, V << 16 | 1, VERIFY(A) | 1ul << 20);
    refuse(A, message_address(5), 0, 0x24, 5);
    set_entry(5, 2, 0);                                         /* FPD */
    u32 before = fault_count;
    CHECK(dma_message(A, message_address(5), 0));
    breathe();
    SAME(fault_count, before);
    put64(IRTA, 0x2000000ul | 7);
    command(SIRTP, 1);
    submit(4, 0);
    wait_for_queue();
    refuse(A, message_address(5), 0, 0x23, 5);
    for (u32 i = 0; i < 8; i++) SAME(interrupts[V + i], 0);
}

void posting(void) {
    open_unit();
    if (!POSTING(cap)) return;
    u64 *descriptor = new_pages(1);
    start_remapping(0);
    descriptor[4] = (u64)POSTED_VECTOR << 16;                   /* NV; NDST 0 */
    set_entry(9, ((u64)descriptor >> 6) << 38 | 0xA3ul << 16 | 1 << 15 | 1, VERIFY(A) | (u64)descriptor >> 32 << 32);
    expect(A, message_address(9), 0, POSTED_VECTOR);
    SAME(descriptor[2], 1ul << 35);
    SAME(descriptor[4] & 3, 1);                                 /* ON */
    SAME(dma_message(A, message_address(9), 0), 0);             /* outstanding: nobody is told again */
    breathe();
    SAME(interrupts[POSTED_VECTOR], 1);
    descriptor[2] = 0;
    descriptor[4] = (u64)POSTED_VECTOR << 16 | 2;               /* SN */
    SAME(dma_message(A, message_address(9), 0), 0);
    breathe();
    SAME(interrupts[POSTED_VECTOR], 1);
    SAME(descriptor[2], 1ul << 35);
    set_entry(9, ((u64)descriptor >> 6) << 38 | 0xA4ul << 16 | 1 << 15 | 1 << 14 | 1, VERIFY(A));
    expect(A, message_address(9), 0, POSTED_VECTOR);            /* urgent */
    SAME(descriptor[2], 3ul << 35);
    refuse(B, message_address(9), 0, 0x26, 9);
    set_entry(9, 0x2000000ul >> 6 << 38 | 0xA3ul << 16 | 1 << 15 | 1, VERIFY(A));
    refuse(A, message_address(9), 0, 0x27, 9);
}

static volatile u32 *const io_apic = (volatile u32 *)0xFEC00000;

static void io_write(u32 index, u32 value) {
    io_apic[0] = index;
    io_apic[4] = value;
}

/* A pin in remappable format: the entry's vector is what EOIs are compared with. */
static void set_line(u32 pin, u32 index, u8 vector, int level) {
    io_write(0x10 + 2 * pin, 1 << 16);
    io_write(0x11 + 2 * pin, index << 17 | 1 << 16);
    io_write(0x10 + 2 * pin, vector | (u32)level << 15 | index >> 15 << 11);
}

void pins(void) {
    open_unit();
    if (!IR(ecap)) return;
    start_remapping(0);
    set_entry(20, V << 16 | 1, VERIFY(IO_APIC));
    set_entry(21, PIN_VECTOR << 16 | 1 << 4 | 1, VERIFY(IO_APIC));
    set_entry(22, (V + 2) << 16 | 1, VERIFY(A));
    set_line(9, 20, V, 0);
    set_line(10, 21, PIN_VECTOR, 1);
    set_line(11, 22, V + 2, 0);
    set_pin(9, 1);
    set_pin(9, 0);
    breathe();
    SAME(interrupts[V], 1);
    set_pin(10, 1);
    breathe();
    SAME(interrupts[PIN_VECTOR], 3);                            /* again after each EOI, until the handler lowers it */
    breathe();
    SAME(interrupts[PIN_VECTOR], 3);
    io_apic[0] = 0x10 + 2 * 10;
    SAME(io_apic[4] >> 14 & 1, 0);                              /* remote IRR */
    set_pin(11, 1);
    set_pin(11, 0);
    breathe();
    SAME(interrupts[V + 2], 0);
    SAME(fault_count, 1);
    SAME(faults[0].reason, 0x26);
    SAME(faults[0].source, IO_APIC);
    io_write(0x10 + 2 * 9, 1 << 16);
    io_write(0x11 + 2 * 9, 0);
    io_write(0x10 + 2 * 9, V);                                  /* compatibility format */
    set_pin(9, 1);
    set_pin(9, 0);
    breathe();
    SAME(interrupts[V], 1);
    SAME(faults[1].reason, 0x25);
}

/* 32 bits of destination, and no compatibility format whatever CFI says. */
void wide_destinations(void) {
    open_unit();
    if (!EIM(ecap)) return;
    start_remapping(1);
    set_entry(5, V << 16 | 1, VERIFY(A));
    expect(A, message_address(5), 0, V);
    command(CFI, 1);
    refuse(A, 0xFEE00000, V, 0x25, 0);
    set_entry(5, 0x10000ul << 32 | V << 16 | 1, VERIFY(A));       /* nobody has that id */
    u32 before = interrupts[V];
    SAME(dma_message(A, message_address(5), 0), 0);
    breathe();
    SAME(interrupts[V], before);
    put64(IRTA, (u64)table | 7);                                /* without EIME those bits are reserved */
    command(SIRTP, 1);
    submit(4, 0);
    wait_for_queue();
    refuse(A, message_address(5), 0, 0x24, 5);
}
