/* SPDX-License-Identifier: MIT */
/* System calls of 64-bit user space. */
#include "pv.h"

#include <xen/callback.h>

extern uint8_t user_call[], user_after_call[], user_at_call[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_call: mov $0x1234, %eax; mov $0x5678, %r10d; std\n"
        "user_at_call: syscall\n"
        "user_after_call: ud2\n"
        ".popsection");

static void check_call(bool masks)
{
    CHECK_EQ(pv_callback(CALLBACKTYPE_syscall, pv_entries[PV_SYSCALL],
                         masks ? CALLBACKF_mask_events : 0), 0);
    *pv_event_mask() = 1;
    CHECK_EQ(pv_user_run(user_call, 0x9abc), PV_SYSCALL);
    CHECK_EQ(pv_caught.rax, 0x1234);
    CHECK_EQ(pv_caught.r10, 0x5678);
    CHECK_EQ(pv_caught.rdi, 0x9abc);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_after_call));
    CHECK_EQ(pv_caught.frame_rcx, PV_USER_ADDRESS(user_after_call));
    CHECK_EQ(pv_caught.frame_r11 & 0x600, 0x600);
    CHECK_EQ(pv_caught.rflags & 0x600, 0x600);
    CHECK_EQ(pv_caught.cs & 0xffff, FLAT_USER_CS);
    CHECK_EQ(pv_caught.ss & 0xffff, FLAT_USER_SS);
    CHECK_EQ(pv_caught.rsp, PV_USER_STACK_END);
    CHECK_EQ(pv_caught_mask, masks);
}

extern uint8_t user_trap[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_trap: ud2\n"
        ".popsection");

static void enter(uint64_t context)
{
    __asm__ volatile("mov %0, %%rsp; mov $23, %%eax; syscall; ud2" : : "r"(context) : "memory");
}

/* As the end of a system call is: rcx is the address and r11 the flags, or nearly.  All
 * registers are as the kernel said, whichever instruction that took. */
static void check_return(uint64_t rcx_off, uint64_t flags, uint64_t r11)
{
    struct iret_context c = {
        .rax = 0x1234, .rcx = PV_USER_ADDRESS(user_trap) + rcx_off, .r11 = r11,
        .rip = PV_USER_ADDRESS(user_trap), .cs = FLAT_USER_CS, .rflags = flags,
        .rsp = PV_USER_STACK_END - 8, .ss = FLAT_USER_SS,
    };

    CHECK_EQ(pv_catch(enter, (uint64_t)&c), 6);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_trap));
    CHECK_EQ(pv_caught.rax, 0x1234);
    CHECK_EQ(pv_caught.rcx, c.rcx);
    CHECK_EQ(pv_caught.r11, c.r11);
    CHECK_EQ(pv_caught.rsp, c.rsp);
    CHECK_EQ(pv_caught.cs & 0xffff, FLAT_USER_CS);
    CHECK_EQ(pv_caught.ss & 0xffff, FLAT_USER_SS);
    /* a fault sets RF in the flags it pushes, which is no news */
    CHECK_EQ(pv_caught.rflags & ~RFLAGS_RF, (flags | 2) & ~RFLAGS_RF);
}

static void check_returns(void)
{
    const uint64_t flags = RFLAGS_IF | 2;

    check_return(0, flags, flags);
    check_return(0, flags | 0x401, flags | 0x401);      /* DF and CF */
    check_return(0, flags, 0);
    check_return(0, flags, flags | 1);
    check_return(0, flags | 1, flags);
    check_return(2, flags, flags);
    check_return(0, flags | RFLAGS_RF, flags | RFLAGS_RF);
}

void test_main(void)
{
    pv_user_init();
    check_returns();
    /* no callback: as if the processor had no such instruction */
    CHECK_EQ(pv_user_run(user_call, 0), 6);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_at_call));
    check_call(false);
    check_call(true);
    CHECK_EQ(pv_callback(CALLBACKTYPE_syscall, (void *)0x8000000000000000, 0), -XEN_EINVAL);
    check_call(true);       /* the old one holds */
}
