/* SPDX-License-Identifier: MIT */
/* XENMEM_exchange (public/memory.h): frames for other frames, most often single ones
 * for an extent that is contiguous, aligned and low enough for a device.
 *
 * It goes chunk by chunk, a chunk being as many extents as make one of the larger
 * order, and a chunk is exchanged whole or not at all.  Xen takes the new extents from
 * the host's memory.  Here RAM is all there is, and a guest that holds all of it leaves
 * none free; so a chunk's own frames come first: where they are what was asked for, in
 * whatever order, they are handed back, cleared.  Where they are not, free frames are
 * taken, and the chunk's own go back to the host. */
#include "shim/memory.h"

#include "shim/cpu.h"
#include "shim/mmu.h"
#include "shim/shim.h"

#define CHUNK_COST 16
#define CHUNK_FRAMES ((uint64_t)1 << EXTENT_ORDER_MAX)

/* Orders, and log2 of the extents in a chunk, on either side. */
struct exchange {
    struct xen_memory_exchange arg;
    unsigned in_chunk_order, out_chunk_order;
    uint64_t nr;                        /* frames in a chunk */
};

/* A chunk under way: frames are counted from RAM's first. */
struct chunk {
    unsigned nr_in, nr_out;
    uint32_t in[CHUNK_FRAMES];          /* taken from the guest, FRAME_LEAVING */
    uint32_t out[CHUNK_FRAMES];         /* first frames of the new extents */
    bool own;                           /* out is made of in */
};

static int arguments_ok(const struct xen_memory_exchange *a)
{
    const struct xen_memory_reservation *in = &a->in, *out = &a->out;

    if (max_of(in->extent_order, out->extent_order) > EXTENT_ORDER_MAX)
        return -XEN_EPERM;
    if (a->nr_exchanged > in->nr_extents || in->domid != out->domid ||
        ~(uint64_t)0 >> in->extent_order < in->nr_extents ||
        ~(uint64_t)0 >> out->extent_order < out->nr_extents ||
        in->nr_extents << in->extent_order != out->nr_extents << out->extent_order)
        return -XEN_EINVAL;
    return 0;
}

static uint64_t list_va(const struct xen_memory_reservation *r, uint64_t i)
{
    return (uint64_t)r->extent_start.p + i * sizeof(xen_pfn_t);
}

static int exchange_begin(struct exchange *x)
{
    const struct xen_memory_exchange *a = &x->arg;
    unsigned in = a->in.extent_order, out = a->out.extent_order;
    int rc = arguments_ok(a);

    if (rc)
        return rc;
    x->in_chunk_order = in < out ? out - in : 0;
    x->out_chunk_order = in < out ? 0 : in - out;
    x->nr = (uint64_t)1 << max_of(in, out);
    if (!guest_range_ok(list_va(&a->in, a->nr_exchanged), 1) ||
        !guest_range_ok(list_va(&a->out, a->nr_exchanged >> x->in_chunk_order <<
                                             x->out_chunk_order), 1))
        return -XEN_EFAULT;
    return memory_self(a->in.domid) ? 0 : -XEN_ESRCH;
}

/* As Xen does with a frame that something still refers to, one that is known to be in
 * use is not taken. */
static bool frame_take(const struct shim_vcpu *v, uint64_t mfn)
{
    bool ok;

    if (!mmu_frame_ok(mfn))
        return false;
    spin_lock(&shim_domain.memory_lock);
    ok = mmu_frame_held(mfn) && !mmu_frame_used(v, mfn);
    if (ok)
        fetch_or(&shim_domain.frame_info[mfn - shim_domain.boot->first_mfn],
                 (uint8_t)FRAME_LEAVING);
    spin_unlock(&shim_domain.memory_lock);
    return ok;
}

static void chunk_undo(struct chunk *c)
{
    for (unsigned i = 0; i < c->nr_in; i++)
        fetch_and(&shim_domain.frame_info[c->in[i]], (uint8_t)~FRAME_LEAVING);
}

static int chunk_take(const struct shim_vcpu *v, const struct exchange *x, uint64_t i,
                      struct chunk *c)
{
    c->nr_in = 0;
    for (uint64_t j = 0; j < (uint64_t)1 << x->in_chunk_order; j++) {
        uint64_t mfn;

        if (guest_read(&mfn, list_va(&x->arg.in, (i << x->in_chunk_order) + j), sizeof(mfn)))
            return -XEN_EFAULT;
        for (uint64_t k = 0; k < (uint64_t)1 << x->arg.in.extent_order; k++) {
            if (!frame_take(v, mfn + k))
                return -XEN_EINVAL;
            c->in[c->nr_in++] = (uint32_t)(mfn + k - shim_domain.boot->first_mfn);
        }
    }
    return 0;
}

/* The frames taken, which are all different, are one extent of the larger order. */
static bool chunk_is_extent(const struct exchange *x, const struct chunk *c)
{
    uint64_t first_mfn = shim_domain.boot->first_mfn;
    uint64_t base = (c->in[0] + first_mfn) & ~(x->nr - 1);

    for (unsigned i = 0; i < c->nr_in; i++)
        if (((c->in[i] + first_mfn) & ~(x->nr - 1)) != base)
            return false;
    return base >= first_mfn;
}

/* New extents out of the chunk's own frames, where they are such. */
static bool chunk_own(const struct exchange *x, struct chunk *c, unsigned address_bits)
{
    uint64_t first_mfn = shim_domain.boot->first_mfn, first;
    unsigned order = x->arg.out.extent_order;

    if (order && !chunk_is_extent(x, c))
        return false;
    first = order ? ((c->in[0] + first_mfn) & ~(x->nr - 1)) - first_mfn : 0;
    for (unsigned j = 0; j < 1u << x->out_chunk_order; j++) {
        c->out[j] = order ? (uint32_t)(first + ((uint64_t)j << order)) : c->in[j];
        if (!memory_within_bits(c->out[j], order, address_bits))
            return false;
    }
    return true;
}

static int chunk_allocate(const struct exchange *x, struct chunk *c, struct memory_release *r)
{
    unsigned bits = XENMEMF_get_address_bits(x->arg.out.mem_flags);
    unsigned order = x->arg.out.extent_order;

    /* fewer bits than a page has are as good as the lowest page's: nothing is there */
    bits = bits ? max_of(bits, (unsigned)PAGE_SHIFT + 1) : 0;
    c->own = chunk_own(x, c, bits);
    if (c->own)
        return 0;
    for (c->nr_out = 0; c->nr_out < 1u << x->out_chunk_order; c->nr_out++) {
        uint64_t first;

        if (memory_take(order, bits, &first)) {
            c->out[c->nr_out] = (uint32_t)first;
            continue;
        }
        /* what was taken so far goes the way of all frames: nobody has written to it,
         * but the guest may have had it mapped */
        fetch_add(&shim_domain.status->nr_pages, -((uint64_t)c->nr_out << order));
        for (unsigned j = 0; j < c->nr_out; j++)
            for (uint64_t k = 0; k < (uint64_t)1 << order; k++) {
                store_relaxed(&shim_domain.frame_info[c->out[j] + k], FRAME_LEAVING);
                memory_release_add(r, c->out[j] + k);
            }
        memory_release_flush(r);
        return -XEN_ENOMEM;
    }
    return 0;
}

/* No way back from here: the old frames go, the new ones get their place. */
static int chunk_finish(const struct exchange *x, uint64_t i, struct chunk *c,
                        struct memory_release *r)
{
    uint64_t first_mfn = shim_domain.boot->first_mfn;
    int rc = 0;

    for (unsigned k = 0; k < c->nr_in; k++) {
        store_relaxed(memory_m2p(c->in[k]), M2P_INVALID);
        if (c->own)
            __builtin_memset(shim_dm((first_mfn + c->in[k]) << PAGE_SHIFT), 0, PAGE_SIZE);
        /* only what it was known as goes, when it is the guest's again */
        store_relaxed(&shim_domain.frame_info[c->in[k]], c->own ? 0 : FRAME_LEAVING);
        if (!c->own)
            memory_release_add(r, c->in[k]);
    }
    memory_release_flush(r);
    if (!c->own)
        fetch_add(&shim_domain.status->nr_pages, -x->nr);
    for (unsigned j = 0; j < 1u << x->out_chunk_order; j++) {
        uint64_t at = list_va(&x->arg.out, (i << x->out_chunk_order) + j), gpfn;
        uint64_t mfn = first_mfn + c->out[j];

        if (guest_read(&gpfn, at, sizeof(gpfn))) {
            rc = -XEN_EFAULT;
            continue;
        }
        for (uint64_t k = 0; k < (uint64_t)1 << x->arg.out.extent_order; k++)
            store_relaxed(memory_m2p(c->out[j] + k), gpfn + k);
        if (guest_write(at, &mfn, sizeof(mfn)))
            rc = -XEN_EFAULT;
    }
    return rc;
}

int64_t memory_exchange(struct shim_vcpu *v, uint64_t arg_va)
{
    struct memory_release r = { .frames = (uint64_t *)v->status->text };
    struct exchange x;
    struct chunk c;             /* some 4 KiB: fits the stack, see layout.h */
    struct shim_batch batch = { 0 };
    uint64_t i, start;
    int rc;

    if (guest_read(&x.arg, arg_va, sizeof(x.arg)))
        return -XEN_EFAULT;
    rc = exchange_begin(&x);
    if (!rc) {
        start = x.arg.nr_exchanged >> x.in_chunk_order;
        for (i = start; i < x.arg.in.nr_extents >> x.in_chunk_order && !rc &&
                        !(i > start && batch_over(&batch, CHUNK_COST)); i++) {
            rc = chunk_take(v, &x, i, &c);
            if (!rc)
                rc = chunk_allocate(&x, &c, &r);
            if (rc)
                chunk_undo(&c);
            else
                rc = chunk_finish(&x, i, &c, &r);
        }
        if (batch.over)
            x.arg.nr_exchanged = i << x.in_chunk_order;
        else
            x.arg.nr_exchanged = rc ? (i - 1) << x.in_chunk_order : x.arg.in.nr_extents;
    }
    if (guest_write(arg_va + offsetof(struct xen_memory_exchange, nr_exchanged),
                    &x.arg.nr_exchanged, sizeof(x.arg.nr_exchanged)))
        return -XEN_EFAULT;
    return !batch.over ? rc :
           hypercall_again(v, __HYPERVISOR_memory_op, XENMEM_exchange, arg_va, 0, 0);
}
