/* SPDX-License-Identifier: MIT */
/* A disk that an NBD server has: one that a URI names, or a qemu-nbd of our own on an image
 * in a format that is not ours (nbd_qemu.h).
 *
 * Each queue has a connection, which its thread alone uses (nbd_stream.h).  A server that does
 * not promise that a flush on one connection covers the writes of all (multi-conn) gets one
 * queue only.
 *
 * The client is our own and no library: the program is linked statically, which libnbd's
 * GnuTLS cannot be, and libnbd allocates and locks for each command.
 *
 * When a connection is lost, a queue keeps what it has in flight, connects again and sends it
 * once more.  That is no worse than doing it once: each command is idempotent, and no order
 * was promised between commands in flight at the same time.  But the protocol has no means to
 * learn whether a server that lives still works on what a lost connection brought, and would
 * put an old write over a newer one; RETRY_FIRST_MS are for that to be over.
 *
 * What has been without a server for reconnect_s fails with -EIO, on its own: a server that
 * dies of one request does not drag the others along.  The queue goes on trying.  To shake
 * hands keeps its thread for RETRY_TIMEOUT_MS at most, while it has nothing else to do.
 *
 * A server is trusted to keep what it has answered, flushed or not, if it comes back.  Our own
 * qemu-nbd, when it has died, is not: it keeps the tables of an image in its memory.  So the
 * next flush of each queue fails then, and the guest knows.
 *
 * A queue that ends does not wait for a lost server, and for a silent one DRAIN_MS only: what
 * is left of a guest must not depend on another machine.
 *
 * A connection that no queue has (after opening, or between a guest's two lives) is kept with
 * the disk: a server may serve one client only, and end when that goes. */
#include "blk/driver_nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/log.h"
#include "blk/driver.h"
#include "blk/file_claim.h"
#include "blk/nbd_connect.h"
#include "blk/nbd_qemu.h"
#include "blk/nbd_stream.h"

#define OPEN_TIMEOUT_MS    10000
#define RETRY_TIMEOUT_MS   2000
#define RETRY_FIRST_MS     100u
#define RETRY_LAST_MS      1000u
#define DRAIN_MS           5000
/* A command without payload may cover this much; the protocol's limit is below 4 GiB. */
#define RANGE_MAX_BYTES    (1 * GIB)
#define PHYSICAL_MAX_BYTES 65536u

struct nbd_disk {
    char *name;                     /* for messages: URI or path */
    char *format;                   /* ... of the image */
    struct nbd_target target;
    struct nbd_export export;       /* as it was when the disk was opened */
    struct nbd_qemu *qemu;          /* NULL: somebody else's server */
    int claim_fd;                   /* of the image; file_claim.h */
    unsigned reconnect_s;
    int spare_fd;                   /* a connection without queue; taken by exchange */
};

struct nbd_queue {
    struct nbd_stream stream;
    struct blk_queue *q;
    const struct nbd_disk *disk;
    uint64_t lost_since_ns;         /* without a connection, 0: with one */
    uint64_t retry_at_ns;
    unsigned retry_ms;              /* the next wait; 0: the connection has proved itself */
    uint64_t replies_before;        /* ... when it has had more than these */
    bool told_lost, told_failing;   /* in the log */
    uint64_t drain_until_ns;        /* 0: not draining */
    unsigned deaths;                /* of our qemu-nbd that this queue knows of */
    bool flush_fails;               /* the next one, since writes may have been lost */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- the disk ---- */

static int image_claim(struct nbd_disk *d, const struct blk_spec *spec, struct err *e)
{
    struct stat st;

    /* qemu-nbd takes others for more than a path: json:{...}, nbd:... */
    if (spec->path[0] != '/')
        return err_set(e, EINVAL, "expected an absolute path of an image");
    if (stat(spec->path, &st))
        return err_set(e, errno, "cannot be opened: %s", strerror(errno));
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(e, EINVAL, "is %s: expected an image file or a block device",
                       S_ISDIR(st.st_mode) ? "a directory" : "neither file nor block device");
    d->claim_fd = file_claim(spec->path, &st, spec->readonly, spec->shared_write, e);
    return d->claim_fd < 0 ? d->claim_fd : 0;
}

static bool direct_possible(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* With direct I/O or without; a connection, or -errno. */
static int image_serve(struct nbd_disk *d, const struct blk_spec *spec, bool direct,
                       struct err *e)
{
    int rc = nbd_qemu_start(&(struct nbd_qemu_params){
        .path = d->name, .format = d->format, .readonly = spec->readonly,
        .discard = !spec->no_discard && !spec->readonly, .direct = direct,
    }, &d->target, &d->qemu, e);

    if (rc)
        return rc;
    rc = nbd_connect(&d->target, OPEN_TIMEOUT_MS, &d->export, e);
    if (rc >= 0) {
        nbd_qemu_serves(d->qemu);
        return rc;
    }
    nbd_qemu_failed(d->qemu, e);
    d->qemu = NULL;
    return -e->code;
}

static int image_open(struct nbd_disk *d, const struct blk_spec *spec, struct err *e)
{
    bool direct = !spec->no_direct && direct_possible(spec->path);
    int rc = image_claim(d, spec, e), fd;

    if (rc)
        return rc;
    fd = image_serve(d, spec, direct, e);
    if (fd >= 0 || !direct || e->code == ENOENT)
        return fd;
    /* A file that it is based on may be where there is no direct I/O. */
    err_clear(e);
    return image_serve(d, spec, false, e);
}

static int props_fill(const struct nbd_disk *d, const struct blk_spec *spec,
                      struct blk_props *props, struct err *e)
{
    const struct nbd_export *x = &d->export;
    bool has = !spec->readonly && !(x->flags & NBD_FLAG_READ_ONLY);
    uint32_t block = x->preferred_bytes;

    if (!spec->readonly && (x->flags & NBD_FLAG_READ_ONLY))
        return err_set(e, EROFS, "the export is read-only: expected access=r");
    *props = (struct blk_props){
        .size_bytes = align_down(x->size_bytes, (uint64_t)BLK_SECTOR_BYTES),
        .readonly = spec->readonly,
        .can_flush = x->flags & NBD_FLAG_SEND_FLUSH,
        .can_discard = has && !spec->no_discard && (x->flags & NBD_FLAG_SEND_TRIM),
        .can_write_zeroes = has && (x->flags & NBD_FLAG_SEND_WRITE_ZEROES),
        .max_queues = x->flags & NBD_FLAG_CAN_MULTI_CONN ? 0 : 1,
    };
    if (!props->size_bytes || props->size_bytes > INT64_MAX)
        return err_set(e, EINVAL, "the export has %llu bytes: expected at least a sector of %u",
                       (unsigned long long)x->size_bytes, BLK_SECTOR_BYTES);
    /* blkif.h: the size must be a multiple of the physical block */
    props->physical_block_bytes = block >= BLK_SECTOR_BYTES && block <= PHYSICAL_MAX_BYTES &&
                                  !(block & (block - 1)) && !(props->size_bytes % block)
                                  ? block : BLK_SECTOR_BYTES;
    props->discard_granularity_bytes = props->physical_block_bytes;
    return 0;
}

static void disk_free(struct nbd_disk *d)
{
    if (d->spare_fd >= 0)
        nbd_disconnect(d->spare_fd);
    if (d->qemu)
        nbd_qemu_stop(d->qemu);
    if (d->claim_fd >= 0)
        close(d->claim_fd);
    free(d->format);
    free(d->name);
    free(d);
}

static int disk_open(struct nbd_disk *d, const struct blk_spec *spec, struct blk_props *props,
                     struct err *e)
{
    d->name = strdup(spec->path);
    d->format = strdup(spec->format ? spec->format : "");
    if (!d->name || !d->format)
        return err_set(e, ENOMEM, "out of memory");
    if (spec->format) {
        d->spare_fd = image_open(d, spec, e);
    } else {
        int rc = nbd_target_parse(spec->path, &d->target, e);

        if (rc)
            return rc;
        d->spare_fd = nbd_connect(&d->target, OPEN_TIMEOUT_MS, &d->export, e);
    }
    return d->spare_fd < 0 ? d->spare_fd : props_fill(d, spec, props, e);
}

static int nbd_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                    struct err *e)
{
    struct nbd_disk *d;
    int rc;

    if (!spec->path || !spec->path[0]) {
        err_at(e, NULL, 0, "target");
        return err_set(e, EINVAL, "an nbd disk needs the URI of an export");
    }
    d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, ENOMEM, "out of memory");
    d->claim_fd = d->spare_fd = -1;
    d->reconnect_s = spec->reconnect_s;
    rc = disk_open(d, spec, props, e);
    if (rc) {
        err_at(e, spec->path, 0, NULL);
        disk_free(d);
        return rc;
    }
    *state = d;
    return 0;
}

static void nbd_close(void *state)
{
    disk_free(state);
}

/* ---- requests ---- */

static int error_of(uint32_t nbd_error)
{
    switch (nbd_error) {
    case 0:             return 0;
    case NBD_EPERM:     return -EPERM;
    case NBD_ENOMEM:    return -ENOMEM;
    case NBD_EINVAL:    return -EINVAL;
    case NBD_ENOSPC:    return -ENOSPC;
    case NBD_EOVERFLOW: return -EOVERFLOW;
    case NBD_ENOTSUP:   return -EOPNOTSUPP;
    default:            return -EIO;
    }
}

static bool is_data(const struct blk_req *req)
{
    return req->op == BLK_OP_READ || req->op == BLK_OP_WRITE;
}

/* The next command for req: what one may cover of what is left. */
static void part_begin(struct nbd_queue *nq, struct blk_req *req)
{
    static const uint16_t types[BLK_NR_OPS] = {
        [BLK_OP_READ] = NBD_CMD_READ, [BLK_OP_WRITE] = NBD_CMD_WRITE,
        [BLK_OP_FLUSH] = NBD_CMD_FLUSH, [BLK_OP_DISCARD] = NBD_CMD_TRIM,
        [BLK_OP_WRITE_ZEROES] = NBD_CMD_WRITE_ZEROES,
    };
    const struct nbd_export *x = &nq->disk->export;
    uint64_t left = req->length_bytes - req->progress_bytes;
    uint64_t max = is_data(req) ? x->max_bytes : RANGE_MAX_BYTES;
    uint16_t flags = req->fua && req->op != BLK_OP_READ && (x->flags & NBD_FLAG_SEND_FUA)
                     ? NBD_CMD_FLAG_FUA : 0;

    if (req->op == BLK_OP_FLUSH || req->step)
        nbd_stream_add(&nq->stream, req, NBD_CMD_FLUSH, 0, 0, 0);
    else
        nbd_stream_add(&nq->stream, req, types[req->op], flags,
                       req->offset_bytes + req->progress_bytes, (uint32_t)min_of(left, max));
}

/* The command that part_begin() made is over. */
static void part_done(void *arg, struct blk_req *req, uint32_t nbd_error)
{
    struct nbd_queue *nq = arg;
    const struct nbd_export *x = &nq->disk->export;
    uint64_t max = is_data(req) ? x->max_bytes : RANGE_MAX_BYTES, done;

    if (unlikely(nbd_error)) {
        blk_req_done(nq->q, req, error_of(nbd_error));
        return;
    }
    if (req->op == BLK_OP_FLUSH || req->step) {
        blk_req_done(nq->q, req, unlikely(nq->flush_fails) ? -EIO : 0);
        nq->flush_fails = false;
        return;
    }
    done = min_of(req->length_bytes - req->progress_bytes, max);
    req->progress_bytes += done;
    if (req->progress_bytes < req->length_bytes) {
        if (is_data(req))
            blk_req_advance(req, done);
        part_begin(nq, req);
    } else if (req->fua && req->op != BLK_OP_READ && !(x->flags & NBD_FLAG_SEND_FUA) &&
               (x->flags & NBD_FLAG_SEND_FLUSH)) {
        req->step = 1;      /* a flush in its place */
        part_begin(nq, req);
    } else {
        blk_req_done(nq->q, req, 0);
    }
}

static void nbd_submit(struct blk_queue *q, struct blk_req *req)
{
    struct nbd_queue *nq = q->queue_state;

    /* Without a connection it waits even if that has no prospect: whoever submits need not
     * be the thread that reconnects. */
    nq->stream.slots[req->index].lost_since_ns = nq->lost_since_ns;
    part_begin(nq, req);
}

/* ---- connections come and go ---- */

/* Ever later. */
static void retry_later(struct nbd_queue *nq)
{
    nq->retry_at_ns = now_ns() + nq->retry_ms * 1000000ull;
    nq->retry_ms = min_of(nq->retry_ms * 2, RETRY_LAST_MS);
}

static void lose(struct nbd_queue *nq, int rc)
{
    struct nbd_stream *s = &nq->stream;
    uint64_t now = now_ns();
    bool proved = !nq->retry_ms || s->nr_replies > nq->replies_before;

    nbd_stream_lose(s);
    nq->lost_since_ns = now;
    if (proved) {
        nq->retry_ms = RETRY_FIRST_MS;
        nq->told_lost = true;
        log_warning("%s: the server is lost (%s), requests wait for it for %u s", nq->disk->name,
                    rc == -EPROTO ? "its replies make no sense" : strerror(-rc),
                    nq->disk->reconnect_s);
    }
    retry_later(nq);
    for (unsigned i = 0; i < s->nr_slots; i++)
        if (s->slots[i].state != NBD_SLOT_IDLE && !s->slots[i].lost_since_ns)
            s->slots[i].lost_since_ns = now;
}

static unsigned deaths(const struct nbd_disk *d)
{
    return d->qemu ? nbd_qemu_deaths(d->qemu) : 0;
}

/* Is what has come back what was lost? */
static bool same_export(const struct nbd_export *was, const struct nbd_export *is)
{
    const uint16_t needed = NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |
                            NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN;

    return is->size_bytes >= was->size_bytes && is->max_bytes >= was->max_bytes &&
           !(was->flags & needed & ~is->flags) &&
           (was->flags & NBD_FLAG_READ_ONLY || !(is->flags & NBD_FLAG_READ_ONLY));
}

/* One more connection to what was opened. */
static int export_connect(const struct nbd_disk *d, int timeout_ms, struct err *e)
{
    struct nbd_export x;
    int fd = nbd_connect(&d->target, timeout_ms, &x, e);

    if (fd < 0 || same_export(&d->export, &x))
        return fd;
    nbd_disconnect(fd);
    return err_set(e, ESTALE, "the export is not what it was when it was opened");
}

static void reconnect(struct nbd_queue *nq)
{
    struct err e = { 0 };
    int fd = export_connect(nq->disk, RETRY_TIMEOUT_MS, &e);

    if (fd < 0) {
        retry_later(nq);
        return;
    }
    nq->lost_since_ns = 0;
    nq->replies_before = nq->stream.nr_replies;
    if (nq->deaths != deaths(nq->disk)) {
        nq->deaths = deaths(nq->disk);
        nq->flush_fails = !nq->q->disk->props.readonly;
    }
    if (nq->told_lost)
        log_info("%s: connected again", nq->disk->name);
    nq->told_lost = nq->told_failing = false;
    nbd_stream_restart(&nq->stream, fd);
}

/* Fails what has been without a server for too long. */
static void expire(struct nbd_queue *nq)
{
    struct nbd_stream *s = &nq->stream;
    uint64_t now = now_ns();
    uint64_t limit = nq->drain_until_ns ? 0 : nq->disk->reconnect_s * 1000000000ull;

    for (unsigned i = 0; i < s->nr_slots; i++) {
        if (s->slots[i].state == NBD_SLOT_IDLE || now - s->slots[i].lost_since_ns < limit)
            continue;
        if (!nq->told_failing && !nq->drain_until_ns)
            log_error("%s: no server for %u s: requests fail until there is one",
                      nq->disk->name, nq->disk->reconnect_s);
        nq->told_failing = true;
        nbd_stream_fail(s, &s->reqs[i], NBD_EIO);
    }
}

/* Without a connection. */
static void lost_turn(struct nbd_queue *nq)
{
    if (!nq->drain_until_ns && now_ns() >= nq->retry_at_ns)
        reconnect(nq);
    if (nq->stream.fd < 0)
        expire(nq);
}

/* What has come in, then what is to go out. */
static void turn(struct nbd_queue *nq, bool receive)
{
    int rc = receive ? nbd_stream_receive(&nq->stream) : 0;

    if (!rc)
        rc = nbd_stream_send(&nq->stream);
    if (unlikely(nq->drain_until_ns) && now_ns() >= nq->drain_until_ns)
        rc = rc ? rc : -ETIMEDOUT;
    if (unlikely(rc)) {
        lose(nq, rc);
        lost_turn(nq);
    }
}

static void nbd_flush(struct blk_queue *q)
{
    struct nbd_queue *nq = q->queue_state;

    if (likely(nq->stream.fd >= 0) && nq->stream.send_head)
        turn(nq, false);
}

static void nbd_poll(struct blk_queue *q)
{
    struct nbd_queue *nq = q->queue_state;

    if (unlikely(nq->stream.fd < 0))
        lost_turn(nq);
    else if (nq->stream.nr_waiting || nq->stream.send_head)
        turn(nq, nq->stream.nr_waiting);
}

static void nbd_drain(struct blk_queue *q)
{
    struct nbd_queue *nq = q->queue_state;

    nq->drain_until_ns = now_ns() + DRAIN_MS * 1000000ull;
}

/* No longer than until there is something to do besides what the sockets say. */
static int64_t wait_limit(const struct nbd_queue *nq, int64_t timeout_ns)
{
    uint64_t until = nq->stream.fd < 0 ? nq->retry_at_ns : nq->drain_until_ns;
    int64_t left;

    if (likely(!until))
        return timeout_ns;
    left = max_of((int64_t)(until - now_ns()), (int64_t)0);
    return timeout_ns < 0 ? left : min_of(timeout_ns, left);
}

static bool nbd_wait(struct blk_queue *q, int64_t timeout_ns)
{
    struct nbd_queue *nq = q->queue_state;
    struct pollfd p[2] = { { .fd = q->params.wake_fd, .events = POLLIN } };
    struct timespec ts;

    nbd_flush(q);
    p[1].fd = nq->stream.fd;
    p[1].events = nq->stream.send_head ? POLLIN | POLLOUT : POLLIN;
    timeout_ns = q->done_head ? 0 : wait_limit(nq, timeout_ns);
    ts = (struct timespec){ timeout_ns / 1000000000, timeout_ns % 1000000000 };
    if (ppoll(p, array_size(p), timeout_ns < 0 ? NULL : &ts, NULL) <= 0)
        p[0].revents = p[1].revents = 0;
    if (p[1].revents)
        turn(nq, true);     /* the end of an idle connection is seen here */
    return p[0].revents & POLLIN;
}

/* ---- queues ---- */

static int nbd_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct nbd_disk *d = q->disk_state;
    struct nbd_queue *nq = calloc(1, sizeof(*nq));
    int fd;

    if (!nq || nbd_stream_open(&nq->stream, q->reqs, q->params.nr_reqs, part_done, nq)) {
        free(nq);
        return err_set(e, ENOMEM, "out of memory");
    }
    nq->q = q;
    nq->disk = d;
    nq->deaths = deaths(d);
    fd = swap_acq_rel(&d->spare_fd, -1);
    if (fd < 0)
        fd = export_connect(d, OPEN_TIMEOUT_MS, e);
    if (fd < 0) {
        nbd_stream_close(&nq->stream);
        free(nq);
        return fd;
    }
    nbd_stream_restart(&nq->stream, fd);
    *queue_state = nq;
    return 0;
}

static void nbd_queue_close(struct blk_queue *q)
{
    struct nbd_queue *nq = q->queue_state;
    struct nbd_disk *d = q->disk_state;
    int fd = nq->stream.fd;

    if (fd >= 0 && nbd_stream_idle(&nq->stream))
        fd = swap_acq_rel(&d->spare_fd, fd);
    if (fd >= 0)
        nbd_disconnect(fd);
    nbd_stream_close(&nq->stream);
    free(nq);
}

const struct blk_driver blk_driver_nbd = {
    .name = "nbd",
    .summary = "an export of an NBD server, or an image that qemu-nbd serves for us",
    .open = nbd_open,
    .close = nbd_close,
    .queue_open = nbd_queue_open,
    .queue_close = nbd_queue_close,
    .submit = nbd_submit,
    .flush = nbd_flush,
    .poll = nbd_poll,
    .wait = nbd_wait,
    .drain = nbd_drain,
};
