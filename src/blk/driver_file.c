/* SPDX-License-Identifier: MIT */
/* The hot half of the file driver: one io_uring per queue, used by one thread.
 *
 * A read or write takes one of two ways.  Inline: preadv2()/pwritev2() from
 * submit(), complete when it returns.  Ring: an SQE, handed over by flush(), its
 * CQE taken by poll().  Which:
 *   - O_DIRECT: always the ring; memory that is not aligned through a buffer
 *     (file_bounce.h).
 *   - tmpfs, ramfs: always inline.  They do not support RWF_NOWAIT, so io_uring
 *     hands every request to a worker thread, yet nothing in them waits.
 *     (4 KiB, depth 32, kernel 6.18: inline 1.1 us a read, ring 1.9; writes 1.3
 *     and 2.7; at depth 1 the ring takes twice that again.)
 *   - the page cache: inline with RWF_NOWAIT while that hits (0.88 us against
 *     0.94 in the ring); a miss (EAGAIN) costs a wasted system call, so the next
 *     attempts are skipped, 1, 3, 7 ... 255 of them, and a hit halves that.  A
 *     file system that knows no RWF_NOWAIT (EOPNOTSUPP; ext4 for writes) is
 *     never asked again.
 * Each way may do less than was asked; the rest goes through the ring.  A short
 * read that ends at the file's end inside the disk's last sector is completed
 * with zeroes; elsewhere the file has been cut under us: -EIO.  So gets a write that
 * ends behind the disk's end, because the disk has become smaller since it was judged.
 *
 * wait() sleeps for completions and wake_fd in one io_uring_enter(): a one-shot
 * POLL_ADD on wake_fd stays armed in the ring until it fires.
 */
#include "blk/driver_file.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "blk/driver.h"
#include "blk/file_bounce.h"
#include "blk/file_image.h"

/* SQEs live until the next flush only; a fuller batch is flushed in between. */
#define FILE_SQ_ENTRIES  128u
#define FILE_CQE_BATCH   32u
#define FILE_SKIP_MAX    255u
/* -EAGAIN and -EINTR for one request, before they count as its result */
#define FILE_RETRIES_MAX 16u

/* Whether to try RWF_NOWAIT first, for one direction. */
struct file_nowait {
    bool never;
    unsigned skip;      /* attempts still to be skipped */
    unsigned penalty;   /* what the next miss makes of it */
};

struct file_queue {
    struct io_uring ring;
    struct file_image *img;
    struct file_nowait read, write;
    struct file_bounce bounce;
    bool wake_armed;
    bool wake_ready;
    int ready_fd;       /* -1: nobody has asked for it */
};

enum file_io { FILE_IO_DONE, FILE_IO_MORE };

static int file_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                     struct err *e)
{
    struct file_image *img = malloc(sizeof(*img));
    int rc;

    if (!img)
        return err_set(e, ENOMEM, "out of memory");
    rc = file_image_open(spec, img, props, e);
    if (rc) {
        free(img);
        return rc;
    }
    *state = img;
    return 0;
}

static void file_close(void *state)
{
    struct file_image *img = state;

    file_image_close(img);
    free(img);
}

static int file_share(void *state)
{
    const struct file_image *img = state;

    return img->fd;
}

static int file_resize(void *state, uint64_t size_bytes, struct blk_props *props, struct err *e)
{
    return file_image_resize(state, size_bytes, props, e);
}

/* more: flags besides. */
static int ring_create(struct io_uring *ring, unsigned nr_reqs, unsigned more)
{
    /* Newest first; a kernel that does not know a flag answers EINVAL.  All of
     * them keep completions from interrupting the thread: it asks for them. */
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        0,
    };
    int rc = -EINVAL;

    for (unsigned i = 0; i < array_size(flags) && rc == -EINVAL; i++) {
        /* one completion for each request, one for wake_fd */
        struct io_uring_params p = {
            .flags = flags[i] | more | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
            .cq_entries = max_of(nr_reqs + 1, FILE_SQ_ENTRIES),
        };

        rc = io_uring_queue_init_params(min_of(nr_reqs + 1, FILE_SQ_ENTRIES), ring, &p);
    }
    return rc;
}

/* For a process that is confined: a ring could do much of what its system calls cannot, such as
 * opening files.  From now on it does what is in this file and no more.  The ring has been made
 * disabled. */
static int ring_restrict(struct io_uring *ring)
{
    static const uint8_t ops[] = {
        IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_FSYNC,
        IORING_OP_FALLOCATE, IORING_OP_POLL_ADD, IORING_OP_TIMEOUT,
    };
    struct io_uring_restriction r[array_size(ops) + 1] = {
        { .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_FIXED_FILE },
    };

    for (unsigned i = 0; i < array_size(ops); i++) {
        r[i + 1].opcode = IORING_RESTRICTION_SQE_OP;
        r[i + 1].sqe_op = ops[i];
    }
    /* by number: Debian 12's shared liburing has no names for them */
    if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, r,
                array_size(r)) < 0 ||
        syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
        return -errno;
    return 0;
}

static int file_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct file_image *img = q->disk_state;
    const int files[] = { img->fd, img->keep_fd };
    struct file_queue *fq = calloc(1, sizeof(*fq));
    bool restricted;
    int rc;

    if (!fq)
        return err_set(e, ENOMEM, "out of memory");
    fq->img = img;
    fq->ready_fd = -1;
    rc = -EINVAL;
    if (img->handed)
        rc = ring_create(&fq->ring, q->params.nr_reqs, IORING_SETUP_R_DISABLED);
    restricted = !rc;
    if (rc == -EINVAL)      /* before Linux 5.10, none can be made so */
        rc = ring_create(&fq->ring, q->params.nr_reqs, 0);
    if (rc) {
        free(fq);
        return err_set(e, -rc, "io_uring cannot be set up (%s): the host kernel must be 5.6 or "
                       "newer and allow it (sysctl kernel.io_uring_disabled, RLIMIT_MEMLOCK)",
                       strerror(-rc));
    }
    /* what is registered stays open until the last request has ended, whoever has died */
    rc = io_uring_register_files(&fq->ring, files, img->keep_fd < 0 ? 1 : 2);
    if (!rc && restricted)
        rc = ring_restrict(&fq->ring);
    if (rc) {
        io_uring_queue_exit(&fq->ring);
        free(fq);
        return err_set(e, -rc, "io_uring does not take the image: %s", strerror(-rc));
    }
    if (img->direct && file_bounce_open(&fq->bounce)) {
        io_uring_queue_exit(&fq->ring);
        free(fq);
        return err_set(e, ENOMEM, "out of memory");
    }
    *queue_state = fq;
    return 0;
}

static void file_queue_close(struct blk_queue *q)
{
    struct file_queue *fq = q->queue_state;

    io_uring_queue_exit(&fq->ring);
    if (fq->ready_fd >= 0)
        close(fq->ready_fd);
    file_bounce_close(&fq->bounce);
    free(fq);
}

static struct io_uring_sqe *sqe_get(struct file_queue *fq)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&fq->ring);

    /* Full: hand over what there is.  The kernel refuses only for lack of memory
     * (-EAGAIN) or room for completions (-EBUSY, which taking them cures). */
    while (unlikely(!sqe)) {
        if (io_uring_submit(&fq->ring) < 0)
            io_uring_get_events(&fq->ring);
        sqe = io_uring_get_sqe(&fq->ring);
    }
    return sqe;
}

static bool is_data(const struct blk_req *req)
{
    return req->op == BLK_OP_READ || req->op == BLK_OP_WRITE;
}

static void ring_submit(struct file_queue *fq, struct blk_req *req)
{
    uint64_t at = req->offset_bytes + req->progress_bytes;
    bool block = fq->img->block_device;
    const struct iovec *iov = req->iov;
    unsigned nr_iov = req->nr_iov;
    struct io_uring_sqe *sqe;
    struct iovec piece;

    if (is_data(req) && unlikely(file_bounce_needed(&fq->bounce, req))) {
        if (!file_bounce_begin(&fq->bounce, req, &piece))
            return;
        iov = &piece;       /* a single one is handed over by value */
        nr_iov = 1;
    }
    sqe = sqe_get(fq);
    switch (req->op) {
    case BLK_OP_READ:
        if (nr_iov == 1)
            io_uring_prep_read(sqe, 0, iov->iov_base, (unsigned)iov->iov_len, at);
        else
            io_uring_prep_readv(sqe, 0, iov, nr_iov, at);
        break;
    case BLK_OP_WRITE:
        if (nr_iov == 1)
            io_uring_prep_write(sqe, 0, iov->iov_base, (unsigned)iov->iov_len, at);
        else
            io_uring_prep_writev(sqe, 0, iov, nr_iov, at);
        sqe->rw_flags = req->fua ? RWF_DSYNC : 0;
        break;
    case BLK_OP_FLUSH:
        io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
        break;
    case BLK_OP_WRITE_ZEROES:
        io_uring_prep_fallocate(sqe, 0, FALLOC_FL_KEEP_SIZE |
                                (block ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE),
                                at, req->length_bytes);
        break;
    default:
        io_uring_prep_fallocate(sqe, 0, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                                at, req->length_bytes);
        break;
    }
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, req);
}

/* What was asked for is over. */
static enum file_io io_done(struct blk_queue *q, struct blk_req *req, int result)
{
    struct file_queue *fq = q->queue_state;

    if (req->op == BLK_OP_WRITE &&
        unlikely(req->offset_bytes + req->length_bytes > blk_props_size(&q->disk->props))) {
        file_image_trim(fq->img, &q->disk->props);
        result = -EIO;
    }
    blk_req_done(q, req, result);
    return FILE_IO_DONE;
}

/* What is left of a read lies behind the data, yet inside the sector that the data ends in,
 * which is the disk's last. */
static bool is_tail(const struct file_queue *fq, const struct blk_req *req)
{
    uint64_t data_end = load_relaxed(&fq->img->data_end_bytes);

    return req->offset_bytes + req->progress_bytes >= data_end &&
           req->offset_bytes + req->length_bytes <= align_up(data_end, (uint64_t)BLK_SECTOR_BYTES);
}

/* Judges what one attempt at a request gave: n bytes or -errno. */
static enum file_io io_result(struct blk_queue *q, struct blk_req *req, int64_t n)
{
    struct file_queue *fq = q->queue_state;

    if (n == -EAGAIN || n == -EINTR) {
        if (req->step++ < FILE_RETRIES_MAX)
            return FILE_IO_MORE;
        return io_done(q, req, -EIO);
    }
    if (n < 0)
        return io_done(q, req, (int)n);
    if (!is_data(req))
        return io_done(q, req, 0);
    req->progress_bytes += (uint64_t)n;
    if (likely(req->progress_bytes >= req->length_bytes))
        return io_done(q, req, 0);
    blk_req_advance(req, (uint64_t)n);
    if (req->op == BLK_OP_READ && is_tail(fq, req)) {
        blk_req_zero(req);
        return io_done(q, req, 0);
    }
    return n ? FILE_IO_MORE : io_done(q, req, -EIO);
}

/* The inline way; true when the request is over. */
static bool io_inline(struct blk_queue *q, struct blk_req *req)
{
    struct file_queue *fq = q->queue_state;
    bool is_read = req->op == BLK_OP_READ;
    struct file_nowait *nowait = is_read ? &fq->read : &fq->write;
    bool in_memory = fq->img->in_memory;
    int flags = in_memory ? 0 : RWF_NOWAIT;

    if (!in_memory) {
        if (fq->img->direct || nowait->never || (!is_read && req->fua))
            return false;
        if (nowait->skip) {
            nowait->skip--;
            return false;
        }
    }
    for (;;) {
        off_t at = (off_t)(req->offset_bytes + req->progress_bytes);
        int64_t n = is_read ? preadv2(fq->img->fd, req->iov, (int)req->nr_iov, at, flags)
                            : pwritev2(fq->img->fd, req->iov, (int)req->nr_iov, at, flags);

        if (n < 0)
            n = -errno;
        if (!in_memory && (n == -EOPNOTSUPP || n == -EAGAIN)) {
            nowait->never = n == -EOPNOTSUPP;
            nowait->penalty = min_of(nowait->penalty * 2 + 1, FILE_SKIP_MAX);
            nowait->skip = nowait->penalty;
            return false;
        }
        nowait->penalty >>= 1;
        if (io_result(q, req, n) == FILE_IO_DONE)
            return true;
        if (!in_memory)
            return false;
    }
}

static void file_submit(struct blk_queue *q, struct blk_req *req)
{
    struct file_queue *fq = q->queue_state;

    if (is_data(req) && io_inline(q, req))
        return;
    if (req->op == BLK_OP_FLUSH && fq->img->in_memory) {
        blk_req_done(q, req, 0);    /* there is nothing below memory to flush to */
        return;
    }
    ring_submit(fq, req);
}

static void file_flush(struct blk_queue *q)
{
    struct file_queue *fq = q->queue_state;

    /* What the kernel does not take now stays in the ring; poll() tries again. */
    if (io_uring_sq_ready(&fq->ring))
        io_uring_submit(&fq->ring);
}

static void cqe_take(struct blk_queue *q, const struct io_uring_cqe *cqe)
{
    struct file_queue *fq = q->queue_state;
    struct blk_req *req = io_uring_cqe_get_data(cqe);

    if (!req) {
        fq->wake_armed = false;
        fq->wake_ready = true;
        return;
    }
    if (unlikely(req == fq->bounce.owner))
        file_bounce_end(&fq->bounce, req, cqe->res);
    if (io_result(q, req, cqe->res) == FILE_IO_MORE)
        ring_submit(fq, req);
    if (unlikely(fq->bounce.waiting) && (req = file_bounce_next(&fq->bounce)))
        ring_submit(fq, req);
}

static void file_poll(struct blk_queue *q)
{
    struct file_queue *fq = q->queue_state;
    struct io_uring_cqe *cqes[FILE_CQE_BATCH];
    unsigned nr;

    do {
        nr = io_uring_peek_batch_cqe(&fq->ring, cqes, FILE_CQE_BATCH);
        for (unsigned i = 0; i < nr; i++)
            cqe_take(q, cqes[i]);
        io_uring_cq_advance(&fq->ring, nr);
    } while (nr == FILE_CQE_BATCH);
    file_flush(q);      /* the rest of requests that were done in part */
}

static bool file_wait(struct blk_queue *q, int64_t timeout_ns)
{
    struct file_queue *fq = q->queue_state;
    struct __kernel_timespec ts = {
        .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000,
    };
    struct io_uring_cqe *cqe;
    bool ready;

    if (q->params.wake_fd >= 0 && !fq->wake_armed && !fq->wake_ready) {
        struct io_uring_sqe *sqe = sqe_get(fq);

        io_uring_prep_poll_add(sqe, q->params.wake_fd, POLLIN);
        io_uring_sqe_set_data(sqe, NULL);
        fq->wake_armed = true;
    }
    if (fq->wake_ready)
        timeout_ns = 0;
    if (timeout_ns < 0)
        io_uring_submit_and_wait(&fq->ring, 1);
    else
        io_uring_submit_and_wait_timeout(&fq->ring, &cqe, 1, &ts, NULL);
    file_poll(q);
    ready = fq->wake_ready;
    fq->wake_ready = false;
    return ready;
}

static int file_ready_fd(struct blk_queue *q)
{
    struct file_queue *fq = q->queue_state;
    int rc;

    if (fq->ready_fd >= 0)
        return fq->ready_fd;
    fq->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fq->ready_fd < 0)
        return -errno;
    rc = io_uring_register_eventfd(&fq->ring, fq->ready_fd);
    if (rc) {
        close(fq->ready_fd);
        fq->ready_fd = -1;
    }
    return rc ? rc : fq->ready_fd;
}

const struct blk_driver blk_driver_file = {
    .name = "file",
    .summary = "a raw image file or block device of the host",
    .open = file_open,
    .close = file_close,
    .share = file_share,
    .resize = file_resize,
    .queue_open = file_queue_open,
    .queue_close = file_queue_close,
    .submit = file_submit,
    .flush = file_flush,
    .poll = file_poll,
    .wait = file_wait,
    .ready_fd = file_ready_fd,
};
