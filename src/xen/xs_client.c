/* SPDX-License-Identifier: MIT */
/* One stream, two readers: a request reads until its answer has come, and keeps
 * the watch events it meets on the way; the loop reads when the socket has
 * something at other times.  Kept events are given out from the loop only, by a
 * timer that fires at once: the socket itself need not become readable again.
 *
 * A watch's token is its number, so that an event still on its way when its
 * watch is removed finds nobody.  A client freed by one of its own callbacks is
 * marked, and freed by the function that made the callback. */
#include "xen/xs_client_priv.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/num.h"

struct xs_watch {
    LIST_ENTRY(xs_watch) in_client;
    uint64_t number;
    xs_watch_cb cb;
    void *arg;
    char path[];
};

struct xs_client_event {
    STAILQ_ENTRY(xs_client_event) in_client;
    uint64_t number;            /* of the watch */
    char path[];
};

static void client_release(struct xs_client *c)
{
    while (!LIST_EMPTY(&c->watches)) {
        struct xs_watch *w = LIST_FIRST(&c->watches);

        LIST_REMOVE(w, in_client);
        free(w);
    }
    while (!STAILQ_EMPTY(&c->events)) {
        struct xs_client_event *ev = STAILQ_FIRST(&c->events);

        STAILQ_REMOVE_HEAD(&c->events, in_client);
        free(ev);
    }
    loop_fd_remove(c->fd_watch);
    loop_timer_remove(c->event_timer);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

int xs_client_died(struct xs_client *c, int error)
{
    c->dead = true;
    loop_timer_arm(c->event_timer, 0);
    return -error;
}

static int event_keep(struct xs_client *c)
{
    size_t path_bytes = strnlen(c->payload, c->hdr.len) + 1;
    struct xs_client_event *ev;
    uint64_t number;

    c->payload[c->hdr.len] = 0;
    if (path_bytes >= c->hdr.len || num_parse_u64(c->payload + path_bytes, 0, UINT64_MAX, &number))
        return -EPROTO;
    ev = malloc(sizeof(*ev) + path_bytes);
    if (!ev)
        return -ENOMEM;
    ev->number = number;
    memcpy(ev->path, c->payload, path_bytes);
    STAILQ_INSERT_TAIL(&c->events, ev, in_client);
    return 0;
}

/* Reads on, without waiting.  1: a message is complete; 0: nothing more is there
 * now; or -errno. */
static int message_read(struct xs_client *c)
{
    for (;;) {
        bool in_hdr = c->got_bytes < sizeof(c->hdr);
        size_t at = in_hdr ? c->got_bytes : c->got_bytes - sizeof(c->hdr);
        size_t want = in_hdr ? sizeof(c->hdr) - at : c->hdr.len - at;
        ssize_t n = 0;

        if (!in_hdr && c->hdr.len > XENSTORE_PAYLOAD_MAX)
            return -EPROTO;
        if (want == 0) {
            c->got_bytes = 0;
            return 1;
        }
        n = recv(c->fd, in_hdr ? (char *)&c->hdr + at : c->payload + at, want, MSG_DONTWAIT);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0)
            c->got_bytes += (size_t)n;
    }
}

static int wait_ready(int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        struct pollfd p = { .fd = fd, .events = events };
        uint64_t now = loop_now_ns();
        int n = now >= deadline_ns ? 0 : poll(&p, 1, (int)((deadline_ns - now) / 1000000 + 1));

        if (n > 0)
            return 0;
        if (n == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

static int send_all(int fd, struct iovec *iov, unsigned nr, uint64_t deadline_ns)
{
    while (nr) {
        struct msghdr msg = { .msg_iov = iov, .msg_iovlen = nr };
        ssize_t n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            int rc = wait_ready(fd, POLLOUT, deadline_ns);

            if (rc)
                return rc;
            continue;
        }
        if (n < 0 && errno != EINTR)
            return -errno;
        for (; nr && n >= (ssize_t)iov->iov_len; iov++, nr--)
            n -= (ssize_t)iov->iov_len;
        if (nr && n > 0) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

static int error_of(const char *name)
{
    for (size_t i = 0; i < array_size(xsd_errors); i++) {
        if (!strcmp(name, xsd_errors[i].errstring))
            return -xsd_errors[i].errnum;
    }
    return -EIO;
}

/* Reads until the answer to req_id has come: it is in c->payload, 0-terminated,
 * c->hdr.len bytes of it. */
static int answer_wait(struct xs_client *c, uint32_t req_id, uint64_t deadline_ns)
{
    for (;;) {
        int rc = message_read(c);

        if (rc == 0)
            rc = wait_ready(c->fd, POLLIN, deadline_ns);
        else if (rc == 1 && c->hdr.type == XS_WATCH_EVENT)
            rc = event_keep(c);
        else if (rc == 1 && c->hdr.req_id == req_id) {
            c->payload[c->hdr.len] = 0;
            return 0;
        } else if (rc == 1) {
            rc = -EPROTO;
        }
        if (rc)
            return rc;
    }
}

int xs_client_request(struct xs_client *c, uint32_t type, uint32_t tx,
                      struct iovec *args, unsigned nr_args)
{
    uint64_t deadline = loop_now_ns() + XS_CLIENT_TIMEOUT_MS * 1000000ull;
    struct xsd_sockmsg hdr = { .type = type, .req_id = ++c->last_req_id, .tx_id = tx };
    struct iovec iov[1 + 8] = { { &hdr, sizeof(hdr) } };
    size_t len = 0;
    int rc;

    if (c->dead)
        return -ENOTCONN;
    if (nr_args > 8)
        return -E2BIG;
    for (unsigned i = 0; i < nr_args; i++) {
        iov[1 + i] = args[i];
        len += args[i].iov_len;
    }
    if (len > XENSTORE_PAYLOAD_MAX)
        return -E2BIG;
    hdr.len = (uint32_t)len;
    rc = send_all(c->fd, iov, 1 + nr_args, deadline);
    if (!rc)
        rc = answer_wait(c, hdr.req_id, deadline);
    if (rc)
        return xs_client_died(c, -rc);
    if (!STAILQ_EMPTY(&c->events))
        loop_timer_arm(c->event_timer, 0);
    if (c->hdr.type == XS_ERROR)
        return error_of(c->payload);
    return c->hdr.type == type ? 0 : xs_client_died(c, EPROTO);
}

/* Gives out what has been kept; a callback may do anything, even free c. */
static void dispatch(struct xs_client *c)
{
    c->in_callback = true;
    while (!c->free_me && !STAILQ_EMPTY(&c->events)) {
        struct xs_client_event *ev = STAILQ_FIRST(&c->events);
        struct xs_watch *w;

        STAILQ_REMOVE_HEAD(&c->events, in_client);
        LIST_FOREACH(w, &c->watches, in_client) {
            if (w->number == ev->number)
                break;
        }
        if (w)
            w->cb(w->arg, ev->path);
        free(ev);
    }
    if (c->dead && !c->death_told && !c->free_me) {
        c->death_told = true;
        loop_fd_remove(c->fd_watch);
        c->fd_watch = NULL;
        if (c->on_death)
            c->on_death(c->death_arg);
    }
    c->in_callback = false;
    if (c->free_me)
        client_release(c);
}

static void events_due(void *arg)
{
    dispatch(arg);
}

static void socket_ready(void *arg, uint32_t events)
{
    struct xs_client *c = arg;
    int rc;

    while (!c->dead && (rc = message_read(c))) {
        if (rc == 1)
            rc = c->hdr.type == XS_WATCH_EVENT ? event_keep(c) : -EPROTO;
        if (rc)
            xs_client_died(c, -rc);
    }
    dispatch(c);
}

static int socket_connect(const char *path, struct err *e)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(sa.sun_path))
        return err_set(e, ENAMETOOLONG, "the path of xenstore's socket is too long: %s", path);
    strcpy(sa.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set(e, errno, "cannot make a socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
        int code = errno;

        close(fd);
        return err_set(e, code, "cannot connect to xenstore at %s: %s", path, strerror(code));
    }
    return fd;
}

static int client_new(struct loop *loop, int fd, struct xs_client **out)
{
    struct xs_client *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->fd = -1;
    c->loop = loop;
    LIST_INIT(&c->watches);
    STAILQ_INIT(&c->events);
    c->event_timer = loop_timer_add(loop, events_due, c);
    if (c->event_timer)
        c->fd_watch = loop_fd_add(loop, fd, EPOLLIN, socket_ready, c);
    if (!c->fd_watch) {
        int rc = -errno;

        client_release(c);
        return rc;
    }
    c->fd = fd;
    *out = c;
    return 0;
}

int xs_client_connect(struct loop *loop, const char *socket_path,
                      struct xs_client **out, struct err *e)
{
    int fd = socket_connect(socket_path, e);
    int rc = fd < 0 ? fd : client_new(loop, fd, out);

    if (fd >= 0 && rc) {
        close(fd);
        err_set(e, -rc, "cannot watch xenstore's socket: %s", strerror(-rc));
    }
    return rc;
}

void xs_client_free(struct xs_client *c)
{
    if (!c)
        return;
    if (c->in_callback)
        c->free_me = true;
    else
        client_release(c);
}

void xs_client_on_death(struct xs_client *c, void (*cb)(void *arg), void *arg)
{
    c->on_death = cb;
    c->death_arg = arg;
}

int xs_client_connect_domain_fd(const char *socket_path, unsigned domid, struct err *e)
{
    struct loop *loop = loop_create();
    struct xs_client *c = NULL;
    char number[16];
    struct iovec args[2] = { xs_client_string(XS_CONTROL_BECOME_DOMAIN) };
    int rc, fd = -1;

    if (!loop)
        return err_set(e, errno, "cannot make an event loop: %s", strerror(errno));
    rc = xs_client_connect(loop, socket_path, &c, e);
    if (!rc) {
        snprintf(number, sizeof(number), "%u", domid);
        args[1] = xs_client_string(number);
        rc = xs_client_request(c, XS_CONTROL, XS_NO_TRANSACTION, args, 2);
        if (rc)
            err_set(e, -rc, "xenstore refuses a connection for domain %u: %s", domid,
                    strerror(-rc));
    }
    if (!rc) {
        /* the stream is at a message boundary: no event precedes a watch */
        fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
        rc = fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno : 0;
        if (rc)
            err_set(e, -rc, "cannot keep xenstore's socket: %s", strerror(-rc));
    }
    xs_client_free(c);
    loop_free(loop);
    if (rc && fd >= 0)
        close(fd);
    return rc ? rc : fd;
}

int xs_client_watch(struct xs_client *c, const char *path, xs_watch_cb cb, void *arg,
                    struct xs_watch **out)
{
    struct xs_watch *w = malloc(sizeof(*w) + strlen(path) + 1);
    struct iovec args[2];
    char token[24];
    int rc;

    if (!w)
        return -ENOMEM;
    w->number = ++c->last_number;
    w->cb = cb;
    w->arg = arg;
    strcpy(w->path, path);
    snprintf(token, sizeof(token), "%llu", (unsigned long long)w->number);
    args[0] = xs_client_string(path);
    args[1] = xs_client_string(token);
    rc = xs_client_request(c, XS_WATCH, XS_NO_TRANSACTION, args, 2);
    if (rc) {
        free(w);
        return rc;
    }
    LIST_INSERT_HEAD(&c->watches, w, in_client);
    *out = w;
    return 0;
}

void xs_client_unwatch(struct xs_client *c, struct xs_watch *w)
{
    struct iovec args[2];
    char token[24];

    if (!w)
        return;
    snprintf(token, sizeof(token), "%llu", (unsigned long long)w->number);
    args[0] = xs_client_string(w->path);
    args[1] = xs_client_string(token);
    /* Should the daemon be gone, so is the watch. */
    xs_client_request(c, XS_UNWATCH, XS_NO_TRANSACTION, args, 2);
    LIST_REMOVE(w, in_client);
    free(w);
}

