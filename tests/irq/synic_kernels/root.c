/* The root as a guest (role 2) makes its ports by hypercall and serves a child (role 0) as a host does. */
#include "synic.h"

#define FAST (1UL << 16)
#define VARIABLE(n) ((u64)(n) << 17)
#define AS_INTERCEPT (1UL << 19)
static u64 *const in = (u64 *)input_page, *const out = (u64 *)output_page;
static u64 child;
static u8 ring_page[4096] __attribute__((aligned(4096))), state_page[4096] __attribute__((aligned(4096)));

static u64 port(u64 owner, u32 id, u64 sender, u32 kind, u64 first, u64 second)
{
    u64 words[] = { owner, id, sender, kind, first, second, 0 };
    for (int i = 0; i < 7; i++)
        in[i] = words[i];
    return hypercall(0x95, (u64)in, 0);
}

static u64 connect(u64 sender, u32 id, u64 owner, u32 to, u32 kind, u64 gpa, u64 value, u64 flags)
{
    u64 words[] = { sender, id, owner, to, kind, gpa, value, flags, 0 };
    for (int i = 0; i < 9; i++)
        in[i] = words[i];
    return hypercall(0x96, (u64)in, 0);
}

static u64 post(u32 connection, u32 type, u64 word)
{
    in[0] = connection, in[1] = type | 8UL << 32, in[2] = word;
    return hypercall(0x5C, (u64)in, 0);
}

static u64 signal(u32 connection, u32 flag) { return hypercall(0x5D | FAST, connection | (u64)flag << 32, 0); }

static u64 pair(u64 code, u64 a, u64 b) { return in[0] = a, in[1] = b, hypercall(code, (u64)in, 0); }

static u64 get_state(u32 kind, u64 page)
{
    in[0] = child, in[1] = 0, in[2] = kind, in[3] = in[4] = 0, in[5] = page >> 12;
    return hypercall(0xE3 | (kind >> 31 ? VARIABLE(1) : 0), (u64)in, (u64)out);
}

static u64 set_state(u32 kind, u64 page)
{
    in[0] = child, in[1] = 0, in[2] = kind, in[3] = in[4] = 0, in[5] = page >> 12;
    if (!(kind >> 31))
        for (int i = 0; i < 25; i++)
            in[5 + i] = out[i];
    return hypercall(0xE4 | VARIABLE(kind >> 31 ? 1 : 25), (u64)in, 0);
}

static void wait_slot(int number, u32 type)
{
    u64 start = now();
    while (slot(number)->type != type && now() - start < 100000)
        pause();
    check("message", slot(number)->type, type);
}

static void root(void)
{
    struct message copy;
    child = *(volatile u64 *)0x1F0038;
    section("root");
    check("id", hypercall(0x46, 0, (u64)out), 0), check("id", out[0], 1);
    synic_on();
    wrmsr(SIRBP, (u64)ring_page | 1);
    sint(0, POLLING), sint(2, 0x52), sint(3, 0x53), sint(5, 0x55 | AS_INTERCEPT);
    check("bit 19 is kept", rdmsr(SINT0 + 5), 0x55 | AS_INTERCEPT);

    section("ports that cannot be");
    check("SINT0", port(1, 1, child, 1, 0, 0), 5);
    check("SINT16", port(1, 1, child, 1, 16, 0), 5);
    check("type 5", port(1, 1, child, 5, 2, 0), 5);
    check("VP 9", port(1, 1, child, 1, 2 | 9UL << 32, 0), 0xE);
    check("to itself", port(1, 1, 1, 1, 2, 0), 0xD);
    check("unknown owner", port(99, 1, child, 1, 2, 0), 0xD);
    check("id of 25 bits", port(1, 1 << 24, child, 1, 2, 0), 0x11);
    check("events beyond", port(1, 1, child, 2, 2, 2000 | 49UL << 16), 5);
    check("no events", port(1, 1, child, 2, 2, 2000), 5);
    section("ports");
    check("message", port(1, 1, child, 1, 2, 0), 0);
    check("again", port(1, 1, child, 1, 2, 0), 0x11);
    check("events", port(1, 2, child, 2, 3, 0 | 64UL << 16), 0);
    check("doorbell", port(1, 3, child, 4, 5, 0), 0);
    check("child's message", port(child, 1, 1, 1, 2, 0), 0);
    check("child's events", port(child, 2, 1, 2, 3, 100 | 64UL << 16), 0);
    section("connections");
    check("of another type", connect(child, 1, 1, 1, 2, 0, 0, 0) != 0, 1);
    check("no such port", connect(child, 1, 1, 9, 1, 0, 0, 0), 0x11);
    check("root", connect(1, 1, child, 1, 1, 0, 0, 0), 0);
    check("root", connect(1, 2, child, 2, 2, 0, 0, 0), 0);
    check("id in use", connect(1, 2, child, 1, 1, 0, 0, 0), 0x12);
    check("a port has one connection", connect(1, 3, child, 1, 1, 0, 0, 0), 0x11);
    check("child's doorbell", connect(child, 3, 1, 3, 4, 0xC0000200, 0, 1UL << 31), 0);
    check("child's events", connect(child, 2, 1, 2, 2, 0, 0, 0), 0);
    check("child's messages", connect(child, 1, 1, 1, 1, 0, 0, 0), 0);

    section("from the child");
    wait_slot(2, 0x11);
    check("word", slot(2)->words[0], 0x1234);
    check("sender is the port", slot(2)->sender, 1);
    TRUE("interrupt", wait_for(0, 0x52, 1));
    take(2, 0);
    TRUE("event", wait_for(0, 0x53, 1));
    check("flag", flags_of(3)[0], 1UL << 9);
    TRUE("doorbell", wait_for(0, 0x55, 1));
    u32 *ring = (u32 *)(ring_page + 5 * 256);
    check("entry", ring[1], 3);
    check("masked", ring_page[5 * 256], 1);
    check("as intercept, too", slot(0)->type, 0x80000061);
    check("its SINT", slot(0)->words[0], 5);
    take(0, 0);
    ring[1] = 0, ring_page[5 * 256] = 0;
    check("ring empty", hypercall(0x8B | FAST, 5, 0), 0);

    section("to the child");
    for (u64 i = 0; i < 17; i++)
        check("post", post(1, 0x21, i), 0);
    check("full", post(1, 0x21, 17), 0x13);
    check("signal", signal(2, 63), 0), check("beyond", signal(2, 64), 5);
    in[0] = child, in[1] = 0 | 5UL << 40 | 77UL << 48;
    check("direct signal", hypercall(0xC0, (u64)in, (u64)out), 0), check("newly", out[0] & 0xFF, 1);
    in[0] = child, in[1] = 0 | 5UL << 40 | 77UL << 48;
    check("direct signal", hypercall(0xC0, (u64)in, (u64)out), 0), check("not newly", out[0] & 0xFF, 0);
    in[0] = child, in[1] = 0, in[2] = 0, in[3] = 0x60;
    check("assert", hypercall(0x94, (u64)in, 0), 0);

    section("state");
    wait_slot(2, 0x12);                     /* the child stands still with interrupts off */
    check("SIM page", get_state(1UL << 31 | 2, (u64)state_page), 0);
    check("its slot 2", *(u32 *)(state_page + 512), 0x21);
    check("SIEF page", get_state(1UL << 31 | 3, (u64)state_page), 0);
    check("its flags", *(u64 *)(state_page + 3 * 256 + 16), 1UL << (163 - 128));
    check("timers", get_state(4, 0), 0);
    check("config", out[1], T_DIRECT | T_VECTOR(0x61) | T_PERIODIC), check("count", out[2], 12345);
    check("back", set_state(4, 0), 0);
    check("APIC", get_state(1UL << 31, (u64)state_page), 0);
    check("requested", ((u32 *)state_page)[21 + 3] & 1, 1);
    ((u32 *)state_page)[21 + 3] |= 2;       /* 61h, too */
    check("back", set_state(1UL << 31, (u64)state_page), 0);
    ((u32 *)state_page)[1] = 0;
    check("of no APIC", set_state(1UL << 31, (u64)state_page), 5);
    check("XSAVE", get_state(1UL << 31 | 1, (u64)state_page), 5);

    section("go on");
    TRUE("taken", take(2, &copy));
    check("event", signal(2, 0), 0);
    wait_slot(2, 0x13);
    check("the child has found nothing wrong", slot(2)->words[0], 0);
    take(2, 0);
    section("the end of ports");
    in[0] = child, in[1] = 1, in[2] = 0;
    check("post count", hypercall(0x5A, (u64)in, (u64)out), 0), check("post count", out[0], 17);
    in[0] = child, in[1] = 1, in[2] = 7;
    check("unknown property", hypercall(0x5A, (u64)in, (u64)out), 9);
    check("delete", pair(0x58, child, 1), 0);
    check("dead connection", post(1, 0x21, 0), 0x11);
    check("disconnect", pair(0x5B, 1, 1), 0);
    check("no connection", post(1, 0x21, 0), 0x12);
    check("delete again", pair(0x58, child, 1), 0x11);
    check("delete", pair(0x58, 1, 1), 0);
}

static volatile u32 words;
static void count(struct frame *frame)
{
    struct message copy;
    while (take(2, &copy))
        words += copy.words[0] == words && copy.type == 0x21;
    finish_interrupt(ending[frame->vector]);
}

static void guest(void)
{
    section("child");
    hooks[0x52] = count;
    cli();
    synic_on(), sint(2, 0x52), sint(3, POLLING), sint(5, POLLING);
    wrmsr(STIMER0, T_DIRECT | T_VECTOR(0x61) | T_PERIODIC), wrmsr(STIMER0 + 1, 12345);
    u64 status;
    while ((status = post(1, 0x11, 0x1234)) != 0)
        if (status != 0x12)
            check("waiting for a connection", status, 0x12);
    check("signal", signal(2, 9), 0);
    *(volatile u32 *)0xC0000200UL = 5;
    while (!(flags_of(5)[1] >> 13))
        pause();
    for (int i = 0; i < 1000; i++)
        pause();
    check("tell", post(1, 0x12, 0), 0);
    while (!(flags_of(3)[1] >> 36 & 1))
        pause();
    sti();
    spin(50);
    check("messages", words, 17);
    check("asserted by the root", seen[0][0x60], 1);
    check("put into its image", seen[0][0x61], 1);
    check("flags", flags_of(3)[2], 1UL << 35);
    check("tell", post(1, 0x13, words != 17), 0);
}

void test(void)
{
    if (role == 2)
        root();
    else
        guest();
}
