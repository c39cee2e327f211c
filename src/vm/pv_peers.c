/* SPDX-License-Identifier: MIT */
/* Where the processes of guests meet.
 *
 * Each listens on a socket.  Whoever needs something of another guest's connects to its
 * process and asks; the other's thread for peers answers out of that guest's tables, and
 * waits for nobody, so that two guests that ask each other at once both get an answer.
 * The one who asks is a vCPU's thread, and waits.
 *
 * A connection stands for what its maker has of the other: when it ends, because the
 * process died or the guest was destroyed, the other side takes back all grants that were
 * held through it, and ends all channels with that guest.  The maker watches it for the
 * same reason.  Nothing has to be swept up in any file.
 *
 * Whoever may connect is whoever may use the registry's directory: processes of its owner.
 * A guest's RAM is passed to the process of a guest that holds a grant of it, but only the
 * pages that are granted are ever shown to that guest. */
#include "vm/pv_peers_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/log.h"
#include "place/thread.h"

#define EVENTS_PER_WAIT 32
#define STACK_BYTES     ((size_t)128 * KIB)

/* ---- packets ---- */

static int packet_send(int fd, const struct peer_msg *m, int pass_fd, int flags)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } control = { 0 };
    struct iovec iov = { .iov_base = (void *)(uintptr_t)m, .iov_len = sizeof(*m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (pass_fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        control.h.cmsg_level = SOL_SOCKET;
        control.h.cmsg_type = SCM_RIGHTS;
        control.h.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.h), &pass_fd, sizeof(pass_fd));
    }
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*m) ? 0 : n < 0 ? -errno : -EPIPE;
}

/* The descriptor that came along, or -1.  Where there is room for one, padding lets two in. */
static int packet_fd(struct msghdr *msg)
{
    const struct cmsghdr *h = CMSG_FIRSTHDR(msg);
    size_t nr;
    int fd = -1;

    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
        return -1;
    nr = (h->cmsg_len - CMSG_LEN(0)) / sizeof(fd);
    for (size_t i = 0; i < nr; i++) {
        memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
        if (nr > 1)
            close(fd);
    }
    return nr == 1 ? fd : -1;
}

/* *got_fd: what came along, or -1. */
static int packet_receive(int fd, struct peer_msg *m, int *got_fd, int flags)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } control;
    struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                          .msg_controllen = sizeof(control) };
    ssize_t n;

    *got_fd = -1;
    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *got_fd = packet_fd(&msg);
    /* MSG_CTRUNC: no descriptor was free for what came along, which is then not there */
    if (n == (ssize_t)sizeof(*m) && !(msg.msg_flags & MSG_TRUNC))
        return 0;
    if (*got_fd >= 0)
        close(*got_fd);
    *got_fd = -1;
    return -EPIPE;
}

/* ---- what the thread waits for ---- */

int peers_watch(struct pv_peers *p, int fd, enum peer_wait kind, uint32_t number, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.u64 = (uint64_t)kind << 32 | number };

    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

/* Closing is not enough: others may have the same file open. */
void peers_unwatch(struct pv_peers *p, int fd)
{
    epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* ---- asking ---- */

/* p->lock is held. */
static struct peer *find(struct pv_peers *p, uint32_t domid)
{
    struct peer *peer = p->open;

    while (peer && peer->domid != domid)
        peer = peer->next;
    return peer;
}

struct peer *peer_hold(struct pv_peers *p, struct peer *peer)
{
    pthread_mutex_lock(&p->lock);
    peer->refs++;
    pthread_mutex_unlock(&p->lock);
    return peer;
}

void peer_put(struct pv_peers *p, struct peer *peer)
{
    bool last;

    pthread_mutex_lock(&p->lock);
    last = !--peer->refs;
    pthread_mutex_unlock(&p->lock);
    if (!last)
        return;
    close(peer->fd);
    if (peer->ram_fd >= 0)
        close(peer->ram_fd);
    pthread_mutex_destroy(&peer->lock);
    free(peer);
}

bool peer_is_gone(struct pv_peers *p, struct peer *peer)
{
    bool gone;

    pthread_mutex_lock(&p->lock);
    gone = peer->gone;
    pthread_mutex_unlock(&p->lock);
    return gone;
}

/* The connection is of no use any more.  True: it was, until now. */
static bool peer_close(struct pv_peers *p, struct peer *peer)
{
    struct peer **at = &p->open;
    bool was_open;

    pthread_mutex_lock(&p->lock);
    was_open = !peer->gone;
    peer->gone = true;
    for (; was_open && *at; at = &(*at)->next)
        if (*at == peer) {
            *at = peer->next;
            break;
        }
    pthread_mutex_unlock(&p->lock);
    if (was_open) {
        peers_unwatch(p, peer->fd);
        shutdown(peer->fd, SHUT_RDWR);
    }
    return was_open;
}

/* It is over with this guest, whoever noticed. */
static void peer_end(struct pv_peers *p, struct peer *peer)
{
    if (!peer_close(p, peer))
        return;
    peer_ports_gone(p, peer->domid);
    peer_put(p, peer);
}

static struct peer *peer_open(struct pv_peers *p, uint32_t domid)
{
    const struct timeval patience = { .tv_sec = p->p.answer_seconds };
    struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = p->p.domid };
    int fd = p->p.connect(p->p.arg, domid);
    struct peer *peer = fd >= 0 ? calloc(1, sizeof(*peer)) : NULL;
    bool cut;

    if (!peer || fcntl(fd, F_SETFL, 0) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
        packet_send(fd, &hello, -1, 0)) {
        if (fd >= 0)
            close(fd);
        free(peer);
        return NULL;
    }
    peer->domid = (domid_t)domid;
    peer->fd = fd;
    peer->ram_fd = -1;
    peer->refs = 2;             /* the list's and the caller's */
    pthread_mutex_init(&peer->lock, NULL);
    pthread_mutex_lock(&p->lock);
    cut = p->cut;
    peer->next = p->open;
    p->open = peer;
    pthread_mutex_unlock(&p->lock);
    /* only its end: replies are for who asks */
    if (!cut && !peers_watch(p, fd, PEER_WAIT_PEER, domid, EPOLLRDHUP))
        return peer;
    peer_end(p, peer);
    peer_put(p, peer);
    return NULL;
}

struct peer *peer_get(struct pv_peers *p, uint32_t domid)
{
    struct peer *peer;

    if (!domid || domid == p->p.domid || domid >= DOMID_FIRST_RESERVED)
        return NULL;
    pthread_mutex_lock(&p->connect_lock);
    pthread_mutex_lock(&p->lock);
    peer = find(p, domid);
    if (peer)
        peer->refs++;
    pthread_mutex_unlock(&p->lock);
    if (!peer)
        peer = peer_open(p, domid);
    pthread_mutex_unlock(&p->connect_lock);
    return peer;
}

int peer_ask(struct pv_peers *p, struct peer *peer, struct peer_msg *m, int send_fd, int *got_fd)
{
    const uint32_t op = m->op;
    int fd = -1, rc;

    pthread_mutex_lock(&peer->lock);
    rc = packet_send(peer->fd, m, send_fd, 0);
    if (!rc)
        rc = packet_receive(peer->fd, m, &fd, 0);
    if (!rc && m->op != op)
        rc = -EPROTO;
    if (rc)
        shutdown(peer->fd, SHUT_RDWR);      /* a reply that is late is nobody else's */
    pthread_mutex_unlock(&peer->lock);
    if (got_fd && !rc)
        *got_fd = fd;
    else if (fd >= 0)
        close(fd);
    if (!rc)
        return 0;
    if (rc == -EAGAIN) {
        log_error("the process of guest %u does not answer: it is given up", peer->domid);
        rc = -ETIMEDOUT;
    }
    peer_end(p, peer);
    return rc;
}

/* ---- answering ---- */

static void conn_end(struct pv_peers *p, struct peer_conn *c)
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
    return !packet_send(c->fd, m, reply_fd, MSG_DONTWAIT);
}

static void conn_ready(struct pv_peers *p, struct peer_conn *c)
{
    struct peer_msg m;
    int fd, rc;

    if (c->fd < 0)
        return;
    rc = packet_receive(c->fd, &m, &fd, MSG_DONTWAIT);
    if (rc == -EAGAIN)
        return;
    if (rc || !answer(p, c, &m, fd))
        conn_end(p, c);
}

/* A process without descriptors turns whoever comes away, with the one that is kept for it. */
static void turn_away(struct pv_peers *p)
{
    int fd;

    close(p->spare_fd);
    fd = accept4(p->p.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    p->spare_fd = eventfd(0, EFD_CLOEXEC);
}

static void listen_ready(struct pv_peers *p)
{
    int fd = accept4(p->p.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    uint32_t i = 0;

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE)
            turn_away(p);
        return;
    }
    while (i < PEER_CONNS_MAX && p->conn[i].fd >= 0)
        i++;
    if (i == PEER_CONNS_MAX || peers_watch(p, fd, PEER_WAIT_CONN, i, EPOLLIN)) {
        close(fd);
        return;
    }
    p->conn[i] = (struct peer_conn){ .fd = fd };
}

static void peer_ended(struct pv_peers *p, uint32_t domid)
{
    struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = find(p, domid);
    if (peer)
        peer->refs++;
    pthread_mutex_unlock(&p->lock);
    if (!peer)
        return;
    /* not that of one that was here before */
    if (poll(&(struct pollfd){ .fd = peer->fd, .events = POLLRDHUP }, 1, 0) > 0)
        peer_end(p, peer);
    peer_put(p, peer);
}

static void *serve(void *arg)
{
    struct pv_peers *p = arg;
    struct epoll_event ev[EVENTS_PER_WAIT];

    for (;;) {
        int n = epoll_wait(p->epoll_fd, ev, EVENTS_PER_WAIT, -1);

        for (int i = 0; i < n; i++) {
            uint32_t number = (uint32_t)ev[i].data.u64;

            switch ((enum peer_wait)(ev[i].data.u64 >> 32)) {
            case PEER_WAIT_END:
                return NULL;
            case PEER_WAIT_LISTEN:
                listen_ready(p);
                break;
            case PEER_WAIT_CONN:
                conn_ready(p, &p->conn[number]);
                break;
            case PEER_WAIT_PEER:
                peer_ended(p, number);
                break;
            case PEER_WAIT_KICK:
                peer_ports_kicked(p, number);
                break;
            }
        }
    }
}

/* ---- the guest's calls ---- */

static int32_t exists(struct pv_peers *p, uint32_t domid)
{
    struct peer *peer;

    if (domid == p->p.domid)
        return 0;
    peer = peer_get(p, domid);
    if (!peer)
        return -ESRCH;
    peer_put(p, peer);
    return 0;
}

void pv_peers_call(struct pv_peers *p, struct shim_peer_call *c)
{
    switch (c->op) {
    case SHIM_PEER_EXISTS:
        c->result = exists(p, c->domid);
        break;
    case SHIM_PEER_PORT_WAIT:
        c->result = peer_ports_wait(p, c->port, c->domid, c->id);
        break;
    case SHIM_PEER_PORT_BIND:
        c->result = peer_ports_bind(p, c->port, c->domid, c->peer_port, &c->link);
        break;
    case SHIM_PEER_PORT_CLOSE:
        peer_ports_close(p, c->port);
        c->result = 0;
        break;
    case SHIM_PEER_GRANT_MAP:
        c->result = peer_grants_map(p, c, &c->mfn);
        break;
    case SHIM_PEER_GRANT_UNMAP:
        peer_grants_unmap(p, c->mfn);
        c->result = 0;
        break;
    case SHIM_PEER_GRANT_HOLD:
        c->result = peer_grants_hold(p, c);
        break;
    case SHIM_PEER_GRANT_DROP:
        peer_grants_drop(p, c->hold);
        c->result = 0;
        break;
    case SHIM_PEER_COPY:
        c->result = peer_grants_copy(p, c);
        break;
    default:
        c->result = -ENOSYS;
    }
}

/* ---- life ---- */

uint8_t *pv_peers_window(void)
{
    void *w = mmap(NULL, PEER_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                   0);

    return w == MAP_FAILED ? NULL : w;
}

void pv_peers_window_free(uint8_t *window)
{
    if (window)
        munmap(window, PEER_BYTES);
}

static int start(struct pv_peers *p)
{
    struct rlimit files;
    int rc;

    /* each channel takes three descriptors */
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    p->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    p->spare_fd = eventfd(0, EFD_CLOEXEC);
    if (p->epoll_fd < 0 || p->end_fd < 0 || p->spare_fd < 0)
        return -errno;
    rc = gnttab_host_init(&p->table, p->p.mem, &p->p.grants);
    if (!rc)
        rc = peer_ports_init(p);
    if (!rc)
        rc = peer_grants_init(p);
    if (!rc)
        rc = peers_watch(p, p->end_fd, PEER_WAIT_END, 0, EPOLLIN);
    if (!rc)
        rc = peers_watch(p, p->p.listen_fd, PEER_WAIT_LISTEN, 0, EPOLLIN);
    if (!rc)
        rc = place_thread_start(&p->thread, "peers", STACK_BYTES, 0, serve, p);
    p->thread_runs = !rc;
    return rc;
}

int pv_peers_create(const struct pv_peers_params *params, struct pv_peers **out, struct err *e)
{
    struct pv_peers *p = calloc(1, sizeof(*p));
    int rc;

    if (!p) {
        close(params->listen_fd);
        return err_set(e, ENOMEM, "out of memory");
    }
    p->p = *params;
    p->epoll_fd = p->end_fd = p->spare_fd = -1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->connect_lock, NULL);
    pthread_mutex_init(&p->ports.lock, NULL);
    pthread_mutex_init(&p->grants.lock, NULL);
    for (unsigned i = 0; i < PEER_CONNS_MAX; i++)
        p->conn[i].fd = -1;
    rc = start(p);
    if (rc) {
        pv_peers_free(p);
        return err_set(e, -rc, "cannot meet other guests: %s", strerror(-rc));
    }
    *out = p;
    return 0;
}

void pv_peers_cut(struct pv_peers *p)
{
    pthread_mutex_lock(&p->lock);
    p->cut = true;
    for (struct peer *peer = p->open; peer; peer = peer->next)
        shutdown(peer->fd, SHUT_RDWR);
    pthread_mutex_unlock(&p->lock);
}

void pv_peers_free(struct pv_peers *p)
{
    const uint64_t one = 1;

    if (!p)
        return;
    pv_peers_cut(p);
    if (p->thread_runs) {
        if (write(p->end_fd, &one, sizeof(one)) < 0)
            log_error("the thread that meets other guests cannot be ended");
        pthread_join(p->thread, NULL);
    }
    peer_grants_free(p);
    peer_ports_free(p);
    while (p->open)
        peer_end(p, p->open);
    for (unsigned i = 0; i < PEER_CONNS_MAX; i++)
        if (p->conn[i].fd >= 0)
            conn_end(p, &p->conn[i]);
    if (p->table.counts)
        gnttab_host_free(&p->table);
    close(p->p.listen_fd);
    if (p->spare_fd >= 0)
        close(p->spare_fd);
    if (p->end_fd >= 0)
        close(p->end_fd);
    if (p->epoll_fd >= 0)
        close(p->epoll_fd);
    pthread_mutex_destroy(&p->grants.lock);
    pthread_mutex_destroy(&p->ports.lock);
    pthread_mutex_destroy(&p->connect_lock);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
