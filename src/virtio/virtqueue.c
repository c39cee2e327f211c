/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "base/atomic.h"
#include "virtio/inflight.h"
#include "virtio/virtqueue_priv.h"

void virtqueue_areas(bool packed, bool event_idx, unsigned num, struct virtqueue_areas *a)
{
    uint64_t event = event_idx ? sizeof(uint16_t) : 0;

    *a = packed ? (struct virtqueue_areas){
        .bytes = { num * sizeof(struct vring_packed_desc),
                   sizeof(struct vring_packed_desc_event),
                   sizeof(struct vring_packed_desc_event) },
        .align = { 16, 4, 4 },
    } : (struct virtqueue_areas){
        .bytes = { num * sizeof(struct vring_desc),
                   sizeof(struct vring_avail) + num * sizeof(uint16_t) + event,
                   sizeof(struct vring_used) + num * sizeof(struct vring_used_elem) + event },
        .align = { 16, 2, 4 },
    };
}

bool virtqueue_num_valid(bool packed, unsigned num)
{
    return num && num <= VIRTQUEUE_NUM_MAX && (packed || !(num & (num - 1)));
}

/* The coding of a packed queue's base: index and lap of taking, then those of putting. */
#define BASE_INDEX 0x7fffu
#define BASE_WRAP  0x8000u

void virtqueue_init(struct virtqueue *vq, const struct virtqueue_params *p)
{
    memset(vq, 0, offsetof(struct virtqueue, iov));
    vq->p = *p;
    if (p->packed) {
        /* an index that is none of the queue's would be one of its neighbour's memory */
        vq->avail_idx = (uint16_t)((p->base & BASE_INDEX) % p->num);
        vq->avail_wrap = p->base & BASE_WRAP;
        vq->used_idx = (uint16_t)((p->base >> 16 & BASE_INDEX) % p->num);
        vq->used_wrap = p->base >> 16 & BASE_WRAP;
    } else {
        const struct vring_used *used = p->device;

        vq->avail_idx = vq->avail_seen = (uint16_t)p->base;
        vq->used_idx = load_relaxed(&used->idx);
        vq->disarmed = load_relaxed(&used->flags) & VRING_USED_F_NO_NOTIFY;
    }
    if (p->inflight)
        virtqueue_inflight_begin(vq);
    if (p->packed)
        /* as if it had been; arming then sets whatever another process left there */
        vq->disarmed = true;
}

uint32_t virtqueue_base(const struct virtqueue *vq)
{
    if (!vq->p.packed)
        return vq->avail_idx;
    return (uint32_t)vq->avail_idx | (vq->avail_wrap ? BASE_WRAP : 0) |
           ((uint32_t)vq->used_idx | (vq->used_wrap ? BASE_WRAP : 0)) << 16;
}

bool virtqueue_fail(struct virtqueue *vq, const char *why)
{
    if (!vq->fault)
        vq->fault = why;
    return false;
}

void virtqueue_stop(struct virtqueue *vq, const char *why)
{
    virtqueue_fail(vq, why);
}

bool virtqueue_chain_add(struct virtqueue *vq, struct virtqueue_chain *c,
                         const struct virtqueue_desc *d)
{
    bool write = d->flags & VRING_DESC_F_WRITE;
    uint64_t at = d->addr, left = d->len;

    if (!write && c->nr_in)
        return virtqueue_fail(vq, "a piece to read behind one to write");
    while (left) {
        uint64_t part = left;
        void *host = shared_mem_ptr(vq->p.mem, gpa(at), &part, &vq->hint);

        if (!host)
            return virtqueue_fail(vq, "a descriptor names memory that is not there");
        if (c->nr_out + c->nr_in == VIRTQUEUE_IOV_MAX)
            return virtqueue_fail(vq, "a chain has more pieces than can be served");
        vq->iov[c->nr_out + c->nr_in] = (struct iovec){ host, part };
        if (write)
            c->nr_in++;
        else
            c->nr_out++;
        at += part;
        left -= part;
    }
    return true;
}

/* One descriptor of an indirect table, which may lie across regions. */
static bool table_read(struct virtqueue *vq, uint64_t at, void *out)
{
    uint64_t left = sizeof(struct vring_desc);
    char *to = out;

    while (left) {
        uint64_t part = left;
        const void *host = shared_mem_ptr(vq->p.mem, gpa(at), &part, &vq->hint);

        if (!host)
            return virtqueue_fail(vq, "an indirect table is not in memory");
        memcpy(to, host, part);
        to += part;
        at += part;
        left -= part;
    }
    barrier_compiler();     /* what is judged is what was copied */
    return true;
}

bool virtqueue_chain_indirect(struct virtqueue *vq, struct virtqueue_chain *c,
                              const struct virtqueue_desc *table)
{
    unsigned nr = table->len / (unsigned)sizeof(struct vring_desc), i = 0, left = nr;

    if (!vq->p.indirect)
        return virtqueue_fail(vq, "an indirect descriptor, which was not negotiated");
    if (!nr || table->len % sizeof(struct vring_desc))
        return virtqueue_fail(vq, "an indirect table of an impossible size");
    for (;;) {
        struct virtqueue_desc d;

        if (!left--)
            return virtqueue_fail(vq, "an indirect table is a loop");
        if (vq->p.packed) {
            struct vring_packed_desc in;

            if (!table_read(vq, table->addr + i * sizeof(in), &in))
                return false;
            d = (struct virtqueue_desc){ in.addr, in.len, in.flags, in.id };
            /* in order, and all of them: there is no next */
            d.flags = (uint16_t)((d.flags & ~VRING_DESC_F_NEXT) |
                                 (i + 1 < nr ? VRING_DESC_F_NEXT : 0));
            d.next_or_id = (uint16_t)(i + 1);
        } else if (!table_read(vq, table->addr + i * sizeof(d), &d)) {
            return false;
        }
        if (d.flags & VRING_DESC_F_INDIRECT)
            return virtqueue_fail(vq, "an indirect table in another");
        if (!virtqueue_chain_add(vq, c, &d))
            return false;
        if (!(d.flags & VRING_DESC_F_NEXT))
            return true;
        i = d.next_or_id;
        if (i >= nr)
            return virtqueue_fail(vq, "an indirect table names a descriptor beyond its end");
    }
}

int virtqueue_take(struct virtqueue *vq, struct virtqueue_chain *c)
{
    int taken;

    c->nr_descs = 1;
    c->nr_out = c->nr_in = 0;
    c->iov = vq->iov;
    if (unlikely(vq->fault))
        return 0;
    if (unlikely(vq->p.inflight)) {
        taken = virtqueue_inflight_again(vq, c);
        if (taken)
            return taken > 0;
    }
    taken = vq->p.packed ? virtqueue_packed_take(vq, c) : virtqueue_split_take(vq, c);
    if (taken) {
        vq->nr_held += c->nr_descs;
        if (unlikely(vq->p.inflight))
            virtqueue_inflight_take(vq, c);
    }
    return taken;
}

void virtqueue_put(struct virtqueue *vq, uint16_t id, uint16_t nr_descs, uint16_t slot,
                   uint32_t len)
{
    if (vq->p.packed)
        virtqueue_packed_put(vq, id, nr_descs, len);
    else
        virtqueue_split_put(vq, id, len);
    if (unlikely(vq->p.inflight))
        virtqueue_inflight_put(vq, slot);
    vq->used_count += nr_descs;
    vq->nr_held -= nr_descs;
}

bool virtqueue_publish(struct virtqueue *vq)
{
    bool notify;

    if (vq->used_count == vq->published_count)
        return false;
    if (unlikely(vq->p.inflight))
        virtqueue_inflight_publish(vq);
    notify = vq->p.packed ? virtqueue_packed_publish(vq) : virtqueue_split_publish(vq);
    vq->published_count = vq->used_count;
    if (unlikely(vq->p.inflight))
        virtqueue_inflight_published(vq);
    return notify;
}

bool virtqueue_arm(struct virtqueue *vq)
{
    if (vq->fault)
        return false;
    return vq->p.packed ? virtqueue_packed_arm(vq) : virtqueue_split_arm(vq);
}

void virtqueue_disarm(struct virtqueue *vq)
{
    if (vq->p.packed)
        virtqueue_packed_disarm(vq);
    else
        virtqueue_split_disarm(vq);
}

void virtqueue_log(const struct virtqueue *vq, const void *host, uint64_t len)
{
    if (vq->p.log && vq->p.log->bits)
        dirty_log_mark(vq->p.log, shared_mem_gpa(vq->p.mem, host), len);
}
