/* SPDX-License-Identifier: MIT */
/* Each sector has a checksum of what was written to it and a word that says what that is worth:
 *
 *   KNOWN       the checksum is that of the last write, which nothing overlapped
 *   writers     how many changes of the sector are under way
 *   CONFLICT    two of them met: which one came last is the medium's to know
 *   stamp       which change of the disk was the last to end here
 *
 * A read is judged by sectors whose last change had ended when the read began, and that nobody
 * changes before it ends; so a difference is a fault of what is below, whatever else the
 * guest writes at the same time.  That it changes memory while that is written is its right:
 * then what the sectors hold is not known, but for a change that it has undone when the write
 * ends.  That, and changing what a read has brought before it is answered, looks like a fault.
 * Before the first write nothing is known either.
 *
 * It costs memory, 1/32 of what was written, and time.  It is for tests. */
#include "blk/filter_verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "blk/filter.h"

#define KNOWN        1ull
#define CONFLICT     2ull
#define WRITER       4ull
#define WRITERS_MASK (((1ull << 20) - 1) * WRITER)
#define STAMP_SHIFT  22

struct verify_sector { uint64_t word, sum; };

struct verify {
    struct blk_disk *lower;
    struct verify_sector *sector;
    size_t sector_bytes;
    cacheline_aligned uint64_t stamp;       /* counts changes that have ended */
};

/* What is remembered of a request: reads, the stamp at the start; writes, their checksum. */
struct verify_queue {
    struct blk_filter_queue f;
    struct verify *verify;
    uint64_t began[];
};

static int verify_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                       struct err *e)
{
    struct verify *v = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*v),
                                                                (size_t)CACHE_LINE_BYTES));
    int rc;

    if (!v)
        return err_set(e, ENOMEM, "out of memory");
    memset(v, 0, sizeof(*v));
    rc = blk_filter_open(spec, &v->lower, props, e);
    if (rc) {
        free(v);
        return rc;
    }
    v->sector_bytes = blk_props_nr_sectors(props) * sizeof(*v->sector);
    v->sector = mmap(NULL, v->sector_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (v->sector == MAP_FAILED) {
        rc = err_set(e, errno, "no room for checksums: %s", strerror(errno));
        blk_disk_close(v->lower);
        free(v);
        return rc;
    }
    *state = v;
    return 0;
}

static void verify_close(void *state)
{
    struct verify *v = state;

    munmap(v->sector, v->sector_bytes);
    blk_disk_close(v->lower);
    free(v);
}

/* ---- checksums ---- */

static uint64_t sum_add(uint64_t sum, const uint8_t *bytes)
{
    for (unsigned i = 0; i < BLK_SECTOR_BYTES; i += sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, bytes + i, sizeof(word));
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 29;
    }
    return sum;
}

/* Goes through a vector by sectors, which may lie across pieces. */
struct verify_cursor {
    const struct iovec *iov;
    size_t done;                /* of *iov */
    uint8_t sector[BLK_SECTOR_BYTES];
};

static const uint8_t *cursor_next(struct verify_cursor *c)
{
    size_t have = 0;

    while (c->done == c->iov->iov_len) {
        c->iov++;
        c->done = 0;
    }
    if (c->iov->iov_len - c->done >= BLK_SECTOR_BYTES) {
        c->done += BLK_SECTOR_BYTES;
        return (const uint8_t *)c->iov->iov_base + c->done - BLK_SECTOR_BYTES;
    }
    while (have < BLK_SECTOR_BYTES) {
        size_t n = min_of(c->iov->iov_len - c->done, BLK_SECTOR_BYTES - have);

        memcpy(c->sector + have, (const uint8_t *)c->iov->iov_base + c->done, n);
        have += n;
        c->done += n;
        if (c->done == c->iov->iov_len && have < BLK_SECTOR_BYTES) {
            c->iov++;
            c->done = 0;
        }
    }
    return c->sector;
}

/* Of the sectors' sums, which go to those as well if there are any. */
static uint64_t sum_of_all(const struct blk_req *req, struct verify_sector *s)
{
    struct verify_cursor c = { .iov = req->iov };
    uint64_t all = 1;

    for (uint64_t i = 0; i < req->length_bytes / BLK_SECTOR_BYTES; i++) {
        uint64_t sum = sum_add(0, cursor_next(&c));

        if (s)
            store_release(&s[i].sum, sum);      /* pairs with the fence in differs() */
        all = (all ^ sum) * 0x9e3779b97f4a7c15u;
        all ^= all >> 29;
    }
    return all;
}

/* ---- sectors ---- */

static struct verify_sector *first_sector(const struct verify *v, const struct blk_req *req)
{
    return v->sector + (req->offset_bytes >> BLK_SECTOR_SHIFT);
}

static void change_begins(struct verify_sector *s)
{
    uint64_t word = load_relaxed(&s->word), next;

    do {
        next = ((word & ~KNOWN) | (word & WRITERS_MASK ? CONFLICT : 0)) + WRITER;
    } while (!__atomic_compare_exchange_n(&s->word, &word, next, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
}

/* known: the sum is there.  Whoever is alone in a sector has put it there itself. */
static void change_ends(struct verify_sector *s, uint64_t stamp, bool known)
{
    uint64_t word = load_acquire(&s->word), next;

    do {
        next = (word & (WRITERS_MASK | CONFLICT)) - WRITER;
        if (!(next & WRITERS_MASK)) {
            if (known && !(next & CONFLICT))
                next |= KNOWN;
            next &= ~CONFLICT;
        }
        next |= stamp << STAMP_SHIFT;
    } while (!__atomic_compare_exchange_n(&s->word, &word, next, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
}

static bool differs(struct verify_sector *s, uint64_t began, uint64_t sum)
{
    uint64_t word = load_acquire(&s->word), written;

    if (!(word & KNOWN) || word >> STAMP_SHIFT >= began)
        return false;
    written = load_relaxed(&s->sum);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);    /* pairs with sum_of_all() */
    return load_relaxed(&s->word) == word && written != sum;
}

/* ---- requests ---- */

static int read_judge(const struct verify *v, const struct blk_req *req, uint64_t began)
{
    struct verify_cursor c = { .iov = req->iov };
    struct verify_sector *s = first_sector(v, req);
    uint64_t nr = req->length_bytes / BLK_SECTOR_BYTES;

    for (uint64_t i = 0; i < nr; i++)
        if (differs(&s[i], began, sum_add(0, cursor_next(&c))))
            return -EILSEQ;
    return 0;
}

/* Puts the sums of a change that is done where they belong, from one look at memory that is the
 * guest's.  False: they need not be those of what the medium got. */
static bool sums_put(struct verify_sector *s, const struct blk_req *req, uint64_t began)
{
    static const uint8_t zeroes[BLK_SECTOR_BYTES];
    const uint64_t sum = sum_add(0, zeroes);

    if (req->op == BLK_OP_WRITE)
        return sum_of_all(req, s) == began;
    if (req->op != BLK_OP_WRITE_ZEROES)
        return false;
    for (uint64_t i = 0; i < req->length_bytes / BLK_SECTOR_BYTES; i++)
        store_release(&s[i].sum, sum);
    return true;
}

static void change_finish(struct verify *v, const struct blk_req *req, int result, uint64_t began)
{
    struct verify_sector *s = first_sector(v, req);
    bool known = !result && sums_put(s, req, began);
    uint64_t stamp = fetch_add(&v->stamp, 1), nr = req->length_bytes / BLK_SECTOR_BYTES;

    for (uint64_t i = 0; i < nr; i++)
        change_ends(&s[i], stamp, known);
}

static void verify_complete(void *filter, struct blk_req *lower)
{
    struct verify_queue *vq = filter;
    struct blk_req *req = vq->f.upper[lower->index];
    uint64_t began = vq->began[lower->index];
    int result = lower->result;

    if (req->op == BLK_OP_READ && !result)
        result = read_judge(vq->verify, req, began);
    else if (req->op != BLK_OP_READ && req->op != BLK_OP_FLUSH)
        change_finish(vq->verify, req, result, began);
    blk_req_put(vq->f.lower, lower);
    blk_req_done(vq->f.queue, req, result);
}

static void verify_submit(struct blk_queue *q, struct blk_req *req)
{
    struct verify_queue *vq = q->queue_state;
    struct verify *v = vq->verify;
    struct blk_req *lower = blk_filter_lower_copy(&vq->f, req);

    if (req->op == BLK_OP_READ) {
        vq->began[lower->index] = load_acquire(&v->stamp);
    } else if (req->op != BLK_OP_FLUSH) {
        struct verify_sector *s = first_sector(v, req);

        for (uint64_t i = 0; i < req->length_bytes / BLK_SECTOR_BYTES; i++)
            change_begins(&s[i]);
        vq->began[lower->index] = req->op == BLK_OP_WRITE ? sum_of_all(req, NULL) : 0;
    }
    blk_filter_submit(&vq->f, lower);
}

static int verify_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct verify *v = q->disk_state;
    struct verify_queue *vq = calloc(1, sizeof(*vq) + q->params.nr_reqs * sizeof(vq->began[0]));
    int rc;

    if (!vq)
        return err_set(e, ENOMEM, "out of memory");
    vq->verify = v;
    rc = blk_filter_queue_open(&vq->f, q, v->lower, verify_complete, e);
    if (rc) {
        free(vq);
        return rc;
    }
    *queue_state = vq;
    return 0;
}

static void verify_queue_close(struct blk_queue *q)
{
    struct verify_queue *vq = q->queue_state;

    blk_filter_queue_close(&vq->f);
    free(vq);
}

const struct blk_driver blk_filter_verify = {
    .name = "verify",
    .summary = "compares what is read with checksums of what was written, for tests",
    .open = verify_open,
    .close = verify_close,
    .queue_open = verify_queue_open,
    .queue_close = verify_queue_close,
    .submit = verify_submit,
    .flush = blk_filter_flush,
    .poll = blk_filter_poll,
    .wait = blk_filter_wait,
    .drain = blk_filter_drain,
    .nr_kept = blk_filter_nr_kept,
};
