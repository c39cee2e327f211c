/* SPDX-License-Identifier: MIT */
/* Mapping one's own grants: which, what the entry shows meanwhile, and when it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gnttab_guest.h"

#define FRAME RAM_MFN
#define HOST  GNTMAP_host_map
#define BUS   GNTMAP_device_map

static int setup_v1(void **state)
{
    guest_setup(state);
    guest_give(*state, 8, GTF_permit_access, SELF, FRAME);
    return 0;
}

static int setup_v2(void **state)
{
    struct guest *x;

    guest_setup(state);
    x = *state;
    assert_int_equal(guest_version(x, 2), 0);
    guest_give(x, 8, GTF_permit_access, SELF, FRAME);
    return 0;
}

static struct gnttab_map_grant_ref op;

static int do_map(struct guest *x, uint32_t flags, grant_ref_t ref, domid_t dom)
{
    op = (struct gnttab_map_grant_ref){ .host_addr = 0x5000, .flags = flags, .ref = ref,
                                        .dom = dom };
    assert_int_equal(gnttab_map_grant_ref(&x->t, &op), 0);
    return op.status;
}

static int do_unmap(struct guest *x, uint64_t host, uint64_t bus, grant_handle_t handle)
{
    struct gnttab_unmap_grant_ref u = { host, bus, handle, 0 };

    assert_int_equal(gnttab_unmap_grant_ref(&x->t, &u), 0);
    return u.status;
}

static uint16_t use_of(struct guest *x)
{
    return guest_use(x, 8);
}

static uint16_t *flags_of(struct guest *x)
{
    return x->state.version == 1 ? &guest_v1(x, 8)->flags : &guest_v2(x, 8)->hdr.flags;
}

static void only_what_is_granted_to_the_guest(void **state)
{
    static const struct { uint32_t flags; grant_ref_t ref; domid_t dom; int16_t status; } rows[] = {
        { 0, 8, SELF, GNTST_bad_gntref },
        { HOST, 8, OTHER, GNTST_bad_domain },
        { HOST, 8, DOMID_SELF, GNTST_bad_domain },
        { HOST, 8, 0, GNTST_general_error },            /* domain 0 has a table */
        { HOST, 511, 0, GNTST_general_error },
        { HOST, 512, 0, GNTST_bad_gntref },
        { HOST, 512, SELF, GNTST_bad_gntref },
        { HOST, 256, SELF, GNTST_general_error },       /* version 1 has it */
        { HOST, 9, SELF, GNTST_general_error },
        { HOST, 8, SELF, GNTST_okay },
    };
    struct guest *x = *state;

    for (size_t i = 0; i < array_size(rows); i++)
        assert_int_equal(do_map(x, rows[i].flags, rows[i].ref, rows[i].dom),
                         rows[i].ref == 256 && x->state.version == 2 ? GNTST_bad_gntref :
                         rows[i].status);
    assert_int_equal(x->nr_maps, 1);
    assert_int_equal(x->mfn, FRAME);
    assert_int_equal(x->host_addr, 0x5000);
    assert_int_equal(op.dev_bus_addr, (uint64_t)FRAME << PAGE_SHIFT);
    /* while it is mapped, the entry is not looked at again */
    guest_give(x, 8, GTF_invalid, 0, 0);
    assert_int_equal(do_map(x, HOST, 8, SELF), GNTST_okay);
    assert_int_equal(x->mfn, FRAME);
}

static void an_entry_that_grants_something_else_is_not_mapped(void **state)
{
    static const struct { uint16_t flags; domid_t to; int16_t status; } rows[] = {
        { GTF_invalid, SELF, GNTST_general_error },
        { GTF_permit_access, 0, GNTST_general_error },
        { GTF_permit_access | GTF_sub_page, SELF, GNTST_general_error },
        { GTF_accept_transfer, SELF, GNTST_general_error },
        { GTF_transitive, SELF, GNTST_general_error },
        { GTF_permit_access, SELF, GNTST_okay },
    };
    struct guest *x = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        guest_give(x, 8, rows[i].flags, rows[i].to, FRAME);
        assert_int_equal(do_map(x, HOST, 8, SELF), rows[i].status);
        assert_int_equal(use_of(x), rows[i].status == GNTST_okay ? GTF_IN_USE : 0);
    }
}

static void a_readonly_grant_is_not_mapped_writable(void **state)
{
    struct guest *x = *state;

    *flags_of(x) |= GTF_readonly;
    assert_int_equal(do_map(x, HOST, 8, SELF), GNTST_general_error);
    assert_int_equal(use_of(x), 0);
    assert_int_equal(do_map(x, HOST | GNTMAP_readonly, 8, SELF), GNTST_okay);
    assert_int_equal(use_of(x), GTF_reading);
    assert_false(gnttab_maps_writable(&x->t, FRAME));
}

static void what_cannot_be_mapped_is_not_in_use(void **state)
{
    struct guest *x = *state;

    x->answer = GNTST_general_error;
    assert_int_equal(do_map(x, HOST, 8, SELF), GNTST_general_error);
    assert_int_equal(use_of(x), 0);
    x->answer = GNTST_okay;
    guest_give(x, 8, GTF_permit_access, SELF, FIRST_MFN);
    assert_int_equal(do_map(x, HOST, 8, SELF), GNTST_bad_page);
    assert_int_equal(use_of(x), 0);
    assert_int_equal(x->t.nr_handles, 0);
}

static void the_last_mapping_ends_the_use(void **state)
{
    struct guest *x = *state;
    grant_handle_t first;

    assert_int_equal(do_map(x, HOST | BUS, 8, SELF), GNTST_okay);
    first = op.handle;
    assert_true(gnttab_maps_writable(&x->t, FRAME));
    assert_false(gnttab_maps_writable(&x->t, FRAME + 1));
    assert_int_equal(do_unmap(x, 0x5000, 0, first), GNTST_okay);
    assert_int_equal(use_of(x), GTF_reading | GTF_writing);
    assert_int_equal(do_unmap(x, 0x5000, 0, first), GNTST_okay);        /* nothing to do */
    assert_int_equal(x->nr_unmaps, 1);
    assert_int_equal(do_unmap(x, 0, 0x1000, first), GNTST_general_error);
    assert_int_equal(do_unmap(x, 0, (uint64_t)FRAME << PAGE_SHIFT, first), GNTST_okay);
    assert_int_equal(use_of(x), 0);
    assert_false(gnttab_maps_writable(&x->t, FRAME));
    assert_int_equal(do_unmap(x, 0x5000, 0, first), GNTST_bad_handle);
    assert_int_equal(do_unmap(x, 0, 0, GNTTAB_HANDLES_MAX), GNTST_bad_handle);
}

static void one_of_two_mappings_leaves_the_use_of_the_other(void **state)
{
    struct guest *x = *state;
    grant_handle_t writer;

    assert_int_equal(do_map(x, HOST, 8, SELF), GNTST_okay);
    writer = op.handle;
    /* the entry in use stands for its frame, whatever is written to it meanwhile */
    guest_give(x, 8, GTF_permit_access | GTF_IN_USE, SELF, FRAME + 1);
    assert_int_equal(do_map(x, HOST | GNTMAP_readonly, 8, SELF), GNTST_okay);
    assert_int_equal(x->mfn, FRAME);
    assert_int_not_equal(op.handle, writer);
    assert_int_equal(do_unmap(x, 0x5000, 0, writer), GNTST_okay);
    assert_int_equal(use_of(x), GTF_reading);
    assert_int_equal(do_unmap(x, 0x5000, 0, op.handle), GNTST_okay);
    assert_int_equal(use_of(x), 0);
}

static void a_mapping_that_has_changed_stays(void **state)
{
    struct guest *x = *state;

    assert_int_equal(do_map(x, HOST, 8, SELF), GNTST_okay);
    x->answer = GNTST_general_error;
    assert_int_equal(do_unmap(x, 0x5000, 0, op.handle), GNTST_general_error);
    assert_int_equal(use_of(x), GTF_reading | GTF_writing);
}

static void another_mapping_takes_its_place(void **state)
{
    struct guest *x = *state;
    struct gnttab_unmap_and_replace r = { .host_addr = 0x5000, .new_addr = 0x6000 };

    assert_int_equal(do_map(x, HOST, 8, SELF), GNTST_okay);
    r.handle = op.handle;
    assert_int_equal(gnttab_unmap_and_replace(&x->t, &r), 0);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_equal(x->new_addr, 0x6000);
    assert_int_equal(use_of(x), 0);
    assert_int_equal(gnttab_unmap_and_replace(&x->t, &r), 0);
    assert_int_equal(r.status, GNTST_bad_handle);
}

static void handles_run_out(void **state)
{
    struct guest *x = *state;

    for (unsigned i = 0; i < GNTTAB_HANDLES_MAX; i++) {
        assert_int_equal(do_map(x, BUS, 8, SELF), GNTST_okay);
        assert_int_equal(op.handle, i);
    }
    assert_int_equal(do_map(x, BUS, 8, SELF), GNTST_no_device_space);
    assert_int_equal(do_unmap(x, 0, (uint64_t)FRAME << PAGE_SHIFT, 5), GNTST_okay);
    assert_int_equal(do_map(x, BUS, 8, SELF), GNTST_okay);
    assert_int_equal(op.handle, 5);
    assert_int_equal(x->nr_maps, 0);
}

/* In either version of the table. */
#define TEST(name) \
    { #name ", version 1", name, setup_v1, guest_teardown, NULL }, \
    { #name ", version 2", name, setup_v2, guest_teardown, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(only_what_is_granted_to_the_guest),
        TEST(an_entry_that_grants_something_else_is_not_mapped),
        TEST(a_readonly_grant_is_not_mapped_writable),
        TEST(what_cannot_be_mapped_is_not_in_use),
        TEST(the_last_mapping_ends_the_use),
        TEST(one_of_two_mappings_leaves_the_use_of_the_other),
        TEST(a_mapping_that_has_changed_stays),
        TEST(another_mapping_takes_its_place),
        TEST(handles_run_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
