/* SPDX-License-Identifier: MIT */
/* Two vCPUs, of which the runner gives one processor to both: each learns, without asking
 * for it, for how long it had to wait. */
#include "pv.h"

#include "base/atomic.h"

#define SPIN_NS 1000000000u

static uint64_t started, over;

static void second(void)
{
    store_release(&started, 1);
    while (!load_acquire(&over))
        cpu_relax();
    for (;;)
        PV_CALL(vcpu_op, VCPUOP_down, 1, 0);
}

static uint64_t total(const struct vcpu_runstate_info *r)
{
    return r->time[0] + r->time[1] + r->time[2] + r->time[3];
}

void test_main(void)
{
    static volatile struct vcpu_runstate_info shown;
    struct vcpu_register_runstate_memory_area area = {
        .addr.v = (struct vcpu_runstate_info *)&shown,
    };
    struct vcpu_runstate_info before, after;
    uint64_t began_ns, spun_ns, stolen_ns;

    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_register_runstate_memory_area, 0, &area), 0);
    pv_vcpu_start(second);
    while (!load_acquire(&started))
        PV_CALL(sched_op, SCHEDOP_yield, 0);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_get_runstate_info, 0, &before), 0);
    began_ns = pv_time_ns();
    while (pv_time_ns() - began_ns < SPIN_NS)
        cpu_relax();
    stolen_ns = shown.time[RUNSTATE_runnable] - before.time[RUNSTATE_runnable];
    spun_ns = pv_time_ns() - began_ns;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_get_runstate_info, 0, &after), 0);
    store_release(&over, 1);

    pv_print("%lu of %lu us stolen\n", stolen_ns / 1000, spun_ns / 1000);
    CHECK(stolen_ns > spun_ns / 8);
    CHECK(stolen_ns < spun_ns * 7 / 8);
    CHECK(after.time[RUNSTATE_runnable] - before.time[RUNSTATE_runnable] >= stolen_ns);
    CHECK_EQ(after.time[RUNSTATE_blocked], before.time[RUNSTATE_blocked]);
    CHECK_EQ(after.time[RUNSTATE_offline], 0);
    CHECK(total(&after) - total(&before) >= spun_ns);
    CHECK(total(&after) <= pv_time_ns());
}
