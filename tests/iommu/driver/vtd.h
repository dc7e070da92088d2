/* A driver for a VT-d unit in C, as operating systems have them: what its parts share. See main.c. */
#include "instructions.h"

enum {
    VER = 0x00, CAP = 0x08, ECAP = 0x10, GCMD = 0x18, GSTS = 0x1C, RTADDR = 0x20, CCMD = 0x28, FSTS = 0x34,
    FECTL = 0x38, FEDATA = 0x3C, FEADDR = 0x40, FEUADDR = 0x44, PMEN = 0x64, PLMBASE = 0x68, PLMLIMIT = 0x6C,
    PHMBASE = 0x70, PHMLIMIT = 0x78, IQH = 0x80, IQT = 0x88, IQA = 0x90, ICS = 0x9C, IECTL = 0xA0, IEDATA = 0xA4,
    IEADDR = 0xA8, IEUADDR = 0xAC, IQERCD = 0xB0, IRTA = 0xB8, VCCAP = 0xE30,
};
#define TE (1u << 31)
#define SRTP (1u << 30)
#define WBF (1u << 27)
#define QIE (1u << 26)
#define IRE (1u << 25)
#define SIRTP (1u << 24)
#define CFI (1u << 23)
#define ONE_SHOTS (SRTP | SIRTP | WBF | 1u << 29)
#define MASKED (1u << 31)
#define PENDING (1u << 30)
#define PFO 1u
#define PPF 2u
#define IQE (1u << 4)

#define RWBF(cap) ((cap) >> 4 & 1)
#define PLMR(cap) ((cap) >> 5 & 1)
#define PHMR(cap) ((cap) >> 6 & 1)
#define CACHING(cap) ((cap) >> 7 & 1)
#define SAGAW(cap) ((cap) >> 8 & 31)
#define FRO(cap) (((cap) >> 24 & 0x3FF) * 16)
#define SLLPS(cap) ((cap) >> 34 & 15)
#define PSI(cap) ((cap) >> 39 & 1)
#define NFR(cap) (((cap) >> 40 & 255) + 1)
#define MAMV(cap) ((cap) >> 48 & 63)
#define POSTING(cap) ((cap) >> 59 & 1)
#define QI(ecap) ((ecap) >> 1 & 1)
#define DEVICE_TLB(ecap) ((ecap) >> 2 & 1)
#define IR(ecap) ((ecap) >> 3 & 1)
#define EIM(ecap) ((ecap) >> 4 & 1)
#define PASS(ecap) ((ecap) >> 6 & 1)
#define IRO(ecap) (((ecap) >> 8 & 0x3FF) * 16)
#define SMTS(ecap) ((ecap) >> 43 & 1)

enum { PAGE = 4096, READ = 1, WRITE = 2, LARGE = 1 << 7 };
enum { GLOBAL = 1, DOMAIN = 2, SELECTIVE = 3 };
enum { FAULT_VECTOR = 0x40, WAIT_VECTOR = 0x41, FIRST_DEVICE_VECTOR = 0x50, DEVICE_VECTORS = 8, PIN_VECTOR = 0x57,
       POSTED_VECTOR = 0x60 };

/* A fault record as the handler found it. */
struct fault { u64 page; u16 source; u8 reason; u8 write; u32 index; u32 pasid; u8 has_pasid; };

extern volatile u8 *unit;               /* registers */
extern u64 cap, ecap;
extern u64 *root_table;
extern int queued;                      /* invalidations go through the queue */
extern struct fault faults[64];
extern volatile u32 fault_count, fault_interrupts, overflows, wait_interrupts, interrupts[256];

/* lib.c */
void fail(const char *file, int line, u64 what) __attribute__((noreturn));
#define CHECK(condition) do { if (!(condition)) fail(__FILE_NAME__, __LINE__, 0); } while (0)
#define SAME(a, b) do { u64 a_ = (a), b_ = (b); if (a_ != b_) fail(__FILE_NAME__, __LINE__, a_); } while (0)
u32 get32(u32 offset);
u64 get64(u32 offset);
void put32(u32 offset, u32 value);
void put64(u32 offset, u64 value);
void *new_pages(u64 count);
void take_interrupts(void);
void breathe(void);                     /* let what is pending come */

/* The DMA engine of test_c_driver.py. */
#define NO_PASID (~0ul)
extern volatile u64 *engine;
extern u64 engine_pasid;
int dma_read(u16 source, u64 iova, u64 *value);         /* 0: done, 1: blocked */
int dma_write(u16 source, u64 iova, u64 value);
int dma_message(u16 source, u64 address, u32 data);
void set_pin(u32 pin, int level);

/* unit.c */
void find_units(const u8 *dmar);
void open_unit(void);
u32 command(u32 bit, int on);
void set_root(u64 table, int mode);
void start_queue(void);
void stop_queue(void);
u64 *submit(u64 low, u64 high);         /* where in the queue it was */
void wait_for_queue(void);
void flush_context(int granularity, u16 did, u16 source, u8 mask);
void flush_iotlb(int granularity, u16 did, u64 address, u8 mask, int hint);
void start_fault_event(void);
void stop_protection(void);
void bring_up(int by_queue);
u64 *context_of(u16 source);
u64 *table_slot(u64 *top, u64 iova, int levels, int leaf, u64 link);
void map(u64 *top, u64 iova, u64 page, int leaf, u64 bits);
int address_width(void);                /* AW of the deepest tables up to four levels */
int levels(void);
void give_domain(u16 source, u16 did, u64 *top, int type);

/* The scenarios. */
void by_register(void), by_queue(void), large_pages(void), fault_events(void), contexts(void), queue_errors(void);
void take_over(void), protection(void), addresses(void);
void messages(void), blocked_messages(void), posting(void), pins(void), wide_destinations(void);
void low_half_first(void), high_half_first(void), whole_table(void), other_mode(void);
void second_level(void), first_level(void), nesting(void), passing(void), pasids(void);
