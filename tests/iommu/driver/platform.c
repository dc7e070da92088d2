/* What is neither pages nor interrupts: protected memory, the interrupt addresses, errors of the queue. */
#include "vtd.h"

enum { A = 0x0308 };

void protection(void) {
    u64 value;
    volatile u64 *low = (volatile u64 *)0x600000, *above = (volatile u64 *)0x800000;
    open_unit();
    if (!PLMR(cap)) return;
    low[0] = 51;
    above[0] = 52;
    put32(PLMLIMIT, ~0u);
    u32 grain = ~get32(PLMLIMIT) + 1;                           /* bits that are not there read 0 */
    CHECK(grain && !(grain & (grain - 1)) && grain <= 0x200000);
    put32(PLMBASE, 0x600000);
    put32(PLMLIMIT, 0x600000);
    put64(PHMBASE, 1ul << 32);
    put64(PHMLIMIT, 1ul << 32);
    put32(PMEN, 1u << 31);
    CHECK(get32(PMEN) & 1);
    CHECK(dma_read(A, (u64)low, &value));
    SAME(dma_read(A, (u64)above, &value), 0);
    SAME(dma_read(A, (u64)low - 8, &value), 0);
    stop_protection();
    SAME(dma_read(A, (u64)low, &value), 0);
    SAME(value, 51);
}

/* FEEx_xxxxh is no memory, whatever is mapped there. */
void addresses(void) {
    u64 value, *top = new_pages(1), *data = new_pages(1);
    bring_up(1);
    give_domain(A, 5, top, 0);
    map(top, 0xFEE00000, (u64)data, 1, READ | WRITE);
    map(top, 0x5000, 0xFEE00000, 1, READ | WRITE);
    flush_iotlb(DOMAIN, 5, 0, 0, 0);
    SAME(dma_message(A, 0xFEE00000, FIRST_DEVICE_VECTOR), 0);
    breathe();
    SAME(interrupts[FIRST_DEVICE_VECTOR], 1);
    SAME(data[0], 0);
    CHECK(dma_write(A, 0xFEE00000, 1));         /* eight bytes are an illegal request there, as reads are */
    SAME(data[0], 0);
    breathe();
    SAME(fault_count, 1);
    SAME(faults[0].reason, 0x29);
    SAME(faults[0].write, 1);
    CHECK(dma_read(A, 0xFEE00000, &value));
    breathe();
    SAME(fault_count, 2);
    SAME(faults[1].reason, 0x29);
    SAME(faults[1].write, 0);
    CHECK(dma_write(A, 0x5000, FIRST_DEVICE_VECTOR));
    breathe();
    SAME(fault_count, 3);                       /* tables do not lead there either */
    SAME(faults[2].reason, 0xE);
    SAME(interrupts[FIRST_DEVICE_VECTOR], 1);
}

/* A descriptor that is none: the queue stops there, says so, and goes on when it is replaced. */
static void bad_descriptor(u64 low, u64 high, u32 error, u32 number) {
    u64 head = get64(IQH), *at;
    static volatile u32 *word;
    if (!word) word = new_pages(1);
    *word = 1;
    at = submit(low, high);
    submit(5 | 1 << 5 | 3ul << 32, (u64)word);
    put64(IQT, (get64(IQT) + (SMTS(ecap) ? 64 : 32)) % (SMTS(ecap) ? 2 * PAGE : PAGE));
    SAME(get32(FSTS) & 0x70, IQE);
    SAME(get64(IQERCD) & 15, error);
    SAME(get64(IQH), head);
    SAME(*word, 1);
    breathe();
    SAME(fault_interrupts, number);
    SAME(fault_count, 0);
    at[0] = 5 | 1 << 5 | 4ul << 32;
    at[1] = (u64)word + 4;
    put32(FSTS, IQE);
    SAME(get32(FSTS) & 0xFF, 0);
    SAME(word[0], 3);
    SAME(word[1], 4);
    SAME(get64(IQH), get64(IQT));
}

void queue_errors(void) {
    volatile u32 *word = new_pages(1);
    bring_up(1);
    if (!queued) return;
    bad_descriptor(15, 0, 3, 1);
    bad_descriptor(0, 0, 3, 2);
    bad_descriptor(1 | 1 << 4 | 1 << 8, 0, 4, 3);
    bad_descriptor(2 | 3 << 4, MAMV(cap) + 1, 4, 4);
    for (int i = 0; i < 600; i++) flush_iotlb(GLOBAL, 0, 0, 0, 0);      /* round and round */

    /* A wait that interrupts. */
    put32(IEDATA, WAIT_VECTOR);
    put32(IEADDR, 0xFEE00000);
    put32(IEUADDR, 0);
    put32(IECTL, 0);
    submit(5 | 1 << 4, 0);
    wait_for_queue();
    breathe();
    SAME(wait_interrupts, 1);
    SAME(get32(ICS), 0);
    put32(IECTL, MASKED);
    submit(5 | 1 << 4 | 1 << 5 | 7ul << 32, (u64)word);
    wait_for_queue();
    SAME(*word, 7);
    SAME(get32(ICS), 1);
    SAME(get32(IECTL), MASKED | PENDING);
    put32(IECTL, 0);
    breathe();
    SAME(wait_interrupts, 2);
    SAME(get32(IECTL), 0);

    /* Tails that no queue has, and a queue that is nowhere. */
    u64 tail = get64(IQT);
    put64(IQT, 0x7FFE0);
    SAME(get64(IQERCD) & 15, 1);
    CHECK(get32(FSTS) & IQE);
    put64(IQT, tail);
    put32(FSTS, IQE);
    SAME(get32(FSTS) & 0xFF, 0);
    if (SMTS(ecap)) {
        put64(IQT, tail ^ 16);
        SAME(get64(IQERCD) & 15, 6);
        put64(IQT, tail);
        put32(FSTS, IQE);
    }
    stop_queue();
    put64(IQT, 0);
    put64(IQA, 0x2000000ul | (SMTS(ecap) ? 1 << 11 : 0));
    command(QIE, 1);
    SAME(get32(FSTS) & IQE, 0);
    put64(IQT, 32);
    SAME(get64(IQERCD) & 15, 2);
    command(QIE, 0);
    put32(FSTS, IQE);
    SAME(get32(FSTS) & 0xFF, 0);
    start_queue();
    flush_iotlb(GLOBAL, 0, 0, 0, 0);
}
