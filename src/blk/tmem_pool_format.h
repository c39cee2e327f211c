/* SPDX-License-Identifier: MIT */
/* What lies in the memory that all users of a pool map; tmem_pool_object.c says who may change
 * what.
 *
 *     header                  who uses the pool, and what is known of the pages that follow
 *     index                   where pages of some contents may be found
 *     extents                 1 MiB each: cells, and the objects that are made of them
 *
 * The memory is a sealed memfd of the size that the pool may reach.  Nobody touches what has not
 * been backed, by fallocate(), so a host without memory is an error and no SIGBUS: extents are
 * backed in order, a page of the index before the first entry in it.
 *
 * Processes of other builds may be there: what changes here changes TMEM_VERSION. */
#ifndef XENOLITH_BLK_TMEM_POOL_FORMAT_H
#define XENOLITH_BLK_TMEM_POOL_FORMAT_H

#include "base/types.h"

#define TMEM_MAGIC   0x6d656d742d6e6578u        /* "xen-tmem" */
#define TMEM_VERSION 1u

#define TMEM_USERS         256u
#define TMEM_LABEL_BYTES   32u
#define TMEM_CELL_BYTES    512u
#define TMEM_OBJECT_CELLS  ((unsigned)PAGE_SIZE / TMEM_CELL_BYTES)
#define TMEM_EXTENT_BYTES  MIB
#define TMEM_EXTENT_CELLS  1872u
#define TMEM_EXTENT_OBJECTS (TMEM_EXTENT_CELLS / 2)

#define TMEM_POOL_MAX_BYTES (1024 * GIB)

/* An object's state: its generation, which each user of the memory gets another of; whose it is
 * while it is made or unmade; and what it is.  0 is free, and memory that is new. */
enum tmem_kind { TMEM_FREE, TMEM_BUILDING, TMEM_LIVE, TMEM_ENDING };

#define TMEM_STATE_KIND(state)  ((enum tmem_kind)((state) & 3))
#define TMEM_STATE_USER(state)  ((unsigned)((state) >> 2) & (TMEM_USERS - 1))
#define TMEM_STATE_GEN_SHIFT    16

/* The contents of one page. */
struct tmem_object {
    uint64_t hash;
    uint64_t holders[TMEM_USERS / 64];      /* a bit for each user that has it */
    uint32_t cells[TMEM_OBJECT_CELLS];
    uint32_t length;                        /* in cells; PAGE_SIZE: as it is, less: LZ4 */
    uint32_t unused;
};

struct tmem_extent {
    uint64_t state[TMEM_EXTENT_OBJECTS];
    uint32_t cell_owner[TMEM_EXTENT_CELLS]; /* number of an object + 1; 0: free */
    struct tmem_object object[TMEM_EXTENT_OBJECTS];
    uint8_t cell[TMEM_EXTENT_CELLS][TMEM_CELL_BYTES];
};

_Static_assert(sizeof(struct tmem_extent) <= TMEM_EXTENT_BYTES, "an extent fits");

/* A line of the index: the upper half of a hash and the number of an object + 1 in each entry;
 * 0: none.  Only a hint, for whoever looks compares. */
#define TMEM_BUCKET_ENTRIES 8u

struct tmem_bucket { uint64_t entry[TMEM_BUCKET_ENTRIES]; };

/* Two objects for an entry of the index would be one too many: half of it stays empty. */
#define TMEM_OBJECTS_PER_BUCKET 4u
#define TMEM_BUCKETS_PER_PAGE   ((unsigned)(PAGE_SIZE / sizeof(struct tmem_bucket)))

/* A disk.  Its own while it holds the lock of its byte (TMEM_USER_LOCK); who finds the byte
 * unlocked and `used` set takes the lock, and gives back what the user has had. */
struct tmem_user_record {
    uint32_t used;
    int32_t pid;
    char label[TMEM_LABEL_BYTES];
    uint64_t size_bytes;
    uint64_t quota_bytes;                   /* UINT64_MAX: no quota */
    uint64_t pages;                         /* of the disk that an object stands for */
    uint64_t filled;                        /* of one word all over, zero not counted */
    uint64_t charged_bytes;                 /* the cells of all objects it has */
    uint64_t shared_hits;                   /* writes that found their page in the pool */
    uint64_t over_quota, pool_full;         /* pages that were not stored */
} cacheline_aligned;

/* Byte of the file whose lock stands for a user. */
#define TMEM_USER_LOCK(user) ((off_t)(user))

struct tmem_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t run_dev, run_ino;              /* the run-time directory it belongs to */
    uint64_t seed;                          /* of hashes, so that no guest can aim at a bucket */
    uint64_t bound_bytes;                   /* of the extents */
    uint64_t index_offset, extents_offset;
    uint64_t nr_buckets;                    /* a power of two */
    cacheline_aligned uint64_t nr_extents;  /* backed */
    cacheline_aligned uint64_t nr_freed;    /* counts what became free: for who found nothing */
    struct tmem_user_record user[TMEM_USERS];
    uint64_t index_backed[];                /* a bit for each page of the index */
};

#endif
