/* SPDX-License-Identifier: MIT */
/* What a driver provides and what it may rely on.  A new driver is one file with
 * a struct blk_driver in it and one row in drivers.c.
 *
 * A filter (rate limit, delay, fault, overlay) is a driver too: its disk opens
 * another disk, each of its queues opens a queue of that one, passing wake_fd
 * down, and submit() forwards to it (filter.h).  Only its row is in a table of its
 * own, and it has options of its own (filter_options.h).
 *
 * submit() may be called by a thread that has borrowed the queue, for which it must
 * not wait.  What is not done when it returns is flushed, polled and waited for by the owner.
 *
 * Ranges, alignment, read-only and unsupported operations have been judged by
 * queue.c before a driver sees a request. */
#ifndef XENOLITH_BLK_DRIVER_H
#define XENOLITH_BLK_DRIVER_H

#include "blk/disk.h"
#include "blk/filter_options.h"
#include "blk/queue.h"

struct blk_driver {
    const char *name;
    const char *summary;        /* one line, for lists of drivers */

    /* Fills *props and *state.  0 or -errno with e set. */
    int (*open)(const struct blk_spec *spec, struct blk_props *props, void **state,
                struct err *e);
    void (*close)(void *state);
    /* As blk_disk_share(); NULL: it must be opened where it is served.  For a filter, whether
     * one with these options loses nothing that counts when its process is killed: 0, or -errno
     * with e; NULL: it does. */
    int (*share)(void *state);
    int (*judge_apart)(const void *options, struct err *e);
    /* As blk_disk_resize(), which has judged nothing; tells the size by blk_props_size_set(): a
     * larger one when it is there, a smaller one before it is.  NULL: sizes do not change. */
    int (*resize)(void *state, uint64_t size_bytes, struct blk_props *props, struct err *e);

    /* On the owner's thread; q->disk_state is set, *queue_state is the driver's. */
    int (*queue_open)(struct blk_queue *q, void **queue_state, struct err *e);
    void (*queue_close)(struct blk_queue *q);

    /* Takes the request; calls blk_req_done() for it exactly once, now or later. */
    void (*submit)(struct blk_queue *q, struct blk_req *req);
    void (*flush)(struct blk_queue *q);
    /* Calls blk_req_done() for what has become ready. */
    void (*poll)(struct blk_queue *q);
    /* As blk_queue_wait(). */
    bool (*wait)(struct blk_queue *q, int64_t timeout_ns);
    /* For who has to wait for two queues at once: an eventfd of the queue's that has been written
     * to whenever poll() finds something, until the queue is closed; or -errno. */
    int (*ready_fd)(struct blk_queue *q);
    /* As blk_queue_drain(), and how many requests blk_queue_dormant() means, which those
     * below have taken included; NULL: the driver keeps nothing back on purpose. */
    void (*drain)(struct blk_queue *q);
    unsigned (*nr_kept)(const struct blk_queue *q);

    /* A filter's: what may follow its name, read into options_bytes of zeroes and judged
     * together (NULL: nothing to judge).  open() finds them in spec->options. */
    const struct blk_option *options;
    unsigned nr_options;
    size_t options_bytes;
    int (*options_judge)(const void *options, struct err *e);
};

/* Every driver there is, and every filter; ended by NULL. */
extern const struct blk_driver *const blk_driver_table[];
extern const struct blk_driver *const blk_filter_table[];
/* NULL: there is none of that name. */
const struct blk_driver *blk_driver_find(const char *name);
const struct blk_driver *blk_filter_find(const char *name);

struct blk_disk {
    const struct blk_driver *driver;
    void *state;
    struct blk_props props;
};

struct blk_queue {
    const struct blk_driver *driver;
    const struct blk_disk *disk;
    void *disk_state;
    void *queue_state;
    struct blk_queue_params params;
    unsigned nr_inflight;
    unsigned nr_iov_free;
    struct blk_req *free;               /* last in, first out: few are touched */
    struct blk_req *done_head, **done_tail;
    struct blk_req *reqs;
    struct iovec *iovs;                 /* the long vectors, max_iov each */
    unsigned *iov_free;                 /* their free slots, a stack */
    cacheline_aligned struct blk_stats stats;
};

/* For drivers, in resize(): what queues judge requests by from now on. */
static inline void blk_props_size_set(struct blk_props *p, uint64_t size_bytes)
{
    store_release(&p->size_bytes, size_bytes);      /* pairs with blk_props_size() */
}

/* For drivers: the request is over; result is 0 or -errno. */
void blk_req_done(struct blk_queue *q, struct blk_req *req, int result);

/* Waits for nothing but wake_fd: the wait() of drivers that complete in submit(). */
bool blk_wait_fd(struct blk_queue *q, int64_t timeout_ns);

/* The first bytes of an I/O vector are done: drops them from req's. */
void blk_req_advance(struct blk_req *req, uint64_t bytes);
/* Zeroes the whole of req's vector. */
void blk_req_zero(struct blk_req *req);

/* One more, seen by readers on other threads. */
static inline void blk_stat_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

#endif
