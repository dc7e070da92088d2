/* Layouts of the batch decoder: the tables of its fast path and what the passes hand to each other.
 *
 * A fast path knows the common encodings of 64-bit mode by dense tables, and knows what it does not know: everything
 * else is described by `slow`, which is the decoder of single instructions. The tables are not written by hand: build.h
 * asks `slow` about every opcode and keeps only what it can reproduce.
 *
 * Pass 1 (walk.h) follows lengths and leaves a u64 an instruction; pass 2 (columns.h) makes columns of them.
 */
#ifndef HVCORE_BATCH_LAYOUT_H
#define HVCORE_BATCH_LAYOUT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_NONE 255          /* no register */
#define BATCH_RIP 152
#define BATCH_LONGEST 15
#define BATCH_OPERANDS 5

/* What one instruction puts into the columns. Invalid bytes: form 0, length 1, no registers. */
typedef struct {
    int64_t immediate;
    int32_t displacement;
    uint16_t form;
    uint8_t length;
    uint8_t status;                         /* 0 valid, 1 invalid, 2 cut off by the end of the buffer */
    uint8_t kinds, reg, base, index, scale; /* scale 1 2 4 8, 0 without memory */
    uint8_t registers[BATCH_OPERANDS];
    uint8_t target_bits;                    /* 16, 32, 64: the immediate is relative to the next instruction; 0 not */
#define TARGET_ABSOLUTE 255                 /* it is the target itself */
    uint8_t segment, operand_size, address_size, mask, evex;
    uint16_t prefixes;
} batch_row_t;

typedef void (*batch_slow_t)(const uint8_t *code, uint32_t available, uint32_t options, batch_row_t *row);

/* Steps: one per byte in front of the opcode, then the cell of the opcode itself, which stays where it is. A u64 each:
 *   0-5    bits to shift the window by: 8, in a cell 0
 *   8-11   bytes passed, so that the sum over the steps of an instruction is the opcode's offset
 *   12     a REX prefix; EVEX.z    13-15  B, X, R      16-19  vvvv      20 always clear in a sum, see SUSPECT
 *   21-22  EVEX R', V'             23     EVEX.aaa is not 0         (sums, too: each comes from one byte)
 *   24-27  class of what follows the opcode (`shapes`)          28-31  1 + bytes of immediate        (cells only)
 *   32-47  first of the opcode's `fast` entries                                                     (cells only)
 *   48-63  256 times the row of the next step; of a cell, its own
 */
enum { STEP_COUNT = 8, STEP_REX = 12, STEP_EXTENSIONS = 13, STEP_VVVV = 16, STEP_HIGH = 21, STEP_MASKED = 23,
       STEP_CLASS = 24, STEP_SIZE = 28, STEP_FAST = 32, STEP_ROW = 48 };

/* Fast entries, a u64 each:
 *   0-15   form        16-23  operand kinds        24-27  immediate (`immediate_shift` and others)
 *   28     memory is addressed by ModRM            29     the immediate is relative to the next instruction, 64 bits
 *   32-46  first register        48-50  log2 of N of disp8*N
 *   52-63  bits 12-23 of a sum that must be clear; the one that stands for SUSPECT says that `slow` has to look
 * A register: 0-7 a number, to which one lane of the fields (11-13) is added, without its bits 2, 3, 4 as bits 8, 9, 10
 * say; 14 a byte register: 4 to 7 are AH to BH without REX.
 */
enum { FAST_KINDS = 16, FAST_IMMEDIATE = 24, FAST_MEMORY = 28, FAST_RELATIVE = 29, FAST_REGISTER = 32, FAST_SCALE = 48,
       FAST_FORBIDDEN = 52 };
enum { SUSPECT = 1 << 20 };
#define FAST_UNKNOWN ((uint64_t)SUSPECT >> STEP_REX << FAST_FORBIDDEN)
enum { LANE_FIXED, LANE_REG, LANE_RM, LANE_OPCODE, LANE_VVVV, LANE_IS4 };
enum { REGISTER_WITHOUT = 8, REGISTER_LANE = 11, REGISTER_BYTE = 14, REGISTER_HIGH = 144 };

/* What pass 1 leaves of an instruction, a u64:
 *   0-15 offset in the tile   16-31 index into `fast`, 0: ask `slow`   32-47 bits 8-23 of the sum   48-55 length
 */
enum { INFO_FAST = 16, INFO_SUM = 32, INFO_LENGTH = 48 };

enum { BATCH_ROWS = 255, BATCH_CLASSES = 16, BATCH_FAST = 65536 };
/* Classes of what follows an opcode; a fast entry is chosen within its opcode by mod = 3, by that and the reg field, or
 * by the whole byte where mod = 3. Groups F6 and F7 have an immediate for reg 0 and 1 only. */
enum { SHAPE_BARE, SHAPE_MODE, SHAPE_GROUP, SHAPE_WHOLE, SHAPE_TEST_8, SHAPE_TEST_16, SHAPE_TEST_32, SHAPES };

typedef struct {
    uint64_t steps[BATCH_ROWS * 256];
    /* By class and ModRM: 0-6 bytes from ModRM on, 7 SIB may add a displacement, 8-15 entry within the opcode's. */
    uint16_t shapes[BATCH_CLASSES * 256];
    uint64_t fast[BATCH_FAST];
    uint64_t others[BATCH_FAST];            /* registers of operands 0 to 3, as in `fast` */
    uint8_t base_map[128];                  /* memory << 6 | SIB << 5 | mod = 0 << 4 | B << 3 | low bits */
    uint8_t index_map[32];                  /* SIB << 4 | X << 3 | index */
    uint8_t scale_map[16];                  /* memory << 3 | SIB << 2 | SIB.scale */
    uint8_t immediate_shift[16];            /* of eight bytes whose last are the immediate; 64: there is none */
    uint64_t immediate_mask[16];
    uint64_t immediate_flip[16], immediate_less[16];    /* value = (bytes ^ flip) - less: sign extension, or 1 */
    uint32_t fast_count, row_count;
    /* The same for pass 1 of AVX-512, see walk_avx512.h. */
    uint8_t modrm_lengths[256], opcodes[2][256];
    uint32_t places[256];                   /* by place code: 0-7 bytes before the opcode, 16-31 256 times the row */
    uint32_t cells[256 * 256];              /* by row and opcode: 0-15 first entry, 24-31 class; 0: it does not know */
    uint8_t picks[BATCH_CLASSES * 256];     /* by class and ModRM: entry within the opcode's */
    uint32_t options;
    batch_slow_t slow;
    const uint16_t *mnemonics;              /* by form */
    const uint8_t *flows, *operand_sizes;
} batch_tables_t;

static inline uint64_t load_64(const uint8_t *at) { uint64_t v; memcpy(&v, at, 8); return v; }
static inline int32_t load_32(const uint8_t *at) { int32_t v; memcpy(&v, at, 4); return v; }

#define BATCH_LIKELY(x) __builtin_expect(!!(x), 1)
#define BATCH_UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
