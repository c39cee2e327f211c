/* SPDX-License-Identifier: MIT */
/* System calls of 32-bit user space: INT 0x80, and the one the processor has of
 * SYSCALL (AMD) and SYSENTER (Intel). */
#include "pv.h"

#include <xen/callback.h>

extern uint8_t user_int80[], user_after_int80[], user_syscall[], user_after_syscall[],
    user_sysenter[];
__asm__(".pushsection .user, \"ax\"; .code32\n"
        "user_int80: int $0x80; user_after_int80: ud2\n"
        "user_syscall: syscall; user_after_syscall: ud2\n"
        "user_sysenter: sysenter; ud2\n"
        ".code64; .popsection");

static struct iret_context wanted;

static void go(uint64_t unused)
{
    pv_iret_user(&wanted);
}

static int run32(const void *symbol)
{
    wanted = (struct iret_context){
        .rip = PV_USER_ADDRESS(symbol), .cs = FLAT_USER_CS32, .rflags = RFLAGS_IF,
        .rsp = PV_USER_STACK_END, .ss = FLAT_USER_SS,
    };
    return pv_catch(go, 0);
}

static bool is_intel(void)
{
    uint32_t eax = 0, ebx, ecx, edx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
    return ebx == 0x756e6547;
}

static void check_int80(void)
{
    CHECK_EQ(run32(user_int80), 13);        /* no gate yet */
    CHECK_EQ(pv_caught.error, 0x80 << 3 | 2);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_int80));
    CHECK_EQ(pv_gate(0x80, (uint64_t)pv_entries[0x80], 3), 0);
    CHECK_EQ(run32(user_int80), 0x80);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_after_int80));
    CHECK_EQ(pv_caught.cs & 0xffff, FLAT_USER_CS32);
    CHECK_EQ(pv_caught.rsp, PV_USER_STACK_END);
}

static void check_syscall(void)
{
    CHECK_EQ(run32(user_syscall), 6);       /* no callback yet */
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_syscall));
    CHECK_EQ(pv_callback(CALLBACKTYPE_syscall32, pv_entries[PV_SYSCALL32], CALLBACKF_mask_events),
             0);
    CHECK_EQ(run32(user_syscall), PV_SYSCALL32);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_after_syscall));
    CHECK_EQ(pv_caught.cs & 0xffff, FLAT_USER_CS32);
    CHECK_EQ(pv_caught_mask, 1);
}

static void check_sysenter(void)
{
    CHECK_EQ(run32(user_sysenter), 13);     /* no callback yet */
    CHECK_EQ(pv_callback(CALLBACKTYPE_sysenter, pv_entries[PV_SYSENTER], 0), 0);
    for (unsigned tf = 0; tf < 2; tf++) {
        CHECK_EQ(run32(user_sysenter), PV_SYSENTER);
        CHECK_EQ(pv_caught.cs & 3, 3);
        CHECK_EQ(pv_caught.ss & 0xffff, FLAT_USER_SS);
    }
}

void test_main(void)
{
    pv_user_init();
    check_int80();
    if (is_intel())
        check_sysenter();
    else
        check_syscall();
}
