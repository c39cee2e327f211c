/* SPDX-License-Identifier: MIT */
/* Answers to HYPERVISOR_grant_table_op.  The table itself is guest memory: the
 * guest grants by writing an entry, without any call. */
#include <errno.h>

#include "base/atomic.h"
#include "xen/gnttab.h"

void gnttab_init(struct gnttab *t, const struct gnttab_params *p)
{
    t->p = *p;
    store_relaxed(&p->table.state->version, 1);
    store_release(&p->table.state->nr_frames, 1);
}

void gnttab_seed(struct gnttab *t, grant_ref_t ref, domid_t to, uint32_t frame)
{
    struct grant_entry_v1 *e = gnttab_v1(&t->p.table, ref);

    e->domid = to;
    e->frame = frame;
    /* pairs with the load of the entry in gnttab_entry_hold() */
    store_release(&e->flags, GTF_permit_access);
}

/* GNTST_okay: dom is this domain; else what an unprivileged domain is told about
 * another one's table. */
static int16_t table_status(const struct gnttab *t, domid_t dom)
{
    if (dom == DOMID_SELF || dom == t->p.self)
        return GNTST_okay;
    return dom == 0 || gnttab_peer_exists(t, dom) ? GNTST_permission_denied : GNTST_bad_domain;
}

int gnttab_setup_table(struct gnttab *t, struct gnttab_setup_table *op)
{
    struct gnttab_state *state = t->p.table.state;

    op->status = table_status(t, op->dom);
    if (op->status != GNTST_okay)
        return 0;
    if (op->nr_frames > t->p.table.nr_frames_max) {
        op->status = GNTST_general_error;
        return 0;
    }
    spin_lock(&t->lock);
    /* pairs with the acquire in gnttab_nr_refs() */
    if (op->nr_frames > state->nr_frames)
        store_release(&state->nr_frames, op->nr_frames);
    spin_unlock(&t->lock);
    return 0;
}

int gnttab_query_size(struct gnttab *t, struct gnttab_query_size *op)
{
    op->status = table_status(t, op->dom);
    if (op->status == GNTST_okay) {
        op->nr_frames = load_relaxed(&t->p.table.state->nr_frames);
        op->max_nr_frames = t->p.table.nr_frames_max;
    }
    return 0;
}

int gnttab_get_version(struct gnttab *t, struct gnttab_get_version *op)
{
    switch (table_status(t, op->dom)) {
    case GNTST_okay:
        op->version = gnttab_version(&t->p.table);
        return 0;
    case GNTST_permission_denied:
        return -EPERM;
    default:
        return -ESRCH;
    }
}

int gnttab_get_status_frames(struct gnttab *t, struct gnttab_get_status_frames *op)
{
    const struct gnttab_table *table = &t->p.table;
    uint64_t nr = gnttab_version(table) == 2 ?
                  GNTTAB_STATUS_FRAMES(load_relaxed(&table->state->nr_frames)) : 0;

    op->status = table_status(t, op->dom);
    if (op->status == GNTST_okay && op->nr_frames > nr)
        op->status = GNTST_general_error;
    return 0;
}

int gnttab_transfer(struct gnttab *t, struct gnttab_transfer *op)
{
    if (t->mapper && !t->mapper->frame_ok(t->mapper_ctx, op->mfn))
        op->status = GNTST_bad_page;
    else if (op->domid == 0 || op->domid == t->p.self || gnttab_peer_exists(t, op->domid))
        op->status = GNTST_general_error;
    else
        op->status = GNTST_bad_domain;
    return 0;
}

/* What of an entry says who may do what with it: all of a version 1 entry, the header of
 * the other. */
union word {
    struct grant_entry_header h;
    uint32_t v2;
    uint64_t v1;
};

/* Takes that word of entry `ref` out of the table unless the entry is in use.  One try:
 * an entry that changes just now is in use as far as the guest can tell. */
static bool entry_take(const struct gnttab_table *table, unsigned version, grant_ref_t ref,
                       union word *out)
{
    uint64_t *raw1 = (uint64_t *)(void *)gnttab_v1(table, ref);
    uint32_t *raw2 = (uint32_t *)(void *)gnttab_v2(table, ref);

    if (version == 1) {
        out->v1 = load_acquire(raw1);
        return !(out->h.flags & GTF_IN_USE) &&
               __atomic_compare_exchange_n(raw1, &out->v1, 0, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_RELAXED);
    }
    /* pairs with the barrier between mark and second look in gnttab_entry_hold() */
    out->v1 = 0;
    out->v2 = __atomic_exchange_n(raw2, 0, __ATOMIC_SEQ_CST);
    if (!(load_acquire(&table->status[ref]) & GTF_IN_USE))
        return true;
    store_release(raw2, out->v2);
    return false;
}

static void entry_put(const struct gnttab_table *table, unsigned version, grant_ref_t ref,
                      const union word *from)
{
    if (version == 1)
        store_release((uint64_t *)(void *)gnttab_v1(table, ref), from->v1);
    else
        store_release((uint32_t *)(void *)gnttab_v2(table, ref), from->v2);
}

/* What is beside the word; the in-use bits are clear. */
static void bodies_swap(const struct gnttab_table *table, grant_ref_t a, grant_ref_t b)
{
    union grant_entry_v2 *ea = gnttab_v2(table, a), *eb = gnttab_v2(table, b);

    for (unsigned i = 1; i < array_size(ea->__spacer); i++) {
        uint32_t was = load_relaxed(&ea->__spacer[i]);

        store_relaxed(&ea->__spacer[i], load_relaxed(&eb->__spacer[i]));
        store_relaxed(&eb->__spacer[i], was);
    }
}

static int16_t swap_locked(const struct gnttab_table *table, grant_ref_t ref_a, grant_ref_t ref_b)
{
    unsigned version = gnttab_version(table);
    uint64_t nr_refs = gnttab_nr_refs(table, version);
    union word a, b;

    if (ref_a >= nr_refs || ref_b >= nr_refs)
        return GNTST_bad_gntref;
    if (ref_a == ref_b)
        return GNTST_okay;
    if (!entry_take(table, version, ref_a, &a))
        return GNTST_eagain;
    if (!entry_take(table, version, ref_b, &b)) {
        entry_put(table, version, ref_a, &a);
        return GNTST_eagain;
    }
    if (version == 2)
        bodies_swap(table, ref_a, ref_b);
    entry_put(table, version, ref_a, &b);
    entry_put(table, version, ref_b, &a);
    return GNTST_okay;
}

/* Between taking and putting, the host finds the entries invalid, as it would if
 * the guest had revoked them and granted anew. */
int gnttab_swap_grant_ref(struct gnttab *t, struct gnttab_swap_grant_ref *op)
{
    spin_lock(&t->lock);
    op->status = swap_locked(&t->p.table, op->ref_a, op->ref_b);
    spin_unlock(&t->lock);
    return 0;
}

/* Guest memory is always coherent with whatever the host does to it, so there is
 * nothing to clean. */
int gnttab_cache_flush(struct gnttab *t, struct gnttab_cache_flush *op)
{
    if (op->offset >= PAGE_SIZE || op->length > PAGE_SIZE ||
        op->offset + (uint64_t)op->length > PAGE_SIZE)
        return -EINVAL;
    if (!op->length || !op->op)
        return 0;
    if (op->op & GNTTAB_CACHE_SOURCE_GREF)
        return -EOPNOTSUPP;
    if (op->op & ~(GNTTAB_CACHE_INVAL | GNTTAB_CACHE_CLEAN))
        return -EINVAL;
    if (t->mapper && !t->mapper->frame_ok(t->mapper_ctx, op->a.dev_bus_addr >> PAGE_SHIFT))
        return -EINVAL;
    if (op->op == GNTTAB_CACHE_INVAL)
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
