/* SPDX-License-Identifier: MIT */
/* A pool of pages that the processes of one run-time directory share, as the contents of disks:
 * each page of some contents is there once, compressed.  Lives from its first user to its last.
 *
 * A page in the pool is an object, known by a number to those who have it.  A user is a disk; any
 * number of threads may act for it, each with a hand of its own, which is all that a thread needs
 * to be alone with.  Nobody ever waits for another thread or process. */
#ifndef XENOLITH_BLK_TMEM_POOL_H
#define XENOLITH_BLK_TMEM_POOL_H

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"
#include "blk/tmem_pool_format.h"

struct tmem_pool_params {
    const char *run_dir;        /* whose pool */
    const char *label;          /* the disk's name, for statistics */
    uint64_t size_bytes;        /* of the disk, likewise */
    uint64_t quota_bytes;       /* what its pages may take as if nobody shared them; 0: no quota */
    uint64_t pool_bytes;        /* what the pool may reach; 0: what it does, else a quarter of
                                 * the host's memory */
};

struct tmem_user;
struct tmem_hand;

/* Joins the pool of a run-time directory, making it when nobody uses one.  0 or -errno: -EEXIST
 * when it has another bound than the one asked for, -EUSERS when it has no room for a user. */
int tmem_pool_join(const struct tmem_pool_params *p, struct tmem_user **out, struct err *e);
/* Gives back all that the user has. */
void tmem_pool_leave(struct tmem_user *u);

/* NULL when out of memory. */
struct tmem_hand *tmem_hand_create(struct tmem_user *u);
void tmem_hand_free(struct tmem_user *u, struct tmem_hand *h);
/* Room for a page, for the caller. */
uint8_t *tmem_hand_page(struct tmem_hand *h);

/* Stores a page: *object is the user's once more then.  Up to credit_bytes of the user's charge
 * are given back next, through the same hand, and are not held against its quota.  0, or -ENOSPC
 * when the quota or the pool does not allow it, which is counted. */
int tmem_store(struct tmem_user *u, struct tmem_hand *h, const uint8_t *page,
               uint64_t credit_bytes, uint32_t *object);
/* What the object holds, which the user has.  0, or -EIO when the pool's memory is not what it
 * was. */
int tmem_load(struct tmem_user *u, struct tmem_hand *h, uint32_t object, uint8_t *page);
/* Once more, of one that the user had when it looked last: false when it has it no longer. */
bool tmem_hold(struct tmem_user *u, uint32_t object);
/* Once less. */
void tmem_drop(struct tmem_user *u, struct tmem_hand *h, uint32_t object);
/* What dropping it so many times now would take off the user's charge. */
uint64_t tmem_drop_bytes(const struct tmem_user *u, uint32_t object, unsigned times);

/* What the disk's pages are has changed: so many more of these (or less). */
void tmem_count(struct tmem_user *u, int pages, int filled);

struct tmem_user_stats {
    unsigned pid;
    char label[TMEM_LABEL_BYTES];
    uint64_t size_bytes, quota_bytes;           /* UINT64_MAX: no quota */
    uint64_t pages, filled, charged_bytes, shared_hits, over_quota, pool_full;
};

struct tmem_stats {
    uint64_t bound_bytes;
    uint64_t memory_bytes;                      /* what the host has given so far */
    uint64_t stored_pages;                      /* of all users' disks, filled ones not counted */
    uint64_t unique_pages;                      /* that stand for them */
    uint64_t compressed_bytes;
    uint64_t cell_bytes;                        /* what these lie in */
    unsigned nr_users;
    struct tmem_user_stats user[TMEM_USERS];
};

/* Any process.  0; -ENOENT when there is no pool; -errno.  Each figure is exact; they are read one
 * after the other. */
int tmem_pool_stats(const char *run_dir, struct tmem_stats *out, struct err *e);

#endif
