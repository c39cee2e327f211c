/* SPDX-License-Identifier: MIT */
/* The xenstore server on an event loop: stream sockets in, one session each.
 * Every connection begins as domain 0's, so who may connect is the socket
 * file's permissions' affair. */
#ifndef XENOLITH_XEN_XS_SERVER_H
#define XENOLITH_XEN_XS_SERVER_H

#include "base/loop.h"
#include "xen/store_tree.h"

struct xs_server;

/* What may wait for a client that does not read: above PAUSE no more of its
 * requests are taken; above CUT (which only watch events can reach) it is cut
 * off.  An event equal to one that already waits is not queued again. */
#define XS_SERVER_QUEUE_PAUSE_BYTES (64 * KIB)
#define XS_SERVER_QUEUE_CUT_BYTES   (512 * KIB)

/* limits NULL: the defaults.  0 or -errno. */
int xs_server_create(struct loop *loop, const struct store_limits *limits,
                     struct xs_server **out);
void xs_server_free(struct xs_server *s);

/* Accepts on fd, non-blocking, which becomes the server's; whatever waits at the
 * one it listened on before is accepted first. */
int xs_server_listen(struct xs_server *s, int fd);
/* Serves fd, a connected stream socket, which becomes the server's. */
int xs_server_connect(struct xs_server *s, int fd);

unsigned xs_server_nr_connections(const struct xs_server *s);
/* cb is called when the number of connections has become 0, or is 0 no more. */
void xs_server_on_idle(struct xs_server *s, void (*cb)(void *arg, bool idle), void *arg);

/* The store behind it, to look at. */
const struct store *xs_server_store(const struct xs_server *s);

#endif
