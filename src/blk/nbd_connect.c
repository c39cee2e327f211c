/* SPDX-License-Identifier: MIT */
#include "blk/nbd_connect.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "blk/disk.h"

/* Replies to one option; a server that has more to say means no good. */
#define REPLIES_MAX 64u

/* A peer that is gone without a word is noticed after KEEP_IDLE_S + KEEP_PROBES *
 * KEEP_INTERVAL_S, whether or not something is on its way to it. */
#define KEEP_IDLE_S     5
#define KEEP_INTERVAL_S 5
#define KEEP_PROBES     2

#define FULL_WAIT_US 10000      /* between two looks at a backlog that is full */

struct shake {
    int fd;
    int64_t deadline_ms;
    const struct nbd_target *target;
    struct err *e;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static int shake_wait(struct shake *s, short events)
{
    struct pollfd p = { .fd = s->fd, .events = events };
    int64_t left = s->deadline_ms - now_ms();
    int n = left > 0 ? poll(&p, 1, (int)left) : 0;

    if (n > 0 || (n < 0 && errno == EINTR))
        return 0;
    return n < 0 ? err_set(s->e, errno, "poll: %s", strerror(errno))
                 : err_set(s->e, ETIMEDOUT, "the server does not answer");
}

/* Everything, or an error. */
static int shake_send(struct shake *s, const void *data, size_t bytes)
{
    const char *at = data;

    while (bytes) {
        ssize_t n = send(s->fd, at, bytes, MSG_NOSIGNAL);
        int rc = 0;

        if (n >= 0) {
            at += n;
            bytes -= (size_t)n;
        } else if (errno == EAGAIN) {
            rc = shake_wait(s, POLLOUT);
        } else if (errno != EINTR) {
            rc = err_set(s->e, errno, "while shaking hands: %s", strerror(errno));
        }
        if (rc)
            return rc;
    }
    return 0;
}

static int shake_receive(struct shake *s, void *data, size_t bytes)
{
    char *at = data;

    while (bytes) {
        ssize_t n = recv(s->fd, at, bytes, 0);
        int rc = 0;

        if (n > 0) {
            at += n;
            bytes -= (size_t)n;
        } else if (!n) {
            rc = err_set(s->e, ECONNRESET, "the server hung up while shaking hands");
        } else if (errno == EAGAIN) {
            rc = shake_wait(s, POLLIN);
        } else if (errno != EINTR) {
            rc = err_set(s->e, errno, "while shaking hands: %s", strerror(errno));
        }
        if (rc)
            return rc;
    }
    return 0;
}

static int greet(struct shake *s)
{
    struct nbd_greeting g;
    uint32_t flags;
    int rc = shake_receive(s, &g, sizeof(g));

    if (rc)
        return rc;
    if (be64toh(g.init_magic) != NBD_INIT_MAGIC)
        return err_set(s->e, EPROTO, "is no NBD server");
    if (be64toh(g.option_magic) == NBD_OLDSTYLE_MAGIC ||
        (be64toh(g.option_magic) == NBD_OPTION_MAGIC &&
         !(be16toh(g.flags) & NBD_FLAG_FIXED_NEWSTYLE)))
        return err_set(s->e, EOPNOTSUPP, "the server speaks an NBD of before 2012: expected the"
                       " fixed newstyle protocol");
    if (be64toh(g.option_magic) != NBD_OPTION_MAGIC)
        return err_set(s->e, EPROTO, "is no NBD server");
    flags = htobe32(NBD_FLAG_FIXED_NEWSTYLE | (be16toh(g.flags) & NBD_FLAG_NO_ZEROES));
    return shake_send(s, &flags, sizeof(flags));
}

static int go_send(struct shake *s, bool ask_block_size)
{
    const char *name = s->target->export;
    uint32_t name_bytes = (uint32_t)strlen(name), name_wire = htobe32(name_bytes);
    uint16_t infos[2] = { htobe16(ask_block_size), htobe16(NBD_INFO_BLOCK_SIZE) };
    size_t infos_bytes = ask_block_size ? sizeof(infos) : sizeof(infos[0]);
    struct nbd_option o = {
        .magic = htobe64(NBD_OPTION_MAGIC),
        .option = htobe32(NBD_OPT_GO),
        .length_bytes = htobe32((uint32_t)(sizeof(name_wire) + name_bytes + infos_bytes)),
    };
    int rc = shake_send(s, &o, sizeof(o));

    if (!rc)
        rc = shake_send(s, &name_wire, sizeof(name_wire));
    if (!rc)
        rc = shake_send(s, name, name_bytes);
    return rc ? rc : shake_send(s, infos, infos_bytes);
}

static int refused(struct shake *s, uint32_t type, char *words)
{
    const char *name = s->target->export;
    const char *colon = words[0] ? ": " : "";

    text_make_harmless(words);
    switch (type) {
    case NBD_REP_ERR_UNKNOWN:
        if (!name[0])
            return err_set(s->e, ENOENT, "the server has no default export: name one%s%.200s",
                           colon, words);
        return err_set(s->e, ENOENT, "the server has no export '%.100s'%s%.200s", name, colon,
                       words);
    case NBD_REP_ERR_TLS_REQD:
        return err_set(s->e, EOPNOTSUPP, "the server wants TLS, which is not supported%s%.200s",
                       colon, words);
    case NBD_REP_ERR_UNSUP:
        return err_set(s->e, EOPNOTSUPP, "the server is too old: it does not know NBD_OPT_GO");
    case NBD_REP_ERR_SHUTDOWN:
        return err_set(s->e, ESHUTDOWN, "the server is shutting down");
    case NBD_REP_ERR_BLOCK_SIZE_REQD:
        return err_set(s->e, EOPNOTSUPP, "the server does not serve single sectors of %u bytes;"
                       " `nbdkit --filter=blocksize' can do that for it", BLK_SECTOR_BYTES);
    case NBD_REP_ERR_POLICY:
        return err_set(s->e, EACCES, "the server refuses the export%s%.200s", colon, words);
    default:
        return err_set(s->e, EPROTO, "the server refuses the export (error 0x%x)%s%.200s", type,
                       colon, words);
    }
}

struct go {
    struct nbd_export x;
    uint32_t min_bytes;
    bool size_told;
};

static int info_take(struct shake *s, const void *data, uint32_t bytes, struct go *go)
{
    struct nbd_info_block_size b;
    struct nbd_info_export x;
    uint16_t type;

    if (bytes < sizeof(type))
        return err_set(s->e, EPROTO, "the server sends information of %u bytes", bytes);
    memcpy(&type, data, sizeof(type));
    if (be16toh(type) == NBD_INFO_EXPORT && bytes == sizeof(x)) {
        memcpy(&x, data, sizeof(x));
        go->x.size_bytes = be64toh(x.size_bytes);
        go->x.flags = be16toh(x.flags);
        go->size_told = true;
    } else if (be16toh(type) == NBD_INFO_BLOCK_SIZE && bytes == sizeof(b)) {
        memcpy(&b, data, sizeof(b));
        go->min_bytes = be32toh(b.min_bytes);
        go->x.preferred_bytes = be32toh(b.preferred_bytes);
        go->x.max_bytes = be32toh(b.max_bytes);
    }
    return 0;       /* what was not asked for may come as well */
}

/* 1: the server has begun to serve the export. */
static int reply_take(struct shake *s, struct go *go)
{
    char data[NBD_STRING_MAX + 1];
    struct nbd_option_reply r;
    uint32_t bytes;
    int rc = shake_receive(s, &r, sizeof(r));

    if (rc)
        return rc;
    bytes = be32toh(r.length_bytes);
    if (be64toh(r.magic) != NBD_OPTION_REPLY_MAGIC || be32toh(r.option) != NBD_OPT_GO ||
        bytes >= sizeof(data))
        return err_set(s->e, EPROTO, "the server's answer to NBD_OPT_GO makes no sense");
    rc = shake_receive(s, data, bytes);
    if (rc)
        return rc;
    data[bytes] = 0;
    if (be32toh(r.type) & NBD_REP_IS_ERROR)
        return refused(s, be32toh(r.type), data);
    if (be32toh(r.type) == NBD_REP_INFO)
        return info_take(s, data, bytes, go);
    return be32toh(r.type) == NBD_REP_ACK ? 1 : 0;
}

static int negotiate(struct shake *s, bool ask_block_size, struct go *go)
{
    int rc = go_send(s, ask_block_size);

    for (unsigned i = 0; !rc && i < REPLIES_MAX; i++)
        rc = reply_take(s, go);
    if (rc < 0)
        return rc;
    if (!rc || !go->size_told)
        return err_set(s->e, EPROTO, "the server does not say how large the export is");
    return 0;
}

static void socket_tune(int fd, int family)
{
    const int one = 1, idle = KEEP_IDLE_S, interval = KEEP_INTERVAL_S, probes = KEEP_PROBES;
    const unsigned gone_ms = (KEEP_IDLE_S + KEEP_PROBES * KEEP_INTERVAL_S) * 1000;

    if (family == AF_UNIX)
        return;
    /* What a kernel does not know is not needed for correctness. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &gone_ms, sizeof(gone_ms));
}

/* A Unix socket whose backlog is full says EAGAIN, and nothing tells when it no longer is. */
static int connect_start(struct shake *s, const struct nbd_address *a)
{
    while (connect(s->fd, (const struct sockaddr *)&a->sa, a->length_bytes)) {
        if (errno != EAGAIN || a->sa.ss_family != AF_UNIX || now_ms() >= s->deadline_ms)
            return errno;
        usleep(FULL_WAIT_US);
    }
    return 0;
}

static int socket_connect(struct shake *s, const struct nbd_address *a)
{
    socklen_t size = sizeof(int);
    int rc, failed;

    s->fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return err_set(s->e, errno, "socket: %s", strerror(errno));
    socket_tune(s->fd, a->sa.ss_family);
    failed = connect_start(s, a);
    if (failed == EINPROGRESS || failed == EINTR) {
        rc = shake_wait(s, POLLOUT);
        if (rc)
            return rc;
        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &failed, &size);
    }
    if (!failed)
        return 0;
    return err_set(s->e, failed, "no connection to the server: %s", strerror(failed));
}

/* Once, to one address. */
static int address_connect(const struct nbd_target *t, const struct nbd_address *a,
                           int timeout_ms, bool ask_block_size, struct go *g, struct err *e)
{
    struct shake s = { .fd = -1, .deadline_ms = now_ms() + timeout_ms, .target = t, .e = e };
    int rc = socket_connect(&s, a);

    *g = (struct go){ .min_bytes = 1 };
    if (!rc)
        rc = greet(&s);
    if (!rc)
        rc = negotiate(&s, ask_block_size, g);
    if (!rc)
        return s.fd;
    if (s.fd >= 0)
        close(s.fd);
    return rc;
}

int nbd_connect(const struct nbd_target *t, int timeout_ms, struct nbd_export *x, struct err *e)
{
    struct go g;
    int fd = -1;

    timeout_ms /= (int)max_of(t->nr_addresses, 1u);
    for (unsigned i = 0; i < t->nr_addresses && fd < 0; i++) {
        uint32_t preferred, max;

        err_clear(e);
        fd = address_connect(t, &t->address[i], timeout_ms, true, &g, e);
        if (fd < 0 || g.min_bytes <= BLK_SECTOR_BYTES)
            continue;
        /* A client that does not ask for block sizes may use any, if the server takes it
         * at all: then joining sectors to blocks is the server's work. */
        nbd_disconnect(fd);
        preferred = g.x.preferred_bytes;
        max = g.x.max_bytes;
        fd = address_connect(t, &t->address[i], timeout_ms, false, &g, e);
        g.x.preferred_bytes = preferred;
        g.x.max_bytes = max;
    }
    if (fd < 0)
        return fd;
    *x = g.x;
    if (!x->max_bytes || x->max_bytes > NBD_PAYLOAD_DEFAULT_BYTES)
        x->max_bytes = NBD_PAYLOAD_DEFAULT_BYTES;
    x->max_bytes = max_of(align_down(x->max_bytes, BLK_SECTOR_BYTES), BLK_SECTOR_BYTES);
    return fd;
}

void nbd_disconnect(int fd)
{
    const struct nbd_request leave = {
        .magic = htobe32(NBD_REQUEST_MAGIC), .type = htobe16(NBD_CMD_DISC),
    };

    if (send(fd, &leave, sizeof(leave), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        /* it learns from the end of the connection */
    }
    close(fd);
}
