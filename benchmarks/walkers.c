/* What hvcore's batch translation is measured against: plain page walkers in C, with every check that a processor
 * makes of an ordinary access: canonical address, tables inside memory, present, reserved bits, the rights of all
 * levels taken together under CR0.WP, SMEP and SMAP, and accessed and dirty bits set atomically once the access is
 * granted. No protection keys, no LAM, no error code: hvcore has them, this is the cheaper program.
 *
 * walk_flat: 4-level tables in system memory. walk_nested: 4-level tables in guest-physical memory, below 4-level
 * second-level tables in the layout of EPT without marks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PRESENT 1ull
#define WRITE 2ull
#define USER 4ull
#define ACCESSED (1ull << 5)
#define DIRTY (1ull << 6)
#define LARGE (1ull << 7)
#define NO_EXECUTE (1ull << 63)
#define ADDRESS 0x000FFFFFFFFFF000ull

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum status { OK, NOT_PRESENT, RIGHTS, RESERVED, NOT_CANONICAL, BEYOND, TABLE, NESTED };

struct machine {
    uint8_t *memory;
    uint64_t size;
    uint64_t cr3;
    uint64_t second_root;
    uint64_t reserved;
    uint32_t write, execute, user; /* the access */
    uint32_t write_protect, smep, smap;
};

struct columns {
    uint64_t *spa;
    uint8_t *status, *references, *nested_references;
};

static inline uint64_t *entry_at(const struct machine *m, uint64_t spa)
{
    return (uint64_t *)(m->memory + spa);
}

/* Whether the accumulated entry allows the access: bits 1 and 2 are the AND over the levels, bit 63 the OR. */
static inline bool allowed(const struct machine *m, uint64_t rights)
{
    if (m->user) {
        if (!(rights & USER) || (m->write && !(rights & WRITE)))
            return false;
    } else {
        if (m->write && m->write_protect && !(rights & WRITE))
            return false;
        if ((rights & USER) && (m->execute ? m->smep : m->smap))
            return false;
    }
    return !(m->execute && (rights & NO_EXECUTE));
}

static inline void mark(uint64_t *entry, uint64_t bits)
{
    if ((*entry & bits) != bits)
        __atomic_fetch_or(entry, bits, __ATOMIC_SEQ_CST);
}

static inline enum status flat(const struct machine *m, uint64_t gva, uint64_t *spa, uint8_t *references)
{
    uint64_t *path[4];
    uint64_t table = m->cr3 & ADDRESS, both = ~0ull, no_execute = 0, entry;
    unsigned shift = 39, depth = 0;

    *references = 0;
    if (unlikely((uint64_t)((int64_t)(gva << 16) >> 16) != gva))
        return NOT_CANONICAL;
    for (;;) {
        uint64_t slot = table + ((gva >> shift & 511) << 3);
        if (unlikely(slot >= m->size))
            return BEYOND;
        path[depth] = entry_at(m, slot);
        entry = *path[depth++];
        *references = (uint8_t)depth;
        if (unlikely(!(entry & PRESENT)))
            return NOT_PRESENT;
        if (unlikely(entry & m->reserved))
            return RESERVED;
        both &= entry;
        no_execute |= entry;
        if (shift == 12 || (entry & LARGE)) {
            if (unlikely(shift == 39 || (shift > 12 && (entry & ((1ull << shift) - 1) & ~0x1FFFull))))
                return RESERVED;
            break;
        }
        table = entry & ADDRESS;
        shift -= 9;
    }
    if (unlikely(!allowed(m, (both & ~NO_EXECUTE) | (no_execute & NO_EXECUTE))))
        return RIGHTS;
    if (unlikely(!(both & ACCESSED) || (m->write && !(entry & DIRTY))))
        for (unsigned i = 0; i < depth; i++)
            mark(path[i], i == depth - 1 && m->write ? ACCESSED | DIRTY : ACCESSED);
    *spa = (entry & ADDRESS & ~((1ull << shift) - 1)) | (gva & ((1ull << shift) - 1));
    return likely(*spa < m->size) ? OK : BEYOND;
}

/* GPA -> SPA for an access that needs the bits `needed` of R, W and X. */
static inline enum status second(const struct machine *m, uint64_t gpa, uint64_t needed, uint64_t *spa,
                                 unsigned *references)
{
    uint64_t table = m->second_root, rights = 7, entry;
    unsigned shift = 39;

    if (unlikely(gpa >> 48))
        return NOT_PRESENT;
    for (;;) {
        uint64_t slot = table + ((gpa >> shift & 511) << 3);
        if (unlikely(slot >= m->size))
            return BEYOND;
        entry = *entry_at(m, slot);
        ++*references;
        if (unlikely(!(entry & 7)))
            return NOT_PRESENT;
        if (unlikely((entry & m->reserved) || (entry & 3) == 2))
            return RESERVED;
        rights &= entry;
        if (shift == 12 || (entry & LARGE)) {
            if (unlikely(shift == 39 || (entry & ((1ull << shift) - 1) & ~0xFFFull)))
                return RESERVED;
            break;
        }
        if (unlikely(entry & 0x78))
            return RESERVED;
        table = entry & ADDRESS;
        shift -= 9;
    }
    if (unlikely((rights & needed) != needed))
        return RIGHTS;
    *spa = (entry & ADDRESS & ~((1ull << shift) - 1)) | (gpa & ((1ull << shift) - 1));
    return likely(*spa < m->size) ? OK : BEYOND;
}

static inline enum status nested(const struct machine *m, uint64_t gva, uint64_t *spa, uint8_t *references,
                                 uint8_t *nested_references)
{
    uint64_t gpas[4], *path[4];
    uint64_t table = m->cr3 & ADDRESS, both = ~0ull, no_execute = 0, entry, place, gpa;
    unsigned shift = 39, depth = 0, below = 0;
    enum status found = OK;

    *references = *nested_references = 0;
    if (unlikely((uint64_t)((int64_t)(gva << 16) >> 16) != gva))
        return NOT_CANONICAL;
    for (;;) {
        gpas[depth] = table + ((gva >> shift & 511) << 3);
        if (unlikely(second(m, gpas[depth], 1, &place, &below) != OK)) {
            found = TABLE;
            break;
        }
        path[depth] = entry_at(m, place);
        entry = *path[depth++];
        if (unlikely(!(entry & PRESENT))) {
            found = NOT_PRESENT;
            break;
        }
        if (unlikely(entry & m->reserved)) {
            found = RESERVED;
            break;
        }
        both &= entry;
        no_execute |= entry;
        if (shift == 12 || (entry & LARGE)) {
            if (unlikely(shift == 39 || (shift > 12 && (entry & ((1ull << shift) - 1) & ~0x1FFFull))))
                found = RESERVED;
            break;
        }
        table = entry & ADDRESS;
        shift -= 9;
    }
    *references = (uint8_t)depth;
    *nested_references = (uint8_t)below;
    if (unlikely(found != OK))
        return found;
    if (unlikely(!allowed(m, (both & ~NO_EXECUTE) | (no_execute & NO_EXECUTE))))
        return RIGHTS;
    if (unlikely(!(both & ACCESSED) || (m->write && !(entry & DIRTY)))) {
        unsigned ignored = 0;
        for (unsigned i = 0; i < depth; i++) {
            if (second(m, gpas[i], 3, &place, &ignored) != OK)
                return TABLE;
            mark(path[i], i == depth - 1 && m->write ? ACCESSED | DIRTY : ACCESSED);
        }
    }
    gpa = (entry & ADDRESS & ~((1ull << shift) - 1)) | (gva & ((1ull << shift) - 1));
    found = second(m, gpa, 1 | (m->write ? 2 : 0) | (m->execute ? 4 : 0), spa, &below);
    *nested_references = (uint8_t)below;
    return likely(found == OK) ? OK : NESTED;
}

void walk_flat(const struct machine *machine, const uint64_t *gvas, size_t count, const struct columns *out)
{
    const struct machine m = *machine;
    const struct columns o = *out;
    for (size_t i = 0; i < count; i++) {
        uint64_t spa = 0;
        uint8_t references;
        o.status[i] = (uint8_t)flat(&m, gvas[i], &spa, &references);
        o.spa[i] = spa;
        o.references[i] = references;
    }
}

void walk_nested(const struct machine *machine, const uint64_t *gvas, size_t count, const struct columns *out)
{
    const struct machine m = *machine;
    const struct columns o = *out;
    for (size_t i = 0; i < count; i++) {
        uint64_t spa = 0;
        uint8_t references, nested_references;
        o.status[i] = (uint8_t)nested(&m, gvas[i], &spa, &references, &nested_references);
        o.spa[i] = spa;
        o.references[i] = references;
        o.nested_references[i] = nested_references;
    }
}
