/* SPDX-License-Identifier: MIT */
/* The host's end of an event channel with a guest, as a device sees it: a file
 * descriptor that becomes readable when the guest sends, and a call to send.
 * Knows neither KVM nor the shim: whoever runs the guest supplies the ops, and a
 * unit test supplies two eventfds. */
#ifndef XENOLITH_XEN_HOSTPORT_H
#define XENOLITH_XEN_HOSTPORT_H

#include <unistd.h>

#include "base/atomic.h"
#include "base/err.h"
#include "xen/hostcall.h"
#include "xen/hostlink.h"
#include "xen/hostload.h"

struct xen_hostport {
    int kick_fd;                    /* eventfd, non-blocking: the guest sent */
    int irq_fd;                     /* eventfd: raises the link's interrupt */
    struct xen_hostlink *link;      /* shared with the shim */
    struct xen_hostcall *call;      /* how vCPUs may serve it; none: NULL */
    struct xen_hostwaker *wakers;   /* of nr_wakers vCPUs, shared; none: NULL, 0 */
    unsigned nr_wakers;
    unsigned index;                 /* the owner's */
    const struct xen_hostlink *links;   /* all of the guest's, and what goes with them, */
    const struct xen_hostload *load;    /* for xen_hostport_crowded(); none: NULL */
    /* The processor of the host that each vCPU's thread runs on, in a word that the kernel
     * keeps; none: NULL, as each of them may be. */
    const uint32_t *const *cpus;
};

struct xen_hostport_ops {
    /* Connects to the guest's port, which must be unbound for domain 0 (EVTCHNOP_
     * alloc_unbound).  0 or -errno.  Any thread. */
    int (*bind)(void *owner, uint32_t guest_port, struct xen_hostport *p, struct err *e);
    /* Gives it back; kick_fd is closed.  Any thread. */
    void (*unbind)(void *owner, struct xen_hostport *p);
};

enum xen_hostport_sent {
    XEN_HOSTPORT_SEEN,      /* the guest knows, or will without more ado */
    XEN_HOSTPORT_RAISED,    /* an interrupt was raised: a system call */
    XEN_HOSTPORT_OWED,      /* xen_hostport_raise_owed() must follow soon */
};

static inline enum xen_hostport_sent xen_hostport_raise(struct xen_hostport *p)
{
    const uint64_t one = 1;

    return write(p->irq_fd, &one, sizeof(one)) == sizeof(one) ? XEN_HOSTPORT_RAISED
                                                              : XEN_HOSTPORT_SEEN;
}

/* As xen_hostport_send(), from the thread of vCPU `self`, which passes the shim before
 * long: it needs no interrupt. */
static inline enum xen_hostport_sent xen_hostport_send_from(struct xen_hostport *p, bool may_owe,
                                                            uint32_t self)
{
    struct xen_hostwaker *w;
    uint32_t vcpu;

    /* pairs with the shim's exchange to 0: what was written before this call is seen by
     * a guest that sees the event; and with the shim's barrier after it stores `state` */
    if (__atomic_exchange_n(&p->link->pending, 1, __ATOMIC_SEQ_CST))
        return XEN_HOSTPORT_SEEN;
    vcpu = load_relaxed(&p->link->vcpu);
    if (vcpu >= p->nr_wakers)
        return xen_hostport_raise(p);
    w = &p->wakers[vcpu];
    switch (load_relaxed(&w->state)) {
    case XEN_HOSTWAKER_POLLING:
        return XEN_HOSTPORT_SEEN;
    case XEN_HOSTWAKER_RUNNING:
        if (!may_owe && vcpu != self)
            break;
        store_release(&w->attention, 1);    /* pairs with event_attend() of the shim */
        return vcpu == self ? XEN_HOSTPORT_SEEN : XEN_HOSTPORT_OWED;
    default:
        break;
    }
    return xen_hostport_raise(p);
}

/* Sends to the guest.  Any thread: whoever turns `pending` raises; no lock; a system call
 * only when the guest has taken the previous event and nothing else makes it look.
 * may_owe: the caller can see to XEN_HOSTPORT_OWED, which is returned for a vCPU that
 * runs. */
static inline enum xen_hostport_sent xen_hostport_send(struct xen_hostport *p, bool may_owe)
{
    return xen_hostport_send_from(p, may_owe, UINT32_MAX);
}

/* The same at once. */
static inline void xen_hostport_notify(struct xen_hostport *p)
{
    xen_hostport_send(p, false);
}

/* The guest has closed its end. */
static inline bool xen_hostport_closed(const struct xen_hostport *p)
{
    return load_acquire(&p->link->state) == XEN_HOSTLINK_CLOSED;    /* host_closed() of the shim */
}

/* What leaving the VM costs there, ns, as the guest says; 0: it has not said. */
static inline uint64_t xen_hostport_exit_ns(const struct xen_hostport *p)
{
    uint32_t vcpu = load_relaxed(&p->link->vcpu);

    return vcpu < p->nr_wakers ? load_relaxed(&p->wakers[vcpu].exit_ns) : 0;
}

/* More want a processor of the host than it has, the caller counted. */
static inline bool xen_hostport_crowded(const struct xen_hostport *p)
{
    const struct xen_hostload_view v = {
        .load = p->load, .wakers = p->wakers, .links = p->links, .nr_wakers = p->nr_wakers,
    };

    return xen_hostload_crowded(&v, !load_relaxed(&p->link->awake));
}

/* Where on the host the vCPU runs that rang last; -1: not known. */
static inline int64_t xen_hostport_caller_cpu(const struct xen_hostport *p)
{
    uint32_t vcpu = load_relaxed(&p->link->caller);

    return p->cpus && vcpu < p->nr_wakers && p->cpus[vcpu]
           ? (int64_t)load_relaxed(p->cpus[vcpu]) : -1;
}

/* From now on the guest may put its doorbells off: the caller looks for its requests
 * every few milliseconds at least. */
static inline void xen_hostport_awake(struct xen_hostport *p)
{
    if (!load_relaxed(&p->link->awake))
        store_relaxed(&p->link->awake, 1);
}

/* No longer.  The caller looks once more before it sleeps. */
static inline void xen_hostport_asleep(struct xen_hostport *p)
{
    store_relaxed(&p->link->awake, 0);
    barrier_full();     /* pairs with the one in doorbell_send() of the shim */
}

/* The caller has slept and looks now: doorbells that were put off are not needed. */
static inline void xen_hostport_woken(struct xen_hostport *p)
{
    store_relaxed(&p->link->turns, p->link->turns + 1);
    barrier_full();     /* pairs with the one in doorbell_send() of the shim */
}

/* Pays what XEN_HOSTPORT_OWED promised, unless the guest has looked meanwhile. */
static inline enum xen_hostport_sent xen_hostport_raise_owed(struct xen_hostport *p)
{
    return load_acquire(&p->link->pending) ? xen_hostport_raise(p) : XEN_HOSTPORT_SEEN;
}

#endif
