/* SPDX-License-Identifier: MIT */
/* What xs_client.c (the connection and its watches) and xs_client_call.c (one
 * function per request) share. */
#ifndef XENOLITH_XEN_XS_CLIENT_PRIV_H
#define XENOLITH_XEN_XS_CLIENT_PRIV_H

#include <string.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "xen/xs_client.h"
#include "xen/xs_proto.h"

struct xs_client_event;

struct xs_client {
    int fd;
    struct loop *loop;
    struct loop_fd *fd_watch;
    struct loop_timer *event_timer;
    LIST_HEAD(, xs_watch) watches;
    STAILQ_HEAD(, xs_client_event) events;
    uint64_t last_number;
    uint32_t last_req_id;
    bool dead, death_told, in_callback, free_me;
    void (*on_death)(void *arg);
    void *death_arg;
    size_t got_bytes;           /* of hdr and payload */
    struct xsd_sockmsg hdr;
    char payload[XENSTORE_PAYLOAD_MAX + 1];
};

/* Sends the parts, waits for the answer: in c->payload, 0-terminated, c->hdr.len
 * bytes of it, until the next call.  0, the daemon's -errno, or -ENOTCONN,
 * -ETIMEDOUT ... when there is no daemon any more. */
int xs_client_request(struct xs_client *c, uint32_t type, uint32_t tx,
                      struct iovec *args, unsigned nr_args);

/* No answer will come any more, or none that can be understood.  Who asks next
 * is told -ENOTCONN; the loop tells the one who wanted to know.  -error. */
int xs_client_died(struct xs_client *c, int error);

/* A part with its 0. */
static inline struct iovec xs_client_string(const char *s)
{
    return (struct iovec){ (void *)s, strlen(s) + 1 };
}

static inline int xs_client_request_path(struct xs_client *c, uint32_t type, uint32_t tx,
                                         const char *path)
{
    struct iovec arg = xs_client_string(path);

    return xs_client_request(c, type, tx, &arg, 1);
}

#endif
