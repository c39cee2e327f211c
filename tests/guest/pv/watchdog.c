/* SPDX-License-Identifier: MIT */
/* SCHEDOP_watchdog: two timers that keep the guest alive as long as it winds them up.
 * With "expire", "masked" or "down" on the command line one runs out. */
#include "pv.h"

#include <xen/errno.h>

#include "base/atomic.h"

static int64_t watchdog(uint32_t id, uint32_t timeout_s)
{
    struct sched_watchdog w = { .id = id, .timeout = timeout_s };

    return PV_CALL(sched_op, SCHEDOP_watchdog, &w);
}

static void wait_ms(unsigned ms)
{
    uint64_t end = pv_time_ns() + ms * 1000000ull;

    while (pv_time_ns() < end)
        cpu_relax();
}

static void check_numbers(void)
{
    CHECK_EQ(watchdog(3, 10), -XEN_EINVAL);     /* there are two */
    CHECK_EQ(watchdog(1, 10), -XEN_EINVAL);     /* not in use yet */
    CHECK_EQ(watchdog(0, 1000), 1);
    CHECK_EQ(watchdog(0, 1000), 2);
    CHECK_EQ(watchdog(0, 1000), -XEN_ENOSPC);
    CHECK_EQ(watchdog(2, 1000), 0);
    CHECK_EQ(watchdog(2, 0), 0);
    CHECK_EQ(watchdog(2, 0), -XEN_EINVAL);      /* given back */
    CHECK_EQ(watchdog(0, 1000), 2);
    CHECK_EQ(watchdog(1, 0), 0);
    CHECK_EQ(watchdog(2, 0), 0);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_watchdog, 0x123456789000), -XEN_EFAULT);
}

/* Each wait is shorter than the timer, all of them are longer. */
static void check_winding(void)
{
    CHECK_EQ(watchdog(0, 3), 1);
    for (unsigned i = 0; i < 5; i++) {
        wait_ms(1000);
        CHECK_EQ(watchdog(1, 3), 0);
    }
    CHECK_EQ(watchdog(1, 0), 0);
    wait_ms(3500);      /* a timer that was stopped stays so */
}

/* On a second vCPU, which is not up when the time is over. */
static void second(void)
{
    CHECK_EQ(watchdog(0, 1), 1);
    for (;;)
        PV_CALL(vcpu_op, VCPUOP_down, 1, 0);
}

void test_main(void)
{
    if (!*pv_start_info->cmd_line) {
        check_numbers();
        check_winding();
        return;
    }
    if (pv_word("down"))
        pv_vcpu_start(second);
    else
        CHECK_EQ(watchdog(0, 1), 1);
    if (pv_word("masked"))
        pv_shared->vcpu_info[0].evtchn_upcall_mask = 1;
    wait_ms(20000);
    pv_fail(__FILE__, __LINE__, "still there after the watchdog");
}
