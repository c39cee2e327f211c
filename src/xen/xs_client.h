/* SPDX-License-Identifier: MIT */
/* A client of the xenstore daemon over its Unix socket, for the process that
 * runs a guest: blocking requests (the daemon answers at once; one that is
 * silent for XS_CLIENT_TIMEOUT_MS counts as dead: -ETIMEDOUT, and every later
 * call gives -ENOTCONN), watches through the event loop.  One thread.  Paths
 * and protocol: docs/misc/xenstore.txt of Xen. */
#ifndef XENOLITH_XEN_XS_CLIENT_H
#define XENOLITH_XEN_XS_CLIENT_H

#include "base/err.h"
#include "base/loop.h"

#define XS_CLIENT_TIMEOUT_MS 10000
#define XS_NO_TRANSACTION    0u

struct xs_client;
struct xs_watch;

/* path is the one that fired (below or at the one watched). */
typedef void (*xs_watch_cb)(void *arg, const char *path);

int xs_client_connect(struct loop *loop, const char *socket_path,
                      struct xs_client **out, struct err *e);
void xs_client_free(struct xs_client *c);
/* Called once, from the loop, when the daemon goes away. */
void xs_client_on_death(struct xs_client *c, void (*cb)(void *arg), void *arg);

/* The value, 0-terminated, for the caller to free; NULL with errno set. */
char *xs_client_read(struct xs_client *c, uint32_t tx, const char *path);
int xs_client_write(struct xs_client *c, uint32_t tx, const char *path, const char *value);
/* path and value made by printf */
int xs_client_writef(struct xs_client *c, uint32_t tx, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int xs_client_mkdir(struct xs_client *c, uint32_t tx, const char *path);
int xs_client_rm(struct xs_client *c, uint32_t tx, const char *path);
/* Names of the children, each 0-terminated, in one block to free; *nr of them. */
char *xs_client_directory(struct xs_client *c, uint32_t tx, const char *path, unsigned *nr);
/* perms in wire form, "n0", "r1", ...: the first names the owner. */
int xs_client_set_perms(struct xs_client *c, uint32_t tx, const char *path,
                        const char *const perms[], unsigned nr);
/* 0 and *tx, or -errno */
int xs_client_tx_start(struct xs_client *c, uint32_t *tx);
/* 0; -EAGAIN: run it again */
int xs_client_tx_end(struct xs_client *c, uint32_t tx, bool commit);

/* Fires once at once, as xenstore does.  Callbacks come from the loop only,
 * never from within a request. */
int xs_client_watch(struct xs_client *c, const char *path, xs_watch_cb cb, void *arg,
                    struct xs_watch **out);
void xs_client_unwatch(struct xs_client *c, struct xs_watch *w);

/* Domain 0's two calls about other domains (XS_INTRODUCE, XS_RELEASE). */
int xs_client_introduce(struct xs_client *c, unsigned domid, uint64_t gfn, uint32_t port);
int xs_client_release(struct xs_client *c, unsigned domid);

/* A connection of its own for a guest's ring: non-blocking, speaking the
 * protocol as domain domid, which must have been introduced (by a client that
 * lives on).  An older such connection is closed by the daemon.  The descriptor,
 * for the caller to close, or -errno. */
int xs_client_connect_domain_fd(const char *socket_path, unsigned domid, struct err *e);

#endif
