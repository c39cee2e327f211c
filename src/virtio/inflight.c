/* SPDX-License-Identifier: MIT */
/* A process may be killed between any two stores.  What has to hold at each of these moments
 * follows from one word of the queue itself, which tells whether the driver has seen a batch:
 *
 *   split    used->idx differs from the region's used_idx while a batch is shown and not yet
 *            marked done here; the batch is a list that begins at last_batch_head.
 *   packed   used_idx and free_head are what a batch makes of old_used_idx and old_free_head;
 *            while they differ, the descriptor at old_used_idx says whether it was shown, or
 *            `shown' does, while the old ones are being changed.
 *
 * So put() only collects, and the whole of a batch is written around the store that shows it;
 * taking, in between, finds the region at rest.  The kernel of the machine lives on and has
 * all stores in the order of the program, so the compiler alone must be kept from changing it.
 *
 * Whoever shares the region may write it at any time: an index that was judged is a copy.
 *
 * A slot is, of a split queue, the number of a chain's first descriptor; of a packed queue,
 * whose descriptors are overwritten, the entry in which a copy of the first one is kept. */
#include "virtio/inflight.h"

#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "virtio/virtqueue_priv.h"

#define REGION_VERSION 1u
#define REGION_ALIGN   64u
#define REGION_FAULT   "the record of requests in flight makes no sense"

struct split_state {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next;              /* in the batch */
    uint64_t counter;
};

struct split_region {
    uint64_t features;
    uint16_t version;
    uint16_t desc_num;
    uint16_t last_batch_head;
    uint16_t used_idx;
    struct split_state desc[];
};

struct packed_state {
    uint8_t inflight;
    uint8_t padding;
    uint16_t next;
    uint16_t last;
    uint16_t num;
    uint64_t counter;
    uint16_t id;
    uint16_t flags;
    uint32_t len;
    uint64_t addr;
};

struct packed_region {
    uint64_t features;
    uint16_t version;
    uint16_t desc_num;
    uint16_t free_head, old_free_head;
    uint16_t used_idx, old_used_idx;
    uint8_t used_wrap_counter, old_used_wrap_counter;
    uint8_t shown;              /* ours, of the padding: the old_ fields are being changed */
    uint8_t padding[6];
    struct packed_state desc[];
};

struct again { uint64_t counter; uint16_t slot, nr_descs; };

struct virtqueue_inflight {
    union {
        struct split_region *split;
        struct packed_region *packed;
    };
    unsigned num;
    uint64_t counter;
    uint16_t *batch;            /* slots put and not yet published */
    unsigned nr_batch;
    struct again *again;        /* to be taken once more, in order */
    unsigned nr_again, next_again;
    /* packed: ours, which the region's can only be compared with */
    uint16_t *next, *last;
    uint16_t free_head, head;
};

_Static_assert(sizeof(struct split_state) == 16 && sizeof(struct split_region) == 16, "ABI");
_Static_assert(sizeof(struct packed_state) == 32 && sizeof(struct packed_region) == 32, "ABI");

size_t virtqueue_inflight_bytes(bool packed, unsigned num)
{
    size_t bytes = packed ? sizeof(struct packed_region) + num * sizeof(struct packed_state)
                          : sizeof(struct split_region) + num * sizeof(struct split_state);

    return align_up(bytes, (size_t)REGION_ALIGN);
}

struct virtqueue_inflight *virtqueue_inflight_create(void *region, bool packed, unsigned num)
{
    struct virtqueue_inflight *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->split = region;
    f->num = num;
    f->batch = calloc(num, sizeof(*f->batch));
    f->again = calloc(num, sizeof(*f->again));
    f->next = calloc(num, sizeof(*f->next));
    f->last = calloc(num, sizeof(*f->last));
    if (!f->batch || !f->again || !f->next || !f->last) {
        virtqueue_inflight_free(f);
        return NULL;
    }
    return f;
}

void virtqueue_inflight_free(struct virtqueue_inflight *f)
{
    if (!f)
        return;
    free(f->last);
    free(f->next);
    free(f->again);
    free(f->batch);
    free(f);
}

static int again_order(const void *a, const void *b)
{
    const struct again *x = a, *y = b;

    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

static void again_sort(struct virtqueue_inflight *f)
{
    qsort(f->again, f->nr_again, sizeof(*f->again), again_order);
    if (f->nr_again)
        f->counter = f->again[f->nr_again - 1].counter + 1;
}

/* ---- split ---- */

static void split_begin(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    struct split_region *r = f->split;
    uint16_t shown = (uint16_t)(vq->used_idx - r->used_idx);

    if (r->version != REGION_VERSION || r->desc_num != f->num || shown > f->num) {
        memset(r, 0, virtqueue_inflight_bytes(false, f->num));
        r->desc_num = (uint16_t)f->num;
        r->used_idx = vq->used_idx;
        barrier_compiler();
        r->version = REGION_VERSION;
        return;
    }
    for (uint16_t i = load_relaxed(&r->last_batch_head); shown && i < f->num; shown--) {
        r->desc[i].inflight = 0;
        i = load_relaxed(&r->desc[i].next);
    }
    barrier_compiler();
    r->used_idx = vq->used_idx;
    for (unsigned i = 0; i < f->num; i++)
        if (r->desc[i].inflight)
            f->again[f->nr_again++] = (struct again){ r->desc[i].counter, (uint16_t)i, 1 };
    again_sort(f);
    /* what is not done was taken, and nothing else */
    vq->avail_idx = vq->avail_seen = (uint16_t)(vq->used_idx + f->nr_again);
    vq->nr_held = f->nr_again;
}

static void split_publish(struct virtqueue_inflight *f)
{
    for (unsigned i = 0; i < f->nr_batch; i++) {
        f->split->desc[f->batch[i]].next = f->split->last_batch_head;
        f->split->last_batch_head = f->batch[i];
    }
    barrier_compiler();
}

static void split_published(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;

    barrier_compiler();
    for (unsigned i = 0; i < f->nr_batch; i++)
        f->split->desc[f->batch[i]].inflight = 0;
    barrier_compiler();
    f->split->used_idx = vq->used_idx;
}

/* ---- packed ---- */

static void packed_new(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    struct packed_region *r = f->packed;

    memset(r, 0, virtqueue_inflight_bytes(true, f->num));
    r->desc_num = (uint16_t)f->num;
    r->used_idx = r->old_used_idx = vq->used_idx;
    r->used_wrap_counter = r->old_used_wrap_counter = vq->used_wrap;
    for (unsigned i = 0; i < f->num; i++)
        r->desc[i].next = f->next[i] = (uint16_t)(i + 1);
    barrier_compiler();
    r->version = REGION_VERSION;
}

/* Whether the batch that had begun was shown: its first descriptor is no longer available in
 * that lap.  By now it may be in the next one. */
static bool packed_was_shown(const struct virtqueue *vq, uint16_t old_used_idx, bool wrap)
{
    const struct vring_packed_desc *ring = vq->p.desc;
    uint16_t flags = load_relaxed(&ring[old_used_idx].flags);
    bool avail = flags & 1u << VRING_PACKED_DESC_F_AVAIL;
    bool used = flags & 1u << VRING_PACKED_DESC_F_USED;

    return !(avail == wrap && used != wrap);
}

/* Goes through the free list; what is not in it belongs to chains. False: it is no list. */
static bool packed_free_list(struct virtqueue_inflight *f, uint16_t i, unsigned nr_free)
{
    struct packed_region *r = f->packed;

    f->free_head = i;
    while (nr_free--) {
        if (i >= f->num)
            return false;
        r->desc[i].inflight = 0;
        f->next[i] = load_relaxed(&r->desc[i].next);
        i = f->next[i];
    }
    return true;
}

static bool packed_chains(struct virtqueue_inflight *f, unsigned *nr_descs)
{
    const struct packed_region *r = f->packed;

    *nr_descs = 0;
    for (unsigned i = 0; i < f->num; i++) {
        uint16_t at = (uint16_t)i, nr = load_relaxed(&r->desc[i].num);

        if (!r->desc[i].inflight)
            continue;
        *nr_descs += nr;
        if (!nr || *nr_descs > f->num)
            return false;
        f->again[f->nr_again++] = (struct again){ r->desc[i].counter, at, nr };
        while (--nr) {
            f->next[at] = load_relaxed(&r->desc[at].next);
            at = f->next[at];
            if (at >= f->num)
                return false;
        }
    }
    return true;
}

/* Of a batch that was not shown, the descriptors behind the first may already say that they are
 * used: whatever is shown before them next, they must not be taken for what follows it.  All
 * that was taken is the device's to write. */
static void packed_unuse(struct virtqueue *vq, unsigned nr_descs)
{
    struct vring_packed_desc *ring = vq->p.desc;
    unsigned at = vq->used_idx;
    bool wrap = vq->used_wrap;

    while (nr_descs--) {
        store_relaxed(&ring[at].flags, (uint16_t)(1u << (wrap ? VRING_PACKED_DESC_F_AVAIL
                                                              : VRING_PACKED_DESC_F_USED)));
        if (++at == vq->p.num) {
            at = 0;
            wrap = !wrap;
        }
    }
}

static bool packed_recover(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    struct packed_region *r = f->packed, was;
    unsigned nr_descs;

    memcpy(&was, r, sizeof(was));
    barrier_compiler();
    if (was.version != REGION_VERSION || was.desc_num != f->num || was.used_idx >= f->num ||
        was.old_used_idx >= f->num)
        return false;
    if ((was.used_idx != was.old_used_idx ||
         was.used_wrap_counter != was.old_used_wrap_counter) &&
        (was.shown || packed_was_shown(vq, was.old_used_idx, was.old_used_wrap_counter))) {
        was.old_free_head = was.free_head;
        was.old_used_idx = was.used_idx;
        was.old_used_wrap_counter = was.used_wrap_counter;
        r->shown = 1;
        barrier_compiler();
        r->old_free_head = was.old_free_head;
        r->old_used_idx = was.old_used_idx;
        r->old_used_wrap_counter = was.old_used_wrap_counter;
        barrier_compiler();
    }
    r->shown = 0;
    barrier_compiler();
    r->free_head = was.old_free_head;
    r->used_idx = was.old_used_idx;
    r->used_wrap_counter = was.old_used_wrap_counter;
    /* the free list first, which takes the mark from chains that were given back */
    for (uint16_t i = was.old_free_head, n = 0; i < f->num && n < f->num; n++) {
        r->desc[i].inflight = 0;
        i = load_relaxed(&r->desc[i].next);
    }
    if (!packed_chains(f, &nr_descs) ||
        !packed_free_list(f, was.old_free_head, f->num - nr_descs))
        return false;
    again_sort(f);
    vq->used_idx = was.old_used_idx;
    vq->used_wrap = was.old_used_wrap_counter;
    vq->avail_idx = (uint16_t)((vq->used_idx + nr_descs) % f->num);
    vq->avail_wrap = vq->used_wrap ^ (vq->used_idx + nr_descs >= f->num);
    vq->nr_held = nr_descs;
    packed_unuse(vq, nr_descs);
    return true;
}

static void packed_begin(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;

    if (!packed_recover(vq)) {
        f->nr_again = 0;
        f->free_head = 0;
        packed_new(vq);
    }
}

/* One chain's descriptors go to entries from the free list, in its order. */
bool virtqueue_inflight_desc(struct virtqueue *vq, const struct virtqueue_desc *d, unsigned nr)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    uint16_t at = nr ? f->next[f->last[f->head]] : f->free_head;
    struct packed_state *s = &f->packed->desc[at];

    /* as many entries as the queue has descriptors: there is one, unless the region that
     * the queue began with lied */
    if (at >= f->num)
        return virtqueue_fail(vq, REGION_FAULT);
    if (!nr)
        f->head = at;
    f->last[f->head] = at;
    s->addr = d->addr;
    s->len = d->len;
    s->flags = d->flags;
    s->id = d->next_or_id;
    return true;
}

static void packed_take(struct virtqueue *vq, struct virtqueue_chain *c)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    struct packed_region *r = f->packed;
    struct packed_state *head = &r->desc[f->head];

    f->free_head = f->next[f->last[f->head]];
    head->num = c->nr_descs;
    head->last = f->last[f->head];
    head->counter = f->counter++;
    barrier_compiler();
    head->inflight = 1;
    barrier_compiler();
    r->free_head = f->free_head;
    r->old_free_head = f->free_head;
    c->slot = f->head;
}

static void packed_publish(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    struct packed_region *r = f->packed;

    for (unsigned i = 0; i < f->nr_batch; i++) {
        uint16_t slot = f->batch[i], last = f->last[slot];

        r->desc[last].next = f->next[last] = f->free_head;
        r->free_head = f->free_head = slot;
    }
    r->used_wrap_counter = vq->used_wrap;
    r->used_idx = vq->used_idx;
    barrier_compiler();
}

static void packed_published(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    struct packed_region *r = f->packed;

    barrier_compiler();
    for (unsigned i = 0; i < f->nr_batch; i++)
        r->desc[f->batch[i]].inflight = 0;
    barrier_compiler();
    r->shown = 1;
    barrier_compiler();
    r->old_free_head = f->free_head;
    r->old_used_wrap_counter = vq->used_wrap;
    r->old_used_idx = vq->used_idx;
    barrier_compiler();
    r->shown = 0;
}

/* The chain of nr descriptors that is kept in entries from slot on. */
static bool packed_chain(struct virtqueue *vq, const struct again *again,
                         struct virtqueue_chain *c)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    uint16_t at = again->slot;

    c->nr_descs = again->nr_descs;
    for (unsigned nr = again->nr_descs; nr; nr--, at = f->next[at]) {
        struct packed_state s;
        struct virtqueue_desc d;

        if (at >= f->num)
            return virtqueue_fail(vq, REGION_FAULT);
        s = f->packed->desc[at];
        barrier_compiler();     /* what is judged is what was copied */
        d = (struct virtqueue_desc){ s.addr, s.len, s.flags, s.id };
        c->id = s.id;
        f->last[again->slot] = at;
        if (!(d.flags & VRING_DESC_F_INDIRECT ? virtqueue_chain_indirect(vq, c, &d)
                                              : virtqueue_chain_add(vq, c, &d)))
            return false;
    }
    return true;
}

/* ---- both ---- */

void virtqueue_inflight_begin(struct virtqueue *vq)
{
    if (vq->p.packed)
        packed_begin(vq);
    else
        split_begin(vq);
}

int virtqueue_inflight_again(struct virtqueue *vq, struct virtqueue_chain *c)
{
    struct virtqueue_inflight *f = vq->p.inflight;
    const struct again *again;

    if (likely(f->next_again == f->nr_again))
        return 0;
    again = &f->again[f->next_again++];
    c->slot = again->slot;
    return (vq->p.packed ? packed_chain(vq, again, c)
                         : virtqueue_split_chain(vq, again->slot, c)) ? 1 : -1;
}

void virtqueue_inflight_take(struct virtqueue *vq, struct virtqueue_chain *c)
{
    struct virtqueue_inflight *f = vq->p.inflight;

    if (vq->p.packed) {
        packed_take(vq, c);
        return;
    }
    c->slot = c->id;
    f->split->desc[c->id].counter = f->counter++;
    barrier_compiler();
    f->split->desc[c->id].inflight = 1;
}

void virtqueue_inflight_put(struct virtqueue *vq, uint16_t slot)
{
    struct virtqueue_inflight *f = vq->p.inflight;

    /* never more than are held: at most num */
    f->batch[f->nr_batch++] = slot;
}

void virtqueue_inflight_publish(struct virtqueue *vq)
{
    if (vq->p.packed)
        packed_publish(vq);
    else
        split_publish(vq->p.inflight);
}

void virtqueue_inflight_published(struct virtqueue *vq)
{
    struct virtqueue_inflight *f = vq->p.inflight;

    if (vq->p.packed)
        packed_published(vq);
    else
        split_published(vq);
    f->nr_batch = 0;
}
