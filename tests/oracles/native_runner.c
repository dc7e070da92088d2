/*
 * The native oracle: runs short x86-64 byte strings on the host's own processor.
 *
 * Python (native.py) starts this program with a shared file that holds cases and results,
 * and asks for batches through the pipe on stdin.  Each case is entered with every register
 * loaded by `iretq` (which also serialises, so freshly written code is seen) and left either
 * through a jump placed behind the tested bytes or through a signal handler.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#if !defined(__x86_64__) || !defined(__linux__)
#error "the native oracle needs x86-64 Linux"
#endif

#define PAGE 4096u
#define CODE_ADDRESS 0x20000000ul
#define DATA_ADDRESS 0x10000000ul
#define DATA_BYTES (2 * PAGE)
#define CODE_LIMIT 64
#define WINDOW_BYTES 256
#define STOP_BYTES 5 /* jmp rel32 */

#define MAGIC 0x31454c4341524f48ul

/* Flags a case may start with: CF PF AF ZF SF DF OF AC ID.  TF would trap every instruction and
 * NT would make the entering iretq fault, so neither is let in. */
#define FLAGS_IN 0x240cd5ul
/* Flags a result reports: the above and TF, NT.  RF, IF and IOPL say nothing about the tested code. */
#define FLAGS_OUT 0x244dd5ul

enum status { STATUS_NONE = 0, STATUS_STOPPED = 1, STATUS_SIGNAL = 2, STATUS_TIMEOUT = 3, STATUS_DIED = 4 };

struct test_case {
    uint64_t gpr[16]; /* in encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8.. */
    uint64_t rflags;
    uint64_t filler_seed;
    uint32_t mxcsr;
    uint16_t code_length;
    uint16_t code_offset;
    uint16_t window_offset;
    uint16_t x87_control;
    uint16_t x87_status;
    uint16_t x87_tags; /* abridged: one bit for each register in use */
    uint8_t code[CODE_LIMIT];
    uint8_t xmm[16][16];
    uint8_t st[8][16];
    uint8_t window[WINDOW_BYTES];
};

struct test_result {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    uint64_t error_code;
    uint64_t fault_address;
    uint64_t checksum;
    uint32_t mxcsr;
    uint32_t status;
    uint32_t signal;
    uint32_t trap;
    uint16_t x87_control;
    uint16_t x87_status;
    uint16_t x87_tags;
    uint16_t reserved;
    uint8_t xmm[16][16];
    uint8_t st[8][16];
    uint8_t window[WINDOW_BYTES];
};

struct shared_header {
    volatile uint64_t current; /* the case being run: names the culprit if this process dies */
    uint8_t padding[PAGE - 8];
};

/* The legacy region of FXSAVE. */
struct fx_image {
    uint16_t control;
    uint16_t status;
    uint8_t tags;
    uint8_t reserved0;
    uint16_t opcode;
    uint64_t instruction_pointer;
    uint64_t data_pointer;
    uint32_t mxcsr;
    uint32_t mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t reserved1[96];
} __attribute__((aligned(64)));

/* The trampolines name these by absolute address (the program is linked non-PIE, so every static
 * address fits in 32 bits): no register is free while the tested state is being loaded or saved. */
__attribute__((used)) uint64_t in_gpr[16];
__attribute__((used)) struct fx_image in_fx;
__attribute__((used, aligned(64))) uint64_t in_frame[8]; /* rip cs rflags rsp ss */
__attribute__((used)) uint64_t out_gpr[16];
__attribute__((used)) struct fx_image out_fx;
__attribute__((used, aligned(64))) uint64_t out_flags[8]; /* pushfq lands in element 6 */
__attribute__((used)) uint64_t runner_stack;
__attribute__((used)) uint32_t runner_mxcsr = 0x1f80;

int enter_case(void);            /* 0: reached the stop, 1: left by leave_case */
void stop_landing(void);         /* where the jump behind the tested code goes */
void leave_case(void) __attribute__((noreturn));

__asm__(
    ".text\n"
    ".globl enter_case\n"
    "enter_case:\n"
    "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, runner_stack\n"
    "  fxrstor64 in_fx\n"
    "  mov in_gpr+0, %rax\n"
    "  mov in_gpr+8, %rcx\n"
    "  mov in_gpr+16, %rdx\n"
    "  mov in_gpr+24, %rbx\n"
    "  mov in_gpr+40, %rbp\n"
    "  mov in_gpr+48, %rsi\n"
    "  mov in_gpr+56, %rdi\n"
    "  mov in_gpr+64, %r8\n"
    "  mov in_gpr+72, %r9\n"
    "  mov in_gpr+80, %r10\n"
    "  mov in_gpr+88, %r11\n"
    "  mov in_gpr+96, %r12\n"
    "  mov in_gpr+104, %r13\n"
    "  mov in_gpr+112, %r14\n"
    "  mov in_gpr+120, %r15\n"
    "  mov $in_frame, %esp\n"
    "  iretq\n"

    ".globl stop_landing\n"
    "stop_landing:\n"
    "  mov %rsp, out_gpr+32\n"
    "  mov $out_flags+56, %esp\n"
    "  pushfq\n"
    "  mov %rax, out_gpr+0\n"
    "  mov %rcx, out_gpr+8\n"
    "  mov %rdx, out_gpr+16\n"
    "  mov %rbx, out_gpr+24\n"
    "  mov %rbp, out_gpr+40\n"
    "  mov %rsi, out_gpr+48\n"
    "  mov %rdi, out_gpr+56\n"
    "  mov %r8, out_gpr+64\n"
    "  mov %r9, out_gpr+72\n"
    "  mov %r10, out_gpr+80\n"
    "  mov %r11, out_gpr+88\n"
    "  mov %r12, out_gpr+96\n"
    "  mov %r13, out_gpr+104\n"
    "  mov %r14, out_gpr+112\n"
    "  mov %r15, out_gpr+120\n"
    "  fxsave64 out_fx\n"
    "  xor %eax, %eax\n"
    "  jmp back_in_runner\n"

    ".globl leave_case\n"
    "leave_case:\n"
    "  mov $1, %eax\n"
    "back_in_runner:\n"
    "  mov runner_stack, %rsp\n"
    "  pushq $0x202\n"
    "  popfq\n"
    "  fninit\n" /* drops a pending x87 exception without raising it */
    "  ldmxcsr runner_mxcsr\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n"
    "  ret\n");

static struct shared_header *header;
static struct test_case *cases;
static struct test_result *results;

static uint8_t *code_writable; /* the same page as CODE_ADDRESS, which is read+execute only */
static uint8_t *const data_pages = (uint8_t *)DATA_ADDRESS;

static struct test_result *volatile running; /* NULL outside a case */
static volatile uint64_t case_serial;        /* never repeats: how the timer knows a stuck case */
static uint64_t ticked_serial;
static unsigned ticks;

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ul;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebul;
    return value ^ (value >> 31);
}

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15ul;
static uint64_t filler[DATA_BYTES / 8];
static uint64_t filler_seed;
static int filler_ready;
static uint64_t weights[DATA_BYTES / 8];

static void prepare_filler(uint64_t seed)
{
    if (filler_ready && filler_seed == seed)
        return;
    for (unsigned i = 0; i < DATA_BYTES / 8; i++)
        filler[i] = mix(seed + (i + 1) * GOLDEN);
    filler_seed = seed;
    filler_ready = 1;
}

/* A sum weighted by odd numbers: any change in one word changes it, and numpy can do the same sum. */
static uint64_t data_checksum(void)
{
    const uint64_t *words = (const uint64_t *)data_pages;
    uint64_t sum = 0;
    for (unsigned i = 0; i < DATA_BYTES / 8; i++)
        sum += words[i] * weights[i];
    return sum;
}

static void copy_st(uint8_t (*to)[16], const uint8_t (*from)[16])
{
    for (unsigned i = 0; i < 8; i++) {
        memcpy(to[i], from[i], 10);
        memset(to[i] + 10, 0, 6); /* FXSAVE leaves these undefined */
    }
}

static void record_fx(struct test_result *result, const struct fx_image *image)
{
    result->mxcsr = image->mxcsr;
    result->x87_control = image->control;
    result->x87_status = image->status;
    result->x87_tags = image->tags;
    copy_st(result->st, image->st);
    memcpy(result->xmm, image->xmm, sizeof result->xmm);
}

static void record_context(struct test_result *result, const ucontext_t *context)
{
    static const uint8_t order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    const greg_t *registers = context->uc_mcontext.gregs;
    for (unsigned i = 0; i < 16; i++)
        result->gpr[i] = (uint64_t)registers[order[i]];
    result->rip = (uint64_t)registers[REG_RIP];
    result->rflags = (uint64_t)registers[REG_EFL] & FLAGS_OUT;
    if (context->uc_mcontext.fpregs)
        record_fx(result, (const struct fx_image *)context->uc_mcontext.fpregs);
}

static inline void clear_alignment_check(void)
{
    /* Tested code may have set AC, under which compiled C could fault. */
    __asm__ volatile("pushfq\n andq $~0x40000, (%%rsp)\n popfq" ::: "memory", "cc");
}

static void on_fault(int number, siginfo_t *information, void *opaque)
{
    clear_alignment_check();
    (void)information;
    const ucontext_t *context = opaque;
    struct test_result *result = running;
    if (!result)
        _exit(70); /* a fault of the runner itself */
    running = NULL;
    record_context(result, context);
    result->status = STATUS_SIGNAL;
    result->signal = (uint32_t)number;
    result->trap = (uint32_t)context->uc_mcontext.gregs[REG_TRAPNO];
    result->error_code = (uint64_t)context->uc_mcontext.gregs[REG_ERR];
    /* The kernel leaves the last CR2 in place for other traps: only a page fault's is news. */
    if (result->trap == 14)
        result->fault_address = (uint64_t)context->uc_mcontext.gregs[REG_CR2];
    leave_case();
}

static void on_tick(int number, siginfo_t *information, void *opaque)
{
    clear_alignment_check();
    (void)information;
    struct test_result *result = running;
    if (!result)
        return;
    if (ticked_serial != case_serial) {
        ticked_serial = case_serial;
        ticks = 0;
        return;
    }
    if (++ticks < 3)
        return;
    running = NULL;
    record_context(result, opaque);
    result->status = STATUS_TIMEOUT;
    result->signal = (uint32_t)number;
    leave_case();
}

static void run_case(const struct test_case *test, struct test_result *result)
{
    static unsigned dirty_from, dirty_to; /* what the last case wrote into the code page */
    unsigned offset = test->code_offset, length = test->code_length;

    memset(result, 0, sizeof *result);
    if (length > CODE_LIMIT || offset + length > PAGE || test->window_offset > DATA_BYTES - WINDOW_BYTES)
        return; /* STATUS_NONE: a malformed case */

    prepare_filler(test->filler_seed);
    memcpy(data_pages, filler, DATA_BYTES);
    memcpy(data_pages + test->window_offset, test->window, WINDOW_BYTES);

    memset(code_writable + dirty_from, 0xcc, dirty_to - dirty_from);
    dirty_from = offset;
    dirty_to = offset + length;
    memcpy(code_writable + offset, test->code, length);
    if (offset + length + STOP_BYTES <= PAGE) {
        /* Without room for the stop the code runs off its page: a way to test fetch faults. */
        int32_t distance = (int32_t)((int64_t)(uintptr_t)stop_landing
                                     - (int64_t)(CODE_ADDRESS + offset + length + STOP_BYTES));
        code_writable[offset + length] = 0xe9;
        memcpy(code_writable + offset + length + 1, &distance, 4);
        dirty_to += STOP_BYTES;
    }

    memcpy(in_gpr, test->gpr, sizeof in_gpr);
    in_frame[0] = CODE_ADDRESS + offset;
    in_frame[2] = (test->rflags & FLAGS_IN) | 0x202;
    in_frame[3] = test->gpr[4];
    in_fx.control = test->x87_control;
    in_fx.status = test->x87_status;
    in_fx.tags = (uint8_t)test->x87_tags;
    in_fx.mxcsr = test->mxcsr & 0xffff; /* the bits above are reserved: FXRSTOR would fault */
    copy_st(in_fx.st, test->st);
    memcpy(in_fx.xmm, test->xmm, sizeof in_fx.xmm);

    case_serial++;
    running = result;
    int left_by_signal = enter_case();
    running = NULL;

    if (!left_by_signal) {
        result->status = STATUS_STOPPED;
        memcpy(result->gpr, out_gpr, sizeof out_gpr);
        result->rip = CODE_ADDRESS + offset + length;
        result->rflags = out_flags[6] & FLAGS_OUT;
        record_fx(result, &out_fx);
    }
    memcpy(result->window, data_pages + test->window_offset, WINDOW_BYTES);
    result->checksum = data_checksum();
}

static int read_exactly(int descriptor, void *buffer, size_t length)
{
    uint8_t *at = buffer;
    while (length) {
        ssize_t got = read(descriptor, at, length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        at += got;
        length -= (size_t)got;
    }
    return 1;
}

static int write_exactly(int descriptor, const void *buffer, size_t length)
{
    const uint8_t *at = buffer;
    while (length) {
        ssize_t put = write(descriptor, at, length);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return 0;
        at += put;
        length -= (size_t)put;
    }
    return 1;
}

static unsigned long parse_number(const char *text)
{
    unsigned long value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (unsigned long)(*text - '0');
    return value;
}

/* Reserves a page on each side as well, so that nothing else can come to lie next to the pages. */
static void *map_low(unsigned long address, size_t length, int protection, int descriptor)
{
    char *whole = mmap((void *)(address - PAGE), length + 2 * PAGE, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (whole != (char *)(address - PAGE))
        return NULL;
    int kind = descriptor < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *inner = mmap((void *)address, length, protection, kind | MAP_FIXED | MAP_POPULATE, descriptor, 0);
    return inner == MAP_FAILED ? NULL : inner;
}

/* Exit codes: 2 bad use, 3 an address range was taken (worth a retry), 4 any other set-up failure. */
int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int shared = (int)parse_number(argv[1]);
    unsigned long capacity = parse_number(argv[2]);

    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);

    size_t shared_bytes =
        sizeof(struct shared_header) + capacity * (sizeof(struct test_case) + sizeof(struct test_result));
    header = mmap(NULL, shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (header == MAP_FAILED)
        return 4;
    cases = (struct test_case *)(header + 1);
    results = (struct test_result *)(cases + capacity);

    int code_file = memfd_create("native-runner-code", MFD_CLOEXEC);
    if (code_file < 0 || ftruncate(code_file, PAGE) != 0)
        return 4;
    code_writable = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, code_file, 0);
    if (code_writable == MAP_FAILED)
        return 4;
    memset(code_writable, 0xcc, PAGE);
    if (!map_low(CODE_ADDRESS, PAGE, PROT_READ | PROT_EXEC, code_file)
        || !map_low(DATA_ADDRESS, DATA_BYTES, PROT_READ | PROT_WRITE, -1))
        return 3;

    static uint8_t signal_stack[256 * 1024] __attribute__((aligned(64)));
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    if (sigaltstack(&stack, NULL) != 0)
        return 4;
    /* SA_NODEFER: leave_case never returns through sigreturn, so nothing would unblock the signal. */
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
        sigaction(faults[i], &action, NULL);
    action.sa_sigaction = on_tick;
    action.sa_flags |= SA_RESTART;
    sigaction(SIGPROF, &action, NULL);
    /* Processor time, not wall time: a busy host must not make a short case look stuck. */
    struct itimerval interval = {.it_interval = {0, 20000}, .it_value = {0, 20000}};
    setitimer(ITIMER_PROF, &interval, NULL);

    for (unsigned i = 0; i < DATA_BYTES / 8; i++)
        weights[i] = mix(i * GOLDEN) | 1;
    uint16_t selector;
    __asm__("mov %%cs, %0" : "=r"(selector));
    in_frame[1] = selector;
    __asm__("mov %%ss, %0" : "=r"(selector));
    in_frame[4] = selector;

    uint64_t greeting[6] = {MAGIC,        sizeof(struct test_case), sizeof(struct test_result),
                            CODE_ADDRESS, DATA_ADDRESS,             DATA_BYTES};
    if (!write_exactly(1, greeting, sizeof greeting))
        return 4;

    uint64_t request[2]; /* first case, one past the last */
    while (read_exactly(0, request, sizeof request)) {
        if (request[0] > request[1] || request[1] > capacity)
            return 2;
        for (uint64_t i = request[0]; i < request[1]; i++) {
            header->current = i;
            run_case(&cases[i], &results[i]);
        }
        header->current = request[1];
        if (!write_exactly(1, request, sizeof request))
            return 4;
    }
    return 0;
}
