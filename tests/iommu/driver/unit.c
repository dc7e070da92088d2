/* Bringing a unit up and talking to it: the order and the manners of a driver that also has to run on other units. */
#include "vtd.h"

u64 cap, ecap;
u64 *root_table;
int queued;

static u32 state;                       /* of GCMD, without one-shots */
static u64 *queue;
static u32 queue_at, queue_step;
static volatile u32 *waited;
static int scalable;

/* DMAR: the one DRHD that has all of PCI, with the I/O APIC in its scope. */
void find_units(const u8 *dmar) {
    u32 length = *(const u32 *)(dmar + 4), found = 0, io_apics = 0;
    u8 sum = 0;
    SAME(*(const u32 *)dmar, 0x52414D44);
    for (u32 i = 0; i < length; i++) sum += dmar[i];
    SAME(sum, 0);
    CHECK(dmar[36] >= 35 && dmar[36] <= 63);            /* address width - 1 */
    for (const u8 *at = dmar + 48; at < dmar + length; at += *(const u16 *)(at + 2)) {
        u16 type = *(const u16 *)at, size = *(const u16 *)(at + 2);
        CHECK(size >= 4 && at + size <= dmar + length);
        if (type != 0) continue;
        CHECK(at[4] & 1);                               /* INCLUDE_PCI_ALL */
        SAME(*(const u16 *)(at + 6), 0);
        unit = (volatile u8 *)*(const u64 *)(at + 8);
        found++;
        for (const u8 *scope = at + 16; scope < at + size; scope += scope[1]) {
            CHECK(scope[1] >= 8);
            io_apics += scope[0] == 3;
        }
    }
    SAME(found, 1);
    SAME(io_apics, 1);
}

void open_unit(void) {
    cap = get64(CAP);
    ecap = get64(ECAP);
    CHECK(cap != ~0ul && ecap != ~0ul);
    CHECK(get32(VER) >> 4 & 15);
    SAME(get32(GCMD), 0);
    SAME(get64(VCCAP), 0);              /* some kernels look whatever ECAP says */
    CHECK(SAGAW(cap) & 6);
    state = get32(GSTS) & ~ONE_SHOTS;
}

/* One bit at a time, and wait for it. */
u32 command(u32 bit, int on) {
    u32 one_shot = bit & ONE_SHOTS;
    if (on && !one_shot) state |= bit;
    if (!on) state &= ~bit;
    put32(GCMD, state | one_shot);
    for (int i = 0; i < 1000; i++) {
        u32 now = get32(GSTS);
        if (bit == WBF ? !(now & WBF) : !(now & bit) == !on) return now;
    }
    fail(__FILE_NAME__, __LINE__, bit);
}

static void flush_write_buffer(void) {
    if (RWBF(cap)) command(WBF, 1);
}

void set_root(u64 table, int mode) {
    scalable = mode;
    put64(RTADDR, table | (u64)mode << 10);
    SAME(get64(RTADDR), table | (u64)mode << 10);
    command(SRTP, 1);
    flush_context(GLOBAL, 0, 0, 0);
    if (scalable) {
        submit(7 | 3 << 4, 0);
        wait_for_queue();
    }
    flush_iotlb(GLOBAL, 0, 0, 0, 0);
}

void start_queue(void) {
    queue = new_pages(SMTS(ecap) ? 2 : 1);
    waited = new_pages(1);
    queue_step = SMTS(ecap) ? 4 : 2;                    /* quadwords */
    queue_at = 0;
    put64(IQT, 0);
    put64(IQA, (u64)queue | (SMTS(ecap) ? 1 << 11 | 1 : 0));
    command(QIE, 1);
    SAME(get64(IQH), 0);
    queued = 1;
}

/* Let it run dry, then turn it off. */
void stop_queue(void) {
    for (int i = 0; get64(IQT) != get64(IQH); i++) CHECK(i < 1000);
    command(QIE, 0);
    queued = 0;
}

static u64 queue_bytes(void) { return SMTS(ecap) ? 2 * PAGE : PAGE; }

u64 *submit(u64 low, u64 high) {
    u64 *at = queue + queue_at / 8;
    at[0] = low;
    at[1] = high;
    if (queue_step == 4) at[2] = at[3] = 0;
    queue_at = (u32)((queue_at + 8 * queue_step) % queue_bytes());
    return at;
}

/* A wait descriptor that writes 2, and errors looked for meanwhile. */
void wait_for_queue(void) {
    *waited = 1;
    submit(5 | 1 << 5 | 2ul << 32, (u64)waited);
    put64(IQT, queue_at);
    for (int i = 0; *waited != 2; i++) {
        CHECK(i < 1000);
        if (get32(FSTS) & 0x70) fail(__FILE_NAME__, __LINE__, get32(FSTS) | get64(IQERCD) << 32);
    }
    SAME(get64(IQH), queue_at);
}

void flush_context(int granularity, u16 did, u16 source, u8 mask) {
    flush_write_buffer();
    if (queued) {
        submit(1 | (u64)granularity << 4 | (u64)did << 16 | (u64)source << 32 | (u64)mask << 48, 0);
        wait_for_queue();
        return;
    }
    put64(CCMD, 1ul << 63 | (u64)granularity << 61 | (u64)mask << 32 | (u64)source << 16 | did);
    for (int i = 0; get64(CCMD) >> 63; i++) CHECK(i < 1000);
    CHECK((get64(CCMD) >> 59 & 3) && (get64(CCMD) >> 59 & 3) <= (u64)granularity);
}

/* `mask`: log2 of the pages. Wider than the unit can: the whole domain. */
void flush_iotlb(int granularity, u16 did, u64 address, u8 mask, int hint) {
    u32 at = (u32)IRO(ecap);
    if (granularity == SELECTIVE && (!PSI(cap) || mask > MAMV(cap))) granularity = DOMAIN;
    flush_write_buffer();
    u64 range = granularity == SELECTIVE ? address | (u64)hint << 6 | mask : 0;
    if (queued) {
        submit(2 | (u64)granularity << 4 | (cap >> 54 & 1) << 6 | (cap >> 55 & 1) << 7 | (u64)did << 16, range);
        wait_for_queue();
        return;
    }
    if (granularity == SELECTIVE) put64(at, range);
    put64(at + 8, 1ul << 63 | (u64)granularity << 60 | (cap >> 55 & 1) << 49 | (cap >> 54 & 1) << 48 | (u64)did << 32);
    for (int i = 0; get64(at + 8) >> 63; i++) CHECK(i < 1000);
    CHECK((get64(at + 8) >> 57 & 3) && (get64(at + 8) >> 57 & 3) <= (u64)granularity);
}

void start_fault_event(void) {
    put32(FEDATA, FAULT_VECTOR);
    put32(FEADDR, 0xFEE00000);
    put32(FEUADDR, 0);
    put32(FECTL, 0);
    get32(FECTL);
}

void stop_protection(void) {
    if (!PLMR(cap) && !PHMR(cap)) return;
    put32(PMEN, get32(PMEN) & ~(1u << 31));
    for (int i = 0; get32(PMEN) & 1; i++) CHECK(i < 1000);
}

void bring_up(int by_queue) {
    open_unit();
    SAME(get32(GSTS), 0);
    put32(FSTS, 0x71);
    root_table = new_pages(1);
    if (by_queue && QI(ecap)) start_queue();
    set_root((u64)root_table, 0);
    start_fault_event();
    stop_protection();
    command(TE, 1);
}

/* Tables. */

u64 *context_of(u16 source) {
    u64 *entry = root_table + 2 * (source >> 8);
    if (!(entry[0] & 1)) entry[0] = (u64)new_pages(1) | 1;
    return (u64 *)(entry[0] & ~0xFFFul) + 2 * (source & 255);
}

int address_width(void) { return SAGAW(cap) & 4 ? 2 : 1; }
int levels(void) { return address_width() + 2; }

u64 *table_slot(u64 *top, u64 iova, int depth, int leaf, u64 link) {
    for (int level = depth; level > leaf; level--) {
        u64 *slot = top + (iova >> (3 + 9 * level) & 511);
        if (!(*slot & 1)) *slot = (u64)new_pages(1) | link;
        top = (u64 *)(*slot & 0xFFFFFFFFFF000ul);
    }
    return top + (iova >> (3 + 9 * leaf) & 511);
}

void map(u64 *top, u64 iova, u64 page, int leaf, u64 bits) {
    *table_slot(top, iova, levels(), leaf, READ | WRITE) = page | bits | (leaf > 1 ? LARGE : 0);
}

void give_domain(u16 source, u16 did, u64 *top, int type) {
    u64 *entry = context_of(source);
    entry[1] = (u64)did << 8 | (u64)address_width();
    entry[0] = (u64)top | (u64)type << 2 | 1;
    if (CACHING(cap)) {                 /* the unit may know that there was none */
        flush_context(SELECTIVE, 0, source, 0);
        flush_iotlb(DOMAIN, did, 0, 0, 0);
    } else {
        flush_write_buffer();
    }
}
