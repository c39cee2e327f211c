/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_grant_table_op as the guest sees it: growing the table, versions, and
 * what an unprivileged domain that nobody grants anything is told. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gnttab_guest.h"

static void table_starts_with_one_frame(void **state)
{
    struct guest *x = *state;
    struct gnttab_query_size op = { .dom = DOMID_SELF };

    assert_int_equal(gnttab_query_size(&x->t, &op), 0);
    assert_int_equal(op.status, GNTST_okay);
    assert_int_equal(op.nr_frames, 1);
    assert_int_equal(op.max_nr_frames, FRAMES_MAX);
}

static void setup_grows_to_the_limit_and_never_shrinks(void **state)
{
    static const struct { uint32_t ask; int16_t status; uint32_t then; } rows[] = {
        { 0, GNTST_okay, 1 }, { 3, GNTST_okay, 3 }, { 2, GNTST_okay, 3 },
        { FRAMES_MAX + 1, GNTST_general_error, 3 }, { UINT32_MAX, GNTST_general_error, 3 },
        { FRAMES_MAX, GNTST_okay, FRAMES_MAX },
    };
    struct guest *x = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        struct gnttab_setup_table op = { .dom = SELF, .nr_frames = rows[i].ask };

        assert_int_equal(gnttab_setup_table(&x->t, &op), 0);
        assert_int_equal(op.status, rows[i].status);
        assert_int_equal(x->state.nr_frames, rows[i].then);
    }
    assert_int_equal(gnttab_frame_mfn(&x->t, 3), FIRST_MFN + 3);
}

static void tables_of_others_are_refused(void **state)
{
    static const struct { domid_t dom; int16_t status; int version; } rows[] = {
        { 0, GNTST_permission_denied, -EPERM }, { 9, GNTST_bad_domain, -ESRCH },
        { DOMID_XEN, GNTST_bad_domain, -ESRCH },
    };
    struct guest *x = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        struct gnttab_setup_table setup_op = { .dom = rows[i].dom, .nr_frames = 2 };
        struct gnttab_query_size size_op = { .dom = rows[i].dom };
        struct gnttab_get_version version_op = { .dom = rows[i].dom };
        struct gnttab_get_status_frames status_op = { .dom = rows[i].dom };

        assert_int_equal(gnttab_setup_table(&x->t, &setup_op), 0);
        assert_int_equal(setup_op.status, rows[i].status);
        assert_int_equal(gnttab_query_size(&x->t, &size_op), 0);
        assert_int_equal(size_op.status, rows[i].status);
        assert_int_equal(gnttab_get_status_frames(&x->t, &status_op), 0);
        assert_int_equal(status_op.status, rows[i].status);
        assert_int_equal(gnttab_get_version(&x->t, &version_op), rows[i].version);
    }
    assert_int_equal(x->state.nr_frames, 1);
}

static void no_version_but_those_allowed(void **state)
{
    static const struct { uint32_t ask; int ret; } rows[] = {
        { 1, 0 }, { 2, -ENOSYS }, { 0, -EINVAL }, { 3, -EINVAL },
    };
    struct guest *x = *state;
    struct gnttab_get_version get = { .dom = DOMID_SELF };

    x->t.p.version_max = 1;
    for (size_t i = 0; i < array_size(rows); i++) {
        struct gnttab_set_version op = { .version = rows[i].ask };

        assert_int_equal(gnttab_set_version(&x->t, &op), rows[i].ret);
        assert_int_equal(op.version, 1);
    }
    assert_int_equal(gnttab_get_version(&x->t, &get), 0);
    assert_int_equal(get.version, 1);
}

static void version_1_has_no_status_frames(void **state)
{
    struct guest *x = *state;
    struct gnttab_get_status_frames none = { .dom = DOMID_SELF };
    struct gnttab_get_status_frames one = { .dom = DOMID_SELF, .nr_frames = 1 };

    assert_int_equal(gnttab_get_status_frames(&x->t, &none), 0);
    assert_int_equal(none.status, GNTST_okay);
    assert_int_equal(gnttab_get_status_frames(&x->t, &one), 0);
    assert_int_equal(one.status, GNTST_general_error);
}

static void nobody_grants_anything_to_the_guest(void **state)
{
    struct guest *x = *state;
    struct gnttab_map_grant_ref map = { .flags = GNTMAP_host_map, .dom = 9 };
    struct gnttab_map_grant_ref no_flags = { .dom = 9 };
    struct gnttab_unmap_grant_ref unmap = { .handle = 0 };
    struct gnttab_unmap_and_replace replace = { .handle = 0 };

    assert_int_equal(gnttab_map_grant_ref(&x->t, &map), 0);
    assert_int_equal(map.status, GNTST_bad_domain);
    assert_int_equal(gnttab_map_grant_ref(&x->t, &no_flags), 0);
    assert_int_equal(no_flags.status, GNTST_bad_gntref);
    assert_int_equal(gnttab_unmap_grant_ref(&x->t, &unmap), 0);
    assert_int_equal(unmap.status, GNTST_bad_handle);
    assert_int_equal(gnttab_unmap_and_replace(&x->t, &replace), 0);
    assert_int_equal(replace.status, GNTST_bad_handle);
}

static void nobody_accepts_a_frame(void **state)
{
    static const struct { uint64_t mfn; domid_t to; int16_t status; } rows[] = {
        { RAM_MFN, OTHER, GNTST_bad_domain }, { RAM_MFN, DOMID_SELF, GNTST_bad_domain },
        { RAM_MFN, 0, GNTST_general_error }, { RAM_MFN, SELF, GNTST_general_error },
        { FIRST_MFN, OTHER, GNTST_bad_page }, { RAM_MFN + RAM_PAGES, 0, GNTST_bad_page },
    };
    struct guest *x = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        struct gnttab_transfer op = { .mfn = rows[i].mfn, .domid = rows[i].to };

        assert_int_equal(gnttab_transfer(&x->t, &op), 0);
        assert_int_equal(op.status, rows[i].status);
    }
}

static void copy_names_frames_only_in_the_own_domain(void **state)
{
    static const struct { domid_t from, to; uint16_t flags; int16_t status; } rows[] = {
        { 9, DOMID_SELF, GNTCOPY_source_gref, GNTST_bad_domain },
        { DOMID_SELF, 9, GNTCOPY_dest_gref, GNTST_bad_domain },
        { DOMID_SELF, 9, 0, GNTST_permission_denied },
        { 9, DOMID_SELF, 0, GNTST_permission_denied },
        { SELF, DOMID_SELF, 0, GNTST_permission_denied },
        { DOMID_SELF, DOMID_SELF, 0, GNTST_bad_page },
    };
    struct guest *x = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        struct gnttab_copy op = {
            .source.domid = rows[i].from, .dest.domid = rows[i].to, .flags = rows[i].flags,
        };

        assert_int_equal(gnttab_copy(&x->t, &op), 0);
        assert_int_equal(op.status, rows[i].status);
    }
}

static void swap_exchanges_two_entries(void **state)
{
    struct guest *x = *state;
    struct grant_entry_v1 *e = guest_v1(x, 0);
    struct gnttab_swap_grant_ref op = { .ref_a = 8, .ref_b = 511 };

    e[8] = (struct grant_entry_v1){ GTF_permit_access | GTF_readonly, 0, 0x111 };
    e[511] = (struct grant_entry_v1){ GTF_permit_access, 5, 0x222 };
    assert_int_equal(gnttab_swap_grant_ref(&x->t, &op), 0);
    assert_int_equal(op.status, GNTST_okay);
    assert_int_equal(e[8].frame, 0x222);
    assert_int_equal(e[8].domid, 5);
    assert_int_equal(e[8].flags, GTF_permit_access);
    assert_int_equal(e[511].frame, 0x111);
    assert_int_equal(e[511].flags, GTF_permit_access | GTF_readonly);
}

static void swap_leaves_entries_in_use_alone(void **state)
{
    struct guest *x = *state;
    struct grant_entry_v1 *e = guest_v1(x, 0);

    e[8] = (struct grant_entry_v1){ GTF_permit_access, 0, 0x111 };
    e[9] = (struct grant_entry_v1){ GTF_permit_access | GTF_reading, 0, 0x222 };
    for (unsigned i = 0; i < 2; i++) {
        struct gnttab_swap_grant_ref op = { .ref_a = 8 + i, .ref_b = 9 - i };

        assert_int_equal(gnttab_swap_grant_ref(&x->t, &op), 0);
        assert_int_equal(op.status, GNTST_eagain);
        assert_int_equal(e[8].frame, 0x111);
        assert_int_equal(e[8].flags, GTF_permit_access);
        assert_int_equal(e[9].frame, 0x222);
    }
}

static void swap_refuses_refs_outside_the_frames_in_use(void **state)
{
    struct guest *x = *state;
    struct gnttab_swap_grant_ref ops[] = {
        { .ref_a = 512, .ref_b = 8 }, { .ref_a = 8, .ref_b = 512 },
        { .ref_a = UINT32_MAX, .ref_b = UINT32_MAX },
    };

    for (size_t i = 0; i < array_size(ops); i++) {
        assert_int_equal(gnttab_swap_grant_ref(&x->t, &ops[i]), 0);
        assert_int_equal(ops[i].status, GNTST_bad_gntref);
    }
}

static void cache_flush_judges_its_range(void **state)
{
    static const struct { uint16_t offset, length; uint32_t op; int ret; } rows[] = {
        { 0, 4096, GNTTAB_CACHE_CLEAN, 0 },
        { 0, 64, GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL, 0 },
        { 0, 64, GNTTAB_CACHE_INVAL, -EOPNOTSUPP },
        { 0, 0, GNTTAB_CACHE_INVAL, 0 }, { 0, 64, 0, 0 },
        { 4096, 0, GNTTAB_CACHE_CLEAN, -EINVAL }, { 1, 4096, GNTTAB_CACHE_CLEAN, -EINVAL },
        { 0, 4097, GNTTAB_CACHE_CLEAN, -EINVAL }, { 0, 64, 4, -EINVAL },
        { 0, 64, GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_SOURCE_GREF, -EOPNOTSUPP },
        { 0, 0, 4, 0 },
    };
    struct guest *x = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        struct gnttab_cache_flush op = {
            .offset = rows[i].offset, .length = rows[i].length, .op = rows[i].op,
            .a.dev_bus_addr = (uint64_t)RAM_MFN << PAGE_SHIFT,
        };

        assert_int_equal(gnttab_cache_flush(&x->t, &op), rows[i].ret);
        op.a.dev_bus_addr = (uint64_t)FIRST_MFN << PAGE_SHIFT;  /* nobody's */
        assert_int_equal(gnttab_cache_flush(&x->t, &op),
                         rows[i].length && rows[i].op && rows[i].ret != -EOPNOTSUPP ? -EINVAL :
                         rows[i].op == GNTTAB_CACHE_INVAL && rows[i].length ? -EINVAL :
                         rows[i].ret);
    }
}

static void seeded_entry_grants_its_frame(void **state)
{
    struct guest *x = *state;

    gnttab_seed(&x->t, GNTTAB_RESERVED_XENSTORE, 0, 0x4321);
    assert_int_equal(guest_v1(x, 1)[0].flags, GTF_permit_access);
    assert_int_equal(guest_v1(x, 1)[0].domid, 0);
    assert_int_equal(guest_v1(x, 1)[0].frame, 0x4321);
}

static void every_command_has_a_shape_and_an_answer(void **state)
{
    struct guest *x = *state;

    for (unsigned cmd = 0; cmd <= GNTTABOP_cache_flush + 1; cmd++) {
        uint64_t arg[GNTTAB_OP_ARG_BYTES_MAX / 8];
        const struct gnttab_op_shape *shape = gnttab_op_shape(cmd);

        memset(arg, 0xff, sizeof(arg));
        if (cmd == GNTTABOP_dump_table || cmd > GNTTABOP_cache_flush) {
            assert_null(shape);
            assert_int_equal(gnttab_op_call(&x->t, cmd, arg), -ENOSYS);
        } else {
            assert_in_range(shape->arg_bytes, 4, GNTTAB_OP_ARG_BYTES_MAX);
            assert_int_not_equal(gnttab_op_call(&x->t, cmd, arg), -ENOSYS);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, guest_setup, guest_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(table_starts_with_one_frame),
        TEST(setup_grows_to_the_limit_and_never_shrinks),
        TEST(tables_of_others_are_refused),
        TEST(no_version_but_those_allowed),
        TEST(version_1_has_no_status_frames),
        TEST(nobody_grants_anything_to_the_guest),
        TEST(nobody_accepts_a_frame),
        TEST(copy_names_frames_only_in_the_own_domain),
        TEST(swap_exchanges_two_entries),
        TEST(swap_leaves_entries_in_use_alone),
        TEST(swap_refuses_refs_outside_the_frames_in_use),
        TEST(cache_flush_judges_its_range),
        TEST(seeded_entry_grants_its_frame),
        TEST(every_command_has_a_shape_and_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
