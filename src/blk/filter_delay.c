/* SPDX-License-Identifier: MIT */
/* A request that comes is kept until its time, then goes down.  Those kept lie in a heap, the
 * next one on top, and among equals the one that came first. */
#include "blk/filter_delay.h"

#include <errno.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "base/loop.h"
#include "blk/filter.h"

struct delay_options {
    uint64_t time_ns, up_to_ns;
    uint64_t seed;
    uint64_t ops;               /* a mask; 0: all of them */
};

struct delay {
    struct blk_disk *lower;
    struct delay_options options;
    uint64_t nr_queues;         /* opened so far: each has random times of its own */
};

struct delay_entry {
    uint64_t until_ns, order;
    struct blk_req *req;
};

struct delay_queue {
    struct blk_filter_queue f;
    const struct delay_options *options;
    bool draining;
    uint64_t random, order;
    unsigned nr;
    struct delay_entry heap[];
};

static const struct blk_option delay_options[] = {
    { "time", offsetof(struct delay_options, time_ns), blk_option_time_ns,
      "a time such as 5ms" },
    { "up-to", offsetof(struct delay_options, up_to_ns), blk_option_time_ns,
      "a time such as 9ms" },
    { "seed", offsetof(struct delay_options, seed), blk_option_number, "a number" },
    { "op", offsetof(struct delay_options, ops), blk_option_ops, BLK_OPTION_OPS_EXPECTED },
};

static int delay_judge(const void *options, struct err *e)
{
    const struct delay_options *o = options;

    if (o->up_to_ns ? o->up_to_ns < o->time_ns : !o->time_ns)
        return err_set(e, EINVAL, "filter=delay: expected time=, or up-to= that is no less"
                       " than time=");
    return 0;
}

static int delay_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                      struct err *e)
{
    struct delay *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return err_set(e, ENOMEM, "out of memory");
    d->options = *(const struct delay_options *)spec->options;
    rc = blk_filter_open(spec, &d->lower, props, e);
    if (rc) {
        free(d);
        return rc;
    }
    props->prompt = false;
    *state = d;
    return 0;
}

static void delay_close(void *state)
{
    struct delay *d = state;

    blk_disk_close(d->lower);
    free(d);
}

static int delay_resize(void *state, uint64_t size_bytes, struct blk_props *props, struct err *e)
{
    struct delay *d = state;

    return blk_filter_resize(d->lower, size_bytes, props, e);
}

static int delay_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct delay *d = q->disk_state;
    struct delay_queue *dq = calloc(1, sizeof(*dq) + q->params.nr_reqs * sizeof(dq->heap[0]));
    int rc;

    if (!dq)
        return err_set(e, ENOMEM, "out of memory");
    dq->options = &d->options;
    /* never 0, from which the generator would not move */
    dq->random = (d->options.seed + fetch_add(&d->nr_queues, 1) + 1) * 0x9e3779b97f4a7c15u | 1;
    rc = blk_filter_queue_open(&dq->f, q, d->lower, NULL, e);
    if (rc) {
        free(dq);
        return rc;
    }
    *queue_state = dq;
    return 0;
}

static void delay_queue_close(struct blk_queue *q)
{
    struct delay_queue *dq = q->queue_state;

    blk_filter_queue_close(&dq->f);
    free(dq);
}

/* ---- the heap ---- */

static bool before(const struct delay_entry *a, const struct delay_entry *b)
{
    return a->until_ns < b->until_ns || (a->until_ns == b->until_ns && a->order < b->order);
}

static void heap_put(struct delay_queue *dq, struct delay_entry entry)
{
    unsigned at = dq->nr++;

    for (; at && before(&entry, &dq->heap[(at - 1) / 2]); at = (at - 1) / 2)
        dq->heap[at] = dq->heap[(at - 1) / 2];
    dq->heap[at] = entry;
}

static struct blk_req *heap_take(struct delay_queue *dq)
{
    struct blk_req *req = dq->heap[0].req;
    struct delay_entry last = dq->heap[--dq->nr];
    unsigned at = 0, child;

    while ((child = 2 * at + 1) < dq->nr) {
        if (child + 1 < dq->nr && before(&dq->heap[child + 1], &dq->heap[child]))
            child++;
        if (!before(&dq->heap[child], &last))
            break;
        dq->heap[at] = dq->heap[child];
        at = child;
    }
    dq->heap[at] = last;
    return req;
}

/* ---- requests ---- */

static uint64_t delay_ns(struct delay_queue *dq)
{
    const struct delay_options *o = dq->options;

    if (o->up_to_ns <= o->time_ns)
        return o->time_ns;
    dq->random ^= dq->random << 13;
    dq->random ^= dq->random >> 7;
    dq->random ^= dq->random << 17;
    return o->time_ns + dq->random % (o->up_to_ns - o->time_ns + 1);
}

static void delay_submit(struct blk_queue *q, struct blk_req *req)
{
    struct delay_queue *dq = q->queue_state;

    if (dq->draining || (dq->options->ops && !(dq->options->ops & 1ull << req->op)))
        blk_filter_forward(&dq->f, req);
    else
        heap_put(dq, (struct delay_entry){ loop_now_ns() + delay_ns(dq), dq->order++, req });
}

static void delay_poll(struct blk_queue *q)
{
    struct delay_queue *dq = q->queue_state;
    uint64_t now_ns = dq->nr ? loop_now_ns() : 0;

    while (dq->nr && (dq->draining || dq->heap[0].until_ns <= now_ns))
        blk_filter_forward(&dq->f, heap_take(dq));
    blk_filter_poll(q);
}

static bool delay_wait(struct blk_queue *q, int64_t timeout_ns)
{
    struct delay_queue *dq = q->queue_state;

    if (dq->nr)
        timeout_ns = dq->draining ? 0 : blk_filter_timeout(timeout_ns, loop_now_ns(),
                                                           dq->heap[0].until_ns);
    return blk_filter_wait(q, timeout_ns);
}

static void delay_drain(struct blk_queue *q)
{
    struct delay_queue *dq = q->queue_state;

    dq->draining = true;
    blk_filter_drain(q);
}

static unsigned delay_nr_kept(const struct blk_queue *q)
{
    const struct delay_queue *dq = q->queue_state;

    return dq->nr + blk_filter_nr_kept(q);
}

const struct blk_driver blk_filter_delay = {
    .name = "delay",
    .summary = "keeps each request for a time",
    .open = delay_open,
    .close = delay_close,
    .resize = delay_resize,
    .queue_open = delay_queue_open,
    .queue_close = delay_queue_close,
    .submit = delay_submit,
    .flush = blk_filter_flush,
    .poll = delay_poll,
    .wait = delay_wait,
    .drain = delay_drain,
    .nr_kept = delay_nr_kept,
    .options = delay_options,
    .nr_options = array_size(delay_options),
    .options_bytes = sizeof(struct delay_options),
    .judge_apart = blk_filter_apart,
    .options_judge = delay_judge,
};
