/* SPDX-License-Identifier: MIT */
/* One virtqueue of a virtio block device (virtio 1.2, section 5.2): requests in, engine
 * requests out, status back.  It belongs to one thread, the one that owns the engine's queue,
 * and knows nothing of how the device is reached.
 *
 * A request that makes no sense gets VIRTIO_BLK_S_IOERR or S_UNSUPP and costs nobody else
 * anything; one in which not even a header and a status can be found stops the queue. */
#ifndef XENOLITH_DEV_VIRTIO_BLK_RING_H
#define XENOLITH_DEV_VIRTIO_BLK_RING_H

#include <linux/virtio_blk.h>

#include "blk/queue.h"
#include "virtio/virtqueue.h"

struct vblk_slot;

/* Written by the owner only, to be read from any thread. */
struct vblk_ring_counters {
    uint64_t requests;          /* taken */
    uint64_t errors;            /* answered with anything but VIRTIO_BLK_S_OK */
    uint64_t notifies;          /* batches of answers the driver wanted to hear of */
};

struct vblk_ring_params {
    struct virtqueue_params vq;
    const bool *writethrough;   /* a write is on the medium when it completes; may change */
    const char *serial;         /* at most VIRTIO_BLK_ID_BYTES count */
};

struct vblk_ring {
    struct virtqueue vq;
    struct blk_queue *queue;
    unsigned nr_reqs;
    const bool *writethrough;
    const char *serial;
    bool closed;
    struct vblk_slot *slot;     /* by request index */
    struct iovec *written;      /* VBLK_IOV_MAX for each: what reads write, if it is logged */
    struct vblk_ring_counters counters;
};

#define VBLK_IOV_MAX BLK_QUEUE_IOV_MAX

/* Engine requests that a queue of num entries needs. */
unsigned vblk_ring_nr_reqs(unsigned num);

/* 0 or -ENOMEM. */
int vblk_ring_init(struct vblk_ring *r, const struct vblk_ring_params *p);
/* The engine's queue, of vblk_ring_nr_reqs() requests of VBLK_IOV_MAX pieces, whose complete
 * callback must be vblk_ring_complete with r. */
void vblk_ring_set_queue(struct vblk_ring *r, struct blk_queue *queue);
/* Takes no more requests; those taken still get their answers. */
void vblk_ring_close(struct vblk_ring *r);
/* Nothing may be in flight. */
void vblk_ring_free(struct vblk_ring *r);

/* Takes up to max requests and submits them to the engine (not yet flushed).  How many. */
unsigned vblk_ring_take(struct vblk_ring *r, unsigned max);
void vblk_ring_complete(void *ring, struct blk_req *req);
/* Shows the driver all answers so far.  True when it asked to be notified. */
bool vblk_ring_publish(struct vblk_ring *r);
/* Asks the driver to notify of its next request.  True when there is one already that can be
 * taken: then do not sleep. */
bool vblk_ring_arm(struct vblk_ring *r);

#endif
