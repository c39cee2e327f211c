/* SPDX-License-Identifier: MIT */
/* Version 2 of the grant table: changing to it and back, status frames, whole pages, parts
 * of pages, others' grants; and copies under either version. */
#include "pv.h"

#include <xen/grant_table.h>
#include <xen/memory.h>

#define FRAMES 9                /* of entries: they need a second status frame */
#define STATUS_FRAMES 2

static union {
    struct grant_entry_v1 v1[256 * FRAMES * 2];
    union grant_entry_v2 v2[256 * FRAMES];
} *table;
static grant_status_t *status;  /* volatile enough: every access is around a hypercall */
static domid_t self;

static int64_t set_version(uint32_t version)
{
    struct gnttab_set_version op = { .version = version };
    struct gnttab_get_version now = { .dom = DOMID_SELF };
    int64_t rc = PV_CALL(grant_table_op, GNTTABOP_set_version, &op, 1);

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_get_version, &now, 1), 0);
    CHECK_EQ(op.version, now.version);
    if (!rc)
        CHECK_EQ(now.version, version);
    return rc;
}

/* Maps frames at pages that follow each other. */
static void *map_frames(const uint64_t *mfns, unsigned nr)
{
    uint8_t *first = NULL;

    for (unsigned i = 0; i < nr; i++) {
        uint8_t *page = pv_page();

        if (!first)
            first = page;
        CHECK(page == first + i * PAGE_SIZE);
        CHECK_EQ(PV_CALL(update_va_mapping, page,
                         mfns[i] << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_NX, UVMF_INVLPG), 0);
    }
    return first;
}

static void table_setup(void)
{
    uint64_t mfns[FRAMES] = { 0 };
    struct gnttab_setup_table s = { .dom = DOMID_SELF, .nr_frames = FRAMES,
                                    .frame_list.p = mfns };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_setup_table, &s, 1), 0);
    CHECK_EQ(s.status, GNTST_okay);
    table = map_frames(mfns, FRAMES);
}

static int status_frames(uint32_t nr, uint64_t *mfns)
{
    struct gnttab_get_status_frames op = { .dom = DOMID_SELF, .nr_frames = nr,
                                           .frame_list.p = mfns };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_get_status_frames, &op, 1), 0);
    return op.status;
}

/* The toolstack's entries go through the change; others are gone, and so are theirs. */
static void check_change(void)
{
    const struct grant_entry_v1 console = table->v1[GNTTAB_RESERVED_CONSOLE];
    const struct grant_entry_v1 store = table->v1[GNTTAB_RESERVED_XENSTORE];
    uint64_t mfns[STATUS_FRAMES + 1];

    CHECK_EQ(console.flags & GTF_type_mask, GTF_permit_access);
    CHECK_EQ(console.frame, pv_start_info->console.domU.mfn);
    CHECK_EQ(store.flags & GTF_type_mask, GTF_permit_access);
    CHECK_EQ(store.frame, pv_start_info->store_mfn);
    CHECK_EQ(store.domid, 0);
    CHECK_EQ(set_version(0), -XEN_EINVAL);
    CHECK_EQ(set_version(3), -XEN_EINVAL);
    CHECK_EQ(status_frames(1, mfns), GNTST_general_error);
    table->v1[20] = (struct grant_entry_v1){ GTF_permit_access, 0, 1 };

    CHECK_EQ(set_version(2), 0);
    CHECK_EQ(table->v2[GNTTAB_RESERVED_CONSOLE].hdr.flags & ~GTF_readonly, GTF_permit_access);
    CHECK_EQ(table->v2[GNTTAB_RESERVED_CONSOLE].full_page.frame, console.frame);
    CHECK_EQ(table->v2[GNTTAB_RESERVED_XENSTORE].full_page.frame, store.frame);
    CHECK_EQ(table->v2[GNTTAB_RESERVED_XENSTORE].hdr.domid, 0);
    for (unsigned i = GNTTAB_NR_RESERVED_ENTRIES; i < array_size(table->v2); i++)
        CHECK(!table->v2[i].hdr.flags && !table->v2[i].full_page.frame);

    CHECK_EQ(status_frames(STATUS_FRAMES + 1, mfns), GNTST_general_error);
    CHECK_EQ(status_frames(STATUS_FRAMES, mfns), GNTST_okay);
    CHECK_EQ(status_frames(1, (uint64_t *)0x123456789000), GNTST_bad_virt_addr);
    CHECK(mfns[0] != mfns[1]);
    status = map_frames(mfns, STATUS_FRAMES);
    for (unsigned i = GNTTAB_NR_RESERVED_ENTRIES; i < STATUS_FRAMES * 2048; i++)
        CHECK_EQ(status[i], 0);
}

static void give(grant_ref_t ref, const void *page, unsigned flags, domid_t to)
{
    table->v2[ref].full_page.frame = pv_mfn(page);
    table->v2[ref].hdr.domid = to;
    table->v2[ref].hdr.flags = (uint16_t)flags;
}

static struct gnttab_map_grant_ref map_op;

static int map(const void *at, unsigned flags, grant_ref_t ref)
{
    map_op = (struct gnttab_map_grant_ref){ .host_addr = (uint64_t)at, .flags = flags,
                                            .ref = ref, .dom = self };
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_map_grant_ref, &map_op, 1), 0);
    return map_op.status;
}

static int unmap(const void *at)
{
    struct gnttab_unmap_grant_ref op = { (uint64_t)at, 0, map_op.handle, 0 };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_unmap_grant_ref, &op, 1), 0);
    return op.status;
}

/* In-use bits are in the status words, and only there. */
static void check_map(uint64_t *page, uint64_t *at)
{
    const grant_ref_t last = array_size(table->v2) - 1;
    struct gnttab_unmap_and_replace replace = { (uint64_t)at, (uint64_t)pv_page(), 0, 0 };

    CHECK_EQ(map(at, GNTMAP_host_map, last + 1), GNTST_bad_gntref);
    page[0] = 0x600d;
    give(last, page, GTF_permit_access, self);
    CHECK_EQ(map(at, GNTMAP_host_map, last), GNTST_okay);
    CHECK_EQ(*(volatile uint64_t *)at, 0x600d);
    CHECK_EQ(table->v2[last].hdr.flags, GTF_permit_access);
    CHECK_EQ(status[last], GTF_reading | GTF_writing);
    CHECK_EQ(set_version(1), -XEN_EBUSY);
    CHECK_EQ(unmap(at), GNTST_okay);
    CHECK_EQ(status[last], 0);

    give(8, page, GTF_permit_access | GTF_readonly, self);
    CHECK_EQ(map(at, GNTMAP_host_map, 8), GNTST_general_error);
    CHECK_EQ(status[8], 0);
    CHECK_EQ(map(at, GNTMAP_host_map | GNTMAP_readonly, 8), GNTST_okay);
    CHECK_EQ(status[8], GTF_reading);
    replace.handle = map_op.handle;
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_unmap_and_replace, &replace, 1), 0);
    CHECK_EQ(replace.status, GNTST_okay);
    CHECK_EQ(status[8], 0);

    /* a frame beyond what version 1 has, parts of pages, others' grants */
    give(8, page, GTF_permit_access, self);
    table->v2[8].full_page.frame |= 1ull << 32;
    CHECK_EQ(map(at, GNTMAP_host_map, 8), GNTST_bad_page);
    give(8, page, GTF_permit_access | GTF_sub_page, self);
    CHECK_EQ(map(at, GNTMAP_host_map, 8), GNTST_general_error);
    give(8, page, GTF_transitive, self);
    CHECK_EQ(map(at, GNTMAP_host_map, 8), GNTST_general_error);
    CHECK_EQ(status[8], 0);
}

static void check_swap(const void *page)
{
    struct gnttab_swap_grant_ref op = { .ref_a = 8, .ref_b = 300 };

    give(8, page, GTF_permit_access, 5);
    give(300, page, GTF_permit_access | GTF_readonly, 6);
    table->v2[300].full_page.frame = 0x123456789;
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_swap_grant_ref, &op, 1), 0);
    CHECK_EQ(op.status, GNTST_okay);
    CHECK_EQ(table->v2[8].hdr.domid, 6);
    CHECK_EQ(table->v2[8].hdr.flags, GTF_permit_access | GTF_readonly);
    CHECK_EQ(table->v2[8].full_page.frame, 0x123456789);
    CHECK_EQ(table->v2[300].hdr.domid, 5);
    CHECK_EQ(table->v2[300].full_page.frame, pv_mfn(page));
}

/* From a reference, or to one; the other end is a page. */
static int copy_ref(unsigned flags, grant_ref_t ref, const void *page, unsigned offset,
                    unsigned len)
{
    struct gnttab_copy op = { .flags = (uint16_t)flags, .len = (uint16_t)len };
    struct gnttab_copy_ptr by_ref = { .u.ref = ref, .domid = self, .offset = (uint16_t)offset };
    struct gnttab_copy_ptr by_frame = { .u.gmfn = pv_mfn(page), .domid = DOMID_SELF };

    op.source = flags & GNTCOPY_source_gref ? by_ref : by_frame;
    op.dest = flags & GNTCOPY_source_gref ? by_frame : by_ref;
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_copy, &op, 1), 0);
    return op.status;
}

static int copy_pages(const void *to, const void *from, unsigned to_offset, unsigned from_offset,
                      unsigned len)
{
    struct gnttab_copy op = {
        .source = { .u.gmfn = pv_mfn(from), .domid = DOMID_SELF,
                    .offset = (uint16_t)from_offset },
        .dest = { .u.gmfn = pv_mfn(to), .domid = DOMID_SELF, .offset = (uint16_t)to_offset },
        .len = (uint16_t)len,
    };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_copy, &op, 1), 0);
    return op.status;
}

static void fill(uint8_t *page, uint8_t with)
{
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        page[i] = with;
}

/* Without any grant: in either version. */
static void check_copy_frames(uint8_t *a, uint8_t *b)
{
    fill(a, 'a');
    fill(b, 'b');
    CHECK_EQ(copy_pages(b, a, 4000, 16, 96), GNTST_okay);
    CHECK_EQ(b[3999], 'b');
    CHECK_EQ(b[4000], 'a');
    CHECK_EQ(b[4095], 'a');
    CHECK_EQ(copy_pages(b, a, 1, 0, 4096), GNTST_bad_copy_arg);
    CHECK_EQ(b[0], 'b');
    CHECK_EQ(copy_pages(pv_kernel_va(pv_pte_maddr((uint64_t)a, 4) >> PAGE_SHIFT), a, 0, 0, 8),
             GNTST_general_error);      /* a page table */
}

static void check_copy(uint8_t *a, uint8_t *b)
{
    check_copy_frames(a, b);
    fill(a, 'a');
    fill(b, 'b');
    table->v2[30].sub_page.frame = pv_mfn(a);
    table->v2[30].sub_page.page_off = 0x200;
    table->v2[30].sub_page.length = 0x10;
    table->v2[30].hdr.domid = self;
    table->v2[30].hdr.flags = GTF_permit_access | GTF_sub_page;
    CHECK_EQ(copy_ref(GNTCOPY_source_gref, 30, b, 0x1ff, 2), GNTST_general_error);
    CHECK_EQ(copy_ref(GNTCOPY_source_gref, 30, b, 0x200, 0x11), GNTST_general_error);
    CHECK_EQ(b[0], 'b');
    CHECK_EQ(copy_ref(GNTCOPY_source_gref, 30, b, 0x200, 0x10), GNTST_okay);
    CHECK_EQ(b[0xf], 'a');
    CHECK_EQ(b[0x10], 'b');
    CHECK_EQ(copy_ref(GNTCOPY_dest_gref, 30, b + 0x100, 0x20f, 1), GNTST_okay);
    table->v2[30].hdr.flags |= GTF_readonly;
    CHECK_EQ(copy_ref(GNTCOPY_dest_gref, 30, b, 0x200, 1), GNTST_general_error);

    table->v2[31].transitive.gref = 30;
    table->v2[31].transitive.trans_domid = self;
    table->v2[31].hdr.domid = self;
    table->v2[31].hdr.flags = GTF_transitive;
    CHECK_EQ(copy_ref(GNTCOPY_source_gref, 31, b, 0x200, 1), GNTST_general_error);
    table->v2[31].transitive.trans_domid = 12345;
    CHECK_EQ(copy_ref(GNTCOPY_source_gref, 31, b, 0x200, 1), GNTST_general_error);
    CHECK_EQ(status[30] | status[31], 0);
}

/* Back: what version 1 cannot say, entries in use and mapped status frames are in the way. */
static void check_back(void)
{
    table->v2[5].full_page.frame = 1ull << 32;
    table->v2[5].hdr.flags = GTF_permit_access;
    CHECK_EQ(set_version(1), -XEN_ERANGE);
    table->v2[5].hdr.flags = GTF_transitive;
    CHECK_EQ(set_version(1), -XEN_ERANGE);
    table->v2[5].hdr.flags = GTF_invalid;
    CHECK_EQ(set_version(1), -XEN_EBUSY);
    for (unsigned i = 0; i < STATUS_FRAMES; i++)
        CHECK_EQ(PV_CALL(update_va_mapping, (uint8_t *)status + i * PAGE_SIZE, 0, UVMF_INVLPG),
                 0);
    CHECK_EQ(set_version(1), 0);
    CHECK_EQ(table->v1[GNTTAB_RESERVED_XENSTORE].frame, pv_start_info->store_mfn);
    CHECK_EQ(table->v1[GNTTAB_RESERVED_CONSOLE].frame, pv_start_info->console.domU.mfn);
    CHECK_EQ(table->v1[20].flags, 0);
}

void test_main(void)
{
    uint64_t *page = pv_page(), *at = pv_page();
    void *other = pv_page();

    self = pv_own_domid();
    table_setup();
    check_copy_frames((uint8_t *)page, other);
    check_change();
    check_map(page, at);
    check_swap(page);
    check_copy((uint8_t *)page, other);
    check_back();
}
