/* SPDX-License-Identifier: MIT */
/* XENMEM_exchange: single frames for an extent and back, what it refuses, and how far it
 * says it came.  And XENMEM_machphys_mfn_list. */
#include "pv.h"

#include <xen/memory.h>

#define NR 16                   /* frames of the extent, order 4 */
#define ORDER 4
#define EXTENT_FRAMES  512      /* of the M2P table: 2 MiB */
#define EXTENT_ENTRIES (EXTENT_FRAMES * 512)

static uint64_t in[NR], out[NR];
static struct xen_memory_exchange x;
static const uint64_t *m2p;
static uint64_t first_pfn;      /* of frames nothing is in, aligned */

static int64_t exchange(unsigned nr_in, unsigned in_order, unsigned nr_out, unsigned out_order)
{
    x = (struct xen_memory_exchange){
        .in = { .extent_start.p = in, .nr_extents = nr_in, .extent_order = in_order,
                .domid = DOMID_SELF },
        .out = { .extent_start.p = out, .nr_extents = nr_out, .extent_order = out_order,
                 .domid = DOMID_SELF },
    };
    return PV_CALL(memory_op, XENMEM_exchange, &x);
}

static int64_t nr_pages(void)
{
    domid_t self = DOMID_SELF;

    return PV_CALL(memory_op, XENMEM_current_reservation, &self);
}

/* A scratch page through which frames are looked at; 0: none, as exchanged ones need. */
static volatile uint64_t *look(uint64_t mfn)
{
    static volatile uint64_t *window;

    if (!window)
        window = pv_page();
    CHECK_EQ(PV_CALL(update_va_mapping, window,
                     mfn ? mfn << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_NX : 0, UVMF_INVLPG), 0);
    return window;
}

/* Frame i is pfn first_pfn + i's now. */
static void check_frame(uint64_t mfn, unsigned i)
{
    CHECK_EQ(m2p[mfn], first_pfn + i);
    CHECK_EQ(*look(mfn), 0);
    *look(mfn) = 0x1234;
    look(0);
}

static void check_one(void)
{
    int64_t before = nr_pages();

    in[0] = ((const uint64_t *)pv_start_info->mfn_list)[first_pfn];
    out[0] = first_pfn;
    *look(in[0]) = 0xdead;
    look(0);
    CHECK_EQ(exchange(1, 0, 1, 0), 0);
    CHECK_EQ(x.nr_exchanged, 1);
    check_frame(out[0], 0);
    CHECK_EQ(nr_pages(), before);
    in[0] = out[0];
}

/* The frames of an extent, in another order, are an extent; and then are frames. */
static void check_extent(void)
{
    const uint64_t *p2m = (const uint64_t *)pv_start_info->mfn_list;
    int64_t before = nr_pages();

    for (unsigned i = 0; i < NR; i++)
        in[i] = i ? p2m[first_pfn + (i * 5) % NR] : in[0];
    out[0] = first_pfn;
    CHECK_EQ(exchange(NR, 0, 1, ORDER), 0);
    CHECK_EQ(x.nr_exchanged, NR);
    CHECK_EQ(out[0] % NR, 0);
    for (unsigned i = 0; i < NR; i++)
        check_frame(out[0] + i, i);
    CHECK_EQ(nr_pages(), before);

    in[0] = out[0];
    for (unsigned i = 0; i < NR; i++)
        out[i] = first_pfn + NR - 1 - i;
    CHECK_EQ(exchange(1, ORDER, NR, 0), 0);
    CHECK_EQ(x.nr_exchanged, 1);
    for (unsigned i = 0; i < NR; i++)
        check_frame(out[i], NR - 1 - i);
    CHECK_EQ(nr_pages(), before);
    for (unsigned i = 0; i < NR; i++)
        in[i] = out[i];
}

static int64_t again(void)
{
    return PV_CALL(memory_op, XENMEM_exchange, &x);
}

static void check_refused(void)
{
    int64_t before = nr_pages();
    uint64_t last = in[1];

    CHECK_EQ(exchange(0, 0, 0, 0), 0);
    CHECK_EQ(exchange(1, 10, 1, 10), -XEN_EPERM);
    CHECK_EQ(exchange(1, 0, 1, 1), -XEN_EINVAL);
    CHECK_EQ(exchange(2, 0, 1, 0), -XEN_EINVAL);
    CHECK_EQ(exchange(~0u, 0, ~0u, 9), -XEN_EINVAL);
    x.in.domid = 0;
    CHECK_EQ(again(), -XEN_EINVAL);
    exchange(0, 0, 0, 0);
    x.nr_exchanged = 1;
    CHECK_EQ(again(), -XEN_EINVAL);
    CHECK_EQ(x.nr_exchanged, 1);
    x.nr_exchanged = 0;
    x.in.domid = x.out.domid = 12345;
    CHECK_EQ(again(), -XEN_ESRCH);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_exchange | 1 << 6, &x), -XEN_EINVAL);

    /* a table, a page of the kernel, what is no memory, the same twice */
    in[1] = pv_mfn((void *)pv_start_info->pt_base);
    out[0] = first_pfn;
    out[1] = first_pfn + 1;
    CHECK_EQ(exchange(2, 0, 2, 0), -XEN_EINVAL);
    CHECK_EQ(x.nr_exchanged, 1);
    in[0] = out[0];
    in[1] = pv_mfn(pv_page());
    CHECK_EQ(exchange(2, 0, 1, 1), -XEN_EINVAL);
    CHECK_EQ(x.nr_exchanged, 0);
    in[1] = ~(uint64_t)0 >> 12;
    CHECK_EQ(exchange(2, 0, 1, 1), -XEN_EINVAL);
    in[1] = in[0];
    CHECK_EQ(exchange(2, 0, 1, 1), -XEN_EINVAL);
    in[1] = last;

    /* too low for any frame, and lists that cannot be read */
    exchange(0, 0, 0, 0);
    x.in.nr_extents = x.out.nr_extents = 1;
    x.out.mem_flags = XENMEMF_address_bits(13);
    CHECK_EQ(again(), -XEN_ENOMEM);
    CHECK_EQ(x.nr_exchanged, 0);
    x.out.mem_flags = 0;
    x.in.extent_start.p = (void *)0x123456789000;
    CHECK_EQ(again(), -XEN_EFAULT);
    x.in.extent_start.p = (void *)PV_M2P;
    CHECK_EQ(again(), -XEN_EFAULT);
    x.in.extent_start.p = in;
    x.out.extent_start.p = (void *)PV_M2P;
    CHECK_EQ(again(), -XEN_EFAULT);
    CHECK_EQ(nr_pages(), before);

    /* from where it says that it stopped */
    out[1] = first_pfn + 1;
    exchange(0, 0, 0, 0);
    x.in.nr_extents = x.out.nr_extents = 2;
    x.nr_exchanged = 1;
    CHECK_EQ(again(), 0);
    CHECK_EQ(x.nr_exchanged, 2);
    check_frame(out[1], 1);
    CHECK_EQ(nr_pages(), before);
}

static void check_mfn_list(void)
{
    static xen_pfn_t extents[64];
    struct xen_machphys_mfn_list l = { .max_extents = 0, .extent_start.p = extents };
    uint64_t first_mfn = ((const uint64_t *)pv_start_info->mfn_list)[0];
    int64_t nr;
    uint64_t first;

    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_mfn_list, &l), 0);
    CHECK_EQ(l.nr_extents, 0);
    l.max_extents = array_size(extents);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_mfn_list, &l), 0);
    /* as many as the table is long, a gap where its first part would be of no frames */
    nr = (PV_CALL(memory_op, XENMEM_maximum_ram_page, 0) + EXTENT_ENTRIES - 1) / EXTENT_ENTRIES;
    CHECK_EQ(l.nr_extents, nr);
    first = first_mfn / EXTENT_ENTRIES;
    for (unsigned i = 0; i < l.nr_extents; i++)
        CHECK_EQ(extents[i], i < first ? 0 : extents[first] + (i - first) * EXTENT_FRAMES);
    CHECK(extents[first] != 0);
    CHECK_EQ(extents[first] % EXTENT_FRAMES, 0);
    l.max_extents = 1;
    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_mfn_list, &l), 0);
    CHECK_EQ(l.nr_extents, 1);
    l.extent_start.p = (void *)0x123456789000;
    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_mfn_list, &l), -XEN_EFAULT);
}

void test_main(void)
{
    struct xen_machphys_mapping map;

    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_mapping, &map), 0);
    m2p = (const uint64_t *)map.v_start;
    first_pfn = (pv_start_info->nr_pages & ~(uint64_t)(NR - 1)) - NR;
    check_one();
    check_extent();
    check_refused();
    check_mfn_list();
}
