/* IPIs by hypercall (4.9: 0B, 15), by register, and what the parent asserts (4.7, 10.2). Any number of processors. */
#include "synic.h"

#define FAST (1UL << 16)
#define VARIABLE(n) ((u64)(n) << 17)
static u64 *const input = (u64 *)input_page;

static u64 ex(u64 vector, u64 format, u64 valid, u32 banks, u64 bank0, u64 bank1)
{
    input[0] = vector, input[1] = format, input[2] = valid, input[3] = bank0, input[4] = bank1;
    return hypercall(0x15 | VARIABLE(banks), (u64)input_page, 0);
}

static u64 sum(int vector)
{
    u64 all = 0;
    for (int i = 0; i < 8; i++)
        all |= (u64)(seen[i][vector] & 0xFF) << 8 * i;
    return all;
}

static u64 expected(u64 mask)
{
    u64 all = 0;
    for (int i = 0; i < processors; i++)
        all |= (mask >> i & 1) << 8 * i;
    return all;
}

static void both(const char *name, u64 status, u64 mask, int vector)
{
    check(name, status, 0);
    spin(500);
    check(name, sum(vector), expected(mask));
    forget();
}

static volatile u32 from_other;
static void send_back(void) { hypercall(0x0B | FAST, 0x5A, 1); from_other = 1; }
static void mask_lint(void) { *(volatile u32 *)0xFEE00350UL = 1 << 16; }

void test(void)
{
    u64 all = (1UL << processors) - 1, top = (u64)processors - 1;
    forget();
    section("fast");
    for (u64 mask = 0; mask <= all; mask++)
        both("mask", hypercall(0x0B | FAST, 0x50, mask), mask, 0x50);
    both("who does not exist is ignored", hypercall(0x0B | FAST, 0x50, ~0UL), all, 0x50);
    both("lowest vector", hypercall(0x0B | FAST, 0xFF, 1), 1, 0xFF);
    check("vector F", hypercall(0x0B | FAST, 0x0F, 1), 5);
    check("vector 100", hypercall(0x0B | FAST, 0x100, 1), 5);
    check("vector 10000050", hypercall(0x0B | FAST, 0x10000050, 1), 5);
    check("VTL 2 bits", hypercall(0x0B | FAST, 0x50 | 0x20UL << 32, 1), 5);
    check("reserved", hypercall(0x0B | FAST, 0x50 | 1UL << 40, 1), 5);
    check("reps", hypercall(0x0B | FAST | 1UL << 32, 0x50, 1), 3);
    check("variable header", hypercall(0x0B | FAST | VARIABLE(1), 0x50, 1), 3);
    check("reserved control bit", hypercall(0x0B | FAST | 1UL << 27, 0x50, 1), 3);
    check("unknown code", hypercall(0x0BAD, 0, 0), 2);
    spin(20);
    check("none of these sent anything", total[0], 0);

    section("slow");
    input[0] = 0x51, input[1] = all;
    both("in memory", hypercall(0x0B, (u64)input_page, 0), all, 0x51);
    *(u64 *)(input_page + 4080) = 0x51, *(u64 *)(input_page + 4088) = 1;
    both("at the page's end", hypercall(0x0B, (u64)input_page + 4080, 0), 1, 0x51);
    check("over the page's end", hypercall(0x0B, (u64)input_page + 4088, 0), 4);
    check("not aligned", hypercall(0x0B, (u64)input_page + 4, 0), 4);
    check("outside of the space", hypercall(0x0B, 1UL << 60, 0), 4);

    section("ex");
    both("all", ex(0x52, 1, 0, 0, 0, 0), all, 0x52);
    both("all, with banks that do not count", ex(0x52, 1, 1, 1, 0, 0), all, 0x52);
    both("self", ex(0x52, 0, 1, 1, 1, 0), 1, 0x52);
    both("last", ex(0x52, 0, 1, 1, 1UL << top, 0), 1UL << top, 0x52);
    both("bank 0 of 0 and 5", ex(0x52, 0, 0x21, 2, all, ~0UL), all, 0x52);
    both("bank 5 alone", ex(0x52, 0, 0x20, 1, all, 0), 0, 0x52);
    both("empty", ex(0x52, 0, 0, 0, 0, 0), 0, 0x52);
    TRUE("fewer banks than bits", ex(0x52, 0, 3, 1, 1, 0) == 3 || ex(0x52, 0, 3, 1, 1, 0) == 5);
    TRUE("more banks than bits", ex(0x52, 0, 1, 2, 1, 0) == 3 || ex(0x52, 0, 1, 2, 1, 0) == 5);
    check("format 2", ex(0x52, 2, 1, 1, 1, 0), 5);
    check("vector F", ex(0xF, 1, 0, 0, 0, 0), 5);
    spin(20);
    check("none of these sent anything", total[0], 0);

    section("registers");
    u64 c0 = 0, c1 = 0;
    __asm__ volatile("mov $0x1122334455667788, %%r12; mov %%r12, %%r13\n call call_page\n"
                     "mov %%r12, %0; mov %%r13, %1"
                     : "=r"(c0), "=r"(c1), "+D"((u64){ 0x0B | FAST }), "+S"((u64){ 0x53 }), "+d"((u64){ 1 })
                     : : "rax", "rcx", "r8", "r12", "r13", "memory");
    check("R12", c0, 0x1122334455667788), check("R13", c1, 0x1122334455667788);
    spin(10);
    forget();

    section("interrupts off");
    cli();
    for (int i = 0; i < 5; i++)
        hypercall(0x0B | FAST, 0x54, 1);
    hypercall(0x0B | FAST, 0x64, 1);
    sti();
    spin(10);
    check("merged", seen[0][0x54], 1);
    check("higher first", order[0][0], 0x64);
    forget();

    section("other processors");
    for (int i = 1; i < processors; i++) {
        from_other = 0;
        run_on(i, send_back);
        TRUE("came", wait_for(0, 0x5A, (u32)i));
    }
    forget();
    for (int i = 1; i < processors; i++) {
        wrmsr(MSR_ICR, (u64)i << 56 | 0x5B);
        TRUE("by ICR MSR", wait_for(i, 0x5B, 1));
    }
    wrmsr(MSR_ICR, 3UL << 18 | 0x5C);
    spin(500);
    check("all but self", sum(0x5C), expected(all & ~1UL));
    wrmsr(MSR_ICR, 2UL << 18 | 0x5D);
    spin(500);
    check("all", sum(0x5D), expected(all));
    wrmsr(MSR_ICR, top << 56 | 4 << 8);
    spin(500);
    check("NMI", seen[top][2], 1);
    forget();

    section("asserted");
    for (u64 i = 0; i <= top; i++) {
        check("status", host(OP_ASSERT, 0, 0x60, i, 0), 0);
        TRUE("fixed", wait_for((int)i, 0x60, 1));
    }
    check("broadcast", host(OP_ASSERT, 0, 0x61, 0xFF, 0), 0);
    spin(500);
    check("all", sum(0x61), expected(all));
    check("no vector", host(OP_ASSERT, 0, 15, 0, 0), 5);
    check("vector 100", host(OP_ASSERT, 0, 256, 0, 0), 5);
    check("SMI", host(OP_ASSERT, 2, 0, 0, 0), 5);
    check("remote read", host(OP_ASSERT, 3, 0, 0, 0), 5);
    check("no such type", host(OP_ASSERT, 10, 0, 0, 0), 5);
    check("lowest priority, physical", host(OP_ASSERT, 1, 0x60, 0, 0), 5);
    check("reserved control bit", host(OP_ASSERT, 0, 0x60, 0, 8), 5);
    check("NMI with a vector", host(OP_ASSERT, 4, 0x30, 0, 0), 5);
    check("nobody there", host(OP_ASSERT, 0, 0x60, 77, 0), 0xE);
    forget();
    check("NMI", host(OP_ASSERT, 4, 0, top, 0), 0);
    spin(500);
    check("came", seen[top][2], 1);
    cli();
    check("level", host(OP_ASSERT, 0, 0x62, 0, 1), 0);
    check("withdrawn", host(OP_ASSERT, 0, 0xFFFFFFFF, 0, 1), 0);
    check("edge", host(OP_ASSERT, 0, 0x63, 0, 0), 0);
    sti();
    spin(20);
    check("level is gone", seen[0][0x62], 0);
    check("edge is there", seen[0][0x63], 1);
    check("level", host(OP_ASSERT, 0, 0x62, 0, 1), 0);
    spin(20);
    check("level", seen[0][0x62], 1);

    check("lowest priority, logical", host(OP_ASSERT, 1, 0x65, 0xFF, 2), 0);
    spin(500);
    u64 chosen = 0;
    for (int i = 0; i < processors; i++)
        chosen += seen[i][0x65];
    check("one of them", chosen, 1);

    section("LINT0");
    *(volatile u32 *)0xFEE00350UL = 0x66;
    check("asserted", host(OP_ASSERT, 8, 0, 0, 0), 0);
    spin(20);
    check("came", seen[0][0x66], 1);
    check("with a vector", host(OP_ASSERT, 8, 5, 0, 0), 5);

    section("ExtINT");
    run_on(0, mask_lint);
    ending[0x99] = END_NONE;
    check("destination", host(OP_ASSERT, 7, 0x99, 1, 1), 0xE);
    wrmsr(MSR_TPR, 0xFF);
    check("status", host(OP_ASSERT, 7, 0x99, 0, 1), 0);
    spin(20);
    check("not subject to the priority", seen[0][0x99], 1);
    wrmsr(MSR_TPR, 0);
    check("not cleared", host(OP_ASSERT, 7, 0x9A, 0, 1), 0x16);
    check("clear", host(OP_CLEAR_EXTINT, 0, 0, 0, 0), 0);
    check("clear again", host(OP_CLEAR_EXTINT, 0, 0, 0, 0), 0x14);
    cli();
    host(OP_ASSERT, 7, 0x99, 0, 1);
    check("before it is taken, another vector", host(OP_ASSERT, 7, 0x9A, 0, 1), 0);
    ending[0x9A] = END_NONE;
    sti();
    spin(10);
    check("the first is replaced", seen[0][0x99], 1);
    check("by the second", seen[0][0x9A], 1);
    host(OP_CLEAR_EXTINT, 0, 0, 0, 0);
    cli();
    host(OP_ASSERT, 7, 0x99, 0, 1);
    check("withdrawn", host(OP_ASSERT, 7, 0xFFFFFFFF, 0, 1), 0);
    sti();
    spin(10);
    check("none", seen[0][0x99], 1);
}
