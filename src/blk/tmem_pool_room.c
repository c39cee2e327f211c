/* SPDX-License-Identifier: MIT */
/* Room in the pool: objects, cells for what they hold, and memory from the host for both.
 *
 * Cells are all of one size, so nothing is ever moved, joined or split, and what one page leaves
 * behind serves any other.  Free is a word that is 0 (a cell's owner, an object's kind); taking
 * is one compare-and-swap of that word, which also says for whom, so whatever a killed process
 * has taken tells whose it is.  An object names a cell before it takes it, so its cells can be
 * found from it at any instant; a cell that it names and that is another's is not its own.
 *
 * To find what is free, a thread goes on where it took or gave back something last.  Only when
 * something was freed since it last came round does it look at what lies behind it; else the
 * pool gets another extent.  A pool that is full and stays so is known to be at once.
 *
 * Who writes something else to a page needs room before the old page is given back, which a full
 * pool does not have.  So each thread keeps a spare: one object, with cells, that nobody has.  The
 * new page goes there, and the old one's room, which never becomes free in between, is the next
 * spare, unless it is the smaller one. */
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "blk/tmem_pool_priv.h"

#define LOOK_AGAIN_NS 100000000u

struct taker {
    struct tmem_user *u;
    uint32_t object;            /* for whom cells are */
    unsigned slot;
};

static inline bool object_try(const struct taker *t, uint32_t object)
{
    uint64_t *state = tmem_state(&t->u->map, object);
    uint64_t was = load_relaxed(state);
    uint64_t gen = (was >> TMEM_STATE_GEN_SHIFT) + 1;

    /* not while another thread of this user looks at what the object was before */
    if (TMEM_STATE_KIND(was) != TMEM_FREE || !tmem_swap_u32(&t->u->held[object], 0, TMEM_HELD_BUSY))
        return false;
    if (tmem_swap_u64(state, was, gen << TMEM_STATE_GEN_SHIFT | t->u->id << 2 | TMEM_BUILDING))
        return true;
    store_release(&t->u->held[object], 0);
    return false;
}

static inline bool cell_try(const struct taker *t, uint32_t cell)
{
    uint32_t *owner = tmem_cell_owner(&t->u->map, cell);

    if (load_relaxed(owner))
        return false;
    /* named first: pairs with tmem_room_give() after a kill */
    store_relaxed(&tmem_object(&t->u->map, t->object)->cells[t->slot], cell);
    return tmem_swap_u32(owner, 0, t->object + 1);
}

bool tmem_back(const struct tmem_map *m, off_t at, uint64_t bytes)
{
    int rc;

    /* the thread may be a vCPU's, which are sent signals */
    do
        rc = fallocate(m->fd, 0, at, (off_t)bytes);
    while (rc && errno == EINTR);
    return !rc;
}

/* Another extent than the nr there were.  Two who back the same one do so twice, which is
 * harmless; so is one who is killed in between. */
static bool grow(struct tmem_user *u, struct tmem_hand *h, uint64_t nr)
{
    struct tmem_map *m = &u->map;
    off_t at = (off_t)(m->extents - (uint8_t *)m->header) + (off_t)(nr * TMEM_EXTENT_BYTES);

    if (nr >= m->max_extents || h->full_at_extents == nr + 1)
        return false;
    if (load_acquire(&m->header->nr_extents) != nr)
        return true;
    if (!tmem_back(m, at, TMEM_EXTENT_BYTES)) {
        h->full_at_extents = nr + 1;
        return false;
    }
    tmem_swap_u64(&m->header->nr_extents, nr, nr + 1);
    return true;
}

static inline __attribute__((always_inline))
bool look(const struct taker *t, uint32_t from, uint32_t to, struct tmem_place *p,
          bool (*try)(const struct taker *t, uint32_t number), uint32_t *found)
{
    for (uint32_t i = from; i < to; i++) {
        if (!try(t, i))
            continue;
        p->next = i + 1;
        *found = i;
        return true;
    }
    return false;
}

/* Before p->next nothing was free when nr_freed was p->missed. */
static inline __attribute__((always_inline))
bool take(const struct taker *t, struct tmem_hand *h, struct tmem_place *p, uint32_t per_extent,
          bool (*try)(const struct taker *t, uint32_t number), uint32_t *found)
{
    const struct tmem_map *m = &t->u->map;

    for (;;) {
        uint64_t freed = load_acquire(&m->header->nr_freed), nr = tmem_nr_extents(m);
        uint32_t end = (uint32_t)nr * per_extent;

        if (look(t, p->next, end, p, try, found) ||
            (freed != p->missed && look(t, 0, min_of(p->next, end), p, try, found)))
            return true;
        p->missed = freed;
        p->next = end;
        if (!grow(t->u, h, nr))
            return false;
    }
}

/* A cell that the object names, if it is its own. */
static void cell_give(const struct tmem_map *m, uint32_t object, uint32_t cell)
{
    if (tmem_cell_is_there(m, cell))
        tmem_swap_u32(tmem_cell_owner(m, cell), object + 1, 0);
}

/* Of what there is: changes when there may be more. */
static uint64_t room_version(const struct tmem_map *m)
{
    return load_acquire(&m->header->nr_freed) + load_acquire(&m->header->nr_extents);
}

/* Gives back what was not enough.  The others are not told: they would all look for it in vain. */
static void give_up(struct tmem_user *u, struct tmem_hand *h, uint32_t object, unsigned nr_cells,
                    uint64_t version)
{
    uint32_t first = load_relaxed(&tmem_object(&u->map, object)->cells[0]);

    h->short_cells = nr_cells;
    h->short_version = version;
    tmem_room_give(&u->map, object);
    store_release(&u->held[object], 0);
    h->object.next = min_of(h->object.next, object);
    if (nr_cells)
        h->cell.next = min_of(h->cell.next, first);
}

int tmem_room_take(struct tmem_user *u, struct tmem_hand *h, uint32_t length, uint32_t *object)
{
    struct taker t = { .u = u };
    /* before looking: what comes meanwhile is looked for the next time */
    uint64_t version = room_version(&u->map);
    uint32_t cell;

    if (tmem_nr_cells(length) > h->short_cells && h->short_version == version)
        return -ENOSPC;
    if (!take(&t, h, &h->object, TMEM_EXTENT_OBJECTS, object_try, &t.object))
        return -ENOSPC;
    store_relaxed(&tmem_object(&u->map, t.object)->length, length);
    for (t.slot = 0; t.slot < tmem_nr_cells(length); t.slot++) {
        if (take(&t, h, &h->cell, TMEM_EXTENT_CELLS, cell_try, &cell))
            continue;
        give_up(u, h, t.object, t.slot, version);
        return -ENOSPC;
    }
    *object = t.object;
    return 0;
}

int tmem_room_take_spare(struct tmem_user *u, struct tmem_hand *h, uint32_t length,
                         uint32_t *object)
{
    struct tmem_object *o = tmem_object(&u->map, h->spare);
    unsigned nr = tmem_nr_cells(length);

    if (nr > h->spare_cells)
        return -ENOSPC;
    store_relaxed(&o->length, length);
    for (unsigned i = nr; i < h->spare_cells; i++)
        cell_give(&u->map, h->spare, load_relaxed(&o->cells[i]));
    if (nr < h->spare_cells)
        tmem_room_given(&u->map);
    *object = h->spare;
    h->spare_cells = 0;
    return 0;
}

void tmem_room_give(const struct tmem_map *m, uint32_t object)
{
    struct tmem_object *o = tmem_object(m, object);
    uint64_t *state = tmem_state(m, object);
    uint64_t gen = load_relaxed(state) >> TMEM_STATE_GEN_SHIFT;

    for (unsigned i = 0; i < TMEM_OBJECT_CELLS; i++)
        cell_give(m, object, load_relaxed(&o->cells[i]));
    store_release(state, gen << TMEM_STATE_GEN_SHIFT | TMEM_FREE);
}

/* After what it tells of.  Who is killed before leaves it to the next who frees something. */
void tmem_room_given(const struct tmem_map *m)
{
    fetch_add(&m->header->nr_freed, 1);
}

bool tmem_room_look_again(struct tmem_user *u, struct tmem_hand *h)
{
    struct timespec ts;
    uint64_t now, last = load_relaxed(&u->swept_ns);

    clock_gettime(CLOCK_MONOTONIC, &ts);
    now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    if (now - last < LOOK_AGAIN_NS || !tmem_swap_u64(&u->swept_ns, last, now))
        return false;
    tmem_users_sweep(u);
    h->full_at_extents = 0;
    h->short_version = UINT64_MAX;
    return true;
}
