/* SPDX-License-Identifier: MIT */
/* Mapping one's own grants (GNTTABOP_map_grant_ref and what undoes it); what is different
 * for other guests' is in gnttab_peer.c.  A handle holds an entry in use as long as one of its two
 * mappings, for the host and for devices, is there; t->lock guards the handles. */
#include "base/atomic.h"
#include "xen/gnttab.h"

void gnttab_mapper_set(struct gnttab *t, const struct gnttab_mapper *mapper, void *ctx)
{
    t->mapper = mapper;
    t->mapper_ctx = ctx;
}

bool gnttab_maps_writable(struct gnttab *t, uint64_t mfn)
{
    bool found = false;

    if (!load_relaxed(&t->nr_handles))
        return false;
    spin_lock(&t->lock);
    for (unsigned i = 0; !found && i < GNTTAB_HANDLES_MAX; i++)
        found = (t->handle[i].flags & GNTTAB_MAP_KINDS) && t->handle[i].mfn == mfn &&
                !(t->handle[i].flags & GNTMAP_readonly);
    spin_unlock(&t->lock);
    return found;
}

/* The in-use bits that mappings need, and the frame that they map; 0: there are none. */
static uint16_t handles_use(const struct gnttab *t, grant_ref_t ref, uint64_t *mfn)
{
    uint16_t use = 0;

    for (unsigned i = 0; t->nr_handles && i < GNTTAB_HANDLES_MAX; i++)
        if ((t->handle[i].flags & GNTTAB_MAP_KINDS) && t->handle[i].ref == ref) {
            use |= t->handle[i].flags & GNTMAP_readonly ? GTF_reading : GTF_IN_USE;
            *mfn = t->handle[i].mfn;
        }
    return use;
}

/* An entry that is mapped stands for the frame it had when that began, and is not looked
 * at again, but for whether it may be written to. */
int16_t gnttab_own_hold(const struct gnttab *t, grant_ref_t ref, bool write, bool copy,
                        struct gnttab_grant *grant)
{
    unsigned version = gnttab_version(&t->p.table);
    uint64_t mfn = 0;
    uint16_t use = handles_use(t, ref, &mfn);
    const struct gnttab_want want = { .by = t->p.self, .write = write, .copy = copy,
                                      .pinned = use, .held = use };

    if (ref >= gnttab_nr_refs(&t->p.table, version))
        return GNTST_bad_gntref;
    if (!(use & (write ? GTF_writing : GTF_reading)) &&
        gnttab_entry_hold(&t->p.table, version, ref, &want, grant))
        return GNTST_general_error;
    if (use)
        *grant = (struct gnttab_grant){ .frame = mfn, .length = PAGE_SIZE };
    return GNTST_okay;
}

void gnttab_own_drop(const struct gnttab *t, grant_ref_t ref)
{
    uint64_t mfn;

    gnttab_entry_drop(&t->p.table, gnttab_version(&t->p.table), ref,
                      (uint16_t)(GTF_IN_USE & ~handles_use(t, ref, &mfn)));
}

struct gnttab_handle *gnttab_own_handle(struct gnttab *t)
{
    for (unsigned i = 0; i < GNTTAB_HANDLES_MAX; i++)
        if (!(t->handle[i].flags & GNTTAB_MAP_KINDS))
            return &t->handle[i];
    return NULL;
}

static int16_t map_locked(struct gnttab *t, struct gnttab_map_grant_ref *op)
{
    struct gnttab_handle *h = gnttab_own_handle(t);
    struct gnttab_grant g;
    int16_t status;

    if (!h)
        return GNTST_no_device_space;
    status = gnttab_own_hold(t, op->ref, !(op->flags & GNTMAP_readonly), false, &g);
    if (status != GNTST_okay)
        return status;
    if (!t->mapper->frame_ok(t->mapper_ctx, g.frame))
        status = GNTST_bad_page;
    else if (op->flags & GNTMAP_host_map)
        status = t->mapper->map(t->mapper_ctx, op->host_addr, op->flags, g.frame);
    if (status != GNTST_okay) {
        gnttab_own_drop(t, op->ref);
        return status;
    }
    *h = (struct gnttab_handle){ .ref = op->ref, .flags = op->flags, .mfn = g.frame };
    store_relaxed(&t->nr_handles, t->nr_handles + 1);
    op->handle = (grant_handle_t)(h - t->handle);
    op->dev_bus_addr = g.frame << PAGE_SHIFT;
    return GNTST_okay;
}

static int16_t map_status(const struct gnttab *t, const struct gnttab_map_grant_ref *op)
{
    if (!(op->flags & GNTTAB_MAP_KINDS))
        return GNTST_bad_gntref;
    if (op->dom == 0)
        return gnttab_host_ref_status(op->ref);
    if (op->dom == t->p.self)
        return t->mapper ? GNTST_okay : GNTST_bad_domain;
    return gnttab_is_peer(t, op->dom) ? GNTST_okay : GNTST_bad_domain;
}

int gnttab_map_grant_ref(struct gnttab *t, struct gnttab_map_grant_ref *op)
{
    op->status = map_status(t, op);
    if (op->status != GNTST_okay)
        return 0;
    if (op->dom != t->p.self) {
        op->status = gnttab_peer_map(t, op);
        return 0;
    }
    spin_lock(&t->lock);
    op->status = map_locked(t, op);
    spin_unlock(&t->lock);
    return 0;
}

static bool handle_is_peer(const struct gnttab *t, const struct gnttab_handle *h)
{
    return h >= t->peer_handle && h < t->peer_handle + GNTTAB_PEER_HANDLES_MAX;
}

/* The handle's mapping of one kind, or of both, has gone.  True: it is a peer's, and that was
 * the last; gnttab_peer_unmapped() is due. */
static bool handle_drop(struct gnttab *t, struct gnttab_handle *h, uint32_t kinds)
{
    h->flags &= ~kinds;
    if (h->flags & GNTTAB_MAP_KINDS)
        return false;
    if (handle_is_peer(t, h)) {
        h->busy = true;
        return true;
    }
    store_relaxed(&t->nr_handles, t->nr_handles - 1);
    gnttab_own_drop(t, h->ref);
    return false;
}

static struct gnttab_handle *handle_of(struct gnttab *t, grant_handle_t handle)
{
    struct gnttab_handle *h;

    if (handle >= GNTTAB_HANDLES_MAX + GNTTAB_PEER_HANDLES_MAX)
        return NULL;
    h = handle < GNTTAB_HANDLES_MAX ? &t->handle[handle]
                                    : &t->peer_handle[handle - GNTTAB_HANDLES_MAX];
    return h->flags & GNTTAB_MAP_KINDS ? h : NULL;
}

static int16_t unmap_locked(struct gnttab *t, const struct gnttab_unmap_grant_ref *op,
                            struct gnttab_handle **gone)
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
    if (kinds && handle_drop(t, h, kinds))
        *gone = h;
    return GNTST_okay;
}

int gnttab_unmap_grant_ref(struct gnttab *t, struct gnttab_unmap_grant_ref *op)
{
    struct gnttab_handle *gone = NULL;

    spin_lock(&t->lock);
    op->status = unmap_locked(t, op, &gone);
    spin_unlock(&t->lock);
    if (gone)
        gnttab_peer_unmapped(t, gone);
    return 0;
}

int gnttab_unmap_and_replace(struct gnttab *t, struct gnttab_unmap_and_replace *op)
{
    struct gnttab_handle *h;
    bool gone = false;

    spin_lock(&t->lock);
    h = handle_of(t, op->handle);
    op->status = h ? GNTST_okay : GNTST_bad_handle;
    if (h && op->host_addr && (h->flags & GNTMAP_host_map)) {
        op->status = t->mapper->unmap(t->mapper_ctx, op->host_addr, op->new_addr, h->flags,
                                      h->mfn);
        if (op->status == GNTST_okay)
            gone = handle_drop(t, h, GNTMAP_host_map);
    }
    spin_unlock(&t->lock);
    if (gone)
        gnttab_peer_unmapped(t, h);
    return 0;
}
