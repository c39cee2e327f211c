/* SPDX-License-Identifier: MIT */
/* Split virtqueues (virtio 1.2, section 2.7).  Indices count on without regard to the queue's
 * size and wrap at 65536.
 *
 * The driver has never made more chains available than the queue has entries and the device
 * has not yet used: that bounds its index whatever it was before. */
#include <string.h>

#include "base/atomic.h"
#include "virtio/virtqueue_priv.h"

static const struct vring_avail *avail_ring(const struct virtqueue *vq)
{
    return vq->p.driver;
}

static struct vring_used *used_ring(const struct virtqueue *vq)
{
    return vq->p.device;
}

/* used_event and avail_event lie behind the other side's ring */
static const uint16_t *used_event(const struct virtqueue *vq)
{
    return &avail_ring(vq)->ring[vq->p.num];
}

static uint16_t *avail_event(const struct virtqueue *vq)
{
    return (uint16_t *)(void *)&used_ring(vq)->ring[vq->p.num];
}

static void device_log(const struct virtqueue *vq, const void *host, uint64_t len)
{
    if (vq->p.log && vq->p.log_device)
        dirty_log_mark(vq->p.log, gpa(vq->p.log_device_at.v +
                       (uint64_t)((const char *)host - (const char *)vq->p.device)), len);
}

static bool avail_look(struct virtqueue *vq)
{
    /* pairs with the driver's barrier between descriptors, ring and idx */
    uint16_t idx = load_acquire(&avail_ring(vq)->idx);

    if (idx == vq->avail_idx)
        return false;
    if ((uint16_t)(idx - vq->avail_idx) > vq->p.num - vq->nr_held)
        return virtqueue_fail(vq, "the driver's available index is impossible");
    vq->avail_seen = idx;
    return true;
}

bool virtqueue_split_chain(struct virtqueue *vq, uint16_t head, struct virtqueue_chain *c)
{
    const struct vring_desc *table = vq->p.desc;
    unsigned left = vq->p.num;
    unsigned i = head;

    c->id = head;
    for (;;) {
        struct virtqueue_desc d;

        _Static_assert(sizeof(d) == sizeof(*table), "a descriptor, as it lies there");
        if (i >= vq->p.num)
            return virtqueue_fail(vq, "a descriptor's number is beyond the queue");
        if (!left--)
            return virtqueue_fail(vq, "a chain of descriptors is a loop");
        memcpy(&d, &table[i], sizeof(d));
        barrier_compiler();     /* what is judged is what was copied */
        if (d.flags & VRING_DESC_F_INDIRECT) {
            if (d.flags & VRING_DESC_F_NEXT)
                return virtqueue_fail(vq, "an indirect descriptor that has a next one");
            return virtqueue_chain_indirect(vq, c, &d);
        }
        if (!virtqueue_chain_add(vq, c, &d))
            return false;
        if (!(d.flags & VRING_DESC_F_NEXT))
            return true;
        i = d.next_or_id;
    }
}

int virtqueue_split_take(struct virtqueue *vq, struct virtqueue_chain *c)
{
    uint16_t head;

    if (vq->avail_idx == vq->avail_seen && !avail_look(vq))
        return 0;
    head = load_relaxed(&avail_ring(vq)->ring[vq->avail_idx & (vq->p.num - 1)]);
    if (!virtqueue_split_chain(vq, head, c))
        return 0;
    vq->avail_idx++;
    return 1;
}

void virtqueue_split_put(struct virtqueue *vq, uint16_t id, uint32_t len)
{
    struct vring_used_elem *elem = &used_ring(vq)->ring[vq->used_idx & (vq->p.num - 1)];

    store_relaxed(&elem->id, (uint32_t)id);
    store_relaxed(&elem->len, len);
    device_log(vq, elem, sizeof(*elem));
    vq->used_idx++;
}

bool virtqueue_split_publish(struct virtqueue *vq)
{
    uint16_t old = (uint16_t)vq->published_count, new = (uint16_t)vq->used_count;

    /* pairs with the driver's barrier after it reads idx */
    store_release(&used_ring(vq)->idx, vq->used_idx);
    device_log(vq, &used_ring(vq)->idx, sizeof(uint16_t));
    /* pairs with the driver's between its wish to be notified and its last look at idx:
     * either it sees what was put or we see the wish */
    barrier_full();
    if (!vq->p.event_idx)
        return !(load_relaxed(&avail_ring(vq)->flags) & VRING_AVAIL_F_NO_INTERRUPT);
    return vring_need_event(load_relaxed(used_event(vq)), vq->used_idx,
                            (uint16_t)(vq->used_idx - (uint16_t)(new - old)));
}

bool virtqueue_split_arm(struct virtqueue *vq)
{
    if (vq->p.event_idx) {
        store_relaxed(avail_event(vq), vq->avail_idx);
        device_log(vq, avail_event(vq), sizeof(uint16_t));
    } else if (vq->disarmed) {
        store_relaxed(&used_ring(vq)->flags, (uint16_t)0);
        device_log(vq, &used_ring(vq)->flags, sizeof(uint16_t));
        vq->disarmed = false;
    }
    /* pairs with the driver's between idx and its look at avail_event or flags */
    barrier_full();
    return load_relaxed(&avail_ring(vq)->idx) != vq->avail_idx;
}

/* With event_idx, an avail_event that stays behind does it. */
void virtqueue_split_disarm(struct virtqueue *vq)
{
    if (vq->p.event_idx || vq->disarmed)
        return;
    store_relaxed(&used_ring(vq)->flags, (uint16_t)VRING_USED_F_NO_NOTIFY);
    device_log(vq, &used_ring(vq)->flags, sizeof(uint16_t));
    vq->disarmed = true;
}
