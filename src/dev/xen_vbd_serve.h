/* SPDX-License-Identifier: MIT */
/* A process that serves one disk of a guest that another process runs: what xen_vbd_remote.h
 * begins.  It is a child of that one. */
#ifndef XENOLITH_DEV_XEN_VBD_SERVE_H
#define XENOLITH_DEV_XEN_VBD_SERVE_H

#include "base/err.h"

struct xen_vbd_serve_ops {
    /* All has been opened; threads will be started yet.  Writes to how, of size bytes, what was
     * done.  0 or -errno. */
    int (*confine)(void *arg, char *how, size_t size, struct err *e);
    /* All threads are there. */
    int (*seal)(void *arg, struct err *e);
    void *arg;
};

/* Serves until the guest's process says that it is enough, or has gone: then what is in flight
 * is left alone.  0, or -errno when it could not begin, which has been said over the socket. */
int xen_vbd_serve(int socket, const struct xen_vbd_serve_ops *ops);

#endif
