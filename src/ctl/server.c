/* SPDX-License-Identifier: MIT */
/* A connection is in one of three states:
 *
 *   READING  a request line is being gathered, EPOLLIN only
 *   WRITING  a reply waits for room in the socket, EPOLLOUT only: a client that
 *            does not read is not read either, so it can pile up one reply
 *   WAITING  the reply comes with ctl_server_stopped(), ctl_server_disk_detached() or the
 *            end of its patience, as the command said
 *
 * "console" hands the descriptor to the console and ends the connection here.
 * When all slots are taken, the connection that was silent longest, not counting
 * those that wait, makes room: half requests cannot lock `destroy` out. */
#include "ctl/server_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/xen_console.h"

/* ---- connections ---- */

static void conn_close(struct conn *c)
{
    struct ctl_server *s = c->server;
    struct conn **at = &s->conns;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    s->nr_conns--;
    loop_fd_remove(c->watch);
    loop_timer_remove(c->wait_timer);
    if (c->fd >= 0)
        close(c->fd);
    free(c->reply);
    free(c);
}

/* Sends what it can; false when the connection is over (and closed). */
static bool conn_flush(struct conn *c)
{
    while (c->reply_done < c->reply_bytes) {
        ssize_t n = send(c->fd, c->reply + c->reply_done, c->reply_bytes - c->reply_done,
                         MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            c->state = CONN_WRITING;
            loop_fd_modify(c->watch, EPOLLOUT);
            return true;
        }
        if (n <= 0) {
            conn_close(c);
            return false;
        }
        c->reply_done += (size_t)n;
    }
    free(c->reply);
    c->reply = NULL;
    if (c->close_after) {
        conn_close(c);
        return false;
    }
    c->state = CONN_READING;
    loop_fd_modify(c->watch, EPOLLIN);
    return true;
}

/* Takes line; false when the connection is over. */
static bool conn_reply(struct conn *c, char *line)
{
    if (!line) {
        conn_close(c);
        return false;
    }
    c->reply = line;
    c->reply_bytes = strlen(line);
    c->reply_done = 0;
    return conn_flush(c);
}

static void conn_console(struct conn *c)
{
    struct err e = { 0 };
    int rc;

    if (c->line_bytes) {
        err_set(&e, EPROTO, "the console's input comes after the reply");
        c->close_after = true;
        conn_reply(c, ctl_reply_format_error(&e));
        return;
    }
    if (!conn_reply(c, ctl_reply_format(NULL)))
        return;
    if (c->state == CONN_WRITING) {     /* it did not read its earlier replies */
        conn_close(c);
        return;
    }
    loop_fd_remove(c->watch);
    c->watch = NULL;
    rc = xen_console_attach(vm_guest_console(c->server->p.guest), c->fd, c->fd, NULL, NULL);
    if (rc)
        log_warning("console: cannot attach a client: %s", strerror(-rc));
    else
        c->fd = -1;
    conn_close(c);
}

/* One request; false when the connection is over. */
static bool conn_request(struct conn *c, char *line, size_t len)
{
    char name[CTL_COMMAND_BYTES];
    json_t *arguments = NULL, *result = NULL;
    enum verdict verdict = VERDICT_REPLY;
    struct err e = { 0 };

    ctl_request_parse(line, len, name, &arguments, &e);
    /* the request's bytes are done with: what follows belongs to the next */
    c->line_bytes -= len + 1;
    memmove(c->line, line + len + 1, c->line_bytes);
    if (!e.code)
        verdict = ctl_command_run(c, name, arguments, &result, &e);
    json_decref(arguments);
    switch (verdict) {
    case VERDICT_WAIT:
        c->state = CONN_WAITING;
        return true;
    case VERDICT_CONSOLE:
        conn_console(c);
        return false;
    case VERDICT_REPLY:
        break;
    }
    if (!e.code)
        return conn_reply(c, ctl_reply_format(result));
    json_decref(result);
    return conn_reply(c, ctl_reply_format_error(&e));
}

static void conn_too_long(struct conn *c)
{
    struct err e = { 0 };

    err_set(&e, EMSGSIZE, "request is longer than %u bytes", (unsigned)CTL_REQUEST_BYTES_MAX);
    c->close_after = true;
    conn_reply(c, ctl_reply_format_error(&e));
}

static void conn_serve(struct conn *c)
{
    while (c->state == CONN_READING) {
        char *end = memchr(c->line, '\n', c->line_bytes);

        if (!end && c->line_bytes == sizeof(c->line)) {
            conn_too_long(c);
            return;
        }
        if (!end || !conn_request(c, c->line, (size_t)(end - c->line)))
            return;
    }
}

void ctl_conn_wake(struct conn *c, json_t *result, const struct err *e)
{
    loop_timer_remove(c->wait_timer);
    c->wait_timer = NULL;
    if (e->code)
        json_decref(result);
    if (conn_reply(c, e->code ? ctl_reply_format_error(e) : ctl_reply_format(result)))
        conn_serve(c);
}

static void conn_ready(void *arg, uint32_t events)
{
    struct conn *c = arg;
    ssize_t n;

    c->active_ns = loop_now_ns();
    if (c->state == CONN_WRITING) {
        if (conn_flush(c))
            conn_serve(c);
        return;
    }
    if (c->state == CONN_WAITING) {     /* nothing may come but the end */
        conn_close(c);
        return;
    }
    n = recv(c->fd, c->line + c->line_bytes, sizeof(c->line) - c->line_bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        conn_close(c);
        return;
    }
    c->line_bytes += (size_t)n;
    conn_serve(c);
}

static bool peer_allowed(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len)
        && (peer.uid == 0 || peer.uid == geteuid());
}

/* A free slot, perhaps at the cost of the most silent connection. */
static bool make_room(struct ctl_server *s)
{
    struct conn *oldest = NULL;

    if (s->nr_conns < CTL_SERVER_CLIENTS_MAX)
        return true;
    for (struct conn *c = s->conns; c; c = c->next)
        if (c->state != CONN_WAITING && (!oldest || c->active_ns < oldest->active_ns))
            oldest = c;
    if (oldest)
        conn_close(oldest);
    return oldest;
}

static void listen_ready(void *arg, uint32_t events)
{
    struct ctl_server *s = arg;
    int fd = accept4(s->p.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct conn *c;

    if (fd < 0)
        return;
    c = peer_allowed(fd) && make_room(s) ? calloc(1, sizeof(*c)) : NULL;
    if (c) {
        c->server = s;
        c->fd = fd;
        c->active_ns = loop_now_ns();
        c->watch = loop_fd_add(s->p.loop, fd, EPOLLIN, conn_ready, c);
    }
    if (!c || !c->watch) {
        free(c);
        close(fd);
        return;
    }
    c->next = s->conns;
    s->conns = c;
    s->nr_conns++;
}

/* ---- life ---- */

static void destroy_now(void *arg)
{
    struct ctl_server *s = arg;

    s->p.destroy(s->p.arg);
}

/* One that waits so; afresh after each, since whoever is woken may end others. */
static struct conn *waiting(struct ctl_server *s, enum conn_wait wait)
{
    for (struct conn *c = s->conns; c; c = c->next)
        if (c->state == CONN_WAITING && c->wait == wait)
            return c;
    return NULL;
}

void ctl_server_stopped(struct ctl_server *s, enum vm_stop why, const char *text)
{
    struct err none = { 0 }, stopped = { 0 };
    size_t n = min_of(strlen(text), sizeof(s->why_text) - 1);
    struct conn *c;

    s->stopped = true;
    s->why = why;
    memcpy(s->why_text, text, n);
    s->why_text[n] = '\0';
    ctl_server_alive(s, &stopped);
    while ((c = waiting(s, CONN_WAIT_STOP)))
        ctl_conn_wake(c, ctl_server_stop_json(s), &none);
    while ((c = waiting(s, CONN_WAIT_DISK)))
        ctl_conn_wake(c, NULL, &stopped);
    while ((c = waiting(s, CONN_WAIT_SETTLE)))
        ctl_conn_wake(c, NULL, &none);
}

static struct conn *waiting_for_disk(struct ctl_server *s, unsigned vdev_number)
{
    for (struct conn *c = s->conns; c; c = c->next)
        if (c->state == CONN_WAITING && c->wait == CONN_WAIT_DISK && c->wait_disk == vdev_number)
            return c;
    return NULL;
}

void ctl_server_disk_detached(struct ctl_server *s, unsigned vdev_number)
{
    const struct err none = { 0 };
    struct conn *c;

    vm_config_disk_remove(s->p.config, vdev_number);
    while ((c = waiting_for_disk(s, vdev_number)))
        if (!ctl_disk_settle(c))
            ctl_conn_wake(c, NULL, &none);
}

int ctl_server_create(const struct ctl_server_params *p, struct ctl_server **out,
                      struct err *e)
{
    struct ctl_server *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(e, ENOMEM, "out of memory");
    s->p = *p;
    s->destroy_timer = loop_timer_add(p->loop, destroy_now, s);
    s->listen_watch = loop_fd_add(p->loop, p->listen_fd, EPOLLIN, listen_ready, s);
    if (!s->destroy_timer || !s->listen_watch) {
        int rc = err_set(e, errno, "cannot serve the control socket: %s", strerror(errno));

        loop_timer_remove(s->destroy_timer);
        loop_fd_remove(s->listen_watch);
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void ctl_server_free(struct ctl_server *s)
{
    if (!s)
        return;
    while (s->conns)
        conn_close(s->conns);
    loop_fd_remove(s->listen_watch);
    close(s->p.listen_fd);
    loop_timer_remove(s->destroy_timer);
    free(s);
}
