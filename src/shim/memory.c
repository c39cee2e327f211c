/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_memory_op (public/memory.h) for a PV guest.
 *
 * Frames the guest gives back are reported to the process, which returns the memory
 * to the host, and are free only when it has: a frame handed out earlier would
 * lose what its new owner wrote.  A frame handed out again reads as zero.  The
 * guest's P2M is its own business, the M2P is kept here. */
#include "shim/cpu.h"
#include "shim/mmu.h"
#include "shim/shim.h"

#include <xen/memory.h>

/* the bits of cmd above these are Xen's own, for continuation */
#define MEMORY_OP_CMD_MASK 0x3f
#define M2P_INVALID (~(uint64_t)0)
#define E820_RAM    1
#define EXTENT_ORDER_MAX 18     /* 1 GiB */

struct e820_entry {
    uint64_t addr, size;
    uint32_t type;
} __attribute__((packed));

static bool self(domid_t domid)
{
    return domid == DOMID_SELF || domid == shim_domain.boot->domid;
}

static int64_t memory_map(uint64_t arg_va)
{
    struct e820_entry entry = {
        .size = shim_domain.boot->max_pages << PAGE_SHIFT, .type = E820_RAM,
    };
    struct xen_memory_map op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.nr_entries >= 1 && guest_write((uint64_t)op.buffer.p, &entry, sizeof(entry)))
        return -XEN_EFAULT;
    op.nr_entries = min_of(op.nr_entries, 1u);
    return guest_write(arg_va, &op, sizeof(op));
}

static uint64_t mfn_end(void)
{
    return shim_domain.boot->first_mfn + shim_domain.boot->max_pages;
}

static int64_t machphys_mapping(uint64_t arg_va)
{
    struct xen_machphys_mapping op = {
        .v_start = shim_domain.boot->m2p_va,
        .v_end = shim_domain.boot->m2p_va + mfn_end() * sizeof(uint64_t),
        .max_mfn = mfn_end() - 1,
    };

    return guest_write(arg_va, &op, sizeof(op));
}

static uint64_t *m2p(uint64_t frame)
{
    return &shim_domain.m2p[frame];
}

/* memory_lock held: the first frame of a free run of n, marked taken */
static bool frames_take(uint64_t n, uint64_t *first)
{
    uint64_t max = shim_domain.boot->max_pages, run = 0, at = shim_domain.memory_cursor;

    for (uint64_t seen = 0; seen < max + n; seen++) {
        if (at >= max)
            at = run = 0;
        run = shim_domain.frame_info[at] & FRAME_FREE ? run + 1 : 0;
        at++;
        if (run == n) {
            *first = at - n;
            for (uint64_t i = *first; i < at; i++)
                shim_domain.frame_info[i] = 0;
            shim_domain.memory_cursor = at;
            shim_domain.status->nr_pages += n;
            return true;
        }
    }
    return false;
}

/* populate_physmap: each extent is a guest frame number, and receives a machine
 * frame; increase_reservation: only receives one. */
static int64_t populate(const struct xen_memory_reservation *op, bool physmap)
{
    uint64_t list_va = (uint64_t)op->extent_start.p, n = (uint64_t)1 << op->extent_order;

    for (uint64_t i = 0; i < op->nr_extents; i++) {
        uint64_t gpfn = 0, first, mfn;
        bool taken;

        if (physmap && guest_read(&gpfn, list_va + i * 8, sizeof(gpfn)))
            return (int64_t)i;
        spin_lock(&shim_domain.memory_lock);
        taken = frames_take(n, &first);
        spin_unlock(&shim_domain.memory_lock);
        if (!taken)
            return (int64_t)i;
        mfn = shim_domain.boot->first_mfn + first;
        for (uint64_t k = 0; k < n; k++)
            store_relaxed(m2p(first + k), physmap ? gpfn + k : M2P_INVALID);
        if (list_va && guest_write(list_va + i * 8, &mfn, sizeof(mfn)))
            return (int64_t)i;
    }
    return (int64_t)op->nr_extents;
}

/* Frame numbers to give back to the host, told a batch at a time. */
struct release {
    uint64_t *frames;
    unsigned nr;
};

static void release_flush(struct release *r)
{
    if (r->nr)
        io_out32(SHIM_IO_RELEASE, r->nr);
    spin_lock(&shim_domain.memory_lock);
    for (unsigned i = 0; i < r->nr; i++)
        shim_domain.frame_info[r->frames[i]] = FRAME_FREE;
    spin_unlock(&shim_domain.memory_lock);
    r->nr = 0;
}

static int64_t decrease(struct shim_vcpu *v, const struct xen_memory_reservation *op)
{
    struct release r = { .frames = (uint64_t *)v->status->text };
    uint64_t n = (uint64_t)1 << op->extent_order, i;

    for (i = 0; i < op->nr_extents; i++) {
        uint64_t mfn, first, k;
        bool ok = true;

        if (guest_read(&mfn, (uint64_t)op->extent_start.p + i * 8, sizeof(mfn)) ||
            !mmu_frame_ok(mfn) || !mmu_frame_ok(mfn + n - 1))
            break;
        first = mfn - shim_domain.boot->first_mfn;
        spin_lock(&shim_domain.memory_lock);
        /* a root that a vCPU runs on would take the shim along */
        for (k = 0; k < n; k++)
            ok = ok && !(shim_domain.frame_info[first + k] & (FRAME_FREE | FRAME_LEAVING)) &&
                 !mmu_root_in_use(mfn + k);
        for (k = 0; ok && k < n; k++) {
            shim_domain.frame_info[first + k] = FRAME_LEAVING;
            store_relaxed(m2p(first + k), M2P_INVALID);
        }
        if (ok)
            shim_domain.status->nr_pages -= n;
        spin_unlock(&shim_domain.memory_lock);
        if (!ok)
            break;
        for (k = 0; k < n; k++) {
            r.frames[r.nr++] = first + k;
            if (r.nr == SHIM_TEXT_BYTES / sizeof(r.frames[0]))
                release_flush(&r);
        }
    }
    release_flush(&r);
    return (int64_t)i;
}

static int64_t reservation(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    struct xen_memory_reservation op;

    /* the result is the number of extents done, whatever kept the call from more */
    if (guest_read(&op, arg_va, sizeof(op)) || !self(op.domid))
        return 0;
    if (op.extent_order > EXTENT_ORDER_MAX || op.nr_extents > (~(uint64_t)0 >> 8))
        return 0;
    switch (cmd) {
    case XENMEM_populate_physmap:
        return populate(&op, true);
    case XENMEM_increase_reservation:
        return populate(&op, false);
    default:
        return decrease(v, &op);
    }
}

static int64_t reservation_size(uint64_t cmd, uint64_t arg_va)
{
    domid_t domid;

    if (guest_read(&domid, arg_va, sizeof(domid)))
        return -XEN_EFAULT;
    if (!self(domid))
        return -XEN_ESRCH;
    return (int64_t)(cmd == XENMEM_current_reservation ? shim_domain.status->nr_pages :
                     shim_domain.boot->max_pages);
}

/* XENMEM_get_vnumainfo: Xen's answer for a domain that has no virtual nodes. */
static int64_t vnumainfo(uint64_t cmd, uint64_t arg_va)
{
    struct xen_vnuma_topology_info op;

    if (cmd & ~MEMORY_OP_CMD_MASK)      /* it has no extents to go on with */
        return -XEN_EINVAL;
    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.pad)
        return -XEN_EINVAL;
    return self(op.domid) ? -XEN_EOPNOTSUPP : -XEN_ESRCH;
}

int64_t memory_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    switch (cmd & MEMORY_OP_CMD_MASK) {
    case XENMEM_memory_map:
        return memory_map(arg_va);
    case XENMEM_machphys_mapping:
        return machphys_mapping(arg_va);
    case XENMEM_maximum_ram_page:
        return (int64_t)mfn_end() - 1;
    case XENMEM_current_reservation:
    case XENMEM_maximum_reservation:
        return reservation_size(cmd & MEMORY_OP_CMD_MASK, arg_va);
    case XENMEM_populate_physmap:
    case XENMEM_increase_reservation:
    case XENMEM_decrease_reservation:
        return reservation(v, cmd & MEMORY_OP_CMD_MASK, arg_va);
    case XENMEM_get_vnumainfo:
        return vnumainfo(cmd, arg_va);
    default:
        return -XEN_ENOSYS;
    }
}
