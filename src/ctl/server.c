/* SPDX-License-Identifier: MIT */
/* A connection is in one of three states:
 *
 *   READING  a request line is being gathered, EPOLLIN only
 *   WRITING  a reply waits for room in the socket, EPOLLOUT only: a client that
 *            does not read is not read either, so it can pile up one reply
 *   WAITING  it asked "wait"; the reply comes with ctl_server_stopped()
 *
 * "console" hands the descriptor to the console and ends the connection here.
 * When all slots are taken, the connection that was silent longest, not counting
 * those that wait, makes room: half requests cannot lock `destroy` out. */
#include "ctl/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/config_json.h"
#include "ctl/protocol.h"
#include "dev/xen_console.h"

enum conn_state { CONN_READING, CONN_WRITING, CONN_WAITING };

struct conn {
    struct conn *next;
    struct ctl_server *server;
    int fd;
    struct loop_fd *watch;
    enum conn_state state;
    bool close_after;           /* once the reply is out */
    uint64_t active_ns;
    char *reply;
    size_t reply_bytes, reply_done;
    size_t line_bytes;
    char line[CTL_REQUEST_BYTES_MAX];
};

struct ctl_server {
    struct ctl_server_params p;
    struct loop_fd *listen_watch;
    struct loop_timer *destroy_timer;
    bool destroying;
    bool stopped;
    enum vm_stop why;
    char why_text[512];
    struct conn *conns;
    unsigned nr_conns;
};

/* What a handler wants done with the connection. */
enum verdict {
    VERDICT_REPLY,      /* *result, or e */
    VERDICT_WAIT,       /* the reply comes later */
    VERDICT_CONSOLE,    /* reply, then hand the descriptor over */
};

struct argument {
    const char *name;
    const char *const *values;      /* NULL-terminated */
};

struct command {
    const char *name;
    const char *summary;
    const struct argument *argument;    /* required; NULL: takes none */
    enum verdict (*run)(struct ctl_server *s, json_t *arguments, json_t **result,
                        struct err *e);
};

/* ---- commands ---- */

static json_t *stop_json(const struct ctl_server *s)
{
    /* the text comes from the guest's console or registers: perhaps not UTF-8 */
    json_t *text = json_string(s->why_text);

    return json_pack("{s:i, s:o}", "why", (int)s->why, "text", text ? text : json_string(""));
}

static enum verdict run_info(struct ctl_server *s, json_t *arguments, json_t **result,
                             struct err *e)
{
    struct vm_guest_info i = { 0 };
    uint64_t up;

    vm_guest_info(s->p.guest, &i);
    up = i.booted_ns ? loop_now_ns() - i.booted_ns : 0;
    *result = json_pack("{s:i, s:b, s:b, s:b, s:b, s:b, s:b, s:i, s:I, s:i, s:i, s:I, s:I, s:i}",
                        "domid", (int)s->p.who->domid,
                        "running", i.running, "blocked", i.blocked, "paused", i.paused,
                        "shutdown", i.shutdown, "crashed", i.crashed, "dying",
                        i.dying || s->destroying, "why", (int)i.why,
                        "memory_bytes", (json_int_t)i.memory_bytes,
                        "vcpus_online", (int)i.vcpus_online, "vcpus_max", (int)i.vcpus_max,
                        "cpu_time_ns", (json_int_t)i.cpu_time_ns, "uptime_ns", (json_int_t)up,
                        "ring", (int)i.ring);
    return VERDICT_REPLY;
}

static enum verdict run_config(struct ctl_server *s, json_t *arguments, json_t **result,
                               struct err *e)
{
    *result = ctl_config_json(s->p.config);
    return VERDICT_REPLY;
}

static bool not_running(const struct ctl_server *s, struct err *e)
{
    if (s->stopped || s->destroying)
        err_set(e, ESRCH, "domain %u has stopped", s->p.who->domid);
    return e->code;
}

static enum verdict run_pause(struct ctl_server *s, json_t *arguments, json_t **result,
                              struct err *e)
{
    if (!not_running(s, e))
        vm_guest_pause(s->p.guest);
    return VERDICT_REPLY;
}

static enum verdict run_unpause(struct ctl_server *s, json_t *arguments, json_t **result,
                                struct err *e)
{
    if (!not_running(s, e))
        vm_guest_unpause(s->p.guest);
    return VERDICT_REPLY;
}

static enum verdict run_ask(struct ctl_server *s, json_t *arguments, json_t **result,
                            struct err *e)
{
    if (!not_running(s, e))
        vm_guest_ask(s->p.guest, json_string_value(json_object_get(arguments, "request")), e);
    return VERDICT_REPLY;
}

static enum verdict run_wait(struct ctl_server *s, json_t *arguments, json_t **result,
                             struct err *e)
{
    if (!s->stopped)
        return VERDICT_WAIT;
    *result = stop_json(s);
    return VERDICT_REPLY;
}

static enum verdict run_destroy(struct ctl_server *s, json_t *arguments, json_t **result,
                                struct err *e)
{
    if (!s->destroying)
        loop_timer_arm(s->destroy_timer, 0);
    s->destroying = true;
    return VERDICT_REPLY;
}

static enum verdict run_console(struct ctl_server *s, json_t *arguments, json_t **result,
                                struct err *e)
{
    if (s->destroying || !vm_guest_console(s->p.guest)) {
        err_set(e, ENODEV, "domain %u has no console", s->p.who->domid);
        return VERDICT_REPLY;
    }
    return VERDICT_CONSOLE;
}

static enum verdict run_help(struct ctl_server *s, json_t *arguments, json_t **result,
                             struct err *e);

static const char *const ask_values[] = { "poweroff", "reboot", "suspend", "halt", NULL };
static const struct argument ask_argument = { "request", ask_values };

static const struct command commands[] = {
    { "help",    "the commands",                            NULL, run_help },
    { "info",    "state and resources",                     NULL, run_info },
    { "config",  "configuration, in libxl's JSON",          NULL, run_config },
    { "pause",   "stop the vCPUs",                          NULL, run_pause },
    { "unpause", "let the vCPUs run",                       NULL, run_unpause },
    { "ask",     "ask the guest's kernel, by control/shutdown", &ask_argument, run_ask },
    { "wait",    "answer when the guest has stopped",       NULL, run_wait },
    { "destroy", "end the guest now; the connection closes when it is gone", NULL, run_destroy },
    { "console", "from the reply on, the connection is the console", NULL, run_console },
};

static enum verdict run_help(struct ctl_server *s, json_t *arguments, json_t **result,
                             struct err *e)
{
    json_t *all = json_object();

    for (size_t i = 0; i < array_size(commands); i++)
        json_object_set_new(all, commands[i].name, json_string(commands[i].summary));
    *result = all;
    return VERDICT_REPLY;
}

static const struct command *command_judge(const char *name, json_t *arguments, struct err *e)
{
    const struct command *c = NULL;
    const struct argument *a;
    const char *key, *value;
    json_t *v;

    for (size_t i = 0; i < array_size(commands) && !c; i++)
        if (!strcmp(commands[i].name, name))
            c = &commands[i];
    if (!c) {
        err_set(e, ENOSYS, "there is no command '%s'", name);
        return NULL;
    }
    a = c->argument;
    json_object_foreach(arguments, key, v)
        if (!a || strcmp(a->name, key)) {
            err_set(e, EINVAL, "'%s' takes no argument '%.64s'", name, key);
            return NULL;
        }
    if (!a)
        return c;
    value = json_string_value(json_object_get(arguments, a->name));
    for (size_t i = 0; value && a->values[i]; i++)
        if (!strcmp(a->values[i], value))
            return c;
    err_set(e, EINVAL, value ? "'%s': argument '%s' cannot be '%.64s'"
                             : "'%s' needs the argument '%s', a string", name, a->name, value);
    return NULL;
}

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
    struct ctl_server *s = c->server;
    char name[CTL_COMMAND_BYTES];
    const struct command *cmd = NULL;
    json_t *arguments = NULL, *result = NULL;
    enum verdict verdict = VERDICT_REPLY;
    struct err e = { 0 };

    if (!ctl_request_parse(line, len, name, &arguments, &e))
        cmd = command_judge(name, arguments, &e);
    /* the request's bytes are done with: what follows belongs to the next */
    c->line_bytes -= len + 1;
    memmove(c->line, line + len + 1, c->line_bytes);
    if (cmd)
        verdict = cmd->run(s, arguments, &result, &e);
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

void ctl_server_stopped(struct ctl_server *s, enum vm_stop why, const char *text)
{
    struct conn *next;
    size_t n = min_of(strlen(text), sizeof(s->why_text) - 1);

    s->stopped = true;
    s->why = why;
    memcpy(s->why_text, text, n);
    s->why_text[n] = '\0';
    for (struct conn *c = s->conns; c; c = next) {
        next = c->next;
        if (c->state == CONN_WAITING && conn_reply(c, ctl_reply_format(stop_json(s))))
            conn_serve(c);
    }
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
