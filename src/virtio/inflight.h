/* SPDX-License-Identifier: MIT */
/* What a virtqueue's device has taken and not yet given back, kept in memory that outlives its
 * process: whoever serves the queue next takes those buffers once more, in their order.
 *
 * The memory is the vhost-user front-end's to keep (VHOST_USER_GET_INFLIGHT_FD), and not to
 * be trusted: it is read once, when a queue begins, and judged; what is needed later is kept
 * here as well.  The layouts are those of the vhost-user specification. */
#ifndef XENOLITH_VIRTIO_INFLIGHT_H
#define XENOLITH_VIRTIO_INFLIGHT_H

#include "base/types.h"
#include "virtio/virtqueue.h"

/* Bytes for one queue; those of several follow each other. */
size_t virtqueue_inflight_bytes(bool packed, unsigned num);

/* NULL: out of memory.  region is virtqueue_inflight_bytes() large and stays the caller's;
 * one of zeroes is new. */
struct virtqueue_inflight *virtqueue_inflight_create(void *region, bool packed, unsigned num);
void virtqueue_inflight_free(struct virtqueue_inflight *f);

/* ---- for virtqueue.c ---- */

struct virtqueue_desc;

/* Sets where the queue goes on, if the region knows that. */
void virtqueue_inflight_begin(struct virtqueue *vq);
/* 1: *c was taken before and is to be done again.  0: nothing is.  -1: the queue stopped. */
int virtqueue_inflight_again(struct virtqueue *vq, struct virtqueue_chain *c);
/* A packed queue's descriptor is read, the nr-th of its chain from 0.  False: stopped. */
bool virtqueue_inflight_desc(struct virtqueue *vq, const struct virtqueue_desc *d, unsigned nr);
/* The chain is taken: sets c->slot. */
void virtqueue_inflight_take(struct virtqueue *vq, struct virtqueue_chain *c);
void virtqueue_inflight_put(struct virtqueue *vq, uint16_t slot);
/* Around the store that shows the driver what was put. */
void virtqueue_inflight_publish(struct virtqueue *vq);
void virtqueue_inflight_published(struct virtqueue *vq);

#endif
