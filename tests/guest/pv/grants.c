/* SPDX-License-Identifier: MIT */
/* The grant table as a guest sets it up: sizes, frames, versions. */
#include "pv.h"

#include <xen/grant_table.h>

static void check_sizes(void)
{
    struct gnttab_query_size q = { .dom = DOMID_SELF };
    struct gnttab_get_version v = { .dom = DOMID_SELF };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_query_size, &q, 1), 0);
    CHECK_EQ(q.status, GNTST_okay);
    CHECK(q.nr_frames >= 1);
    CHECK(q.max_nr_frames >= 4 && q.max_nr_frames >= q.nr_frames);
    q.dom = 12345;
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_query_size, &q, 1), 0);
    CHECK_EQ(q.status, GNTST_bad_domain);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_get_version, &v, 1), 0);
    CHECK_EQ(v.version, 1);
}

static void check_setup(void)
{
    uint64_t frames[4] = { 0 };
    struct gnttab_setup_table s = { .dom = DOMID_SELF, .nr_frames = 4, .frame_list.p = frames };
    volatile struct grant_entry_v1 *table[4];

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_setup_table, &s, 1), 0);
    CHECK_EQ(s.status, GNTST_okay);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t pte = frames[i] << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_NX;

        table[i] = pv_page();
        CHECK_EQ(PV_CALL(update_va_mapping, table[i], pte, UVMF_INVLPG), 0);
        for (unsigned k = 0; k < i; k++)
            CHECK(frames[k] != frames[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        table[i][7].frame = 1000 + i;
        table[i][7].domid = 0;
        table[i][7].flags = GTF_permit_access;
    }
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(table[i][7].frame, 1000 + i);
    s.nr_frames = 100000;
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_setup_table, &s, 1), 0);
    CHECK(s.status != GNTST_okay);
    s.nr_frames = 4;
    s.frame_list.p = (void *)0x123456789000;
    PV_CALL(grant_table_op, GNTTABOP_setup_table, &s, 1);
    CHECK(s.status != GNTST_okay);
}

/* Nobody has granted us anything. */
static void check_nothing_to_map(void)
{
    struct gnttab_map_grant_ref map = { .host_addr = (uint64_t)pv_page(), .dom = 12345,
                                        .flags = GNTMAP_host_map };
    struct gnttab_unmap_grant_ref unmap = { .handle = 77 };
    int64_t rc;

    rc = PV_CALL(grant_table_op, GNTTABOP_map_grant_ref, &map, 1);
    CHECK(rc == -XEN_ENOSYS || (!rc && map.status < 0));
    rc = PV_CALL(grant_table_op, GNTTABOP_unmap_grant_ref, &unmap, 1);
    CHECK(rc == -XEN_ENOSYS || (!rc && unmap.status < 0));
}

void test_main(void)
{
    check_sizes();
    check_setup();
    check_nothing_to_map();
}
