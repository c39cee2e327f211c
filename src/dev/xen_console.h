/* SPDX-License-Identifier: MIT */
/* The PV console (hvc0): Xen's console ring (io/console.h) on one side, a log
 * and attached clients on the other.  Runs on the loop's thread.
 * What the guest prints always goes to the log; a client that does not read
 * loses output rather than stop the guest.  The process ignores SIGPIPE: clients
 * leave. */
#ifndef XENOLITH_DEV_XEN_CONSOLE_H
#define XENOLITH_DEV_XEN_CONSOLE_H

#include "base/loop.h"
#include "mem/guest_mem.h"
#include "xen/hostport.h"

struct xen_console;

#define XEN_CONSOLE_CLIENTS_MAX 32

/* ring is the page shared with the guest; port is bound and stays the caller's;
 * log_fd may be -1 and stays the caller's.  0 or -errno. */
int xen_console_create(struct loop *loop, void *ring, struct xen_hostport *port,
                       int log_fd, struct xen_console **out);
void xen_console_free(struct xen_console *c);

/* Output that came another way (console_io hypercall, shim messages). */
void xen_console_write(struct xen_console *c, const void *data, size_t len);

/* Attaches a client: output is written to out_fd, input read from in_fd (may be
 * equal; both become the console's, non-blocking).  closed is called when the
 * client has gone, or the console is freed; it may be NULL.  A new client first
 * gets the last few KiB of output.  0; -EPERM: not something poll() knows;
 * -EBUSY: XEN_CONSOLE_CLIENTS_MAX are there.  On failure the descriptors stay
 * the caller's. */
int xen_console_attach(struct xen_console *c, int in_fd, int out_fd,
                       void (*closed)(void *arg), void *arg);

/* Duplicates what the clients' output goes to, so that they see it end no sooner than
 * the caller closes it; how many.  Those that cannot be duplicated are left out. */
unsigned xen_console_clients_hold(const struct xen_console *c, int fds[XEN_CONSOLE_CLIENTS_MAX]);

/* Takes what the ring holds, now (before the guest is destroyed). */
void xen_console_drain(struct xen_console *c);

#endif
