/* SDM 3A 6.7, 6.8, 6.9 and 2B: shadows of STI and MOV SS, NMI blocking, HLT, POPF and IRET, priority of events. */
#include "kernel.h"

static volatile u64 rips[16], depths, most;
static volatile u32 at;
static void remember(struct frame *f) { rips[at++ & 15] = f->rip; if (f->vector >= 32) eoi(); }

#define SEND(v) ipi(0, SELF | (v))
#define CODE(text, ...) __asm__ volatile(text : "=r"(label) : __VA_ARGS__ : "memory", "cc")

static void shadows(void)
{
    u64 label;
    hooks[0x40] = remember;
    cli(); at = 0; SEND(0x40);
    __asm__ volatile("sti\n nop\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("STI holds one instruction", rips[0], label);
    cli(); at = 0; SEND(0x40);
    __asm__ volatile("sti\n cli\n nop" : : : "memory");
    EQ("STI; CLI takes nothing", at, 0);
    __asm__ volatile("sti\n sti\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("a second STI does not prolong it", rips[0], label);
    cli(); at = 0; SEND(0x40);
    __asm__ volatile("pushfq\n orq $0x200, (%%rsp)\n popfq\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("POPF has no shadow", rips[0], label);
    cli(); at = 0; SEND(0x40);
    __asm__ volatile("mov %%rsp, %%rax\n pushq $0x10\n push %%rax\n pushq $0x202\n pushq $8\n lea 1f(%%rip), %%rax\n"
                     " push %%rax\n iretq\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "rax", "memory");
    EQ("IRET has no shadow", rips[0], label);
    /* with IF set: the request comes by MOV CR8 that lowers the priority, then MOV SS */
    cli(); at = 0; write_cr8(15); SEND(0x40); sti();
    EQ("CR8 holds it", at, 0);
    __asm__ volatile("mov %%ss, %%eax\n xor %%ecx, %%ecx\n mov %%rcx, %%cr8\n 1: mov %%eax, %%ss\n nop\n "
                     "lea 1b(%%rip), %0"
                     : "=r"(label) : : "rax", "rcx", "memory");
    EQ("MOV CR8 has no shadow", rips[0], label);
    cli(); at = 0; SEND(0x40);
    __asm__ volatile("mov %%ss, %%eax\n sti\n mov %%eax, %%ss\n 1: nop\n 2: nop\n lea 2b(%%rip), %0"
                     : "=r"(label) : : "rax", "memory");
    OK("MOV SS in the shadow of STI: behind it, or behind the next", rips[0] == label || rips[0] == label - 1);
    cli(); at = 0;
    hooks[3] = remember;
    __asm__ volatile("mov %%ss, %%eax\n mov %%eax, %%ss\n int3\n 1: lea 1b(%%rip), %0"
                     : "=r"(label) : : "rax", "memory");
    EQ("INT3 behind MOV SS", rips[0], label);
    hooks[3] = 0;
    sti();
    hooks[0x40] = 0;
}

static void waking(void)
{
    u64 label;
    hooks[0x40] = remember;
    cli(); at = 0; SEND(0x40);
    __asm__ volatile("sti\n hlt\n 1: nop\n lea 1b(%%rip), %0" : "=r"(label) : : "memory");
    EQ("STI; HLT with a request: HLT is done, RIP behind it", rips[0], label);
    EQ("once", at, 1);
    hooks[0x40] = 0;
    sti();
}

static volatile u32 nmis, nmis_inside, inside;
static void nmi(struct frame *f)
{
    (void)f;
    if (inside)
        nmis_inside++;
    inside = 1;
    if (nmis++ == 0) {
        ipi(0, NMI); ipi(0, NMI); ipi(0, NMI);
        spin(500);
        SEND(0x41);
        sti();                              /* interrupts may come inside, and their IRET unblocks NMIs */
        cli();
    }
    inside = 0;
}

static void nmi_plain(struct frame *f)
{
    rips[nmis & 15] = f->rip;
    if (nmis++ == 0) {
        ipi(0, NMI); ipi(0, NMI); ipi(0, NMI);
        spin(500);
    }
}

static void nmi_fault(struct frame *f)      /* a #UD inside: its IRET unblocks */
{
    (void)f;
    if (nmis++ == 0) {
        ipi(0, NMI);
        spin(500);
        depths = nmis;
        __asm__ volatile("movq $1f, %0\n ud2\n 1: movq $0, %0" : "=m"(recover[0]) : : "memory");
        most = nmis;
    }
}

static void nmis_collapse(void)
{
    cli();
    hooks[2] = nmi_plain; nmis = 0;
    ipi(0, NMI);
    spin(500);
    EQ("three NMIs in the handler of one are one more", nmis, 2);
    EQ("right behind IRET: at the same instruction", rips[1], rips[0]);
    hooks[2] = nmi; nmis = 0;
    ipi(0, NMI);
    spin(500);
    EQ("an interrupt's IRET unblocks NMIs", nmis, 2);
    EQ("inside the handler", nmis_inside, 1);
    hooks[2] = nmi_fault; nmis = 0;
    ipi(0, NMI);
    spin(500);
    EQ("blocked before the fault's IRET", depths, 1);
    EQ("taken behind it", most, 2);
    hooks[2] = 0;
    sti();
}

static void nmi_with_interrupts(void)
{
    u64 label;
    cli();
    at = 0; forget();
    hooks[2] = remember;
    SEND(0x40);
    write_cr8(0);
    /* NMI and interrupt pending at one boundary: the NMI arrives in the shadow of MOV SS */
    mmio_write(ICR2, 0);
    __asm__ volatile("mov %%ss, %%ecx\n movl $0xFEE00300, %%eax\n sti\n mov %%ecx, %%ss\n movl $0x400, (%%rax)\n "
                     "1: nop\n nop\n lea 1b(%%rip), %0"
                     : "=r"(label) : : "rax", "rcx", "memory");
    spin(200);
    EQ("both came", taken[0][2] + taken[0][0x40], 2);
    EQ("NMI goes first", order[0][0], 2);
    hooks[2] = 0;
}

static volatile u32 steps;
static volatile u64 step_rip[32];
static void step(struct frame *f)
{
    step_rip[steps++ & 31] = f->rip;
    if (steps == 6)
        f->rflags &= ~0x100UL;
}

static void trap_and_interrupt(void)
{
    /* 6.9: debug traps on the previous instruction before external interrupts */
    u64 label;
    hooks[1] = step; hooks[0x40] = remember;
    cli(); at = steps = 0; forget(); SEND(0x40);
    __asm__ volatile("pushfq\n orq $0x300, (%%rsp)\n popfq\n 1: nop\n nop\n nop\n nop\n nop\n nop\n nop\n "
                     "lea 1b(%%rip), %0"
                     : "=r"(label) : : "memory");
    /* POPF itself does not trap; the interrupt comes at 1: before the nop, TF is clear in its handler */
    EQ("the interrupt comes first, nothing has trapped", order[0][0], 0x40);
    EQ("at the instruction behind POPF", rips[0], label);
    EQ("then single steps", order[0][1], 1);
    EQ("the first one behind the NOP", step_rip[0], label + 1);
    cli(); at = steps = 0; forget();
    write_cr8(15); SEND(0x40); sti();
    __asm__ volatile("xor %%ecx, %%ecx\n pushfq\n orq $0x100, (%%rsp)\n popfq\n mov %%rcx, %%cr8\n 1: nop\n nop\n "
                     "nop\n nop\n nop\n nop\n nop\n lea 1b(%%rip), %0"
                     : "=r"(label) : : "rcx", "memory");
    EQ("trap of MOV CR8 before the interrupt that it let in", order[0][0], 1);
    EQ("which is next", order[0][1], 0x40);
    EQ("with the same RIP", rips[0], step_rip[0]);
    cli(); at = steps = 0; forget();
    __asm__ volatile("mov %%ss, %%ecx\n pushfq\n orq $0x100, (%%rsp)\n popfq\n mov %%ecx, %%ss\n nop\n 1: nop\n "
                     "nop\n nop\n nop\n nop\n nop\n nop\n lea 1b(%%rip), %0"
                     : "=r"(label) : : "rcx", "memory");
    EQ("MOV SS holds the trap back", step_rip[0], label);
    cli(); at = steps = 0; forget();
    __asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n sti\n 1: nop\n nop\n nop\n nop\n nop\n nop\n nop\n "
                     "lea 1b(%%rip), %0"
                     : "=r"(label) : : "memory");
    EQ("STI does not", step_rip[0], label);
    cli(); at = 0; steps = 5; forget();
    __asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n hlt\n 1: nop\n nop\n lea 1b(%%rip), %0"
                     : "=r"(label) : : "memory");
    EQ("the trap of HLT wakes it", steps, 6);
    EQ("behind it", step_rip[5], label);
    hooks[1] = hooks[0x40] = 0;
    sti();
}

static void software_interrupts(void)
{
    cli();
    forget();
    wr(TPR, 0xFF);
    __asm__ volatile("int $0x21" : : : "memory");   /* its handler writes EOI: nothing is in service */
    EQ("INT n needs neither IF nor priority", taken[0][0x21], 1);
    EQ("INT n is not in service", bit_of(ISR, 0x21), 0);
    wr(TPR, 0);
}

void test(void)
{
    shadows();
    waking();
    nmis_collapse();
    nmi_with_interrupts();
    trap_and_interrupt();
    software_interrupts();
}
