/* Everything at once on every processor, in a random order: nothing is lost, comes twice or stays in service. */
#include "synic.h"

enum { ROUNDS = 250, LIMIT = 200000 };
#define FAST (1UL << 16)
#define SELF (1UL << 18)
static volatile u32 asked[8][8], answered[8][8];        /* by sender and receiver */
static volatile u32 timer_hits[8][4], note_count[8], late[8], wrong[8], ports_of[8];
static volatile u64 last_word[8], note_time[8];
static u64 seeds[8];
static u8 inputs[8][4096] __attribute__((aligned(4096)));
static volatile u32 finished, host_lock;

static u32 roll(u32 below)
{
    u64 *seed = &seeds[cpu()];
    *seed = *seed * 6364136223846793005 + 1442695040888963407;
    return (u32)(*seed >> 33) % below;
}

static void reply(struct frame *frame)
{
    int me = cpu(), from = (int)frame->vector & 7;
    answered[from][me] = asked[from][me];
    if (asked[from][me] & 1) {          /* others may come in between */
        sti();
        for (int i = 0; i < 20; i++)
            pause();
        cli();
    }
    finish_interrupt(END_LAZY);
}

static void timer_direct(struct frame *frame)
{
    timer_hits[cpu()][frame->vector & 3]++;
    finish_interrupt(END_LAZY);
}

static void message(struct frame *frame)
{
    int me = cpu();
    struct message copy;
    (void)frame;
    while (take(2, &copy)) {
        if (copy.type == TIMER_MESSAGE) {
            struct timer_payload *payload = (struct timer_payload *)copy.words;
            note_count[me]++;
            wrong[me] += payload->delivery < payload->expiration || payload->delivery > now();
        } else {
            wrong[me] += copy.words[0] <= last_word[me];
            last_word[me] = copy.words[0];
            ports_of[me]++;
        }
    }
    finish_interrupt(END_LAZY);
}

static int until(volatile u32 *word, u32 value)
{
    u64 start = now();
    while (*word != value)
        if (now() - start > LIMIT) {
            late[cpu()]++;
            return 0;
        }
    return 1;
}

static void ask(int other)
{
    int me = cpu();
    u64 *in = (u64 *)inputs[me], vector = 0x40UL + (u64)me + roll(4) * 16;
    u32 number = ++asked[me][other];
    switch (roll(4)) {
    case 0: wrmsr(MSR_ICR, (u64)other << 56 | vector); break;
    case 1: hypercall(0x0B | FAST, vector, 1UL << other); break;
    case 2: in[0] = vector, in[1] = 1UL << other, hypercall(0x0B, (u64)in, 0); break;
    default:
        in[0] = vector, in[1] = 0, in[2] = 1, in[3] = 1UL << other;
        hypercall(0x15 | 1UL << 17, (u64)in, 0);
    }
    until(&answered[me][other], number);
}

static void use_timer(int halted)
{
    int me = cpu(), which = (int)roll(2);
    u32 before = timer_hits[me][which];
    wrmsr(STIMER0 + 2 * which, T_DIRECT | T_AUTO | T_VECTOR(0x90 + which));
    wrmsr(STIMER0 + 2 * which + 1, now() + roll(300));
    if (halted) {
        cli();
        while (timer_hits[me][which] == before) {
            halt();
            cli();
        }
        sti();
    } else
        until(&timer_hits[me][which], before + 1);
}

static void use_message_timer(void)
{
    int me = cpu();
    u32 before = note_count[me];
    wrmsr(STIMER0 + 4, T_SINT(2) | T_AUTO);
    wrmsr(STIMER0 + 5, now() + roll(200));
    until(&note_count[me], before + 1);
}

static void use_host(void)
{
    int me = cpu();
    u32 before = ports_of[me], count = 1 + roll(6);
    while (__sync_lock_test_and_set(&host_lock, 1))
        pause();
    u64 done = host(OP_POST, *(volatile u64 *)(inputs[me] + 2048), count, 64, 1);
    __sync_lock_release(&host_lock);
    wrong[me] += done != count;
    until(&ports_of[me], before + count);
}

static void use_priority(void)
{
    int me = cpu();
    u64 class = 5 + roll(10);
    u32 before = timer_hits[me][2];
    if (roll(2))
        write_cr8(class);
    else
        wrmsr(MSR_TPR, class << 4);
    wrmsr(MSR_ICR, SELF | 0xA2);
    for (u32 i = roll(30); i; i--)
        pause();
    wrong[me] += class < 10 ? timer_hits[me][2] != before + 1 : timer_hits[me][2] != before;
    write_cr8(0);
    until(&timer_hits[me][2], before + 1);
}

static void work(void)
{
    int me = cpu();
    seeds[me] = (u64)me * 12345 + 7;
    synic_on();
    wrmsr(VP_ASSIST, (u64)assist_pages[me] | 1);
    sint(2, 0x8A);
    while (__sync_lock_test_and_set(&host_lock, 1))
        pause();
    *(volatile u64 *)(inputs[me] + 2048) = host(OP_MESSAGE_PORT, 2, (u64)me, 0, 0);
    __sync_lock_release(&host_lock);
    sti();
    for (int i = 0; i < ROUNDS; i++)
        switch (roll(8)) {
        case 0: case 1: case 2: ask((int)roll((u32)processors)); break;
        case 3: use_timer(0); break;
        case 4: use_timer(1); break;
        case 5: use_message_timer(); break;
        case 6: use_host(); break;
        default: use_priority();
        }
    __sync_fetch_and_add(&finished, 1);
    while (finished != (u32)processors)         /* others may still ask */
        pause();
    spin(100);
    wrong[me] += *(volatile u32 *)0xFEE000A0UL != 0;
    for (u32 i = 0; i < 8; i++)
        wrong[me] += ((volatile u32 *)0xFEE00100UL)[4 * i] | ((volatile u32 *)0xFEE00200UL)[4 * i];
}

void test(void)
{
    for (int v = 0x40; v < 0x80; v++)
        hooks[v] = reply;
    hooks[0x8A] = message, hooks[0x90] = hooks[0x91] = hooks[0xA2] = timer_direct;
    section("stress");
    for (int i = 1; i < processors; i++)
        start_on(i, work);
    work();
    for (int i = 1; i < processors; i++)
        wait_on(i);
    for (int i = 0; i < processors; i++) {
        check("late", late[i], 0), check("wrong", wrong[i], 0);
        TRUE("EOIs were spared", lazy_saved[i] > 10);
        TRUE("messages of both kinds", note_count[i] > 5 && ports_of[i] > 5);
    }
    for (int from = 0; from < processors; from++)
        for (int to = 0; to < processors; to++)
            check("answered", answered[from][to], asked[from][to]);
}
