/* SPDX-License-Identifier: MIT */
/* Regions never overlap and never change once added, so lookups need no lock;
 * with at most eight of them a linear search beats anything cleverer.
 *
 * Every range check has the form "offset <= size && len <= size - offset", which
 * cannot wrap whatever address and length a guest makes up. */
#include "mem/guest_mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"

#define HUGE_PAGE_BYTES (2 * MIB)
/* x86-64 page tables have room for 52 bits of physical address. */
#define GPA_END ((uint64_t)1 << 52)

void guest_mem_init(struct guest_mem *m)
{
    memset(m, 0, sizeof(*m));
}

/* Maps fd so that host and guest address agree modulo the huge page size, or
 * neither shmem nor nested page tables could use huge pages.  NULL with errno. */
static uint8_t *map_region(int fd, gpa_t base, uint64_t size_bytes)
{
    uint64_t reserve_bytes = size_bytes + HUGE_PAGE_BYTES;
    uint8_t *reserve, *host;
    uint64_t lead_bytes, tail_bytes;

    reserve = mmap(NULL, reserve_bytes, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserve == MAP_FAILED)
        return NULL;
    lead_bytes = (base.v - (uintptr_t)reserve) & (HUGE_PAGE_BYTES - 1);
    host = mmap(reserve + lead_bytes, size_bytes, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
    if (host == MAP_FAILED) {
        int code = errno;

        munmap(reserve, reserve_bytes);
        errno = code;
        return NULL;
    }
    tail_bytes = reserve_bytes - lead_bytes - size_bytes;
    if (lead_bytes)
        munmap(reserve, lead_bytes);
    if (tail_bytes)
        munmap(host + size_bytes, tail_bytes);
    return host;
}

static int check_new_region(const struct guest_mem *m, gpa_t base, uint64_t size_bytes,
                            struct err *e)
{
    uint64_t end;

    if (m->nr_regions == GUEST_MEM_REGIONS_MAX)
        return err_set(e, ENOSPC, "more than %u regions of guest memory",
                       GUEST_MEM_REGIONS_MAX);
    if (!size_bytes || (size_bytes & PAGE_MASK) || (base.v & PAGE_MASK))
        return err_set(e, EINVAL, "guest memory at 0x%llx, 0x%llx bytes: not whole pages",
                       (unsigned long long)base.v, (unsigned long long)size_bytes);
    if (num_add_overflows(base.v, size_bytes, &end) || end > GPA_END)
        return err_set(e, ERANGE, "guest memory at 0x%llx, 0x%llx bytes: beyond 52-bit addresses",
                       (unsigned long long)base.v, (unsigned long long)size_bytes);
    for (unsigned i = 0; i < m->nr_regions; i++) {
        const struct guest_mem_region *r = &m->region[i];

        if (base.v < r->base.v + r->size_bytes && r->base.v < end)
            return err_set(e, EEXIST, "guest memory at 0x%llx, 0x%llx bytes: overlaps 0x%llx",
                           (unsigned long long)base.v, (unsigned long long)size_bytes,
                           (unsigned long long)r->base.v);
    }
    return 0;
}

int guest_mem_add(struct guest_mem *m, gpa_t base, uint64_t size_bytes,
                  const char *name, bool huge, struct err *e)
{
    uint8_t *host;
    int fd, ret;

    ret = check_new_region(m, base, size_bytes, e);
    if (ret < 0)
        return ret;
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_set(e, errno, "memfd_create: %s", strerror(errno));
    if (ftruncate(fd, (off_t)size_bytes) < 0) {
        ret = err_set(e, errno, "%llu KiB of guest memory: %s",
                      (unsigned long long)(size_bytes / KIB), strerror(errno));
        goto err_close;
    }
    /* The fd may be handed to a backend: it must not be able to shrink the file
     * under us, which would turn our next access into SIGBUS. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        ret = err_set(e, errno, "sealing guest memory: %s", strerror(errno));
        goto err_close;
    }
    host = map_region(fd, base, size_bytes);
    if (!host) {
        ret = err_set(e, errno, "cannot map %llu KiB of guest memory: %s",
                      (unsigned long long)(size_bytes / KIB), strerror(errno));
        goto err_close;
    }
    /* Advice: a kernel built without transparent huge pages refuses it. */
    if (huge)
        (void)madvise(host, size_bytes, MADV_HUGEPAGE);

    m->region[m->nr_regions++] = (struct guest_mem_region){
        .base = base, .size_bytes = size_bytes, .host = host, .memfd = fd,
    };
    return 0;

err_close:
    close(fd);
    return ret;
}

/* Whether any byte of the region may be touched: its file can no longer be cut. */
static int check_adopted(int fd, uint64_t size_bytes, struct err *e)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    if (seals < 0 || fstat(fd, &st))
        return err_set(e, errno, "guest memory of another process: %s", strerror(errno));
    if (!(seals & F_SEAL_SHRINK) || (uint64_t)st.st_size < size_bytes)
        return err_set(e, EINVAL, "guest memory of another process: not whole, or not sealed");
    return 0;
}

int guest_mem_adopt(struct guest_mem *m, gpa_t base, uint64_t size_bytes, int fd, struct err *e)
{
    uint8_t *host;
    int ret = check_new_region(m, base, size_bytes, e);

    if (!ret)
        ret = check_adopted(fd, size_bytes, e);
    if (ret < 0)
        return ret;
    fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    host = fd < 0 ? NULL : map_region(fd, base, size_bytes);
    if (!host) {
        ret = err_set(e, errno, "cannot map %llu KiB of guest memory: %s",
                      (unsigned long long)(size_bytes / KIB), strerror(errno));
        if (fd >= 0)
            close(fd);
        return ret;
    }
    m->region[m->nr_regions++] = (struct guest_mem_region){
        .base = base, .size_bytes = size_bytes, .host = host, .memfd = fd,
    };
    return 0;
}

void guest_mem_free(struct guest_mem *m)
{
    for (unsigned i = 0; i < m->nr_regions; i++) {
        munmap(m->region[i].host, m->region[i].size_bytes);
        close(m->region[i].memfd);
    }
    guest_mem_init(m);
}

static const struct guest_mem_region *find_region(const struct guest_mem *m, gpa_t a)
{
    for (unsigned i = 0; i < m->nr_regions; i++) {
        const struct guest_mem_region *r = &m->region[i];

        /* below base, the difference wraps to more than any size */
        if (a.v - r->base.v < r->size_bytes)
            return r;
    }
    return NULL;
}

void *guest_mem_ptr(const struct guest_mem *m, gpa_t a, uint64_t len)
{
    const struct guest_mem_region *r = find_region(m, a);

    if (!r || len > r->size_bytes - (a.v - r->base.v))
        return NULL;
    return r->host + (a.v - r->base.v);
}

int guest_mem_find(const struct guest_mem *m, const void *host, gpa_t *out)
{
    for (unsigned i = 0; i < m->nr_regions; i++) {
        const struct guest_mem_region *r = &m->region[i];
        uintptr_t offset = (uintptr_t)host - (uintptr_t)r->host;

        if (offset < r->size_bytes) {
            *out = gpa(r->base.v + offset);
            return 0;
        }
    }
    return -EFAULT;
}

/* Whether each of the len bytes at a is memory.  Adding cannot wrap: chunks end
 * at or before GPA_END. */
static bool range_exists(const struct guest_mem *m, gpa_t a, uint64_t len)
{
    while (len) {
        const struct guest_mem_region *r = find_region(m, a);
        uint64_t chunk;

        if (!r)
            return false;
        chunk = min_of(len, r->size_bytes - (a.v - r->base.v));
        a.v += chunk;
        len -= chunk;
    }
    return true;
}

int guest_mem_read(const struct guest_mem *m, gpa_t a, void *dst, uint64_t len)
{
    uint8_t *to = dst;

    if (!range_exists(m, a, len))
        return -EFAULT;
    while (len) {
        const struct guest_mem_region *r = find_region(m, a);
        uint64_t offset = a.v - r->base.v;
        uint64_t chunk = min_of(len, r->size_bytes - offset);

        memcpy(to, r->host + offset, chunk);
        to += chunk;
        a.v += chunk;
        len -= chunk;
    }
    return 0;
}

int guest_mem_write(const struct guest_mem *m, gpa_t a, const void *src, uint64_t len)
{
    const uint8_t *from = src;

    if (!range_exists(m, a, len))
        return -EFAULT;
    while (len) {
        const struct guest_mem_region *r = find_region(m, a);
        uint64_t offset = a.v - r->base.v;
        uint64_t chunk = min_of(len, r->size_bytes - offset);

        memcpy(r->host + offset, from, chunk);
        from += chunk;
        a.v += chunk;
        len -= chunk;
    }
    return 0;
}
