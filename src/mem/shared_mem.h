/* SPDX-License-Identifier: MIT */
/* A guest's memory as another process shares it: files, each with the guest
 * addresses it stands for and the addresses at which that process maps it.  What
 * guest_mem.h is for memory of our own.
 *
 * The other process is not trusted.  It keeps its own mapping and may write any
 * byte at any time; and it may cut a file, which mem/lost_pages.h makes harmless.
 * Whoever changes the map keeps readers out meanwhile. */
#ifndef XENOLITH_MEM_SHARED_MEM_H
#define XENOLITH_MEM_SHARED_MEM_H

#include "base/err.h"
#include "base/types.h"
#include "mem/guest_mem.h"

#define SHARED_MEM_REGIONS_MAX 256u

struct shared_mem_region {
    gpa_t base;
    uint64_t size_bytes;
    uint64_t owner_address;     /* where the other process has it */
    uint8_t *host;
    void *map;                  /* what was mapped: begins before host */
    size_t map_bytes;
};

struct shared_mem {
    unsigned nr_regions;
    struct shared_mem_region region[SHARED_MEM_REGIONS_MAX];   /* by base, ascending */
};

/* What the other process says of one file. */
struct shared_mem_slot {
    gpa_t base;
    uint64_t size_bytes;
    uint64_t owner_address;
    uint64_t file_offset_bytes;
};

void shared_mem_init(struct shared_mem *m);
/* Maps fd, which stays the caller's.  0; -EINVAL, -ERANGE or -EEXIST for a slot that makes
 * no sense or overlaps another, -ENOSPC, or what the kernel answers. */
int shared_mem_add(struct shared_mem *m, const struct shared_mem_slot *slot, int fd,
                   struct err *e);
/* The region that slot describes; its file offset does not matter.  0 or -ENOENT. */
int shared_mem_remove(struct shared_mem *m, const struct shared_mem_slot *slot, struct err *e);
void shared_mem_free(struct shared_mem *m);

/* len bytes at an address of the other process; NULL unless they lie in one region. */
void *shared_mem_owner_ptr(const struct shared_mem *m, uint64_t address, uint64_t len);
/* The guest address of a host pointer that came from m. */
gpa_t shared_mem_gpa(const struct shared_mem *m, const void *host);

/* Index of the region that holds a; nr_regions: none. */
unsigned shared_mem_find(const struct shared_mem *m, gpa_t a);

/* Host pointer to memory at a, of which *len bytes, cut where the region ends, may be
 * touched.  NULL when there is no memory.  *hint, any number at first, is the caller's to
 * keep: most accesses are to the region of the last one. */
static inline void *shared_mem_ptr(const struct shared_mem *m, gpa_t a, uint64_t *len,
                                   unsigned *hint)
{
    const struct shared_mem_region *r;
    unsigned i = *hint;

    /* below base, the difference wraps to more than any size */
    if (unlikely(i >= m->nr_regions || a.v - m->region[i].base.v >= m->region[i].size_bytes)) {
        i = shared_mem_find(m, a);
        if (i == m->nr_regions)
            return NULL;
        *hint = i;
    }
    r = &m->region[i];
    *len = min_of(*len, r->size_bytes - (a.v - r->base.v));
    return r->host + (a.v - r->base.v);
}

#endif
