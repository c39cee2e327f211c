/* SPDX-License-Identifier: MIT */
/* One event channel between a PV guest and domain 0 (the host), as a record in
 * memory that the shim and the host share.  Freestanding.
 *
 * Host to guest: the host sets `pending`; whoever turns it from 0 to 1 raises
 * the link's interrupt, and the shim on the target vCPU turns it back to 0
 * before it sets the port pending in the guest's own event state, which only
 * the shim touches.  Guest to host: a doorbell, the guest's port number written
 * to XEN_DOORBELL_IO_PORT, which KVM turns into the link's eventfd.
 *
 * Interrupts are dear, so they are left out where the vCPU looks anyhow, which
 * struct xen_hostwaker is for: one that polls before it halts sees its links, and one
 * that runs passes through the shim often, where a set `attention` makes it look; the
 * interrupt it is still owed may then wait a little.  One that is halted must have it
 * at once.  Nothing is lost: both sides store before they look, with a full barrier
 * between: the host `pending`, then `state`; the vCPU, when it stops running or
 * polling, `state`, then `pending`.
 *
 * A doorbell is dear too.  While a device's thread is marked `awake` it looks for work
 * within milliseconds whatever happens, so the shim may put a doorbell off (shim/
 * doorbell.c); `turns` says whether one that was put off is still wanted.  The thread
 * stores awake = 0, then looks once more, with a full barrier between, before it sleeps
 * without end; the shim has one between the guest's request and its look at `awake`.
 *
 * Where `call` is set, the thread of the device sleeps and the vCPU's own thread is likely
 * to serve what it rings for sooner than that one would wake (xen/hostcall.h).  The shim
 * then reads XEN_CALL_IO_PORT first, and rings if it was not served.
 *
 * A link may also lead to another guest (shim/abi.h, SHIM_IO_PEER), whose process sends
 * and receives in place of a device.
 *
 * Life: the host fills `port`, stores `request`, raises the interrupt; the shim
 * judges the port, stores `state`.  Only the host writes the first line (but
 * for the shim's clearing of `pending`), only the shim the second. */
#ifndef XENOLITH_XEN_HOSTLINK_H
#define XENOLITH_XEN_HOSTLINK_H

#include "base/types.h"

#define XEN_HOSTLINK_MAX     1024
#define XEN_DOORBELL_IO_PORT 0x0520     /* 32-bit out: guest event channel port */
#define XEN_CALL_IO_PORT     0x1000     /* + link: 32-bit in, XEN_CALL_SERVED or not */
#define XEN_CALL_SERVED      1

enum xen_hostlink_request { XEN_HOSTLINK_NONE, XEN_HOSTLINK_BIND, XEN_HOSTLINK_UNBIND };
enum xen_hostlink_state {
    XEN_HOSTLINK_FREE,      /* never bound, or unbound */
    XEN_HOSTLINK_BOUND,     /* port is interdomain with domain 0 */
    XEN_HOSTLINK_REFUSED,   /* port was not unbound for domain 0 */
    XEN_HOSTLINK_CLOSED,    /* the guest closed its end */
};

struct xen_hostlink {
    cacheline_aligned uint32_t pending;
    uint32_t request;       /* enum xen_hostlink_request */
    uint32_t port;          /* the guest's port */
    uint32_t awake;         /* a doorbell may wait: the host looks by itself before long */
    uint32_t turns;         /* times the host began to look after it had slept */
    uint32_t call;          /* a doorbell is better a call */
    uint32_t peer_id;       /* not 0: to another guest, for a port that waits by this id */
    uint32_t peer_port;     /* that guest's port; 0: it has closed it */
    cacheline_aligned uint32_t state;   /* enum xen_hostlink_state */
    uint32_t vcpu;          /* where the guest wants it */
    uint32_t caller;        /* the vCPU that rang last */
};

enum xen_hostwaker_state {
    XEN_HOSTWAKER_RUNNING,  /* the guest, or the shim for it */
    XEN_HOSTWAKER_POLLING,  /* idle, looking at its links */
    XEN_HOSTWAKER_HALTED,   /* until an interrupt */
};

/* One for each vCPU. */
struct xen_hostwaker {
    cacheline_aligned uint32_t state;       /* enum xen_hostwaker_state; the shim writes */
    uint32_t exit_ns;                       /* what leaving the VM costs; the shim writes */
    cacheline_aligned uint32_t attention;   /* the host sets, the shim clears */
};

#endif
