/* SPDX-License-Identifier: MIT */
/* What other guests hold of this one's grants.  The entries are judged here, where the
 * table is, and marked as in use; what a guest holds belongs to its connection and is given
 * back with that, however it ends. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/pv_peers_priv.h"

#define HOLDS_FIRST 64u
#define HOLDS_MAX   (2 * PEER_PAGES + PEER_COPIES_MAX)

/* The number of an unused hold, or UINT32_MAX. */
static uint32_t hold_new(struct peer_conn *c)
{
    struct peer_held *grown;
    uint32_t i = 0, nr;

    while (i < c->nr_holds && c->held[i].used)
        i++;
    if (i < c->nr_holds)
        return i;
    nr = max_of(2 * c->nr_holds, HOLDS_FIRST);
    nr = min_of(nr, (uint32_t)HOLDS_MAX);
    grown = nr > c->nr_holds ? realloc(c->held, nr * sizeof(*grown)) : NULL;
    if (!grown)
        return UINT32_MAX;
    memset(grown + c->nr_holds, 0, (nr - c->nr_holds) * sizeof(*grown));
    c->held = grown;
    c->nr_holds = nr;
    return i;
}

static int16_t status(int rc)
{
    switch (rc) {
    case 0:
        return GNTST_okay;
    case -EFAULT:
        return GNTST_bad_page;
    default:
        return GNTST_general_error;
    }
}

void peer_held_hold(struct pv_peers *p, struct peer_conn *c, struct peer_msg *m)
{
    struct gnttab_grant g;
    uint32_t i;
    int rc;

    m->result = GNTST_bad_gntref;
    if (m->ref >= gnttab_nr_refs(&p->table.table, gnttab_version(&p->table.table)))
        return;
    i = hold_new(c);
    m->result = GNTST_no_device_space;
    if (i == UINT32_MAX)
        return;
    rc = gnttab_host_hold(&p->table, c->domid, m->ref, m->write, m->copy, &g);
    /* of all that the process maps, only RAM is the guest's to grant */
    if (!rc && !g.transitive && g.frame - p->p.first_mfn >= p->p.ram_pages) {
        gnttab_host_unmap(&p->table, m->ref, m->write);
        rc = -EFAULT;
    }
    m->result = status(rc);
    if (rc)
        return;
    c->held[i] = (struct peer_held){ .ref = m->ref, .used = true, .write = m->write };
    m->hold = i;
    m->frame = g.frame - p->p.first_mfn;
    m->offset = g.offset;
    m->length = g.length;
    m->transitive = g.transitive;
    m->trans_domid = g.trans_domid;
    m->trans_ref = g.trans_ref;
}

void peer_held_drop(struct pv_peers *p, struct peer_conn *c, uint32_t hold)
{
    if (hold >= c->nr_holds || !c->held[hold].used)
        return;
    gnttab_host_unmap(&p->table, c->held[hold].ref, c->held[hold].write);
    c->held[hold].used = false;
}

void peer_held_end(struct pv_peers *p, struct peer_conn *c)
{
    for (uint32_t i = 0; i < c->nr_holds; i++)
        peer_held_drop(p, c, i);
    free(c->held);
}
