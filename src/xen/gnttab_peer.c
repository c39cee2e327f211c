/* SPDX-License-Identifier: MIT */
/* Grants of other guests: mapping and copying them.
 *
 * Whoever surrounds the domain reaches their tables, and shows a page that is mapped as a
 * frame of a number of its own; what is in use is marked there.  It may have to wait for
 * another process, so t->lock is not held then, and a handle is `busy` between: nobody
 * else finds it, and it is not free. */
#include "base/atomic.h"
#include "xen/gnttab.h"

void gnttab_peers_set(struct gnttab *t, const struct gnttab_peers *peers, void *ctx)
{
    t->peers = peers;
    t->peers_ctx = ctx;
}

bool gnttab_peer_exists(const struct gnttab *t, domid_t domid)
{
    return gnttab_is_peer(t, domid) && t->peers->exists(t->peers_ctx, domid);
}

/* A free handle, marked busy; NULL: all are in use. */
static struct gnttab_handle *handle_new(struct gnttab *t)
{
    struct gnttab_handle *found = NULL;

    spin_lock(&t->lock);
    for (unsigned i = 0; !found && i < GNTTAB_PEER_HANDLES_MAX; i++) {
        unsigned at = (t->peer_handle_next + i) % GNTTAB_PEER_HANDLES_MAX;
        struct gnttab_handle *h = &t->peer_handle[at];

        if (!h->busy && !(h->flags & GNTTAB_MAP_KINDS)) {
            t->peer_handle_next = at + 1;
            found = h;
        }
    }
    if (found)
        *found = (struct gnttab_handle){ .busy = true };
    spin_unlock(&t->lock);
    return found;
}

static void handle_free(struct gnttab *t, struct gnttab_handle *h)
{
    spin_lock(&t->lock);
    *h = (struct gnttab_handle){ 0 };
    spin_unlock(&t->lock);
}

void gnttab_peer_unmapped(struct gnttab *t, struct gnttab_handle *h)
{
    t->peers->unmap(t->peers_ctx, h->mfn);
    handle_free(t, h);
}

int16_t gnttab_peer_map(struct gnttab *t, struct gnttab_map_grant_ref *op)
{
    struct gnttab_handle *h;
    uint64_t mfn;
    int16_t status;

    if (!t->peers->exists(t->peers_ctx, op->dom))
        return GNTST_bad_domain;
    h = handle_new(t);
    if (!h)
        return GNTST_no_device_space;
    status = t->peers->map(t->peers_ctx, op->dom, op->ref, !(op->flags & GNTMAP_readonly), &mfn);
    if (status != GNTST_okay) {
        handle_free(t, h);
        return status;
    }
    spin_lock(&t->lock);
    if (op->flags & GNTMAP_host_map)
        status = t->mapper->map(t->mapper_ctx, op->host_addr, op->flags, mfn);
    h->mfn = mfn;
    if (status == GNTST_okay)
        *h = (struct gnttab_handle){ .ref = op->ref, .flags = op->flags, .mfn = mfn };
    spin_unlock(&t->lock);
    if (status != GNTST_okay) {
        gnttab_peer_unmapped(t, h);
        return status;
    }
    op->handle = GNTTAB_HANDLES_MAX + (grant_handle_t)(h - t->peer_handle);
    op->dev_bus_addr = mfn << PAGE_SHIFT;
    return GNTST_okay;
}

/* ---- copies ---- */

/* One end that has been found good.  What is granted by the domain to itself is held by a
 * handle, as if it were mapped for a device. */
struct end {
    struct gnttab_peer_end at;
    struct gnttab_part part;
    struct gnttab_handle *own;
};

static int16_t own_claim(struct gnttab *t, grant_ref_t ref, bool write, struct end *e)
{
    struct gnttab_handle *h;
    struct gnttab_grant g;
    int16_t status;

    spin_lock(&t->lock);
    h = gnttab_own_handle(t);
    status = h ? gnttab_own_hold(t, ref, write, true, &g) : GNTST_general_error;
    if (status == GNTST_okay) {
        e->own = h;
        *h = (struct gnttab_handle){
            .ref = ref, .flags = GNTMAP_device_map | (write ? 0 : GNTMAP_readonly),
            .mfn = g.frame,
        };
        store_relaxed(&t->nr_handles, t->nr_handles + 1);
        e->at.mfn = g.frame;
        e->part = (struct gnttab_part){ g.offset, g.length };
        if (g.transitive)
            status = gnttab_transitive_status(&g);
    }
    spin_unlock(&t->lock);
    return status;
}

static int16_t peer_claim(struct gnttab *t, const struct gnttab_copy_ptr *p, bool write,
                          struct end *e)
{
    struct gnttab_grant g;
    int16_t status = t->peers->hold(t->peers_ctx, p->domid, p->u.ref, write, &g, &e->at.hold);

    if (status != GNTST_okay) {
        e->at.hold = GNTTAB_NO_HOLD;
        return status;
    }
    e->part = (struct gnttab_part){ g.offset, g.length };
    return g.transitive ? gnttab_transitive_status(&g) : GNTST_okay;
}

/* Whatever comes of it, release() is due. */
static int16_t claim(struct gnttab *t, const struct gnttab_copy_ptr *p, bool by_ref, bool write,
                     struct end *e)
{
    int16_t status = GNTST_okay;

    *e = (struct end){ .at.hold = GNTTAB_NO_HOLD, .at.mfn = by_ref ? 0 : p->u.gmfn,
                       .part.length = PAGE_SIZE };
    if (by_ref && p->domid == 0)
        return gnttab_host_ref_status(p->u.ref);
    if (by_ref && gnttab_is_peer(t, p->domid))
        return peer_claim(t, p, write, e);
    if (by_ref)
        status = own_claim(t, p->u.ref, write, e);
    return status == GNTST_okay ? gnttab_frame_status(t, e->at.mfn, write) : status;
}

static void release(struct gnttab *t, const struct end *e)
{
    if (e->at.hold != GNTTAB_NO_HOLD)
        t->peers->drop(t->peers_ctx, e->at.hold);
    if (!e->own)
        return;
    spin_lock(&t->lock);
    e->own->flags = 0;
    store_relaxed(&t->nr_handles, t->nr_handles - 1);
    gnttab_own_drop(t, e->own->ref);
    spin_unlock(&t->lock);
}

static int16_t copy_bytes(const struct gnttab *t, const struct gnttab_copy *op, struct end *from,
                          struct end *to)
{
    int16_t status = gnttab_copy_status(op, &from->part, &to->part);

    if (status != GNTST_okay)
        return status;
    from->at.offset = op->source.offset;
    to->at.offset = op->dest.offset;
    return t->peers->copy(t->peers_ctx, &from->at, &to->at, op->len);
}

int16_t gnttab_peer_copy(struct gnttab *t, const struct gnttab_copy *op)
{
    struct end from, to = { .at.hold = GNTTAB_NO_HOLD };
    int16_t status = claim(t, &op->source, op->flags & GNTCOPY_source_gref, false, &from);

    if (status == GNTST_okay)
        status = claim(t, &op->dest, op->flags & GNTCOPY_dest_gref, true, &to);
    if (status == GNTST_okay)
        status = copy_bytes(t, op, &from, &to);
    release(t, &from);
    release(t, &to);
    return status;
}
