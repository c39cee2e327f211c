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

void test_main(void)
{
    pv_user_init();
    /* no callback: as if the processor had no such instruction */
    CHECK_EQ(pv_user_run(user_call, 0), 6);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_at_call));
    check_call(false);
    check_call(true);
    CHECK_EQ(pv_callback(CALLBACKTYPE_syscall, (void *)0x8000000000000000, 0), -XEN_EINVAL);
    check_call(true);       /* the old one holds */
}
