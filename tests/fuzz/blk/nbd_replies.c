/* SPDX-License-Identifier: MIT */
/* A server that says anything, to commands of all kinds: in pieces, early, twice, never.  Each
 * request is over once, with what belongs to it, and nothing is written but the vectors of
 * reads that are under way. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blk/nbd_stream.h"

#define NR_REQS   8u
#define NR_PIECES 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
    const uint8_t *at, *end;
    int server_fd;
    struct nbd_stream stream;
    struct blk_req reqs[NR_REQS];
    struct iovec iov[NR_REQS][NR_PIECES];
    bool busy[NR_REQS];
};

static void check(bool holds)
{
    if (!holds)
        abort();
}

static uint8_t take(struct world *w)
{
    return w->at < w->end ? *w->at++ : 0;
}

static void done(void *arg, struct blk_req *req, uint32_t nbd_error)
{
    struct world *w = arg;

    check(req->index < NR_REQS && req == &w->reqs[req->index] && w->busy[req->index]);
    w->busy[req->index] = false;
    for (unsigned i = 0; i < req->nr_iov; i++)
        free(req->iov[i].iov_base);
}

static void server_new(struct world *w)
{
    int pair[2];

    check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
    w->server_fd = pair[1];
    nbd_stream_restart(&w->stream, pair[0]);
}

static void server_lost(struct world *w)
{
    close(w->server_fd);
    nbd_stream_lose(&w->stream);
    check(nbd_stream_idle(&w->stream));
}

static void judge(struct world *w, int rc)
{
    check(rc <= 0);
    if (rc) {
        server_lost(w);
        server_new(w);
    }
}

/* Each piece is memory of its own, whose ends the sanitizer knows. */
static void submit(struct world *w)
{
    struct blk_req *req = &w->reqs[take(w) % NR_REQS];
    uint16_t type = take(w) % (NBD_CMD_WRITE_ZEROES + 1u);
    uint32_t bytes = 0;

    if (w->busy[req->index])
        return;
    req->iov = w->iov[req->index];
    req->nr_iov = 1 + take(w) % NR_PIECES;
    for (unsigned i = 0; i < req->nr_iov; i++) {
        size_t n = 1 + take(w) * 64u;

        req->iov[i] = (struct iovec){ calloc(1, n), n };
        check(req->iov[i].iov_base);
        bytes += (uint32_t)n;
    }
    w->busy[req->index] = true;
    nbd_stream_add(&w->stream, req, type, 0, 0, bytes);
}

static void commands_read(struct world *w)
{
    char trash[4096];

    while (recv(w->server_fd, trash, sizeof(trash), 0) > 0)
        ;
}

static void say(struct world *w, const void *data, size_t bytes)
{
    if (send(w->server_fd, data, bytes, MSG_NOSIGNAL) < 0)
        check(errno == EAGAIN || errno == EPIPE);
}

/* The right reply to a request, or one that is wrong in one place. */
static void reply(struct world *w, bool wrong)
{
    static const uint8_t payload[256 * 64 * NR_PIECES];
    const struct nbd_slot *slot = &w->stream.slots[take(w) % NR_REQS];
    struct nbd_simple_reply r = {
        htobe32(NBD_SIMPLE_REPLY_MAGIC), htobe32(take(w) % 4 ? 0 : take(w)),
        slot->message.cookie,
    };

    if (wrong)
        ((uint8_t *)&r)[take(w) % sizeof(r)] ^= 1u << take(w) % 8;
    say(w, &r, sizeof(r));
    if (!r.error && !slot->is_write)
        say(w, payload, slot->payload_bytes);
}

static void raw(struct world *w)
{
    size_t n = min_of((size_t)take(w), (size_t)(w->end - w->at));

    say(w, w->at, n);
    w->at += n;
}

static void step(struct world *w)
{
    switch (take(w) % 8) {
    case 0:
    case 1:
        submit(w);
        break;
    case 2:
        judge(w, nbd_stream_send(&w->stream));
        commands_read(w);
        break;
    case 3:
        reply(w, false);
        break;
    case 4:
        reply(w, true);
        break;
    case 5:
        raw(w);
        break;
    case 6:
        judge(w, nbd_stream_receive(&w->stream));
        break;
    default:
        shutdown(w->server_fd, SHUT_WR);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *w = calloc(1, sizeof(*w));

    check(w);
    w->at = data;
    w->end = data + size;
    for (unsigned i = 0; i < NR_REQS; i++)
        w->reqs[i].index = i;
    check(!nbd_stream_open(&w->stream, w->reqs, NR_REQS, done, w));
    server_new(w);
    while (w->at < w->end)
        step(w);
    server_lost(w);
    for (unsigned i = 0; i < NR_REQS; i++) {
        check(w->busy[i] == (w->stream.slots[i].state != NBD_SLOT_IDLE));
        if (w->busy[i])
            nbd_stream_fail(&w->stream, &w->reqs[i], NBD_EIO);
        check(!w->busy[i]);
    }
    nbd_stream_close(&w->stream);
    free(w);
    return 0;
}
