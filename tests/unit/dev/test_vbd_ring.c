/* SPDX-License-Identifier: MIT */
/* The ring by itself: sizes, indices, notifications, grants that stay. */
#include "vbd_ring_fixture.h"

static void entries_agree_with_the_official_macro(void **state)
{
    static const uint32_t expected[] = { 32, 64, 128, 256, 512 };

    for (unsigned order = 0; order <= VBD_RING_ORDER_MAX; order++) {
        uint32_t nr = vbd_ring_nr_entries(vbd_abi_find(NULL), 1u << order);

        assert_int_equal(nr, expected[order]);
        assert_int_equal(nr, __CONST_RING_SIZE(blkif, (PAGE_SIZE << order)));
    }
}

static void impossible_producer_stops_the_ring_only(void **state)
{
    static const struct { uint32_t start; int64_t jump; } table[] = {
        { 0, 33 }, { 0, 1000 }, { 0, -1 }, { 0, 1u << 31 },
        { UINT32_MAX - 3, 33 }, { UINT32_MAX - 3, -1 }, { 5, -5 },
    };

    for (unsigned i = 0; i < array_size(table); i++) {
        struct blkif_response rsp;
        struct fixture f;
        struct blkif_request r;

        open_ring(&f, 1, table[i].start, false);
        f.held.automatic = false;
        /* one request in flight when it happens: it still gets its answer */
        r = front_request(&f.front, BLKIF_OP_WRITE, 77, 0, DATA_PAGE, 1);
        front_put(&f.front, &r);
        front_publish(&f.front);
        turn(&f);
        assert_null(vbd_ring_fault(&f.ring));
        front_sring(&f.front)->req_prod = (uint32_t)(f.front.req_prod - 1 + table[i].jump);
        turn(&f);
        assert_non_null(vbd_ring_fault(&f.ring));
        assert_int_equal(f.held.nr_log, 1);
        finish_all(&f);
        turn(&f);
        assert_true(front_get(&f.front, &rsp));
        assert_int_equal(rsp.id, 77);
        assert_false(front_get(&f.front, &rsp));
        /* for good, even when the index is mended */
        front_put(&f.front, &r);
        front_publish(&f.front);
        turn(&f);
        assert_int_equal(f.held.nr_log, 1);
        assert_false(vbd_ring_arm(&f.ring));
        close_ring(&f);
    }
}

static void any_index_is_a_valid_start(void **state)
{
    static const uint32_t start[] = { 1, 31, 12345678, 1u << 31, UINT32_MAX };

    for (unsigned i = 0; i < array_size(start); i++) {
        struct fixture f;
        struct blkif_request r;

        open_ring(&f, 1, start[i], false);
        r = front_request(&f.front, BLKIF_OP_WRITE, i, 0, DATA_PAGE, 1);
        assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
        close_ring(&f);
    }
}

static void guest_is_notified_only_when_it_asked(void **state)
{
    struct blkif_response rsp;
    struct fixture f;

    open_ring(&f, 1, UINT32_MAX - 2, false);
    for (unsigned round = 0; round < 4; round++) {
        struct blkif_request r = front_request(&f.front, BLKIF_OP_WRITE, 0, 0, DATA_PAGE, 1);

        /* armed: the first batch notifies, once for all of it */
        for (unsigned i = 0; i < 3; i++)
            front_put(&f.front, &r);
        front_publish(&f.front);
        assert_true(turn(&f));
        /* not armed since: no more */
        front_put(&f.front, &r);
        front_publish(&f.front);
        assert_false(turn(&f));
        while (front_get(&f.front, &rsp))
            ;
        assert_false(turn(&f));         /* nothing new */
        /* its wish is for one it has seen already */
        store_relaxed(&front_sring(&f.front)->rsp_event, f.front.rsp_cons);
        front_put(&f.front, &r);
        front_publish(&f.front);
        assert_false(turn(&f));
        assert_true(front_get(&f.front, &rsp));
        /* asks for the second one from here */
        store_relaxed(&front_sring(&f.front)->rsp_event, f.front.rsp_cons + 2);
        front_put(&f.front, &r);
        front_publish(&f.front);
        assert_false(turn(&f));
        front_put(&f.front, &r);
        front_publish(&f.front);
        assert_true(turn(&f));
        while (front_get(&f.front, &rsp))
            ;
        assert_false(front_arm(&f.front));
    }
    assert_int_equal(f.ring.counters.notifies, 8);
    close_ring(&f);
}

static void backend_is_notified_only_after_it_armed(void **state)
{
    struct fixture f;
    struct blkif_request r;

    open_ring(&f, 1, 0, false);
    r = front_request(&f.front, BLKIF_OP_WRITE, 0, 0, DATA_PAGE, 1);
    assert_false(vbd_ring_arm(&f.ring));
    front_put(&f.front, &r);
    assert_true(front_publish(&f.front));
    /* while it works or polls it is left alone */
    turn(&f);
    front_put(&f.front, &r);
    assert_false(front_publish(&f.front));
    /* a request that came before it armed is seen by arming */
    assert_true(vbd_ring_arm(&f.ring));
    turn(&f);
    assert_false(vbd_ring_arm(&f.ring));
    front_put(&f.front, &r);
    assert_true(front_publish(&f.front));
    turn(&f);
    close_ring(&f);
}

static void persistent_grants_stay_held_and_are_reused(void **state)
{
    struct fixture f;
    struct blkif_request r;

    open_ring(&f, 1, 0, true);
    r = front_request(&f.front, BLKIF_OP_READ, 0, 0, DATA_PAGE, 4);
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < 4; i++)
        assert_true(guest_grant_in_use(&f.guest, DATA_PAGE + i));
    assert_int_equal(f.ring.grants.nr_held, 4);
    /* the table is not asked again: an entry the guest spoils meanwhile still works */
    f.guest.entries[DATA_PAGE].frame = 0xffffff;
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(f.ring.grants.nr_held, 4);
    close_ring(&f);
}

/* One reference more than a set has room for: the least used goes; while all
 * are in flight, a page is held for its request only. */
static void persistent_grants_are_bounded(void **state)
{
    struct fixture f;
    struct blkif_request r;
    uint32_t ref[VBD_GRANTS_WAYS + 2];

    open_ring(&f, 1, 0, true);
    for (unsigned i = 0; i < array_size(ref); i++)
        ref[i] = DATA_PAGE + i * VBD_GRANTS_SETS;
    for (unsigned i = 0; i < array_size(ref); i++) {
        r = front_request(&f.front, BLKIF_OP_WRITE, 0, 0, ref[i], 1);
        assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
        assert_true(guest_grant_in_use(&f.guest, ref[i]));
        assert_int_equal(guest_grants_in_use(&f.guest), min_of(i + 1, VBD_GRANTS_WAYS));
    }
    f.held.automatic = false;
    for (unsigned i = 0; i < array_size(ref); i++) {
        r = front_request(&f.front, BLKIF_OP_WRITE, 0, 0, ref[i], 1);
        front_put(&f.front, &r);
    }
    front_publish(&f.front);
    turn(&f);
    assert_int_equal(guest_grants_in_use(&f.guest), array_size(ref));
    finish_all(&f);
    assert_int_equal(guest_grants_in_use(&f.guest), VBD_GRANTS_WAYS);
    assert_int_equal(f.ring.grants.nr_held, VBD_GRANTS_WAYS);
    close_ring(&f);
}

static void one_page_may_serve_many_segments(void **state)
{
    for (unsigned persistent = 0; persistent < 2; persistent++) {
        struct fixture f;
        struct blkif_request_indirect r;
        struct blkif_request_segment *seg;

        open_ring(&f, 1, 0, persistent);
        r = indirect(&f, BLKIF_OP_WRITE, 0, DATA_PAGE + 1, DATA_PAGE, 256);
        seg = (void *)guest_page(&f.guest, DATA_PAGE + 1);
        for (unsigned i = 0; i < 256; i++)
            seg[i] = (struct blkif_request_segment){ DATA_PAGE + 1, 0, 7 };
        assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
        assert_int_equal(guest_grant_in_use(&f.guest, DATA_PAGE + 1), persistent);
        close_ring(&f);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_agree_with_the_official_macro),
        cmocka_unit_test(impossible_producer_stops_the_ring_only),
        cmocka_unit_test(any_index_is_a_valid_start),
        cmocka_unit_test(guest_is_notified_only_when_it_asked),
        cmocka_unit_test(backend_is_notified_only_after_it_armed),
        cmocka_unit_test(persistent_grants_stay_held_and_are_reused),
        cmocka_unit_test(persistent_grants_are_bounded),
        cmocka_unit_test(one_page_may_serve_many_segments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
