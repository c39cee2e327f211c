/* SPDX-License-Identifier: MIT */
/* Page table updates: each kind writes what it should, at once visible; bad frames
 * and Xen's own slots are refused, with the number done up to there. */
#include "pv.h"

static uint64_t *pte_of_page;           /* of page: an entry that the test may change */
static volatile uint64_t *page;
static uint64_t page_pte;

static void read_at(uint64_t va)
{
    *(volatile uint64_t *)va;
}

static void write_at(uint64_t va)
{
    *(volatile uint64_t *)va = 1;
}

static uint64_t entry(void)
{
    return *(const volatile uint64_t *)pte_of_page;
}

static int64_t flush_local(void)
{
    struct mmuext_op op = { .cmd = MMUEXT_TLB_FLUSH_LOCAL };

    return PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF);
}

static void check_va_mapping(void)
{
    struct mmuext_op inv = { .cmd = MMUEXT_INVLPG_LOCAL, .arg1.linear_addr = (uint64_t)page };

    CHECK_EQ(PV_CALL(update_va_mapping, page, 0, UVMF_INVLPG), 0);
    CHECK_EQ(pv_catch(read_at, (uint64_t)page), 14);
    CHECK_EQ(PV_CALL(update_va_mapping, page, page_pte, UVMF_TLB_FLUSH), 0);
    CHECK_EQ(pv_catch(read_at, (uint64_t)page), -1);
    CHECK_EQ(PV_CALL(update_va_mapping, page, 0, UVMF_INVLPG | UVMF_ALL), 0);
    CHECK_EQ(pv_catch(read_at, (uint64_t)page), 14);
    CHECK_EQ(PV_CALL(update_va_mapping, page, page_pte, UVMF_TLB_FLUSH | UVMF_ALL), 0);
    CHECK_EQ(pv_catch(write_at, (uint64_t)page), -1);
    CHECK_EQ(PV_CALL(update_va_mapping, page, page_pte & ~PTE_W, UVMF_NONE), 0);
    CHECK_EQ(PV_CALL(mmuext_op, &inv, 1, 0, DOMID_SELF), 0);
    CHECK_EQ(pv_catch(write_at, (uint64_t)page), 14);
    CHECK_EQ(PV_CALL(update_va_mapping, page, page_pte, UVMF_INVLPG), 0);

    CHECK_EQ(PV_CALL(update_va_mapping, 0x123456789000, page_pte, UVMF_INVLPG), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(update_va_mapping, 0xffff800000000000, page_pte, UVMF_INVLPG), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(update_va_mapping, 0xffff808000000000, 0, UVMF_INVLPG), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(update_va_mapping, 0x8000000000000000, page_pte, UVMF_INVLPG), -XEN_EINVAL);
}

static void check_mmu_update(void)
{
    uint64_t at = pv_pte_maddr((uint64_t)page, 1);
    const uint64_t ad = PTE_A | PTE_D;
    struct mmu_update u[3] = {
        { .ptr = at, .val = page_pte & ~ad }, { .ptr = ~(uint64_t)0 << 44, .val = 0 },
        { .ptr = at, .val = 0 },
    };
    uint32_t done = 99;

    CHECK_EQ(pv_mmu_update(at | MMU_NORMAL_PT_UPDATE, page_pte & ~ad), 0);
    CHECK_EQ(entry() & ad, 0);
    flush_local();
    write_at((uint64_t)page);
    CHECK_EQ(entry() & ad, ad);
    CHECK_EQ(pv_mmu_update(at | MMU_PT_UPDATE_PRESERVE_AD, page_pte & ~ad), 0);
    CHECK_EQ(entry() & ad, ad);
    CHECK_EQ(pv_mmu_update(at | MMU_NORMAL_PT_UPDATE, page_pte & ~ad), 0);
    CHECK_EQ(entry() & ad, 0);
    CHECK_EQ(pv_mmu_update(at | MMU_PT_UPDATE_NO_TRANSLATE, page_pte), 0);

    CHECK_EQ(PV_CALL(mmu_update, u, 3, &done, DOMID_SELF), -XEN_EINVAL);
    CHECK_EQ(done, 1);
    CHECK_EQ(entry() & ad, 0);      /* the first was done */
    CHECK_EQ(PV_CALL(mmu_update, u, 0, &done, DOMID_SELF), 0);
    CHECK_EQ(done, 0);
    CHECK_EQ(pv_mmu_update(~(uint64_t)0 << 44 | MMU_MACHPHYS_UPDATE, 5), -XEN_EINVAL);
    CHECK_EQ(pv_mmu_update(pv_mfn((void *)page) << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 5), 0);
    flush_local();
}

/* Many at once: more than any batch of the implementation, across its seams. */
static void check_batches(void)
{
    static struct mmu_update u[100];
    uint64_t at = pv_pte_maddr((uint64_t)page, 1);
    uint32_t done;

    for (unsigned n = 1; n <= array_size(u); n += 11) {
        for (unsigned i = 0; i < n; i++)
            u[i] = (struct mmu_update){ .ptr = at, .val = (uint64_t)(i + 1) << 52 | page_pte };
        CHECK_EQ(PV_CALL(mmu_update, u, n, &done, DOMID_SELF), 0);
        CHECK_EQ(done, n);
        CHECK_EQ(entry() >> 52 & 0x7ff, n);
        u[n - 1].ptr = ~(uint64_t)0 << 44;
        CHECK_EQ(PV_CALL(mmu_update, u, n, &done, DOMID_SELF), -XEN_EINVAL);
        CHECK_EQ(done, n - 1);
    }
    CHECK_EQ(pv_mmu_update(at, page_pte), 0);
}

static int64_t ext(unsigned cmd, uint64_t mfn, uint64_t src)
{
    struct mmuext_op op = { .cmd = cmd, .arg1.mfn = mfn };

    if (cmd == MMUEXT_COPY_PAGE)
        op.arg2.src_mfn = src;
    return PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF);
}

/* A table of the kernel's own: pinned, linked in, used, taken out, unpinned. */
static void check_pin(void)
{
    uint64_t *l1 = pv_page(), *data = pv_page();
    uint64_t va = (uint64_t)page & ~(uint64_t)0x3fffffff, mfn = pv_mfn(l1), old;
    uint64_t nowhere = ~(uint64_t)0 >> 20;

    /* an address whose L3 entry the kernel has, and whose L2 entry is free */
    while (!pv_pte(va, 2) || (*pv_pte(va, 2) & PTE_P))
        va += 1 << 21;
    old = *pv_pte(va, 2);
    l1[3] = pv_mfn(data) << PAGE_SHIFT | PTE_P | PTE_U | PTE_NX;
    data[0] = 0x5ca1ab1e;
    CHECK_EQ(pv_protect(l1, PTE_P | PTE_U | PTE_NX), 0);
    CHECK_EQ(ext(MMUEXT_UNPIN_TABLE, mfn, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_PIN_L1_TABLE, nowhere, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_PIN_L1_TABLE, mfn, 0), 0);
    CHECK_EQ(ext(MMUEXT_PIN_L1_TABLE, mfn, 0), -XEN_EINVAL);
    CHECK_EQ(pv_mmu_update(pv_pte_maddr(va, 2), mfn << PAGE_SHIFT | PTE_P | PTE_W | PTE_U), 0);
    CHECK_EQ(*(volatile uint64_t *)(va + 3 * PAGE_SIZE), 0x5ca1ab1e);
    CHECK_EQ(pv_catch(write_at, va + 3 * PAGE_SIZE), 14);
    CHECK_EQ(pv_catch(read_at, va + 4 * PAGE_SIZE), 14);
    CHECK_EQ(PV_CALL(update_va_mapping, va + 4 * PAGE_SIZE, l1[3], UVMF_INVLPG), 0);
    CHECK_EQ(*(volatile uint64_t *)(va + 4 * PAGE_SIZE), 0x5ca1ab1e);
    CHECK_EQ(pv_mmu_update(pv_pte_maddr(va, 2), old), 0);
    CHECK_EQ(ext(MMUEXT_UNPIN_TABLE, mfn, 0), 0);
    CHECK_EQ(ext(MMUEXT_UNPIN_TABLE, nowhere, 0), -XEN_EINVAL);
    CHECK_EQ(flush_local(), 0);
    CHECK_EQ(pv_catch(read_at, va + 3 * PAGE_SIZE), 14);
}

static void check_pages(void)
{
    uint64_t *from = pv_page(), *to = pv_page();
    uint64_t nowhere = ~(uint64_t)0 >> 20, table;

    from[511] = 77;
    to[511] = 1;
    CHECK_EQ(ext(MMUEXT_COPY_PAGE, pv_mfn(to), pv_mfn(from)), 0);
    CHECK_EQ(((volatile uint64_t *)to)[511], 77);
    CHECK_EQ(ext(MMUEXT_CLEAR_PAGE, pv_mfn(to), 0), 0);
    CHECK_EQ(((volatile uint64_t *)to)[511], 0);
    CHECK_EQ(ext(MMUEXT_CLEAR_PAGE, nowhere, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_COPY_PAGE, nowhere, pv_mfn(from)), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_COPY_PAGE, pv_mfn(to), nowhere), -XEN_EINVAL);
    /* a table is not written to, but may be read */
    table = pv_pte_maddr((uint64_t)to, 4) >> PAGE_SHIFT;
    CHECK_EQ(ext(MMUEXT_CLEAR_PAGE, table, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_COPY_PAGE, table, pv_mfn(from)), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_COPY_PAGE, pv_mfn(to), table), 0);
    CHECK_EQ(ext(99, 0, 0), -XEN_ENOSYS);
    CHECK_EQ(ext(MMUEXT_NEW_BASEPTR, nowhere, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_NEW_USER_BASEPTR, nowhere, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_FLUSH_CACHE, 0, 0), -XEN_EACCES);
    CHECK_EQ(ext(MMUEXT_FLUSH_CACHE_GLOBAL, 0, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_MARK_SUPER, 0, 0), -XEN_EOPNOTSUPP);
    CHECK_EQ(ext(MMUEXT_UNMARK_SUPER, 0, 0), -XEN_EOPNOTSUPP);
}

/* A write that the tables above the last forbid is a fault like any other. */
static void check_readonly_above(void)
{
    uint64_t *l1 = pv_page();
    uint64_t va = (uint64_t)page & ~(uint64_t)0x3fffffff, old;

    while (!pv_pte(va, 2) || (*pv_pte(va, 2) & PTE_P))
        va += 1 << 21;
    old = *pv_pte(va, 2);
    l1[0] = page_pte;
    CHECK_EQ(pv_protect(l1, PTE_P | PTE_U | PTE_NX), 0);
    CHECK_EQ(pv_mmu_update(pv_pte_maddr(va, 2), pv_mfn(l1) << PAGE_SHIFT | PTE_P | PTE_U), 0);
    CHECK_EQ(pv_catch(read_at, va), -1);
    CHECK_EQ(pv_catch(write_at, va), 14);
    CHECK_EQ(pv_caught.error & 7, 3);
    CHECK_EQ(pv_mmu_update(pv_pte_maddr(va, 2), old), 0);
    flush_local();
}

/* A page is a table or writable, not both. */
static void check_types(void)
{
    uint64_t *l1 = pv_page();
    uint64_t mfn = pv_mfn(l1), at = pv_pte_maddr((uint64_t)l1, 1);
    uint64_t writable = mfn << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_NX;

    CHECK_EQ(ext(MMUEXT_PIN_L1_TABLE, mfn, 0), -XEN_EINVAL);
    CHECK_EQ(pv_protect(l1, PTE_P | PTE_U | PTE_NX), 0);
    CHECK_EQ(ext(MMUEXT_PIN_L1_TABLE, mfn, 0), 0);
    CHECK_EQ(pv_protect(l1, PTE_P | PTE_W | PTE_U | PTE_NX), -XEN_EINVAL);
    CHECK_EQ(pv_mmu_update(at, writable), -XEN_EINVAL);
    CHECK_EQ(*pv_pte((uint64_t)l1, 1) & PTE_W, 0);
    CHECK_EQ(ext(MMUEXT_UNPIN_TABLE, mfn, 0), 0);
    CHECK_EQ(pv_mmu_update(at, writable), 0);
    CHECK_EQ(flush_local(), 0);
    write_at((uint64_t)l1);
}

/* A root may map the tables by leading to itself, but to read them only. */
static void check_linear(void)
{
    const uint64_t *root = (const uint64_t *)pv_start_info->pt_base;
    uint64_t slot = 100, mfn = pv_mfn(root), at = (mfn << PAGE_SHIFT) + slot * 8;
    uint64_t map = slot << 39 | slot << 30 | slot << 21 | slot << 12;
    uint64_t link = mfn << PAGE_SHIFT | PTE_P | PTE_U | PTE_A | PTE_D;

    CHECK_EQ(root[slot], 0);
    CHECK_EQ(pv_mmu_update(at, link | PTE_W), -XEN_EINVAL);
    CHECK_EQ(pv_mmu_update(at, link), 0);
    CHECK_EQ(*(volatile uint64_t *)(map + 511 * 8) & PTE_FRAME_MASK, root[511] & PTE_FRAME_MASK);
    CHECK_EQ(pv_catch(write_at, map + 101 * 8), 14);
    CHECK_EQ(pv_mmu_update(at, link | PTE_W), -XEN_EINVAL);
    /* it is a root as before */
    CHECK_EQ(pv_mmu_update((mfn << PAGE_SHIFT) + 256 * 8, 0), -XEN_EINVAL);
    CHECK_EQ(ext(MMUEXT_NEW_BASEPTR, mfn, 0), 0);
    CHECK_EQ(*(volatile uint64_t *)(map + slot * 8) & PTE_FRAME_MASK, mfn << PAGE_SHIFT);
    CHECK_EQ(pv_mmu_update(at, 0), 0);
    CHECK_EQ(flush_local(), 0);
    CHECK_EQ(pv_catch(read_at, map), 14);
}

void test_main(void)
{
    page = pv_page();
    page_pte = pv_mfn((void *)page) << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_A | PTE_D | PTE_NX;
    pte_of_page = (uint64_t *)pv_pte((uint64_t)page, 1);
    check_va_mapping();
    check_mmu_update();
    check_batches();
    check_pin();
    check_pages();
    check_readonly_above();
    check_types();
    check_linear();
}
