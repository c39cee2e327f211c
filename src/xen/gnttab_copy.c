/* SPDX-License-Identifier: MIT */
/* GNTTABOP_copy: between frames of the domain's own and what it is granted.  Where other
 * guests take part, gnttab_peer.c has it.  Else t->lock is held throughout, so that the
 * in-use bits of an entry belong to one copy and to mappings only. */
#include "xen/gnttab.h"

/* One end of a copy that has been found good. */
struct end {
    uint64_t mfn;
    struct gnttab_part part;
    grant_ref_t ref;
    bool by_ref;
};

static int16_t domain_status(const struct gnttab *t, const struct gnttab_copy_ptr *p, bool by_ref)
{
    /* frames can be named only in the own domain, references in any */
    if (p->domid == DOMID_SELF)
        return GNTST_okay;
    if (!by_ref)
        return GNTST_permission_denied;
    return p->domid == 0 || p->domid == t->p.self || gnttab_peer_exists(t, p->domid)
           ? GNTST_okay : GNTST_bad_domain;
}

/* Domain 0 grants nothing, and the granter itself may not be meant. */
int16_t gnttab_transitive_status(const struct gnttab_grant *g)
{
    return g->trans_domid == 0 ? gnttab_host_ref_status(g->trans_ref) : GNTST_general_error;
}

int16_t gnttab_frame_status(const struct gnttab *t, uint64_t mfn, bool write)
{
    if (!t->mapper->frame_ok(t->mapper_ctx, mfn))
        return GNTST_bad_page;
    return !write || t->mapper->frame_writable(t->mapper_ctx, mfn) ? GNTST_okay
                                                                   : GNTST_general_error;
}

static int16_t claim_own_grant(const struct gnttab *t, grant_ref_t ref, bool write, struct end *e)
{
    struct gnttab_grant g;
    int16_t status = gnttab_own_hold(t, ref, write, true, &g);

    if (status != GNTST_okay)
        return status;
    *e = (struct end){ .mfn = g.frame, .part = { g.offset, g.length }, .ref = ref,
                       .by_ref = true };
    return g.transitive ? gnttab_transitive_status(&g) : GNTST_okay;
}

/* Whatever comes of it, release() is due. */
static int16_t claim(const struct gnttab *t, const struct gnttab_copy_ptr *p, bool by_ref,
                     bool write, struct end *e)
{
    int16_t status = GNTST_okay;

    *e = (struct end){ .mfn = by_ref ? 0 : p->u.gmfn, .part.length = PAGE_SIZE };
    if (by_ref && p->domid == 0)
        return gnttab_host_ref_status(p->u.ref);
    if (by_ref)
        status = claim_own_grant(t, p->u.ref, write, e);
    return status == GNTST_okay ? gnttab_frame_status(t, e->mfn, write) : status;
}

static void release(const struct gnttab *t, const struct end *e)
{
    if (e->by_ref)
        gnttab_own_drop(t, e->ref);
}

static bool within(const struct gnttab_part *part, unsigned offset, unsigned bytes)
{
    return offset >= part->offset && offset + bytes <= (unsigned)part->offset + part->length;
}

int16_t gnttab_copy_status(const struct gnttab_copy *op, const struct gnttab_part *from,
                           const struct gnttab_part *to)
{
    if (op->source.offset + op->len > PAGE_SIZE || op->dest.offset + op->len > PAGE_SIZE)
        return GNTST_bad_copy_arg;
    return within(from, op->source.offset, op->len) && within(to, op->dest.offset, op->len)
           ? GNTST_okay : GNTST_general_error;
}

static int16_t copy_bytes(const struct gnttab *t, const struct gnttab_copy *op,
                          const struct end *from, const struct end *to)
{
    int16_t status = gnttab_copy_status(op, &from->part, &to->part);

    if (status != GNTST_okay)
        return status;
    t->mapper->copy(t->mapper_ctx, (to->mfn << PAGE_SHIFT) + op->dest.offset,
                    (from->mfn << PAGE_SHIFT) + op->source.offset, op->len);
    return GNTST_okay;
}

static int16_t copy_locked(const struct gnttab *t, const struct gnttab_copy *op)
{
    struct end from, to = { 0 };
    int16_t status = claim(t, &op->source, op->flags & GNTCOPY_source_gref, false, &from);

    if (status == GNTST_okay)
        status = claim(t, &op->dest, op->flags & GNTCOPY_dest_gref, true, &to);
    if (status == GNTST_okay)
        status = copy_bytes(t, op, &from, &to);
    release(t, &from);
    release(t, &to);
    return status;
}

int gnttab_copy(struct gnttab *t, struct gnttab_copy *op)
{
    op->status = domain_status(t, &op->source, op->flags & GNTCOPY_source_gref);
    if (op->status == GNTST_okay)
        op->status = domain_status(t, &op->dest, op->flags & GNTCOPY_dest_gref);
    if (op->status == GNTST_okay && !t->mapper)
        op->status = GNTST_bad_domain;
    if (op->status != GNTST_okay)
        return 0;
    if ((op->flags & GNTCOPY_source_gref && gnttab_is_peer(t, op->source.domid)) ||
        (op->flags & GNTCOPY_dest_gref && gnttab_is_peer(t, op->dest.domid))) {
        op->status = gnttab_peer_copy(t, op);
        return 0;
    }
    spin_lock(&t->lock);
    op->status = copy_locked(t, op);
    spin_unlock(&t->lock);
    return 0;
}
