/* SPDX-License-Identifier: MIT */
/* SCHEDOP_watchdog (public/sched.h): two timers of the domain that the guest has to wind
 * up again and again; when one runs out, the domain is shut down.
 *
 * Their deadlines are among those of every vCPU's timer (time.c), so one that is stuck,
 * with its events masked or for ever in the guest, or not up, keeps none from running
 * out: the vCPU that wound it up is set to it at once, others when they next set theirs. */
#include "shim/shim.h"

#include <xen/sched.h>

#define NS_PER_S 1000000000u

/* The lock is held.  Takes the first one that is free. */
static int64_t start(uint64_t when_ns)
{
    for (unsigned i = 0; i < SHIM_WATCHDOGS; i++)
        if (!shim_domain.watchdog_ns[i]) {
            store_relaxed(&shim_domain.watchdog_ns[i], when_ns);
            return i + 1;
        }
    return -XEN_ENOSPC;
}

int64_t watchdog_op(struct shim_vcpu *v, uint64_t arg_va)
{
    struct sched_watchdog op;
    uint64_t when_ns;
    int64_t rc = 0;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.id > SHIM_WATCHDOGS)
        return -XEN_EINVAL;
    when_ns = time_now_ns() + (uint64_t)op.timeout * NS_PER_S;
    spin_lock(&shim_domain.watchdog_lock);
    if (!op.id)
        rc = start(when_ns);
    else if (!shim_domain.watchdog_ns[op.id - 1])
        rc = -XEN_EINVAL;
    else
        store_relaxed(&shim_domain.watchdog_ns[op.id - 1], op.timeout ? when_ns : 0);
    spin_unlock(&shim_domain.watchdog_lock);
    time_arm(v);
    return rc;
}

uint64_t watchdog_next_ns(void)
{
    uint64_t next = 0;

    for (unsigned i = 0; i < SHIM_WATCHDOGS; i++) {
        uint64_t ns = load_relaxed(&shim_domain.watchdog_ns[i]);

        if (ns && (!next || ns < next))
            next = ns;
    }
    return next;
}

void watchdog_expire(uint64_t now_ns)
{
    uint64_t next = watchdog_next_ns();

    if (next && next <= now_ns)
        shim_shutdown(SHUTDOWN_watchdog);
}
