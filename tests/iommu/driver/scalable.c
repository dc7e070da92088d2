/* Scalable mode: PASID tables, and the four ways in which they translate. */
#include "vtd.h"

enum { A = 0x0308, B = 0x0389 };        /* B: the upper half of its bus */
enum { FIRST = 1, SECOND = 2, NESTED = 3, PASS_THROUGH = 4 };
#define DID 7ul
#define USER 7                          /* P, W, U */

static u64 *scalable_context(u16 source) {
    u64 *entry = root_table + 2 * (source >> 8) + (source >> 7 & 1);
    if (!(entry[0] & 1)) entry[0] = (u64)new_pages(1) | 1;
    return (u64 *)(entry[0] & ~0xFFFul) + 4 * (source & 127);
}

static u64 *pasid_entry(u16 source, u32 pasid) {
    u64 *context = scalable_context(source), *directory;
    if (!(context[0] & 1)) context[0] = (u64)new_pages(1) | 1;
    directory = (u64 *)(context[0] & ~0xFFFul) + (pasid >> 6);
    if (!(*directory & 1)) *directory = (u64)new_pages(1) | 1;
    return (u64 *)(*directory & ~0xFFFul) + 8 * (pasid & 63);
}

static void flush_pasid_cache(u32 pasid) {
    submit(7 | 1 << 4 | DID << 16 | (u64)pasid << 32, 0);
    wait_for_queue();
}

/* `pages` 0: all of the PASID. */
static void flush_pasid(u32 pasid, u64 address, int pages, u8 mask) {
    submit(6 | (pages ? 3 : 2) << 4 | DID << 16 | (u64)pasid << 32, pages ? address | mask : 0);
    if (DEVICE_TLB(ecap)) {
        submit(8 | (u64)A << 16 | (u64)pasid << 32, 0x7FFFFFFFFFFFF000 | 1 << 11);
        submit(3 | (u64)A << 32, 0x7FFFFFFFFFFFF000 | 1);
    }
    wait_for_queue();
}

static void set_pasid(u16 source, u32 pasid, int kind, u64 *second, u64 *first) {
    u64 *entry = pasid_entry(source, pasid);
    entry[0] = 0;
    flush_pasid_cache(pasid);
    flush_pasid(pasid, 0, 0, 0);
    flush_iotlb(DOMAIN, DID, 0, 0, 0);
    entry[1] = DID | (ecap >> 48 & 1) << 23;                    /* PWSNP */
    entry[2] = (u64)first;
    entry[0] = (u64)second | (u64)kind << 6 | (kind == FIRST ? 0 : (u64)address_width() << 2) | 1;
    if (CACHING(cap)) flush_pasid_cache(pasid);
}

static int bring_up_scalable(void) {
    open_unit();
    if (!SMTS(ecap)) return 0;
    put32(FSTS, 0x71);
    root_table = new_pages(1);
    start_queue();
    set_root((u64)root_table, 1);
    start_fault_event();
    stop_protection();
    command(TE, 1);
    return 1;
}

static void blocked(u16 source, u64 iova, int write, u8 reason) {
    u64 value;
    u32 before = fault_count;
    CHECK(write ? dma_write(source, iova, 0) : dma_read(source, iova, &value));
    breathe();
    SAME(fault_count, before + 1);
    SAME(faults[before & 63].reason, reason);
    SAME(faults[before & 63].source, source);
}

static void reads(u16 source, u64 iova, u64 expected) {
    u64 value;
    SAME(dma_read(source, iova, &value), 0);
    SAME(value, expected);
}

static void map_first(u64 *top, u64 iova, u64 page, int leaf, u64 bits) {
    *table_slot(top, iova, 4, leaf, USER) = page | bits | (leaf > 1 ? LARGE : 0);
}

void second_level(void) {
    if (!bring_up_scalable()) return;
    u64 *top = new_pages(1), *data = new_pages(2);
    data[0] = 61;
    data[512] = 62;
    blocked(A, 0x5000, 0, 0x39);
    scalable_context(A);
    if (CACHING(cap)) flush_context(SELECTIVE, 0, A, 0);
    blocked(A, 0x5000, 0, 0x41);
    pasid_entry(A, 0);
    flush_context(SELECTIVE, 0, A, 0);
    blocked(A, 0x5000, 0, 0x59);
    set_pasid(A, 0, SECOND, top, 0);
    set_pasid(B, 0, SECOND, top, 0);
    map(top, 0x5000, (u64)data, 1, READ);
    flush_iotlb(SELECTIVE, DID, 0x5000, 0, 0);
    reads(A, 0x5000, 61);
    reads(B, 0x5000, 61);
    blocked(A, 0x5000, 1, 0x85);
    blocked(A, 0x6000, 0, 0x79);
    map(top, 0x5000, (u64)(data + 512), 1, READ | WRITE);
    flush_iotlb(SELECTIVE, DID, 0x5000, 0, 1);
    reads(A, 0x5000, 62);
    *pasid_entry(A, 0) = 0;
    flush_pasid_cache(0);
    flush_iotlb(DOMAIN, DID, 0, 0, 0);
    blocked(A, 0x5000, 0, 0x59);
    reads(B, 0x5000, 62);
    submit(7 | DID << 16, 0);                                   /* all PASIDs of the domain */
    submit(7 | 3 << 4, 0);
    wait_for_queue();
    reads(B, 0x5000, 62);
    stop_queue();
    command(TE, 0);
    reads(A, (u64)data, 61);
}

void first_level(void) {
    if (!bring_up_scalable()) return;
    u64 *top = new_pages(1), *data = new_pages(2), *slot;
    data[0] = 71;
    data[512] = 72;
    set_pasid(A, 0, FIRST, 0, top);
    blocked(A, 0x5000, 0, 0x71);
    map_first(top, 0x5000, (u64)data, 1, USER);
    reads(A, 0x5000, 71);                                       /* nothing absent is remembered of a first level */
    slot = table_slot(top, 0x5000, 4, 1, USER);
    SAME(*slot & 0x60, 0x20);
    u64 value;
    SAME(dma_write(A, 0x5008, 73), 0);
    SAME(data[1], 73);
    SAME(*slot & 0x60, 0x60);
    map_first(top, 0x5000, (u64)(data + 512), 1, USER);
    flush_pasid(0, 0x5000, 1, 0);
    reads(A, 0x5000, 72);
    map_first(top, 0x6000, (u64)data, 1, 5);
    map_first(top, 0x7000, (u64)data, 1, 3);
    reads(A, 0x6000, 71);
    blocked(A, 0x6000, 1, 0x85);
    blocked(A, 0x7000, 0, 0x81);
    blocked(A, 1ul << 50, 0, 0x80);
    map_first(top, 0x40000000, 0x800000, 2, USER);
    *(volatile u64 *)0x801238 = 74;
    reads(A, 0x40001238, 74);
    map_first(top, 0xFFFF800000005000, (u64)data, 1, USER);     /* the upper half */
    reads(A, 0xFFFF800000005000, 71);
    *table_slot(top, 0x40000000, 4, 2, USER) = 0;
    flush_pasid(0, 0x40000000, 1, 9);
    blocked(A, 0x40001238, 0, 0x71);
    reads(A, 0x6000, 71);
    *table_slot(top, 0x6000, 4, 1, USER) = 0;
    flush_pasid(0, 0, 0, 0);
    blocked(A, 0x6000, 0, 0x71);
    SAME(dma_read(A, 0x5000, &value), 0);
}

void nesting(void) {
    if (!bring_up_scalable()) return;
    u64 *second = new_pages(1), *top = new_pages(1), *data = new_pages(2);
    data[0] = 81;
    data[512] = 82;
    map(second, 0, 0, 2, READ | WRITE);                         /* the first level's tables, where they are */
    for (u64 at = 0x200000; at < 0x1000000; at += 0x200000) map(second, at, at, 2, READ | WRITE);
    map(second, 0x10000000, (u64)data, 1, READ | WRITE);
    map_first(top, 0x5000, 0x10000000, 1, USER);
    set_pasid(A, 0, NESTED, second, top);
    reads(A, 0x5000, 81);
    /* The host changes what is beneath: whatever nested through that domain is gone. */
    map(second, 0x10000000, (u64)(data + 512), 1, READ);
    flush_iotlb(SELECTIVE, DID, 0x10000000, 0, 0);
    reads(A, 0x5000, 82);
    blocked(A, 0x5000, 1, 0x85);
    *table_slot(second, 0x10000000, levels(), 1, READ | WRITE) = 0;
    flush_iotlb(SELECTIVE, DID, 0x10000000, 0, 0);
    blocked(A, 0x5000, 0, 0x79);
    /* The guest changes its own: by PASID. */
    map_first(top, 0x5000, (u64)data, 1, USER);
    flush_pasid(0, 0x5000, 1, 0);
    reads(A, 0x5000, 81);
    *table_slot(top, 0x5000, 4, 1, USER) = 0;
    flush_pasid(0, 0x5000, 1, 0);
    blocked(A, 0x5000, 0, 0x71);
}

void passing(void) {
    if (!bring_up_scalable() || !PASS(ecap)) return;
    u64 *top = new_pages(1), *data = new_pages(1);
    data[0] = 91;
    set_pasid(A, 0, PASS_THROUGH, 0, 0);
    reads(A, (u64)data, 91);
    set_pasid(A, 0, SECOND, top, 0);
    blocked(A, (u64)data, 0, 0x79);
    set_pasid(A, 0, PASS_THROUGH, 0, 0);
    reads(A, (u64)data, 91);
    set_pasid(A, 0, 5, 0, 0);
    blocked(A, (u64)data, 0, 0x5B);
}

/* Processes of their own, beside the requests without. */
void pasids(void) {
    if (!bring_up_scalable()) return;
    u64 *second = new_pages(1), *five = new_pages(1), *far = new_pages(1), *data = new_pages(3);
    for (u64 i = 0; i < 3; i++) data[512 * i] = 100 + i;
    set_pasid(A, 0, SECOND, second, 0);
    set_pasid(A, 5, FIRST, 0, five);
    set_pasid(A, 70, FIRST, 0, far);
    map(second, 0x5000, (u64)data, 1, READ);
    flush_iotlb(DOMAIN, DID, 0, 0, 0);
    map_first(five, 0x5000, (u64)(data + 512), 1, USER);
    map_first(far, 0x5000, (u64)(data + 1024), 1, USER);
    engine_pasid = 5;
    blocked(A, 0x5000, 0, 0x45);                                /* the context has not turned them on */
    SAME(faults[0].has_pasid, 1);
    SAME(faults[0].pasid, 5);
    scalable_context(A)[0] |= 1 << 3;
    flush_context(SELECTIVE, 0, A, 0);
    flush_pasid_cache(5);
    reads(A, 0x5000, 101);
    engine_pasid = 70;
    reads(A, 0x5000, 102);
    engine_pasid = NO_PASID;
    reads(A, 0x5000, 100);
    SAME(faults[0].has_pasid, 1);
    /* One of them ends. */
    *pasid_entry(A, 5) = 0;
    flush_pasid_cache(5);
    flush_pasid(5, 0, 0, 0);
    engine_pasid = 5;
    blocked(A, 0x5000, 0, 0x59);
    engine_pasid = 70;
    reads(A, 0x5000, 102);
    engine_pasid = 8192;
    blocked(A, 0x5000, 0, 0x46);                                /* behind the directory */
    engine_pasid = 0;
    blocked(A, 0x5000, 0, 0x48);
    SAME(faults[3].pasid, 0);
    engine_pasid = NO_PASID;
    reads(A, 0x5000, 100);
}
