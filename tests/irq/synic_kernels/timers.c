/* The four synthetic timers (9.7) in both modes, and what reprogramming does to them. */
#include "synic.h"

static volatile u64 fired_at[64];
static volatile u32 fired;
static struct timer_payload notes[64];
static volatile u32 noted;

static void direct(struct frame *frame)
{
    fired_at[fired++ & 63] = now();
    finish_interrupt(ending[frame->vector]);
}

static void by_message(struct frame *frame)
{
    struct message copy;
    while (take(2, &copy)) {
        fired_at[fired++ & 63] = now();
        check("type", copy.type, TIMER_MESSAGE);
        check("size", copy.size, 24);
        check("sender", copy.sender, 0);
        notes[noted++ & 63] = *(struct timer_payload *)copy.words;
    }
    finish_interrupt(ending[frame->vector]);
}

static u32 config_of(int timer) { return STIMER0 + 2 * (u32)timer; }
static void config(int timer, u64 value) { wrmsr(config_of(timer), value); }
static void count(int timer, u64 value) { wrmsr(config_of(timer) + 1, value); }
static u64 config_is(int timer) { return rdmsr(config_of(timer)); }
static void fresh(const char *name) { section(name); fired = noted = 0; forget(); }

static void wait(u32 times)
{
    u64 start = now();
    while (fired < times && now() - start < 100000)
        pause();
}

#define D(v) (T_DIRECT | T_VECTOR(v))

static void start_with(u64 value) { config(0, 0), count(0, 0), config(0, value), count(0, 100); }
static void lazy(void) { start_with(D(0x60) | T_LAZY | T_PERIODIC | T_AUTO); }
static void eager(void) { start_with(D(0x60) | T_PERIODIC | T_AUTO); }
static void stop(void) { count(0, 0); }

void test(void)
{
    u64 t, deadline;
    section("registers");
    for (int i = 0; i < 4; i++) {
        check("config after reset", config_is(i), 0);
        check("count after reset", rdmsr(config_of(i) + 1), 0);
        check("reserved 13", write_faults(config_of(i), 1 << 13), 13);
        check("reserved 20", write_faults(config_of(i), 1 << 20), 13);
        check("reserved 63", write_faults(config_of(i), 1UL << 63), 13);
        count(i, 0x123456789ABCDEF0), check("count", rdmsr(config_of(i) + 1), 0x123456789ABCDEF0);
        config(i, T_DIRECT | T_VECTOR(0x60) | T_LAZY | T_PERIODIC | T_SINT(5));
        check("config", config_is(i), T_DIRECT | T_VECTOR(0x60) | T_LAZY | T_PERIODIC | T_SINT(5));
        config(i, 0), count(i, 0);
    }
    check("unknown register", read_faults(0x400000B8), 13);
    for (int v = 0x60; v < 0x64; v++)
        hooks[v] = direct;
    hooks[0x52] = by_message;

    fresh("one-shot, direct");
    t = now() + 100;
    count(0, t);
    spin(200);
    check("not enabled: nothing", fired, 0);
    deadline = now() + 100;
    count(0, deadline), config(0, D(0x60) | T_ENABLE);
    wait(1);
    between("when", fired_at[0], deadline, deadline + 3);
    spin(300);
    check("once", fired, 1);
    check("enable is cleared", config_is(0), D(0x60));
    check("count stays", rdmsr(config_of(0) + 1), deadline);

    fresh("in the past");
    count(1, 1), config(1, D(0x61) | T_ENABLE);
    sti();
    check("at once", fired, 1);
    check("enable is cleared", config_is(1), D(0x61));
    count(1, now());
    spin(10);
    check("count alone does not enable", fired, 1);

    fresh("auto-enable");
    config(2, D(0x62) | T_AUTO);
    deadline = now() + 50;
    count(2, deadline);
    check("enabled", config_is(2), D(0x62) | T_AUTO | T_ENABLE);
    wait(1);
    between("when", fired_at[0], deadline, deadline + 3);
    check("cleared", config_is(2), D(0x62) | T_AUTO);
    deadline = now() + 50;
    count(2, deadline), count(2, 0);
    check("0 clears enable", config_is(2), D(0x62) | T_AUTO);
    spin(100);
    check("0 stops", fired, 1);
    count(2, now() + 50), count(2, now() + 150);
    spin(100);
    check("moved", fired, 1);
    spin(100);
    check("moved and come", fired, 2);
    count(2, now() + 50), config(2, D(0x62) | T_AUTO);
    spin(100);
    check("disabled by its configuration", fired, 2);
    config(2, 0);

    fresh("Linux: vector ED");
    config(0, 0x1ED8);
    count(0, now() + 30);
    check("reads", config_is(0), 0x1ED9);
    hooks[0xED] = direct;
    wait(1);
    check("reads", config_is(0), 0x1ED8);
    config(0, 0);

    fresh("periodic, direct");
    t = now();
    count(3, 100), config(3, D(0x63) | T_PERIODIC | T_ENABLE);
    wait(5);
    for (u32 i = 0; i < 5; i++)
        between("period", fired_at[i], t + 100 * (i + 1), t + 100 * (i + 1) + 4);
    check("stays enabled", config_is(3), D(0x63) | T_PERIODIC | T_ENABLE);
    config(3, D(0x63) | T_PERIODIC);
    fired = 0;
    spin(300);
    check("off", fired, 0);
    t = now();
    config(3, D(0x63) | T_PERIODIC | T_ENABLE);
    wait(1);
    between("a period after enabling", fired_at[0], t + 100, t + 105);
    count(3, 40);
    t = now();
    wait(2);
    between("new period", fired_at[1], t + 38, t + 45);
    count(3, 0);
    check("0 clears enable", config_is(3) & 1, 0);

    fresh("periodic, auto-enable");
    config(3, D(0x63) | T_PERIODIC | T_AUTO);
    t = now();
    count(3, 80);
    wait(3);
    between("third", fired_at[2], t + 240, t + 246);
    count(3, 0);

    fresh("interrupts off");
    count(3, 100), config(3, D(0x63) | T_PERIODIC | T_ENABLE);
    cli();
    spin(1050);
    sti();
    spin(5);
    check("IRR merges", fired, 1);
    count(3, 0);

    fresh("halted");
    deadline = now() + 100000;
    count(0, deadline), config(0, D(0x60) | T_ENABLE);
    halt();
    between("woken", fired_at[0], deadline, deadline + 2);
    check("woken once", fired, 1);

    fresh("SINT0 in message mode");
    synic_on();
    count(0, now() + 50), config(0, T_ENABLE | T_SINT(0));
    check("enable is cleared", config_is(0), 0);
    config(0, T_AUTO);
    count(0, now() + 50);
    check("auto-enable is no way around", config_is(0), T_AUTO);
    config(0, 0);

    fresh("message");
    sint(2, 0x52);
    deadline = now() + 100;
    count(1, deadline), config(1, T_SINT(2) | T_ENABLE);
    wait(1);
    check("index", notes[0].index, 1);
    check("nominal", notes[0].expiration, deadline);
    between("delivered", notes[0].delivery, deadline, fired_at[0]);
    check("enable is cleared", config_is(1), T_SINT(2));

    fresh("slot is full");
    cli();
    deadline = now() + 50;
    count(0, deadline), config(0, T_SINT(2) | T_ENABLE);
    count(1, deadline + 20), config(1, T_SINT(2) | T_ENABLE);
    spin(100);
    check("in the slot", slot(2)->type, TIMER_MESSAGE);
    check("pending", slot(2)->flags & 1, 1);
    count(1, deadline + 120), config(1, T_SINT(2) | T_ENABLE);
    spin(100);
    t = now();
    sti();
    spin(10);
    check("two messages: the third merged", noted, 2);
    check("order", notes[1].index, 1);
    check("nominal time is the first", notes[1].expiration, deadline + 20);
    between("delivery is when the slot took it", notes[1].delivery, t, t + 20);
    check("merged", host(OP_COUNTER, 0, 1, 0, 0), 1);

    fresh("disabled while its message waits");
    cli();
    count(0, now()), config(0, T_SINT(2) | T_ENABLE);
    count(1, now()), config(1, T_SINT(2) | T_ENABLE);
    config(1, 0), count(1, 0);
    sti();
    spin(10);
    check("what has expired is delivered", noted, 2);

    fresh("periodic messages");
    t = now();
    config(2, T_SINT(2) | T_PERIODIC | T_AUTO);
    count(2, 60);
    wait(4);
    count(2, 0);
    for (u32 i = 0; i < 4; i++) {
        between("nominal", notes[i].expiration, t + 60 * (i + 1), t + 60 * (i + 1) + 3);
        if (i)
            check("exactly a period", notes[i].expiration - notes[i - 1].expiration, 60);
    }

    fresh("SynIC off");
    wrmsr(SIMP, 0);
    count(0, now()), config(0, T_SINT(2) | T_ENABLE);
    count(3, now()), config(3, D(0x63) | T_ENABLE);
    spin(10);
    check("direct mode needs no SynIC", seen[0][0x63], 1);
    check("no message", noted, 0);
    wrmsr(SIMP, (u64)sim_pages[0] | 1);
    spin(10);
    check("delivered when the page is there", noted, 1);

    fresh("masked SINT");
    sint(2, MASKED | 0x52);
    count(0, now()), config(0, T_SINT(2) | T_ENABLE);
    spin(10);
    check("message", slot(2)->type, TIMER_MESSAGE);
    check("no interrupt", seen[0][0x52], 0);
    take(2, 0);
    sint(2, AUTO_EOI | 0x52);
    ending[0x52] = END_NONE;
    fresh("auto-EOI");
    cli();
    for (int i = 0; i < 4; i++)
        count(i, now()), config(i, T_SINT(2) | T_ENABLE);
    sti();
    spin(10);
    check("all four", noted, 4);

    fresh("suspended");
    if (processors > 1) {
        run_on(1, lazy);
        host(OP_SUSPEND, 1, 0, 0, 0);
        fired = 0;
        spin(2000);
        host(OP_RESUME, 1, 0, 0, 0);
        spin(50);
        between("lazy: at most one for all that were missed, and a regular one", fired, 0, 2);
        spin(1000);
        between("then again", fired, 9, 12);
        run_on(1, eager);
        host(OP_SUSPEND, 1, 0, 0, 0);
        spin(2000);
        host(OP_RESUME, 1, 0, 0, 0);
        spin(250);
        run_on(1, stop);
        TRUE("skipped periods are counted", host(OP_COUNTER, 1, 2, 0, 0) > 10);
    }

    fresh("time stands still");
    config(0, 0);
    deadline = now() + 100;
    count(0, deadline), config(0, D(0x60) | T_ENABLE);
    check("freeze", host(OP_FREEZE, 1, 0, 0, 0), 0);
    u64 tsc = rdtsc();
    while (rdtsc() - tsc < 100000)
        pause();
    check("no expiry", fired, 0);
    check("thaw", host(OP_FREEZE, 0, 0, 0, 0), 0);
    wait(1);
    between("comes after that", fired_at[0], deadline, deadline + 3);

    fresh("far away");
    count(0, ~0UL), config(0, D(0x60) | T_ENABLE);
    count(1, ~0UL - 1), config(1, D(0x61) | T_ENABLE);
    count(2, 1UL << 63), config(2, D(0x62) | T_ENABLE | T_PERIODIC);
    spin(100);
    check("never", fired, 0);
    for (int i = 0; i < 3; i++)
        count(i, 0);
    count(2, 10), config(2, D(0x62) | T_ENABLE | T_PERIODIC);
    spin(100);
    config(2, 0);
    TRUE("a short period", fired > 8);

    fresh("unhalted");
    check("reserved", write_faults(UNHALTED_CONFIG, 0x200), 13);
    check("vector 3", write_faults(UNHALTED_CONFIG, 0x103), 13);
    wrmsr(VP_ASSIST, (u64)assist_pages[0] | 1);
    wrmsr(UNHALTED_COUNT, 100), wrmsr(UNHALTED_CONFIG, 0x100 | 0x61);
    spin(1010);
    wrmsr(UNHALTED_CONFIG, 0);
    between("periods", fired, 9, 11);
    check("the page says so", assist_pages[0][56], 1);
    fired = 0;
    wrmsr(UNHALTED_CONFIG, 0x100 | 0x61);
    count(0, now() + 5000), config(0, D(0x60) | T_ENABLE);
    halt();
    check("halted time does not count", seen[0][0x61] <= 12, 1);
    wrmsr(UNHALTED_CONFIG, 0);
    forget();
    wrmsr(UNHALTED_CONFIG, 0x100 | 2);
    spin(150);
    wrmsr(UNHALTED_CONFIG, 0);
    check("NMI", seen[0][2], 1);
}
