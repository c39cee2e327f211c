/* SPDX-License-Identifier: MIT */
/* One queue of a vhost-user block device: a thread that owns one virtqueue and one queue of
 * the engine, and shares nothing it writes with the other queues. */
#ifndef XENOLITH_DEV_VHOST_USER_BLK_QUEUE_H
#define XENOLITH_DEV_VHOST_USER_BLK_QUEUE_H

#include "base/err.h"
#include "blk/disk.h"
#include "blk/queue.h"
#include "dev/virtio_blk_ring.h"

struct vub_queue;

struct vub_queue_params {
    struct blk_disk *disk;
    struct vblk_ring_params ring;
    /* The client's, which may do with them what it likes at any time. */
    int kick_fd;
    int call_fd;
    int err_fd;                 /* written when the virtqueue is stopped */
    uint64_t poll_max_ns;       /* longest polling before a sleep; 0: none */
    int fault_fd;               /* eventfd of the device, written along with err_fd */
    const char *name;           /* of the thread */
};

struct vub_queue_counters {
    struct vblk_ring_counters ring;
    struct blk_stats blk;
    uint64_t wakes;             /* times something other than a completion ended a sleep */
    uint64_t sleeps;
    uint64_t polls_hit;         /* polling that met work before its window ended */
    uint64_t polls_missed;
};

/* Starts the thread; it has opened its engine queue when this returns.  0 or -errno. */
int vub_queue_start(const struct vub_queue_params *p, struct vub_queue **out, struct err *e);
/* Takes no more requests, waits for those in flight and answers them, ends the thread.
 * virtqueue_base(); *last is what was counted in the end. */
uint32_t vub_queue_stop(struct vub_queue *q, struct vub_queue_counters *last);

/* Why the virtqueue was stopped; NULL while it runs.  Any thread. */
const char *vub_queue_fault(const struct vub_queue *q);
/* Any thread; each figure is exact, their relations need not be. */
void vub_queue_counters(const struct vub_queue *q, struct vub_queue_counters *out);

#endif
