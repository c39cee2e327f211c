/* SPDX-License-Identifier: MIT */
#include "blk/filter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int blk_filter_open(const struct blk_spec *spec, struct blk_disk **lower,
                    struct blk_props *props, struct err *e)
{
    int rc = blk_disk_open(spec, lower, e);

    if (!rc)
        *props = *blk_disk_props(*lower);
    return rc;
}

int blk_filter_resize(struct blk_disk *lower, uint64_t size_bytes, struct blk_props *props,
                      struct err *e)
{
    int rc = blk_disk_resize(lower, size_bytes, e);

    if (rc)
        return rc;
    props->physical_block_bytes = blk_disk_props(lower)->physical_block_bytes;
    blk_props_size_set(props, blk_props_size(blk_disk_props(lower)));
    return 0;
}

int blk_filter_queue_open(struct blk_filter_queue *f, struct blk_queue *q, struct blk_disk *lower,
                          void (*complete)(void *f, struct blk_req *lower), struct err *e)
{
    return blk_filter_queue_open_fd(f, q, lower, q->params.wake_fd, complete, e);
}

int blk_filter_queue_open_fd(struct blk_filter_queue *f, struct blk_queue *q,
                             struct blk_disk *lower, int wake_fd,
                             void (*complete)(void *f, struct blk_req *lower), struct err *e)
{
    /* long vectors that nobody uses, since requests go down over those above, take no memory */
    const struct blk_queue_params p = {
        .nr_reqs = q->params.nr_reqs, .max_iov = q->params.max_iov, .wake_fd = wake_fd,
        .complete = complete ? complete : blk_filter_complete, .arg = f,
    };
    int rc;

    f->queue = q;
    f->upper = calloc(p.nr_reqs, sizeof(*f->upper));
    if (!f->upper)
        return err_set(e, ENOMEM, "out of memory for a block queue of %u requests", p.nr_reqs);
    rc = blk_queue_open(lower, &p, &f->lower, e);
    if (rc)
        free(f->upper);
    return rc;
}

void blk_filter_queue_close(struct blk_filter_queue *f)
{
    blk_queue_close(f->lower);
    free(f->upper);
}

/* There is one: they are as many as those above. */
static struct blk_req *lower_get(struct blk_filter_queue *f, struct blk_req *req, unsigned nr_iov)
{
    struct blk_req *lower = blk_req_get(f->lower, nr_iov);

    lower->op = req->op;
    lower->fua = req->fua;
    lower->nr_iov = req->nr_iov;
    lower->offset_bytes = req->offset_bytes;
    lower->length_bytes = req->length_bytes;
    f->upper[lower->index] = req;
    return lower;
}

struct blk_req *blk_filter_lower(struct blk_filter_queue *f, struct blk_req *req)
{
    struct blk_req *lower = lower_get(f, req, 0);

    lower->iov = req->iov;
    return lower;
}

struct blk_req *blk_filter_lower_copy(struct blk_filter_queue *f, struct blk_req *req)
{
    struct blk_req *lower = lower_get(f, req, req->nr_iov);

    memcpy(lower->iov, req->iov, req->nr_iov * sizeof(*req->iov));
    return lower;
}

void blk_filter_submit(struct blk_filter_queue *f, struct blk_req *lower)
{
    blk_req_submit(f->lower, lower);
    if (f->lower->done_head)
        blk_queue_reap_inline(f->lower);
}

void blk_filter_forward(struct blk_filter_queue *f, struct blk_req *req)
{
    blk_filter_submit(f, blk_filter_lower(f, req));
}

void blk_filter_complete(void *filter, struct blk_req *lower)
{
    struct blk_filter_queue *f = filter;
    struct blk_req *req = f->upper[lower->index];
    int result = lower->result;

    blk_req_put(f->lower, lower);
    blk_req_done(f->queue, req, result);
}

void blk_filter_flush(struct blk_queue *q)
{
    struct blk_filter_queue *f = q->queue_state;

    blk_queue_flush(f->lower);
}

void blk_filter_poll(struct blk_queue *q)
{
    struct blk_filter_queue *f = q->queue_state;

    blk_queue_reap(f->lower);
}

bool blk_filter_wait(struct blk_queue *q, int64_t timeout_ns)
{
    struct blk_filter_queue *f = q->queue_state;

    return blk_queue_wait(f->lower, timeout_ns);
}

void blk_filter_drain(struct blk_queue *q)
{
    struct blk_filter_queue *f = q->queue_state;

    blk_queue_drain(f->lower);
}

unsigned blk_filter_nr_kept(const struct blk_queue *q)
{
    const struct blk_filter_queue *f = q->queue_state;
    const struct blk_driver *below = f->lower->driver;

    return below->nr_kept ? below->nr_kept(f->lower) : 0;
}

int64_t blk_filter_timeout(int64_t timeout_ns, uint64_t now_ns, uint64_t then_ns)
{
    int64_t left = then_ns > now_ns ? (int64_t)(then_ns - now_ns) : 0;

    return timeout_ns < 0 ? left : min_of(timeout_ns, left);
}

int blk_filter_apart(const void *options, struct err *e)
{
    return 0;
}
