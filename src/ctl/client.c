/* SPDX-License-Identifier: MIT */
#include "ctl/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"
#include "ctl/protocol.h"

/* Building down a guest with much memory takes a while. */
#define DESTROY_TIMEOUT_MS 60000

static int send_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Readable, or closed: 0; -ETIMEDOUT. */
static int wait_readable(int fd, unsigned timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int rc;

    do
        rc = poll(&p, 1, timeout_ms == CTL_FOREVER ? -1 : (int)timeout_ms);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc ? 0 : -ETIMEDOUT;
}

/* Reads up to and with the newline, and not a byte more: what follows may be
 * the console's. */
static int read_line(int fd, unsigned timeout_ms, char **line, size_t *len)
{
    char *buf = NULL;
    size_t have = 0;
    int rc;

    for (;;) {
        char peek[4096], *grown;
        const char *end;
        size_t take;
        ssize_t n;

        rc = wait_readable(fd, timeout_ms);
        if (rc)
            break;
        n = recv(fd, peek, sizeof(peek), MSG_PEEK);
        if (n < 0 && errno == EINTR)
            continue;
        rc = n < 0 ? -errno : n == 0 ? -ECONNRESET : 0;
        if (rc)
            break;
        end = memchr(peek, '\n', (size_t)n);
        take = end ? (size_t)(end - peek) + 1 : (size_t)n;
        rc = have + take > CTL_REPLY_BYTES_MAX ? -EMSGSIZE : 0;
        grown = rc ? NULL : realloc(buf, have + take);
        if (!grown) {
            rc = rc ? rc : -ENOMEM;
            break;
        }
        buf = grown;
        n = recv(fd, buf + have, take, 0);     /* peeked: all of it is there */
        if (n < 0) {
            rc = -errno;
            break;
        }
        have += (size_t)n;
        if (end) {
            *line = buf;
            *len = have - 1;
            return 0;
        }
    }
    free(buf);
    return rc;
}

/* Takes arguments.  Connection with the reply read, or -errno. */
static int exchange(struct registry *r, unsigned domid, const char *command,
                    json_t *arguments, unsigned timeout_ms, json_t **result, struct err *e)
{
    char *request = ctl_request_format(command, arguments), *line = NULL;
    size_t len;
    int fd, rc;

    if (!request)
        return err_set(e, EINVAL, "the request cannot be written as JSON");
    fd = registry_connect(r, domid);
    rc = fd < 0 ? fd : send_all(fd, request, strlen(request));
    free(request);
    if (!rc)
        rc = read_line(fd, timeout_ms, &line, &len);
    if (rc == -EPIPE)
        rc = -ECONNRESET;
    if (rc)
        err_set(e, -rc, "domain %u does not answer: %s", domid, strerror(-rc));
    else
        rc = ctl_reply_parse(line, len, result, e);
    free(line);
    if (rc && fd >= 0)
        close(fd);
    return rc ? rc : fd;
}

int ctl_call(struct registry *r, unsigned domid, const char *command, json_t *arguments,
             unsigned timeout_ms, json_t **result, struct err *e)
{
    json_t *got = NULL;
    int fd = exchange(r, domid, command, arguments, timeout_ms, &got, e);

    if (fd < 0)
        return fd;
    close(fd);
    if (result)
        *result = got;
    else
        json_decref(got);
    return 0;
}

int ctl_open(struct registry *r, unsigned domid, const char *command, struct err *e)
{
    json_t *got = NULL;
    int fd = exchange(r, domid, command, NULL, CTL_TIMEOUT_MS, &got, e);

    json_decref(got);
    return fd;
}

int ctl_wait_closed(int fd, unsigned timeout_ms)
{
    char rest[256];

    for (;;) {
        int rc = wait_readable(fd, timeout_ms);
        ssize_t n;

        if (rc)
            return rc;
        n = recv(fd, rest, sizeof(rest), 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            return 0;
    }
}

static bool flag(json_t *j, const char *name)
{
    return json_is_true(json_object_get(j, name));
}

static json_int_t number(json_t *j, const char *name)
{
    return json_integer_value(json_object_get(j, name));
}

int ctl_guest_state_get(struct registry *r, const struct registry_guest *who,
                        struct ctl_guest_state *out, struct err *e)
{
    struct registry_guest again;
    json_t *j = NULL;
    int rc = ctl_call(r, who->domid, "info", NULL, CTL_TIMEOUT_MS, &j, e);

    memset(out, 0, sizeof(*out));
    out->who = *who;
    if (rc == -ENOENT || rc == -ECONNREFUSED || rc == -ECONNRESET) {
        err_clear(e);
        /* not listening: being built, or gone since it was listed */
        return registry_find_domid(r, who->domid, &again, e);
    }
    if (rc)
        return rc;
    out->answers = true;
    out->running = flag(j, "running");
    out->blocked = flag(j, "blocked");
    out->paused = flag(j, "paused");
    out->shutdown = flag(j, "shutdown");
    out->crashed = flag(j, "crashed");
    out->dying = flag(j, "dying");
    out->why = (int)number(j, "why");
    out->memory_bytes = (uint64_t)number(j, "memory_bytes");
    out->vcpus_online = (unsigned)number(j, "vcpus_online");
    out->vcpus_max = (unsigned)number(j, "vcpus_max");
    out->cpu_time_ns = (uint64_t)number(j, "cpu_time_ns");
    json_decref(j);
    return 0;
}

int ctl_guest_destroy(struct registry *r, unsigned domid, struct err *e)
{
    int fd = ctl_open(r, domid, "destroy", e);
    int rc = fd < 0 ? fd : ctl_wait_closed(fd, DESTROY_TIMEOUT_MS);

    if (fd >= 0)
        close(fd);
    if (!rc || rc == -ECONNRESET) {
        err_clear(e);
        return 0;
    }
    err_clear(e);
    rc = registry_kill(r, domid, e);
    return rc == -ENOENT ? 0 : rc;
}
