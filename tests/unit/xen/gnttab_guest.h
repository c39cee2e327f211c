/* SPDX-License-Identifier: MIT */
/* A domain with a grant table, some pages of RAM, and page tables that take anything. */
#ifndef XENOLITH_TESTS_GNTTAB_GUEST_H
#define XENOLITH_TESTS_GNTTAB_GUEST_H

#include <stdlib.h>
#include <string.h>

#include "xen/gnttab.h"

#define SELF       7
#define OTHER      9            /* there is no such domain */
#define FRAMES_MAX 4
#define FIRST_MFN  0x1000
#define STATUS_MFN 0x2000
#define RAM_MFN    0x1234
#define RAM_PAGES  8
#define TABLE_PAGE 5            /* of RAM, is a page table */

struct guest {
    struct gnttab t;
    struct gnttab_state state;
    uint8_t *ram;
    bool status_mapped;
    /* what map and unmap answer, and what they were last asked */
    int16_t answer;
    unsigned nr_maps, nr_unmaps;
    uint64_t host_addr, new_addr, mfn;
    uint32_t flags;
};

static inline bool guest_frame_ok(void *ctx, uint64_t mfn)
{
    return mfn - RAM_MFN < RAM_PAGES;
}

static inline bool guest_frame_writable(void *ctx, uint64_t mfn)
{
    return guest_frame_ok(ctx, mfn) && mfn != RAM_MFN + TABLE_PAGE;
}

static inline void guest_copy(void *ctx, uint64_t to, uint64_t from, uint64_t bytes)
{
    struct guest *g = ctx;
    const uint64_t base = (uint64_t)RAM_MFN << PAGE_SHIFT;

    memmove(g->ram + (to - base), g->ram + (from - base), bytes);
}

static inline bool guest_frames_mapped(void *ctx, uint64_t first_mfn, uint64_t nr)
{
    const struct guest *g = ctx;

    return g->status_mapped && first_mfn == STATUS_MFN && nr == 1;
}

static inline int16_t guest_map(void *ctx, uint64_t host_addr, uint32_t flags, uint64_t mfn)
{
    struct guest *g = ctx;

    g->nr_maps++;
    g->host_addr = host_addr;
    g->flags = flags;
    g->mfn = mfn;
    return g->answer;
}

static inline int16_t guest_unmap(void *ctx, uint64_t host_addr, uint64_t new_addr,
                                  uint32_t flags, uint64_t mfn)
{
    struct guest *g = ctx;

    g->nr_unmaps++;
    g->host_addr = host_addr;
    g->new_addr = new_addr;
    g->flags = flags;
    g->mfn = mfn;
    return g->answer;
}

static inline int guest_setup(void **state)
{
    static const struct gnttab_mapper mapper = {
        .frame_ok = guest_frame_ok, .frame_writable = guest_frame_writable, .copy = guest_copy,
        .frames_mapped = guest_frames_mapped, .map = guest_map, .unmap = guest_unmap,
    };
    struct guest *g = calloc(1, sizeof(*g));
    uint8_t *pages = aligned_alloc(PAGE_SIZE, (FRAMES_MAX + 1 + RAM_PAGES) * PAGE_SIZE);
    struct gnttab_params p = {
        .table = { .frames = pages, .status = (void *)(pages + FRAMES_MAX * PAGE_SIZE),
                   .state = &g->state, .nr_frames_max = FRAMES_MAX },
        .first_mfn = FIRST_MFN, .status_mfn = STATUS_MFN, .version_max = 2, .self = SELF,
    };

    memset(pages, 0, (FRAMES_MAX + 1 + RAM_PAGES) * PAGE_SIZE);
    g->ram = pages + (FRAMES_MAX + 1) * PAGE_SIZE;
    gnttab_init(&g->t, &p);
    gnttab_mapper_set(&g->t, &mapper, g);
    *state = g;
    return 0;
}

static inline int guest_teardown(void **state)
{
    struct guest *g = *state;

    free(g->t.p.table.frames);
    free(g);
    return 0;
}

static inline struct grant_entry_v1 *guest_v1(struct guest *g, grant_ref_t ref)
{
    return gnttab_v1(&g->t.p.table, ref);
}

static inline union grant_entry_v2 *guest_v2(struct guest *g, grant_ref_t ref)
{
    return gnttab_v2(&g->t.p.table, ref);
}

/* In-use bits, in whatever version. */
static inline uint16_t guest_use(struct guest *g, grant_ref_t ref)
{
    return *gnttab_in_use(&g->t.p.table, gnttab_version(&g->t.p.table), ref) & GTF_IN_USE;
}

/* Writes an entry of a whole page, in the version in force. */
static inline void guest_give(struct guest *g, grant_ref_t ref, uint16_t flags, domid_t to,
                              uint64_t frame)
{
    if (gnttab_version(&g->t.p.table) == 1) {
        *guest_v1(g, ref) = (struct grant_entry_v1){ flags, to, (uint32_t)frame };
        return;
    }
    guest_v2(g, ref)->full_page.hdr = (struct grant_entry_header){ flags, to };
    guest_v2(g, ref)->full_page.frame = frame;
}

static inline int guest_version(struct guest *g, uint32_t version)
{
    struct gnttab_set_version op = { .version = version };

    return gnttab_set_version(&g->t, &op);
}

#endif
