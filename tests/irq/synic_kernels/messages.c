/* Message slots and queues (9.1, 9.2, 9.4): the protocol of slots, what masks, polls and ends, retries, moved pages. */
#include "synic.h"

static u64 tags[64];
static u32 tag_count;

static void read_in_handler(struct frame *frame)
{
    struct message copy;
    while (take(2, &copy))
        tags[tag_count++ & 63] = copy.words[0];
    finish_interrupt(ending[frame->vector]);
}

static void expect_tags(const char *name, u64 first, u32 count)
{
    u32 right = 0;
    for (u32 i = 0; i < tag_count && i < count; i++)
        right += tags[i] == first + i;
    check(name, tag_count, count);
    check(name, right, count);
    tag_count = 0;
}

static u64 next_tag = 1;
static u64 post(u64 port, u64 count)
{
    u64 done = host(OP_POST, port, count, 240, 0);
    next_tag += done & 0xFFFFFFFF;
    return done;
}

void test(void)
{
    struct message copy;
    section("reset");
    check("SCONTROL", rdmsr(SCONTROL), 0);
    check("SVERSION", rdmsr(SVERSION) & 0xFFFFFFFF, 1);
    check("SIMP", rdmsr(SIMP) & 1, 0);
    check("EOM reads 0", rdmsr(EOM), 0);
    for (int i = 0; i < 16; i++)
        check("SINT", rdmsr(SINT0 + i), MASKED);
    check("SVERSION cannot be written", write_faults(SVERSION, 1), 13);
    check("a vector below 16", write_faults(SINT0 + 3, 15), 13);
    check("a vector below 16, masked", write_faults(SINT0 + 3, MASKED | 15), 256);
    check("EOM takes any value", write_faults(EOM, ~0UL), 256);
    u64 port = host(OP_MESSAGE_PORT, 2, 0, 0, 0);
    check("posting to a SynIC that is off", host(OP_POST, port, 1, 8, 0), 0x18UL << 32);
    wrmsr(SCONTROL, 1);
    check("posting without a SIM page", host(OP_POST, port, 1, 8, 0), 0x18UL << 32);
    wrmsr(SCONTROL, 0);

    forget();
    section("masked SINT");
    cli();
    synic_on();
    check("posted", post(port, 3), 3);
    check("slot", slot(2)->type, 1);
    check("size", slot(2)->size, 240);
    check("sender is the port", slot(2)->sender & 0xFFFFFF, port);
    check("first word", slot(2)->words[0], 1);
    check("pending", slot(2)->flags & 1, 1);
    sti();
    spin(10);
    check("no interrupt", total[0], 0);
    TRUE("first", take(2, &copy));
    TRUE("second", take(2, &copy));
    check("second word", copy.words[0], 2);
    TRUE("third", take(2, &copy));
    check("third is the last", copy.flags & 1, 0);
    TRUE("no fourth", !take(2, 0));
    check("no interrupt at all", total[0], 0);
    sint(2, 0x52);
    spin(10);
    check("unmasking brings none", total[0], 0);

    section("interrupt and EOM");
    hooks[0x52] = read_in_handler;
    for (int burst = 1; burst <= 16; burst++) {
        u64 first = next_tag;
        cli();
        check("posted", post(port, burst), burst);
        sti();
        spin(20);
        expect_tags("read", first, burst);
    }
    section("sixteen buffers");
    cli();
    check("seventeenth", post(port, 20), 17 | 19UL << 32);
    sti();
    spin(20);
    expect_tags("read", next_tag - 17, 17);

    section("EOI alone is a retry");
    hooks[0x52] = 0;
    forget();
    post(port, 2);
    spin(10);
    check("one interrupt", seen[0][0x52], 1);
    slot(2)->type = 0;
    fence();
    wrmsr(MSR_EOI, 0);
    spin(10);
    check("two interrupts", seen[0][0x52], 2);
    check("its word", slot(2)->words[0], next_tag - 1);
    slot(2)->type = 0;

    section("nothing but the slot is freed");
    forget();
    hooks[0x52] = 0;
    post(port, 2);
    spin(10);
    slot(2)->type = 0;
    u64 start = now();
    while (seen[0][0x52] < 2 && now() - start < 100000)
        pause();
    between("retry of the hypervisor, 100 ns", now() - start, 1, 11000);
    slot(2)->type = 0;

    section("halted behind a slot that is freed");
    forget();
    post(port, 2);
    spin(10);
    slot(2)->type = 0;
    start = now();
    while (seen[0][0x52] < 2)
        halt();
    between("woken by the retry", now() - start, 1, 11000);
    slot(2)->type = 0;

    section("EOM without EOI");
    forget();
    ending[0x52] = END_NONE;
    post(port, 3);
    spin(10);
    check("first", seen[0][0x52], 1);
    TRUE("taken", take(2, 0));
    check("second is in the slot", slot(2)->type, 1);
    spin(10);
    check("but its interrupt waits", seen[0][0x52], 1);
    wrmsr(MSR_EOI, 0);
    spin(10);
    check("until the EOI", seen[0][0x52], 2);
    take(2, 0);
    wrmsr(MSR_EOI, 0);
    spin(10);
    take(2, 0);
    wrmsr(MSR_EOI, 0);
    check("all three", seen[0][0x52], 3);

    section("auto-EOI");
    sint(2, AUTO_EOI | 0x52);
    hooks[0x52] = read_in_handler;
    forget();
    u64 first = next_tag;
    cli();
    check("posted", post(port, 5), 5);
    sti();
    spin(20);
    expect_tags("read", first, 5);
    check("interrupts, each handler empties the queue", seen[0][0x52] >= 1, 1);
    wrmsr(MSR_TPR, 0x40);
    sint(3, 0x43);
    u64 low_port = host(OP_MESSAGE_PORT, 3, 0, 0, 0);
    host(OP_POST, low_port, 1, 8, 0), next_tag++;
    spin(10);
    check("TPR holds back", seen[0][0x43], 0);
    wrmsr(MSR_TPR, 0);
    spin(10);
    check("TPR lets through", seen[0][0x43], 1);
    TRUE("its message", take(3, 0));

    section("polling");
    hooks[0x52] = 0;
    ending[0x52] = END_MSR;
    sint(2, POLLING);
    check("polling without a vector", rdmsr(SINT0 + 2), POLLING);
    sint(2, POLLING | 0x52);
    forget();
    check("posted", post(port, 2), 2);
    spin(10);
    check("no interrupt", total[0], 0);
    TRUE("message", take(2, &copy));
    check("pending", copy.flags & 1, 1);
    TRUE("second", take(2, &copy));
    sint(2, POLLING | MASKED | 0x52);
    check("masked and polling", post(port, 1), 1);
    TRUE("message", take(2, &copy));
    check("no interrupt", total[0], 0);

    section("two SINTs of one vector");
    sint(2, 0x52), sint(4, 0x52);
    u64 other = host(OP_MESSAGE_PORT, 4, 0, 0, 0);
    forget();
    cli();
    post(port, 1), post(other, 1);
    sti();
    spin(10);
    check("one interrupt for both", seen[0][0x52], 1);
    check("slot 2", slot(2)->type, 1);
    check("slot 4", slot(4)->type, 1);
    TRUE("taken", take(2, 0) && take(4, 0));

    section("pages and switches");
    sint(2, MASKED | 0x52);
    post(port, 2);
    struct message *old = slot(2);
    wrmsr(SIMP, (u64)sim_pages[1] | 1);
    TRUE("the page has moved", ((struct message *)(sim_pages[1] + 512))->type == 1);
    check("what it covered is seen again", old->type, 0);
    wrmsr(SIMP, (u64)sim_pages[1]);
    check("disabled: RAM below", ((struct message *)(sim_pages[1] + 512))->type, 0);
    check("refused while disabled", host(OP_POST, port, 1, 8, 0), 0x18UL << 32);
    wrmsr(SIMP, (u64)sim_pages[0] | 1);
    check("contents were kept", slot(2)->type, 1);
    wrmsr(SCONTROL, 0);
    slot(2)->type = 0;
    wrmsr(EOM, 0);
    check("SynIC off: EOM brings nothing", slot(2)->type, 0);
    wrmsr(SCONTROL, 1);
    check("on again: delivered", slot(2)->type, 1);
    check("its word", slot(2)->words[0], next_tag - 1);
    take(2, 0);
    check("reserved bits are kept", (wrmsr(SIMP, (u64)sim_pages[0] | 0xABF), rdmsr(SIMP) & 0xFFF), 0xABF);

    section("deleted port");
    post(port, 3);
    check("deleted", host(OP_DELETE_PORT, port, 0, 0, 0), 0);
    TRUE("what is in the slot stays", take(2, 0));
    TRUE("what waited is gone", !take(2, 0));
    check("counted", host(OP_COUNTER, 0, 4, 0, 0), 2);

    section("direct");
    check("posted", host(OP_POST_DIRECT, 0, 2, 0x1234, 77), 0);
    check("full", host(OP_POST_DIRECT, 0, 2, 0x1234, 78) != 0, 1);
    TRUE("taken", take(2, &copy));
    check("type", copy.type, 0x1234);
    check("word", copy.words[0], 77);
}
