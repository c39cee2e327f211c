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

/* The process at a socket's other end: that connected to it, or listens there.  0: one of
 * another PID namespace; these count as one. */
static pid_t process_of(int fd)
{
    struct ucred who;
    socklen_t bytes = sizeof(who);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) ? -1 : who.pid;
}

/* Guest domid's own process is who listens for it. */
static bool is_guest(struct pv_peers *p, const struct peer_conn *c, unsigned domid)
{
    int fd = p->p.connect(p->p.arg, domid);
    bool same = fd >= 0 && process_of(fd) == c->pid;

    if (fd >= 0)
        close(fd);
    return same;
}

static bool hello(struct pv_peers *p, struct peer_conn *c, const struct peer_msg *m)
{
    if (m->op != PEER_HELLO || m->port != PEER_WIRE_VERSION || !m->domid ||
        m->domid >= DOMID_FIRST_RESERVED || m->domid == p->p.domid ||
        !is_guest(p, c, m->domid))
        return false;
    c->domid = (domid_t)m->domid;
    return true;
}

/* False: the connection must end.  fd is what came along, or -1, and is used up. */
static bool answer(struct pv_peers *p, struct peer_conn *c, struct peer_msg *m, int fd)
{
    int reply_fd = -1, rc;

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
    rc = peer_packet_send(c->fd, m, reply_fd, MSG_DONTWAIT);
    /* Who reads nothing any more keeps what it has until it closes the connection.  Who has not
     * read the last reply yet does not ask as agreed. */
    return !rc || rc == -EPIPE;
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

/* A free place for a connection that pid has made; NULL: there is none, or it has its share. */
static struct peer_conn *conn_free(struct pv_peers *p, pid_t pid)
{
    struct peer_conn *found = NULL;
    unsigned nr = 0;

    for (uint32_t i = 0; i < PEER_CONNS_MAX; i++)
        if (p->conn[i].fd < 0)
            found = &p->conn[i];
        else if (p->conn[i].pid == pid)
            nr++;
    return nr < PEER_CONNS_EACH ? found : NULL;
}

bool peer_conn_accept(struct pv_peers *p)
{
    int fd = accept4(p->p.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    struct peer_conn *c;
    pid_t pid;

    if (fd < 0)
        return errno == EAGAIN || ((errno == EMFILE || errno == ENFILE) && turn_away(p));
    pid = process_of(fd);
    c = pid >= 0 ? conn_free(p, pid) : NULL;
    if (!c || peers_watch(p, fd, PEER_WAIT_CONN, (uint32_t)(c - p->conn), EPOLLIN))
        close(fd);
    else
        *c = (struct peer_conn){ .fd = fd, .pid = pid };
    return true;
}
