/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd_record.h"

#include <errno.h>

#include "base/atomic.h"

struct layout {
    size_t slot, hold, kept, end;
};

static struct layout layout(uint32_t nr_entries)
{
    struct layout l;

    l.slot = align_up(sizeof(struct vbd_record_head), (size_t)CACHE_LINE_BYTES);
    l.hold = align_up(l.slot + nr_entries * sizeof(struct vbd_record_slot), (size_t)PAGE_SIZE);
    l.kept = align_up(l.hold + (size_t)nr_entries * VBD_SEGMENTS_MAX * sizeof(struct vbd_hold),
                      (size_t)PAGE_SIZE);
    l.end = l.kept + VBD_GRANTS_MAX * sizeof(uint64_t);
    return l;
}

size_t vbd_record_bytes(uint32_t nr_entries)
{
    return layout(nr_entries).end;
}

void vbd_record_lay(struct vbd_record *r, void *base, uint32_t nr_entries)
{
    struct layout l = layout(nr_entries);
    uint8_t *at = base;

    *r = (struct vbd_record){
        .head = (void *)at, .slot = (void *)(at + l.slot), .hold = (void *)(at + l.hold),
        .kept = (void *)(at + l.kept), .nr_entries = nr_entries,
    };
}

/* None of it is held by anybody any more. */
static void grants_settle(const struct vbd_record *r, struct gnttab_host *grants)
{
    for (uint32_t i = 0; i < r->nr_entries; i++) {
        uint32_t nr = min_of(r->slot[i].nr_holds, VBD_SEGMENTS_MAX);

        for (uint32_t h = 0; h < nr; h++)
            gnttab_host_settle(grants, r->hold[(size_t)i * VBD_SEGMENTS_MAX + h].ref);
        r->slot[i].nr_holds = 0;
    }
    for (uint32_t i = 0; i < VBD_GRANTS_MAX; i++) {
        if (!r->kept[i])
            continue;
        gnttab_host_settle(grants, (uint32_t)r->kept[i]);
        r->kept[i] = 0;
    }
}

/* Into its place by age. */
static void left_add(const struct vbd_record *r, struct vbd_record_left *left, uint32_t slot)
{
    uint32_t cons = r->head->req_cons, age = cons - r->slot[slot].seq;
    unsigned at = left->nr++;

    for (; at && cons - r->slot[left->slot[at - 1]].seq < age; at--)
        left->slot[at] = left->slot[at - 1];
    left->slot[at] = (uint16_t)slot;
}

int vbd_record_adopt(const struct vbd_record *r, uint32_t *rsp_prod, struct gnttab_host *grants,
                     struct vbd_record_left *left)
{
    struct vbd_record_head *head = r->head;
    uint32_t shown;

    left->nr = 0;
    if (!head->started) {
        head->req_cons = head->rsp_publishing = head->rsp_published = load_relaxed(rsp_prod);
        store_release(&head->started, 1);
        return 0;
    }
    grants_settle(r, grants);
    shown = head->rsp_publishing;
    if ((uint32_t)(shown - head->rsp_published) > r->nr_entries ||
        (uint32_t)(head->req_cons - shown) > r->nr_entries)
        return -EPROTO;
    store_release(rsp_prod, shown);
    for (uint32_t i = 0; i < r->nr_entries; i++) {
        struct vbd_record_slot *s = &r->slot[i];
        bool seen = s->state == VBD_RECORD_ANSWERED &&
                    (uint32_t)(s->rsp - head->rsp_published) <
                    (uint32_t)(shown - head->rsp_published);

        /* the other case: it is in the ring yet, and will be taken from there */
        if (seen || s->seq == head->req_cons)
            store_release(&s->state, VBD_RECORD_FREE);
        if (s->state == VBD_RECORD_FREE)
            continue;
        store_release(&s->state, VBD_RECORD_TAKEN);
        left_add(r, left, i);
    }
    store_release(&head->rsp_published, shown);
    /* more than were taken: the free slots would not last for the ring */
    return left->nr > head->req_cons - shown ? -EPROTO : 0;
}
