/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd_grants.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "dev/xen_vbd_record.h"

int vbd_grants_init(struct vbd_grants *g, struct gnttab_host *table, bool persistent,
                    uint64_t *kept)
{
    *g = (struct vbd_grants){ .table = table, .kept = kept };
    if (persistent) {
        /* mmap: sets that no reference falls into take no memory */
        void *entries = mmap(NULL, VBD_GRANTS_MAX * sizeof(*g->entry), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (entries == MAP_FAILED)
            return -ENOMEM;
        g->entry = entries;
    }
    return 0;
}

/* What the record says is true before the bits are set and after they are cleared. */
static void kept_set(struct vbd_grants *g, const struct vbd_grant *entry, uint64_t value)
{
    if (g->kept)
        store_release(&g->kept[entry - g->entry], value);
}

static void entry_drop(struct vbd_grants *g, struct vbd_grant *entry)
{
    gnttab_host_unmap(g->table, entry->ref, true);
    kept_set(g, entry, 0);
    entry->page = NULL;
    g->nr_held--;
}

/* entry is free. */
static int entry_take(struct vbd_grants *g, struct vbd_grant *entry, uint32_t ref)
{
    void *page;
    int rc;

    kept_set(g, entry, VBD_RECORD_KEPT | ref);
    rc = gnttab_host_map(g->table, ref, true, &page);
    if (rc) {
        kept_set(g, entry, 0);
        return rc;
    }
    *entry = (struct vbd_grant){ .page = page, .ref = ref };
    g->nr_held++;
    return 0;
}

void vbd_grants_free(struct vbd_grants *g)
{
    if (!g->entry)
        return;
    for (unsigned i = 0; i < VBD_GRANTS_MAX; i++)
        if (g->entry[i].page)
            entry_drop(g, &g->entry[i]);
    munmap(g->entry, VBD_GRANTS_MAX * sizeof(*g->entry));
    g->entry = NULL;
}

/* The entry to be replaced: a free one, else one not used lately, else any that
 * no request uses (the set is swept: all of it counts as not used lately). */
static struct vbd_grant *victim_find(struct vbd_grant *set)
{
    struct vbd_grant *idle = NULL;

    for (unsigned w = 0; w < VBD_GRANTS_WAYS; w++) {
        if (!set[w].page)
            return &set[w];
        if (set[w].nr_users)
            continue;
        if (!idle || (idle->recent && !set[w].recent))
            idle = &set[w];
    }
    if (idle && idle->recent)
        for (unsigned w = 0; w < VBD_GRANTS_WAYS; w++)
            set[w].recent = false;
    return idle;
}

static int take_transient(struct vbd_grants *g, uint32_t ref, bool write, void **page,
                          struct vbd_hold *hold)
{
    *hold = (struct vbd_hold){ ref, write ? VBD_HOLD_WRITE : VBD_HOLD_READ };
    return gnttab_host_map(g->table, ref, write, page);
}

static void entry_use(struct vbd_grants *g, struct vbd_grant *entry, void **page,
                      struct vbd_hold *hold)
{
    entry->nr_users++;
    entry->recent = true;
    *page = entry->page;
    *hold = (struct vbd_hold){ entry->ref, (int32_t)(entry - g->entry) };
}

int vbd_grants_take(struct vbd_grants *g, uint32_t ref, bool write, void **page,
                    struct vbd_hold *hold)
{
    struct vbd_grant *set, *entry;

    if (!g->entry)
        return take_transient(g, ref, write, page, hold);
    set = &g->entry[ref % VBD_GRANTS_SETS * VBD_GRANTS_WAYS];
    for (unsigned w = 0; w < VBD_GRANTS_WAYS; w++) {
        if (set[w].page && set[w].ref == ref && set[w].nr_users < UINT16_MAX) {
            entry_use(g, &set[w], page, hold);
            return 0;
        }
    }
    /* A frontend that said feature-persistent grants everything for writing; a
     * page it does not is held for this request only. */
    entry = victim_find(set);
    if (entry && entry->page)
        entry_drop(g, entry);
    if (!entry || entry_take(g, entry, ref))
        return take_transient(g, ref, write, page, hold);
    entry_use(g, entry, page, hold);
    return 0;
}

void vbd_grants_give(struct vbd_grants *g, const struct vbd_hold *hold)
{
    if (hold->entry >= 0)
        g->entry[hold->entry].nr_users--;
    else
        gnttab_host_unmap(g->table, hold->ref, hold->entry == VBD_HOLD_WRITE);
}
