/* SPDX-License-Identifier: MIT */
/* Connections that other guests' processes make to this one, and the answers they get.  All
 * of it is the thread's, which waits for nobody. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vm/pv_peers_priv.h"

void peer_conn_end(struct pv_peers *p, struct peer_conn *c)
{
    domid_t domid = c->domid;

    peer_held_end(p, c);
    peers_unwatch(p, c->fd);
    close(c->fd);
    *c = (struct peer_conn){ .fd = -1 };
    if (domid)
        peer_ports_gone(p, domid);
}

static bool hello(struct pv_peers *p, struct peer_conn *c, const struct peer_msg *m)
{
    if (m->op != PEER_HELLO || m->port != PEER_WIRE_VERSION || !m->domid ||
        m->domid >= DOMID_FIRST_RESERVED || m->domid == p->p.domid)
        return false;
    c->domid = (domid_t)m->domid;
    return true;
}

/* False: the connection must end.  fd is what came along, or -1, and is used up. */
static bool answer(struct pv_peers *p, struct peer_conn *c, struct peer_msg *m, int fd)
{
    int reply_fd = -1;

    if (!c->domid || m->op != PEER_BIND) {
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    if (!c->domid)
        return hello(p, c, m);
    m->result = 0;
    switch (m->op) {
    case PEER_BIND:
        m->result = peer_ports_serve_bind(p, c->domid, m, fd, &reply_fd);
        break;
    case PEER_CLOSE:
        peer_ports_serve_close(p, c->domid, m);
        break;
    case PEER_HOLD:
        peer_held_hold(p, c, m);
        if (m->want_ram && !m->result)
            reply_fd = p->p.ram_fd;
        break;
    case PEER_DROP:
        peer_held_drop(p, c, m->hold);
        break;
    default:
        return false;
    }
    /* who has not read the last reply yet does not ask as agreed */
    return !peer_packet_send(c->fd, m, reply_fd, MSG_DONTWAIT);
}

void peer_conn_ready(struct pv_peers *p, struct peer_conn *c)
{
    struct peer_msg m;
    int fd, rc;

    if (c->fd < 0)
        return;
    rc = peer_packet_receive(c->fd, &m, &fd, MSG_DONTWAIT);
    if (rc == -EAGAIN)
        return;
    if (rc || !answer(p, c, &m, fd))
        peer_conn_end(p, c);
}

/* A process without descriptors turns whoever comes away, with the one that is kept for it.
 * False: that is in use for something else by now. */
static bool turn_away(struct pv_peers *p)
{
    int fd;

    if (p->spare_fd >= 0)
        close(p->spare_fd);
    fd = accept4(p->p.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    p->spare_fd = eventfd(0, EFD_CLOEXEC);
    return fd >= 0;
}

bool peer_conn_accept(struct pv_peers *p)
{
    int fd = accept4(p->p.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    uint32_t i = 0;

    if (fd < 0)
        return errno == EAGAIN || ((errno == EMFILE || errno == ENFILE) && turn_away(p));
    while (i < PEER_CONNS_MAX && p->conn[i].fd >= 0)
        i++;
    if (i == PEER_CONNS_MAX || peers_watch(p, fd, PEER_WAIT_CONN, i, EPOLLIN))
        close(fd);
    else
        p->conn[i] = (struct peer_conn){ .fd = fd };
    return true;
}
