/* SPDX-License-Identifier: MIT */
/* A disk: what is the same for all of its queues (the cold state).  Nothing of it changes
 * while one is open, but for the size.  The hot state is per queue: queue.h. */
#ifndef XENOLITH_BLK_DISK_H
#define XENOLITH_BLK_DISK_H

#include "base/atomic.h"
#include "base/err.h"
#include "base/types.h"

/* The unit of every sector number, whatever the medium's own block size. */
#define BLK_SECTOR_BYTES 512u
#define BLK_SECTOR_SHIFT 9

struct blk_disk;
struct blk_driver;
struct qos_groups;

/* For a disk that this process serves and another one has opened and claimed. */
struct blk_handed {
    int fd;                 /* blk_disk_share()'s; the driver takes a copy; -1: it needs none */
    /* Kept open by all that the kernel may still do for the disk when this process has ended:
     * when its other end is found closed, nothing is under way.  -1: nobody looks. */
    int keep_fd;
};

/* What is to be opened. */
struct blk_spec {
    const char *driver;     /* a name from blk_driver_table */
    const char *path;       /* what the driver opens; NULL or "" where it needs none */
    const char *format;     /* of the image at path, as QEMU calls it, for drivers that have
                             * it served by another program; NULL: the driver's own */
    unsigned reconnect_s;   /* how long requests wait for a server that is lost */
    uint64_t size_bytes;    /* for drivers without a medium; others find it out */
    uint64_t quota_bytes;   /* of what the host keeps for the disk, for drivers that share it
                             * between disks; 0: none */
    uint64_t pool_bytes;    /* of what it keeps for all of them; 0: the driver's own */
    const char *run_dir;    /* where its processes meet; NULL: they do not */
    const char *label;      /* what statistics call the disk; NULL: nothing */
    bool readonly;
    bool shared_write;      /* others may write too: the image is not claimed */
    bool no_discard;        /* discard is refused even where the medium can do it */
    bool no_direct;         /* go through the page cache even where O_DIRECT works */
    const char *filters;    /* filter_options.h; NULL or "": none */
    const void *options;    /* set by blk_disk_open() for the filter it opens */
    const struct blk_handed *handed;    /* NULL: the driver opens path and claims it */
    bool to_share;          /* blk_disk_share() will be asked */
    struct qos_groups *qos_groups;  /* of rate limits that disks share; NULL: there are none */
};

/* What was opened. */
struct blk_props {
    uint64_t size_bytes;            /* a multiple of BLK_SECTOR_BYTES; blk_props_size() */
    uint32_t physical_block_bytes;  /* power of two, at least BLK_SECTOR_BYTES */
    uint32_t discard_granularity_bytes;
    uint32_t discard_alignment_bytes;
    uint32_t max_queues;            /* that may be open at a time; 0: any number */
    bool readonly;
    bool can_flush;
    bool can_discard;
    bool can_write_zeroes;
    bool direct;                    /* bypasses the host's page cache */
    bool block_device;              /* the medium is one (else a file, or nothing) */
    bool prompt;                    /* most requests are answered within submit */
};

/* Opens and, for a medium that others could open as well, claims it: a writer
 * alone, or any number of readers.  On failure e says which file and why (for a
 * claimed one, which process holds it, when that can be found).  0 or -errno
 * (-EBUSY: claimed). */
int blk_disk_open(const struct blk_spec *spec, struct blk_disk **out, struct err *e);

/* Whether a process of its own can serve such a disk, begun anew when it was killed.  0, or
 * -EOPNOTSUPP with e saying which part cannot. */
int blk_disk_judge_apart(const struct blk_spec *spec, struct err *e);
/* For blk_handed, there: the disk's own descriptor, or -1 where none is needed.  d was opened
 * to_share, without filters, from a spec that was judged so. */
int blk_disk_share(const struct blk_disk *d);

/* Every queue must have been closed. */
void blk_disk_close(struct blk_disk *d);

/* The medium has another size now, or (size_bytes not 0) is to get it.  By the thread that
 * opened the disk, while queues work: each request is judged by the size there is when it is
 * submitted, and one that was under way when its place went gets -EIO, or -EINVAL if a filter
 * still had it.  What the guest finds there afterwards is the size and the contents of the
 * smaller medium, nothing else.
 * 0 (perhaps with nothing changed), or -errno with the size as it was: -EOPNOTSUPP when the
 * driver, or the medium, cannot. */
int blk_disk_resize(struct blk_disk *d, uint64_t size_bytes, struct err *e);

/* Of what this points to, blk_disk_resize() changes the size and the physical block. */
const struct blk_props *blk_disk_props(const struct blk_disk *d);
const char *blk_disk_driver_name(const struct blk_disk *d);

/* Any thread. */
static inline uint64_t blk_props_size(const struct blk_props *p)
{
    return load_acquire(&p->size_bytes);    /* pairs with blk_props_size_set() */
}

static inline uint64_t blk_props_nr_sectors(const struct blk_props *p)
{
    return blk_props_size(p) >> BLK_SECTOR_SHIFT;
}

#endif
