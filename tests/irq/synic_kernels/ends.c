/* EOI, ICR and TPR by MSR (10.1), and the EOI that a guest is spared (10.3). */
#include "synic.h"

#define SELF (1UL << 18)
static volatile u32 promised[8], depth_seen;
static u32 *const assist = (u32 *)assist_pages[0];

static void look(struct frame *frame)
{
    promised[frame->vector & 7] = *assist & 1;
    finish_interrupt(END_LAZY);
}

static void send_lower(struct frame *frame)
{
    promised[0] = *assist & 1;
    wrmsr(MSR_ICR, SELF | 0x41);
    promised[1] = *assist & 1;
    finish_interrupt(END_LAZY);
    (void)frame;
}

static void nest(struct frame *frame)
{
    promised[0] = *assist & 1;
    wrmsr(MSR_ICR, SELF | 0x93);
    sti();
    while (!seen[0][0x93])
        pause();
    cli();
    promised[2] = *assist & 1;
    finish_interrupt(END_LAZY);
    (void)frame;
}

static void plain(struct frame *frame)
{
    promised[0] = *assist & 1;
    wrmsr(MSR_EOI, 0);
    promised[1] = *assist & 1;
    (void)frame;
}

static u32 isr_or_irr(u32 base, int vector)
{
    return *(volatile u32 *)(0xFEE00000UL + base + (u32)vector / 32 * 16) >> vector % 32 & 1;
}

void test(void)
{
    section("MSRs");
    check("EOI cannot be read", read_faults(MSR_EOI), 13);
    check("TPR has 8 bits", write_faults(MSR_TPR, 0x100), 13);
    wrmsr(MSR_TPR, 0x53);
    check("TPR", rdmsr(MSR_TPR), 0x53);
    check("CR8 is its upper half", read_cr8(), 5);
    check("page", *(volatile u32 *)0xFEE00080UL, 0x53);
    write_cr8(3);
    check("CR8 writes it", rdmsr(MSR_TPR), 0x30);
    forget();
    wrmsr(MSR_ICR, SELF | 0x35);
    spin(5);
    check("below the TPR", total[0], 0);
    check("requested", isr_or_irr(0x200, 0x35), 1);
    wrmsr(MSR_TPR, 0x2F);
    check("let through", seen[0][0x35], 1);
    wrmsr(MSR_TPR, 0);
    ending[0x50] = END_NONE;
    wrmsr(MSR_ICR, SELF | 0x50);
    check("in service", isr_or_irr(0x100, 0x50), 1);
    check("PPR", *(volatile u32 *)0xFEE000A0UL, 0x50);
    wrmsr(MSR_ICR, SELF | 0x51);
    check("same class waits", seen[0][0x51], 0);
    wrmsr(MSR_EOI, 0x12345678);
    check("any value ends it", seen[0][0x51], 1);
    check("nothing in service", *(volatile u32 *)0xFEE000A0UL, 0);
    wrmsr(MSR_EOI, 0);
    check("an EOI of nothing", seen[0][0x51], 1);
    check("ICR reads", rdmsr(MSR_ICR) & 0xFFFFF, SELF | 0x51);
    ending[0x50] = END_MSR;

    section("vectors of all classes");
    forget();
    cli();
    for (u64 v = 0x20; v < 0x100; v++)
        wrmsr(MSR_ICR, SELF | v);
    sti();
    spin(50);
    check("all", total[0], 224);
    u32 right = 0;
    for (u32 i = 0; i < 224; i++)
        right += order[0][i] == 0xFF - i;
    check("from the highest down", right, 224);

    section("assist page");
    wrmsr(VP_ASSIST, (u64)assist | 1);
    check("reads", rdmsr(VP_ASSIST), (u64)assist | 1);
    for (int v = 0x40; v < 0x48; v++)
        hooks[v] = look;
    forget();
    for (u64 i = 0; i < 20; i++)
        wrmsr(MSR_ICR, SELF | (0x40 + i % 8));
    check("all came", total[0], 20);
    check("all spared", lazy_saved[0], 20);
    check("bit is off afterwards", *assist, 0);

    section("two wait");
    forget();
    cli();
    wrmsr(MSR_ICR, SELF | 0x43), wrmsr(MSR_ICR, SELF | 0x62);
    hooks[0x62] = look;
    sti();
    spin(5);
    check("both came", total[0], 2);
    check("not promised while one waits", promised[2], 0);
    check("promised for the last", promised[3], 1);

    section("a lower one comes meanwhile");
    hooks[0x70] = send_lower;
    forget();
    wrmsr(MSR_ICR, SELF | 0x70);
    spin(5);
    check("promised", promised[0] + 0UL, 1);
    check("taken back", seen[0][0x41], 1);
    check("one EOI by register", lazy_saved[0], 1);

    section("a higher one interrupts the handler");
    hooks[0x72] = nest;
    hooks[0x93] = look;
    forget();
    wrmsr(MSR_ICR, SELF | 0x72);
    spin(5);
    check("outer promised", promised[0], 1);
    check("inner is not", promised[3], 0);
    check("nor the outer any more", promised[2], 0);
    check("nothing in service", *(volatile u32 *)0xFEE000A0UL, 0);

    section("a plain EOI");
    hooks[0x74] = plain;
    forget();
    wrmsr(MSR_ICR, SELF | 0x74);
    check("promised", promised[0], 1);
    check("no more", promised[1], 0);
    wrmsr(MSR_ICR, SELF | 0x74);
    check("again", seen[0][0x74], 2);

    section("a SINT with auto-EOI");
    synic_on();
    sint(3, AUTO_EOI | 0x76);
    ending[0x76] = END_NONE;
    u64 port = host(OP_MESSAGE_PORT, 3, 0, 0, 0);
    host(OP_POST, port, 1, 8, 0);
    spin(5);
    check("came", seen[0][0x76], 1);
    check("no promise", *assist & 1, 0);
    take(3, 0);

    section("a SINT whose next message waits");
    sint(4, 0x44);
    hooks[0x44] = look;
    port = host(OP_MESSAGE_PORT, 4, 0, 0, 0);
    forget();
    cli();
    host(OP_POST, port, 2, 8, 0);
    sti();
    spin(5);
    check("no promise", promised[4], 0);
    take(4, 0);
    spin(5);
    check("the next", seen[0][0x44], 2);
    take(4, 0);

    section("switched off");
    wrmsr(VP_ASSIST, 0);
    forget();
    hooks[0x45] = 0;
    wrmsr(MSR_ICR, SELF | 0x45);
    wrmsr(MSR_ICR, SELF | 0x45);
    check("EOIs are written", seen[0][0x45], 2);
    check("nothing in RAM", *assist, 0);
    wrmsr(VP_ASSIST, 0xFFFFFFFFFF000001);
    wrmsr(VP_ASSIST, 0);

    section("switched off in a handler that was promised");
    wrmsr(VP_ASSIST, (u64)assist | 1);
    ending[0x46] = END_NONE, hooks[0x46] = 0;
    wrmsr(MSR_ICR, SELF | 0x46);
    wrmsr(VP_ASSIST, 0);
    forget();
    wrmsr(MSR_ICR, SELF | 0x46);
    check("the EOI is owed", seen[0][0x46], 0);
    wrmsr(MSR_EOI, 0);
    check("now", seen[0][0x46], 1);
    wrmsr(MSR_EOI, 0);
}
