/* SPDX-License-Identifier: MIT */
/* A server that says anything while shaking hands.  What comes of it is a connection to an
 * export that the driver can have, or an error whose words harm no terminal. */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "blk/disk.h"
#include "blk/nbd_connect.h"

#define TIMEOUT_MS 10000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    const uint8_t *at, *end;
    int listen_fd, fd;
    pthread_t server;
};

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void take(struct world *w, void *to, size_t bytes)
{
    size_t n = min_of(bytes, (size_t)(w->end - w->at));

    memset(to, 0, bytes);
    memcpy(to, w->at, n);
    w->at += n;
}

static uint8_t take_byte(struct world *w)
{
    uint8_t byte;

    take(w, &byte, sizeof(byte));
    return byte;
}

static void say(struct world *w, const void *data, size_t bytes)
{
    if (send(w->fd, data, bytes, MSG_NOSIGNAL) < 0)
        check(errno == EPIPE || errno == ECONNRESET);
}

static void option_reply(struct world *w, uint32_t type, const void *data, uint32_t bytes)
{
    const struct nbd_option_reply r = {
        htobe64(NBD_OPTION_REPLY_MAGIC), htobe32(NBD_OPT_GO), htobe32(type), htobe32(bytes),
    };

    say(w, &r, sizeof(r));
    say(w, data, bytes);
}

static void reply(struct world *w)
{
    struct nbd_option_reply r = { htobe64(NBD_OPTION_REPLY_MAGIC), htobe32(NBD_OPT_GO), 0, 0 };
    struct nbd_info_block_size block;
    struct nbd_info_export export;
    uint8_t any[255], what = take_byte(w) % 8, bytes;

    switch (what) {
    case 0:
        take(w, &export, sizeof(export));
        export.type = htobe16(NBD_INFO_EXPORT);
        option_reply(w, NBD_REP_INFO, &export, sizeof(export));
        break;
    case 1:
        take(w, &block, sizeof(block));
        block.type = htobe16(NBD_INFO_BLOCK_SIZE);
        option_reply(w, NBD_REP_INFO, &block, sizeof(block));
        break;
    case 2:
        option_reply(w, NBD_REP_ACK, NULL, 0);
        break;
    case 3:         /* of any type and length, which need not be true */
        take(w, &r.type, sizeof(r.type) + sizeof(r.length_bytes));
        say(w, &r, sizeof(r));
        break;
    default:
        bytes = take_byte(w);
        take(w, any, bytes);
        if (what == 4)
            option_reply(w, NBD_REP_IS_ERROR | take_byte(w) % 12, any, bytes);
        else if (what == 5)
            option_reply(w, NBD_REP_INFO, any, bytes);
        else
            say(w, any, bytes);
    }
}

static void serve_one(struct world *w)
{
    struct nbd_greeting g = {
        htobe64(NBD_INIT_MAGIC), htobe64(NBD_OPTION_MAGIC),
        htobe16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
    };
    uint8_t nr_replies = take_byte(w);
    char trash[8192];

    if (nr_replies & 0x80)
        take(w, (char *)&g + take_byte(w) % sizeof(g), 1);
    say(w, &g, sizeof(g));
    for (unsigned i = 0; i < (nr_replies & 0x7fu) && w->at < w->end; i++)
        reply(w);
    shutdown(w->fd, SHUT_WR);
    while (recv(w->fd, trash, sizeof(trash), 0) > 0)
        ;
}

static void *server_main(void *arg)
{
    struct world *w = arg;

    while ((w->fd = accept(w->listen_fd, NULL, NULL)) >= 0) {
        serve_one(w);
        close(w->fd);
    }
    return NULL;
}

/* At a name of the kernel's choice. */
static void server_start(struct world *w, struct nbd_target *t)
{
    struct nbd_address *a = &t->address[0];

    t->nr_addresses = 1;
    a->sa.ss_family = AF_UNIX;
    w->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(w->listen_fd >= 0);
    check(!bind(w->listen_fd, (struct sockaddr *)&a->sa, sizeof(sa_family_t)));
    a->length_bytes = sizeof(a->sa);
    check(!getsockname(w->listen_fd, (struct sockaddr *)&a->sa, &a->length_bytes));
    check(!listen(w->listen_fd, 4));
    check(!pthread_create(&w->server, NULL, server_main, w));
}

static void judge_export(const struct nbd_export *x)
{
    check(x->max_bytes >= BLK_SECTOR_BYTES && x->max_bytes <= NBD_PAYLOAD_DEFAULT_BYTES);
    check(x->max_bytes % BLK_SECTOR_BYTES == 0);
}

static void judge_error(int rc, const struct err *e)
{
    char text[sizeof(e->text)];

    check(rc < 0 && e->code == -rc && e->text[0]);
    memcpy(text, e->text, sizeof(text));
    text_make_harmless(text);
    for (const char *c = e->text; *c; c++)      /* a character may have been cut in two */
        check((unsigned char)*c >= 0x80 || *c == text[c - e->text]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = { .at = data, .end = data + size };
    struct nbd_target t = { .export = "disk" };
    struct nbd_export x;
    struct err e = { 0 };
    int fd;

    server_start(&w, &t);
    fd = nbd_connect(&t, TIMEOUT_MS, &x, &e);
    if (fd >= 0) {
        judge_export(&x);
        nbd_disconnect(fd);
    } else {
        judge_error(fd, &e);
    }
    shutdown(w.listen_fd, SHUT_RDWR);
    pthread_join(w.server, NULL);
    close(w.listen_fd);
    return 0;
}
