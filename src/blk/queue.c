/* SPDX-License-Identifier: MIT */
#include "blk/queue.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/atomic.h"
#include "blk/driver.h"

static int queue_allocate(struct blk_queue *q)
{
    const struct blk_queue_params *p = &q->params;
    bool long_vectors = p->max_iov > BLK_REQ_IOV_INLINE;

    /* Allocations this large come from mmap(): what is not used takes no memory. */
    q->reqs = calloc(p->nr_reqs, sizeof(*q->reqs));
    if (!q->reqs)
        return -ENOMEM;
    if (long_vectors) {
        q->iovs = calloc((size_t)p->nr_reqs * p->max_iov, sizeof(*q->iovs));
        q->iov_free = calloc(p->nr_reqs, sizeof(*q->iov_free));
        if (!q->iovs || !q->iov_free)
            return -ENOMEM;
        for (unsigned i = 0; i < p->nr_reqs; i++)
            q->iov_free[i] = p->nr_reqs - 1 - i;
        q->nr_iov_free = p->nr_reqs;
    }
    for (unsigned i = p->nr_reqs; i-- > 0;) {
        struct blk_req *req = &q->reqs[i];

        req->index = i;
        req->state = BLK_REQ_FREE;
        req->next = q->free;
        q->free = req;
    }
    return 0;
}

static void queue_free(struct blk_queue *q)
{
    free(q->iov_free);
    free(q->iovs);
    free(q->reqs);
    free(q);
}

int blk_queue_open(struct blk_disk *d, const struct blk_queue_params *p,
                   struct blk_queue **out, struct err *e)
{
    struct blk_queue *q;
    int rc;

    if (p->nr_reqs < 1 || p->nr_reqs > BLK_QUEUE_REQS_MAX || p->max_iov < 1 ||
        p->max_iov > BLK_QUEUE_IOV_MAX)
        return err_set(e, EINVAL, "a block queue of %u requests of %u pieces: at most %u and %u",
                       p->nr_reqs, p->max_iov, BLK_QUEUE_REQS_MAX, BLK_QUEUE_IOV_MAX);
    q = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*q), (size_t)CACHE_LINE_BYTES));
    if (!q)
        return err_set(e, ENOMEM, "out of memory");
    memset(q, 0, sizeof(*q));
    q->driver = d->driver;
    q->disk = d;
    q->disk_state = d->state;
    q->params = *p;
    q->done_tail = &q->done_head;
    rc = queue_allocate(q);
    if (rc)
        err_set(e, -rc, "out of memory for a block queue of %u requests", p->nr_reqs);
    else
        rc = q->driver->queue_open(q, &q->queue_state, e);
    if (rc) {
        queue_free(q);
        return rc;
    }
    *out = q;
    return 0;
}

void blk_queue_close(struct blk_queue *q)
{
    if (!q)
        return;
    assert(!q->nr_inflight);
    q->driver->queue_close(q);
    queue_free(q);
}

struct blk_req *blk_req_get(struct blk_queue *q, unsigned nr_iov)
{
    struct blk_req *req = q->free;

    assert(nr_iov <= q->params.max_iov);
    if (!req)
        return NULL;
    q->free = req->next;
    req->state = BLK_REQ_OWNED;
    req->next = NULL;
    req->fua = false;
    req->nr_iov = 0;
    req->offset_bytes = 0;
    req->length_bytes = 0;
    req->result = 0;
    if (nr_iov <= BLK_REQ_IOV_INLINE) {
        req->iov_slot = -1;
        req->iov = req->iov_inline;
    } else {
        /* as many long vectors as requests: never empty here */
        req->iov_slot = (int)q->iov_free[--q->nr_iov_free];
        req->iov = q->iovs + (size_t)req->iov_slot * q->params.max_iov;
    }
    return req;
}

void blk_req_put(struct blk_queue *q, struct blk_req *req)
{
    assert(req->state == BLK_REQ_OWNED);
    if (req->iov_slot >= 0)
        q->iov_free[q->nr_iov_free++] = (unsigned)req->iov_slot;
    req->state = BLK_REQ_FREE;
    req->next = q->free;
    q->free = req;
}

static int req_judge(const struct blk_queue *q, const struct blk_req *req)
{
    const struct blk_props *p = &q->disk->props;
    uint64_t end;

    if (req->op == BLK_OP_FLUSH)
        return p->can_flush ? 0 : -EOPNOTSUPP;
    if ((unsigned)req->op >= BLK_NR_OPS)
        return -EOPNOTSUPP;
    if (!req->length_bytes || (req->offset_bytes | req->length_bytes) % BLK_SECTOR_BYTES ||
        __builtin_add_overflow(req->offset_bytes, req->length_bytes, &end) ||
        end > blk_props_size(p))
        return -EINVAL;
    if (req->op != BLK_OP_READ && p->readonly)
        return -EROFS;
    if (req->op == BLK_OP_DISCARD && !p->can_discard)
        return -EOPNOTSUPP;
    if (req->op == BLK_OP_WRITE_ZEROES && !p->can_write_zeroes)
        return -EOPNOTSUPP;
    return 0;
}

void blk_req_submit(struct blk_queue *q, struct blk_req *req)
{
    int rc;

    assert(req->state == BLK_REQ_OWNED);
    req->state = BLK_REQ_SUBMITTED;
    req->progress_bytes = 0;
    req->step = 0;
    q->nr_inflight++;
    rc = req_judge(q, req);
    if (unlikely(rc)) {
        blk_req_done(q, req, rc);
        return;
    }
    q->driver->submit(q, req);
    if (req->state == BLK_REQ_DONE)
        blk_stat_add(&q->stats.inline_requests, 1);
}

void blk_req_done(struct blk_queue *q, struct blk_req *req, int result)
{
    /* ours: a driver that completes twice would corrupt the guest's data */
    assert(req->state == BLK_REQ_SUBMITTED);
    req->state = BLK_REQ_DONE;
    req->result = result;
    req->next = NULL;
    *q->done_tail = req;
    q->done_tail = &req->next;
    if ((unsigned)req->op < BLK_NR_OPS) {
        blk_stat_add(&q->stats.requests[req->op], 1);
        if (!result && req->op != BLK_OP_FLUSH)
            blk_stat_add(&q->stats.bytes[req->op], req->length_bytes);
    }
    if (result)
        blk_stat_add(&q->stats.errors, 1);
}

void blk_queue_flush(struct blk_queue *q)
{
    q->driver->flush(q);
}

unsigned blk_queue_reap(struct blk_queue *q)
{
    q->driver->poll(q);
    return blk_queue_reap_inline(q);
}

unsigned blk_queue_reap_inline(struct blk_queue *q)
{
    struct blk_req *req;
    unsigned nr = 0;

    /* What complete() submits and is done at once goes to the end of the list:
     * bounded, since complete() submits a request a bounded number of times. */
    while ((req = q->done_head)) {
        q->done_head = req->next;
        if (!q->done_head)
            q->done_tail = &q->done_head;
        req->state = BLK_REQ_OWNED;
        q->nr_inflight--;
        nr++;
        q->params.complete(q->params.arg, req);
    }
    return nr;
}

bool blk_queue_wait(struct blk_queue *q, int64_t timeout_ns)
{
    return q->driver->wait(q, q->done_head ? 0 : timeout_ns);
}

void blk_queue_drain(struct blk_queue *q)
{
    if (q->driver->drain)
        q->driver->drain(q);
}

bool blk_queue_dormant(const struct blk_queue *q)
{
    return q->nr_inflight && q->driver->nr_kept && q->driver->nr_kept(q) == q->nr_inflight;
}

unsigned blk_queue_nr_inflight(const struct blk_queue *q)
{
    return q->nr_inflight;
}

void blk_queue_stats(const struct blk_queue *q, struct blk_stats *out)
{
    for (unsigned i = 0; i < BLK_NR_OPS; i++) {
        out->requests[i] = load_relaxed(&q->stats.requests[i]);
        out->bytes[i] = load_relaxed(&q->stats.bytes[i]);
    }
    out->errors = load_relaxed(&q->stats.errors);
    out->inline_requests = load_relaxed(&q->stats.inline_requests);
}

bool blk_wait_fd(struct blk_queue *q, int64_t timeout_ns)
{
    struct pollfd pfd = { .fd = q->params.wake_fd, .events = POLLIN };
    struct timespec ts = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };

    return ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL) > 0 && (pfd.revents & POLLIN);
}

void blk_req_advance(struct blk_req *req, uint64_t bytes)
{
    while (bytes && bytes >= req->iov->iov_len) {
        bytes -= req->iov->iov_len;
        req->iov++;
        req->nr_iov--;
    }
    if (bytes) {
        req->iov->iov_base = (char *)req->iov->iov_base + bytes;
        req->iov->iov_len -= bytes;
    }
}

void blk_req_zero(struct blk_req *req)
{
    for (unsigned i = 0; i < req->nr_iov; i++)
        memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
}
