/* SPDX-License-Identifier: MIT */
/* The task-switched flag: a trap at the next FPU instruction, once. */
#include "pv.h"

static void fpu(uint64_t unused)
{
    __asm__ volatile("fnop");
}

static void sse(uint64_t unused)
{
    __asm__ volatile("movaps %%xmm0, %%xmm0" : : );
}

extern uint8_t user_fpu[], user_at_fpu[], user_after_fpu[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_fpu: user_at_fpu: fnop; user_after_fpu: ud2\n"
        ".popsection");

void test_main(void)
{
    pv_user_init();
    CHECK_EQ(PV_CALL(fpu_taskswitch, 0), 0);
    CHECK_EQ(pv_catch(fpu, 0), -1);
    CHECK_EQ(PV_CALL(fpu_taskswitch, 1), 0);
    CHECK_EQ(pv_catch(fpu, 0), 7);
    CHECK_EQ(pv_catch(fpu, 0), -1);         /* Xen has cleared it */
    CHECK_EQ(PV_CALL(fpu_taskswitch, 1), 0);
    CHECK_EQ(pv_catch(sse, 0), 7);
    CHECK_EQ(pv_catch(sse, 0), -1);
    CHECK_EQ(PV_CALL(fpu_taskswitch, 1), 0);
    CHECK_EQ(pv_user_run(user_fpu, 0), 7);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_at_fpu));
    CHECK_EQ(pv_user_run(user_fpu, 0), 6);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_after_fpu));
}
