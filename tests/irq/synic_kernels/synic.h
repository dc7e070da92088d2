/* What the SynIC kernels share: MSRs, messages, hypercalls, interrupts and how they end, checks, the host. */
#ifndef SYNIC_H
#define SYNIC_H
#include "instructions.h"

enum {
    GUEST_OS_ID = 0x40000000, HYPERCALL, VP_INDEX, RESET, VP_RUNTIME = 0x40000010, TIME_REF_COUNT = 0x40000020,
    REFERENCE_TSC, TSC_FREQUENCY, APIC_FREQUENCY, MSR_EOI = 0x40000070, MSR_ICR, MSR_TPR, VP_ASSIST,
    SCONTROL = 0x40000080, SVERSION, SIEFP, SIMP, EOM, SIRBP, SINT0 = 0x40000090, STIMER0 = 0x400000B0,
    GUEST_IDLE = 0x400000F0, UNHALTED_CONFIG = 0x40000114, UNHALTED_COUNT,
};
#define MASKED (1UL << 16)
#define AUTO_EOI (1UL << 17)
#define POLLING (1UL << 18)
enum { T_ENABLE = 1, T_PERIODIC = 2, T_LAZY = 4, T_AUTO = 8, T_DIRECT = 1 << 12 };
#define T_VECTOR(v) ((u64)(v) << 4)
#define T_SINT(s) ((u64)(s) << 16)
enum { TIMER_MESSAGE = 0x80000010 };
enum { END_MSR, END_NONE, END_LAZY };       /* how the handler of a vector ends it */

struct message {
    volatile u32 type;
    u8 size;
    volatile u8 flags;
    u16 reserved;
    u64 sender;
    u64 words[30];
};
struct timer_payload { u32 index, reserved; u64 expiration, delivery; };
struct frame { u64 rbx, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax, vector, error, rip, cs, rflags, rsp, ss; };

static inline u64 now(void) { return rdmsr(TIME_REF_COUNT); }

extern u64 call_page(u64 control, u64 input, u64 output);
extern u8 hypercall_page[4096], sim_pages[8][4096], sief_pages[8][4096], assist_pages[8][4096];
extern volatile u32 seen[8][256];
extern volatile u8 order[8][512];
extern volatile u32 total[8], faulted[8];
extern u8 ending[256];
extern volatile u32 lazy_saved[8];
extern void (*hooks[256])(struct frame *);
extern int processors, role;
extern u8 input_page[4096], output_page[4096];

int cpu(void);
void check(const char *name, u64 got, u64 want);
#define TRUE(name, condition) check(name, !!(condition), 1)
void between(const char *name, u64 got, u64 low, u64 high);
void section(const char *name);
u64 host(u32 operation, u64 a, u64 b, u64 c, u64 d);
u64 hypercall(u64 control, u64 input, u64 output);
u32 write_faults(u32 msr, u64 value);       /* 256: no fault */
u32 read_faults(u32 msr);
u32 store_faults(volatile void *at, u8 byte);
void synic_on(void);                        /* of this processor: SIMP, SIEFP, SCONTROL */
struct message *slot(int sint);
volatile u64 *flags_of(int sint);
int take(int sint, struct message *copy);   /* the protocol of the TLFS; whether there was one */
void sint(int number, u64 value);
void forget(void);
void spin(u64 units);                       /* of reference time */
int wait_for(int who, int vector, u32 count);
void finish_interrupt(int how);
void run_on(int who, void (*work)(void));
void start_on(int who, void (*work)(void));
void wait_on(int who);
void test(void);

/* What the host does for a kernel (synic_runner.py). */
enum {
    OP_START, OP_MESSAGE_PORT, OP_POST, OP_EVENT_PORT, OP_SIGNAL, OP_ASSERT, OP_SUSPEND, OP_RESUME, OP_PEER_MESSAGE,
    OP_PEER_EVENT, OP_PEER_MONITOR, OP_DOORBELL, OP_RING, OP_DELETE_PORT, OP_POST_DIRECT, OP_SIGNAL_DIRECT, OP_FREEZE,
    OP_COUNTER, OP_CLEAR_EXTINT, OP_GIVE, OP_MSI, OP_ROUTE, OP_LINE,
};
#define ANY_VP 0xFFFFFFFFUL
#endif
