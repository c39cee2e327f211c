/* SPDX-License-Identifier: MIT */
/* Answers to HYPERVISOR_grant_table_op.  The table itself is guest memory: the
 * guest grants by writing an entry, without any call. */
#include <errno.h>

#include "base/atomic.h"
#include "xen/gnttab.h"

void gnttab_init(struct gnttab *t, struct grant_entry_v1 *entries, uint64_t first_mfn,
                 uint32_t nr_frames_max, uint32_t *nr_frames, domid_t self)
{
    *t = (struct gnttab){
        .entries = entries, .first_mfn = first_mfn, .nr_frames_max = nr_frames_max,
        .nr_frames = nr_frames, .self = self,
    };
    store_release(nr_frames, 1);
}

void gnttab_seed(struct gnttab *t, grant_ref_t ref, domid_t to, uint32_t frame)
{
    struct grant_entry_v1 *e = &t->entries[ref];

    e->domid = to;
    e->frame = frame;
    /* pairs with the load of the entry in gnttab_host_map() */
    store_release(&e->flags, GTF_permit_access);
}

/* GNTST_okay: dom is this domain; else what an unprivileged domain is told about
 * another one's table. */
static int16_t table_status(const struct gnttab *t, domid_t dom)
{
    if (dom == DOMID_SELF || dom == t->self)
        return GNTST_okay;
    return dom == 0 ? GNTST_permission_denied : GNTST_bad_domain;
}

/* The domain whose grants are used by copy and transfer.  A guest here is alone with
 * the host, which grants nothing, so no granter is ever found. */
static int16_t granter_status(const struct gnttab *t, domid_t dom)
{
    return GNTST_bad_domain;
}

int gnttab_setup_table(struct gnttab *t, struct gnttab_setup_table *op)
{
    op->status = table_status(t, op->dom);
    if (op->status != GNTST_okay)
        return 0;
    if (op->nr_frames > t->nr_frames_max) {
        op->status = GNTST_general_error;
        return 0;
    }
    spin_lock(&t->lock);
    /* pairs with the acquire in gnttab_host_map() */
    if (op->nr_frames > *t->nr_frames)
        store_release(t->nr_frames, op->nr_frames);
    spin_unlock(&t->lock);
    return 0;
}

int gnttab_query_size(struct gnttab *t, struct gnttab_query_size *op)
{
    op->status = table_status(t, op->dom);
    if (op->status == GNTST_okay) {
        op->nr_frames = load_acquire(t->nr_frames);
        op->max_nr_frames = t->nr_frames_max;
    }
    return 0;
}

int gnttab_get_version(struct gnttab *t, struct gnttab_get_version *op)
{
    switch (table_status(t, op->dom)) {
    case GNTST_okay:
        op->version = 1;
        return 0;
    case GNTST_permission_denied:
        return -EPERM;
    default:
        return -ESRCH;
    }
}

int gnttab_set_version(struct gnttab *t, struct gnttab_set_version *op)
{
    uint32_t wanted = op->version;

    op->version = 1;
    if (wanted == 2)
        return -ENOSYS;
    return wanted == 1 ? 0 : -EINVAL;
}

int gnttab_get_status_frames(struct gnttab *t, struct gnttab_get_status_frames *op)
{
    op->status = table_status(t, op->dom);
    if (op->status == GNTST_okay && op->nr_frames)
        op->status = GNTST_general_error;
    return 0;
}

int gnttab_transfer(struct gnttab *t, struct gnttab_transfer *op)
{
    op->status = granter_status(t, op->domid);
    return 0;
}

/* Frames can be named only in the own domain, references in any. */
static int16_t copy_end_status(const struct gnttab *t, const struct gnttab_copy_ptr *end,
                               bool by_ref)
{
    if (by_ref)
        return granter_status(t, end->domid);
    return end->domid == DOMID_SELF ? GNTST_okay : GNTST_permission_denied;
}

int gnttab_copy(struct gnttab *t, struct gnttab_copy *op)
{
    op->status = copy_end_status(t, &op->source, op->flags & GNTCOPY_source_gref);
    if (op->status == GNTST_okay)
        op->status = copy_end_status(t, &op->dest, op->flags & GNTCOPY_dest_gref);
    /* frame to frame within the domain would be a grant to oneself */
    if (op->status == GNTST_okay)
        op->status = granter_status(t, DOMID_SELF);
    return 0;
}

union entry {
    struct grant_entry_v1 e;
    uint64_t raw;
};

/* Takes entry `ref` out of the table unless it is in use.  One try: an entry that
 * changes just now is in use as far as the guest can tell. */
static bool entry_take(struct gnttab *t, grant_ref_t ref, union entry *out)
{
    uint64_t *raw = (uint64_t *)(void *)&t->entries[ref];

    out->raw = load_acquire(raw);
    return !(out->e.flags & (GTF_reading | GTF_writing)) &&
           __atomic_compare_exchange_n(raw, &out->raw, 0, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

static void entry_put(struct gnttab *t, grant_ref_t ref, const union entry *from)
{
    store_release((uint64_t *)(void *)&t->entries[ref], from->raw);
}

/* Between taking and putting, the host finds the entries invalid, as it would if
 * the guest had revoked them and granted anew. */
int gnttab_swap_grant_ref(struct gnttab *t, struct gnttab_swap_grant_ref *op)
{
    uint64_t nr_refs = load_acquire(t->nr_frames) * GNTTAB_REFS_PER_FRAME;
    union entry a, b;

    op->status = GNTST_okay;
    if (op->ref_a >= nr_refs || op->ref_b >= nr_refs) {
        op->status = GNTST_bad_gntref;
        return 0;
    }
    if (op->ref_a == op->ref_b)
        return 0;
    spin_lock(&t->lock);
    if (!entry_take(t, op->ref_a, &a)) {
        op->status = GNTST_eagain;
    } else if (!entry_take(t, op->ref_b, &b)) {
        entry_put(t, op->ref_a, &a);
        op->status = GNTST_eagain;
    } else {
        entry_put(t, op->ref_a, &b);
        entry_put(t, op->ref_b, &a);
    }
    spin_unlock(&t->lock);
    return 0;
}

/* Guest memory is always coherent with whatever the host does to it, so there is
 * nothing to clean. */
int gnttab_cache_flush(struct gnttab *t, struct gnttab_cache_flush *op)
{
    if (op->offset >= PAGE_SIZE || op->length > PAGE_SIZE ||
        op->offset + (uint64_t)op->length > PAGE_SIZE ||
        op->op & ~(GNTTAB_CACHE_INVAL | GNTTAB_CACHE_CLEAN))
        return -EINVAL;
    if (op->length && op->op == GNTTAB_CACHE_INVAL)
        return -EOPNOTSUPP;     /* as on all of x86 */
    return 0;
}

#define SHAPE(op, count, back) [GNTTABOP_##op] = { sizeof(struct gnttab_##op), back, count }

static const struct gnttab_op_shape shapes[] = {
    SHAPE(map_grant_ref, GNTTAB_COUNT_ARRAY, true),
    SHAPE(unmap_grant_ref, GNTTAB_COUNT_ARRAY, true),
    SHAPE(setup_table, GNTTAB_COUNT_ONE, true),
    SHAPE(transfer, GNTTAB_COUNT_ARRAY, true),
    SHAPE(copy, GNTTAB_COUNT_ARRAY, true),
    SHAPE(query_size, GNTTAB_COUNT_ONE, true),
    SHAPE(unmap_and_replace, GNTTAB_COUNT_ARRAY, true),
    SHAPE(set_version, GNTTAB_COUNT_UNUSED, true),
    SHAPE(get_status_frames, GNTTAB_COUNT_ONE, true),
    SHAPE(get_version, GNTTAB_COUNT_UNUSED, true),
    SHAPE(swap_grant_ref, GNTTAB_COUNT_ARRAY, true),
    SHAPE(cache_flush, GNTTAB_COUNT_ARRAY, false),
};

_Static_assert(sizeof(struct gnttab_map_grant_ref) <= GNTTAB_OP_ARG_BYTES_MAX &&
               sizeof(struct gnttab_copy) <= GNTTAB_OP_ARG_BYTES_MAX,
               "the largest elements fit");

const struct gnttab_op_shape *gnttab_op_shape(unsigned cmd)
{
    /* GNTTABOP_dump_table has a number but is not implemented by Xen either */
    return cmd < array_size(shapes) && shapes[cmd].arg_bytes ? &shapes[cmd] : NULL;
}

int gnttab_op_call(struct gnttab *t, unsigned cmd, void *arg)
{
    switch (cmd) {
    case GNTTABOP_map_grant_ref:     return gnttab_map_grant_ref(t, arg);
    case GNTTABOP_unmap_grant_ref:   return gnttab_unmap_grant_ref(t, arg);
    case GNTTABOP_setup_table:       return gnttab_setup_table(t, arg);
    case GNTTABOP_transfer:          return gnttab_transfer(t, arg);
    case GNTTABOP_copy:              return gnttab_copy(t, arg);
    case GNTTABOP_query_size:        return gnttab_query_size(t, arg);
    case GNTTABOP_unmap_and_replace: return gnttab_unmap_and_replace(t, arg);
    case GNTTABOP_set_version:       return gnttab_set_version(t, arg);
    case GNTTABOP_get_status_frames: return gnttab_get_status_frames(t, arg);
    case GNTTABOP_get_version:       return gnttab_get_version(t, arg);
    case GNTTABOP_swap_grant_ref:    return gnttab_swap_grant_ref(t, arg);
    case GNTTABOP_cache_flush:       return gnttab_cache_flush(t, arg);
    default:                         return -ENOSYS;
    }
}
