/* SPDX-License-Identifier: MIT */
/* GNTTABOP_set_version both ways: what keeps the version, what is kept of the table. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gnttab_guest.h"

static unsigned version_of(struct guest *g)
{
    struct gnttab_get_version op = { .dom = DOMID_SELF };

    assert_int_equal(gnttab_get_version(&g->t, &op), 0);
    return op.version;
}

static void entries_go_and_reserved_ones_stay(void **state)
{
    struct guest *g = *state;

    gnttab_seed(&g->t, GNTTAB_RESERVED_CONSOLE, 0, 0x111);
    *guest_v1(g, 3) = (struct grant_entry_v1){ GTF_permit_access | GTF_readonly | GTF_reading, 5,
                                              0x333 };
    guest_give(g, 8, GTF_permit_access, 0, 0x888);
    guest_give(g, 511, GTF_permit_access, 0, 0x888);
    g->t.p.table.status[8] = 0xffff;            /* left over from some other time */
    assert_int_equal(guest_version(g, 2), 0);
    assert_int_equal(version_of(g), 2);

    assert_int_equal(guest_v2(g, 0)->hdr.flags, GTF_permit_access);
    assert_int_equal(guest_v2(g, 0)->hdr.domid, 0);
    assert_int_equal(guest_v2(g, 0)->full_page.frame, 0x111);
    assert_int_equal(guest_v2(g, 3)->hdr.flags, GTF_permit_access | GTF_readonly);
    assert_int_equal(guest_v2(g, 3)->hdr.domid, 5);
    assert_int_equal(guest_v2(g, 3)->full_page.frame, 0x333);
    assert_int_equal(g->t.p.table.status[0], 0);
    assert_int_equal(g->t.p.table.status[3], GTF_reading);
    for (grant_ref_t ref = 8; ref < 256; ref++) {
        assert_int_equal(guest_v2(g, ref)->hdr.flags, 0);
        assert_int_equal(guest_v2(g, ref)->full_page.frame, 0);
        assert_int_equal(g->t.p.table.status[ref], 0);
    }

    guest_give(g, 255, GTF_permit_access, 0, 0x888);
    assert_int_equal(guest_version(g, 1), 0);
    assert_int_equal(version_of(g), 1);
    assert_int_equal(guest_v1(g, 0)->flags, GTF_permit_access);
    assert_int_equal(guest_v1(g, 0)->frame, 0x111);
    assert_int_equal(guest_v1(g, 3)->flags, GTF_permit_access | GTF_readonly | GTF_reading);
    assert_int_equal(guest_v1(g, 3)->domid, 5);
    assert_int_equal(guest_v1(g, 3)->frame, 0x333);
    for (grant_ref_t ref = 8; ref < 512; ref++)
        assert_int_equal(guest_v1(g, ref)->flags, 0);
}

static void the_same_version_changes_nothing(void **state)
{
    struct guest *g = *state;

    guest_give(g, 8, GTF_permit_access | GTF_reading, 0, 0x888);
    assert_int_equal(guest_version(g, 1), 0);
    assert_int_equal(guest_v1(g, 8)->frame, 0x888);
    guest_give(g, 8, GTF_permit_access, 0, 0x888);
    assert_int_equal(guest_version(g, 2), 0);
    guest_give(g, 8, GTF_permit_access, 0, 0x999);
    g->t.p.table.status[8] = GTF_reading;
    assert_int_equal(guest_version(g, 2), 0);
    assert_int_equal(guest_v2(g, 8)->full_page.frame, 0x999);
    assert_int_equal(guest_use(g, 8), GTF_reading);
}

static void an_entry_in_use_keeps_the_version(void **state)
{
    struct guest *g = *state;

    for (unsigned version = 1; version <= 2; version++) {
        struct gnttab_set_version op = { .version = 3 - version };

        assert_int_equal(guest_version(g, version), 0);
        guest_give(g, 200, GTF_permit_access, 0, 0x888);
        *gnttab_in_use(&g->t.p.table, version, 200) |= GTF_reading;
        assert_int_equal(gnttab_set_version(&g->t, &op), -EBUSY);
        assert_int_equal(op.version, version);
        assert_int_equal(guest_use(g, 200), GTF_reading);
        *gnttab_in_use(&g->t.p.table, version, 200) &= (uint16_t)~GTF_IN_USE;
        assert_int_equal(guest_version(g, 3 - version), 0);
    }
}

/* A guest that has cleared the bits of what it has mapped itself is not believed. */
static void a_mapping_keeps_the_version(void **state)
{
    struct guest *g = *state;
    struct gnttab_map_grant_ref map = { .flags = GNTMAP_host_map, .ref = 9, .dom = SELF };
    struct gnttab_unmap_grant_ref unmap = { .host_addr = 1 };

    guest_give(g, 9, GTF_permit_access, SELF, RAM_MFN);
    assert_int_equal(gnttab_map_grant_ref(&g->t, &map), 0);
    assert_int_equal(map.status, GNTST_okay);
    guest_give(g, 9, GTF_permit_access, SELF, RAM_MFN);
    assert_int_equal(guest_version(g, 2), -EBUSY);
    unmap.handle = map.handle;
    assert_int_equal(gnttab_unmap_grant_ref(&g->t, &unmap), 0);
    assert_int_equal(unmap.status, GNTST_okay);
    assert_int_equal(guest_version(g, 2), 0);
}

/* One of a reserved entry goes on through the change. */
static void a_mapping_of_a_reserved_entry_stays(void **state)
{
    struct guest *g = *state;
    struct gnttab_map_grant_ref map = { .flags = GNTMAP_host_map, .ref = 5, .dom = SELF };
    struct gnttab_unmap_grant_ref unmap = { .host_addr = 1 };

    guest_give(g, 5, GTF_permit_access, SELF, RAM_MFN);
    assert_int_equal(gnttab_map_grant_ref(&g->t, &map), 0);
    assert_int_equal(map.status, GNTST_okay);
    assert_int_equal(guest_version(g, 2), 0);
    assert_int_equal(guest_use(g, 5), GTF_IN_USE);
    unmap.handle = map.handle;
    assert_int_equal(gnttab_unmap_grant_ref(&g->t, &unmap), 0);
    assert_int_equal(unmap.status, GNTST_okay);
    assert_int_equal(guest_use(g, 5), 0);
    assert_int_equal(guest_v2(g, 5)->full_page.frame, RAM_MFN);
}

static void what_version_1_cannot_say_keeps_the_version(void **state)
{
    static const struct { uint16_t flags; uint64_t frame; int rc; } rows[] = {
        { GTF_permit_access, 1ull << 32, -ERANGE }, { GTF_transitive, 0, -ERANGE },
        { GTF_accept_transfer, 1ull << 32, 0 }, { GTF_invalid, 1ull << 32, 0 },
        { GTF_permit_access, UINT32_MAX, 0 },
    };
    struct guest *g = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        assert_int_equal(guest_version(g, 2), 0);
        guest_give(g, 7, rows[i].flags, 0, rows[i].frame);
        assert_int_equal(guest_version(g, 1), rows[i].rc);
        assert_int_equal(version_of(g), rows[i].rc ? 2 : 1);
        if (rows[i].rc)
            continue;
        /* of those that are kept, no other kind */
        assert_int_equal(guest_v1(g, 7)->flags & GTF_type_mask,
                         rows[i].flags == GTF_permit_access ? GTF_permit_access : GTF_invalid);
    }
}

static void status_frames_that_are_mapped_keep_the_version(void **state)
{
    struct guest *g = *state;

    g->status_mapped = true;
    assert_int_equal(guest_version(g, 2), 0);
    assert_int_equal(guest_version(g, 1), -EBUSY);
    assert_int_equal(version_of(g), 2);
    g->status_mapped = false;
    assert_int_equal(guest_version(g, 1), 0);
}

static void status_frames_grow_with_the_table(void **state)
{
    static const struct { unsigned version; uint32_t ask; int16_t status; } rows[] = {
        { 1, 0, GNTST_okay }, { 1, 1, GNTST_general_error },
        { 2, 1, GNTST_okay }, { 2, 2, GNTST_general_error },
    };
    struct guest *g = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        struct gnttab_get_status_frames op = { .dom = SELF, .nr_frames = rows[i].ask };

        assert_int_equal(guest_version(g, rows[i].version), 0);
        assert_int_equal(gnttab_get_status_frames(&g->t, &op), 0);
        assert_int_equal(op.status, rows[i].status);
    }
    assert_int_equal(gnttab_status_mfn(&g->t, 0), STATUS_MFN);
    assert_int_equal(GNTTAB_STATUS_FRAMES(8), 1);
    assert_int_equal(GNTTAB_STATUS_FRAMES(9), 2);
    assert_int_equal(GNTTAB_STATUS_FRAMES(64), 8);
}

static void version_2_has_half_as_many_entries(void **state)
{
    struct guest *g = *state;
    struct gnttab_setup_table grow = { .dom = SELF, .nr_frames = 2 };
    struct gnttab_swap_grant_ref swap = { .ref_a = 8, .ref_b = 256 };

    assert_int_equal(guest_version(g, 2), 0);
    assert_int_equal(gnttab_swap_grant_ref(&g->t, &swap), 0);
    assert_int_equal(swap.status, GNTST_bad_gntref);
    assert_int_equal(gnttab_setup_table(&g->t, &grow), 0);
    assert_int_equal(grow.status, GNTST_okay);
    assert_int_equal(gnttab_swap_grant_ref(&g->t, &swap), 0);
    assert_int_equal(swap.status, GNTST_okay);
}

static void swap_exchanges_whole_entries(void **state)
{
    struct guest *g = *state;
    struct gnttab_swap_grant_ref op = { .ref_a = 8, .ref_b = 255 };
    const union grant_entry_v2 part = { .sub_page = {
        { GTF_permit_access | GTF_sub_page, 5 }, 0x100, 0x20, 0x123456789a } };

    assert_int_equal(guest_version(g, 2), 0);
    *guest_v2(g, 8) = part;
    guest_give(g, 255, GTF_permit_access | GTF_readonly, 0, 0x222);
    assert_int_equal(gnttab_swap_grant_ref(&g->t, &op), 0);
    assert_int_equal(op.status, GNTST_okay);
    assert_memory_equal(guest_v2(g, 255), &part, sizeof(part));
    assert_int_equal(guest_v2(g, 8)->hdr.flags, GTF_permit_access | GTF_readonly);
    assert_int_equal(guest_v2(g, 8)->full_page.frame, 0x222);
}

static void swap_leaves_entries_in_use_alone(void **state)
{
    struct guest *g = *state;

    assert_int_equal(guest_version(g, 2), 0);
    guest_give(g, 8, GTF_permit_access, 0, 0x111);
    guest_give(g, 9, GTF_permit_access, 0, 0x222);
    g->t.p.table.status[9] = GTF_reading;
    for (unsigned i = 0; i < 2; i++) {
        struct gnttab_swap_grant_ref op = { .ref_a = 8 + i, .ref_b = 9 - i };

        assert_int_equal(gnttab_swap_grant_ref(&g->t, &op), 0);
        assert_int_equal(op.status, GNTST_eagain);
        assert_int_equal(guest_v2(g, 8)->hdr.flags, GTF_permit_access);
        assert_int_equal(guest_v2(g, 8)->full_page.frame, 0x111);
        assert_int_equal(guest_v2(g, 9)->hdr.flags, GTF_permit_access);
        assert_int_equal(guest_v2(g, 9)->full_page.frame, 0x222);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, guest_setup, guest_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(entries_go_and_reserved_ones_stay),
        TEST(the_same_version_changes_nothing),
        TEST(an_entry_in_use_keeps_the_version),
        TEST(a_mapping_keeps_the_version),
        TEST(a_mapping_of_a_reserved_entry_stays),
        TEST(what_version_1_cannot_say_keeps_the_version),
        TEST(status_frames_that_are_mapped_keep_the_version),
        TEST(status_frames_grow_with_the_table),
        TEST(version_2_has_half_as_many_entries),
        TEST(swap_exchanges_whole_entries),
        TEST(swap_leaves_entries_in_use_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
