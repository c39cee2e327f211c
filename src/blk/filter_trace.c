/* SPDX-License-Identifier: MIT */
/* Records each request when it is done, in a file that is mapped: trace_file.h.  A record costs two
 * looks at the clock, neither of which enters the kernel, and the writing of 48 bytes.
 *
 * The file gets a queue's ring, and the filesystem its blocks, when the queue opens, so nothing of
 * it can be missing later.  Whoever cuts the file all the same ends the process, as with any
 * mapped file: it is its owner's.  A queue that opens after another has closed goes on in that
 * one's ring. */
#include "blk/filter_trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/loop.h"
#include "blk/filter.h"
#include "blk/trace_file.h"

#define RECORDS_DEFAULT 65536u

struct trace_options {
    const char *path;
    uint64_t records;
};

struct trace {
    struct blk_disk *lower;
    int fd;
    uint64_t ring_records;
    struct blk_trace_header *header;
    uint64_t rings_used;            /* a bit for each that a queue has */
    uint64_t next_number[BLK_TRACE_RINGS];
};

struct trace_queue {
    struct blk_filter_queue f;
    struct trace *trace;
    unsigned ring;
    struct blk_trace_record *records;
    uint64_t nr_records, number, at;
    uint64_t began_ns[];            /* by the lower request's index */
};

static const struct blk_option trace_options[] = {
    { "records", offsetof(struct trace_options, records), blk_option_number, "a number" },
    { "file", offsetof(struct trace_options, path), blk_option_text, "a path", true },
};

static int trace_judge(const void *options, struct err *e)
{
    const struct trace_options *o = options;

    if (!o->path || *o->path != '/')
        return err_set(e, EINVAL, "filter=trace: expected file= with an absolute path");
    if (o->records && (o->records < BLK_TRACE_RECORDS_MIN || o->records > BLK_TRACE_RECORDS_MAX))
        return err_set(e, EINVAL, "filter=trace: records=%llu: expected %u to %u",
                       (unsigned long long)o->records, BLK_TRACE_RECORDS_MIN,
                       BLK_TRACE_RECORDS_MAX);
    return 0;
}

/* ---- the file ---- */

static size_t ring_bytes(const struct trace *t)
{
    return (size_t)align_up(t->ring_records * sizeof(struct blk_trace_record), PAGE_SIZE);
}

/* Makes the range part of the file, and maps it; MAP_FAILED with errno. */
static void *range_map(const struct trace *t, uint64_t at, size_t bytes)
{
    int rc = posix_fallocate(t->fd, (off_t)at, (off_t)bytes);

    if (rc) {
        errno = rc;
        return MAP_FAILED;
    }
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, t->fd, (off_t)at);
}

/* Only what is a trace, or nothing yet, is written over. */
static int file_judge(int fd, const char *path, struct err *e)
{
    uint64_t magic = 0;
    struct stat st;

    if (fstat(fd, &st))
        return err_set(e, errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || (st.st_size && (pread(fd, &magic, sizeof(magic), 0) !=
                                                sizeof(magic) || magic != BLK_TRACE_MAGIC)))
        return err_set(e, EEXIST, "%s: is something else than a trace, and stays as it is", path);
    if (flock(fd, LOCK_EX | LOCK_NB))
        return err_set(e, errno == EWOULDBLOCK ? EBUSY : errno, "%s: %s", path,
                       errno == EWOULDBLOCK ? "another disk records there" : strerror(errno));
    if (ftruncate(fd, 0))
        return err_set(e, errno, "%s: %s", path, strerror(errno));
    return 0;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int file_open(struct trace *t, const struct blk_spec *spec, uint64_t size_bytes,
                     struct err *e)
{
    const struct trace_options *o = spec->options;
    int rc;

    /* a FIFO would keep us waiting */
    t->fd = open(o->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (t->fd < 0)
        return err_set(e, errno, "%s: %s", o->path, strerror(errno));
    rc = file_judge(t->fd, o->path, e);
    if (!rc) {
        t->header = range_map(t, 0, BLK_TRACE_HEADER_BYTES);
        if (t->header == MAP_FAILED)
            rc = err_set(e, errno, "%s: %s", o->path, strerror(errno));
    }
    if (rc) {
        close(t->fd);
        return rc;
    }
    *t->header = (struct blk_trace_header){
        .version = BLK_TRACE_VERSION, .header_bytes = BLK_TRACE_HEADER_BYTES,
        .record_bytes = sizeof(struct blk_trace_record), .ring_records = t->ring_records,
        .realtime_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC),
        .size_bytes = size_bytes,
    };
    snprintf(t->header->label, sizeof(t->header->label), "%s", spec->label ? spec->label : "");
    store_release(&t->header->magic, BLK_TRACE_MAGIC);
    return 0;
}

static int trace_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                      struct err *e)
{
    const struct trace_options *o = spec->options;
    struct trace *t = calloc(1, sizeof(*t));
    int rc;

    if (!t)
        return err_set(e, ENOMEM, "out of memory");
    t->ring_records = o->records ? o->records : RECORDS_DEFAULT;
    rc = blk_filter_open(spec, &t->lower, props, e);
    if (!rc) {
        rc = file_open(t, spec, props->size_bytes, e);
        if (rc)
            blk_disk_close(t->lower);
    }
    if (rc) {
        free(t);
        return rc;
    }
    *state = t;
    return 0;
}

static void trace_close(void *state)
{
    struct trace *t = state;

    munmap(t->header, BLK_TRACE_HEADER_BYTES);
    close(t->fd);
    blk_disk_close(t->lower);
    free(t);
}

/* ---- queues ---- */

/* Queues open on threads of their own. */
static int ring_take(struct trace_queue *tq, struct err *e)
{
    struct trace *t = tq->trace;
    uint64_t used = load_relaxed(&t->rings_used);
    uint32_t nr;

    do {
        if (used == UINT64_MAX)
            return err_set(e, EUSERS, "filter=trace: more than %u queues", BLK_TRACE_RINGS);
        tq->ring = (unsigned)__builtin_ctzll(~used);
    } while (!__atomic_compare_exchange_n(&t->rings_used, &used, used | 1ull << tq->ring, false,
                                          __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
    tq->records = range_map(t, BLK_TRACE_HEADER_BYTES + tq->ring * ring_bytes(t), ring_bytes(t));
    if (tq->records == MAP_FAILED) {
        int error = errno;

        fetch_and(&t->rings_used, ~(1ull << tq->ring));
        return err_set(e, error, "filter=trace: no room for a queue's records: %s",
                       strerror(error));
    }
    nr = load_relaxed(&t->header->nr_rings);
    while (nr <= tq->ring && !__atomic_compare_exchange_n(&t->header->nr_rings, &nr, tq->ring + 1,
                                                          false, __ATOMIC_RELEASE,
                                                          __ATOMIC_RELAXED))
        ;
    tq->nr_records = t->ring_records;
    tq->number = t->next_number[tq->ring];
    tq->at = tq->number % tq->nr_records;
    return 0;
}

static void ring_give(struct trace_queue *tq)
{
    struct trace *t = tq->trace;

    munmap(tq->records, ring_bytes(t));
    t->next_number[tq->ring] = tq->number;
    fetch_and(&t->rings_used, ~(1ull << tq->ring));
}

static void trace_complete(void *filter, struct blk_req *lower)
{
    struct trace_queue *tq = filter;
    struct blk_trace_record r = {
        .number = ++tq->number,
        .submitted_ns = tq->began_ns[lower->index],
        .latency_ns = loop_now_ns() - tq->began_ns[lower->index],
        .offset_bytes = lower->offset_bytes,
        .length_bytes = lower->length_bytes,
        .result = (int16_t)lower->result,
        .op = (uint8_t)lower->op,
        .flags = lower->fua ? BLK_TRACE_FUA : 0,
    };

    r.sum = blk_trace_sum(&r);
    tq->records[tq->at] = r;
    tq->at = tq->at + 1 == tq->nr_records ? 0 : tq->at + 1;
    blk_filter_complete(filter, lower);
}

static int trace_resize(void *state, uint64_t size_bytes, struct blk_props *props, struct err *e)
{
    struct trace *t = state;

    return blk_filter_resize(t->lower, size_bytes, props, e);
}

static int trace_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct trace_queue *tq = calloc(1, sizeof(*tq) + q->params.nr_reqs * sizeof(tq->began_ns[0]));
    int rc;

    if (!tq)
        return err_set(e, ENOMEM, "out of memory");
    tq->trace = q->disk_state;
    rc = ring_take(tq, e);
    if (!rc) {
        rc = blk_filter_queue_open(&tq->f, q, tq->trace->lower, trace_complete, e);
        if (rc)
            ring_give(tq);
    }
    if (rc) {
        free(tq);
        return rc;
    }
    *queue_state = tq;
    return 0;
}

static void trace_queue_close(struct blk_queue *q)
{
    struct trace_queue *tq = q->queue_state;

    blk_filter_queue_close(&tq->f);
    ring_give(tq);
    free(tq);
}

static void trace_submit(struct blk_queue *q, struct blk_req *req)
{
    struct trace_queue *tq = q->queue_state;
    struct blk_req *lower = blk_filter_lower(&tq->f, req);

    tq->began_ns[lower->index] = loop_now_ns();
    blk_filter_submit(&tq->f, lower);
}

const struct blk_driver blk_filter_trace = {
    .name = "trace",
    .summary = "records each request in a file",
    .open = trace_open,
    .close = trace_close,
    .resize = trace_resize,
    .queue_open = trace_queue_open,
    .queue_close = trace_queue_close,
    .submit = trace_submit,
    .flush = blk_filter_flush,
    .poll = blk_filter_poll,
    .wait = blk_filter_wait,
    .drain = blk_filter_drain,
    .nr_kept = blk_filter_nr_kept,
    .options = trace_options,
    .nr_options = array_size(trace_options),
    .options_bytes = sizeof(struct trace_options),
    .options_judge = trace_judge,
};
