/* SPDX-License-Identifier: MIT */
#include "mem/shared_mem.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "base/num.h"

void shared_mem_init(struct shared_mem *m)
{
    m->nr_regions = 0;
}

static int slot_err(struct err *e, int code, const struct shared_mem_slot *s, const char *why)
{
    return err_set(e, code, "shared memory for guest address 0x%llx, 0x%llx bytes: %s",
                   (unsigned long long)s->base.v, (unsigned long long)s->size_bytes, why);
}

static bool ranges_meet(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a - b < b_bytes || b - a < a_bytes;
}

static int slot_judge(const struct shared_mem *m, const struct shared_mem_slot *s, struct err *e)
{
    uint64_t end;

    if (m->nr_regions == SHARED_MEM_REGIONS_MAX)
        return slot_err(e, ENOSPC, s, "there are too many regions already");
    if (!s->size_bytes)
        return slot_err(e, EINVAL, s, "it is empty");
    if (num_add_overflows(s->base.v, s->size_bytes, &end) ||
        num_add_overflows(s->owner_address, s->size_bytes, &end) ||
        num_add_overflows(s->file_offset_bytes, s->size_bytes, &end) || end > INT64_MAX)
        return slot_err(e, ERANGE, s, "its end cannot be addressed");
    for (unsigned i = 0; i < m->nr_regions; i++) {
        const struct shared_mem_region *r = &m->region[i];

        if (ranges_meet(s->base.v, s->size_bytes, r->base.v, r->size_bytes) ||
            ranges_meet(s->owner_address, s->size_bytes, r->owner_address, r->size_bytes))
            return slot_err(e, EEXIST, s, "it overlaps another region");
    }
    return 0;
}

/* The unit in which the file can be mapped. */
static int file_judge(const struct shared_mem_slot *s, int fd, uint64_t *unit, struct err *e)
{
    struct statfs fs;
    struct stat st;

    if (fstat(fd, &st) || fstatfs(fd, &fs))
        return slot_err(e, errno, s, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return slot_err(e, EINVAL, s, "it is no file");
    /* whoever serves such a file could keep a thread of ours waiting for a page */
    if (fs.f_type == FUSE_SUPER_MAGIC)
        return slot_err(e, EINVAL, s, "it is a file of a FUSE file system");
    if ((uint64_t)st.st_size < s->file_offset_bytes + s->size_bytes)
        return slot_err(e, EINVAL, s, "the file is shorter");
    *unit = PAGE_SIZE;
    if (fs.f_type == HUGETLBFS_MAGIC)
        *unit = (uint64_t)fs.f_bsize;
    return 0;
}

int shared_mem_add(struct shared_mem *m, const struct shared_mem_slot *slot, int fd,
                   struct err *e)
{
    unsigned at = 0;
    uint64_t unit, lead;
    size_t map_bytes;
    void *map;
    int rc = slot_judge(m, slot, e);

    if (!rc)
        rc = file_judge(slot, fd, &unit, e);
    if (rc)
        return rc;
    lead = slot->file_offset_bytes & (unit - 1);
    map_bytes = align_up(lead + slot->size_bytes, unit);
    map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
               (off_t)(slot->file_offset_bytes - lead));
    if (map == MAP_FAILED)
        return slot_err(e, errno, slot, strerror(errno));
    /* advice: a guest's memory does not belong into a core file of ours */
    (void)madvise(map, map_bytes, MADV_DONTDUMP);

    while (at < m->nr_regions && m->region[at].base.v < slot->base.v)
        at++;
    memmove(&m->region[at + 1], &m->region[at], (m->nr_regions - at) * sizeof(m->region[0]));
    m->nr_regions++;
    m->region[at] = (struct shared_mem_region){
        .base = slot->base, .size_bytes = slot->size_bytes,
        .owner_address = slot->owner_address, .host = (uint8_t *)map + lead,
        .map = map, .map_bytes = map_bytes,
    };
    return 0;
}

int shared_mem_remove(struct shared_mem *m, const struct shared_mem_slot *slot, struct err *e)
{
    unsigned i = shared_mem_find(m, slot->base);
    struct shared_mem_region *r = &m->region[i];

    if (i == m->nr_regions || r->base.v != slot->base.v || r->size_bytes != slot->size_bytes ||
        r->owner_address != slot->owner_address)
        return slot_err(e, ENOENT, slot, "there is no such region");
    munmap(r->map, r->map_bytes);
    m->nr_regions--;
    memmove(r, r + 1, (m->nr_regions - i) * sizeof(*r));
    return 0;
}

void shared_mem_free(struct shared_mem *m)
{
    for (unsigned i = 0; i < m->nr_regions; i++)
        munmap(m->region[i].map, m->region[i].map_bytes);
    m->nr_regions = 0;
}

unsigned shared_mem_find(const struct shared_mem *m, gpa_t a)
{
    unsigned low = 0, high = m->nr_regions;

    /* the last region that begins at or below a */
    while (low < high) {
        unsigned mid = low + (high - low) / 2;

        if (m->region[mid].base.v <= a.v)
            low = mid + 1;
        else
            high = mid;
    }
    if (low && a.v - m->region[low - 1].base.v < m->region[low - 1].size_bytes)
        return low - 1;
    return m->nr_regions;
}

void *shared_mem_owner_ptr(const struct shared_mem *m, uint64_t address, uint64_t len)
{
    for (unsigned i = 0; i < m->nr_regions; i++) {
        const struct shared_mem_region *r = &m->region[i];
        uint64_t offset = address - r->owner_address;

        if (offset < r->size_bytes && len <= r->size_bytes - offset)
            return r->host + offset;
    }
    return NULL;
}

gpa_t shared_mem_gpa(const struct shared_mem *m, const void *host)
{
    for (unsigned i = 0; i < m->nr_regions; i++) {
        const struct shared_mem_region *r = &m->region[i];
        uint64_t offset = (uint64_t)((const uint8_t *)host - r->host);

        if (offset < r->size_bytes)
            return gpa(r->base.v + offset);
    }
    return gpa(UINT64_MAX);
}
