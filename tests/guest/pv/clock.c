/* SPDX-License-Identifier: MIT */
/* Guest time, wall-clock time, and the timers. */
#include "pv.h"

#include "base/atomic.h"

static unsigned nr_ticks;
static uint32_t timer_port;

static void tick(struct pv_regs *r)
{
    pv_shared->vcpu_info[0].evtchn_upcall_pending = 0;
    pv_shared->vcpu_info[0].evtchn_pending_sel = 0;
    if (fetch_and(&pv_shared->evtchn_pending[0], ~((uint64_t)1 << timer_port)) >> timer_port & 1)
        nr_ticks++;
}

static void wait_until(uint64_t ns)
{
    while (pv_time_ns() < ns)
        cpu_relax();
}

static int64_t singleshot(uint64_t at_ns, uint32_t flags)
{
    struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = at_ns, .flags = flags };

    return PV_CALL(vcpu_op, VCPUOP_set_singleshot_timer, 0, &t);
}

static void check_clock(void)
{
    uint64_t last = pv_time_ns(), start = last;
    uint32_t version = pv_shared->wc_version;

    for (unsigned i = 0; i < 10000; i++) {
        uint64_t now = pv_time_ns();

        if (now < last) {
            pv_fail(__FILE__, __LINE__, "time went from %lu to %lu", last, now);
            break;
        }
        last = now;
    }
    CHECK(last > start);
    CHECK(last < 600ull * 1000000000);          /* since this guest began */
    CHECK_EQ(version & 1, 0);
    CHECK(pv_shared->wc_sec > 1700000000u);     /* November 2023 */
    CHECK(pv_shared->wc_sec_hi == 0);
    CHECK(pv_shared->wc_nsec < 1000000000u);
}

static void check_singleshot(void)
{
    uint64_t now = pv_time_ns();

    nr_ticks = 0;
    CHECK_EQ(singleshot(now + 10000000, VCPU_SSHOTTMR_future), 0);
    wait_until(now + 5000000);
    CHECK_EQ(nr_ticks, 0);
    wait_until(now + 60000000);
    CHECK_EQ(nr_ticks, 1);
    CHECK_EQ(singleshot(now, VCPU_SSHOTTMR_future), -XEN_ETIME);
    CHECK_EQ(nr_ticks, 1);
    CHECK_EQ(singleshot(now, 0), 0);            /* past: at once */
    wait_until(pv_time_ns() + 5000000);
    CHECK_EQ(nr_ticks, 2);
    now = pv_time_ns();
    CHECK_EQ(singleshot(now + 20000000, 0), 0);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_stop_singleshot_timer, 0, 0), 0);
    wait_until(now + 40000000);
    CHECK_EQ(nr_ticks, 2);
    /* later replaces earlier, and earlier later */
    CHECK_EQ(singleshot(pv_time_ns() + 5000000, 0), 0);
    now = pv_time_ns();
    CHECK_EQ(PV_CALL(set_timer_op, now + 30000000), 0);
    wait_until(now + 20000000);
    CHECK_EQ(nr_ticks, 2);
    wait_until(now + 80000000);
    CHECK_EQ(nr_ticks, 3);
    /* never */
    CHECK_EQ(singleshot(~(uint64_t)0 >> 1, 0), 0);
    CHECK_EQ(PV_CALL(set_timer_op, 0), 0);
}

static void check_periodic(void)
{
    struct vcpu_set_periodic_timer t = { .period_ns = 10000000 };
    uint64_t now;

    nr_ticks = 0;
    now = pv_time_ns();
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_set_periodic_timer, 0, &t), 0);
    wait_until(now + 200000000);
    CHECK(nr_ticks >= 2 && nr_ticks <= 21);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_stop_periodic_timer, 0, 0), 0);
    wait_until(pv_time_ns() + 20000000);
    nr_ticks = 0;
    wait_until(pv_time_ns() + 30000000);
    CHECK_EQ(nr_ticks, 0);
    t.period_ns = 999999;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_set_periodic_timer, 0, &t), -XEN_EINVAL);
}

static void check_runstate(void)
{
    static struct vcpu_runstate_info shown;
    struct vcpu_register_runstate_memory_area area = { .addr.v = &shown };
    struct vcpu_runstate_info asked;
    struct sched_poll p = { .timeout = pv_time_ns() + 20000000 };

    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_register_runstate_memory_area, 0, &area), 0);
    *pv_event_mask() = 1;
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    CHECK_EQ(*(volatile int *)&shown.state, RUNSTATE_running);
    CHECK(((volatile uint64_t *)shown.time)[RUNSTATE_blocked] >= 5000000);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_get_runstate_info, 0, &asked), 0);
    CHECK_EQ(asked.state, RUNSTATE_running);
    CHECK(asked.time[RUNSTATE_running] > 0);
    CHECK(asked.time[RUNSTATE_blocked] >= 5000000);
}

void test_main(void)
{
    struct evtchn_bind_virq virq = { .virq = VIRQ_TIMER };

    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_stop_periodic_timer, 0, 0), 0);
    check_clock();
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_virq, &virq), 0);
    timer_port = virq.port;
    pv_event_handler = tick;
    fetch_and(&pv_shared->evtchn_mask[0], ~((uint64_t)1 << timer_port));
    *pv_event_mask() = 0;
    check_singleshot();
    check_periodic();
    check_runstate();
}
