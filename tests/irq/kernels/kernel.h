/* What the test kernels share: reports, interrupts, recovery from faults, the chips' registers, other processors. */
#ifndef KERNEL_H
#define KERNEL_H
#include "instructions.h"

struct frame {
    u64 r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax, vector, error, rip, cs, rflags, rsp, ss;
};
typedef void (*handler_t)(struct frame *);

enum {
    ID = 0x20, VERSION = 0x30, TPR = 0x80, APR = 0x90, PPR = 0xA0, EOI = 0xB0, RRD = 0xC0, LDR = 0xD0, DFR = 0xE0,
    SVR = 0xF0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, CMCI = 0x2F0, ICR = 0x300, ICR2 = 0x310,
    LVTT = 0x320, LVT_THERMAL = 0x330, LVT_PMC = 0x340, LVT0 = 0x350, LVT1 = 0x360, LVTE = 0x370, TMICT = 0x380,
    TMCCT = 0x390, TDCR = 0x3E0, SELF_IPI = 0x3F0,
    BASE = 0x1B, DEADLINE = 0x6E0,
    MASKED = 1 << 16, PERIODIC = 1 << 17, TSC_DEADLINE = 2 << 17, LEVEL = 1 << 15,
    EXTINT = 7 << 8, NMI = 4 << 8, LOWEST = 1 << 8, LOGICAL = 1 << 11,
    SELF = 1 << 18, ALL = 2 << 18, OTHERS = 3 << 18,
};
#define ENABLE (1UL << 11)
#define X2 (1UL << 10)
#define BSP (1UL << 8)

static inline u32 mmio(u32 at) { return *(volatile u32 *)(u64)(0xFEE00000 + at); }
static inline void mmio_write(u32 at, u32 v) { *(volatile u32 *)(u64)(0xFEE00000 + at) = v; }

extern volatile u32 taken[8][256];          /* by processor and vector */
extern volatile u32 total[8];
extern volatile u8 order[8][256];           /* the vectors in the order of their handlers */
extern volatile u64 when[8];                /* TSC at the last handler */
extern handler_t hooks[256];                /* instead of an EOI */
extern volatile u64 recover[8];
extern volatile u32 fault[8];               /* vector of the exception that was recovered from, 256: none */
extern int processors;
extern volatile int x2apic_mode[8];

int cpu(void);
void report(const char *name, int ok, u64 got, u64 want);
#define EQ(name, got, want) do { u64 g_ = (u64)(got), w_ = (u64)(want); report(name, g_ == w_, g_, w_); } while (0)
#define NEAR(name, got, want, by) do { u64 g_ = (u64)(got), w_ = (u64)(want); \
        report(name, g_ + (by) >= w_ && g_ <= w_ + (by), g_, w_); } while (0)
#define OK(name, condition) EQ(name, !!(condition), 1)
void note(const char *name, u64 value);

u32 rd(u32 reg);                            /* in whichever mode the APIC is */
void wr(u32 reg, u32 value);
void ipi(u32 destination, u32 low);
void eoi(void);
int wrmsr_fault(u32 msr, u64 value);        /* 256, or the vector of the fault */
int rdmsr_fault(u32 msr, u64 *value);
void forget(void);                          /* counts and order */
void spin(u64 ticks);                       /* of the TSC, at least */
int wait_count(int who, int vector, u32 n); /* with a limit; whether it came */
void enable_apic(void);
void run_on(int who, void (*work)(void));
void run_everywhere(void (*work)(void));
void line(int pin, int high);               /* of the platform, by the host */
int bit_of(u32 reg, int vector);
void test(void);
#endif
