/* I/O APIC, 8259 pair and 8254. */
#ifndef CHIPS_H
#define CHIPS_H
#include "kernel.h"

static inline volatile u32 *ioapic(u32 at) { return (volatile u32 *)(u64)(0xFEC00000 + at); }
static inline u32 io_read(u32 index) { *ioapic(0) = index; return *ioapic(0x10); }
static inline void io_write(u32 index, u32 value) { *ioapic(0) = index; *ioapic(0x10) = value; }
static inline u32 rte(int pin) { return io_read(0x10 + 2 * (u32)pin); }
static inline void set_rte(int pin, u32 high, u32 low)
{
    io_write(0x10 + 2 * (u32)pin, MASKED);
    io_write(0x11 + 2 * (u32)pin, high);
    io_write(0x10 + 2 * (u32)pin, low);
}
enum { PENDING = 1 << 12, LOW = 1 << 13, REMOTE = 1 << 14 };

static inline void pic_init(u8 icw4)
{
    outb(0x20, 0x11); outb(0x21, 0x20); outb(0x21, 4); outb(0x21, icw4);
    outb(0xA0, 0x11); outb(0xA1, 0x28); outb(0xA1, 2); outb(0xA1, icw4);
    outb(0x21, 0xFF); outb(0xA1, 0xFF);
}
static inline u8 pic_irr(u16 port) { outb(port, 0x0A); return inb(port); }
static inline u8 pic_isr(u16 port) { outb(port, 0x0B); return inb(port); }

static inline void pit_mode(u8 control, u32 count)     /* both bytes of a counter */
{
    outb(0x43, control);
    outb((u16)(0x40 + (control >> 6)), (u8)count);
    outb((u16)(0x40 + (control >> 6)), (u8)(count >> 8));
}
static inline u32 pit_read(int counter)
{
    outb(0x43, (u8)(counter << 6));
    u32 low = inb((u16)(0x40 + counter));
    return low | (u32)inb((u16)(0x40 + counter)) << 8;
}
static inline u8 pit_status(int counter) { outb(0x43, (u8)(0xE0 | 2 << counter)); return inb((u16)(0x40 + counter)); }
#endif
