/* SPDX-License-Identifier: MIT */
/* GNTTABOP_set_version: another layout for the same frames.
 *
 * The reserved entries, which the toolstack made, are kept, in use or not; of the others
 * none may be in use, and all go.  In-use bits of those that the host holds are only known
 * from the table, so a guest that fakes them, or has requests under way while it changes
 * the version, deceives itself: the host looks up and gives back by whatever version it
 * finds, within the table, and counts who holds what for itself (gnttab_host.c). */
#include <errno.h>

#include "xen/gnttab.h"

/* An entry that both versions can express. */
struct reserved {
    uint16_t flags, in_use;
    domid_t domid;
    uint32_t frame;
};

/* Version 1 has nothing else for whole pages; in version 2 what does not fit it. */
static bool fits_version_1(const struct gnttab_table *table, grant_ref_t ref)
{
    const union grant_entry_v2 *e = gnttab_v2(table, ref);

    switch (load_acquire(&e->hdr.flags) & GTF_type_mask) {
    case GTF_permit_access:
        return load_relaxed(&e->full_page.frame) >> 32 == 0;
    case GTF_transitive:
        return false;
    default:
        return true;
    }
}

static void reserved_save(const struct gnttab_table *table, unsigned version, grant_ref_t ref,
                          struct reserved *r)
{
    const struct grant_entry_v1 *e1 = gnttab_v1(table, ref);
    const union grant_entry_v2 *e2 = gnttab_v2(table, ref);
    uint16_t flags = version == 1 ? load_acquire(&e1->flags) : load_acquire(&e2->hdr.flags);

    if (version == 2 && (flags & GTF_type_mask) != GTF_permit_access) {
        *r = (struct reserved){ 0 };
        return;
    }
    *r = (struct reserved){
        .flags = flags & (uint16_t)~GTF_IN_USE,
        .in_use = load_acquire(gnttab_in_use(table, version, ref)) & GTF_IN_USE,
        .domid = version == 1 ? e1->domid : e2->hdr.domid,
        .frame = version == 1 ? e1->frame : (uint32_t)e2->full_page.frame,
    };
}

/* The table is all zeroes; nobody uses it in that version yet. */
static void reserved_restore(const struct gnttab_table *table, unsigned version, grant_ref_t ref,
                             const struct reserved *r)
{
    struct grant_entry_v1 *e1 = gnttab_v1(table, ref);
    union grant_entry_v2 *e2 = gnttab_v2(table, ref);

    if (version == 1) {
        *e1 = (struct grant_entry_v1){ r->flags | r->in_use, r->domid, r->frame };
        return;
    }
    e2->full_page.hdr = (struct grant_entry_header){ r->flags, r->domid };
    e2->full_page.frame = r->frame;
    table->status[ref] = r->in_use;
}

static bool entries_in_use(const struct gnttab *t, unsigned version)
{
    uint64_t nr_refs = gnttab_nr_refs(&t->p.table, version);

    for (unsigned i = 0; t->nr_handles && i < GNTTAB_HANDLES_MAX; i++)
        if (t->handle[i].flags & (GNTMAP_host_map | GNTMAP_device_map) &&
            t->handle[i].ref >= GNTTAB_NR_RESERVED_ENTRIES)
            return true;
    for (grant_ref_t ref = GNTTAB_NR_RESERVED_ENTRIES; ref < nr_refs; ref++)
        if (load_acquire(gnttab_in_use(&t->p.table, version, ref)) & GTF_IN_USE)
            return true;
    return false;
}

static int may_change(const struct gnttab *t, unsigned from)
{
    const struct gnttab_table *table = &t->p.table;

    if (entries_in_use(t, from))
        return -EBUSY;
    for (grant_ref_t ref = 0; from == 2 && ref < GNTTAB_NR_RESERVED_ENTRIES; ref++)
        if (!fits_version_1(table, ref))
            return -ERANGE;
    /* Xen takes the status frames away */
    if (from == 2 && t->mapper &&
        t->mapper->frames_mapped(t->mapper_ctx, t->p.status_mfn,
                                 GNTTAB_STATUS_FRAMES(table->nr_frames_max)))
        return -EBUSY;
    return 0;
}

static int change_locked(struct gnttab *t, unsigned from, unsigned to)
{
    const struct gnttab_table *table = &t->p.table;
    struct reserved reserved[GNTTAB_NR_RESERVED_ENTRIES];
    int rc = may_change(t, from);

    if (rc)
        return rc;
    for (grant_ref_t ref = 0; ref < GNTTAB_NR_RESERVED_ENTRIES; ref++)
        reserved_save(table, from, ref, &reserved[ref]);
    __builtin_memset(table->frames, 0, table->nr_frames_max * PAGE_SIZE);
    __builtin_memset(table->status, 0, GNTTAB_STATUS_FRAMES(table->nr_frames_max) * PAGE_SIZE);
    for (grant_ref_t ref = 0; ref < GNTTAB_NR_RESERVED_ENTRIES; ref++)
        reserved_restore(table, to, ref, &reserved[ref]);
    /* pairs with the acquire in gnttab_version() */
    store_release(&table->state->version, to);
    return 0;
}

int gnttab_set_version(struct gnttab *t, struct gnttab_set_version *op)
{
    uint32_t to = op->version, from;
    int rc = 0;

    spin_lock(&t->lock);
    from = gnttab_version(&t->p.table);
    if (to != 1 && to != 2)
        rc = -EINVAL;
    else if (to > t->p.version_max)
        rc = -ENOSYS;
    else if (to != from)
        rc = change_locked(t, from, to);
    op->version = gnttab_version(&t->p.table);
    spin_unlock(&t->lock);
    return rc;
}
