/* SPDX-License-Identifier: MIT */
/* Event channels between guests.
 *
 * Of each port that is for another guest there is a record here, and this, not the shim,
 * knows whether it is connected: connecting and closing are answered by the processes, even
 * of a guest that is paused.  The shim keeps what it needs to send and to deliver.
 *
 * A guest's send is a doorbell, which KVM turns into an eventfd.  The other process's thread
 * waits for that and passes it on by the link of its own guest's end, as a device would.
 * A channel that ends is looked at once more, so that what was sent before is delivered.
 *
 *     waits    peer_port 0, no end       by the guest's alloc_unbound
 *     connected  peer_port, end          the other guest has connected, or this one has
 *     left     peer_port 0, end          the other has closed; it may connect again
 *
 * Only the guest's close ends a record. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "vm/pv_peers_priv.h"

#define AT_BYTES (EVTCHN_PORTS_MAX * sizeof(struct channel *))

int peer_ports_init(struct pv_peers *p)
{
    /* mmap: zeroed, and what is never used takes no memory */
    void *at = mmap(NULL, AT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        return -ENOMEM;
    p->ports.at = at;
    return 0;
}

/* The lock is held for all of these. */

static struct channel *channel_at(struct pv_peers *p, uint32_t port)
{
    return port < p->ports.nr ? p->ports.at[port] : NULL;
}

/* Takes what has been sent.  Both processes have the file, O_NONBLOCK is part of it, and the
 * other one may change that at any time: so it is said with each look.  A kernel that cannot
 * (before 5.8) gives an event too many. */
static bool sent(int fd)
{
    uint64_t n;
    const struct iovec v = { &n, sizeof(n) };

    return preadv2(fd, &v, 1, -1, RWF_NOWAIT) == sizeof(n) || errno == EOPNOTSUPP;
}

/* The other guest is no longer there, or has closed its end. */
static void disconnect(struct pv_peers *p, struct channel *c)
{
    c->peer_port = 0;
    if (c->end) {
        store_relaxed(&c->end->link->peer_port, 0);
        if (c->peer_fd >= 0 && sent(c->peer_fd))
            xen_hostport_notify(c->end);
    }
    if (c->peer_fd >= 0) {
        peers_unwatch(p, c->peer_fd);
        close(c->peer_fd);
    }
    c->peer_fd = -1;
}

/* fd is the callee's. */
static int connected(struct pv_peers *p, struct channel *c, uint32_t peer_port, int fd)
{
    int rc;

    c->peer_fd = fd;
    /* at each event, so that one that cannot be taken is seen once */
    rc = peers_watch(p, fd, PEER_WAIT_KICK, c->port, EPOLLIN | EPOLLET);
    if (rc)
        return rc;
    c->peer_port = peer_port;
    store_relaxed(&c->end->link->peer_port, peer_port);
    return 0;
}

static void channel_free(struct pv_peers *p, struct channel *c)
{
    p->ports.at[c->port] = NULL;
    disconnect(p, c);
    if (c->end)
        p->p.link_ops->release(p->p.links, c->end);
    free(c->end);
    free(c);
}

/* In place of whatever a guest has left there. */
static struct channel *channel_new(struct pv_peers *p, uint32_t port, domid_t peer)
{
    struct channel *c;

    if (port >= EVTCHN_PORTS_MAX || (channel_at(p, port) && channel_at(p, port)->binding))
        return NULL;
    if (channel_at(p, port))
        channel_free(p, channel_at(p, port));
    c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    *c = (struct channel){ .port = port, .peer = peer, .peer_fd = -1 };
    p->ports.at[port] = c;
    p->ports.nr = max_of(p->ports.nr, port + 1);
    return c;
}

void peer_ports_free(struct pv_peers *p)
{
    if (!p->ports.at)
        return;
    for (uint32_t i = 0; i < p->ports.nr; i++)
        if (p->ports.at[i])
            channel_free(p, p->ports.at[i]);
    munmap(p->ports.at, AT_BYTES);
    p->ports.at = NULL;
}

/* ---- the guest's calls ---- */

int peer_ports_wait(struct pv_peers *p, uint32_t port, uint32_t domid, uint32_t id)
{
    struct channel *c;

    pthread_mutex_lock(&p->ports.lock);
    c = channel_new(p, port, (domid_t)domid);
    if (c)
        c->id = id;
    pthread_mutex_unlock(&p->ports.lock);
    return c ? 0 : -ENOMEM;
}

/* The channel of a port that the guest is about to connect, with its end of it. */
static int bind_begin(struct pv_peers *p, uint32_t port, domid_t domid, uint32_t peer_port,
                      struct channel **out)
{
    struct xen_hostport *end = calloc(1, sizeof(*end));
    struct channel *c;
    int rc = -ENOMEM;

    pthread_mutex_lock(&p->ports.lock);
    c = end ? channel_new(p, port, domid) : NULL;
    if (c)
        rc = p->p.link_ops->take(p->p.links, port, end);
    if (!rc) {
        c->end = end;
        c->binding = true;
        c->peer_port = peer_port;
        *out = c;
    } else {
        free(end);
        if (c)
            channel_free(p, c);
    }
    pthread_mutex_unlock(&p->ports.lock);
    return rc;
}

/* The other process has answered.  Its guest may have closed the port again (*left), which is
 * as good as a channel that it closes later. */
static int bind_finish(struct pv_peers *p, struct channel *c, uint32_t peer_port, int rc, int fd,
                       uint32_t *link, bool *left)
{
    pthread_mutex_lock(&p->ports.lock);
    c->binding = false;
    *left = !c->peer_port;
    if (!rc && c->peer_port) {
        rc = connected(p, c, peer_port, fd);
        fd = -1;
    }
    if (fd >= 0)
        close(fd);
    if (!rc) {
        *link = c->end->index;
    } else {
        p->p.link_ops->untake(p->p.links, c->end);
        free(c->end);
        c->end = NULL;
        channel_free(p, c);
    }
    pthread_mutex_unlock(&p->ports.lock);
    return rc;
}

/* port has left peer_port. */
static void tell_closed(struct pv_peers *p, struct peer *peer, uint32_t peer_port, uint32_t port)
{
    struct peer_msg m = { .op = PEER_CLOSE, .port = peer_port, .peer_port = port };

    peer_ask(p, peer, &m, -1, NULL);
}

int peer_ports_bind(struct pv_peers *p, uint32_t port, uint32_t domid, uint32_t peer_port,
                    uint32_t *link)
{
    struct peer_msg m = { .op = PEER_BIND, .port = peer_port, .peer_port = port };
    struct peer *peer = peer_get(p, domid);
    bool connected_there, left;
    struct channel *c;
    int fd = -1, rc;

    if (!peer)
        return -ESRCH;
    /* port 0 is nobody's */
    rc = peer_port ? bind_begin(p, port, peer->domid, peer_port, &c) : -EINVAL;
    if (rc) {
        peer_put(p, peer);
        return rc;
    }
    rc = peer_ask(p, peer, &m, c->end->kick_fd, &fd);
    if (rc)
        rc = -ESRCH;
    else if (m.result)
        rc = -EINVAL;
    else if (!fd_is_eventfd(fd))
        rc = -EIO;
    connected_there = !rc;
    rc = bind_finish(p, c, peer_port, rc, fd, link, &left);
    /* if a connection's end crossed with the answer, the other side may know nothing of it */
    if (connected_there && (rc || left))
        tell_closed(p, peer, peer_port, port);
    peer_put(p, peer);
    return rc;
}

void peer_ports_close(struct pv_peers *p, uint32_t port)
{
    uint32_t peer_port = 0;
    struct peer *peer = NULL;
    struct channel *c;
    domid_t domid = 0;

    pthread_mutex_lock(&p->ports.lock);
    c = channel_at(p, port);
    if (c && !c->binding) {
        peer_port = c->peer_port;
        domid = c->peer;
        channel_free(p, c);
    }
    pthread_mutex_unlock(&p->ports.lock);
    if (peer_port)
        peer = peer_get(p, domid);
    if (!peer)
        return;
    tell_closed(p, peer, peer_port, port);
    peer_put(p, peer);
}

/* ---- the thread ---- */

/* The guest's end of a channel that waits, which it has from the first time on. */
static int end_make(struct pv_peers *p, struct channel *c)
{
    struct xen_hostport *end;
    int rc;

    if (c->end)
        return 0;
    end = calloc(1, sizeof(*end));
    rc = end ? p->p.link_ops->attach(p->p.links, c->port, c->id, end) : -ENOMEM;
    if (rc)
        free(end);
    else
        c->end = end;
    return rc;
}

int peer_ports_serve_bind(struct pv_peers *p, domid_t by, const struct peer_msg *m, int fd,
                          int *reply_fd)
{
    struct channel *c;
    int rc = -EINVAL;

    pthread_mutex_lock(&p->ports.lock);
    c = channel_at(p, m->port);
    if (c && c->peer == by && !c->peer_port && !c->binding && m->peer_port && fd_is_eventfd(fd))
        rc = end_make(p, c);
    if (!rc) {
        /* what was sent while nobody was there is dropped: who connects makes up for it */
        sent(c->end->kick_fd);
        rc = connected(p, c, m->peer_port, fd);
        fd = -1;
        if (rc)
            disconnect(p, c);
        else
            *reply_fd = c->end->kick_fd;
    }
    pthread_mutex_unlock(&p->ports.lock);
    if (fd >= 0)
        close(fd);
    return rc;
}

void peer_ports_serve_close(struct pv_peers *p, domid_t by, const struct peer_msg *m)
{
    struct channel *c;

    pthread_mutex_lock(&p->ports.lock);
    c = channel_at(p, m->port);
    if (c && c->peer == by && c->peer_port && c->peer_port == m->peer_port)
        disconnect(p, c);
    pthread_mutex_unlock(&p->ports.lock);
}

void peer_ports_kicked(struct pv_peers *p, uint32_t port)
{
    struct channel *c;

    pthread_mutex_lock(&p->ports.lock);
    c = channel_at(p, port);
    if (c && c->end && c->peer_fd >= 0 && sent(c->peer_fd))
        xen_hostport_notify(c->end);
    pthread_mutex_unlock(&p->ports.lock);
}

void peer_ports_gone(struct pv_peers *p, domid_t peer)
{
    if (!p->ports.at)
        return;
    pthread_mutex_lock(&p->ports.lock);
    for (uint32_t i = 0; i < p->ports.nr; i++)
        if (p->ports.at[i] && p->ports.at[i]->peer == peer && p->ports.at[i]->peer_port)
            disconnect(p, p->ports.at[i]);
    pthread_mutex_unlock(&p->ports.lock);
}
