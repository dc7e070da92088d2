/* What a model of TLBs costs when it is written straight down: true LRU by time stamps, sizes as constants, no counters.

   Two geometries, each with instruction and data TLB, a unified second level, and PDE, PDPTE and PML4E caches.
   Skylake's first level is set associative. "Full" has 64 fully associative entries in each first-level TLB: once
   found by a scan of all of them, once by a hash with chains and a doubly linked list. The benchmark compiles this
   with the compiler and flags of the package, and runs it in the same process, interleaved. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint64_t address; uint16_t size, asid; uint8_t kind, page_shift, nested_page_shift, unused; } record_t;

typedef struct { uint64_t tag, stamp; } entry_t;

/* Inlined with constants for `sets`, a power of two, and `ways`. */
static inline __attribute__((always_inline))
int look_up(entry_t* entries, uint64_t sets, uint64_t ways, uint64_t* clock, uint64_t page)
{
    entry_t *set = entries + (page & (sets - 1)) * ways, *victim = set;
    uint64_t way;
    ++*clock;
    for (way = 0; way < ways; way++)
        if (set[way].tag == page + 1) {
            set[way].stamp = *clock;
            return 1;
        }
    for (way = 1; way < ways; way++)
        if (set[way].stamp < victim->stamp)
            victim = set + way;
    victim->tag = page + 1;
    victim->stamp = *clock;
    return 0;
}

enum { FULL = 64, BUCKETS = 128 };
typedef struct node { uint64_t tag; struct node *newer, *older, *chain; } node_t;
typedef struct { node_t nodes[FULL], *buckets[BUCKETS], *newest, *oldest; } hashed_t;

static void start_hashed(hashed_t* cache)
{
    int i;
    memset(cache, 0, sizeof *cache);
    for (i = 0; i < FULL; i++) {
        cache->nodes[i].newer = i ? &cache->nodes[i - 1] : NULL;
        cache->nodes[i].older = i + 1 < FULL ? &cache->nodes[i + 1] : NULL;
    }
    cache->newest = &cache->nodes[0];
    cache->oldest = &cache->nodes[FULL - 1];
}

static void make_newest(hashed_t* cache, node_t* node)
{
    if (node == cache->newest)
        return;
    node->newer->older = node->older;
    if (node->older)
        node->older->newer = node->newer;
    else
        cache->oldest = node->newer;
    node->newer = NULL;
    node->older = cache->newest;
    cache->newest->newer = node;
    cache->newest = node;
}

static int look_up_hashed(hashed_t* cache, uint64_t page)
{
    node_t **bucket = &cache->buckets[page * 0x9E3779B97F4A7C15u >> 57], **place, *node;
    for (node = *bucket; node; node = node->chain)
        if (node->tag == page + 1) {
            make_newest(cache, node);
            return 1;
        }
    node = cache->oldest;
    if (node->tag) {
        place = &cache->buckets[(node->tag - 1) * 0x9E3779B97F4A7C15u >> 57];
        while (*place != node)
            place = &(*place)->chain;
        *place = node->chain;
    }
    node->tag = page + 1;
    node->chain = *bucket;
    *bucket = node;
    make_newest(cache, node);
    return 0;
}

typedef struct {
    uint64_t clock;
    entry_t fetch[128], data[64], second[2048], pde[32], pdpte[4], pml4e[2];
    hashed_t hashed[2];
} model_t;

model_t* new_model(void)
{
    model_t* model = calloc(1, sizeof(model_t));
    start_hashed(&model->hashed[0]);
    start_hashed(&model->hashed[1]);
    return model;
}

static void walk(model_t* model, uint64_t page)
{
    uint64_t* clock = &model->clock;
    if (!look_up(model->pde, 8, 4, clock, page >> 9) && !look_up(model->pdpte, 1, 4, clock, page >> 18))
        look_up(model->pml4e, 1, 2, clock, page >> 27);
}

void run_skylake(model_t* model, const record_t* records, uint64_t count)
{
    uint64_t i, *clock = &model->clock;
    for (i = 0; i < count; i++) {
        uint64_t page = records[i].address >> 12;
        if (records[i].kind ? !look_up(model->data, 16, 4, clock, page) : !look_up(model->fetch, 16, 8, clock, page))
            if (!look_up(model->second, 128, 12, clock, page))
                walk(model, page);
    }
}

void run_full_scan(model_t* model, const record_t* records, uint64_t count)
{
    uint64_t i, *clock = &model->clock;
    for (i = 0; i < count; i++) {
        uint64_t page = records[i].address >> 12;
        if (!look_up(records[i].kind ? model->data : model->fetch, 1, 64, clock, page))
            if (!look_up(model->second, 128, 16, clock, page))
                walk(model, page);
    }
}

void run_full_hash(model_t* model, const record_t* records, uint64_t count)
{
    uint64_t i;
    for (i = 0; i < count; i++) {
        uint64_t page = records[i].address >> 12;
        if (!look_up_hashed(&model->hashed[records[i].kind != 0], page))
            if (!look_up(model->second, 128, 16, &model->clock, page))
                walk(model, page);
    }
}
