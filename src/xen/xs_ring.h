/* SPDX-License-Identifier: MIT */
/* Joins a guest's xenstore ring (docs/misc/xenstore-ring.txt of Xen) to a
 * connection with the daemon.  Runs on the loop's thread. */
#ifndef XENOLITH_XEN_XS_RING_H
#define XENOLITH_XEN_XS_RING_H

#include "base/err.h"
#include "base/loop.h"
#include "xen/hostport.h"

struct xs_ring;

struct xs_ring_params {
    struct loop *loop;
    void *page;                     /* shared with the guest, PAGE_SIZE bytes */
    struct xen_hostport *port;      /* bound; stays the caller's */
    unsigned domid;                 /* for messages */
    /* A new connection that speaks as the guest (a non-blocking descriptor,
     * which becomes the ring's) or -errno: at the beginning, and when the guest
     * asks for a reconnection.  xs_client_connect_domain_fd(), usually. */
    int (*connect)(void *arg, struct err *e);
    void *arg;
};

/* Takes up what the ring holds already.  0 or -errno. */
int xs_ring_create(const struct xs_ring_params *p, struct xs_ring **out, struct err *e);
void xs_ring_free(struct xs_ring *r);

/* The page's `error` field as the ring last set it: XENSTORE_ERROR_*. */
uint32_t xs_ring_error(const struct xs_ring *r);

#endif
