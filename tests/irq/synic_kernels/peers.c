/* Two partitions: messages and events by hypercall, doorbells, monitored pages (4.8, 9.5). Role 0 sends, 1 receives. */
#include "synic.h"

enum { COUNT = 400 };
#define FAST (1UL << 16)
static volatile u64 last[2], got[2], wrong, events, event_sum;
static u8 monitor[4096] __attribute__((aligned(4096)));

static void messages(struct frame *frame)
{
    struct message copy;
    for (int s = 2; s < 4; s++)
        while (take(s, &copy)) {
            u64 word = copy.words[0];
            wrong += word != last[s - 2] + 1;
            wrong += copy.type != 0x100U + (u32)s || copy.size != 8 + (word & 31) * 7 || copy.flags > 1;
            wrong += copy.size > 16 && copy.words[1] != ~word;
            last[s - 2] = word;
            got[s - 2]++;
        }
    finish_interrupt(ending[frame->vector]);
}

static void flags(struct frame *frame)
{
    for (u32 i = 0; i < 32; i++) {
        u64 taken = 0;
        __asm__ volatile("lock xchg %0, %1" : "+r"(taken), "+m"(flags_of(5)[i]) : : "memory");
        for (u32 b = 0; b < 64; b++)
            if (taken >> b & 1)
                events++, event_sum += i * 64 + b;
    }
    finish_interrupt(ending[frame->vector]);
}

static u64 post(u32 connection, u32 type, u64 word, u32 size)
{
    u32 *in = (u32 *)input_page;
    in[0] = connection, in[1] = 0, in[2] = type, in[3] = size;
    ((u64 *)in)[2] = word, ((u64 *)in)[3] = ~word;
    return hypercall(0x5C, (u64)in, 0);
}

static u32 retry_count;
static void post_surely(u32 connection, u32 type, u64 word, u32 size)
{
    u64 status;
    while ((status = post(connection, type, word, size)) == 0x13) {
        retry_count++;
        spin(50);
    }
    if (status)
        check("status", status, 0);
}

static u64 signal(u32 connection, u32 flag) { return hypercall(0x5D | FAST, connection | (u64)flag << 32, 0); }

static void send(void)
{
    synic_on(), sint(7, 0x57);
    section("refused");
    check("no connection", post(77, 1, 0, 8), 0x12);
    check("no connection", signal(77, 0), 0x12);
    host(OP_PEER_MESSAGE, 1, 2, 0, 0);
    host(OP_PEER_MESSAGE, 2, 3, ANY_VP, 0);
    host(OP_PEER_EVENT, 3, 5, 0, 64 | 1000 << 16);
    u64 status;
    while ((status = post(2, 0x103, 1, 8 + 7)) == 0x18)      /* until the other one has its SynIC on */
        pause();
    check("first", status, 0);
    check("type 0", post(1, 0, 0, 8), 5);
    check("type of the hypervisor", post(1, 0x80000001, 0, 8), 5);
    check("size 241", post(1, 1, 0, 241), 5);
    check("an event connection", post(3, 1, 0, 8), 0x11);
    check("a message connection", signal(1, 0), 0x11);
    check("fast", hypercall(0x5C | FAST, 1, 0), 3);
    check("flag 1000", signal(3, 1000), 5);
    section("messages");
    for (u64 i = 1; i <= COUNT; i++) {
        post_surely(1, 0x102, i, 8 + (i & 31) * 7);
        if (i > 1)
            post_surely(2, 0x103, i, 8 + (i & 31) * 7);
    }
    section("events");
    for (u32 f = 0; f < 1000; f++)
        if (signal(3, f))
            check("signal", f, 0);
    ((u32 *)input_page)[0] = 3, ((u32 *)input_page)[1] = 999;
    check("in memory", hypercall(0x5D, (u64)input_page, 0), 0);
    section("doorbells");
    host(OP_DOORBELL, 10, 0xC0000000, 0x1234, 3);
    u64 any = host(OP_DOORBELL, 11, 0xC0000100, 0, 1UL << 31);
    *(volatile u32 *)0xC0000000UL = 0;
    *(volatile u32 *)0xC0000100UL = 99;
    check("rung", host(OP_RING, 0, 0, 0, 0), any);
    *(volatile u32 *)0xC0000000UL = 0x1234;
    check("by its value", host(OP_RING, 1, 0, 0, 0), any - 1);
    *(volatile u8 *)0xC0000100UL = 1;
    check("of any size", host(OP_RING, 2, 0, 0, 0), any);
    check("no more", host(OP_RING, 3, 0, 0, 0), 0);
    section("monitored page");
    host(OP_PEER_EVENT, 4, 6, 0, 0 | 32 << 16);
    host(OP_PEER_MONITOR, 20, (u64)monitor, 0x9000000, 0);
    *(volatile u16 *)(monitor + 576 + 2 * 5) = 200;
    *(volatile u64 *)(monitor + 1088 + 8 * 5) = 4 | 7UL << 32;
    *(volatile u32 *)monitor = 1;
    spin(1500);             /* groups are looked for once in 100 us */
    u64 start = now();
    __asm__ volatile("lock btsl $5, %0" : "+m"(*(u32 *)(monitor + 8)));
    while (*(volatile u32 *)(monitor + 8) && now() - start < 10000)
        pause();
    between("cleared within its latency", now() - start, 0, 210);
    section("both halt over a pending trigger");
    host(OP_PEER_EVENT, 5, 8, 0, 0 | 32 << 16);
    *(volatile u64 *)(monitor + 1088 + 8 * 5) = 5 | 3UL << 32;
    start = now();
    __asm__ volatile("lock btsl $5, %0" : "+m"(*(u32 *)(monitor + 8)));
    while (!seen[0][0x57])
        halt();
    between("answered", now() - start, 1, 400);
    section("monitored page");
    *(volatile u32 *)monitor = 0;
    *(volatile u32 *)(monitor + 8) = 32;
    spin(2000);
    check("a group that is off", *(volatile u32 *)(monitor + 8), 32);
    post_surely(1, 0x102, COUNT + 1, 8 + ((COUNT + 1) & 31) * 7);
}

static void answer(struct frame *frame)
{
    signal(1, 0);
    finish_interrupt(ending[frame->vector]);
}

static void receive(void)
{
    section("received");
    host(OP_PEER_EVENT, 1, 7, 0, 0 | 1 << 16);
    hooks[0x58] = answer, sint(8, 0x58);
    hooks[0x52] = messages, hooks[0x55] = flags;
    sint(2, 0x52), sint(3, 0x52), sint(5, 0x55), sint(6, POLLING);
    synic_on();
    while (got[0] < COUNT + 1)
        halt();
    spin(100);
    check("from the first port", got[0], COUNT + 1);
    check("from the second", got[1], COUNT);
    check("wrong", wrong, 0);
    between("events", events, 1000, 1001);
    between("their numbers", event_sum, 1000 * 64 + 499500, 1000 * 64 + 499500 + 64 + 999);
    check("the monitored page's event", flags_of(6)[0], 1 << 7);
}

void test(void)
{
    if (role == 0)
        send();
    else
        receive();
}
