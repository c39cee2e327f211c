/* SPDX-License-Identifier: MIT */
/* An NBD server that does what a test tells it, in a thread: right or wrong. */
#ifndef NBD_FAKE_H
#define NBD_FAKE_H

#include <endian.h>
#include <pthread.h>

#include "blk/nbd_wire.h"
#include "nbd_test.h"

#define FAKE_BYTES (1 * MIB)

/* What it does to the first commands of a connection, before it is as it should be. */
enum fake_fault {
    FAKE_GOOD,
    FAKE_BAD_MAGIC,             /* of the reply */
    FAKE_BAD_COOKIE,
    FAKE_WILD_INDEX,
    FAKE_TWICE,                 /* the same reply again */
    FAKE_HANG_UP,
    FAKE_HALF_REPLY,            /* hangs up within a reply */
    FAKE_HALF_PAYLOAD,          /* ... within a read's payload */
    FAKE_SHUTDOWN,              /* says that it is going, then does */
    FAKE_ERROR,                 /* says `error' */
    FAKE_SILENT,                /* takes everything and answers nothing */
    FAKE_NR_FAULTS,
};

struct fake {
    char path[64];
    char uri[128];
    int listen_fd;
    pthread_t thread;
    uint16_t flags;             /* of the export */
    uint64_t size_bytes;
    uint32_t max_bytes, min_bytes;
    enum fake_fault fault;
    uint32_t error;
    unsigned nr_faulty;         /* connections that have the fault; the later ones are good */
    const char *greeting;       /* sent in place of the handshake, then nothing more */
    uint32_t refuse;            /* the reply to NBD_OPT_GO, if not 0 */

    unsigned nr_connections;
    unsigned nr_commands;
    uint16_t type[64], cmd_flags[64];
    uint32_t length[64];
    uint8_t *data;
};

static inline bool fake_recv(int fd, void *to, size_t bytes)
{
    return recv(fd, to, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static inline void fake_send(int fd, const void *from, size_t bytes)
{
    const char *at = from;

    while (bytes) {
        ssize_t n = send(fd, at, bytes, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        at += n;
        bytes -= (size_t)n;
    }
}

static inline void fake_option_reply(int fd, uint32_t type, const void *data, uint32_t bytes)
{
    struct nbd_option_reply r = {
        htobe64(NBD_OPTION_REPLY_MAGIC), htobe32(NBD_OPT_GO), htobe32(type), htobe32(bytes),
    };

    fake_send(fd, &r, sizeof(r));
    fake_send(fd, data, bytes);
}

static inline bool fake_handshake(struct fake *f, int fd)
{
    struct nbd_greeting g = {
        htobe64(NBD_INIT_MAGIC), htobe64(NBD_OPTION_MAGIC),
        htobe16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
    };
    struct nbd_info_export x = { 0, htobe64(f->size_bytes), htobe16(f->flags) };
    struct nbd_info_block_size b = {
        htobe16(NBD_INFO_BLOCK_SIZE), htobe32(f->min_bytes), htobe32(4096), htobe32(f->max_bytes),
    };
    struct nbd_option o;
    uint8_t rest[8192];
    uint32_t client;
    bool asked;

    if (f->greeting) {
        fake_send(fd, f->greeting, strlen(f->greeting));
        return false;
    }
    fake_send(fd, &g, sizeof(g));
    if (!fake_recv(fd, &client, 4) || !fake_recv(fd, &o, sizeof(o)) ||
        be32toh(o.length_bytes) > sizeof(rest) || !fake_recv(fd, rest, be32toh(o.length_bytes)))
        return false;
    asked = rest[be32toh(o.length_bytes) - 1] == NBD_INFO_BLOCK_SIZE;
    if (f->refuse) {
        fake_option_reply(fd, f->refuse, "no\x1b[2J", 6);
        return false;
    }
    fake_option_reply(fd, NBD_REP_INFO, &x, sizeof(x));
    if (asked && f->max_bytes)
        fake_option_reply(fd, NBD_REP_INFO, &b, sizeof(b));
    fake_option_reply(fd, NBD_REP_ACK, NULL, 0);
    return true;
}

/* False: the connection is over. */
static inline bool fake_command(struct fake *f, int fd, enum fake_fault fault)
{
    struct nbd_request c;
    struct nbd_simple_reply r = { .magic = htobe32(NBD_SIMPLE_REPLY_MAGIC) };
    uint32_t length, at;
    uint16_t type;
    uint8_t *to;

    if (!fake_recv(fd, &c, sizeof(c)) || be16toh(c.type) == NBD_CMD_DISC)
        return false;
    type = be16toh(c.type);
    length = be32toh(c.length_bytes);
    at = (uint32_t)be64toh(c.offset_bytes);
    to = f->data + at;
    if (f->nr_commands < array_size(f->type)) {
        f->type[f->nr_commands] = type;
        f->cmd_flags[f->nr_commands] = be16toh(c.flags);
        f->length[f->nr_commands++] = length;
    }
    if (type == NBD_CMD_WRITE && !fake_recv(fd, to, length))
        return false;
    if (type == NBD_CMD_WRITE_ZEROES || type == NBD_CMD_TRIM)
        memset(to, 0, length);
    r.cookie = c.cookie;
    if (fault == FAKE_HANG_UP)
        return false;
    if (fault == FAKE_BAD_MAGIC)
        r.magic ^= 1;
    if (fault == FAKE_BAD_COOKIE)
        r.cookie ^= 1;
    if (fault == FAKE_WILD_INDEX)
        r.cookie = ~0ull;
    if (fault == FAKE_SHUTDOWN)
        r.error = htobe32(NBD_ESHUTDOWN);
    if (fault == FAKE_ERROR)
        r.error = htobe32(f->error);
    if (fault == FAKE_SILENT)
        return true;
    fake_send(fd, &r, fault == FAKE_HALF_REPLY ? 7 : sizeof(r));
    if (type == NBD_CMD_READ && !r.error)
        fake_send(fd, to, fault == FAKE_HALF_PAYLOAD ? length / 2 : length);
    if (fault == FAKE_TWICE)
        fake_send(fd, &r, sizeof(r));
    return fault == FAKE_GOOD || fault == FAKE_ERROR || fault == FAKE_BAD_MAGIC ||
           fault == FAKE_BAD_COOKIE || fault == FAKE_WILD_INDEX || fault == FAKE_TWICE;
}

static inline void *fake_main(void *arg)
{
    struct fake *f = arg;
    int fd;

    while ((fd = accept(f->listen_fd, NULL, NULL)) >= 0) {
        enum fake_fault fault = f->nr_connections++ < f->nr_faulty ? f->fault : FAKE_GOOD;

        if (fake_handshake(f, fd))
            while (fake_command(f, fd, fault))
                ;
        close(fd);
    }
    return NULL;
}

static inline void fake_bind(struct fake *f, int backlog)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    snprintf(un.sun_path, sizeof(un.sun_path), "%s", f->path);
    unlink(f->path);
    f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(f->listen_fd, backlog), 0);
}

static inline void fake_listen(struct fake *f)
{
    fake_bind(f, 16);
    assert_int_equal(pthread_create(&f->thread, NULL, fake_main, f), 0);
}

/* With everything an export can have; the test changes it before fake_listen(). */
static inline void fake_init(struct fake *f)
{
    struct nbd_program name;

    nbd_program_name(&name);
    *f = (struct fake){
        .flags = 1 | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
                 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN,
        .size_bytes = FAKE_BYTES, .data = calloc(1, FAKE_BYTES),
    };
    snprintf(f->path, sizeof(f->path), "%s", name.socket);
    snprintf(f->uri, sizeof(f->uri), "%s", name.uri);
    assert_non_null(f->data);
}

/* Nobody may be connected. */
static inline void fake_end(struct fake *f)
{
    shutdown(f->listen_fd, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->listen_fd);
    unlink(f->path);
    free(f->data);
}

#endif
