/* SPDX-License-Identifier: MIT */
/* The pump.  It has no buffer: bytes go from the page to the socket and from the
 * socket to the page, as many as the other side has room for.  It knows nothing
 * of messages; the daemon judges those, from its own copy.
 *
 * Of the four indices the server side owns two, req_cons and rsp_prod.  Their
 * truth is here; the page gets copies and they are never read back.  The guest's
 * two are read once per look and judged: free-running and modulo 2^32, what lies
 * between producer and consumer can be at most XENSTORE_RING_SIZE.  If it is
 * more, the ring is broken: the error field says so, one line is logged, and the
 * pump stands still until the guest asks for a reconnection.
 *
 * Who waits for what:
 *   request ring empty      the guest's event (it sends one when it puts
 *                           something into a ring it may believe empty)
 *   daemon's socket full    EPOLLOUT
 *   response ring full      the guest's event (sent when it takes something out
 *                           of a ring it saw full), EPOLLIN off
 * A side that is about to wait publishes its index, passes a full barrier, and
 * looks at the other's index once more; the guest does the same, so at least one
 * of the two sees the other's change and no wake-up is lost. */
#include "xen/xs_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/xs_proto.h"

struct xs_ring {
    struct xs_ring_params p;
    struct xenstore_domain_interface *page;
    int fd;                         /* -1: stopped */
    struct loop_fd *fd_watch, *kick_watch;
    uint32_t events;                /* what fd_watch waits for */
    uint32_t req_cons, rsp_prod;
    uint32_t error;
    bool logged;                    /* the guest could repeat any of it for ever */
};

static void disconnect(struct xs_ring *r)
{
    loop_fd_remove(r->fd_watch);
    r->fd_watch = NULL;
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
}

static void stop(struct xs_ring *r, uint32_t error, const char *why)
{
    disconnect(r);
    r->error = error;
    store_release(&r->page->error, error);
    if (!r->logged)
        log_warning("domain %u: its xenstore ring stops: %s", r->p.domid, why);
    r->logged = true;
    xen_hostport_notify(r->p.port);
}

/* Ring to socket; true when the guest has more room now.  *blocked: the socket
 * takes no more. */
static bool pump_requests(struct xs_ring *r, bool *blocked)
{
    bool moved = false;

    *blocked = false;
    while (r->fd >= 0) {
        /* pairs with the guest's barrier between its data and its req_prod */
        uint32_t filled = load_acquire(&r->page->req_prod) - r->req_cons;
        uint32_t at = MASK_XENSTORE_IDX(r->req_cons);
        ssize_t n;

        if (filled > XENSTORE_RING_SIZE) {
            stop(r, XENSTORE_ERROR_RINGIDX, "its request producer is out of range");
            return false;
        }
        if (filled == 0)
            return moved;
        n = send(r->fd, r->page->req + at, min_of(filled, XENSTORE_RING_SIZE - at),
                 MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            *blocked = true;
            return moved;
        }
        if (n < 0 && errno != EINTR) {
            stop(r, XENSTORE_ERROR_COMM, "the xenstore daemon is gone");
            return false;
        }
        if (n > 0) {
            r->req_cons += (uint32_t)n;
            /* the bytes were copied before the guest may overwrite them */
            store_release(&r->page->req_cons, r->req_cons);
            /* before the next look at req_prod: pairs with the guest's barrier
             * between its req_prod and its look at req_cons */
            barrier_full();
            moved = true;
        }
    }
    return moved;
}

/* Socket to ring; true when the guest has something to read.  *full: the ring
 * takes no more. */
static bool pump_responses(struct xs_ring *r, bool *full)
{
    bool moved = false;

    *full = false;
    while (r->fd >= 0) {
        /* pairs with the guest's barrier between its reading and its rsp_cons */
        uint32_t used = r->rsp_prod - load_acquire(&r->page->rsp_cons);
        uint32_t at = MASK_XENSTORE_IDX(r->rsp_prod);
        ssize_t n;

        if (used > XENSTORE_RING_SIZE) {
            stop(r, XENSTORE_ERROR_RINGIDX, "its response consumer is out of range");
            return false;
        }
        if (used == XENSTORE_RING_SIZE) {
            *full = true;
            return moved;
        }
        n = recv(r->fd, r->page->rsp + at,
                 min_of(XENSTORE_RING_SIZE - used, XENSTORE_RING_SIZE - at), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            stop(r, XENSTORE_ERROR_COMM, "the xenstore daemon has closed its connection");
            return false;
        }
        if (n < 0 && errno == EAGAIN)
            return moved;
        if (n > 0) {
            r->rsp_prod += (uint32_t)n;
            /* pairs with the guest's barrier between rsp_prod and the data */
            store_release(&r->page->rsp_prod, r->rsp_prod);
            /* before the next look at rsp_cons: pairs with the guest's barrier
             * between its rsp_cons and its look at rsp_prod */
            barrier_full();
            moved = true;
        }
    }
    return moved;
}

static void pump(struct xs_ring *r)
{
    bool blocked, full, moved;
    uint32_t events;

    if (r->fd < 0)
        return;
    moved = pump_requests(r, &blocked);
    moved |= pump_responses(r, &full);
    if (r->fd < 0)
        return;
    if (moved)
        xen_hostport_notify(r->p.port);
    events = (blocked ? EPOLLOUT : 0u) | (full ? 0u : EPOLLIN);
    if (events == r->events)
        return;
    if (loop_fd_modify(r->fd_watch, events))
        stop(r, XENSTORE_ERROR_COMM, "its connection cannot be watched");
    else
        r->events = events;
}

static void socket_ready(void *arg, uint32_t events)
{
    struct xs_ring *r = arg;

    /* A hang-up comes though nobody asked for it, also while the response ring
     * is full: then no byte can be read on the way to noticing the end. */
    if ((events & (EPOLLHUP | EPOLLERR)) && !(r->events & EPOLLIN))
        stop(r, XENSTORE_ERROR_COMM, "the xenstore daemon has closed its connection");
    else
        pump(r);
}

static int reconnect(struct xs_ring *r, struct err *e)
{
    int fd = r->p.connect(r->p.arg, e);

    if (fd < 0)
        return fd;
    r->events = EPOLLIN;
    r->fd_watch = loop_fd_add(r->p.loop, fd, r->events, socket_ready, r);
    if (!r->fd_watch) {
        int code = errno;

        close(fd);
        return err_set(e, code, "cannot watch a xenstore connection: %s", strerror(code));
    }
    r->fd = fd;
    return 0;
}

/* The guest wants to begin anew; until `connection` says it is done it looks at
 * nothing else. */
static void ring_reset(struct xs_ring *r)
{
    struct err e = { 0 };
    char text[1024];

    disconnect(r);
    r->req_cons = r->rsp_prod = r->error = 0;
    store_relaxed(&r->page->req_cons, 0);
    store_relaxed(&r->page->req_prod, 0);
    store_relaxed(&r->page->rsp_cons, 0);
    store_relaxed(&r->page->rsp_prod, 0);
    if (reconnect(r, &e)) {
        if (!r->logged)
            log_warning("domain %u: no new xenstore connection: %s", r->p.domid,
                        err_str(&e, text, sizeof(text)));
        r->logged = true;
        r->error = XENSTORE_ERROR_COMM;
    }
    store_relaxed(&r->page->error, r->error);
    /* pairs with the guest's barrier after it sees XENSTORE_CONNECTED */
    store_release(&r->page->connection, XENSTORE_CONNECTED);
    xen_hostport_notify(r->p.port);
}

static void kicked(void *arg, uint32_t events)
{
    struct xs_ring *r = arg;
    uint64_t n;

    /* The count goes before the look at the ring: a later event is a new one. */
    if (read(r->p.port->kick_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
        return;
    if (load_acquire(&r->page->connection) == XENSTORE_RECONNECT)
        ring_reset(r);
    else
        pump(r);
}

int xs_ring_create(const struct xs_ring_params *p, struct xs_ring **out, struct err *e)
{
    struct xs_ring *r = calloc(1, sizeof(*r));
    int rc;

    if (!r)
        return err_set(e, ENOMEM, "no memory for a xenstore ring");
    r->p = *p;
    r->page = p->page;
    r->fd = -1;
    r->req_cons = load_relaxed(&r->page->req_cons);
    r->rsp_prod = load_relaxed(&r->page->rsp_prod);
    rc = reconnect(r, e);
    if (!rc) {
        r->kick_watch = loop_fd_add(p->loop, p->port->kick_fd, EPOLLIN, kicked, r);
        if (!r->kick_watch)
            rc = err_set(e, errno, "cannot watch a guest's port: %s", strerror(errno));
    }
    if (rc) {
        xs_ring_free(r);
        return rc;
    }
    store_relaxed(&r->page->error, XENSTORE_ERROR_NONE);
    store_relaxed(&r->page->connection, XENSTORE_CONNECTED);
    store_release(&r->page->server_features,
                  XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR);
    pump(r);
    *out = r;
    return 0;
}

void xs_ring_free(struct xs_ring *r)
{
    if (!r)
        return;
    disconnect(r);
    loop_fd_remove(r->kick_watch);
    free(r);
}

uint32_t xs_ring_error(const struct xs_ring *r)
{
    return r->error;
}
