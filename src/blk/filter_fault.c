/* SPDX-License-Identifier: MIT */
/* Each rule that is given must hold for a request to fail, in this order: its operation, its
 * sectors, then its number among those that these let through: the N-th, each N-th, or, for a
 * rate, whether a hash of seed and number lies below it.  So the same session meets the
 * same faults each time.  Requests are numbered for all queues of a disk together. */
#include "blk/filter_fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/num.h"
#include "blk/filter.h"

#define RATE_ONE  1000000000u   /* a certain fault */
#define HANG      1             /* in the place of a negative errno */

struct fault_options {
    uint64_t ops;               /* a mask; 0: all of them */
    uint64_t first_sector, end_sector;      /* end 0: not given */
    uint64_t nth, every, count; /* 0: not given */
    uint64_t rate;              /* of RATE_ONE; 0: not given */
    uint64_t seed;
    int64_t error;              /* -errno or HANG; 0: not given */
};

struct fault {
    struct blk_disk *lower;
    struct fault_options options;
    cacheline_aligned uint64_t nr_seen;
    uint64_t nr_failed;
};

struct fault_queue {
    struct blk_filter_queue f;
    struct fault *fault;
    struct blk_req *hung;
    unsigned nr_hung;
    bool draining;
};

static int above_zero_read(const char *value, void *field)
{
    return num_parse_u64(value, 1, UINT64_MAX, field);
}

/* FIRST-LAST or one sector; the two fields follow each other. */
static int sectors_read(const char *value, void *field)
{
    const uint64_t max = UINT64_MAX >> BLK_SECTOR_SHIFT;
    uint64_t *sector = field;
    const char *dash = strchr(value, '-');
    char first[24];

    if (!dash) {
        int rc = num_parse_u64(value, 0, max - 1, &sector[0]);

        sector[1] = sector[0] + 1;
        return rc;
    }
    if ((size_t)(dash - value) >= sizeof(first))
        return -EINVAL;
    memcpy(first, value, (size_t)(dash - value));
    first[dash - value] = 0;
    if (num_parse_u64(first, 0, max - 1, &sector[0]) ||
        num_parse_u64(dash + 1, sector[0], max - 1, &sector[1]))
        return -EINVAL;
    sector[1]++;
    return 0;
}

/* Per cent, with up to seven digits behind a point. */
static int rate_read(const char *value, void *field)
{
    uint64_t *rate = field, unit = RATE_ONE / 100;
    size_t whole = strspn(value, "0123456789"), i = whole;

    *rate = 0;
    for (size_t digit = 0; digit < whole && *rate <= RATE_ONE; digit++)
        *rate = *rate * 10 + (uint64_t)(value[digit] - '0') * unit;
    if (whole && value[i] == '.')
        for (i++; value[i] >= '0' && value[i] <= '9' && unit > 1; i++)
            *rate += (uint64_t)(value[i] - '0') * (unit /= 10);
    return whole && !strcmp(value + i, "%") && *rate && *rate <= RATE_ONE ? 0 : -EINVAL;
}

static int error_read(const char *value, void *field)
{
    static const struct { const char *name; int64_t error; } errors[] = {
        { "EIO", -EIO }, { "ENOSPC", -ENOSPC }, { "ETIMEDOUT", -ETIMEDOUT }, { "EAGAIN", -EAGAIN },
        { "ENOMEM", -ENOMEM }, { "EOPNOTSUPP", -EOPNOTSUPP }, { "EROFS", -EROFS },
        { "ENOLINK", -ENOLINK }, { "EREMOTEIO", -EREMOTEIO }, { "EILSEQ", -EILSEQ },
        { "hang", HANG },
    };

    for (unsigned i = 0; i < array_size(errors); i++) {
        if (!strcmp(value, errors[i].name)) {
            *(int64_t *)field = errors[i].error;
            return 0;
        }
    }
    return -EINVAL;
}

static const struct blk_option fault_options[] = {
    { "op", offsetof(struct fault_options, ops), blk_option_ops, BLK_OPTION_OPS_EXPECTED },
    { "sectors", offsetof(struct fault_options, first_sector), sectors_read,
      "a sector of 512 bytes, or two with - between them, the last one included" },
    { "nth", offsetof(struct fault_options, nth), above_zero_read, "a number from 1 on" },
    { "every", offsetof(struct fault_options, every), above_zero_read, "a number from 1 on" },
    { "rate", offsetof(struct fault_options, rate), rate_read,
      "a percentage such as 2.5%, up to 100%" },
    { "seed", offsetof(struct fault_options, seed), blk_option_number, "a number" },
    { "count", offsetof(struct fault_options, count), above_zero_read, "a number from 1 on" },
    { "error", offsetof(struct fault_options, error), error_read,
      "hang, EIO, ENOSPC, ETIMEDOUT, EAGAIN, ENOMEM, EOPNOTSUPP, EROFS, ENOLINK, EREMOTEIO or"
      " EILSEQ" },
};

static int fault_judge(const void *options, struct err *e)
{
    const struct fault_options *o = options;

    if (!!o->nth + !!o->every + !!o->rate > 1)
        return err_set(e, EINVAL, "filter=fault: expected one of nth=, every= and rate=");
    if (o->seed && !o->rate)
        return err_set(e, EINVAL, "filter=fault: seed= is for rate=, which is missing");
    return 0;
}

static int fault_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                      struct err *e)
{
    struct fault *fault = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*fault),
                                        (size_t)CACHE_LINE_BYTES));
    int rc;

    if (!fault)
        return err_set(e, ENOMEM, "out of memory");
    memset(fault, 0, sizeof(*fault));
    fault->options = *(const struct fault_options *)spec->options;
    if (!fault->options.error)
        fault->options.error = -EIO;
    rc = blk_filter_open(spec, &fault->lower, props, e);
    if (rc) {
        free(fault);
        return rc;
    }
    *state = fault;
    return 0;
}

static void fault_close(void *state)
{
    struct fault *fault = state;

    blk_disk_close(fault->lower);
    free(fault);
}

static int fault_resize(void *state, uint64_t size_bytes, struct blk_props *props, struct err *e)
{
    struct fault *f = state;

    return blk_filter_resize(f->lower, size_bytes, props, e);
}

static int fault_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct fault *fault = q->disk_state;
    struct fault_queue *fq = calloc(1, sizeof(*fq));
    int rc;

    if (!fq)
        return err_set(e, ENOMEM, "out of memory");
    fq->fault = fault;
    rc = blk_filter_queue_open(&fq->f, q, fault->lower, NULL, e);
    if (rc) {
        free(fq);
        return rc;
    }
    *queue_state = fq;
    return 0;
}

static void fault_queue_close(struct blk_queue *q)
{
    struct fault_queue *fq = q->queue_state;

    blk_filter_queue_close(&fq->f);
    free(fq);
}

static uint64_t hash(uint64_t seed, uint64_t n)
{
    uint64_t h = (seed + 1) * 0x9e3779b97f4a7c15u + n;

    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return h ^ h >> 31;
}

static bool is_to_fail(struct fault *fault, const struct blk_req *req)
{
    const struct fault_options *o = &fault->options;
    uint64_t n;

    if (o->ops && !(o->ops & 1ull << req->op))
        return false;
    if (o->end_sector) {
        uint64_t first = req->offset_bytes >> BLK_SECTOR_SHIFT;
        uint64_t end = first + (req->length_bytes >> BLK_SECTOR_SHIFT);

        if (req->op == BLK_OP_FLUSH || first >= o->end_sector || end <= o->first_sector)
            return false;
    }
    n = __atomic_add_fetch(&fault->nr_seen, 1, __ATOMIC_RELAXED);
    if ((o->nth && n != o->nth) || (o->every && n % o->every) ||
        (o->rate && hash(o->seed, n) % RATE_ONE >= o->rate))
        return false;
    return !o->count || __atomic_add_fetch(&fault->nr_failed, 1, __ATOMIC_RELAXED) <= o->count;
}

static void fault_submit(struct blk_queue *q, struct blk_req *req)
{
    struct fault_queue *fq = q->queue_state;
    int64_t error = fq->fault->options.error;

    if (likely(!is_to_fail(fq->fault, req))) {
        blk_filter_forward(&fq->f, req);
    } else if (error != HANG) {
        blk_req_done(q, req, (int)error);
    } else if (fq->draining) {
        blk_req_done(q, req, -EIO);
    } else {
        req->next = fq->hung;
        fq->hung = req;
        fq->nr_hung++;
    }
}

static void fault_drain(struct blk_queue *q)
{
    struct fault_queue *fq = q->queue_state;
    struct blk_req *req;

    fq->draining = true;
    while ((req = fq->hung)) {
        fq->hung = req->next;
        fq->nr_hung--;
        blk_req_done(q, req, -EIO);
    }
    blk_filter_drain(q);
}

static unsigned fault_nr_kept(const struct blk_queue *q)
{
    const struct fault_queue *fq = q->queue_state;

    return fq->nr_hung + blk_filter_nr_kept(q);
}

const struct blk_driver blk_filter_fault = {
    .name = "fault",
    .summary = "lets requests fail or hang, for tests",
    .open = fault_open,
    .close = fault_close,
    .resize = fault_resize,
    .queue_open = fault_queue_open,
    .queue_close = fault_queue_close,
    .submit = fault_submit,
    .flush = blk_filter_flush,
    .poll = blk_filter_poll,
    .wait = blk_filter_wait,
    .drain = fault_drain,
    .nr_kept = fault_nr_kept,
    .options = fault_options,
    .nr_options = array_size(fault_options),
    .options_bytes = sizeof(struct fault_options),
    .judge_apart = blk_filter_apart,
    .options_judge = fault_judge,
};
