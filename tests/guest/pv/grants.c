/* SPDX-License-Identifier: MIT */
/* The grant table as a guest sets it up: sizes, frames, versions; grants to itself. */
#include "pv.h"

#include <xen/grant_table.h>
#include <xen/memory.h>

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

static volatile struct grant_entry_v1 *grant;   /* the first page of the table */

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
    grant = table[0];
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

static struct gnttab_map_grant_ref map_op;

static int map(uint64_t host_addr, unsigned flags, grant_ref_t ref, domid_t dom)
{
    map_op = (struct gnttab_map_grant_ref){ .host_addr = host_addr, .flags = flags, .ref = ref,
                                            .dom = dom };
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_map_grant_ref, &map_op, 1), 0);
    return map_op.status;
}

static int unmap(uint64_t host_addr, uint64_t bus, grant_handle_t handle)
{
    struct gnttab_unmap_grant_ref op = { host_addr, bus, handle, 0 };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_unmap_grant_ref, &op, 1), 0);
    return op.status;
}

static int replace(uint64_t host_addr, uint64_t new_addr, grant_handle_t handle)
{
    struct gnttab_unmap_and_replace op = { host_addr, new_addr, handle, 0 };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_unmap_and_replace, &op, 1), 0);
    return op.status;
}

static int64_t pin(const void *page)
{
    struct mmuext_op op = { .cmd = MMUEXT_PIN_L1_TABLE, .arg1.mfn = pv_mfn(page) };
    int64_t rc = PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF);

    op.cmd = MMUEXT_UNPIN_TABLE;
    if (!rc)
        CHECK_EQ(PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF), 0);
    return rc;
}

static void give(grant_ref_t ref, const void *page, unsigned flags, domid_t to)
{
    grant[ref].frame = (uint32_t)pv_mfn(page);
    grant[ref].domid = to;
    grant[ref].flags = (uint16_t)flags;
}

static void read_at(uint64_t va)
{
    *(volatile uint64_t *)va;
}

static void write_at(uint64_t va)
{
    *(volatile uint64_t *)va = 2;
}

static void check_refusals(domid_t self, const uint64_t *page, uint64_t at)
{
    CHECK_EQ(map(at, GNTMAP_host_map, 8, 0), GNTST_general_error);
    CHECK_EQ(map(at, GNTMAP_host_map, 100000, 0), GNTST_bad_gntref);
    CHECK_EQ(map(at, GNTMAP_host_map, 100000, self), GNTST_bad_gntref);
    CHECK_EQ(map(at, 0, 8, self), GNTST_bad_gntref);
    give(8, page, GTF_invalid, self);
    CHECK_EQ(map(at, GNTMAP_host_map, 8, self), GNTST_general_error);
    give(8, page, GTF_permit_access, 0);
    CHECK_EQ(map(at, GNTMAP_host_map, 8, self), GNTST_general_error);
    give(8, page, GTF_permit_access | GTF_readonly, self);
    CHECK_EQ(map(at, GNTMAP_host_map, 8, self), GNTST_general_error);
    give(8, page, GTF_permit_access, self);
    CHECK_EQ(map(0x123456789000, GNTMAP_host_map, 8, self), GNTST_general_error);
    CHECK_EQ(map(0xffff808000000000, GNTMAP_host_map, 8, self), GNTST_general_error);
    CHECK_EQ(map(pv_pte_maddr(at, 1) - 2, GNTMAP_host_map | GNTMAP_contains_pte, 8, self),
             GNTST_general_error);
    CHECK_EQ(map(pv_mfn(page) << PAGE_SHIFT, GNTMAP_host_map | GNTMAP_contains_pte, 8, self),
             GNTST_general_error);      /* that is no table */
    CHECK_EQ(grant[8].flags, GTF_permit_access);
    CHECK_EQ(unmap(at, 0, 0), GNTST_bad_handle);
    CHECK_EQ(replace(at, 0, 100000), GNTST_bad_handle);
}

/* A frame that was given back is nobody's to grant. */
static void check_frame_given_back(domid_t self, uint64_t at)
{
    void *page = pv_page();
    uint64_t mfn = pv_mfn(page);
    struct xen_memory_reservation r = { .extent_start.p = &mfn, .nr_extents = 1,
                                        .domid = DOMID_SELF };

    give(8, page, GTF_permit_access, self);
    CHECK_EQ(PV_CALL(update_va_mapping, page, 0, UVMF_INVLPG), 0);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_decrease_reservation, &r), 1);
    CHECK_EQ(map(at, GNTMAP_host_map, 8, self), GNTST_bad_page);
    CHECK_EQ(grant[8].flags, GTF_permit_access);
}

/* One kind of mapping after the other goes, and with the last the use. */
static void check_both_kinds(domid_t self, uint64_t *page, uint64_t at)
{
    const unsigned both = GNTMAP_host_map | GNTMAP_device_map;

    page[0] = 0x600d;
    give(8, page, GTF_permit_access, self);
    CHECK_EQ(map(at, both, 8, self), GNTST_okay);
    CHECK_EQ(map_op.dev_bus_addr, pv_mfn(page) << PAGE_SHIFT);
    CHECK_EQ(*(volatile uint64_t *)at, 0x600d);
    CHECK_EQ(pv_catch(write_at, at), -1);
    CHECK_EQ(*(volatile uint64_t *)page, 2);
    CHECK_EQ(grant[8].flags, GTF_permit_access | GTF_reading | GTF_writing);
    CHECK_EQ(pv_protect(page, PTE_P | PTE_U), 0);
    CHECK_EQ(pin(page), -XEN_EINVAL);
    CHECK_EQ(unmap(at, 0, map_op.handle), GNTST_okay);
    CHECK_EQ(pv_catch(read_at, at), 14);
    CHECK_EQ(grant[8].flags, GTF_permit_access | GTF_reading | GTF_writing);
    CHECK_EQ(pin(page), -XEN_EINVAL);
    CHECK_EQ(unmap(0, 0x1000, map_op.handle), GNTST_general_error);
    CHECK_EQ(unmap(0, map_op.dev_bus_addr, map_op.handle), GNTST_okay);
    CHECK_EQ(grant[8].flags, GTF_permit_access);
    CHECK_EQ(pin(page), 0);
    CHECK_EQ(unmap(at, 0, map_op.handle), GNTST_bad_handle);
    CHECK_EQ(pv_protect(page, PTE_P | PTE_W | PTE_U), 0);
}

/* By the address of an entry, to read only. */
static void check_entry(domid_t self, const uint64_t *page, uint64_t at)
{
    const unsigned flags = GNTMAP_host_map | GNTMAP_contains_pte | GNTMAP_readonly;
    uint64_t pte = pv_pte_maddr(at, 1);

    give(9, page, GTF_permit_access | GTF_readonly, self);
    CHECK_EQ(map(pte, flags, 9, self), GNTST_okay);
    CHECK_EQ(*pv_pte(at, 1) & PTE_FRAME_MASK, pv_mfn(page) << PAGE_SHIFT);
    CHECK_EQ(pv_catch(read_at, at), -1);
    CHECK_EQ(pv_catch(write_at, at), 14);
    CHECK_EQ(grant[9].flags, GTF_permit_access | GTF_readonly | GTF_reading);
    CHECK_EQ(unmap(pte, 0, map_op.handle), GNTST_okay);
    CHECK_EQ(*pv_pte(at, 1), 0);
    CHECK_EQ(grant[9].flags, GTF_permit_access | GTF_readonly);
}

/* Another mapping moves to where one goes; one that has changed does not go. */
static void check_replace(domid_t self, const uint64_t *page, uint64_t at)
{
    uint64_t *other = pv_page(), mfn = pv_mfn(other);

    give(8, page, GTF_permit_access, self);
    CHECK_EQ(map(at, GNTMAP_host_map, 8, self), GNTST_okay);
    CHECK_EQ(PV_CALL(update_va_mapping, at, pv_mfn(page) << PAGE_SHIFT | PTE_P | PTE_U,
                     UVMF_INVLPG), 0);
    CHECK_EQ(unmap(at, 0, map_op.handle), GNTST_general_error);
    CHECK_EQ(PV_CALL(update_va_mapping, at, mfn << PAGE_SHIFT | PTE_P | PTE_W | PTE_U,
                     UVMF_INVLPG), 0);
    CHECK_EQ(unmap(at, 0, map_op.handle), GNTST_general_error);
    CHECK_EQ(PV_CALL(update_va_mapping, at, pv_mfn(page) << PAGE_SHIFT | PTE_P | PTE_W | PTE_U,
                     UVMF_INVLPG), 0);
    other[0] = 0x0712e;
    CHECK_EQ(replace(at, (uint64_t)other, map_op.handle), GNTST_okay);
    CHECK_EQ(*(volatile uint64_t *)at, 0x0712e);
    CHECK_EQ(pv_catch(read_at, (uint64_t)other), 14);
    CHECK_EQ(grant[8].flags, GTF_permit_access);
}

void test_main(void)
{
    uint64_t *page = pv_page(), at = (uint64_t)pv_page();
    domid_t self = pv_own_domid();

    check_sizes();
    check_setup();
    check_nothing_to_map();
    check_refusals(self, page, at);
    check_frame_given_back(self, at);
    check_both_kinds(self, page, at);
    check_entry(self, page, at);
    check_replace(self, page, at);
}
