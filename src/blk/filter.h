/* SPDX-License-Identifier: MIT */
/* What filters are made of.  A filter's disk holds the disk below it; each of its queues holds
 * a queue of that one with as many requests, so that none ever waits for another to be free.
 *
 * A request goes down as a request of the lower queue, over the same vector, and is done when
 * that one is.  A filter may keep it first, and then say in wait() until when.  A queue's
 * state begins with a struct blk_filter_queue; the operations here are those of a filter
 * that adds nothing. */
#ifndef XENOLITH_BLK_FILTER_H
#define XENOLITH_BLK_FILTER_H

#include "blk/driver.h"

struct blk_filter_queue {
    struct blk_queue *lower;
    struct blk_req **upper;         /* by the lower request's index */
    struct blk_queue *queue;        /* the filter's own */
};

/* Opens the disk below.  *props are its, for the filter to change.  0 or -errno. */
int blk_filter_open(const struct blk_spec *spec, struct blk_disk **lower,
                    struct blk_props *props, struct err *e);

/* The disk below gets another size, and the filter's disk that one.  A request that comes between
 * the two is judged below as well. */
int blk_filter_resize(struct blk_disk *lower, uint64_t size_bytes, struct blk_props *props,
                      struct err *e);

/* A queue of lower for q, whose wake_fd is q's.  complete NULL: blk_filter_complete; its argument
 * is f.  0 or -errno. */
int blk_filter_queue_open(struct blk_filter_queue *f, struct blk_queue *q, struct blk_disk *lower,
                          void (*complete)(void *f, struct blk_req *lower), struct err *e);
/* The same with another wake_fd. */
int blk_filter_queue_open_fd(struct blk_filter_queue *f, struct blk_queue *q,
                             struct blk_disk *lower, int wake_fd,
                             void (*complete)(void *f, struct blk_req *lower), struct err *e);
void blk_filter_queue_close(struct blk_filter_queue *f);

/* The lower request that stands for req, over req's vector; to be submitted. */
struct blk_req *blk_filter_lower(struct blk_filter_queue *f, struct blk_req *req);
/* The same over a copy of the vector: req's own stays as it is. */
struct blk_req *blk_filter_lower_copy(struct blk_filter_queue *f, struct blk_req *req);
/* Hands it down, and takes it back if it was answered at once.  Not from within complete(). */
void blk_filter_submit(struct blk_filter_queue *f, struct blk_req *lower);
/* Both. */
void blk_filter_forward(struct blk_filter_queue *f, struct blk_req *req);
/* The request is done as the lower one is, which is put back. */
void blk_filter_complete(void *f, struct blk_req *lower);

/* The judge_apart() of one that may begin anew. */
int blk_filter_apart(const void *options, struct err *e);

void blk_filter_flush(struct blk_queue *q);
void blk_filter_poll(struct blk_queue *q);
bool blk_filter_wait(struct blk_queue *q, int64_t timeout_ns);
void blk_filter_drain(struct blk_queue *q);
unsigned blk_filter_nr_kept(const struct blk_queue *q);

/* The shorter of two timeouts as blk_queue_wait() has them: one, and from now to then. */
int64_t blk_filter_timeout(int64_t timeout_ns, uint64_t now_ns, uint64_t then_ns);

#endif
