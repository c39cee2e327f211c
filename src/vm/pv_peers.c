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
#define DEAF_MS         100     /* until somebody who could not be accepted is tried again */
#define STACK_BYTES     ((size_t)128 * KIB)

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

static bool is_cut(struct pv_peers *p)
{
    bool cut;

    pthread_mutex_lock(&p->lock);
    cut = p->cut;
    pthread_mutex_unlock(&p->lock);
    return cut;
}

bool peer_is_gone(struct pv_peers *p, struct peer *peer)
{
    bool gone;

    pthread_mutex_lock(&p->lock);
    gone = peer->gone;
    pthread_mutex_unlock(&p->lock);
    return gone;
}

/* The connection is of no use any more, but open yet.  True: it was, until now. */
static bool peer_leave(struct pv_peers *p, struct peer *peer)
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
    if (was_open)
        peers_unwatch(p, peer->fd);
    return was_open;
}

/* Of one that peer_leave() has found open. */
static void peer_close(struct pv_peers *p, struct peer *peer)
{
    shutdown(peer->fd, SHUT_RDWR);
    peer_ports_gone(p, peer->domid);
    peer_put(p, peer);
}

/* It is over with this guest, whoever noticed. */
static void peer_end(struct pv_peers *p, struct peer *peer)
{
    if (peer_leave(p, peer))
        peer_close(p, peer);
}

static struct peer *peer_open(struct pv_peers *p, uint32_t domid)
{
    const struct timeval patience = { .tv_sec = p->p.answer_seconds };
    struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = p->p.domid };
    int fd = p->p.connect(p->p.arg, domid);
    struct peer *peer = fd >= 0 ? calloc(1, sizeof(*peer)) : NULL;
    bool watched;

    if (!peer || fcntl(fd, F_SETFL, 0) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
        peer_packet_send(fd, &hello, -1, 0)) {
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
    peer->next = p->open;
    p->open = peer;
    /* only its end: replies are for who asks */
    watched = !p->cut && !peers_watch(p, fd, PEER_WAIT_PEER, domid, EPOLLRDHUP);
    pthread_mutex_unlock(&p->lock);
    if (watched)
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
    bool was_open = false;
    int fd = -1, rc;

    pthread_mutex_lock(&peer->lock);
    rc = is_cut(p) || peer_is_gone(p, peer) ? -ESHUTDOWN
                                            : peer_packet_send(peer->fd, m, send_fd, 0);
    if (!rc)
        rc = peer_packet_receive(peer->fd, m, &fd, 0);
    if (!rc && m->op != op)
        rc = -EPROTO;
    /* a reply that is late is nobody else's */
    if (rc && !is_cut(p))
        was_open = peer_leave(p, peer);
    pthread_mutex_unlock(&peer->lock);
    if (got_fd && !rc)
        *got_fd = fd;
    else if (fd >= 0)
        close(fd);
    if (!was_open)
        return rc;
    if (rc == -EAGAIN) {
        log_error("the process of guest %u does not answer: it is given up", peer->domid);
        /* before the other side sees the end, and gives back what is mapped */
        peer_grants_revoke(p, peer, op == PEER_HOLD || op == PEER_DROP);
    }
    peer_close(p, peer);
    return rc;
}

/* ---- the thread ---- */

static void peer_ended(struct pv_peers *p, uint32_t domid)
{
    struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = p->cut ? NULL : find(p, domid);
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

static int listen_watch(struct pv_peers *p)
{
    return peers_watch(p, p->p.listen_fd, PEER_WAIT_LISTEN, 0, EPOLLIN);
}

static void *serve(void *arg)
{
    struct pv_peers *p = arg;
    struct epoll_event ev[EVENTS_PER_WAIT];
    bool deaf = false;

    for (;;) {
        int n = epoll_wait(p->epoll_fd, ev, EVENTS_PER_WAIT, deaf ? DEAF_MS : -1);

        deaf = deaf && listen_watch(p);
        for (int i = 0; i < n; i++) {
            uint32_t number = (uint32_t)ev[i].data.u64;

            switch ((enum peer_wait)(ev[i].data.u64 >> 32)) {
            case PEER_WAIT_END:
                return NULL;
            case PEER_WAIT_LISTEN:
                /* who cannot be accepted stays, and would be seen again at once */
                deaf = !peer_conn_accept(p);
                if (deaf)
                    peers_unwatch(p, p->p.listen_fd);
                break;
            case PEER_WAIT_CONN:
                peer_conn_ready(p, &p->conn[number]);
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
        rc = listen_watch(p);
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

/* The connections stay: with them, what the guest may still see would be given back. */
void pv_peers_cut(struct pv_peers *p)
{
    pthread_mutex_lock(&p->lock);
    p->cut = true;
    for (struct peer *peer = p->open; peer; peer = peer->next) {
        peers_unwatch(p, peer->fd);     /* it would see this as the other side's end */
        shutdown(peer->fd, SHUT_RD);
    }
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
            peer_conn_end(p, &p->conn[i]);
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
