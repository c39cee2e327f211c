/* SPDX-License-Identifier: MIT */
/* One queue of a Xen virtual block device: a thread that owns one ring, one queue
 * of the engine and one event channel, and shares nothing it writes with the
 * other queues.  While it sleeps it may lend all three to the vCPU that rings. */
#ifndef XENOLITH_DEV_XEN_VBD_QUEUE_H
#define XENOLITH_DEV_XEN_VBD_QUEUE_H

#include "base/err.h"
#include "blk/disk.h"
#include "blk/queue.h"
#include "dev/xen_vbd_ring.h"
#include "xen/hostport.h"

struct vbd_queue;

struct vbd_queue_params {
    struct blk_disk *disk;
    struct vbd_ring_params ring;        /* pages stay mapped until the queue has stopped; with
                                         * a record, it goes on where that ends */
    struct xen_hostport *port;          /* the queue's alone until then */
    uint64_t poll_max_ns;               /* longest polling before a sleep, or longer where the
                                         * guest's exits are dear; 0: none */
    int fault_fd;                       /* eventfd, written once if the ring is stopped */
    const char *name;                   /* of the thread */
};

struct vbd_queue_counters {
    struct vbd_ring_counters ring;
    struct blk_stats blk;
    uint64_t interrupts;        /* notifies that took a system call */
    uint64_t kicks;             /* times the guest's notification ended a sleep */
    uint64_t sleeps;
    uint64_t calls;             /* times a vCPU's thread served in its place */
    uint64_t polls_hit;         /* polling that met work before its window ended */
    uint64_t polls_missed;
};

/* Starts the thread; it has opened its engine queue when this returns.  0 or
 * -errno. */
int vbd_queue_start(const struct vbd_queue_params *p, struct vbd_queue **out, struct err *e);

/* Takes no more requests, waits for those in flight and answers them, gives the
 * guest's pages back, ends the thread.  *last is what was counted in the end. */
void vbd_queue_stop(struct vbd_queue *q, struct vbd_queue_counters *last);

/* Why the ring was stopped; NULL while it runs.  Any thread. */
const char *vbd_queue_fault(const struct vbd_queue *q);
/* Any thread; each figure is exact, their relations need not be.  With a record, of all its
 * lives. */
void vbd_queue_counters(const struct vbd_queue *q, struct vbd_queue_counters *out);

/* The same of a queue of another process, from its record: as of some thousand requests ago, or
 * of when it slept last; and vbd_queue_fault(), copied to text, which then is not "". */
void vbd_record_counters(const struct vbd_record *r, struct vbd_queue_counters *out);
void vbd_record_fault(const struct vbd_record *r, char text[VBD_RECORD_FAULT_BYTES]);

void vbd_counters_add(struct vbd_queue_counters *sum, const struct vbd_queue_counters *c);

#endif
