/* SPDX-License-Identifier: MIT */
/* What the two formats of virtqueues share. */
#ifndef XENOLITH_VIRTIO_VIRTQUEUE_PRIV_H
#define XENOLITH_VIRTIO_VIRTQUEUE_PRIV_H

#include "virtio/virtqueue.h"

/* A descriptor of either format, copied. */
struct virtqueue_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;     /* VRING_DESC_F_ */
    uint16_t next_or_id;
};

/* The piece or pieces of memory that d names go to the end of c.  False: stopped. */
bool virtqueue_chain_add(struct virtqueue *vq, struct virtqueue_chain *c,
                         const struct virtqueue_desc *d);
/* The table that d names, of either format.  False: stopped. */
bool virtqueue_chain_indirect(struct virtqueue *vq, struct virtqueue_chain *c,
                              const struct virtqueue_desc *d);
/* Stops the queue; false. */
bool virtqueue_fail(struct virtqueue *vq, const char *why);

int virtqueue_split_take(struct virtqueue *vq, struct virtqueue_chain *c);
/* The chain that begins at head, taken again. */
bool virtqueue_split_chain(struct virtqueue *vq, uint16_t head, struct virtqueue_chain *c);
void virtqueue_split_put(struct virtqueue *vq, uint16_t id, uint32_t len);
bool virtqueue_split_publish(struct virtqueue *vq);
bool virtqueue_split_arm(struct virtqueue *vq);
void virtqueue_split_disarm(struct virtqueue *vq);

int virtqueue_packed_take(struct virtqueue *vq, struct virtqueue_chain *c);
void virtqueue_packed_put(struct virtqueue *vq, uint16_t id, uint16_t nr_descs, uint32_t len);
bool virtqueue_packed_publish(struct virtqueue *vq);
bool virtqueue_packed_arm(struct virtqueue *vq);
void virtqueue_packed_disarm(struct virtqueue *vq);

#endif
