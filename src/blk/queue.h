/* SPDX-License-Identifier: MIT */
/* One queue of a disk, and the life of a request in it.
 *
 * A queue belongs to the thread that opened it: only that thread calls anything
 * here, except blk_queue_stats().  It may lend the queue, while nothing is in flight, to
 * another for blk_req_get(), _put(), _submit(), blk_queue_nr_inflight() and
 * blk_queue_reap_inline(); what is in flight when it comes back is the owner's to flush.
 * Queues of one disk share nothing they write.
 *
 *            blk_req_get          blk_req_submit        driver            blk_queue_reap
 *     FREE ---------------> OWNED ---------------> SUBMITTED ------> DONE -----------> OWNED
 *       ^                     |                                      complete(req) is called
 *       +---------------------+ blk_req_put
 *
 * A face fills an OWNED request, submits any number of them, then flushes once.
 * Whatever the driver makes of it, a submitted request comes back exactly once,
 * through complete(), and only from within blk_queue_reap(); then it is the
 * face's again, to be put back or submitted once more.  Requests are allocated
 * when the queue opens: their number bounds what can be in flight.
 */
#ifndef XENOLITH_BLK_QUEUE_H
#define XENOLITH_BLK_QUEUE_H

#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"
#include "blk/disk.h"

struct blk_queue;
struct blk_req;

enum blk_op {
    BLK_OP_READ,
    BLK_OP_WRITE,
    BLK_OP_FLUSH,           /* what completed before is on the medium after */
    BLK_OP_DISCARD,         /* contents become zero, or stay (some NBD servers) */
    BLK_OP_WRITE_ZEROES,
    BLK_NR_OPS,
};

enum blk_req_state { BLK_REQ_FREE, BLK_REQ_OWNED, BLK_REQ_SUBMITTED, BLK_REQ_DONE };

/* Requests of up to this many pieces carry their vector inside. */
#define BLK_REQ_IOV_INLINE 12

struct blk_req {
    /* the face's */
    enum blk_op op;
    bool fua;                   /* write: on the medium when it completes */
    unsigned nr_iov;
    struct iovec *iov;          /* room for what blk_req_get() was asked for; the
                                 * contents are the driver's until completion */
    uint64_t offset_bytes;      /* sector-aligned */
    uint64_t length_bytes;      /* sector-aligned; the vector's sum for data */
    int result;                 /* on completion: 0 or -errno */

    /* constant; faces keep what they need per request in arrays of their own */
    unsigned index;             /* 0 .. nr_reqs - 1 */

    /* the queue's */
    enum blk_req_state state;
    int iov_slot;               /* of the long vectors; -1: inline */
    struct blk_req *next;       /* in the free or the done list */

    /* the driver's, while submitted */
    uint64_t progress_bytes;
    unsigned step;

    struct iovec iov_inline[BLK_REQ_IOV_INLINE];
};

struct blk_queue_params {
    unsigned nr_reqs;           /* 1 .. BLK_QUEUE_REQS_MAX */
    unsigned max_iov;           /* pieces of the longest request */
    int wake_fd;                /* blk_queue_wait() returns when readable; -1: none */
    void (*complete)(void *arg, struct blk_req *req);
    void *arg;
};

#define BLK_QUEUE_REQS_MAX 4096u
#define BLK_QUEUE_IOV_MAX  1024     /* IOV_MAX */

/* Always on; written by the owner only, to be read from any thread. */
struct blk_stats {
    uint64_t requests[BLK_NR_OPS];  /* completed, with or without success */
    uint64_t bytes[BLK_NR_OPS];     /* of those with success */
    uint64_t errors;
    uint64_t inline_requests;       /* answered within submit, without waiting */
};

/* Called on the thread that is to own the queue.  0 or -errno. */
int blk_queue_open(struct blk_disk *d, const struct blk_queue_params *p,
                   struct blk_queue **out, struct err *e);
/* Nothing may be in flight: drain and reap until blk_queue_nr_inflight() is 0 first. */
void blk_queue_close(struct blk_queue *q);

/* An OWNED request with room for nr_iov pieces (at most max_iov), cleared; NULL
 * when all are in use. */
struct blk_req *blk_req_get(struct blk_queue *q, unsigned nr_iov);
void blk_req_put(struct blk_queue *q, struct blk_req *req);

/* A request outside the disk, or one the disk cannot do, is answered with an
 * error like any other: -EINVAL, -EROFS, -EOPNOTSUPP. */
void blk_req_submit(struct blk_queue *q, struct blk_req *req);
/* Hands what was submitted to the kernel, in one system call where one is needed. */
void blk_queue_flush(struct blk_queue *q);
/* Calls complete() for what is done, without waiting.  How many. */
unsigned blk_queue_reap(struct blk_queue *q);

/* The same for what was done within submit only: never enters the driver. */
unsigned blk_queue_reap_inline(struct blk_queue *q);

/* Sleeps until a completion is ready, wake_fd is readable, or timeout_ns have
 * passed (negative: no limit).  Flushes first.  True when wake_fd is readable;
 * it is left to the caller to read.  May return early. */
bool blk_queue_wait(struct blk_queue *q, int64_t timeout_ns);

/* Nothing but the next steps of what is in flight will be submitted: from now on nothing is
 * held back on purpose (a rate limit, a delay), and what would hang fails.  To be called
 * before waiting for nothing to be in flight, when that is for the end of the queue. */
void blk_queue_drain(struct blk_queue *q);

/* All that is in flight is kept on purpose, until a time that blk_queue_wait() knows: to poll
 * for it would be a waste.  Never true with nothing in flight. */
bool blk_queue_dormant(const struct blk_queue *q);

/* Submitted and not yet given to complete(). */
unsigned blk_queue_nr_inflight(const struct blk_queue *q);

/* Any thread; each figure is exact, their sum need not be. */
void blk_queue_stats(const struct blk_queue *q, struct blk_stats *out);

#endif
