/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_grant_table_op (public/grant_table.h): the guest's side of the Xen
 * core's grant table, and the page tables that grants are mapped in. */
#include "shim/mmu.h"
#include "shim/shim.h"

#define PTE_AVAIL_SHIFT 9               /* three bits for the guest's own use */
#define GRANT_COST 4                    /* some copy a page */
#define GNTTABOP_CMD_MASK ((uint64_t)0xfff)     /* of cmd: above it, Xen's own continuation */
#define GNTMAP_AVAIL(flags) ((flags) >> _GNTMAP_guest_avail0 & 7)

static bool frame_ok(void *ctx, uint64_t mfn)
{
    return mmu_frame_held(mfn);
}

static bool frame_writable(void *ctx, uint64_t mfn)
{
    return mmu_frame_writable(mfn);
}

static void copy(void *ctx, uint64_t to, uint64_t from, uint64_t bytes)
{
    __builtin_memcpy(shim_dm(to), shim_dm(from), bytes);
}

static bool frames_mapped(void *ctx, uint64_t first_mfn, uint64_t nr)
{
    return mmu_frames_mapped(shim_vcpu_current(), first_mfn, nr);
}

static uint64_t *entry_for(uint64_t host_addr, uint32_t flags)
{
    return mmu_entry_at(shim_vcpu_current(), host_addr, flags & GNTMAP_contains_pte);
}

static int16_t map(void *ctx, uint64_t host_addr, uint32_t flags, uint64_t mfn)
{
    uint64_t *e = entry_for(host_addr, flags);
    uint64_t pte = mfn << PAGE_SHIFT | PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY |
                   (uint64_t)GNTMAP_AVAIL(flags) << PTE_AVAIL_SHIFT;

    if (!(flags & GNTMAP_readonly))
        pte |= PTE_WRITE;
    if (flags & GNTMAP_application_map)
        pte |= PTE_USER;
    return e && mmu_entry_set(e, pte) ? GNTST_okay : GNTST_general_error;
}

static int16_t unmap(void *ctx, uint64_t host_addr, uint64_t new_addr, uint32_t flags,
                     uint64_t mfn)
{
    uint64_t *e = entry_for(host_addr, flags), *from = NULL, pte;
    uint64_t as_made = PTE_PRESENT | (flags & GNTMAP_readonly ? 0 : PTE_WRITE);

    if (!e)
        return GNTST_general_error;
    pte = load_relaxed(e);
    if ((pte & PTE_FRAME) >> PAGE_SHIFT != mfn || (pte & (PTE_PRESENT | PTE_WRITE)) != as_made)
        return GNTST_general_error;
    if (new_addr) {
        from = flags & GNTMAP_contains_pte ? NULL : entry_for(new_addr, 0);
        if (!from)
            return GNTST_general_error;
        pte = load_relaxed(from);
        store_relaxed(from, 0);
    }
    store_relaxed(e, from ? pte : 0);
    return GNTST_okay;
}

static bool peer_there(void *ctx, domid_t domid)
{
    return peer_exists(domid);
}

static int16_t peer_map(void *ctx, domid_t domid, grant_ref_t ref, bool write, uint64_t *mfn)
{
    struct shim_peer_call c = { .op = SHIM_PEER_GRANT_MAP, .domid = domid, .ref = ref,
                                .write = write };

    peer_call(shim_vcpu_current(), &c);
    *mfn = c.mfn;
    return (int16_t)c.result;
}

static void peer_unmap(void *ctx, uint64_t mfn)
{
    struct shim_peer_call c = { .op = SHIM_PEER_GRANT_UNMAP, .mfn = mfn };

    peer_call(shim_vcpu_current(), &c);
}

static int16_t peer_hold(void *ctx, domid_t domid, grant_ref_t ref, bool write,
                         struct gnttab_grant *grant, uint32_t *hold)
{
    struct shim_peer_call c = { .op = SHIM_PEER_GRANT_HOLD, .domid = domid, .ref = ref,
                                .write = write };

    peer_call(shim_vcpu_current(), &c);
    *grant = (struct gnttab_grant){
        .offset = (uint16_t)c.offset, .length = (uint16_t)c.length, .transitive = c.transitive,
        .trans_domid = (domid_t)c.trans_domid, .trans_ref = c.trans_ref,
    };
    *hold = c.hold;
    return (int16_t)c.result;
}

static void peer_drop(void *ctx, uint32_t hold)
{
    struct shim_peer_call c = { .op = SHIM_PEER_GRANT_DROP, .hold = hold };

    peer_call(shim_vcpu_current(), &c);
}

static int16_t peer_copy(void *ctx, const struct gnttab_peer_end *from,
                         const struct gnttab_peer_end *to, uint32_t bytes)
{
    struct shim_peer_call c = { .op = SHIM_PEER_COPY, .from = *from, .to = *to, .bytes = bytes };

    peer_call(shim_vcpu_current(), &c);
    return (int16_t)c.result;
}

void grant_init(void)
{
    static const struct gnttab_peers peers = {
        .exists = peer_there, .map = peer_map, .unmap = peer_unmap, .hold = peer_hold,
        .drop = peer_drop, .copy = peer_copy,
    };
    static const struct gnttab_mapper mapper = {
        .frame_ok = frame_ok, .frame_writable = frame_writable, .copy = copy,
        .frames_mapped = frames_mapped, .map = map, .unmap = unmap,
    };
    const uint64_t entries = SHIM_GPA + SHIM_OFF_GRANTS, use = SHIM_GPA + SHIM_OFF_GRANT_USE;
    const struct shim_boot *b = shim_domain.boot;
    const struct gnttab_params p = {
        .table = { .frames = shim_dm(entries), .status = shim_dm(use),
                   .state = &shim_domain.status->grants, .nr_frames_max = b->grant_frames_max },
        .first_mfn = entries >> PAGE_SHIFT, .status_mfn = use >> PAGE_SHIFT,
        .version_max = b->grant_version_max, .self = (domid_t)b->domid,
    };

    gnttab_init(&shim_domain.gnttab, &p);
    gnttab_mapper_set(&shim_domain.gnttab, &mapper, NULL);
    gnttab_peers_set(&shim_domain.gnttab, &peers, NULL);
    gnttab_seed(&shim_domain.gnttab, GNTTAB_RESERVED_CONSOLE, 0, b->console_mfn);
    gnttab_seed(&shim_domain.gnttab, GNTTAB_RESERVED_XENSTORE, 0, b->store_mfn);
}

/* setup_table's second result, the list of frames. */
static void frame_list_write(struct gnttab_setup_table *op)
{
    for (uint32_t i = 0; op->status == GNTST_okay && i < op->nr_frames; i++) {
        uint64_t mfn = gnttab_frame_mfn(&shim_domain.gnttab, i);

        if (guest_write((uint64_t)op->frame_list.p + i * sizeof(mfn), &mfn, sizeof(mfn)))
            op->status = GNTST_bad_virt_addr;
    }
}

/* And get_status_frames'. */
static void status_list_write(struct gnttab_get_status_frames *op)
{
    for (uint32_t i = 0; op->status == GNTST_okay && i < op->nr_frames; i++) {
        uint64_t mfn = gnttab_status_mfn(&shim_domain.gnttab, i);

        if (guest_write((uint64_t)op->frame_list.p + i * sizeof(mfn), &mfn, sizeof(mfn)))
            op->status = GNTST_bad_virt_addr;
    }
}

/* Entries were overwritten: no TLB may go on with what they said. */
static void flush_after(struct shim_vcpu *v, uint64_t cmd)
{
    if (cmd != GNTTABOP_map_grant_ref && cmd != GNTTABOP_unmap_grant_ref &&
        cmd != GNTTABOP_unmap_and_replace)
        return;
    tlb_flush_local();
    tlb_flush_vcpus(v, ~(uint64_t)0);
}

/* One element, copied in and back. */
static int64_t one(uint64_t cmd, const struct gnttab_op_shape *shape, uint64_t va)
{
    uint64_t arg[GNTTAB_OP_ARG_BYTES_MAX / sizeof(uint64_t)];
    int64_t rc;

    if (guest_read(arg, va, shape->arg_bytes))
        return -XEN_EFAULT;
    rc = gnttab_op_call(&shim_domain.gnttab, (unsigned)cmd, arg);
    if (cmd == GNTTABOP_setup_table && !rc)
        frame_list_write((struct gnttab_setup_table *)arg);
    if (cmd == GNTTABOP_get_status_frames && !rc)
        status_list_write((struct gnttab_get_status_frames *)arg);
    if (shape->copy_back && guest_write(va, arg, shape->arg_bytes))
        return -XEN_EFAULT;
    return rc;
}

int64_t grant_table_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va, uint64_t count)
{
    const struct gnttab_op_shape *shape;
    struct shim_batch batch = { 0 };
    int64_t rc = 0;
    uint64_t i;

    count = (uint32_t)count;
    if (count > INT32_MAX)
        return -XEN_EINVAL;
    /* where Xen goes on in a cache_flush, which here never stops within an element */
    if ((cmd & ~GNTTABOP_CMD_MASK) && (cmd & GNTTABOP_CMD_MASK) != GNTTABOP_cache_flush)
        return -XEN_EINVAL;
    cmd &= GNTTABOP_CMD_MASK;
    shape = gnttab_op_shape((unsigned)cmd);
    if (!shape)
        return -XEN_ENOSYS;
    if (shape->count == GNTTAB_COUNT_UNUSED)
        count = 1;
    if (shape->count == GNTTAB_COUNT_ONE && count != 1)
        return -XEN_EINVAL;
    for (i = 0; i < count && !rc && !(i && batch_over(&batch, GRANT_COST)); i++)
        rc = one(cmd, shape, arg_va + i * shape->arg_bytes);
    flush_after(v, cmd);
    if (batch.over)
        return hypercall_again(v, __HYPERVISOR_grant_table_op, cmd,
                               arg_va + i * shape->arg_bytes, count - i, 0);
    return rc;
}
