/* SPDX-License-Identifier: MIT */
/* Guest memory: the one door from guest address to host pointer.  Regions are
 * memfds mapped shared and populated lazily, so that a backend in another
 * process can map them too. */
#ifndef XENOLITH_MEM_GUEST_MEM_H
#define XENOLITH_MEM_GUEST_MEM_H

#include "base/err.h"
#include "base/types.h"

/* A guest-physical (for Xen guests: machine) address; cannot be mixed up with a
 * host pointer or a frame number. */
typedef struct { uint64_t v; } gpa_t;
#define gpa(x) ((gpa_t){ (x) })

#define GUEST_MEM_REGIONS_MAX 8

struct guest_mem_region {
    gpa_t base;
    uint64_t size_bytes;
    uint8_t *host;
    int memfd;
};

struct guest_mem {
    unsigned nr_regions;
    struct guest_mem_region region[GUEST_MEM_REGIONS_MAX];
};

void guest_mem_init(struct guest_mem *m);

/* Adds size_bytes (a multiple of the page size) of zero memory at base.  The
 * name shows in /proc/PID/maps.  Regions may not overlap.  Transparent huge
 * pages are asked for when huge.  0 or -errno. */
int guest_mem_add(struct guest_mem *m, gpa_t base, uint64_t size_bytes,
                  const char *name, bool huge, struct err *e);

/* Adds memory that another process has made so: fd, a copy of which is kept.  0 or -errno. */
int guest_mem_adopt(struct guest_mem *m, gpa_t base, uint64_t size_bytes, int fd, struct err *e);

/* Unmaps and closes everything. */
void guest_mem_free(struct guest_mem *m);

/* Host pointer to len bytes at a, NULL unless all of them lie in one region. */
void *guest_mem_ptr(const struct guest_mem *m, gpa_t a, uint64_t len);

/* The other way round; -EFAULT for what is no guest memory. */
int guest_mem_find(const struct guest_mem *m, const void *host, gpa_t *out);

/* Copies across regions; 0 or -EFAULT (then nothing was copied). */
int guest_mem_read(const struct guest_mem *m, gpa_t a, void *dst, uint64_t len);
int guest_mem_write(const struct guest_mem *m, gpa_t a, const void *src, uint64_t len);

#endif
