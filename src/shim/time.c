/* SPDX-License-Identifier: MIT */
/* Guest time (ns since the domain was built) and the timers that depend on it.
 *
 * The shim reads time with the very numbers it publishes to the guest (pvclock,
 * struct vcpu_time_info), so both always agree on whether a deadline has passed.
 *
 * One LAPIC deadline serves all timers of a vCPU.  Writing it leaves the VM, so it
 * is written only to make it earlier: a timer that was stopped or put off lets
 * the old deadline come, which then finds nothing due and sets the next one.  And a
 * deadline that has passed is served by whoever notices, an idle vCPU that polls not
 * least, without waiting for the interrupt, which the host may deliver late. */
#include "shim/cpu.h"
#include "shim/shim.h"

#define PERIODIC_DEFAULT_NS 10000000u       /* Xen starts every vCPU at 100 Hz */
#define PERIODIC_MIN_NS     1000000u        /* as Xen: VCPUOP_set_periodic_timer */
#define PERIODIC_MAX_NS     (~(uint64_t)0 >> 2)

/* Deadlines further off than this (36 years) are as good as never. */
#define DEADLINE_MAX_NS     ((uint64_t)1 << 60)

static uint64_t tsc_to_ns(uint64_t tsc)
{
    const struct shim_boot *b = shim_domain.boot;
    uint64_t delta = tsc - b->tsc_start;

    delta = b->tsc_shift < 0 ? delta >> -b->tsc_shift : delta << b->tsc_shift;
    return (uint64_t)((unsigned __int128)delta * b->tsc_to_ns_mul >> 32);
}

uint64_t time_now_ns(void)
{
    return tsc_to_ns(rdtsc_ordered());
}

/* The first tick at which tsc_to_ns() gives ns or more: the exact inverse, since a
 * deadline that fires early finds nothing due and is set again. */
static uint64_t ns_to_tsc(uint64_t ns)
{
    const struct shim_boot *b = shim_domain.boot;
    uint64_t delta = mul_div(min_of(ns, DEADLINE_MAX_NS), (uint64_t)1 << 32, b->tsc_to_ns_mul) + 1;

    delta = b->tsc_shift < 0 ? delta << -b->tsc_shift : (delta >> b->tsc_shift) + 1;
    return b->tsc_start + delta;
}

/* struct vcpu_time_info (public/xen.h): a version that is odd while it changes */
void time_publish(unsigned vcpu, struct vcpu_info *vi)
{
    const struct shim_boot *b = shim_domain.boot;
    struct vcpu_time_info *t = &vi->time;
    uint32_t version = t->version & ~1u;

    store_release(&t->version, version + 1);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    t->tsc_timestamp = b->tsc_start;
    t->system_time = 0;
    t->tsc_to_system_mul = b->tsc_to_ns_mul;
    t->tsc_shift = (int8_t)b->tsc_shift;
    t->flags = b->flags & SHIM_FLAG_TSC_STABLE ? XEN_PVCLOCK_TSC_STABLE_BIT : 0;
    store_release(&t->version, version + 2);
}

void time_init(struct shim_vcpu *v)
{
    v->periodic_ns = PERIODIC_DEFAULT_NS;
    v->periodic_next_ns = time_now_ns() + v->periodic_ns;
    time_arm(v);
}

static void earliest(uint64_t *next, uint64_t when)
{
    if (when && (!*next || when < *next))
        *next = when;
}

/* The next deadline; 0: none. */
static uint64_t due_ns(const struct shim_vcpu *v)
{
    uint64_t next = 0;

    earliest(&next, v->singleshot_ns);
    earliest(&next, v->periodic_next_ns);
    earliest(&next, v->poll_ns);
    earliest(&next, watchdog_next_ns());
    return next;
}

/* What is due now is over. */
static void expire(struct shim_vcpu *v, uint64_t now)
{
    bool due = false;

    watchdog_expire(now);
    if (v->singleshot_ns && v->singleshot_ns <= now) {
        v->singleshot_ns = 0;
        due = true;
    }
    if (v->periodic_next_ns && v->periodic_next_ns <= now) {
        v->periodic_next_ns += v->periodic_ns;
        if (v->periodic_next_ns <= now)     /* missed ones are not made up for */
            v->periodic_next_ns = now + v->periodic_ns;
        due = true;
    }
    if (v->poll_ns && v->poll_ns <= now)
        v->poll_ns = 0;
    if (due)
        evtchn_virq_raise(&shim_domain.evtchn, v->id, VIRQ_TIMER);
}

void time_attend(struct shim_vcpu *v, uint64_t now_ns)
{
    if (unlikely(v->due_ns && v->due_ns <= now_ns)) {
        expire(v, now_ns);
        v->due_ns = due_ns(v);
    }
}

void time_arm(struct shim_vcpu *v)
{
    uint64_t tsc;

    v->due_ns = due_ns(v);
    time_attend(v, time_now_ns());
    if (!v->due_ns)
        return;
    tsc = ns_to_tsc(v->due_ns);
    if (v->armed_tsc && v->armed_tsc <= tsc && v->armed_tsc > rdtsc_ordered())
        return;
    v->armed_tsc = tsc;
    wrmsr(MSR_IA32_TSC_DEADLINE, tsc);
}

void time_expired(struct shim_vcpu *v)
{
    v->armed_tsc = 0;
    time_arm(v);
}

/* VCPUOP_set_singleshot_timer, HYPERVISOR_set_timer_op; 0 stops it. */
int64_t time_set_singleshot(struct shim_vcpu *v, uint64_t timeout_ns, bool must_be_future)
{
    uint64_t now = time_now_ns();

    if (must_be_future && timeout_ns < now)
        return -XEN_ETIME;
    v->singleshot_ns = timeout_ns;
    if (timeout_ns && timeout_ns <= now) {
        v->singleshot_ns = 0;
        evtchn_virq_raise(&shim_domain.evtchn, v->id, VIRQ_TIMER);
        return 0;
    }
    time_arm(v);
    return 0;
}

/* VCPUOP_set_periodic_timer; 0 stops it.  The vCPU concerned calls time_arm(). */
int64_t time_set_periodic(struct shim_vcpu *v, uint64_t period_ns)
{
    if ((period_ns && period_ns < PERIODIC_MIN_NS) || period_ns > PERIODIC_MAX_NS)
        return -XEN_EINVAL;
    v->periodic_ns = period_ns;
    v->periodic_next_ns = period_ns ? time_now_ns() + min_of(period_ns, DEADLINE_MAX_NS) : 0;
    return 0;
}
