/* SPDX-License-Identifier: MIT */
/* Connections.
 *
 * A connection is read one buffer at a time, so no client keeps the others from
 * their turn, and only while little waits to be sent to it; when the answers to
 * one buffer's requests become too much, the rest of the buffer waits (`left`).
 * Watch events come on their own; a client that lets too many wait is cut off.
 *
 * A session is never ended from within the store or a handler: whoever wants it
 * ended marks its connection.  A connection that was marked, was given something
 * to send or was read from is active; the loop callback under which all of this
 * runs looks at the active ones last. */
#include "xen/xs_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/xs_session.h"

#define READ_BYTES (8 * KIB)
#define SEND_IOVS  16

struct message {
    STAILQ_ENTRY(message) in_queue;
    bool event;
    size_t len;
    char data[];
};

struct connection {
    LIST_ENTRY(connection) in_server;
    LIST_ENTRY(connection) in_active;
    bool active;                /* settle() has to look at it */
    struct xs_server *server;
    struct xs_session session;
    int fd;
    struct loop_fd *watch;
    uint32_t events;            /* what watch waits for */
    bool doomed;
    STAILQ_HEAD(, message) queue;
    size_t queued_bytes;        /* of whole messages */
    size_t sent_bytes;          /* of the first message */
    char *left;                 /* read, but not taken by the session, being paused */
    size_t left_bytes;
};

struct xs_server {
    struct loop *loop;
    struct xs_core core;
    LIST_HEAD(, connection) connections;
    LIST_HEAD(, connection) active;
    unsigned nr_connections;
    int listen_fd;
    struct loop_fd *listen_watch;
    void (*idle)(void *arg, bool idle);
    void *idle_arg;
};

static void activate(struct connection *c)
{
    if (!c->active)
        LIST_INSERT_HEAD(&c->server->active, c, in_active);
    c->active = true;
}

static void doom(struct connection *c)
{
    c->doomed = true;
    c->session.killed = true;
    activate(c);
}

/* May make others active. */
static void connection_free(struct connection *c)
{
    struct xs_server *s = c->server;

    c->doomed = true;
    xs_session_end(&c->session);
    LIST_REMOVE(c, in_server);
    if (c->active)
        LIST_REMOVE(c, in_active);
    s->nr_connections--;
    while (!STAILQ_EMPTY(&c->queue)) {
        struct message *m = STAILQ_FIRST(&c->queue);

        STAILQ_REMOVE_HEAD(&c->queue, in_queue);
        free(m);
    }
    loop_fd_remove(c->watch);
    close(c->fd);
    free(c->left);
    free(c);
}

static bool already_waits(const struct connection *c, const struct xsd_sockmsg *hdr,
                          const void *payload)
{
    const struct message *m;

    STAILQ_FOREACH(m, &c->queue, in_queue) {
        /* the first may be half sent, but then its reader will still see what
         * is there now when he has read it */
        if (m->event && m->len == sizeof(*hdr) + hdr->len &&
            !memcmp(m->data + sizeof(*hdr), payload, hdr->len))
            return true;
    }
    return false;
}

static void session_send(struct xs_session *session, const struct xsd_sockmsg *hdr,
                         const void *payload)
{
    struct connection *c = container_of(session, struct connection, session);
    bool event = hdr->type == XS_WATCH_EVENT;
    struct message *m;

    if (c->doomed || (event && already_waits(c, hdr, payload)))
        return;
    m = malloc(sizeof(*m) + sizeof(*hdr) + hdr->len);
    if (!m || (event && c->queued_bytes > XS_SERVER_QUEUE_CUT_BYTES)) {
        if (xs_session_may_log(session))
            log_warning("xenstored: a client of domain %u is cut off: %s",
                        session->client.domid,
                        m ? "it does not read its watch events" : "no memory");
        free(m);
        doom(c);
        return;
    }
    m->event = event;
    m->len = sizeof(*hdr) + hdr->len;
    memcpy(m->data, hdr, sizeof(*hdr));
    memcpy(m->data + sizeof(*hdr), payload, hdr->len);
    STAILQ_INSERT_TAIL(&c->queue, m, in_queue);
    c->queued_bytes += m->len;
    session->paused = c->queued_bytes > XS_SERVER_QUEUE_PAUSE_BYTES;
    activate(c);
}

static void session_kill(struct xs_session *session, const char *why)
{
    struct connection *c = container_of(session, struct connection, session);

    if (xs_session_may_log(session))
        log_info("xenstored: a connection of domain %u ends: %s", session->client.domid, why);
    doom(c);
}

static const struct xs_session_ops session_ops = { session_send, session_kill };

static void sent(struct connection *c, size_t n)
{
    n += c->sent_bytes;
    while (!STAILQ_EMPTY(&c->queue)) {
        struct message *m = STAILQ_FIRST(&c->queue);

        if (n < m->len)
            break;
        n -= m->len;
        c->queued_bytes -= m->len;
        STAILQ_REMOVE_HEAD(&c->queue, in_queue);
        free(m);
    }
    c->sent_bytes = n;
}

static void flush(struct connection *c)
{
    while (!STAILQ_EMPTY(&c->queue) && !c->doomed) {
        struct iovec iov[SEND_IOVS];
        struct msghdr msg = { .msg_iov = iov };
        size_t skip = c->sent_bytes;
        struct message *m;
        ssize_t n;

        STAILQ_FOREACH(m, &c->queue, in_queue) {
            if (msg.msg_iovlen == SEND_IOVS)
                break;
            iov[msg.msg_iovlen].iov_base = m->data + skip;
            iov[msg.msg_iovlen++].iov_len = m->len - skip;
            skip = 0;
        }
        n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            sent(c, (size_t)n);
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR)
            doom(c);
    }
}

static void flush_and_take(struct connection *c)
{
    flush(c);
    while (c->left_bytes && !c->doomed && c->queued_bytes <= XS_SERVER_QUEUE_PAUSE_BYTES) {
        size_t n;

        c->session.paused = false;
        n = xs_session_feed(&c->session, c->left, c->left_bytes);
        c->left_bytes -= n;
        memmove(c->left, c->left + n, c->left_bytes);
        flush(c);
    }
    if (!c->left_bytes) {
        free(c->left);
        c->left = NULL;
    }
}

/* Waits for what can make progress. */
static void rearm(struct connection *c)
{
    uint32_t events = 0;

    if (c->doomed)
        return;
    if (c->queued_bytes <= XS_SERVER_QUEUE_PAUSE_BYTES) {
        c->session.paused = false;
        events |= EPOLLIN;
    }
    if (!STAILQ_EMPTY(&c->queue))
        events |= EPOLLOUT;
    if (events != c->events && loop_fd_modify(c->watch, events)) {
        doom(c);
        return;
    }
    c->events = events;
}

/* Ends every callback: what happened to one connection may have given others
 * events to send, or an end. */
static void settle(struct xs_server *s)
{
    bool had = s->nr_connections > 0;

    while (!LIST_EMPTY(&s->active)) {
        struct connection *c = LIST_FIRST(&s->active);

        flush_and_take(c);
        rearm(c);
        if (c->doomed) {
            connection_free(c);
            continue;
        }
        LIST_REMOVE(c, in_active);
        c->active = false;
    }
    if (had && s->nr_connections == 0 && s->idle)
        s->idle(s->idle_arg, true);
}

static void take(struct connection *c, const char *data, size_t len)
{
    size_t taken = xs_session_feed(&c->session, data, len);

    if (taken == len)
        return;
    c->left = malloc(len - taken);
    if (!c->left) {
        doom(c);
        return;
    }
    c->left_bytes = len - taken;
    memcpy(c->left, data + taken, c->left_bytes);
}

static void connection_ready(void *arg, uint32_t events)
{
    struct connection *c = arg;
    struct xs_server *s = c->server;
    char buf[READ_BYTES];
    ssize_t n;

    activate(c);
    if (events & EPOLLIN) {
        n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n > 0)
            take(c, buf, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            doom(c);
    } else if (events & (EPOLLERR | EPOLLHUP)) {
        doom(c);
    }
    settle(s);
}

int xs_server_connect(struct xs_server *s, int fd)
{
    struct connection *c = calloc(1, sizeof(*c));
    int rc = c ? xs_session_start(&s->core, &c->session, &session_ops) : -ENOMEM;

    if (!rc) {
        c->server = s;
        c->fd = fd;
        c->events = EPOLLIN;
        STAILQ_INIT(&c->queue);
        c->watch = loop_fd_add(s->loop, fd, c->events, connection_ready, c);
        rc = c->watch ? 0 : -errno;
        if (rc)
            xs_session_end(&c->session);
    }
    if (rc) {
        free(c);
        close(fd);
        return rc;
    }
    LIST_INSERT_HEAD(&s->connections, c, in_server);
    if (++s->nr_connections == 1 && s->idle)
        s->idle(s->idle_arg, false);
    return 0;
}

/* One of those that wait; 0 or -errno. */
static int accept_one(struct xs_server *s)
{
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    return fd < 0 ? -errno : xs_server_connect(s, fd);
}

static void accept_ready(void *arg, uint32_t events)
{
    int rc = accept_one(arg);

    if (rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM)
        log_error("xenstored: cannot accept a connection: %s", strerror(-rc));
}

int xs_server_listen(struct xs_server *s, int fd)
{
    struct loop_fd *w = loop_fd_add(s->loop, fd, EPOLLIN, accept_ready, s);

    if (!w) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    if (s->listen_fd >= 0) {
        while (!accept_one(s))
            ;
        loop_fd_remove(s->listen_watch);
        close(s->listen_fd);
    }
    s->listen_fd = fd;
    s->listen_watch = w;
    return 0;
}

int xs_server_create(struct loop *loop, const struct store_limits *limits,
                     struct xs_server **out)
{
    struct xs_server *s = calloc(1, sizeof(*s));

    if (!s || xs_core_init(&s->core, limits)) {
        free(s);
        return -ENOMEM;
    }
    s->loop = loop;
    s->listen_fd = -1;
    LIST_INIT(&s->connections);
    LIST_INIT(&s->active);
    *out = s;
    return 0;
}

void xs_server_free(struct xs_server *s)
{
    if (!s)
        return;
    loop_fd_remove(s->listen_watch);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    while (!LIST_EMPTY(&s->connections))
        connection_free(LIST_FIRST(&s->connections));
    xs_core_free(&s->core);
    free(s);
}

unsigned xs_server_nr_connections(const struct xs_server *s)
{
    return s->nr_connections;
}

void xs_server_on_idle(struct xs_server *s, void (*cb)(void *arg, bool idle), void *arg)
{
    s->idle = cb;
    s->idle_arg = arg;
}

const struct store *xs_server_store(const struct xs_server *s)
{
    return s->core.store;
}
