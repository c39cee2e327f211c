/* SPDX-License-Identifier: MIT */
/* The pool of tmem disks from within: what equal hashes do, what is left of a user who was killed
 * in the middle of something, what spoilt memory does, and two users who begin and cease to have
 * the same page all the time. */
#include "blk_test.h"

#include <pthread.h>
#include <xxhash.h>

#include "blk/tmem_pool_priv.h"

static struct run_dir run_dir;

struct user {
    struct tmem_user *u;
    struct tmem_hand *h;
};

static struct user user_join(void)
{
    struct user user = { .u = NULL };
    struct err e = { 0 };

    if (tmem_pool_join(&(struct tmem_pool_params){ .run_dir = run_dir.path, .pool_bytes = 4 * MIB,
                                                   .size_bytes = MIB }, &user.u, &e))
        fail_msg("%s", e.text);
    user.h = tmem_hand_create(user.u);
    assert_non_null(user.h);
    return user;
}

static void user_leave(struct user *user)
{
    tmem_hand_free(user->u, user->h);
    tmem_pool_leave(user->u);
}

static void page_make(uint8_t *page, unsigned seed)
{
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        page[i] = i < 1000 ? (uint8_t)rand_r(&seed) : (uint8_t)seed;
}

static uint32_t stored(struct user *user, const uint8_t *page)
{
    uint32_t object;

    assert_int_equal(tmem_store(user->u, user->h, page, 0, &object), 0);
    return object;
}

static void holds(struct user *user, uint32_t object, const uint8_t *page)
{
    uint8_t back[PAGE_SIZE];

    assert_int_equal(tmem_load(user->u, user->h, object, back), 0);
    assert_memory_equal(back, page, PAGE_SIZE);
}

static enum tmem_kind kind(const struct user *user, uint32_t object)
{
    return TMEM_STATE_KIND(*tmem_state(&user->u->map, object));
}

static uint64_t nr_cells_taken(const struct user *user)
{
    const struct tmem_map *m = &user->u->map;
    uint64_t nr = 0;

    for (uint32_t i = 0; i < tmem_nr_extents(m) * TMEM_EXTENT_CELLS; i++)
        nr += *tmem_cell_owner(m, i) != 0;
    return nr;
}

static void equal_hashes_are_not_equal_pages(void **state)
{
    struct user a = user_join(), b = user_join();
    struct tmem_map *m = &a.u->map;
    uint8_t first[PAGE_SIZE], second[PAGE_SIZE];
    uint32_t object, other;
    uint64_t hash;

    page_make(first, 1);
    page_make(second, 2);
    object = stored(&a, first);
    /* the first has the hash of the second, and is found by it */
    hash = XXH3_64bits_withSeed(second, PAGE_SIZE, m->seed);
    tmem_object(m, object)->hash = hash;
    tmem_index_add(m, hash, object);
    for (unsigned k = 0; k < 2; k++) {
        struct user *user = k ? &b : &a;

        other = stored(user, second);
        assert_int_not_equal(other, object);
        holds(user, other, second);
        assert_int_equal(stored(user, second), other);
    }
    /* b has looked at the first, but has it no longer */
    assert_int_equal(tmem_object(m, object)->holders[0], 1u << a.u->id);
    tmem_drop(a.u, a.h, object);
    user_leave(&a);
    user_leave(&b);
}

/* Whatever step somebody was at when he was killed. */
static void unfinished_work_is_finished(void **state)
{
    struct user a = user_join(), b = user_join();
    struct tmem_map *m = &a.u->map;
    uint8_t page[PAGE_SIZE];
    uint32_t shared, own, building;
    uint64_t before = nr_cells_taken(&a), *word, dead = 77;

    page_make(page, 3);
    shared = stored(&a, page);
    assert_int_equal(stored(&b, page), shared);
    page_make(page, 4);
    own = stored(&a, page);
    assert_int_equal(nr_cells_taken(&a), before + 6);
    /* taking, when some cells had been named, of which one belongs to another already */
    assert_int_equal(tmem_room_take(a.u, a.h, 1500, &building), 0);
    a.u->held[building] = 0;
    tmem_object(m, building)->cells[3] = tmem_object(m, own)->cells[0];
    tmem_object(m, building)->cells[4] = UINT32_MAX;
    word = tmem_state(m, building);
    *word = (*word & ~(uint64_t)0x3fc) | dead << 2;
    /* ending one that somebody has after all, and one that nobody has */
    word = tmem_state(m, shared);
    *word = (*word & ~(uint64_t)3) | dead << 2 | TMEM_ENDING;
    page_make(page, 5);
    tmem_objects_clear(m, (unsigned)dead, true);
    assert_int_equal(kind(&a, building), TMEM_FREE);
    assert_int_equal(kind(&a, shared), TMEM_LIVE);
    assert_int_equal(kind(&a, own), TMEM_LIVE);
    assert_int_equal(nr_cells_taken(&a), before + 6);
    word = tmem_state(m, own);
    tmem_object(m, own)->holders[0] = 0;
    *word = (*word & ~(uint64_t)3) | dead << 2 | TMEM_ENDING;
    /* and one that looked at something, which has become free since */
    tmem_object(m, building)->holders[dead / 64] |= 1ull << dead % 64;
    tmem_objects_clear(m, (unsigned)dead, true);
    assert_int_equal(kind(&a, own), TMEM_FREE);
    assert_int_equal(tmem_object(m, building)->holders[dead / 64], 0);
    assert_int_equal(nr_cells_taken(&a), before + 3);
    a.u->held[own] = 0;
    /* once more does no harm */
    tmem_objects_clear(m, (unsigned)dead, true);
    page_make(page, 3);
    holds(&a, shared, page);
    holds(&b, shared, page);
    tmem_drop(a.u, a.h, shared);
    assert_int_equal(kind(&a, shared), TMEM_LIVE);
    tmem_drop(b.u, b.h, shared);
    assert_int_not_equal(kind(&a, shared), TMEM_LIVE);
    user_leave(&b);
    user_leave(&a);
}

/* Nothing but an error comes of memory that somebody has spoilt. */
static void spoilt_memory_is_an_error(void **state)
{
    uint8_t page[PAGE_SIZE], back[PAGE_SIZE];
    unsigned seed = 11;

    page_make(page, 6);
    for (unsigned round = 0; round < 2000; round++) {
        struct user a = user_join();
        struct tmem_map *m = &a.u->map;
        uint32_t object = stored(&a, page);
        struct tmem_object *o = tmem_object(m, object);
        const struct tmem_object was = *o;

        switch (round % 5) {
        case 0:
            o->cells[round % 3] = (uint32_t)rand_r(&seed) * 4u;
            break;
        case 1:
            o->length = (uint32_t)rand_r(&seed) % (round % 2 ? 4096 : UINT32_MAX);
            break;
        case 2:
            o->hash ^= 1ull << round % 64;
            break;
        case 3:
            tmem_cell(m, o->cells[round % 2])[(unsigned)rand_r(&seed) % 512] ^= 1u << round % 8;
            break;
        default:
            for (unsigned i = 0; i < 1024; i++)
                tmem_cell(m, o->cells[0])[i % 512] = (uint8_t)rand_r(&seed);
            break;
        }
        if (!tmem_load(a.u, a.h, object, back))
            assert_memory_equal(back, page, PAGE_SIZE);
        else
            assert_true(memcmp(o, &was, sizeof(was)) || round % 5 > 2);
        /* it is not found as what it was, or it is what it was */
        holds(&a, stored(&a, page), page);
        user_leave(&a);
    }
}

/* ---- two users, one page ---- */

#define NR_ROUNDS 60000u

static void *have_and_drop(void *arg)
{
    struct user *user = arg;
    uint8_t page[PAGE_SIZE], back[PAGE_SIZE];

    for (unsigned i = 0; i < NR_ROUNDS; i++) {
        uint32_t object;

        page_make(page, 20 + i / 64 % 2);
        if (tmem_store(user->u, user->h, page, 0, &object) ||
            tmem_load(user->u, user->h, object, back) || memcmp(back, page, PAGE_SIZE) ||
            TMEM_STATE_KIND(load_acquire(tmem_state(&user->u->map, object))) < TMEM_LIVE)
            abort();
        tmem_drop(user->u, user->h, object);
    }
    return NULL;
}

static void users_have_and_drop_the_same_page(void **state)
{
    struct user user[3] = { user_join(), user_join(), user_join() };
    pthread_t thread[array_size(user)];
    uint64_t before = nr_cells_taken(&user[0]);

    for (unsigned i = 0; i < array_size(user); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, have_and_drop, &user[i]), 0);
    for (unsigned i = 0; i < array_size(user); i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(nr_cells_taken(&user[0]), before);
    for (uint32_t i = 0; i < tmem_nr_extents(&user[0].u->map) * TMEM_EXTENT_OBJECTS; i++)
        assert_int_not_equal(kind(&user[0], i), TMEM_LIVE);
    for (unsigned i = 0; i < array_size(user); i++)
        user_leave(&user[i]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_hashes_are_not_equal_pages),
        cmocka_unit_test(unfinished_work_is_finished),
        cmocka_unit_test(spoilt_memory_is_an_error),
        cmocka_unit_test(users_have_and_drop_the_same_page),
    };
    int failed;

    run_dir_make(&run_dir);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    run_dir_remove(&run_dir);
    return failed;
}
