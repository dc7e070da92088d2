/* What other drivers do otherwise: registers in halves, commands on top of the whole status, other modes inherited. */
#include "vtd.h"

enum { A = 0x0308 };

static void put_halves(u32 offset, u64 value, int high_first) {
    put32(offset + 4 * (u32)high_first, (u32)(value >> 32 * high_first));
    put32(offset + 4 * (u32)!high_first, (u32)(value >> 32 * !high_first));
    SAME(get32(offset) | (u64)get32(offset + 4) << 32, get64(offset));
}

/* The status with a bit more, one-shots and all. */
static void add(u32 bit) {
    put32(GCMD, get32(GSTS) | bit);
    CHECK(get32(GSTS) & bit);
}

static void halves(int high_first) {
    u64 value, *top = new_pages(1), *data = new_pages(2), *ring = new_pages(1);
    u32 at;
    open_unit();
    at = (u32)IRO(ecap);
    for (u32 offset = 0; offset < 0x300; offset += 4) get32(offset);
    SAME(get32(FSTS), 0);
    root_table = new_pages(1);
    data[0] = 11;
    data[512] = 12;
    u64 *entry = context_of(A);
    entry[1] = 5 << 8 | (u64)address_width();
    entry[0] = (u64)top | 1;
    map(top, 0x5000, (u64)data, 1, READ | WRITE);
    put_halves(RTADDR, (u64)root_table, high_first);
    add(SRTP);
    /* The half with the command bit comes last: that is what starts it. */
    put32(CCMD, 0);
    put32(CCMD + 4, 1u << 31 | GLOBAL << 29);
    SAME(get32(CCMD + 4) >> 27, GLOBAL << 2 | GLOBAL);
    put32(at + 12, 1u << 31 | GLOBAL << 28);
    SAME(get32(at + 12) >> 31, 0);
    add(TE);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 11);
    map(top, 0x5000, (u64)(data + 512), 1, READ);
    put_halves(at, 0x5000, high_first);
    put32(at + 8, 0);
    put32(at + 12, 1u << 31 | (PSI(cap) ? SELECTIVE : DOMAIN) << 28 | 5);
    SAME(get32(at + 12) >> 31, 0);
    SAME(get32(at + 12) >> 25 & 3, PSI(cap) ? SELECTIVE : DOMAIN);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 12);
    if (QI(ecap)) {
        u64 wide = SMTS(ecap) ? 1 << 11 : 0;
        put32(IQT, 0);
        put_halves(IQA, (u64)ring | wide, high_first);
        add(QIE);
        ring[0] = 2 | GLOBAL << 4;
        ring[wide ? 4 : 2] = 5 | 1 << 5 | 9ul << 32;
        ring[wide ? 5 : 3] = (u64)data + 16;
        put32(IQT, wide ? 64 : 32);
        SAME(*(volatile u32 *)(data + 2), 9);
        SAME(get32(IQH), wide ? 64 : 32);
    }
    CHECK(get32(GSTS) & TE);
    command(TE, 0);                     /* whose shadow knows of nothing: all is off now */
    SAME(get32(GSTS) & (TE | QIE), 0);
}

void low_half_first(void) { halves(0); }
void high_half_first(void) { halves(1); }

/* 64 Ki entries, as large as tables are; and EIME, which Linux sets whenever it may. */
void whole_table(void) {
    open_unit();
    if (!IR(ecap)) return;
    u64 extended = EIM(ecap);
    u64 *table = new_pages(256);
    start_queue();
    start_fault_event();
    CHECK(!((u64)table & 0xFFF));
    put64(IRTA, (u64)table | extended << 11 | 0xF);
    command(SIRTP, 1);
    submit(4, 0);
    wait_for_queue();
    command(IRE, 1);
    table[2 * 0xFFFF] = FIRST_DEVICE_VECTOR << 16 | 1;
    table[2 * 0x8000] = (FIRST_DEVICE_VECTOR + 1) << 16 | 1;
    SAME(dma_message(A, 0xFEE00010 | 0x7FFF << 5 | 1 << 2, 0), 0);
    SAME(dma_message(A, 0xFEE00010 | 1 << 2, 0), 0);
    SAME(dma_message(A, 0xFEE00018 | 0x7FF0 << 5 | 1 << 2, 15), 0);
    breathe();
    CHECK(interrupts[FIRST_DEVICE_VECTOR] && interrupts[FIRST_DEVICE_VECTOR + 1]);
    CHECK(dma_message(A, 0xFEE00018 | 0x7FFF << 5 | 1 << 2, 1));
    breathe();
    SAME(fault_count, 1);
    SAME(faults[0].reason, 0x21);
    SAME(faults[0].page, 0);            /* the index has 16 bits there */
}

/* An old system in scalable mode, and a new one that knows legacy mode alone; then back. */
void other_mode(void) {
    u64 value, *top = new_pages(1), *data = new_pages(1), *old;
    open_unit();
    if (!SMTS(ecap)) return;
    data[0] = 21;
    root_table = new_pages(1);
    start_queue();
    set_root((u64)root_table, 1);
    start_fault_event();
    command(TE, 1);
    CHECK(dma_read(A, 0x5000, &value));
    breathe();
    SAME(faults[0].reason, 0x39);
    old = root_table;

    queued = 0;
    open_unit();
    stop_queue();
    start_queue();
    command(TE, 0);
    root_table = new_pages(1);
    set_root((u64)root_table, 0);
    give_domain(A, 5, top, 0);
    map(top, 0x5000, (u64)data, 1, READ);
    command(TE, 1);
    SAME(dma_read(A, 0x5000, &value), 0);
    SAME(value, 21);
    CHECK(dma_read(A, 0x6000, &value));
    breathe();
    SAME(faults[1].reason, 6);

    root_table = old;                   /* without turning translation off meanwhile */
    set_root((u64)root_table, 1);
    CHECK(dma_read(A, 0x5000, &value));
    breathe();
    SAME(faults[2].reason, 0x39);
}
