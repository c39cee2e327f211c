/* SPDX-License-Identifier: MIT */
/* Pages in the pool, and who has them.
 *
 *            tmem_room_take           published            the last holder is gone
 *     FREE ------------------> BUILDING --------> LIVE <--------------------------> ENDING
 *       ^                         | (killed)       (somebody came after all)           |
 *       +-------------------------+----------------------------------------------------+
 *                                      tmem_room_give, or BUILDING at once for a spare
 *
 * A live object never changes.  Who has it is a set, a bit for each user (disk), and not a count:
 * setting and clearing a bit may be done twice, so what a killed process had can be given back by
 * anyone who goes through all objects and clears its bit, at any time, again if need be.  How
 * often a disk has an object (`held`) only its process knows, and takes with it.
 *
 * To have an object that one has found, one sets one's bit, then looks whether it is still live
 * and of the same generation; else clears the bit again.  To end one that nobody has, one makes
 * it ENDING, then looks whether somebody has set a bit meanwhile; if so, makes it live again, and
 * looks once more.  The store comes before the look on both sides, so one of the two sees the
 * other.  Whoever clears a bit, for whatever reason, then tries to end the object, so the last
 * one does.  In BUILDING and ENDING the state says whose work that is: who is killed there has it
 * finished by whoever clears up after him.
 *
 * Who waits for whom: nobody.  A thread that meets an object which another thread of its disk is
 * just beginning or ceasing to have (TMEM_HELD_BUSY) takes it for a stranger and stores its page a
 * second time; so do two that store the same new page at the same instant.  A loop below goes
 * round again only when somebody else got on.
 *
 * Who trusts whom: the memory is written by the processes of one user, who could trace each
 * other.  What one of them spoils must not crash the others all the same: numbers and lengths are
 * judged, decompression keeps to its buffer, and a page whose hash is not what it was when it was
 * stored is an I/O error.  A guest sees none of this; that a page is in the pool already it can
 * tell from the time that a write takes. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <xxhash.h>

#include "blk/tmem_pool_priv.h"

/* ---- who has it ---- */

static uint64_t *holders_word(struct tmem_object *o, unsigned user)
{
    return &o->holders[user / 64];
}

static uint64_t holders_bit(unsigned user)
{
    return (uint64_t)1 << user % 64;
}

static bool has_holders(const struct tmem_object *o)
{
    uint64_t any = 0;

    for (unsigned i = 0; i < array_size(o->holders); i++)
        any |= __atomic_load_n(&o->holders[i], __ATOMIC_SEQ_CST);
    return any;
}

/* Ends the object if it is live and nobody has it, in the name of user `as`: frees it, or keeps it
 * as if it were being made.  Whether it did. */
static bool object_end(const struct tmem_map *m, uint32_t object, unsigned as, bool keep)
{
    const struct tmem_object *o = tmem_object(m, object);
    uint64_t *state = tmem_state(m, object);

    for (;;) {
        uint64_t live = __atomic_load_n(state, __ATOMIC_SEQ_CST);

        if (TMEM_STATE_KIND(live) != TMEM_LIVE || has_holders(o))
            return false;
        if (!tmem_swap_u64(state, live, (live & ~(uint64_t)3) | as << 2 | TMEM_ENDING))
            continue;
        /* pairs with holder_add(): a bit, then the state */
        if (!has_holders(o))
            break;
        __atomic_store_n(state, live, __ATOMIC_SEQ_CST);
    }
    tmem_index_remove(m, load_relaxed(&tmem_object(m, object)->hash), object);
    if (keep) {
        uint64_t gen = (load_relaxed(state) >> TMEM_STATE_GEN_SHIFT) + 1;

        store_release(state, gen << TMEM_STATE_GEN_SHIFT | as << 2 | TMEM_BUILDING);
    } else {
        tmem_room_give(m, object);
        tmem_room_given(m);
    }
    return true;
}

static bool holder_remove(const struct tmem_map *m, uint32_t object, unsigned user, bool keep)
{
    fetch_and(holders_word(tmem_object(m, object), user), ~holders_bit(user));
    return object_end(m, object, user, keep);
}

/* One holder more, if the object is live. */
static bool holder_add(const struct tmem_map *m, uint32_t object, unsigned user)
{
    uint64_t *state = tmem_state(m, object);
    uint64_t live = load_acquire(state);

    if (TMEM_STATE_KIND(live) != TMEM_LIVE)
        return false;
    fetch_or(holders_word(tmem_object(m, object), user), holders_bit(user));
    /* pairs with object_end(): ENDING, then the bits */
    if (__atomic_load_n(state, __ATOMIC_SEQ_CST) == live)
        return true;
    holder_remove(m, object, user, false);
    return false;
}

void tmem_objects_clear(const struct tmem_map *m, unsigned as, bool killed)
{
    uint64_t nr = tmem_nr_extents(m) * TMEM_EXTENT_OBJECTS;

    for (uint32_t i = 0; i < nr; i++) {
        struct tmem_object *o = tmem_object(m, i);
        uint64_t state = load_acquire(tmem_state(m, i));
        bool its = TMEM_STATE_USER(state) == as;

        /* one that was killed may have left its bit in an object that has ended since */
        if (TMEM_STATE_KIND(state) == TMEM_FREE && !killed)
            continue;
        if (load_relaxed(holders_word(o, as)) & holders_bit(as))
            fetch_and(holders_word(o, as), ~holders_bit(as));
        if (TMEM_STATE_KIND(state) == TMEM_BUILDING && its) {
            tmem_room_give(m, i);
            tmem_room_given(m);
        } else if (TMEM_STATE_KIND(state) == TMEM_ENDING && its) {
            __atomic_store_n(tmem_state(m, i), (state >> TMEM_STATE_GEN_SHIFT
                                                << TMEM_STATE_GEN_SHIFT) | TMEM_LIVE,
                             __ATOMIC_SEQ_CST);
            object_end(m, i, as, false);
        } else {
            object_end(m, i, as, false);
        }
    }
}

/* ---- what it costs ---- */

static uint64_t cost(const struct tmem_map *m, uint32_t object)
{
    return (uint64_t)tmem_nr_cells(tmem_length(tmem_object(m, object))) * TMEM_CELL_BYTES;
}

static int charge(struct tmem_user *u, uint64_t bytes, uint64_t credit_bytes)
{
    uint64_t sum = fetch_add(&u->record->charged_bytes, bytes) + bytes;

    if (sum <= u->quota_bytes || sum - u->quota_bytes <= credit_bytes)
        return 0;
    __atomic_fetch_sub(&u->record->charged_bytes, bytes, __ATOMIC_RELAXED);
    return -EDQUOT;
}

static void uncharge(struct tmem_user *u, uint64_t bytes)
{
    __atomic_fetch_sub(&u->record->charged_bytes, bytes, __ATOMIC_RELAXED);
}

static void count(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

void tmem_count(struct tmem_user *u, int pages, int filled)
{
    count(&u->record->pages, (uint64_t)(int64_t)pages);
    count(&u->record->filled, (uint64_t)(int64_t)filled);
}

/* ---- what it holds ---- */

/* Copies between an object's cells and one buffer. */
static int cells_copy(const struct tmem_map *m, uint32_t object, uint32_t length, uint8_t *buf,
                      bool in)
{
    struct tmem_object *o = tmem_object(m, object);

    for (unsigned i = 0; i < tmem_nr_cells(length); i++) {
        uint32_t cell = load_relaxed(&o->cells[i]);
        uint32_t n = min_of(length - i * TMEM_CELL_BYTES, TMEM_CELL_BYTES);

        if (!tmem_cell_is_there(m, cell))
            return -EIO;
        if (in)
            memcpy(tmem_cell(m, cell), buf + i * TMEM_CELL_BYTES, n);
        else
            memcpy(buf + i * TMEM_CELL_BYTES, tmem_cell(m, cell), n);
    }
    return 0;
}

static uint64_t hash_of(const struct tmem_map *m, const uint8_t *page)
{
    return XXH3_64bits_withSeed(page, PAGE_SIZE, m->seed);
}

static int unpack(const struct tmem_map *m, struct tmem_hand *h, uint32_t object, uint8_t *page)
{
    uint32_t length = tmem_length(tmem_object(m, object));
    int rc = cells_copy(m, object, length, length == PAGE_SIZE ? page : h->packed, false);

    if (rc || length == PAGE_SIZE)
        return rc;
    return LZ4_decompress_safe((const char *)h->packed, (char *)page, (int)length,
                               (int)PAGE_SIZE) == (int)PAGE_SIZE ? 0 : -EIO;
}

int tmem_load(struct tmem_user *u, struct tmem_hand *h, uint32_t object, uint8_t *page)
{
    int rc = unpack(&u->map, h, object, page);

    if (!rc && hash_of(&u->map, page) != load_relaxed(&tmem_object(&u->map, object)->hash))
        rc = -EIO;
    return rc;
}

/* ---- having, as a disk does ---- */

bool tmem_hold(struct tmem_user *u, uint32_t object)
{
    uint32_t n = load_relaxed(&u->held[object]);

    do
        if (!n || n == TMEM_HELD_BUSY)
            return false;
    while (!__atomic_compare_exchange_n(&u->held[object], &n, n + 1, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED));
    return true;
}

static void spare_give(struct tmem_user *u, struct tmem_hand *h)
{
    if (!h->spare_cells)
        return;
    tmem_room_give(&u->map, h->spare);
    tmem_room_given(&u->map);
    store_release(&u->held[h->spare], 0);
    h->spare_cells = 0;
}

void tmem_drop(struct tmem_user *u, struct tmem_hand *h, uint32_t object)
{
    uint32_t n = load_relaxed(&u->held[object]);
    uint32_t cell = load_relaxed(&tmem_object(&u->map, object)->cells[0]);
    uint64_t bytes = cost(&u->map, object);
    bool keep;

    do
        assert(n && n != TMEM_HELD_BUSY);
    while (!__atomic_compare_exchange_n(&u->held[object], &n, n == 1 ? TMEM_HELD_BUSY : n - 1,
                                        false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    if (n > 1)
        return;
    uncharge(u, bytes);
    keep = bytes / TMEM_CELL_BYTES > h->spare_cells;
    if (!holder_remove(&u->map, object, u->id, keep)) {
        store_release(&u->held[object], 0);
    } else if (keep) {
        /* and so stays TMEM_HELD_BUSY */
        spare_give(u, h);
        h->spare = object;
        h->spare_cells = (unsigned)(bytes / TMEM_CELL_BYTES);
    } else {
        store_release(&u->held[object], 0);
        h->object.next = min_of(h->object.next, object);
        h->cell.next = min_of(h->cell.next, cell);
    }
}

uint64_t tmem_drop_bytes(const struct tmem_user *u, uint32_t object, unsigned times)
{
    return load_relaxed(&u->held[object]) == times ? cost(&u->map, object) : 0;
}

struct search {
    struct tmem_user *u;
    struct tmem_hand *h;
    const uint8_t *page;
    uint64_t hash, credit_bytes;
    uint32_t object;
    int rc;
};

/* Equal hashes say nothing: the bytes do. */
static bool is_equal(const struct search *s, uint32_t object)
{
    return load_relaxed(&tmem_object(&s->u->map, object)->hash) == s->hash &&
           !unpack(&s->u->map, s->h, object, s->h->other) &&
           !memcmp(s->h->other, s->page, PAGE_SIZE);
}

/* The disk has none of it yet. */
static bool begin_to_hold(struct search *s, uint32_t object)
{
    struct tmem_user *u = s->u;
    uint32_t *held = &u->held[object];
    bool has, equal;

    if (!tmem_swap_u32(held, 0, TMEM_HELD_BUSY))
        return false;
    has = holder_add(&u->map, object, u->id);
    equal = has && is_equal(s, object);
    s->rc = equal ? charge(u, cost(&u->map, object), s->credit_bytes) : 0;
    if (equal && !s->rc) {
        count(&u->record->shared_hits, 1);
        store_release(held, 1);
        return true;
    }
    if (has)
        holder_remove(&u->map, object, u->id, false);
    store_release(held, 0);
    return equal;
}

static bool seen(void *arg, uint32_t object)
{
    struct search *s = arg;

    s->object = object;
    if (load_relaxed(&tmem_object(&s->u->map, object)->hash) != s->hash)
        return false;
    if (!tmem_hold(s->u, object))
        return begin_to_hold(s, object);
    if (is_equal(s, object)) {
        count(&s->u->record->shared_hits, 1);
        return true;
    }
    tmem_drop(s->u, s->h, object);
    return false;
}

static int build(struct search *s)
{
    struct tmem_user *u = s->u;
    struct tmem_map *m = &u->map;
    /* one cell less than the page takes as it is, or it is not worth it */
    int packed = LZ4_compress_fast_extState(&s->h->lz4, (const char *)s->page,
                                            (char *)s->h->packed, (int)PAGE_SIZE,
                                            (int)(PAGE_SIZE - TMEM_CELL_BYTES), 1);
    uint32_t length = packed > 0 ? (uint32_t)packed : (uint32_t)PAGE_SIZE;
    uint64_t bytes = (uint64_t)tmem_nr_cells(length) * TMEM_CELL_BYTES;
    struct tmem_object *o;
    int rc = charge(u, bytes, s->credit_bytes);

    if (rc)
        return rc;
    rc = tmem_room_take(u, s->h, length, &s->object);
    if (rc && tmem_room_look_again(u, s->h))
        rc = tmem_room_take(u, s->h, length, &s->object);
    if (rc && s->credit_bytes)
        rc = tmem_room_take_spare(u, s->h, length, &s->object);
    if (rc) {
        uncharge(u, bytes);
        return rc;
    }
    o = tmem_object(m, s->object);
    rc = cells_copy(m, s->object, length, packed > 0 ? s->h->packed : (uint8_t *)s->page, true);
    store_relaxed(&o->hash, s->hash);
    if (rc) {
        tmem_room_give(m, s->object);
        tmem_room_given(m);
        uncharge(u, bytes);
        store_release(&u->held[s->object], 0);
        return rc;
    }
    fetch_or(holders_word(o, u->id), holders_bit(u->id));
    store_release(tmem_state(m, s->object),
                  (load_relaxed(tmem_state(m, s->object)) >> TMEM_STATE_GEN_SHIFT
                   << TMEM_STATE_GEN_SHIFT) | TMEM_LIVE);
    tmem_index_add(m, s->hash, s->object);
    store_release(&u->held[s->object], 1);
    return 0;
}

int tmem_store(struct tmem_user *u, struct tmem_hand *h, const uint8_t *page,
               uint64_t credit_bytes, uint32_t *object)
{
    struct search s = { .u = u, .h = h, .page = page, .hash = hash_of(&u->map, page),
                        .credit_bytes = credit_bytes };

    if (!tmem_index_find(&u->map, s.hash, seen, &s))
        s.rc = build(&s);
    if (s.rc)
        count(s.rc == -EDQUOT ? &u->record->over_quota : &u->record->pool_full, 1);
    *object = s.object;
    return s.rc == -EDQUOT ? -ENOSPC : s.rc;
}

/* ---- hands ---- */

struct tmem_hand *tmem_hand_create(struct tmem_user *u)
{
    struct tmem_hand *h = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*h),
                                                                   (size_t)CACHE_LINE_BYTES));
    uint32_t last = (uint32_t)tmem_nr_extents(&u->map);

    if (!h)
        return NULL;
    memset(h, 0, sizeof(*h));
    /* where the pool has grown last there is most likely room */
    last -= last > 0;
    h->object.next = last * TMEM_EXTENT_OBJECTS;
    h->cell.next = last * TMEM_EXTENT_CELLS;
    h->object.missed = h->cell.missed = h->short_version = UINT64_MAX;
    /* if there is none, the first page that is given back will do */
    if (!tmem_room_take(u, h, PAGE_SIZE, &h->spare))
        h->spare_cells = TMEM_OBJECT_CELLS;
    return h;
}

void tmem_hand_free(struct tmem_user *u, struct tmem_hand *h)
{
    spare_give(u, h);
    free(h);
}

uint8_t *tmem_hand_page(struct tmem_hand *h)
{
    return h->page;
}
