/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_mmuext_op (public/xen.h): pinning, roots, flushes, the LDT. */
#include "shim/cpu.h"
#include "shim/mmu.h"
#include "shim/shim.h"

/* Some clear pages, walk tables or wait for other vCPUs. */
#define MMUEXT_COST 8

static int64_t pin(const struct shim_vcpu *v, uint64_t mfn, unsigned level)
{
    uint8_t *info;

    if (!mmu_frame_held(mfn))
        return -XEN_EINVAL;
    info = &shim_domain.frame_info[mfn - shim_domain.boot->first_mfn];
    if ((*info & FRAME_PINNED) || mmu_frame_mapped_writable(v, mfn))
        return -XEN_EINVAL;
    if (level == 4)
        mmu_root_prepare(mfn, false);
    else
        mmu_table_mark(mfn, level);
    fetch_or(info, (uint8_t)FRAME_PINNED);
    if (shim_flag(SHIM_FLAG_USER_BIT)) {
        uint64_t *table = shim_dm(mfn << PAGE_SHIFT);

        for (unsigned i = 0; i < PTE_ENTRIES; i++)
            if (!(level == 4 && hole_slot(i)) && (table[i] & (PTE_PRESENT | PTE_USER)) ==
                PTE_PRESENT)
                table[i] |= PTE_USER;
    }
    return 0;
}

static int64_t unpin(uint64_t mfn)
{
    if (!mmu_frame_ok(mfn))
        return -XEN_EINVAL;
    if (!(shim_domain.frame_info[mfn - shim_domain.boot->first_mfn] & FRAME_PINNED))
        return -XEN_EINVAL;
    mmu_table_unmark(mfn);
    return 0;
}

static int64_t new_base(struct shim_vcpu *v, uint64_t mfn)
{
    if (!mmu_frame_held(mfn))
        return -XEN_EINVAL;
    mmu_root_prepare(mfn, false);
    v->kernel_cr3 = mfn << PAGE_SHIFT;
    write_cr3(v->kernel_cr3);
    return 0;
}

static int64_t new_user_base(struct shim_vcpu *v, uint64_t mfn)
{
    if (mfn && !mmu_frame_held(mfn))
        return -XEN_EINVAL;
    if (mfn && shim_flag(SHIM_FLAG_TWO_ROOTS))
        mmu_root_prepare(mfn, mfn != v->kernel_cr3 >> PAGE_SHIFT);
    v->user_cr3 = mfn << PAGE_SHIFT;
    return 0;
}

static int64_t flush_multi(struct shim_vcpu *v, const struct mmuext_op *op, bool all, bool page)
{
    uint64_t mask = ~(uint64_t)0;

    if (!all && guest_read(&mask, (uint64_t)op->arg2.vcpumask.p, sizeof(mask)))
        return -XEN_EINVAL;
    if (mask >> v->id & 1) {
        if (page)
            tlb_flush_page_local(op->arg1.linear_addr);
        else
            tlb_flush_local();
    }
    tlb_flush_vcpus(v, mask);
    return 0;
}

static int64_t clear_or_copy(const struct mmuext_op *op)
{
    void *to, *from;

    if (!mmu_frame_writable(op->arg1.mfn))
        return -XEN_EINVAL;
    to = shim_dm(op->arg1.mfn << PAGE_SHIFT);
    if (op->cmd == MMUEXT_CLEAR_PAGE) {
        __builtin_memset(to, 0, PAGE_SIZE);
        return 0;
    }
    if (!mmu_frame_held(op->arg2.src_mfn))
        return -XEN_EINVAL;
    from = shim_dm(op->arg2.src_mfn << PAGE_SHIFT);
    __builtin_memcpy(to, from, PAGE_SIZE);
    return 0;
}

static int64_t one(struct shim_vcpu *v, const struct mmuext_op *op)
{
    switch (op->cmd) {
    case MMUEXT_PIN_L1_TABLE:
    case MMUEXT_PIN_L2_TABLE:
    case MMUEXT_PIN_L3_TABLE:
    case MMUEXT_PIN_L4_TABLE:
        return pin(v, op->arg1.mfn, op->cmd - MMUEXT_PIN_L1_TABLE + 1);
    case MMUEXT_UNPIN_TABLE:
        return unpin(op->arg1.mfn);
    case MMUEXT_NEW_BASEPTR:
        return new_base(v, op->arg1.mfn);
    case MMUEXT_NEW_USER_BASEPTR:
        return new_user_base(v, op->arg1.mfn);
    case MMUEXT_TLB_FLUSH_LOCAL:
        tlb_flush_local();
        return 0;
    case MMUEXT_INVLPG_LOCAL:
        tlb_flush_page_local(op->arg1.linear_addr);
        return 0;
    case MMUEXT_TLB_FLUSH_MULTI:
    case MMUEXT_INVLPG_MULTI:
        return flush_multi(v, op, false, op->cmd == MMUEXT_INVLPG_MULTI);
    case MMUEXT_TLB_FLUSH_ALL:
    case MMUEXT_INVLPG_ALL:
        return flush_multi(v, op, true, op->cmd == MMUEXT_INVLPG_ALL);
    case MMUEXT_FLUSH_CACHE:            /* as for any guest without a real device */
        return -XEN_EACCES;
    case MMUEXT_FLUSH_CACHE_GLOBAL:
        return -XEN_EINVAL;
    case MMUEXT_SET_LDT:
        return descriptor_set_ldt(v, op->arg1.linear_addr, op->arg2.nr_ents);
    case MMUEXT_CLEAR_PAGE:
    case MMUEXT_COPY_PAGE:
        return clear_or_copy(op);
    case MMUEXT_MARK_SUPER:
    case MMUEXT_UNMARK_SUPER:
        return -XEN_EOPNOTSUPP;
    default:
        return -XEN_ENOSYS;
    }
}

int64_t mmuext_op(struct shim_vcpu *v, uint64_t ops_va, uint64_t count, uint64_t done_va,
                  uint64_t domid)
{
    uint64_t n = count & ~MMU_UPDATE_PREEMPTED, i;
    struct shim_batch batch = { 0 };
    uint32_t done = 0;
    int64_t rc = 0;

    if (mmu_foreign((domid_t)domid))
        return mmu_foreign((domid_t)domid);
    if ((count & MMU_UPDATE_PREEMPTED) && done_va && guest_read(&done, done_va, sizeof(done)))
        return -XEN_EFAULT;
    for (i = 0; i < n && !(i && batch_over(&batch, MMUEXT_COST)); i++) {
        struct mmuext_op op;

        rc = guest_read(&op, ops_va + i * sizeof(op), sizeof(op));
        if (!rc)
            rc = one(v, &op);
        if (rc)
            break;
        done++;
    }
    if (done_va && guest_write(done_va, &done, sizeof(done)))
        return -XEN_EFAULT;
    if (batch.over)
        return hypercall_again(v, __HYPERVISOR_mmuext_op, ops_va + i * sizeof(struct mmuext_op),
                               (n - i) | MMU_UPDATE_PREEMPTED, done_va, domid);
    return rc;
}
