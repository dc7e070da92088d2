/* Overlay pages (2, 3.5, 11.3), the MSRs that place them, and who may do what with them. */
#include "synic.h"

static u8 area[4][4096] __attribute__((aligned(4096)));
#define FAR ((volatile u8 *)0xC0000000UL)       /* no memory of the partition there */

static volatile u64 looked;
static void look(void) { looked = *(volatile u64 *)(sief_pages[0] + 7 * 256); }

static u64 at_vmcall(u64 control)
{
    u64 result = control;
    __asm__ volatile(".byte 0x0F, 0x01, 0xC1" : "=a"(result) : "c"(control), "d"(0UL) : "r8", "memory");
    return result;
}

void test(void)
{
    section("MSRs that are not there");
    static const u32 none[] = { 0x40000004, 0x4000000F, 0x40000024, 0x4000003F, 0x40000074, 0x4000007F, 0x40000086,
                                0x4000008F, 0x400000A0, 0x400000AF, 0x400000B8, 0x40000116, 0x40000200, 0x40001080 };
    for (u32 i = 0; i < sizeof none / 4; i++) {
        check("read", read_faults(none[i]), 13);
        check("write", write_faults(none[i], 0), 13);
    }
    check("RESET reads 0", rdmsr(RESET), 0);
    check("RESET has one bit", write_faults(RESET, 2), 13);

    section("hypercall page");
    u64 page = (u64)hypercall_page;
    check("placed", rdmsr(HYPERCALL) & ~0xFFEUL, page | 1);
    check("written", store_faults(hypercall_page, 0), 13);
    check("written at its end", store_faults(hypercall_page + 4095, 0), 13);
    TRUE("VMCALL or VMMCALL, and RET", hypercall_page[0] == 0x0F && hypercall_page[3] == 0xC3);
    area[0][0] = 0x90, area[0][1] = 0xC3;
    wrmsr(HYPERCALL, (u64)area[0] | 1);
    check("moved", area[0][0], 0x0F);
    check("RAM is seen again", hypercall_page[0], 0);
    wrmsr(HYPERCALL, (u64)area[0]);
    check("off", area[0][0], 0x90);
    wrmsr(HYPERCALL, page | 1);
    wrmsr(GUEST_OS_ID, 0);
    check("identity 0 switches it off", rdmsr(HYPERCALL), page);
    check("it is not there", hypercall_page[0], 0);
    wrmsr(HYPERCALL, page | 1);
    check("and cannot be switched on", rdmsr(HYPERCALL), page);
    wrmsr(GUEST_OS_ID, 1UL << 63 | 1);
    wrmsr(HYPERCALL, page | 1);
    check("it is back", rdmsr(HYPERCALL), page | 1);
    check("outside of the space", write_faults(HYPERCALL, 1UL << 55 | 1), 13);
    check("still there", rdmsr(HYPERCALL), page | 1);
    check("identity reads", rdmsr(GUEST_OS_ID), 1UL << 63 | 1);
    check("VMCALL elsewhere", at_vmcall(0x0B | 1 << 16), 5);

    section("reference TSC page");
    wrmsr(REFERENCE_TSC, (u64)area[1] | 1);
    check("written", store_faults(area[1], 0), 13);
    check("written behind the fields", store_faults(area[1] + 100, 0), 13);
    for (u32 i = 24; i < 4096; i++)
        if (area[1][i] && (i < 24 || i >= 40))
            check("reserved", area[1][i], 0);
    wrmsr(REFERENCE_TSC, 0);
    check("written again", store_faults(area[1], 0), 256);

    section("SIM page where no memory is");
    wrmsr(SIMP, (u64)FAR | 1), wrmsr(SCONTROL, 1), sint(2, POLLING);
    u64 port = host(OP_MESSAGE_PORT, 2, 0, 0, 0);
    check("posted", host(OP_POST, port, 2, 16, 0), 2);
    check("type", *(volatile u32 *)(FAR + 512), 1);
    check("pending", FAR[517], 1);
    *(volatile u32 *)(FAR + 512) = 0;
    wrmsr(EOM, 0);
    check("the next", *(volatile u32 *)(FAR + 512), 1);
    check("it is read and written", (FAR[4095] = 0x77, FAR[4095]), 0x77);
    wrmsr(SIMP, (u64)area[2] | 1);
    check("its bytes come along", area[2][4095], 0x77);
    wrmsr(SIMP, 1UL << 60 | 1);
    check("beyond the space: accepted", rdmsr(SIMP), 1UL << 60 | 1);
    wrmsr(SIMP, (u64)area[2] | 1);
    check("bytes are kept", area[2][4095], 0x77);

    section("assist page");
    area[3][9] = 0x55;
    wrmsr(VP_ASSIST, (u64)area[3] | 1);
    check("its own bytes", area[3][9], 0);
    area[3][200] = 0x66;
    wrmsr(VP_ASSIST, (u64)area[0] | 1);
    check("RAM is seen again", area[3][9], 0x55);
    check("bytes come along", area[0][200], 0x66);
    wrmsr(VP_ASSIST, 0);
    check("RAM is seen again", area[0][0], 0x90);

    section("a SIEF page that another processor looks at");
    if (processors > 1) {
        wrmsr(SIEFP, (u64)sief_pages[0] | 1), sint(7, POLLING);
        u64 events = host(OP_EVENT_PORT, 7, 0, 0, 2048);
        host(OP_SIGNAL, events, 2, 0, 0);
        run_on(1, look);
        check("overlays are seen by all", looked, 4);
    }
}
