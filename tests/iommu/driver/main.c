/* Entered with the number of a scenario, the GPA of the DMAR table and that of the DMA engine; ends with CLI; HLT and a
 * report at 8000h: a magic number, or the line of the check that failed and what was found instead. */
#include "vtd.h"

static void (*const scenarios[])(void) = {
    by_register, by_queue, large_pages, fault_events, contexts, queue_errors, take_over, protection, addresses,
    messages, blocked_messages, posting, pins, wide_destinations,
    second_level, first_level, nesting, passing, pasids,
    low_half_first, high_half_first, whole_table, other_mode,
};

__attribute__((section(".text.start"), noreturn)) void _start(u64 number, const u8 *dmar, volatile u64 *where) {
    engine = where;
    take_interrupts();
    find_units(dmar);
    scenarios[number]();
    *(volatile u64 *)0x8000 = 0x600D;
    for (;;) __asm__ volatile("cli; hlt");
}
