/* SPDX-License-Identifier: MIT */
/* Each queue has a queue of the base and one of the overlay's file (cow_overlay.h).
 *
 * A read goes in runs of sectors that are in one of the two, one run after the other; most are
 * one run.  A write goes to the overlay, and when it is done there its sectors are marked; a
 * bit for each sector means that nothing ever has to be copied up from the base, so no request
 * waits for another's.
 *
 * A flush makes the bits durable too, in passes: take the dirty blocks of the bitmap and keep
 * copies of them; flush the overlay, by which all data that the copies speak of are on the
 * medium; write the copies; again, until a pass took nothing: its flush was that of the
 * bits.  Blocks are taken in ascending order, each once, so it ends however much others write.
 * One queue of a disk at a time does that, since an older copy of a block must not be
 * written over a newer one; the others look again after RETRY_NS.  What waits at one queue is
 * done by the same passes.  A write with FUA is a flush after its data, unless its bits are
 * durable already. */
#include "blk/filter_cow.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/loop.h"
#include "blk/cow_overlay.h"
#include "blk/filter.h"

#define PASS_BLOCKS 64u
#define RETRY_NS    200000u

struct cow_options { const char *path; };

struct cow {
    struct blk_disk *base;
    struct cow_overlay overlay;
    bool flushing;                  /* a queue writes the bitmap */
};

/* What an overlay's request is a step of: blk_req.step of the one above. */
enum cow_step { COW_DATA, COW_FLUSH, COW_BITMAP };

struct cow_queue {
    struct blk_filter_queue base;
    struct blk_filter_queue overlay;
    struct cow *cow;
    int ready_fd;                   /* the overlay's queue has completions */
    int wait_fd;                    /* epoll: that, and the owner's wake_fd */

    struct blk_req *waiting, **waiting_tail;    /* flushes that have not begun */
    uint64_t retry_ns;              /* when to try, 0: at once */
    struct blk_req *flushes;        /* those that are done by the passes under way */
    uint32_t next_block;
    unsigned nr_taken, nr_written;  /* blocks of this pass */
    uint32_t taken[PASS_BLOCKS];
    unsigned nr_unflushed;          /* blocks of the pass before, until this one's flush ended */
    uint32_t unflushed[PASS_BLOCKS];
    uint8_t *copies;
};

static const struct blk_option cow_options[] = {
    { "file", offsetof(struct cow_options, path), blk_option_text,
      "the path of an overlay, which is made if it is not there", .takes_rest = true },
};

static int cow_judge(const void *options, struct err *e)
{
    const struct cow_options *o = options;

    if (!o->path || *o->path != '/')
        return err_set(e, EINVAL, "filter=cow: expected file= with the absolute path of an"
                       " overlay");
    return 0;
}

/* ---- disk ---- */

static void props_join(struct blk_props *props, const struct blk_spec *spec,
                       const struct blk_props *overlay)
{
    props->readonly = spec->readonly;
    props->can_flush = true;
    props->can_discard = overlay->can_discard && !spec->no_discard && !spec->readonly;
    props->can_write_zeroes = overlay->can_write_zeroes && !spec->readonly;
    props->discard_granularity_bytes = overlay->discard_granularity_bytes;
    props->discard_alignment_bytes = 0;
    props->prompt = props->prompt && overlay->prompt;
    props->block_device = false;
}

static int cow_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                    struct err *e)
{
    const struct cow_options *o = spec->options;
    struct blk_spec below = *spec;
    struct cow *cow = calloc(1, sizeof(*cow));
    int rc;

    if (!cow)
        return err_set(e, ENOMEM, "out of memory");
    below.readonly = true;
    below.shared_write = false;
    rc = blk_filter_open(&below, &cow->base, props, e);
    if (rc) {
        free(cow);
        return rc;
    }
    rc = cow_overlay_open(o->path, props->size_bytes, spec->readonly, spec->no_direct,
                          &cow->overlay, e);
    if (rc) {
        blk_disk_close(cow->base);
        free(cow);
        return rc;
    }
    props_join(props, spec, blk_disk_props(cow->overlay.disk));
    *state = cow;
    return 0;
}

static void cow_close(void *state)
{
    struct cow *cow = state;

    cow_overlay_close(&cow->overlay);
    blk_disk_close(cow->base);
    free(cow);
}

/* ---- reads ---- */

/* The first bytes of req's vector; all of it: itself.  Which of the two, in *lower. */
static struct blk_req *front_get(struct blk_filter_queue *f, struct blk_req *req, uint64_t bytes)
{
    struct blk_req *lower;
    uint64_t left = bytes;
    unsigned nr = 0;

    if (bytes == req->length_bytes - req->progress_bytes) {
        lower = blk_filter_lower(f, req);
    } else {
        while (left > req->iov[nr].iov_len)
            left -= req->iov[nr++].iov_len;
        lower = blk_req_get(f->lower, nr + 1);
        memcpy(lower->iov, req->iov, (nr + 1) * sizeof(*lower->iov));
        lower->iov[nr].iov_len = left;
        lower->nr_iov = nr + 1;
        lower->op = req->op;
        f->upper[lower->index] = req;
        blk_req_advance(req, bytes);
    }
    lower->offset_bytes = req->offset_bytes + req->progress_bytes;
    lower->length_bytes = bytes;
    return lower;
}

static void read_next(struct cow_queue *cq, struct blk_req *req)
{
    const struct cow_overlay *o = &cq->cow->overlay;
    uint64_t first = (req->offset_bytes + req->progress_bytes) >> BLK_SECTOR_SHIFT;
    uint64_t left = (req->length_bytes - req->progress_bytes) >> BLK_SECTOR_SHIFT;
    bool here;
    uint64_t nr = cow_overlay_run(o, first, left, &here);
    struct blk_filter_queue *f = here ? &cq->overlay : &cq->base;
    struct blk_req *lower = front_get(f, req, nr << BLK_SECTOR_SHIFT);

    if (here)
        lower->offset_bytes += o->data_offset_bytes;
    blk_req_submit(f->lower, lower);
}

static void read_done(struct cow_queue *cq, struct blk_req *req, uint64_t bytes, int result)
{
    req->progress_bytes += bytes;
    if (result || req->progress_bytes == req->length_bytes)
        blk_req_done(cq->base.queue, req, result);
    else
        read_next(cq, req);
}

/* ---- flushes ---- */

static void flush_pass(struct cow_queue *cq);

/* Those that wait begin, if no other queue is at it. */
static void flush_begin(struct cow_queue *cq)
{
    if (cq->flushes || !cq->waiting)
        return;
    /* pairs with flush_end(): the bitmap is as the last one left it */
    if (__atomic_exchange_n(&cq->cow->flushing, true, __ATOMIC_ACQ_REL)) {
        cq->retry_ns = loop_now_ns() + RETRY_NS;
        return;
    }
    cq->flushes = cq->waiting;
    cq->waiting = NULL;
    cq->waiting_tail = &cq->waiting;
    cq->next_block = 0;
    cq->nr_taken = 0;
    flush_pass(cq);
}

static void flush_add(struct cow_queue *cq, struct blk_req *req)
{
    req->next = NULL;
    *cq->waiting_tail = req;
    cq->waiting_tail = &req->next;
    flush_begin(cq);
}

static void flush_end(struct cow_queue *cq, int result)
{
    struct blk_req *req;

    while (cq->nr_written < cq->nr_taken)
        cow_overlay_set_dirty(&cq->cow->overlay, cq->taken[cq->nr_written++]);
    while (cq->nr_unflushed)
        cow_overlay_set_dirty(&cq->cow->overlay, cq->unflushed[--cq->nr_unflushed]);
    store_release(&cq->cow->flushing, false);
    while ((req = cq->flushes)) {
        cq->flushes = req->next;
        blk_req_done(cq->base.queue, req, result);
    }
    flush_begin(cq);
}

/* A step of the flushes under way, in the name of the first of them. */
static struct blk_req *flush_step(struct cow_queue *cq, enum cow_step step)
{
    struct blk_req *lower = blk_req_get(cq->overlay.lower, 1);

    cq->flushes->step = step;
    cq->overlay.upper[lower->index] = cq->flushes;
    return lower;
}

static void flush_pass(struct cow_queue *cq)
{
    struct cow_overlay *o = &cq->cow->overlay;
    struct blk_req *lower = flush_step(cq, COW_FLUSH);

    memcpy(cq->unflushed, cq->taken, cq->nr_taken * sizeof(*cq->taken));
    cq->nr_unflushed = cq->nr_taken;
    cq->nr_taken = cq->nr_written = 0;
    while (cq->nr_taken < PASS_BLOCKS && cq->next_block < o->nr_blocks) {
        uint32_t block = cow_overlay_take_dirty(o, cq->next_block, cq->copies +
                                                cq->nr_taken * (size_t)COW_BLOCK_BYTES);

        cq->next_block = block + 1;
        if (block < o->nr_blocks)
            cq->taken[cq->nr_taken++] = block;
    }
    lower->op = BLK_OP_FLUSH;
    blk_req_submit(cq->overlay.lower, lower);
}

/* The next copies that lie side by side in the file. */
static void bitmap_write(struct cow_queue *cq)
{
    const struct cow_overlay *o = &cq->cow->overlay;
    struct blk_req *lower = flush_step(cq, COW_BITMAP);
    unsigned first = cq->nr_written, nr = 1;

    while (first + nr < cq->nr_taken && cq->taken[first + nr] == cq->taken[first] + nr)
        nr++;
    lower->op = BLK_OP_WRITE;
    lower->offset_bytes = o->bitmap_offset_bytes + cq->taken[first] * (uint64_t)COW_BLOCK_BYTES;
    lower->length_bytes = nr * (uint64_t)COW_BLOCK_BYTES;
    lower->iov[0] = (struct iovec){ cq->copies + first * (size_t)COW_BLOCK_BYTES,
                                    lower->length_bytes };
    lower->nr_iov = 1;
    blk_req_submit(cq->overlay.lower, lower);
}

static void flush_step_done(struct cow_queue *cq, enum cow_step step, uint64_t bytes, int result)
{
    if (!result && step == COW_FLUSH)
        cq->nr_unflushed = 0;
    if (result || (step == COW_FLUSH && !cq->nr_taken)) {
        flush_end(cq, result);
        return;
    }
    if (step == COW_BITMAP)
        cq->nr_written += (unsigned)(bytes / COW_BLOCK_BYTES);
    if (cq->nr_written < cq->nr_taken)
        bitmap_write(cq);
    else
        flush_pass(cq);
}

/* ---- changes ---- */

static void change_submit(struct cow_queue *cq, struct blk_req *req)
{
    struct blk_req *lower = blk_filter_lower(&cq->overlay, req);

    lower->offset_bytes += cq->cow->overlay.data_offset_bytes;
    blk_req_submit(cq->overlay.lower, lower);
}

static void change_done(struct cow_queue *cq, struct blk_req *req, int result)
{
    struct cow_overlay *o = &cq->cow->overlay;
    uint64_t first = req->offset_bytes >> BLK_SECTOR_SHIFT;
    uint64_t nr = req->length_bytes >> BLK_SECTOR_SHIFT;

    if (!result)
        cow_overlay_mark(o, first, nr);
    /* in this order: a flush that begins in between takes them along */
    if (!result && req->op == BLK_OP_WRITE && req->fua &&
        (cow_overlay_is_dirty(o, first, nr) || load_acquire(&cq->cow->flushing)))
        flush_add(cq, req);
    else
        blk_req_done(cq->base.queue, req, result);
}

/* ---- queue ---- */

static void base_complete(void *f, struct blk_req *lower)
{
    struct cow_queue *cq = container_of(f, struct cow_queue, base);
    struct blk_req *req = cq->base.upper[lower->index];
    uint64_t bytes = lower->length_bytes;
    int result = lower->result;

    blk_req_put(cq->base.lower, lower);
    read_done(cq, req, bytes, result);
}

static void overlay_complete(void *f, struct blk_req *lower)
{
    struct cow_queue *cq = container_of(f, struct cow_queue, overlay);
    struct blk_req *req = cq->overlay.upper[lower->index];
    uint64_t bytes = lower->length_bytes;
    int result = lower->result;

    blk_req_put(cq->overlay.lower, lower);
    if (req->step != COW_DATA)
        flush_step_done(cq, (enum cow_step)req->step, bytes, result);
    else if (req->op == BLK_OP_READ)
        read_done(cq, req, bytes, result);
    else
        change_done(cq, req, result);
}

/* What was answered at once may have led to more in either queue. */
static void settle(struct cow_queue *cq)
{
    while (cq->base.lower->done_head || cq->overlay.lower->done_head) {
        blk_queue_reap_inline(cq->base.lower);
        blk_queue_reap_inline(cq->overlay.lower);
    }
}

static void cow_submit(struct blk_queue *q, struct blk_req *req)
{
    struct cow_queue *cq = q->queue_state;

    if (req->op == BLK_OP_READ)
        read_next(cq, req);
    else if (req->op == BLK_OP_FLUSH)
        flush_add(cq, req);
    else
        change_submit(cq, req);
    settle(cq);
}

static void cow_flush(struct blk_queue *q)
{
    struct cow_queue *cq = q->queue_state;

    blk_queue_flush(cq->base.lower);
    blk_queue_flush(cq->overlay.lower);
}

static void cow_poll(struct blk_queue *q)
{
    struct cow_queue *cq = q->queue_state;

    if (unlikely(cq->waiting && !cq->flushes && loop_now_ns() >= cq->retry_ns))
        flush_begin(cq);
    blk_queue_reap(cq->base.lower);
    blk_queue_reap(cq->overlay.lower);
    settle(cq);
    cow_flush(q);
}

static bool cow_wait(struct blk_queue *q, int64_t timeout_ns)
{
    struct cow_queue *cq = q->queue_state;
    struct pollfd fds[] = { { .fd = q->params.wake_fd, .events = POLLIN },
                            { .fd = cq->ready_fd, .events = POLLIN } };
    eventfd_t n;

    if (cq->waiting && !cq->flushes)
        timeout_ns = blk_filter_timeout(timeout_ns, loop_now_ns(), cq->retry_ns);
    blk_queue_flush(cq->overlay.lower);
    if (!blk_queue_wait(cq->base.lower, timeout_ns) || poll(fds, 2, 0) <= 0)
        return false;
    /* the completions are found by the poll() that follows */
    if (fds[1].revents && eventfd_read(cq->ready_fd, &n))
        return false;
    return fds[0].revents & POLLIN;
}

static void cow_drain(struct blk_queue *q)
{
    struct cow_queue *cq = q->queue_state;

    blk_queue_drain(cq->base.lower);
    blk_queue_drain(cq->overlay.lower);
}

static int watch_open(struct cow_queue *cq, const struct blk_queue *q, struct err *e)
{
    struct epoll_event in = { .events = EPOLLIN };
    int rc = cq->overlay.lower->driver->ready_fd(cq->overlay.lower);

    if (rc < 0)
        return err_set(e, -rc, "%s", strerror(-rc));
    cq->ready_fd = rc;
    if (epoll_ctl(cq->wait_fd, EPOLL_CTL_ADD, cq->ready_fd, &in) ||
        (q->params.wake_fd >= 0 && epoll_ctl(cq->wait_fd, EPOLL_CTL_ADD, q->params.wake_fd, &in)))
        return err_set(e, errno, "%s", strerror(errno));
    return 0;
}

static void cow_queue_free(struct cow_queue *cq)
{
    if (cq->overlay.lower)
        blk_filter_queue_close(&cq->overlay);
    if (cq->base.lower)
        blk_filter_queue_close(&cq->base);
    if (cq->wait_fd >= 0)
        close(cq->wait_fd);
    free(cq->copies);
    free(cq);
}

static int cow_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct cow *cow = q->disk_state;
    struct cow_queue *cq = calloc(1, sizeof(*cq));
    int rc;

    if (!cq)
        return err_set(e, ENOMEM, "out of memory");
    cq->cow = cow;
    cq->waiting_tail = &cq->waiting;
    cq->wait_fd = epoll_create1(EPOLL_CLOEXEC);
    /* aligned as O_DIRECT wants it */
    cq->copies = aligned_alloc(PAGE_SIZE, PASS_BLOCKS * (size_t)COW_BLOCK_BYTES);
    if (cq->wait_fd < 0 || !cq->copies)
        rc = err_set(e, errno, "%s", strerror(errno));
    else
        rc = blk_filter_queue_open_fd(&cq->base, q, cow->base, cq->wait_fd, base_complete, e);
    if (!rc)
        rc = blk_filter_queue_open_fd(&cq->overlay, q, cow->overlay.disk, -1, overlay_complete,
                                      e);
    if (!rc)
        rc = watch_open(cq, q, e);
    if (rc) {
        cow_queue_free(cq);
        return rc;
    }
    *queue_state = cq;
    return 0;
}

static void cow_queue_close(struct blk_queue *q)
{
    cow_queue_free(q->queue_state);
}

const struct blk_driver blk_filter_cow = {
    .name = "cow",
    .summary = "writes to an overlay, so that the disk below stays as it is",
    .open = cow_open,
    .close = cow_close,
    .queue_open = cow_queue_open,
    .queue_close = cow_queue_close,
    .submit = cow_submit,
    .flush = cow_flush,
    .poll = cow_poll,
    .wait = cow_wait,
    .drain = cow_drain,
    .nr_kept = blk_filter_nr_kept,
    .options = cow_options,
    .nr_options = array_size(cow_options),
    .options_bytes = sizeof(struct cow_options),
    .options_judge = cow_judge,
};
