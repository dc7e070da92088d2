/* Interrupts of devices and lines (4.11): messages, HvCallRetargetDeviceInterrupt as Linux calls it, routed sources. */
#include "synic.h"

#define DEVICE (1UL << 62 | 0x0300)
#define SELF_ID (~0UL)
static u64 *const in = (u64 *)input_page;

static u64 retarget(u64 device, u32 address, u32 data, u32 vector, u32 flags, u64 mask, u32 banks, u64 valid, u64 bank0)
{
    in[0] = SELF_ID, in[1] = device, in[2] = 1, in[3] = address | (u64)data << 32, in[4] = 0;
    in[5] = vector | (u64)flags << 32, in[6] = mask, in[7] = valid, in[8] = bank0;
    return hypercall(0x7E | (u64)banks << 17, (u64)in, 0);
}

static u64 where(int vector)
{
    u64 set = 0;
    spin(500);
    for (int i = 0; i < processors; i++)
        set |= (u64)(seen[i][vector] != 0) << i;
    forget();
    return set;
}

static u64 send(u32 address, u32 data) { return host(OP_MSI, DEVICE, address, data, 0); }

static volatile u32 left;
static void release(struct frame *frame)
{
    if (!--left)
        host(OP_LINE, 0, 0, 0, 0);
    finish_interrupt(END_MSR);
    (void)frame;
}

void test(void)
{
    u64 all = (1UL << processors) - 1, top = 1UL << (processors - 1);
    section("messages");
    host(OP_GIVE, DEVICE, 0, 0, 0);
    send(0xFEE00000, 0x60);
    check("to processor 0", where(0x60), 1);
    send(0xFEE00000 | (u32)(processors - 1) << 12, 0x61);
    check("to the last", where(0x61), top);
    send(0xFEEFF000, 0x62);
    check("to all", where(0x62), all);
    send(0xFEE00000, 0x0F);
    check("illegal vector", where(0x0F), 0);

    section("retargeted");
    check("mask", retarget(DEVICE, 0xFEE00000, 0x60, 0x66, 0, top, 0, 0, 0), 0);
    send(0xFEE00000, 0x60);
    check("where", where(0x66), top);
    check("not as it reads", where(0x60), 0);
    check("set", retarget(DEVICE, 0xFEE00000, 0x60, 0x67, 2, 0, 2, 1, 1), 0);
    send(0xFEE00000, 0x60);
    check("where", where(0x67), 1);
    check("multicast", retarget(DEVICE, 0xFEE00000, 0x60, 0x68, 3, 0, 2, 1, all), 0);
    send(0xFEE00000, 0x60);
    check("where", where(0x68), all);
    check("bad vector", retarget(DEVICE, 0xFEE00000, 0x60, 3, 0, 1, 0, 0, 0), 5);
    check("reserved flag", retarget(DEVICE, 0xFEE00000, 0x60, 0x66, 8, 1, 0, 0, 0), 5);
    check("no processor", retarget(DEVICE, 0xFEE00000, 0x60, 0x66, 0, 0, 0, 0, 0), 5);
    check("another's device", retarget(1UL << 62 | 0x9900, 0xFEE00000, 0x60, 0x66, 0, 1, 0, 0, 0) != 0, 1);
    send(0xFEE00000, 0x60);
    check("as before", where(0x68), all);

    section("a line");
    hooks[0x70] = release;
    host(OP_ROUTE, (u64)(processors - 1), 0x70, 0, 0);
    left = 3;
    host(OP_LINE, 1, 0, 0, 0);
    u64 start = now();
    while (left && now() - start < 10000)
        pause();
    check("comes again until it is released", left, 0);
    spin(500);
    check("three times", seen[processors - 1][0x70], 3);
}
