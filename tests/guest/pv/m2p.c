/* SPDX-License-Identifier: MIT */
/* The machine-to-physical table: where Xen says it is, right for every frame, read
 * only, and not for user space that has a root of its own. */
#include "pv.h"

#include <xen/memory.h>

extern uint8_t user_read[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_read: mov (%rdi), %rax; ud2\n"
        ".popsection");

static void write_at(uint64_t va)
{
    *(volatile uint64_t *)va = 0;
}

/* A second root: a copy of the first with only the user's half. */
static uint64_t user_root(void)
{
    uint64_t *l4 = pv_page(), mfn = pv_mfn(l4);
    const uint64_t *kernel_l4 = (const uint64_t *)pv_start_info->pt_base;
    struct mmuext_op op[2] = { { .cmd = MMUEXT_PIN_L4_TABLE, .arg1.mfn = mfn },
                               { .cmd = MMUEXT_NEW_USER_BASEPTR, .arg1.mfn = mfn } };

    for (unsigned i = 0; i < 256; i++)
        l4[i] = kernel_l4[i];
    CHECK_EQ(pv_protect(l4, PTE_P | PTE_U | PTE_NX), 0);
    CHECK_EQ(PV_CALL(mmuext_op, op, 2, 0, DOMID_SELF), 0);
    return mfn;
}

void test_main(void)
{
    const uint64_t *p2m = (const uint64_t *)pv_start_info->mfn_list, *m2p;
    struct xen_machphys_mapping map;
    void *page = pv_page();

    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_mapping, &map), 0);
    m2p = (const uint64_t *)map.v_start;
    for (uint64_t pfn = 0; pfn < pv_start_info->nr_pages; pfn++)
        if (m2p[p2m[pfn]] != pfn || p2m[pfn] > map.max_mfn) {
            pv_fail(__FILE__, __LINE__, "frame %lx: m2p says %lx", pfn, m2p[p2m[pfn]]);
            break;
        }
    CHECK_EQ(pv_catch(write_at, (uint64_t)&m2p[p2m[1]]), 14);
    CHECK_EQ(pv_mmu_update(pv_mfn(page) << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 0x4711), 0);
    CHECK_EQ(*(volatile const uint64_t *)&m2p[pv_mfn(page)], 0x4711);

    pv_user_init();
    user_root();
    for (uint64_t mfn = 0; mfn < 2; mfn++) {
        uint64_t va = (uint64_t)&m2p[mfn ? p2m[0] : 0];

        CHECK_EQ(pv_user_run(user_read, va), 14);
        CHECK_EQ(pv_shared->vcpu_info[0].arch.cr2, va);
    }
    CHECK_EQ(m2p[p2m[2]], 2);       /* and still for the kernel, after all that */
}
