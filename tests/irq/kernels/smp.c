/* Several processors: ticks on each, calls of functions on others that wait for their answers, HLT when idle. */
#include "kernel.h"

enum { TICK = 0x90, CALL = 0xA0, WAKE = 0xB0, ROUNDS = 60, PERIOD = 1000 };

static volatile u32 ticks[8], calls[8], answers[8], finished, wakes[8];
static volatile struct { u32 wanted, done; } mailbox[8][8];     /* [of whom][from whom] */
static volatile u64 first_tick[8], last_tick[8];

static void on_tick(struct frame *f)
{
    int me = cpu();
    (void)f;
    last_tick[me] = rdtsc();
    if (!ticks[me]++)
        first_tick[me] = last_tick[me];
    eoi();
}

static void on_call(struct frame *f)        /* one interrupt may stand for several requests */
{
    int me = cpu();
    (void)f;
    eoi();
    for (int from = 0; from < processors; from++)
        if (mailbox[me][from].done != mailbox[me][from].wanted) {
            calls[me]++;
            mailbox[me][from].done = mailbox[me][from].wanted;
        }
}

static void on_wake(struct frame *f) { (void)f; wakes[cpu()]++; eoi(); }

static void call_everybody(u32 round)
{
    int me = cpu();
    for (int who = 0; who < processors; who++)
        if (who != me) {
            mailbox[who][me].wanted = round;
            __asm__ volatile("mfence" : : : "memory");
            ipi((u32)who, CALL);
        }
    for (int who = 0; who < processors; who++)
        while (who != me && mailbox[who][me].done != round)
            pause();
    answers[me]++;
}

static void worker(void)
{
    int me = cpu();
    wr(TDCR, 0xB);
    wr(LVTT, PERIODIC | TICK);
    wr(TMICT, PERIOD);
    sti();
    for (u32 round = 1; round <= ROUNDS; round++) {
        call_everybody(round);
        spin((u64)(me + 1) * 500);
    }
    __atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

static void on_start(struct frame *f) { (void)f; eoi(); worker(); cli(); }

static void to_x2(void) { wrmsr(BASE, rdmsr(BASE) | X2); x2apic_mode[cpu()] = 1; }
static void stop_tick(void) { wr(TMICT, 0); }

static volatile u64 sent_at, woken_at[8];
static void sleeper(struct frame *f)
{
    int me = cpu();
    (void)f;
    eoi();
    for (u32 i = 0; i < 20; i++)
        while (wakes[me] <= i)
            __asm__ volatile("sti; hlt; cli" : : : "memory");
    woken_at[me] = rdtsc();
}

static void round_of_work(void)
{
    finished = 0;
    for (int i = 0; i < 8; i++) {
        ticks[i] = calls[i] = answers[i] = 0;
        for (int k = 0; k < 8; k++)
            mailbox[i][k].wanted = mailbox[i][k].done = 0;
    }
    hooks[TICK] = on_tick;
    hooks[CALL] = on_call;
    hooks[0xF0] = on_start;
    cli();
    ipi(0, OTHERS | 0xF0);
    worker();
    while (finished < (u32)processors)
        pause();
    run_everywhere(stop_tick);
    int bad_ticks = 0, bad_answers = 0, bad_calls = 0;
    for (int i = 0; i < processors; i++) {
        u64 mean = (last_tick[i] - first_tick[i]) / (ticks[i] - 1);
        bad_ticks += ticks[i] < 5 || mean < PERIOD * 5 - 1000 || mean > PERIOD * 5 + 1000;
        bad_answers += answers[i] != ROUNDS;
        bad_calls += calls[i] != ROUNDS * (u32)(processors - 1);
    }
    EQ("everybody's tick", bad_ticks, 0);
    EQ("everybody's calls were answered", bad_answers, 0);
    EQ("each call came once", bad_calls, 0);
}

static void sleeping(void)
{
    hooks[WAKE] = on_wake;
    hooks[0xF1] = sleeper;
    for (int i = 0; i < 8; i++)
        wakes[i] = 0;
    ipi(0, OTHERS | 0xF1);
    spin(100000);
    for (u32 i = 0; i < 20; i++)
        for (int who = 1; who < processors; who++) {
            ipi((u32)who, WAKE);
            spin(20000);
        }
    spin(100000);
    int asleep = 0;
    for (int who = 1; who < processors; who++)
        asleep += wakes[who] != 20 || !woken_at[who];
    EQ("twenty wakes each", asleep, 0);
}

void test(void)
{
    sti();
    round_of_work();
    sti();
    sleeping();
    run_everywhere(to_x2);
    round_of_work();
    sti();
    sleeping();
    for (int i = 0; i < processors; i++)
        EQ("no spurious interrupts", taken[i][0xFF], 0);
}
