/* SPDX-License-Identifier: MIT */
/* Who works for an event channel of the host's: the thread of its device or, while that
 * one sleeps, the thread of the vCPU that rings.  To wake a thread takes longer than most
 * of what it would be woken for, and where processors are few it takes one from the guest.
 *
 *                lend                    call
 *     OWNED ------------> LENT ----------------------> TAKEN ----+ call of another vCPU,
 *       ^                 |  ^                           |       v or take_back
 *       +-----------------+  +---------------------------+---- AGAIN
 *            take_back          served: the caller looks once more if it is AGAIN
 *
 * Nobody waits for anybody: a call while the device's thread works is refused, and the
 * doorbell is rung instead; one while another vCPU serves makes that one look once more.
 * Whoever has the state OWNED or TAKEN has all that is the device thread's, and each change
 * of hands is a release and an acquire. */
#ifndef XENOLITH_XEN_HOSTCALL_H
#define XENOLITH_XEN_HOSTCALL_H

#include "base/atomic.h"
#include "base/types.h"

enum xen_hostcall_state {
    XEN_HOSTCALL_OWNED,     /* by the device's thread */
    XEN_HOSTCALL_LENT,      /* by nobody: the thread sleeps */
    XEN_HOSTCALL_TAKEN,     /* by a vCPU's thread, which serves */
    XEN_HOSTCALL_AGAIN,     /* the same, and there may be more for it */
};

/* A caller that is called for again and again leaves the rest to the thread. */
#define XEN_HOSTCALL_ROUNDS_MAX 4u

struct xen_hostcall {
    cacheline_aligned uint32_t state;
    /* The thread's, before it lends.  Serves what there is, in the thread of `vcpu`, and
     * must not wait.  False: the device's thread is needed. */
    bool (*serve)(void *arg, unsigned vcpu);
    void *arg;
};

/* The device's thread, which must look for work once more after this, or be woken by a
 * doorbell that was rung since it last did. */
static inline void xen_hostcall_lend(struct xen_hostcall *c)
{
    store_release(&c->state, XEN_HOSTCALL_LENT);    /* pairs with xen_hostcall_ring() */
}

/* The device's thread, before it does anything.  False: a vCPU is at it, and will look
 * for what the thread has been woken for. */
static inline bool xen_hostcall_take_back(struct xen_hostcall *c)
{
    uint32_t state = load_relaxed(&c->state);

    while (state != XEN_HOSTCALL_OWNED) {
        uint32_t next = state == XEN_HOSTCALL_LENT ? XEN_HOSTCALL_OWNED : XEN_HOSTCALL_AGAIN;

        /* pairs with the vCPU that served last, or will look again */
        if (__atomic_compare_exchange_n(&c->state, &state, next, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return next == XEN_HOSTCALL_OWNED;
    }
    return true;
}

/* The caller has it TAKEN. */
static inline bool xen_hostcall_serve(struct xen_hostcall *c, unsigned vcpu)
{
    for (unsigned i = 0; i < XEN_HOSTCALL_ROUNDS_MAX && c->serve(c->arg, vcpu); i++) {
        uint32_t taken = XEN_HOSTCALL_TAKEN;

        if (__atomic_compare_exchange_n(&c->state, &taken, XEN_HOSTCALL_LENT, false,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return true;
        /* nobody else changes AGAIN; pairs with whoever called meanwhile */
        (void)swap_acq_rel(&c->state, XEN_HOSTCALL_TAKEN);
    }
    store_release(&c->state, XEN_HOSTCALL_LENT);    /* the doorbell makes up for AGAIN */
    return false;
}

/* A vCPU rings, in its thread.  False: the doorbell must be rung instead. */
static inline bool xen_hostcall_ring(struct xen_hostcall *c, unsigned vcpu)
{
    uint32_t state = load_relaxed(&c->state);

    while (state != XEN_HOSTCALL_OWNED) {
        uint32_t next = state == XEN_HOSTCALL_LENT ? XEN_HOSTCALL_TAKEN : XEN_HOSTCALL_AGAIN;

        /* pairs with whoever gave it away, or will look again */
        if (__atomic_compare_exchange_n(&c->state, &state, next, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return next == XEN_HOSTCALL_AGAIN || xen_hostcall_serve(c, vcpu);
    }
    return false;
}

#endif
