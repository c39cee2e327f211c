/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_memory_op (public/memory.h) for a PV guest.
 *
 * Frames the guest gives back are reported to the process, which returns the memory
 * to the host, and are free only when it has: a frame handed out earlier would
 * lose what its new owner wrote.  A frame handed out again reads as zero.  The
 * guest's P2M is its own business, the M2P is kept here. */
#include "shim/memory.h"

#include "shim/cpu.h"
#include "shim/mmu.h"
#include "shim/shim.h"

/* the bits of cmd above these say at which extent to go on: Xen's own continuation */
#define MEMORY_OP_CMD_MASK     ((uint64_t)0x3f)
#define MEMORY_OP_EXTENT_SHIFT 6
#define E820_RAM    1
#define M2P_EXTENT_BYTES (2 * MIB)      /* of XENMEM_machphys_mfn_list */

struct e820_entry {
    uint64_t addr, size;
    uint32_t type;
} __attribute__((packed));

bool memory_self(domid_t domid)
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

/* XENMEM_machphys_mfn_list: the M2P table by frames of 2 MiB each; where RAM does not
 * begin yet it is a gap. */
static int64_t machphys_mfn_list(uint64_t arg_va)
{
    const struct shim_boot *b = shim_domain.boot;
    uint64_t gap_bytes = b->first_mfn * sizeof(uint64_t);
    struct xen_machphys_mfn_list op;
    uint32_t i = 0;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    for (uint64_t at = 0; i < op.max_extents && at < mfn_end() * sizeof(uint64_t);
         at += M2P_EXTENT_BYTES) {
        uint64_t mfn = at < gap_bytes ? 0 : (b->m2p_gpa + at - gap_bytes) >> PAGE_SHIFT;

        if (guest_write((uint64_t)op.extent_start.p + i++ * sizeof(mfn), &mfn, sizeof(mfn)))
            return -XEN_EFAULT;
    }
    op.nr_extents = i;
    return guest_write(arg_va, &op, sizeof(op));
}

uint64_t *memory_m2p(uint64_t frame)
{
    return &shim_domain.m2p[frame];
}

bool memory_within_bits(uint64_t first, unsigned order, unsigned address_bits)
{
    uint64_t last_mfn = shim_domain.boot->first_mfn + first + ((uint64_t)1 << order) - 1;

    return !address_bits || address_bits >= 64 ||
           (last_mfn << PAGE_SHIFT) >> address_bits == 0;
}

static bool extent_free(uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++)
        if (!(shim_domain.frame_info[i] & FRAME_FREE))
            return false;
    return true;
}

/* memory_lock is held. */
static bool extent_find(unsigned order, unsigned address_bits, uint64_t *first)
{
    uint64_t n = (uint64_t)1 << order, mfn = shim_domain.boot->first_mfn;
    uint64_t begin = align_up(mfn, n) - mfn, max = shim_domain.boot->max_pages;
    uint64_t nr, at;

    if (begin + n > max)
        return false;
    nr = (max - begin) / n;
    at = max_of(shim_domain.memory_cursor, begin) - begin;
    for (uint64_t k = at / n, seen = 0; seen < nr; k++, seen++) {
        *first = begin + k % nr * n;
        if (memory_within_bits(*first, order, address_bits) && extent_free(*first, n))
            return true;
    }
    return false;
}

bool memory_take(unsigned order, unsigned address_bits, uint64_t *first)
{
    uint64_t n = (uint64_t)1 << order;
    bool found;

    spin_lock(&shim_domain.memory_lock);
    found = extent_find(order, address_bits, first);
    if (found) {
        __builtin_memset(&shim_domain.frame_info[*first], 0, n);
        shim_domain.memory_cursor = *first + n;
        fetch_add(&shim_domain.status->nr_pages, n);
    }
    spin_unlock(&shim_domain.memory_lock);
    return found;
}

/* As batch_over() has it: a word or two for each frame. */
static unsigned extent_cost(unsigned order)
{
    return order < 2 ? 4u : 16u;
}

/* populate_physmap: each extent is a guest frame number, and receives a machine
 * frame; increase_reservation: only receives one. */
static uint64_t populate(const struct xen_memory_reservation *op, uint64_t i, bool physmap,
                         struct shim_batch *batch)
{
    unsigned cost = extent_cost(op->extent_order);
    uint64_t start = i, list_va = (uint64_t)op->extent_start.p, n = (uint64_t)1 << op->extent_order;

    for (; i < op->nr_extents && !(i > start && batch_over(batch, cost)); i++) {
        uint64_t gpfn = 0, first, mfn;

        if (physmap && guest_read(&gpfn, list_va + i * 8, sizeof(gpfn)))
            break;
        if (!memory_take(op->extent_order, XENMEMF_get_address_bits(op->mem_flags), &first))
            break;
        mfn = shim_domain.boot->first_mfn + first;
        for (uint64_t k = 0; k < n; k++)
            store_relaxed(memory_m2p(first + k), physmap ? gpfn + k : M2P_INVALID);
        if (list_va && guest_write(list_va + i * 8, &mfn, sizeof(mfn)))
            break;
    }
    return i;
}

void memory_release_flush(struct memory_release *r)
{
    if (r->nr)
        io_out32(SHIM_IO_RELEASE, r->nr);
    spin_lock(&shim_domain.memory_lock);
    for (unsigned i = 0; i < r->nr; i++)
        shim_domain.frame_info[r->frames[i]] = FRAME_FREE;
    spin_unlock(&shim_domain.memory_lock);
    r->nr = 0;
}

void memory_release_add(struct memory_release *r, uint64_t frame)
{
    r->frames[r->nr++] = frame;
    if (r->nr == SHIM_TEXT_BYTES / sizeof(r->frames[0]))
        memory_release_flush(r);
}

static uint64_t decrease(struct shim_vcpu *v, const struct xen_memory_reservation *op,
                         uint64_t i, struct shim_batch *batch)
{
    struct memory_release r = { .frames = (uint64_t *)v->status->text };
    unsigned cost = extent_cost(op->extent_order);
    uint64_t start = i, n = (uint64_t)1 << op->extent_order;

    for (; i < op->nr_extents && !(i > start && batch_over(batch, cost)); i++) {
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
            store_relaxed(memory_m2p(first + k), M2P_INVALID);
        }
        if (ok)
            fetch_add(&shim_domain.status->nr_pages, -n);
        spin_unlock(&shim_domain.memory_lock);
        if (!ok)
            break;
        for (k = 0; k < n; k++)
            memory_release_add(&r, first + k);
    }
    memory_release_flush(&r);
    return i;
}

/* What Xen makes of the address bits: so few that not even a page fits are an error. */
static bool address_bits_ok(unsigned bits)
{
    return !bits || bits > PAGE_SHIFT;
}

static int64_t reservation(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    uint64_t start = cmd >> MEMORY_OP_EXTENT_SHIFT, done;
    struct shim_batch batch = { 0 };
    struct xen_memory_reservation op;

    /* the result is the number of extents done, whatever kept the call from more */
    if (guest_read(&op, arg_va, sizeof(op)) || !memory_self(op.domid))
        return (int64_t)start;
    if (op.extent_order > EXTENT_ORDER_MAX || start >= op.nr_extents ||
        op.nr_extents > ~0u >> MEMORY_OP_EXTENT_SHIFT ||
        !address_bits_ok(XENMEMF_get_address_bits(op.mem_flags)))
        return (int64_t)start;
    switch (cmd & MEMORY_OP_CMD_MASK) {
    case XENMEM_populate_physmap:
        done = populate(&op, start, true, &batch);
        break;
    case XENMEM_increase_reservation:
        done = populate(&op, start, false, &batch);
        break;
    default:
        done = decrease(v, &op, start, &batch);
        break;
    }
    if (batch.over)
        return hypercall_again(v, __HYPERVISOR_memory_op,
                               (cmd & MEMORY_OP_CMD_MASK) | done << MEMORY_OP_EXTENT_SHIFT,
                               arg_va, 0, 0);
    return (int64_t)done;
}

static int64_t reservation_size(uint64_t cmd, uint64_t arg_va)
{
    domid_t domid;

    if (guest_read(&domid, arg_va, sizeof(domid)))
        return -XEN_EFAULT;
    if (!memory_self(domid))
        return -XEN_ESRCH;
    switch (cmd) {
    case XENMEM_current_reservation:
        return (int64_t)load_relaxed(&shim_domain.status->nr_pages);
    case XENMEM_maximum_reservation:
        return (int64_t)shim_domain.boot->max_pages;
    default:        /* XENMEM_maximum_gpfn: what the guest says of itself */
        return (int64_t)max_of(load_relaxed(&shim_domain.shared->arch.max_pfn), 1ul) - 1;
    }
}

/* XENMEM_get_vnumainfo: Xen's answer for a domain that has no virtual nodes. */
static int64_t vnumainfo(uint64_t arg_va)
{
    struct xen_vnuma_topology_info op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.pad)
        return -XEN_EINVAL;
    return memory_self(op.domid) ? -XEN_EOPNOTSUPP : -XEN_ESRCH;
}

/* Those that have no extents to go on with. */
static int64_t whole_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    switch (cmd) {
    case XENMEM_maximum_ram_page:
        return (int64_t)mfn_end();
    case XENMEM_exchange:
        return memory_exchange(v, arg_va);
    case XENMEM_get_vnumainfo:
        return vnumainfo(arg_va);
    default:
        return reservation_size(cmd, arg_va);
    }
}

int64_t memory_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    switch (cmd & MEMORY_OP_CMD_MASK) {
    case XENMEM_populate_physmap:
    case XENMEM_increase_reservation:
    case XENMEM_decrease_reservation:
        return reservation(v, cmd, arg_va);
    case XENMEM_maximum_ram_page:
    case XENMEM_current_reservation:
    case XENMEM_maximum_reservation:
    case XENMEM_maximum_gpfn:
    case XENMEM_exchange:
    case XENMEM_get_vnumainfo:
        return cmd & ~MEMORY_OP_CMD_MASK ? -XEN_EINVAL : whole_op(v, cmd, arg_va);
    case XENMEM_memory_map:
        return memory_map(arg_va);
    case XENMEM_machphys_mapping:
        return machphys_mapping(arg_va);
    case XENMEM_machphys_mfn_list:
        return machphys_mfn_list(arg_va);
    default:
        return memory_op_refused(cmd & MEMORY_OP_CMD_MASK, cmd >> MEMORY_OP_EXTENT_SHIFT, arg_va);
    }
}
