/* SPDX-License-Identifier: MIT */
/* A request that comes takes its part of the limits (qos_limit.h) and learns when it may
 * begin.  If that is later, it waits in line, and the owner's wait() ends when it is time.
 *
 * Fairness.  Parts are given in the order in which they are asked for, so a queue that asked
 * for all that waits in it would leave the others behind 128 requests at a time.  Only the
 * first in line asks, and when it begins the next does: queues that have more than they may
 * do take turns.  But a thread wakes late, by some 60 us, and at a high rate the turns that it
 * missed meanwhile would be others'.  So as many ask as cost AHEAD_NS together; what has
 * been asked for is not lost when it begins late, and a queue's share is its requests in the
 * common line, as many for each.
 *
 * The rate.  Nothing is given twice and what was given is used, however late: what passes over
 * any time is what the limits earn in it, and the burst, and not less unless a thread sleeps
 * longer than the burst makes good for, while nobody has asked.  With two limits a request
 * begins when both allow it and both are charged when it asks. */
#include "blk/filter_qos.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "blk/filter.h"
#include "blk/qos_limit.h"

#define AHEAD_NS 200000u

struct qos_options {
    struct qos_rate requests, bytes;
    const char *group;
};

struct qos {
    struct blk_disk *lower;
    struct qos_limits *limits;
};

/* One that waits; those that have asked are before those that have not. */
struct qos_held {
    struct blk_req *req;
    uint64_t begin_ns;
    uint64_t cost_ns;
};

struct qos_queue {
    struct blk_filter_queue f;
    struct qos_limits *limits;
    bool draining;
    uint32_t nr_held_max;               /* a power of two */
    uint32_t first, asked, last;        /* count up; they are slots modulo nr_held_max */
    uint64_t asked_cost_ns;             /* of those in [first, asked) */
    struct qos_held held[];
};

static int group_read(const char *value, void *field)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_.-";

    return value[strspn(value, letters)] ? -EINVAL : blk_option_text(value, field);
}

static int rate_read(const char *value, void *field)
{
    int rc = blk_option_bytes(value, field);

    return rc ? rc : *(uint64_t *)field < 1 || *(uint64_t *)field > QOS_PER_SECOND_MAX ? -ERANGE
                                                                                       : 0;
}

static int count_read(const char *value, void *field)
{
    int rc = blk_option_number(value, field);

    return rc ? rc : *(uint64_t *)field < 1 || *(uint64_t *)field > 10000000 ? -ERANGE : 0;
}

static const struct blk_option qos_options[] = {
    { "iops", offsetof(struct qos_options, requests.per_second), count_read,
      "requests per second, 1 to 10000000" },
    { "iops-burst", offsetof(struct qos_options, requests.burst), count_read,
      "a number of requests, 1 to 10000000" },
    { "bps", offsetof(struct qos_options, bytes.per_second), rate_read,
      "bytes per second such as 50M, 1 to 931G" },
    { "bps-burst", offsetof(struct qos_options, bytes.burst), rate_read,
      "a number of bytes such as 1M, 1 to 931G" },
    { "group", offsetof(struct qos_options, group), group_read,
      "a name of letters, digits and _.-" },
};

static int qos_judge(const void *options, struct err *e)
{
    const struct qos_options *o = options;

    if (!o->requests.per_second && o->requests.burst)
        return err_set(e, EINVAL, "filter=qos: iops-burst= is for iops=, which is missing");
    if (!o->bytes.per_second && o->bytes.burst)
        return err_set(e, EINVAL, "filter=qos: bps-burst= is for bps=, which is missing");
    if (!o->group && !o->requests.per_second && !o->bytes.per_second)
        return err_set(e, EINVAL, "filter=qos: expected iops= or bps= or both");
    return 0;
}

/* Alone it may begin anew: a moment's credit. */
static int qos_judge_apart(const void *options, struct err *e)
{
    const struct qos_options *o = options;

    return o->group ? err_set(e, EOPNOTSUPP, "filter=qos: group=%s is of disks that one process "
                              "serves: it does not go with a process for each", o->group) : 0;
}

static int qos_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                    struct err *e)
{
    const struct qos_options *o = spec->options;
    struct qos *qos = malloc(sizeof(*qos));
    int rc;

    if (!qos)
        return err_set(e, ENOMEM, "out of memory");
    rc = qos_limits_get(spec->qos_groups, o->group, &o->requests, &o->bytes, &qos->limits, e);
    if (rc) {
        free(qos);
        return rc;
    }
    rc = blk_filter_open(spec, &qos->lower, props, e);
    if (rc) {
        qos_limits_put(qos->limits);
        free(qos);
        return rc;
    }
    *state = qos;
    return 0;
}

static void qos_close(void *state)
{
    struct qos *qos = state;

    blk_disk_close(qos->lower);
    qos_limits_put(qos->limits);
    free(qos);
}

static int qos_resize(void *state, uint64_t size_bytes, struct blk_props *props, struct err *e)
{
    struct qos *q = state;

    return blk_filter_resize(q->lower, size_bytes, props, e);
}

static int qos_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    const struct qos *qos = q->disk_state;
    struct qos_queue *qq;
    uint32_t nr = 1;
    int rc;

    while (nr < q->params.nr_reqs)
        nr <<= 1;
    qq = calloc(1, sizeof(*qq) + nr * sizeof(qq->held[0]));
    if (!qq)
        return err_set(e, ENOMEM, "out of memory");
    qq->limits = qos->limits;
    qq->nr_held_max = nr;
    rc = blk_filter_queue_open(&qq->f, q, qos->lower, NULL, e);
    if (rc) {
        free(qq);
        return rc;
    }
    *queue_state = qq;
    return 0;
}

static void qos_queue_close(struct blk_queue *q)
{
    struct qos_queue *qq = q->queue_state;

    blk_filter_queue_close(&qq->f);
    free(qq);
}

static struct qos_held *held_at(struct qos_queue *qq, uint32_t at)
{
    return &qq->held[at & (qq->nr_held_max - 1)];
}

/* The next of those that have not asked does. */
static void ask(struct qos_queue *qq, uint64_t now_ns)
{
    struct qos_held *h = held_at(qq, qq->asked++);
    const struct blk_req *req = h->req;
    bool data = req->op == BLK_OP_READ || req->op == BLK_OP_WRITE;
    struct qos_charge c = qos_charge_of(qq->limits, data ? req->length_bytes : 0);

    h->cost_ns = max_of(c.requests_ns, c.bytes_ns);
    h->begin_ns = qos_limits_take(qq->limits, now_ns, c);
    qq->asked_cost_ns += h->cost_ns;
}

/* Hands down all whose time has come. */
static void release(struct qos_queue *qq)
{
    uint64_t now_ns = loop_now_ns();

    for (;;) {
        struct qos_held *h;

        while (qq->asked != qq->last && (qq->asked == qq->first ||
                                         qq->asked_cost_ns < AHEAD_NS || qq->draining))
            ask(qq, now_ns);
        if (qq->first == qq->last)
            return;
        h = held_at(qq, qq->first);
        if (h->begin_ns > now_ns && !qq->draining)
            return;
        qq->first++;
        qq->asked_cost_ns -= h->cost_ns;
        blk_filter_forward(&qq->f, h->req);
    }
}

static void qos_submit(struct blk_queue *q, struct blk_req *req)
{
    struct qos_queue *qq = q->queue_state;
    bool waiting = qq->first != qq->last;

    held_at(qq, qq->last++)->req = req;
    /* behind others it is poll()'s to see whether it is time */
    if (!waiting || qq->draining)
        release(qq);
}

static void qos_poll(struct blk_queue *q)
{
    struct qos_queue *qq = q->queue_state;

    if (qq->first != qq->last)
        release(qq);
    blk_filter_poll(q);
}

static bool qos_wait(struct blk_queue *q, int64_t timeout_ns)
{
    struct qos_queue *qq = q->queue_state;

    if (qq->first != qq->last)
        timeout_ns = qq->draining ? 0 : blk_filter_timeout(timeout_ns, loop_now_ns(),
                                                           held_at(qq, qq->first)->begin_ns);
    return blk_filter_wait(q, timeout_ns);
}

/* What is let go is charged all the same: the debt is for whoever uses the limits next. */
static void qos_drain(struct blk_queue *q)
{
    struct qos_queue *qq = q->queue_state;

    qq->draining = true;
    blk_filter_drain(q);
}

static unsigned qos_nr_kept(const struct blk_queue *q)
{
    const struct qos_queue *qq = q->queue_state;

    return qq->last - qq->first + blk_filter_nr_kept(q);
}

const struct blk_driver blk_filter_qos = {
    .name = "qos",
    .summary = "limits requests and bytes per second",
    .open = qos_open,
    .close = qos_close,
    .resize = qos_resize,
    .queue_open = qos_queue_open,
    .queue_close = qos_queue_close,
    .submit = qos_submit,
    .flush = blk_filter_flush,
    .poll = qos_poll,
    .wait = qos_wait,
    .drain = qos_drain,
    .nr_kept = qos_nr_kept,
    .options = qos_options,
    .nr_options = array_size(qos_options),
    .options_bytes = sizeof(struct qos_options),
    .judge_apart = qos_judge_apart,
    .options_judge = qos_judge,
};
