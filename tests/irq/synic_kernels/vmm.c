/* The root as a virtualization host: it makes a partition, runs it, answers its intercepts by SINT0 (4, 8, 12.4). */
#include "synic.h"

enum { CHILD_PAGES = 16, POOL_PAGES = 500, R_RAX = 0x20000, R_RIP = 0x20010 };
static u8 memory[CHILD_PAGES][4096] __attribute__((aligned(4096)));
static u8 pool[POOL_PAGES][4096] __attribute__((aligned(4096)));
static u64 *const in = (u64 *)input_page, *const out = (u64 *)output_page;
static u64 child, returned;
static volatile u32 intercepts;
static struct message message;

static void take_intercept(struct frame *frame)
{
    if (take(0, &message))
        intercepts++;
    finish_interrupt(ending[frame->vector]);
}

static u64 simple(u64 code, u64 a, u64 b, u64 c, u64 d, u64 e)
{
    in[0] = a, in[1] = b, in[2] = c, in[3] = d, in[4] = e, in[5] = in[6] = 0;
    return hypercall(code, (u64)in, (u64)out);
}

static u64 deposit(u64 to, u8 (*pages)[4096], u64 count)
{
    for (u64 done = 0; done < count; done += 100) {
        in[0] = to;
        for (u64 i = 0; i < 100; i++)
            in[1 + i] = (u64)pages[done + i] >> 12;
        u64 result = hypercall(0x48 | 100UL << 32, (u64)in, 0);
        if (result != 100UL << 32)
            return result;
    }
    return 0;
}

static u64 set_register(u32 name, u64 low, u64 high)
{
    in[0] = child, in[1] = 0, in[2] = name, in[3] = 0, in[4] = low, in[5] = high;
    return hypercall(0x51 | 1UL << 32, (u64)in, 0);
}

static u64 get_register(u32 name)
{
    in[0] = child, in[1] = 0, in[2] = name;
    check("get register", hypercall(0x50 | 1UL << 32, (u64)in, (u64)out), 1UL << 32);
    return out[0];
}

static void expect(const char *name, u32 type, u32 size)
{
    static u32 wanted;
    wanted++;
    u64 start = now();
    while (intercepts < wanted && now() - start < 100000)
        pause();
    check(name, intercepts, wanted);
    check(name, message.type, type);
    check(name, message.size, size);
    check("sender", message.sender, child);
    check("suspended", get_register(1) & 1, 1);
}

static void go_on(u64 length)
{
    u64 done = 1UL << 32;
    if (length)
        check("RIP", set_register(R_RIP, get_register(R_RIP) + length, 0), done);
    check("go on", set_register(1, 0, 0), done);
}

static const u8 program[] = {
    0xB0, 0x41, 0xE6, 0x10,                     /* mov al, 41h; out 10h, al */
    0xE4, 0x11, 0x88, 0x04, 0x25, 0, 0x50, 0, 0,        /* in al, 11h; mov [5000h], al */
    0x31, 0xC0, 0x0F, 0xA2,                     /* xor eax, eax; cpuid */
    0x89, 0x04, 0x25, 0, 0, 0x10, 0,            /* mov [100000h], eax */
    0xB9, 0x34, 0x12, 0, 0, 0x0F, 0x32,         /* mov ecx, 1234h; rdmsr */
    0xB9, 0x80, 0, 0, 0x40, 0xB8, 1, 0, 0, 0, 0x31, 0xD2, 0x0F, 0x30,   /* SCONTROL = 1 */
    0x0F, 0x0B,                                 /* ud2 */
    0xB0, 0x7E, 0xE6, 0x10, 0xFA, 0xF4,         /* mov al, 7Eh; out 10h, al; cli; hlt */
};

void test(void)
{
    u64 done = 1UL << 32;
    if (role != 2)
        return;
    section("partition");
    synic_on();
    hooks[0x50] = take_intercept, sint(0, 0x50);
    TRUE("no memory", simple(0x40, 0, 0, 0x609, 0, 0) == 0xB || out[0]);
    check("deposit", deposit(1, pool, 100), 0);
    check("create", simple(0x40, 0, 0, 0x609, 0, 0), 0);
    child = out[0];
    check("deposit", deposit(child, pool + 100, 400), 0);
    check("initialize", simple(0x41, child, 0, 0, 0, 0), 0);
    check("VP", simple(0x4E, child, 0, 0, 0, 0), 0);
    check("VP again", simple(0x4E, child, 0, 0, 0, 0), 0xE);
    in[0] = child, in[1] = 0, in[2] = 0xF;
    for (int i = 0; i < CHILD_PAGES; i++)
        in[3 + i] = (u64)memory[i] >> 12;
    check("map", hypercall(0x4B | (u64)CHILD_PAGES << 32, (u64)in, 0), (u64)CHILD_PAGES << 32);
    for (u64 port = 0x10; port < 0x12; port++)
        check("port", simple(0x4D, child, 3, port, 0, 0), 0);
    check("CPUID", simple(0x4D, child, 4 | 2UL << 32, 0, 0, 0), 0);
    check("MSR", simple(0x4D, child, 3 | 1UL << 32, 0, 0, 0), 0);
    check("exception", simple(0x4D, child, 4 | 3UL << 32, 6, 0, 0), 0);

    section("registers");
    ((u64 *)memory[1])[0] = 0x2007, ((u64 *)memory[2])[0] = 0x3007, ((u64 *)memory[3])[0] = 0x87;
    for (u32 i = 0; i < sizeof program; i++)
        memory[4][i] = program[i];
    static const struct { u32 name; u64 low, high; } setup[] = {
        { 0x40000, 0x80000011, 0 }, { 0x40002, 0x1000, 0 }, { 0x40003, 0x20, 0 }, { 0x80001, 0x500, 0 },
        { 0x60001, 0, 0xA09B0008FFFFFFFF }, { 0x60002, 0, 0xC0930010FFFFFFFF }, { 0x60003, 0, 0xC0930010FFFFFFFF },
        { R_RIP, 0x4000, 0 }, { 0x20004, 0x8000, 0 }, { 0x20011, 2, 0 },
    };
    for (u32 i = 0; i < sizeof setup / sizeof *setup; i++)
        check("set", set_register(setup[i].name, setup[i].low, setup[i].high), done);
    check("not running", get_register(0), 1);
    check("run", set_register(0, 0, 0), done);

    section("port written");
    expect("OUT", 0x80010000, 128);
    check("length", message.words[0] >> 32 & 0xF, 2);
    check("access", message.words[0] >> 40 & 0xFF, 1);
    check("RIP", message.words[3], 0x4002);
    check("port, size", message.words[5] & 0xFFFFFF, 0x10010);
    check("RAX", message.words[6] & 0xFF, 0x41);
    go_on(2);
    section("port read");
    expect("IN", 0x80010000, 128);
    check("access", message.words[0] >> 40 & 0xFF, 0);
    check("port", message.words[5] & 0xFFFF, 0x11);
    check("answer", set_register(R_RAX, 0x99, 0), done);
    go_on(2);
    section("CPUID");
    expect("CPUID", 0x80010002, 104);
    check("answered byte", memory[5][0], 0x99);
    check("default EAX", message.words[9] & 0xFFFFFFFF, 0xB);
    check("answer", set_register(R_RAX, 0x1234, 0), done);
    go_on(2);
    section("unmapped page");
    expect("store", 0x80000000, 80);
    check("GPA", message.words[7], 0x100000), check("GVA", message.words[6], 0x100000);
    check("access", message.words[0] >> 40 & 0xFF, 1);
    in[0] = child, in[1] = 0x100, in[2] = 0xF, in[3] = (u64)memory[15] >> 12;
    check("map", hypercall(0x4B | done, (u64)in, 0), done);
    go_on(0);
    section("MSR");
    expect("RDMSR", 0x80010001, 64);
    check("the store has run again", *(u32 *)memory[15], 0x1234);
    check("MSR", message.words[5] & 0xFFFFFFFF, 0x1234);
    check("answer", set_register(R_RAX, 7, 0), done);
    go_on(2);
    section("exception");
    expect("UD", 0x80010003, 240);
    check("vector", message.words[5] & 0xFFFF, 6);
    check("its SCONTROL", get_register(0xA0010), 1);
    check("SINT by name", set_register(0xA0003, 0x20033, 0), done);
    check("SINT by name", get_register(0xA0003), 0x20033);
    go_on(2);
    section("end");
    expect("OUT", 0x80010000, 128);
    check("RAX", message.words[6] & 0xFF, 0x7E);
    check("stop", set_register(0, 1, 0), done);
    go_on(2);
    spin(100);
    check("it stands", get_register(R_RIP), 0x4000 + sizeof program - 2);
    check("VP index", get_register(0x90003), 0);
    check("run", set_register(0, 0, 0), done);
    spin(500);
    check("halted", get_register(4), 2);
    check("no message", intercepts, 7);

    section("teardown");
    u64 status;
    check("finalize", simple(0x42, child, 0, 0, 0, 0), 0);
    do {
        in[0] = child, in[1] = 0;
        status = hypercall(0x49 | 100UL << 32, (u64)in, (u64)out);
        returned += status >> 32;
    } while (!(status & 0xFFFF));
    check("withdrawn until there are no more", status & 0xFFFF, 0x1D);
    check("all of them", returned, 400);
    check("delete", simple(0x43, child, 0, 0, 0, 0), 0);
    check("gone", simple(0x43, child, 0, 0, 0, 0), 0xD);
}
