/* SPDX-License-Identifier: MIT */
/* A virtqueue (virtio 1.2, sections 2.6 to 2.8), split or packed, seen from the device:
 * chains of buffers in, used buffers out.  It belongs to one thread.
 *
 * The driver can write every byte of it at any time.  So: a descriptor is copied once and
 * only the copy is looked at; an index is read once and judged against what the queue can
 * hold; a chain has no more descriptors than the queue.  A queue that makes no sense is
 * stopped for good (virtqueue_fault()), since nobody can know what the driver meant.
 *
 *   virtqueue_take() ... virtqueue_put() ...    any number, put in any order
 *   virtqueue_publish()                         the driver sees what was put
 *   virtqueue_arm(), virtqueue_disarm()         whether it notifies of more
 */
#ifndef XENOLITH_VIRTIO_VIRTQUEUE_H
#define XENOLITH_VIRTIO_VIRTQUEUE_H

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#include "base/types.h"
#include "mem/dirty_log.h"
#include "mem/shared_mem.h"

#define VIRTQUEUE_NUM_MAX 32768u
/* pieces of the longest chain: what one system call takes, a header and a status */
#define VIRTQUEUE_IOV_MAX 1026u

struct virtqueue_inflight;

struct virtqueue_params {
    const struct shared_mem *mem;       /* does not change while the queue is in use */
    const struct dirty_log *log;        /* of the driver's memory; NULL: not asked for */
    bool packed, event_idx, indirect;   /* as negotiated */
    unsigned num;                       /* entries; a power of two unless packed */
    void *desc, *driver, *device;       /* the three areas, virtqueue_areas() large */
    bool log_device;                    /* a split queue's used ring is logged, as if at ... */
    gpa_t log_device_at;
    uint32_t base;                      /* where to go on: virtqueue_base() */
    struct virtqueue_inflight *inflight;    /* NULL: not asked for */
};

/* One buffer.  The pieces may be changed, and last until the next virtqueue_take(). */
struct virtqueue_chain {
    uint16_t id;                /* for virtqueue_put(), with nr_descs */
    uint16_t nr_descs;          /* of the ring */
    uint16_t slot;              /* virtqueue_inflight's */
    unsigned nr_out, nr_in;     /* pieces to read, then pieces to write */
    struct iovec *iov;
};

struct virtqueue {
    struct virtqueue_params p;

    /* taking; of a packed queue, the index of a descriptor and its lap */
    uint16_t avail_idx;
    uint16_t avail_seen;        /* split: taken up to here without looking again */
    bool avail_wrap;
    bool disarmed;              /* split without event_idx and packed: the driver was told */
    unsigned nr_held;           /* taken, not put: chains if split, descriptors if packed */
    unsigned hint;              /* shared_mem_ptr()'s */

    /* putting */
    uint16_t used_idx;
    bool used_wrap;
    uint16_t batch_idx, batch_flags;    /* packed: the first that was put, shown last */
    uint32_t used_count, published_count;   /* of used_idx, without wrapping at num */

    const char *fault;
    struct iovec iov[VIRTQUEUE_IOV_MAX];
};

/* Bytes of the three areas, in the order of virtqueue_params, and the power of two that each
 * must be aligned to. */
struct virtqueue_areas { uint64_t bytes[3]; unsigned align[3]; };
void virtqueue_areas(bool packed, bool event_idx, unsigned num, struct virtqueue_areas *a);

/* Whether a queue can have num entries. */
bool virtqueue_num_valid(bool packed, unsigned num);

/* Nothing is allocated. */
void virtqueue_init(struct virtqueue *vq, const struct virtqueue_params *p);

/* 1: *c is the next buffer.  0: there is none now, or the queue has been stopped. */
int virtqueue_take(struct virtqueue *vq, struct virtqueue_chain *c);
/* The buffer is used; len bytes of it were written. */
void virtqueue_put(struct virtqueue *vq, uint16_t id, uint16_t nr_descs, uint16_t slot,
                   uint32_t len);
/* Shows the driver all that was put.  True when it asked to be notified. */
bool virtqueue_publish(struct virtqueue *vq);

/* Asks to be notified of the next buffer.  True when there is one already: do not sleep. */
bool virtqueue_arm(struct virtqueue *vq);
/* Asks not to be, as far as the driver can be asked. */
void virtqueue_disarm(struct virtqueue *vq);

/* Where another process would go on, in the coding of VHOST_USER_SET_VRING_BASE; everything
 * taken must have been put. */
uint32_t virtqueue_base(const struct virtqueue *vq);

/* Why the queue was stopped; NULL while it runs.  Text is constant. */
static inline const char *virtqueue_fault(const struct virtqueue *vq)
{
    return vq->fault;
}
/* Stops it, for what only the device could see. */
void virtqueue_stop(struct virtqueue *vq, const char *why);

/* len bytes were written at host, which came from a chain. */
void virtqueue_log(const struct virtqueue *vq, const void *host, uint64_t len);

#endif
