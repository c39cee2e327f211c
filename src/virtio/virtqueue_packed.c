/* SPDX-License-Identifier: MIT */
/* Packed virtqueues (virtio 1.2, section 2.8): one ring that driver and device write in turn.
 * Two bits of a descriptor's flags say whose it is: it is available when AVAIL is the lap of
 * whoever looks and USED is not, and used when both are.  A lap is a bit that flips each time
 * an index passes the ring's end.
 *
 * The driver looks for used descriptors in order, so of several that are put at once the first
 * is shown last.  Event positions are an index and its lap; they are compared as counts of
 * descriptors, in which the ring's size does not matter. */
#include <string.h>

#include "base/atomic.h"
#include "virtio/inflight.h"
#include "virtio/virtqueue_priv.h"

#define FLAG_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define FLAG_USED  (1u << VRING_PACKED_DESC_F_USED)
#define EVENT_WRAP (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

static struct vring_packed_desc *ring(const struct virtqueue *vq)
{
    return vq->p.desc;
}

static bool is_avail(const struct virtqueue *vq, uint16_t flags)
{
    return !!(flags & FLAG_AVAIL) == vq->avail_wrap && !!(flags & FLAG_USED) != vq->avail_wrap;
}

/* index + n, which is at most num; the lap changes with the end */
static void advance(const struct virtqueue *vq, uint16_t *index, bool *wrap, unsigned n)
{
    unsigned next = *index + n;

    if (next >= vq->p.num) {
        next -= vq->p.num;
        *wrap = !*wrap;
    }
    *index = (uint16_t)next;
}

int virtqueue_packed_take(struct virtqueue *vq, struct virtqueue_chain *c)
{
    uint16_t at = vq->avail_idx;
    bool wrap = vq->avail_wrap;
    unsigned nr = 0;
    struct virtqueue_desc d;

    /* pairs with the driver's barrier before it writes the first one's flags */
    if (!is_avail(vq, load_acquire(&ring(vq)[at].flags)))
        return 0;
    do {
        struct vring_packed_desc in;

        if (nr == vq->p.num - vq->nr_held) {
            virtqueue_fail(vq, "more descriptors are available than the queue has");
            return 0;
        }
        memcpy(&in, &ring(vq)[at], sizeof(in));
        barrier_compiler();     /* what is judged is what was copied */
        d = (struct virtqueue_desc){ in.addr, in.len, in.flags, in.id };
        if (unlikely(vq->p.inflight) && !virtqueue_inflight_desc(vq, &d, nr))
            return 0;
        nr++;
        advance(vq, &at, &wrap, 1);
        if (d.flags & VRING_DESC_F_INDIRECT) {
            if (d.flags & VRING_DESC_F_NEXT) {
                virtqueue_fail(vq, "an indirect descriptor that has a next one");
                return 0;
            }
            if (!virtqueue_chain_indirect(vq, c, &d))
                return 0;
        } else if (!virtqueue_chain_add(vq, c, &d)) {
            return 0;
        }
    } while (d.flags & VRING_DESC_F_NEXT);
    c->id = d.next_or_id;
    c->nr_descs = (uint16_t)nr;
    vq->avail_idx = at;
    vq->avail_wrap = wrap;
    return 1;
}

static void packed_log(const struct virtqueue *vq, const void *host, uint64_t len)
{
    if (vq->p.log)
        virtqueue_log(vq, host, len);
}

void virtqueue_packed_put(struct virtqueue *vq, uint16_t id, uint16_t nr_descs, uint32_t len)
{
    struct vring_packed_desc *d = &ring(vq)[vq->used_idx];
    uint16_t flags = (uint16_t)((vq->used_wrap ? FLAG_AVAIL | FLAG_USED : 0) |
                                (len ? VRING_DESC_F_WRITE : 0));

    store_relaxed(&d->id, id);
    store_relaxed(&d->len, len);
    if (vq->used_count == vq->published_count) {
        vq->batch_idx = vq->used_idx;
        vq->batch_flags = flags;
    } else {
        store_relaxed(&d->flags, flags);    /* seen behind the first, which is a release */
    }
    packed_log(vq, d, sizeof(*d));
    advance(vq, &vq->used_idx, &vq->used_wrap, nr_descs);
}

bool virtqueue_packed_publish(struct virtqueue *vq)
{
    const struct vring_packed_desc_event *driver = vq->p.driver;
    uint32_t old = vq->published_count, new = vq->used_count, event;
    uint16_t flags, off_wrap;

    /* pairs with the driver's barrier after it reads flags */
    store_release(&ring(vq)[vq->batch_idx].flags, vq->batch_flags);
    packed_log(vq, &ring(vq)[vq->batch_idx], sizeof(struct vring_packed_desc));
    /* pairs with the driver's between its wish to be notified and its last look */
    barrier_full();
    flags = load_relaxed(&driver->flags);
    if (!vq->p.event_idx || flags != VRING_PACKED_EVENT_FLAG_DESC)
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    off_wrap = load_acquire(&driver->off_wrap);     /* written before flags */
    /* where this lap began, plus the offset; or the lap before */
    event = new - vq->used_idx + (off_wrap & (EVENT_WRAP - 1));
    if (!!(off_wrap & EVENT_WRAP) != vq->used_wrap)
        event -= vq->p.num;
    return (uint32_t)(new - event - 1) < (uint32_t)(new - old);
}

bool virtqueue_packed_arm(struct virtqueue *vq)
{
    struct vring_packed_desc_event *device = vq->p.device;

    if (vq->p.event_idx) {
        store_relaxed(&device->off_wrap,
                      (uint16_t)(vq->avail_idx | (vq->avail_wrap ? EVENT_WRAP : 0)));
        /* pairs with the driver's barrier between flags and off_wrap */
        store_release(&device->flags, (uint16_t)VRING_PACKED_EVENT_FLAG_DESC);
        packed_log(vq, device, sizeof(*device));
    } else if (vq->disarmed) {
        store_relaxed(&device->flags, (uint16_t)VRING_PACKED_EVENT_FLAG_ENABLE);
        packed_log(vq, device, sizeof(*device));
    }
    vq->disarmed = false;
    /* pairs with the driver's between descriptors and its look at this */
    barrier_full();
    return is_avail(vq, load_relaxed(&ring(vq)[vq->avail_idx].flags));
}

void virtqueue_packed_disarm(struct virtqueue *vq)
{
    struct vring_packed_desc_event *device = vq->p.device;

    /* as in a split queue, a position that stays behind does it */
    if (vq->p.event_idx || vq->disarmed)
        return;
    store_relaxed(&device->flags, (uint16_t)VRING_PACKED_EVENT_FLAG_DISABLE);
    packed_log(vq, device, sizeof(*device));
    vq->disarmed = true;
}
