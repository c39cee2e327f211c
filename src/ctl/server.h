/* SPDX-License-Identifier: MIT */
/* The guest's end of the control socket: the only door to a running guest.
 * Runs on the loop's thread, in the guest's process.  What a client sends is
 * judged before it is used; a client that sends garbage, half a request or
 * never reads costs itself its connection and the guest nothing. */
#ifndef XENOLITH_CTL_SERVER_H
#define XENOLITH_CTL_SERVER_H

#include "ctl/registry.h"
#include "vm/guest.h"

#define CTL_SERVER_CLIENTS_MAX 32
/* How long a client waits for the guest to let go of a disk: libxl's LIBXL_DESTROY_TIMEOUT. */
#define CTL_DETACH_WAIT_MS     10000u
/* How long it waits with force.  A guest that would have let go is spared a device that answers
 * its last requests no more, for which Linux waits for ever. */
#define CTL_DETACH_FORCE_MS    1000u
/* Linux looks whether a device's directory is still there when it gets to it, a moment after it
 * has gone; one that is there again by then it takes for the old one, and never looks at it.
 * Under xl that moment passes in a script; here nobody who waited for the disk hears before. */
#define CTL_DETACH_SETTLE_MS   300u

struct ctl_server;

struct ctl_server_params {
    struct loop *loop;
    struct vm_guest *guest;
    struct vm_config *config;           /* its disks follow those of the guest */
    const struct registry_guest *who;   /* may change while the server runs (a rename) */
    int listen_fd;                      /* becomes the server's on success */
    /* A client asked for the end of the guest; called at most once, and not
     * from within a call of the server's. */
    void (*destroy)(void *arg);
    void *arg;
};

int ctl_server_create(const struct ctl_server_params *p, struct ctl_server **out,
                      struct err *e);
/* Closes every connection: for clients that wait, the sign that the guest is
 * gone, so the registry entry should be gone before.  Does not touch the guest. */
void ctl_server_free(struct ctl_server *s);

/* Tells the clients that wait: see struct vm_guest_params. */
void ctl_server_stopped(struct ctl_server *s, enum vm_stop why, const char *text);
/* The same. */
void ctl_server_disk_detached(struct ctl_server *s, unsigned vdev_number);

#endif
