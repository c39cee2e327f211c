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
#include "xen/hostlink.h"

struct xen_hostport {
    int kick_fd;                    /* eventfd, non-blocking: the guest sent */
    int irq_fd;                     /* eventfd: raises the link's interrupt */
    struct xen_hostlink *link;      /* shared with the shim */
    unsigned index;                 /* the owner's */
};

struct xen_hostport_ops {
    /* Connects to the guest's port, which must be unbound for domain 0 (EVTCHNOP_
     * alloc_unbound).  0 or -errno.  Any thread. */
    int (*bind)(void *owner, uint32_t guest_port, struct xen_hostport *p, struct err *e);
    /* Gives it back; kick_fd is closed.  Any thread. */
    void (*unbind)(void *owner, struct xen_hostport *p);
};

/* Sends to the guest.  One thread at a time per port; takes no lock; a system
 * call only when the guest has taken the previous event.  True when it made
 * the system call (an interrupt was raised). */
static inline bool xen_hostport_notify(struct xen_hostport *p)
{
    const uint64_t one = 1;

    /* pairs with the shim's exchange to 0: what was written before this call
     * is seen by a guest that sees the event */
    if (__atomic_exchange_n(&p->link->pending, 1, __ATOMIC_SEQ_CST))
        return false;
    return write(p->irq_fd, &one, sizeof(one)) == sizeof(one);
}

#endif
