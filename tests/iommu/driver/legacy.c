/* Legacy mode: domains, pages, faults, and a unit that was left on. */
#include "vtd.h"

enum { A = 0x0308, B = 0x0309, C = 0x0410 };
#define NOWHERE 0x2000000ul             /* behind RAM */

static void expect_fault(u32 number, u16 source, u8 reason, u64 page, int write) {
    breathe();
    SAME(fault_count, number + 1);
    struct fault *found = &faults[number & 63];
    SAME(found->reason, reason);
    SAME(found->source, source);
    SAME(found->page, page);
    SAME(found->write, write);
    SAME(get32(FSTS) & 0xFF, 0);
}

static void present(u64 address, u16 did) {
    if (CACHING(cap)) flush_iotlb(SELECTIVE, did, address, 0, 0);
}

static void pages(int by_register) {
    u64 value, *top = new_pages(1), *other = new_pages(1), *data = new_pages(9);
    bring_up(!by_register);
    for (u64 i = 0; i < 9; i++) data[512 * i] = 0x1000 + i;
    CHECK(dma_read(A, 0x5008, &value));
    SAME(value, ~0ul);
    expect_fault(0, A, 1, 0x5000, 0);

    give_domain(A, 5, top, 0);
    CHECK(dma_write(B, 0x5000, 1));
    expect_fault(1, B, 2, 0x5000, 1);
    map(top, 0x5000, (u64)data, 1, READ | WRITE);
    present(0x5000, 5);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 0x1000);
    SAME(dma_write(A, 0x5010, 0x77), 0);
    SAME(data[2], 0x77);

    /* Another page at the same address: a page-selective invalidation with the hint is enough. */
    map(top, 0x5000, (u64)(data + 512), 1, READ);
    flush_iotlb(SELECTIVE, 5, 0x5000, 0, 1);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 0x1001);
    CHECK(dma_write(A, 0x5000, 2));
    expect_fault(2, A, 5, 0x5000, 1);

    /* Eight pages with one invalidation. */
    for (u64 i = 0; i < 8; i++) {
        map(top, 0x10000 + i * PAGE, (u64)(data + 512 * (i + 1)), 1, READ | WRITE);
        present(0x10000 + i * PAGE, 5);
        SAME(dma_read(A, 0x10000 + i * PAGE, &value), 0);
        SAME(value, 0x1001 + i);
    }
    for (u64 i = 0; i < 8; i++) *table_slot(top, 0x10000 + i * PAGE, levels(), 1, READ | WRITE) = 0;
    flush_iotlb(SELECTIVE, 5, 0x10000, 3, 0);
    for (u64 i = 0; i < 8; i++) {
        CHECK(dma_read(A, 0x10000 + i * PAGE, &value));
        expect_fault(3 + (u32)i, A, 6, 0x10000 + i * PAGE, 0);
    }

    /* Two requesters of one domain, and one of another: a domain's invalidation reaches both. */
    give_domain(B, 5, top, 0);
    give_domain(C, 6, other, 0);
    map(other, 0x5000, (u64)(data + 4 * 512), 1, READ | WRITE);
    present(0x5000, 6);
    SAME(dma_read(B, 0x5000, &value), 0);
    SAME(value, 0x1001);
    SAME(dma_read(C, 0x5000, &value), 0);
    SAME(value, 0x1004);
    map(top, 0x5000, (u64)(data + 2 * 512), 1, READ | WRITE);
    flush_iotlb(DOMAIN, 5, 0, 0, 0);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 0x1002);
    SAME(dma_read(B, 0x5000, &value), 0);
    SAME(value, 0x1002);

    /* A table of tables goes away: no hint then. */
    *table_slot(top, 0x5000, levels(), 2, READ | WRITE) = 0;
    flush_iotlb(SELECTIVE, 5, 0, 9, 0);
    CHECK(dma_read(A, 0x5000, &value));
    expect_fault(11, A, 6, 0x5000, 0);
    SAME(dma_read(C, 0x5000, &value), 0);
    flush_iotlb(GLOBAL, 0, 0, 0, 0);
    SAME(dma_read(C, 0x5000, &value), 0);

    command(TE, 0);
    SAME(dma_read(A, (u64)data, &value), 0);
    SAME(value, 0x1000);
    SAME(fault_count, 12);
    SAME(fault_interrupts, 12);
}

void by_register(void) { pages(1); }
void by_queue(void) { pages(0); }

void large_pages(void) {
    u64 value, *top = new_pages(1), *data = new_pages(1);
    volatile u64 *two = (volatile u64 *)0x800000, *giga = (volatile u64 *)0x812340;
    bring_up(1);
    CHECK(SLLPS(cap) & 1);
    give_domain(A, 9, top, 0);
    map(top, 0x40000000, 0x800000, 2, READ | WRITE);
    present(0x40000000, 9);
    two[0] = 21;
    two[0x1FFFF8 / 8] = 22;
    SAME(dma_read(A, 0x40000000, &value), 0);
    SAME(value, 21);
    SAME(dma_read(A, 0x401FFFF8, &value), 0);
    SAME(value, 22);
    CHECK(dma_read(A, 0x40200000, &value));
    expect_fault(0, A, 6, 0x40200000, 0);

    /* Split: a table in its place, with one page of it elsewhere. */
    u64 *table = new_pages(1);
    for (u64 i = 0; i < 512; i++) table[i] = (0x800000 + i * PAGE) | READ | WRITE;
    table[3] = (u64)data | READ;
    data[0] = 23;
    *table_slot(top, 0x40000000, levels(), 2, 0) = (u64)table | READ | WRITE;
    flush_iotlb(SELECTIVE, 9, 0x40000000, 9, 0);
    SAME(dma_read(A, 0x40003000, &value), 0);
    SAME(value, 23);
    SAME(dma_read(A, 0x40000000, &value), 0);
    SAME(value, 21);
    CHECK(dma_write(A, 0x40003000, 0));
    expect_fault(1, A, 5, 0x40003000, 1);

    /* A page of 1 GiB over all of that. */
    if (SLLPS(cap) & 2) {
        map(top, 0x40000000, 0, 3, READ | WRITE);
        flush_iotlb(SELECTIVE, 9, 0x40000000, 18, 0);
        *giga = 24;
        SAME(dma_read(A, 0x40812340, &value), 0);
        SAME(value, 24);
        SAME(dma_read(A, 0x40003000, &value), 0);
        CHECK(dma_read(A, 0x40000000 + NOWHERE, &value));       /* nobody answers there: no fault of the unit */
        SAME(fault_count, 2);
        *table_slot(top, 0x40000000, levels(), 3, 0) |= 1 << 21;
        flush_iotlb(DOMAIN, 9, 0, 0, 0);
        CHECK(dma_read(A, 0x40812340, &value));
        expect_fault(2, A, 0xC, 0x40812000, 0);
    }
}

/* More faults than records while the handler is kept away, then all at once. */
void fault_events(void) {
    u64 value;
    u32 records;
    bring_up(1);
    records = (u32)NFR(cap);
    CHECK(dma_read(A, 0x1000, &value));
    expect_fault(0, A, 1, 0x1000, 0);
    SAME(faults[0].index, 0);
    put32(FECTL, MASKED);
    for (u32 i = 0; i < records; i++) CHECK(dma_read((u16)(A + i), 0x2000 + i * PAGE, &value));
    SAME(get32(FSTS) & 3, PPF);
    SAME(get32(FSTS) >> 8 & 255, 1 % records);
    SAME(get32(FECTL), MASKED | PENDING);
    CHECK(dma_read(C, 0x2000, &value));                         /* no record left */
    SAME(get32(FSTS) & 3, PPF | PFO);
    breathe();
    SAME(fault_interrupts, 1);
    put32(FECTL, 0);
    SAME(get32(FECTL), 0);
    breathe();
    SAME(fault_interrupts, 2);
    SAME(fault_count, 1 + records);
    SAME(overflows, 1);
    for (u32 i = 0; i < records; i++) {
        SAME(faults[1 + i].source, A + i);
        SAME(faults[1 + i].page, 0x2000 + i * PAGE);
    }
    SAME(get32(FSTS) & 0xFF, 0);
    CHECK(dma_read(C, 0x3000, &value));
    expect_fault(1 + records, C, 1, 0x3000, 0);

    /* Masked, taken by polling: nothing is pending any more. */
    put32(FECTL, MASKED);
    CHECK(dma_read(C, 0x4000, &value));
    u32 record = (u32)(FRO(cap) + 16 * (get32(FSTS) >> 8 & 255));
    put64(record + 8, get64(record + 8));                       /* F by its quadword */
    SAME(get32(FSTS) & 0xFF, 0);
    SAME(get32(FECTL), MASKED);
    put32(FECTL, 0);
    breathe();
    SAME(fault_interrupts, 3);
}

static void context_fault(u32 number, u64 low, u64 high, u8 reason) {
    u64 value, *entry = context_of(A);
    entry[0] = 0;
    entry[1] = high;
    entry[0] = low;
    flush_context(SELECTIVE, 5, A, 0);
    flush_iotlb(DOMAIN, 5, 0, 0, 0);
    CHECK(dma_read(A, 0x5000, &value));
    expect_fault(number, A, reason, 0x5000, 0);
}

void contexts(void) {
    u64 value, *first = new_pages(1), *second = new_pages(1), *data = new_pages(2), *entry, width;
    bring_up(1);
    width = (u64)address_width();
    data[0] = 31;
    data[512] = 32;
    give_domain(A, 5, first, 0);
    map(first, 0x5000, (u64)data, 1, READ | WRITE);
    map(second, 0x5000, (u64)(data + 512), 1, READ | WRITE);
    present(0x5000, 5);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 31);

    /* From one domain to another. */
    entry = context_of(A);
    entry[0] = 0;
    flush_context(SELECTIVE, 5, A, 0);
    flush_iotlb(DOMAIN, 5, 0, 0, 0);
    CHECK(dma_read(A, 0x5000, &value));
    expect_fault(0, A, 2, 0x5000, 0);
    give_domain(A, 6, second, 0);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 32);
    entry[0] = 0;
    flush_context(DOMAIN, 6, 0, 0);
    flush_iotlb(DOMAIN, 6, 0, 0, 0);
    if (PASS(ecap)) {
        give_domain(A, 5, 0, 2);
        SAME(dma_read(A, (u64)data, &value), 0);
        SAME(value, 31);
    }
    context_fault(1, (u64)first | 3 << 2 | 1, 5 << 8 | width, 3);
    context_fault(2, (u64)first | 1, 5 << 8 | 7, 3);
    context_fault(3, (u64)first | 1 << 4 | 1, 5 << 8 | width, 0xB);
    context_fault(4, (u64)first | 1, 5 << 8 | width | 1ul << 40, 0xB);
    entry[1] = 5 << 8 | width | 15 << 3;                                /* bits for software */
    entry[0] = (u64)first | 1;
    flush_context(SELECTIVE, 5, A, 0);
    flush_iotlb(DOMAIN, 5, 0, 0, 0);
    SAME(dma_read(A, 0x5000, &value), 0);
    *table_slot(first, 0x5000, levels(), 2, 0) = NOWHERE | READ | WRITE;
    context_fault(5, (u64)first | 1, 5 << 8 | width, 7);
    u64 *root = root_table + 2 * (A >> 8), kept = root[0];
    root[0] = NOWHERE | 1;
    flush_context(GLOBAL, 0, 0, 0);
    CHECK(dma_read(A, 0x5000, &value));
    expect_fault(6, A, 9, 0x5000, 0);
    root[0] = kept | 1 << 4;
    flush_context(GLOBAL, 0, 0, 0);
    CHECK(dma_read(A, 0x5000, &value));
    expect_fault(7, A, 0xA, 0x5000, 0);
    root[0] = kept;

    /* Fault processing off: refused, and nobody is told. */
    entry[0] = (u64)first | 2 | 1;
    flush_context(SELECTIVE, 5, A, 0);
    CHECK(dma_read(A, 0x7000, &value));
    breathe();
    SAME(fault_count, 8);
    entry[0] = (u64)first | 1;
    flush_context(SELECTIVE, 5, A, 0);
    u64 beyond = 1ul << (12 + 9 * levels());
    CHECK(dma_read(A, beyond, &value));
    breathe();
    SAME(faults[8].reason, 4);
}

/* As after a crash: the old driver's queue, tables and interrupts are all still on. */
void take_over(void) {
    u64 value, *top = new_pages(1), *data = new_pages(1), *old;
    bring_up(1);
    give_domain(A, 5, top, 0);
    map(top, 0x5000, (u64)data, 1, READ | WRITE);
    present(0x5000, 5);
    data[0] = 41;
    SAME(dma_read(A, 0x5000, &value), 0);
    put32(FECTL, MASKED);
    CHECK(dma_read(B, 0x5000, &value));                         /* a fault that nobody took */
    old = root_table;

    queued = 0;
    open_unit();
    CHECK(get32(GSTS) & TE);
    if (QI(ecap)) {
        CHECK(get32(GSTS) & QIE);
        SAME(get64(RTADDR), (u64)old);
        stop_queue();
        start_queue();
    }
    u32 index = get32(FSTS) >> 8 & 255;
    put32((u32)(FRO(cap) + 16 * index + 12), 1u << 31);
    put32(FSTS, PFO | PPF | IQE);
    SAME(get32(FSTS) & 0xFF, 0);
    start_fault_event();
    breathe();
    SAME(fault_interrupts, 0);
    root_table = new_pages(1);
    for (u64 i = 0; i < 512; i++) root_table[i] = old[i];
    set_root((u64)root_table, 0);
    SAME(dma_read(A, 0x5000, &value), 0);                       /* it never stopped */
    SAME(value, 41);
    CHECK(dma_read(B, 0x6000, &value));
    expect_fault(0, B, 2, 0x6000, 0);
    command(TE, 0);
    SAME(dma_read(A, (u64)data, &value), 0);
    command(TE, 1);
    SAME(dma_read(A, 0x5000, &value), 0);
    stop_queue();
    flush_context(GLOBAL, 0, 0, 0);                             /* by registers again */
    flush_iotlb(GLOBAL, 0, 0, 0, 0);
    SAME(dma_read(A, 0x5000, &value), 0);
}
