/* SPDX-License-Identifier: MIT */
/* Grants and event channels between two guests' processes, and what is refused. */
#include "pv_peers_world.h"

/* ---- grants ---- */

static void test_map(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct shim_peer_call a, b, ro;

    give(one, 8, GTF_permit_access, TWO, 3);
    give(one, 9, GTF_permit_access | GTF_readonly, TWO, 4);
    one->ram[3 * PAGE_SIZE] = 33;
    one->ram[4 * PAGE_SIZE] = 44;
    a = map(two, ONE, 8, true);
    assert_int_equal(a.result, GNTST_okay);
    assert_int_equal(*page_at(two, a.mfn), 33);
    assert_int_equal(use(one, 8), GTF_IN_USE);
    b = map(two, ONE, 8, true);
    assert_int_equal(b.mfn, a.mfn);
    *page_at(two, a.mfn) = 34;
    assert_int_equal(one->ram[3 * PAGE_SIZE], 34);
    ro = map(two, ONE, 9, false);
    assert_int_equal(ro.result, GNTST_okay);
    assert_int_equal(*page_at(two, ro.mfn), 44);
    assert_int_equal(use(one, 9), GTF_reading);
    assert_true(can(false, page_at(two, ro.mfn)));
    assert_false(can(true, page_at(two, ro.mfn)));
    /* and nothing beside it */
    assert_false(can(false, page_at(two, ro.mfn) + PAGE_SIZE));
    assert_false(can(false, page_at(two, a.mfn) + PAGE_SIZE));

    unmap(two, a.mfn);
    assert_int_equal(use(one, 8), GTF_IN_USE);
    unmap(two, a.mfn);
    assert_int_equal(use(one, 8), 0);
    assert_false(can(false, page_at(two, a.mfn)));
    unmap(two, a.mfn);              /* once too often */
    unmap(two, 1);
    unmap(two, (PEER_GPA >> PAGE_SHIFT) + 2 * PEER_PAGES);
    unmap(two, ro.mfn);
    assert_int_equal(use(one, 9), 0);
}

static void test_map_refused(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];

    give(one, 8, GTF_permit_access, TWO + 1, 3);
    give(one, 9, GTF_permit_access | GTF_readonly, TWO, 4);
    give(one, 10, GTF_permit_access, TWO, RAM_PAGES);
    give(one, 11, GTF_invalid, TWO, 3);
    give(one, 12, GTF_permit_access, TWO, 0);
    gnttab_v1(&(struct gnttab_table){ .frames = one->mem.region[0].host }, 12)->frame =
        TABLE_GPA >> PAGE_SHIFT;            /* memory, but no RAM of the guest's */
    assert_int_equal(map(two, ONE, 8, false).result, GNTST_general_error);
    assert_int_equal(map(two, ONE, 9, true).result, GNTST_general_error);
    assert_int_equal(map(two, ONE, 10, false).result, GNTST_bad_page);
    assert_int_equal(map(two, ONE, 11, false).result, GNTST_general_error);
    assert_int_equal(map(two, ONE, 12, false).result, GNTST_bad_page);
    assert_int_equal(map(two, ONE, GNTTAB_REFS_PER_FRAME_V1, false).result, GNTST_bad_gntref);
    assert_int_equal(map(two, ONE, UINT32_MAX, false).result, GNTST_bad_gntref);
    assert_int_equal(map(two, TWO, 9, false).result, GNTST_bad_domain);
    assert_int_equal(map(two, 0, 9, false).result, GNTST_bad_domain);
    assert_int_equal(map(two, 7, 9, false).result, GNTST_bad_domain);
    assert_int_equal(map(two, UINT32_MAX, 9, false).result, GNTST_bad_domain);
    for (uint32_t ref = 8; ref <= 12; ref++)
        assert_int_equal(use(one, ref), 0);
}

/* Each page has a place of its own, and more than one grant of a connection is counted. */
static void test_many(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    unsigned nr = 0;

    for (uint32_t ref = 8; ref < 500; ref++)
        give(one, ref, GTF_permit_access, TWO, ref % RAM_PAGES);
    for (uint32_t ref = 8; ref < 500; ref++)
        nr += map(two, ONE, ref, true).result == GNTST_okay;
    assert_int_equal(nr, 492);
    for (unsigned i = 0; i < 492; i++)
        unmap(two, (PEER_GPA >> PAGE_SHIFT) + i);
    for (uint32_t ref = 8; ref < 500; ref++)
        assert_int_equal(use(one, ref), 0);
}

static void test_copy(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct shim_peer_call from, to;
    struct shim_peer_call c = { .op = SHIM_PEER_COPY, .bytes = 100 };

    give(one, 8, GTF_permit_access | GTF_readonly, TWO, 3);
    give(one, 9, GTF_permit_access, TWO, 4);
    memset(one->ram + 3 * PAGE_SIZE, 7, PAGE_SIZE);
    from = call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_HOLD, .domid = ONE, .ref = 8 });
    to = call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_HOLD, .domid = ONE, .ref = 9,
                                            .write = 1 });
    assert_int_equal(from.result, GNTST_okay);
    assert_int_equal(to.result, GNTST_okay);
    assert_int_equal(from.length, PAGE_SIZE);
    assert_int_equal(use(one, 8), GTF_reading);
    assert_int_equal(use(one, 9), GTF_IN_USE);
    c.from = (struct gnttab_peer_end){ .hold = from.hold, .offset = 10 };
    c.to = (struct gnttab_peer_end){ .hold = to.hold, .offset = 20 };
    assert_int_equal(call(two, c).result, GNTST_okay);
    assert_int_equal(one->ram[4 * PAGE_SIZE + 19], 0);
    assert_int_equal(one->ram[4 * PAGE_SIZE + 20], 7);
    assert_int_equal(one->ram[4 * PAGE_SIZE + 119], 7);
    assert_int_equal(one->ram[4 * PAGE_SIZE + 120], 0);
    c.to = (struct gnttab_peer_end){ .hold = GNTTAB_NO_HOLD, .mfn = RAM_MFN + 1 };
    assert_int_equal(call(two, c).result, GNTST_okay);
    assert_int_equal(two->ram[PAGE_SIZE + 99], 7);
    /* whatever the shim would say */
    c.to.mfn = RAM_MFN + RAM_PAGES;
    assert_int_equal(call(two, c).result, GNTST_general_error);
    c.to.mfn = TABLE_GPA >> PAGE_SHIFT;
    assert_int_equal(call(two, c).result, GNTST_general_error);
    c.to = (struct gnttab_peer_end){ .hold = from.hold };
    assert_int_equal(call(two, c).result, GNTST_general_error);
    c.to = (struct gnttab_peer_end){ .hold = to.hold, .offset = PAGE_SIZE - 99 };
    assert_int_equal(call(two, c).result, GNTST_bad_copy_arg);
    c.to = (struct gnttab_peer_end){ .hold = 12345 };
    assert_int_equal(call(two, c).result, GNTST_general_error);
    c.bytes = UINT32_MAX;
    assert_int_equal(call(two, c).result, GNTST_bad_copy_arg);
    call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_DROP, .hold = from.hold });
    call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_DROP, .hold = from.hold });
    call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_DROP, .hold = UINT32_MAX });
    assert_int_equal(use(one, 8), 0);
    c = (struct shim_peer_call){ .op = SHIM_PEER_COPY, .bytes = 1, .from.hold = from.hold,
                                 .to.hold = to.hold };
    assert_int_equal(call(two, c).result, GNTST_general_error);
    call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_DROP, .hold = to.hold });
    assert_int_equal(use(one, 9), 0);
}

static struct shim_peer_call hold(struct guest *g, unsigned domid, uint32_t ref)
{
    return call(g, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_HOLD, .domid = domid,
                                            .ref = ref });
}

/* In-use bits elsewhere, parts of pages and others' grants for copies only. */
static void test_version_2(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct gnttab_table t = table_of(one);
    struct shim_peer_call a, part, other;
    struct shim_peer_call c = { .op = SHIM_PEER_COPY, .bytes = 8 };

    one->state.version = 2;
    *gnttab_v2(&t, 8) = (union grant_entry_v2){ .full_page = {
        .hdr = { GTF_permit_access, TWO }, .frame = RAM_MFN + 3 } };
    *gnttab_v2(&t, 9) = (union grant_entry_v2){ .sub_page = {
        .hdr = { GTF_permit_access | GTF_sub_page, TWO }, .page_off = 16, .length = 32,
        .frame = RAM_MFN + 4 } };
    *gnttab_v2(&t, 10) = (union grant_entry_v2){ .transitive = {
        .hdr = { GTF_transitive, TWO }, .trans_domid = 7, .gref = 5 } };
    one->ram[4 * PAGE_SIZE + 16] = 44;

    a = map(two, ONE, 8, true);
    assert_int_equal(a.result, GNTST_okay);
    assert_int_equal(t.status[8], GTF_IN_USE);
    assert_int_equal(gnttab_v2(&t, 8)->hdr.flags, GTF_permit_access);
    unmap(two, a.mfn);
    assert_int_equal(t.status[8], 0);
    assert_int_equal(map(two, ONE, GNTTAB_REFS_PER_FRAME_V2, false).result, GNTST_bad_gntref);
    assert_int_equal(map(two, ONE, 9, false).result, GNTST_general_error);
    assert_int_equal(map(two, ONE, 10, false).result, GNTST_general_error);

    part = hold(two, ONE, 9);
    assert_int_equal(part.result, GNTST_okay);
    assert_int_equal(part.offset, 16);
    assert_int_equal(part.length, 32);
    assert_int_equal(t.status[9], GTF_reading);
    c.to = (struct gnttab_peer_end){ .hold = GNTTAB_NO_HOLD, .mfn = RAM_MFN };
    c.from = (struct gnttab_peer_end){ .hold = part.hold, .offset = 16 };
    assert_int_equal(call(two, c).result, GNTST_okay);
    assert_int_equal(two->ram[0], 44);
    c.from.offset = 15;
    assert_int_equal(call(two, c).result, GNTST_general_error);
    c.from.offset = 41;
    assert_int_equal(call(two, c).result, GNTST_general_error);
    other = hold(two, ONE, 10);
    assert_int_equal(other.result, GNTST_okay);
    assert_true(other.transitive);
    assert_int_equal(other.trans_domid, 7);
    assert_int_equal(other.trans_ref, 5);
    c.from = (struct gnttab_peer_end){ .hold = other.hold };
    assert_int_equal(call(two, c).result, GNTST_general_error);
    call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_DROP, .hold = part.hold });
    call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_DROP, .hold = other.hold });
    for (uint32_t ref = 8; ref <= 10; ref++)
        assert_int_equal(t.status[ref], 0);
}

/* ---- events ---- */

static void test_channel(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct shim_peer_call b;

    assert_int_equal(wait_for(one, TWO, 3), 0);
    b = bind_to(two, 4, ONE, 3);
    assert_int_equal(b.result, 0);
    assert_int_equal(one->attach_id, 1003);
    assert_int_equal(one->links[0].peer_port, 4);
    assert_int_equal(two->links[b.link].peer_port, 3);
    for (unsigned i = 0; i < 100; i++) {
        ring(two, b.link);
        eventually(event_taken(one, 0));
        ring(one, 0);
        eventually(event_taken(two, b.link));
    }
    assert_int_equal(bind_to(two, 5, ONE, 3).result, -EINVAL);
    /* what was sent before the end comes */
    ring(two, b.link);
    close_port(two, 4);
    eventually(event_taken(one, 0));
    assert_int_equal(one->links[0].peer_port, 0);
    assert_null(two->end[b.link]);
    /* what is sent now does not, and it can be connected again */
    ring(one, 0);
    b = bind_to(two, 9, ONE, 3);
    assert_int_equal(b.result, 0);
    assert_int_equal(one->links[0].peer_port, 9);
    assert_false(event_taken(two, b.link));
    close_port(one, 3);
    assert_int_equal(two->links[b.link].peer_port, 0);
    assert_int_equal(bind_to(two, 5, ONE, 3).result, -EINVAL);
    /* the one that was left is its guest's to close, and may be connected to meanwhile */
    assert_int_equal(bind_to(one, 7, TWO, 9).result, 0);
    assert_int_equal(two->links[b.link].peer_port, 7);
    close_port(two, 9);
    close_port(one, 7);
}

static void test_channel_refused(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];

    assert_int_equal(wait_for(one, TWO + 1, 3), 0);
    assert_int_equal(wait_for(one, TWO, UINT32_MAX), -ENOMEM);
    assert_int_equal(bind_to(two, 4, ONE, 3).result, -EINVAL);
    assert_int_equal(bind_to(two, 4, ONE, 0).result, -EINVAL);
    assert_int_equal(bind_to(two, 4, ONE, 5).result, -EINVAL);
    assert_int_equal(bind_to(two, 4, ONE, UINT32_MAX).result, -EINVAL);
    assert_int_equal(bind_to(two, 4, 7, 3).result, -ESRCH);
    assert_int_equal(bind_to(two, 4, TWO, 3).result, -ESRCH);
    assert_int_equal(call(two, (struct shim_peer_call){ .op = 99 }).result, -ENOSYS);
    close_port(two, 4);
    close_port(two, UINT32_MAX);
    for (unsigned i = 0; i < NR_LINKS; i++)
        assert_null(two->end[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version_2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_channel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_channel_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
