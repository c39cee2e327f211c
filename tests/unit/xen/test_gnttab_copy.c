/* SPDX-License-Identifier: MIT */
/* GNTTABOP_copy: by frame and by reference, whole pages, parts of them, others' grants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gnttab_guest.h"

#define SRC GNTCOPY_source_gref
#define DST GNTCOPY_dest_gref

static uint8_t *page(struct guest *g, unsigned i)
{
    return g->ram + i * PAGE_SIZE;
}

static int setup(void **state)
{
    struct guest *g;

    guest_setup(state);
    g = *state;
    for (unsigned i = 0; i < RAM_PAGES; i++)
        memset(page(g, i), 'a' + i, PAGE_SIZE);
    return 0;
}

static int setup_v2(void **state)
{
    setup(state);
    return guest_version(*state, 2);
}

/* By frame of RAM, or with SRC and DST by reference. */
static int copy(struct guest *g, uint16_t flags, uint64_t from, domid_t from_dom, uint64_t to,
                domid_t to_dom, uint16_t from_offset, uint16_t to_offset, uint16_t len)
{
    struct gnttab_copy op = {
        .flags = flags, .len = len,
        .source = { .domid = from_dom, .offset = from_offset },
        .dest = { .domid = to_dom, .offset = to_offset },
    };

    if (flags & SRC)
        op.source.u.ref = (grant_ref_t)from;
    else
        op.source.u.gmfn = RAM_MFN + from;
    if (flags & DST)
        op.dest.u.ref = (grant_ref_t)to;
    else
        op.dest.u.gmfn = RAM_MFN + to;
    assert_int_equal(gnttab_copy(&g->t, &op), 0);
    return op.status;
}

static int copy_all(struct guest *g, uint16_t flags, uint64_t from, domid_t from_dom,
                    uint64_t to, domid_t to_dom)
{
    return copy(g, flags, from, from_dom, to, to_dom, 0, 0, PAGE_SIZE);
}

static void own_frames_are_copied(void **state)
{
    struct guest *g = *state;

    assert_int_equal(copy(g, 0, 0, DOMID_SELF, 1, DOMID_SELF, 16, 4000, 96), GNTST_okay);
    assert_int_equal(page(g, 1)[3999], 'b');
    for (unsigned i = 4000; i < 4096; i++)
        assert_int_equal(page(g, 1)[i], 'a');
    assert_int_equal(page(g, 2)[0], 'c');
    assert_int_equal(copy(g, 0, 0, DOMID_SELF, 1, DOMID_SELF, 0, 0, 0), GNTST_okay);
}

static void own_grants_are_copied(void **state)
{
    struct guest *g = *state;

    guest_give(g, 20, GTF_permit_access | GTF_readonly, SELF, RAM_MFN + 2);
    guest_give(g, 21, GTF_permit_access, SELF, RAM_MFN + 3);
    assert_int_equal(copy_all(g, SRC | DST, 20, DOMID_SELF, 21, SELF), GNTST_okay);
    assert_memory_equal(page(g, 3), page(g, 2), PAGE_SIZE);
    assert_int_equal(copy_all(g, SRC, 21, SELF, 0, DOMID_SELF), GNTST_okay);
    assert_memory_equal(page(g, 0), page(g, 2), PAGE_SIZE);
    assert_int_equal(copy_all(g, DST, 1, DOMID_SELF, 21, SELF), GNTST_okay);
    assert_int_equal(page(g, 3)[4095], 'b');
    assert_int_equal(guest_use(g, 20) | guest_use(g, 21), 0);
}

static void what_is_not_granted_is_not_copied(void **state)
{
    static const struct {
        uint16_t flags;
        uint64_t from, to;
        domid_t from_dom, to_dom;
        int16_t status;
    } rows[] = {
        { 0, 0, 1, SELF, DOMID_SELF, GNTST_permission_denied },
        { 0, 0, 1, DOMID_SELF, 0, GNTST_permission_denied },
        { SRC, 22, 1, OTHER, DOMID_SELF, GNTST_bad_domain },
        { SRC | DST, 22, 22, OTHER, OTHER, GNTST_bad_domain },
        { SRC, 22, 1, OTHER, OTHER, GNTST_bad_domain },         /* the source is first */
        { DST, 0, 22, SELF, OTHER, GNTST_permission_denied },
        { SRC, 511, 1, 0, DOMID_SELF, GNTST_general_error },    /* domain 0 has a table */
        { SRC, 512, 1, 0, DOMID_SELF, GNTST_bad_gntref },
        { DST, 0, 511, DOMID_SELF, 0, GNTST_general_error },
        { SRC, 512, 1, SELF, DOMID_SELF, GNTST_bad_gntref },
        { DST, 0, 512, DOMID_SELF, SELF, GNTST_bad_gntref },
        { SRC, 20, 1, SELF, DOMID_SELF, GNTST_general_error },  /* no grant */
        { SRC, 21, 1, SELF, DOMID_SELF, GNTST_general_error },  /* to another */
        { DST, 0, 22, DOMID_SELF, SELF, GNTST_general_error },  /* to read */
        { SRC, 23, 1, SELF, DOMID_SELF, GNTST_bad_page },
        { 0, 100, 1, DOMID_SELF, DOMID_SELF, GNTST_bad_page },
        { 0, 0, 100, DOMID_SELF, DOMID_SELF, GNTST_bad_page },
        { 0, 0, TABLE_PAGE, DOMID_SELF, DOMID_SELF, GNTST_general_error },
        { DST, 0, 24, DOMID_SELF, SELF, GNTST_general_error },
        { 0, TABLE_PAGE, 1, DOMID_SELF, DOMID_SELF, GNTST_okay },
        { SRC, 24, 1, SELF, DOMID_SELF, GNTST_okay },
    };
    struct guest *g = *state;

    guest_give(g, 21, GTF_permit_access, 0, RAM_MFN);
    guest_give(g, 22, GTF_permit_access | GTF_readonly, SELF, RAM_MFN);
    guest_give(g, 23, GTF_permit_access, SELF, FIRST_MFN);
    guest_give(g, 24, GTF_permit_access, SELF, RAM_MFN + TABLE_PAGE);
    for (size_t i = 0; i < array_size(rows); i++) {
        assert_int_equal(copy_all(g, rows[i].flags, rows[i].from, rows[i].from_dom, rows[i].to,
                                  rows[i].to_dom), rows[i].status);
        if (rows[i].status != GNTST_okay)
            assert_int_equal(page(g, 1)[0], 'b');
        for (grant_ref_t ref = 20; ref <= 24; ref++)
            assert_int_equal(guest_use(g, ref), 0);
    }
}

static void bytes_outside_the_page_are_not_copied(void **state)
{
    static const struct { uint16_t from, to, len; int16_t status; } rows[] = {
        { 0, 0, 4097, GNTST_bad_copy_arg }, { 1, 0, 4096, GNTST_bad_copy_arg },
        { 0, 4096, 1, GNTST_bad_copy_arg }, { 65535, 0, 65535, GNTST_bad_copy_arg },
        { 4096, 4096, 0, GNTST_okay }, { 4095, 0, 1, GNTST_okay },
    };
    struct guest *g = *state;

    for (size_t i = 0; i < array_size(rows); i++)
        assert_int_equal(copy(g, 0, 0, DOMID_SELF, 1, DOMID_SELF, rows[i].from, rows[i].to,
                              rows[i].len), rows[i].status);
}

/* A copy shows in the entry while it goes on, and leaves what a mapping shows. */
static void a_mapping_stays_in_use(void **state)
{
    struct guest *g = *state;
    struct gnttab_map_grant_ref map = { .flags = GNTMAP_host_map | GNTMAP_readonly, .ref = 30,
                                        .dom = SELF };

    guest_give(g, 30, GTF_permit_access, SELF, RAM_MFN);
    assert_int_equal(gnttab_map_grant_ref(&g->t, &map), 0);
    assert_int_equal(map.status, GNTST_okay);
    assert_int_equal(copy_all(g, DST, 1, DOMID_SELF, 30, SELF), GNTST_okay);
    assert_int_equal(guest_use(g, 30), GTF_reading);
    assert_int_equal(page(g, 0)[0], 'b');
    /* the frame it had when it was mapped */
    guest_give(g, 30, GTF_permit_access | GTF_readonly, 0, RAM_MFN + 2);
    assert_int_equal(copy_all(g, SRC, 30, SELF, 3, DOMID_SELF), GNTST_okay);
    assert_int_equal(page(g, 3)[0], 'b');
    assert_int_equal(copy_all(g, DST, 1, DOMID_SELF, 30, SELF), GNTST_general_error);
}

static void part_of_a_page_is_copied_and_no_more(void **state)
{
    static const struct { uint16_t at, len; int16_t status; } rows[] = {
        { 0x100, 0x20, GNTST_okay }, { 0x110, 0x10, GNTST_okay }, { 0x120, 0, GNTST_okay },
        { 0xff, 2, GNTST_general_error }, { 0x110, 0x11, GNTST_general_error },
        { 0, 4096, GNTST_general_error }, { 0x121, 0, GNTST_general_error },
        { 0x110, 0xff0, GNTST_bad_copy_arg },
    };
    struct guest *g = *state;

    guest_v2(g, 40)->sub_page.frame = RAM_MFN;
    guest_v2(g, 40)->sub_page.page_off = 0x100;
    guest_v2(g, 40)->sub_page.length = 0x20;
    guest_v2(g, 40)->hdr = (struct grant_entry_header){ GTF_permit_access | GTF_sub_page, SELF };
    for (size_t i = 0; i < array_size(rows); i++) {
        assert_int_equal(copy(g, SRC, 40, SELF, 1, DOMID_SELF, rows[i].at, 0, rows[i].len),
                         rows[i].status);
        assert_int_equal(copy(g, DST, 2, DOMID_SELF, 40, SELF, 0, rows[i].at, rows[i].len),
                         rows[i].status);
        assert_int_equal(guest_use(g, 40), 0);
    }
    assert_int_equal(page(g, 0)[0xff], 'a');
    assert_int_equal(page(g, 0)[0x100], 'c');
    assert_int_equal(page(g, 0)[0x11f], 'c');
    assert_int_equal(page(g, 0)[0x120], 'a');
    /* parts that the page has not */
    guest_v2(g, 40)->sub_page.page_off = 0xff00;
    guest_v2(g, 40)->sub_page.length = 0xffff;
    assert_int_equal(copy(g, SRC, 40, SELF, 1, DOMID_SELF, 0xff00, 0, 1), GNTST_bad_copy_arg);
}

static void grants_of_others_lead_nowhere(void **state)
{
    static const struct { domid_t dom; grant_ref_t ref; int16_t status; } rows[] = {
        { SELF, 41, GNTST_general_error }, { OTHER, 8, GNTST_general_error },
        { DOMID_SELF, 41, GNTST_general_error }, { 0, 8, GNTST_general_error },
        { 0, 512, GNTST_bad_gntref },
    };
    struct guest *g = *state;

    guest_give(g, 41, GTF_permit_access, SELF, RAM_MFN);
    for (size_t i = 0; i < array_size(rows); i++) {
        *guest_v2(g, 40) = (union grant_entry_v2){ .transitive = {
            { GTF_transitive, SELF }, rows[i].dom, 0, rows[i].ref } };
        assert_int_equal(copy_all(g, SRC, 40, SELF, 1, DOMID_SELF), rows[i].status);
        assert_int_equal(copy_all(g, DST, 1, DOMID_SELF, 40, SELF), rows[i].status);
        assert_int_equal(guest_use(g, 40), 0);
    }
}

/* Version 1 has no parts of pages: what says so is not looked at, says Xen. */
static void version_1_copies_whole_pages(void **state)
{
    struct guest *g = *state;

    guest_give(g, 20, GTF_permit_access | GTF_sub_page, SELF, RAM_MFN + 2);
    assert_int_equal(copy_all(g, SRC, 20, SELF, 1, DOMID_SELF), GNTST_okay);
    guest_give(g, 20, GTF_transitive, SELF, RAM_MFN + 2);
    assert_int_equal(copy_all(g, SRC, 20, SELF, 1, DOMID_SELF), GNTST_general_error);
}

#define TEST_V1(name) { #name ", version 1", name, setup, guest_teardown, NULL }
#define TEST_V2(name) { #name ", version 2", name, setup_v2, guest_teardown, NULL }
#define TEST(name) TEST_V1(name), TEST_V2(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(own_frames_are_copied),
        TEST(own_grants_are_copied),
        TEST(what_is_not_granted_is_not_copied),
        TEST(bytes_outside_the_page_are_not_copied),
        TEST(a_mapping_stays_in_use),
        TEST_V1(version_1_copies_whole_pages),
        TEST_V2(part_of_a_page_is_copied_and_no_more),
        TEST_V2(grants_of_others_lead_nowhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
