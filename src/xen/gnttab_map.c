/* SPDX-License-Identifier: MIT */
/* Mapping one's own grants (GNTTABOP_map_grant_ref and what undoes it), and what a
 * guest is told of others'.  A handle holds an entry in use as long as one of its two
 * mappings, for the host and for devices, is there; t->lock guards the handles. */
#include "base/atomic.h"
#include "xen/gnttab.h"

#define MAP_KINDS (GNTMAP_host_map | GNTMAP_device_map)

void gnttab_mapper_set(struct gnttab *t, const struct gnttab_mapper *mapper, void *ctx)
{
    t->mapper = mapper;
    t->mapper_ctx = ctx;
}

static const struct gnttab_handle *same_ref(const struct gnttab *t, grant_ref_t ref)
{
    for (unsigned i = 0; i < GNTTAB_HANDLES_MAX; i++)
        if ((t->handle[i].flags & MAP_KINDS) && t->handle[i].ref == ref)
            return &t->handle[i];
    return NULL;
}

bool gnttab_maps_writable(struct gnttab *t, uint64_t mfn)
{
    bool found = false;

    if (!load_relaxed(&t->nr_handles))
        return false;
    spin_lock(&t->lock);
    for (unsigned i = 0; !found && i < GNTTAB_HANDLES_MAX; i++)
        found = (t->handle[i].flags & MAP_KINDS) && t->handle[i].mfn == mfn &&
                !(t->handle[i].flags & GNTMAP_readonly);
    spin_unlock(&t->lock);
    return found;
}

/* Marks entry ref as in use: GNTST_okay when it grants that to this domain. */
static int16_t entry_use(struct gnttab *t, grant_ref_t ref, bool readonly, uint64_t *mfn)
{
    uint64_t *raw = (uint64_t *)(void *)&t->entries[ref];
    union { struct grant_entry_v1 e; uint64_t raw; } old = { .raw = load_acquire(raw) }, new;

    do {
        if ((old.e.flags & GTF_type_mask) != GTF_permit_access || old.e.domid != t->self ||
            ((old.e.flags & GTF_readonly) && !readonly))
            return GNTST_general_error;
        new = old;
        new.e.flags |= readonly ? GTF_reading : GTF_reading | GTF_writing;
    } while (!__atomic_compare_exchange_n(raw, &old.raw, new.raw, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    *mfn = new.e.frame;
    return GNTST_okay;
}

/* After a handle has gone: the entry shows what the others still do. */
static void entry_unuse(struct gnttab *t, grant_ref_t ref)
{
    uint16_t gone = GTF_reading | GTF_writing;

    for (unsigned i = 0; i < GNTTAB_HANDLES_MAX; i++)
        if ((t->handle[i].flags & MAP_KINDS) && t->handle[i].ref == ref)
            gone &= (uint16_t)~(t->handle[i].flags & GNTMAP_readonly ? GTF_reading :
                                GTF_reading | GTF_writing);
    fetch_and(&t->entries[ref].flags, (uint16_t)~gone);
}

static int16_t map_locked(struct gnttab *t, struct gnttab_map_grant_ref *op)
{
    bool readonly = op->flags & GNTMAP_readonly;
    const struct gnttab_handle *other;
    unsigned at = 0;
    uint64_t mfn;
    int16_t status;

    while (at < GNTTAB_HANDLES_MAX && (t->handle[at].flags & MAP_KINDS))
        at++;
    if (at == GNTTAB_HANDLES_MAX)
        return GNTST_no_device_space;
    /* one that is in use stands for the frame it had when that began */
    other = same_ref(t, op->ref);
    status = entry_use(t, op->ref, readonly, &mfn);
    if (status != GNTST_okay)
        return status;
    if (other)
        mfn = other->mfn;
    if (!t->mapper->frame_ok(t->mapper_ctx, mfn))
        status = GNTST_general_error;
    else if (op->flags & GNTMAP_host_map)
        status = t->mapper->map(t->mapper_ctx, op->host_addr, op->flags, mfn);
    if (status != GNTST_okay) {
        entry_unuse(t, op->ref);
        return status;
    }
    t->handle[at] = (struct gnttab_handle){ .ref = op->ref, .flags = op->flags, .mfn = mfn };
    store_relaxed(&t->nr_handles, t->nr_handles + 1);
    op->handle = at;
    op->dev_bus_addr = mfn << PAGE_SHIFT;
    return GNTST_okay;
}

/* Domain 0 has a table with one frame, as far as a guest can tell, and grants nothing. */
static int16_t map_status(const struct gnttab *t, const struct gnttab_map_grant_ref *op)
{
    uint64_t nr_refs = GNTTAB_REFS_PER_FRAME;

    if (!(op->flags & MAP_KINDS))
        return GNTST_bad_gntref;
    if (op->dom != 0 && (op->dom != t->self || !t->mapper))
        return GNTST_bad_domain;
    if (op->dom)
        nr_refs *= load_acquire(t->nr_frames);
    if (op->ref >= nr_refs)
        return GNTST_bad_gntref;
    return op->dom ? GNTST_okay : GNTST_general_error;
}

int gnttab_map_grant_ref(struct gnttab *t, struct gnttab_map_grant_ref *op)
{
    op->status = map_status(t, op);
    if (op->status != GNTST_okay)
        return 0;
    spin_lock(&t->lock);
    op->status = map_locked(t, op);
    spin_unlock(&t->lock);
    return 0;
}

/* The handle's mapping of one kind, or of both, has gone. */
static void handle_drop(struct gnttab *t, struct gnttab_handle *h, uint32_t kinds)
{
    h->flags &= ~kinds;
    if (h->flags & MAP_KINDS)
        return;
    store_relaxed(&t->nr_handles, t->nr_handles - 1);
    entry_unuse(t, h->ref);
}

static struct gnttab_handle *handle_of(struct gnttab *t, grant_handle_t handle)
{
    if (handle >= GNTTAB_HANDLES_MAX || !(t->handle[handle].flags & MAP_KINDS))
        return NULL;
    return &t->handle[handle];
}

static int16_t unmap_locked(struct gnttab *t, const struct gnttab_unmap_grant_ref *op)
{
    struct gnttab_handle *h = handle_of(t, op->handle);
    uint32_t kinds = 0;
    int16_t status;

    if (!h)
        return GNTST_bad_handle;
    if (op->dev_bus_addr && (h->flags & GNTMAP_device_map)) {
        if (op->dev_bus_addr != h->mfn << PAGE_SHIFT)
            return GNTST_general_error;
        kinds = GNTMAP_device_map;
    }
    if (op->host_addr && (h->flags & GNTMAP_host_map)) {
        status = t->mapper->unmap(t->mapper_ctx, op->host_addr, 0, h->flags, h->mfn);
        if (status != GNTST_okay)
            return status;
        kinds |= GNTMAP_host_map;
    }
    if (kinds)
        handle_drop(t, h, kinds);
    return GNTST_okay;
}

int gnttab_unmap_grant_ref(struct gnttab *t, struct gnttab_unmap_grant_ref *op)
{
    spin_lock(&t->lock);
    op->status = unmap_locked(t, op);
    spin_unlock(&t->lock);
    return 0;
}

int gnttab_unmap_and_replace(struct gnttab *t, struct gnttab_unmap_and_replace *op)
{
    struct gnttab_handle *h;

    spin_lock(&t->lock);
    h = handle_of(t, op->handle);
    op->status = h ? GNTST_okay : GNTST_bad_handle;
    if (h && op->host_addr && (h->flags & GNTMAP_host_map)) {
        op->status = t->mapper->unmap(t->mapper_ctx, op->host_addr, op->new_addr, h->flags,
                                      h->mfn);
        if (op->status == GNTST_okay)
            handle_drop(t, h, GNTMAP_host_map);
    }
    spin_unlock(&t->lock);
    return 0;
}
