/* SPDX-License-Identifier: MIT */
/* Between the files of the pool. */
#ifndef XENOLITH_BLK_TMEM_POOL_PRIV_H
#define XENOLITH_BLK_TMEM_POOL_PRIV_H

#include <lz4.h>

#include "base/atomic.h"
#include "blk/tmem_pool.h"
#include "blk/tmem_pool_format.h"

/* One process's view of the memory. */
struct tmem_map {
    int fd;
    size_t bytes;
    struct tmem_header *header;
    struct tmem_bucket *index;
    uint8_t *extents;
    uint64_t nr_buckets;        /* as the bound has it: what the header says is not asked again */
    uint64_t max_extents;
    uint64_t seed;
};

struct tmem_user {
    struct tmem_map map;
    unsigned id;
    struct tmem_user_record *record;
    uint64_t quota_bytes;
    uint32_t *held;             /* by object, this process's own: tmem_pool_object.c */
    size_t held_bytes;
    bool sweeping;
    uint64_t swept_ns;
    int dir_fd;                 /* the pool's folder in the run-time directory */
};

struct tmem_hand {
    struct tmem_place { uint32_t next; uint64_t missed; } object, cell;
    uint64_t full_at_extents;   /* the host gave no more when there were so many, + 1; 0: it did */
    unsigned short_cells;       /* no more than these were to be had at room_version() ... */
    uint64_t short_version;     /* ... this */
    uint32_t spare;             /* an object that is kept for when the pool is full ... */
    unsigned spare_cells;       /* ... with so many cells; 0: there is none */
    uint8_t page[PAGE_SIZE], packed[PAGE_SIZE], other[PAGE_SIZE];
    LZ4_stream_t lz4;
};

/* ---- where things are: numbers that come from the memory are judged before they are used ---- */

static inline uint64_t tmem_nr_extents(const struct tmem_map *m)
{
    return min_of(load_acquire(&m->header->nr_extents), m->max_extents);
}

static inline struct tmem_extent *tmem_extent(const struct tmem_map *m, uint32_t extent)
{
    return (struct tmem_extent *)(m->extents + extent * TMEM_EXTENT_BYTES);
}

static inline bool tmem_object_is_there(const struct tmem_map *m, uint32_t object)
{
    return object / TMEM_EXTENT_OBJECTS < tmem_nr_extents(m);
}

static inline bool tmem_cell_is_there(const struct tmem_map *m, uint32_t cell)
{
    return cell / TMEM_EXTENT_CELLS < tmem_nr_extents(m);
}

static inline struct tmem_object *tmem_object(const struct tmem_map *m, uint32_t object)
{
    return &tmem_extent(m, object / TMEM_EXTENT_OBJECTS)->object[object % TMEM_EXTENT_OBJECTS];
}

static inline uint64_t *tmem_state(const struct tmem_map *m, uint32_t object)
{
    return &tmem_extent(m, object / TMEM_EXTENT_OBJECTS)->state[object % TMEM_EXTENT_OBJECTS];
}

static inline uint32_t *tmem_cell_owner(const struct tmem_map *m, uint32_t cell)
{
    return &tmem_extent(m, cell / TMEM_EXTENT_CELLS)->cell_owner[cell % TMEM_EXTENT_CELLS];
}

static inline uint8_t *tmem_cell(const struct tmem_map *m, uint32_t cell)
{
    return tmem_extent(m, cell / TMEM_EXTENT_CELLS)->cell[cell % TMEM_EXTENT_CELLS];
}

/* In bytes, never more than a page. */
static inline uint32_t tmem_length(const struct tmem_object *o)
{
    return min_of(load_relaxed(&o->length), (uint32_t)PAGE_SIZE);
}

static inline unsigned tmem_nr_cells(uint32_t length)
{
    return div_round_up(length, TMEM_CELL_BYTES);
}

static inline bool tmem_swap_u64(uint64_t *at, uint64_t from, uint64_t to)
{
    return __atomic_compare_exchange_n(at, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline bool tmem_swap_u32(uint32_t *at, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(at, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* ---- tmem_pool_room.c ---- */

#define TMEM_HELD_BUSY UINT32_MAX

/* Has the host give memory for a range of the file, if it has any. */
bool tmem_back(const struct tmem_map *m, off_t at, uint64_t bytes);

/* An object for u, which is making it (held is TMEM_HELD_BUSY), with cells for length bytes.
 * 0 or -ENOSPC. */
int tmem_room_take(struct tmem_user *u, struct tmem_hand *h, uint32_t length, uint32_t *object);
/* The same with the hand's spare, if that is large enough. */
int tmem_room_take_spare(struct tmem_user *u, struct tmem_hand *h, uint32_t length,
                         uint32_t *object);
/* Frees an object that is being made or unmade, by the caller or by somebody who is no more.
 * Does not tell those who are looking: tmem_room_given(). */
void tmem_room_give(const struct tmem_map *m, uint32_t object);
void tmem_room_given(const struct tmem_map *m);
/* The pool was full: whether to try again, since there may be more now. */
bool tmem_room_look_again(struct tmem_user *u, struct tmem_hand *h);

/* ---- tmem_pool_index.c ---- */

/* Calls seen() for what may be a page of this hash until it returns true; whether it did. */
bool tmem_index_find(const struct tmem_map *m, uint64_t hash,
                     bool (*seen)(void *arg, uint32_t object), void *arg);
/* May fail to: then the object is not found. */
void tmem_index_add(const struct tmem_map *m, uint64_t hash, uint32_t object);
void tmem_index_remove(const struct tmem_map *m, uint64_t hash, uint32_t object);

/* ---- tmem_pool_object.c ---- */

/* Gives back all that user `as` has, who is no more or about to go.  To be done by one at a
 * time, again when that one was killed. */
void tmem_objects_clear(const struct tmem_map *m, unsigned as, bool killed);

/* ---- tmem_pool.c ---- */

/* The pool of a run-time directory that somebody uses: 0, -ENOENT when nobody does, or -errno.
 * lock_fd: of its folder. */
int tmem_map_find(int dir_fd, const char *run_dir, int prot, struct tmem_map *out, struct err *e);
void tmem_map_close(struct tmem_map *m);
/* The pool's folder, -ENOENT when it is not there and not to be made; and its lock, which ends
 * when the descriptor is closed. */
int tmem_dir_open(const char *run_dir, bool make, struct err *e);
int tmem_dir_lock(int dir_fd, const char *run_dir, struct err *e);
/* Whether the user's process lives. */
bool tmem_user_lives(const struct tmem_map *m, unsigned user);
/* Gives back what users have had that live no longer.  Any thread; for one at a time. */
void tmem_users_sweep(struct tmem_user *u);

#endif
