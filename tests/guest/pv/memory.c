/* SPDX-License-Identifier: MIT */
/* Memory given back and taken again: counts, frames, contents. */
#include "pv.h"

#include <xen/memory.h>

#define NR 64

static uint64_t list[NR];

static int64_t reservation(unsigned cmd, unsigned nr, unsigned order, domid_t domid)
{
    struct xen_memory_reservation r = { .extent_start.p = list, .nr_extents = nr,
                                        .extent_order = order, .domid = domid };

    return PV_CALL(memory_op, cmd, &r);
}

static int64_t nr_pages(void)
{
    domid_t self = DOMID_SELF;

    return PV_CALL(memory_op, XENMEM_current_reservation, &self);
}

static void check_map(void)
{
    struct e820 { uint64_t addr, size; uint32_t type; } __attribute__((packed)) e[4] = { { 0 } };
    struct xen_memory_map m = { .nr_entries = 4, .buffer.p = e };
    domid_t other = 12345, self = DOMID_SELF;
    struct xen_vnuma_topology_info vnuma = { .domid = DOMID_SELF };

    CHECK_EQ(PV_CALL(memory_op, XENMEM_memory_map, &m), 0);
    CHECK(m.nr_entries >= 1);
    CHECK_EQ(e[0].addr, 0);
    CHECK(e[0].size >= pv_start_info->nr_pages << PAGE_SHIFT);
    CHECK_EQ(e[0].type, 1);
    CHECK_EQ(nr_pages(), pv_start_info->nr_pages);
    CHECK(PV_CALL(memory_op, XENMEM_maximum_reservation, &self) >= nr_pages());
    CHECK_EQ(PV_CALL(memory_op, XENMEM_current_reservation, &other), -XEN_ESRCH);
    CHECK(PV_CALL(memory_op, XENMEM_maximum_ram_page, 0) > 0);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_get_vnumainfo, &vnuma), -XEN_EOPNOTSUPP);
    vnuma.domid = other;
    CHECK_EQ(PV_CALL(memory_op, XENMEM_get_vnumainfo, &vnuma), -XEN_ESRCH);
    vnuma.pad = 1;
    CHECK_EQ(PV_CALL(memory_op, XENMEM_get_vnumainfo, &vnuma), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_get_vnumainfo, 0x123456789000), -XEN_EFAULT);
}

/* A scratch page through which frames are looked at. */
static volatile uint64_t *look(uint64_t mfn)
{
    static volatile uint64_t *window;

    if (!window)
        window = pv_page();
    CHECK_EQ(PV_CALL(update_va_mapping, window, mfn << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_NX,
                     UVMF_INVLPG), 0);
    return window;
}

static void check_balloon(void)
{
    const uint64_t *p2m = (const uint64_t *)pv_start_info->mfn_list;
    uint64_t before = (uint64_t)nr_pages(), last = pv_start_info->nr_pages - NR;

    /* the end of memory holds nothing: frames there may go */
    for (unsigned i = 0; i < NR; i++) {
        list[i] = p2m[last + i];
        *look(list[i]) = 0xdead0000 + i;
    }
    look(p2m[0]);
    CHECK_EQ(reservation(XENMEM_decrease_reservation, NR, 0, DOMID_SELF), NR);
    CHECK_EQ(nr_pages(), before - NR);
    CHECK_EQ(reservation(XENMEM_decrease_reservation, NR, 0, DOMID_SELF), 0);   /* not twice */
    CHECK_EQ(nr_pages(), before - NR);

    for (unsigned i = 0; i < NR; i++)
        list[i] = last + i;
    CHECK_EQ(reservation(XENMEM_populate_physmap, NR, 0, DOMID_SELF), NR);
    CHECK_EQ(nr_pages(), before);
    for (unsigned i = 0; i < NR; i++) {
        for (unsigned k = 0; k < i; k++)
            CHECK(list[k] != list[i]);
        for (uint64_t pfn = 0; pfn < last; pfn += 97)
            CHECK(list[i] != p2m[pfn]);
        CHECK_EQ(*look(list[i]), 0);        /* what was there is nobody's business */
        *look(list[i]) = i;
    }
    for (unsigned i = 0; i < NR; i++)
        CHECK_EQ(*look(list[i]), i);
    look(p2m[0]);
    CHECK_EQ(reservation(XENMEM_populate_physmap, 1, 0, DOMID_SELF), 0);        /* full */
    CHECK_EQ(nr_pages(), before);
}

static void check_refused(void)
{
    uint64_t before = (uint64_t)nr_pages();

    list[0] = ((const uint64_t *)pv_start_info->mfn_list)[pv_start_info->nr_pages - 1];
    list[1] = ~(uint64_t)0;
    CHECK_EQ(reservation(XENMEM_decrease_reservation, 1, 0, 12345), 0);
    CHECK_EQ(reservation(XENMEM_decrease_reservation, 1, 63, DOMID_SELF), 0);
    CHECK_EQ(reservation(XENMEM_decrease_reservation, 0, 0, DOMID_SELF), 0);
    list[0] = ~(uint64_t)0 >> 13;
    CHECK_EQ(reservation(XENMEM_decrease_reservation, 2, 0, DOMID_SELF), 0);
    CHECK_EQ(nr_pages(), before);
}

/* The root it runs on: whatever Xen says to that, the kernel goes on. */
static void check_root(void)
{
    struct mmuext_op op = { .cmd = MMUEXT_TLB_FLUSH_LOCAL };

    list[0] = pv_mfn((void *)pv_start_info->pt_base);
    reservation(XENMEM_decrease_reservation, 1, 0, DOMID_SELF);
    CHECK_EQ(PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF), 0);
}

void test_main(void)
{
    check_map();
    check_balloon();
    check_refused();
    check_root();
}
