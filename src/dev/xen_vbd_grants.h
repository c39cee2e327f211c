/* SPDX-License-Identifier: MIT */
/* The pages a queue holds of its guest.
 *
 * Without persistent grants a page is held while a request uses it.  With them
 * (feature-persistent) it stays held, writable, after the request: a frontend
 * that sees the grant still in use keeps it for later requests, so neither end
 * touches the grant table on the data path.
 *
 * What stays held is bounded by a set-associative table: a reference belongs to
 * one set, each set has VBD_GRANTS_WAYS entries.  A page not in it takes the
 * place of one that no request uses, preferring one not used since the set was
 * last swept; where all are in use the page is held for its request only.  The
 * frontend learns the difference from the grant's in-use bits, as blkif.h
 * (note 7) has it. */
#ifndef XENOLITH_DEV_XEN_VBD_GRANTS_H
#define XENOLITH_DEV_XEN_VBD_GRANTS_H

#include "base/err.h"
#include "base/types.h"
#include "xen/gnttab_host.h"

#define VBD_GRANTS_WAYS 8u
#define VBD_GRANTS_SETS 512u
#define VBD_GRANTS_MAX  (VBD_GRANTS_WAYS * VBD_GRANTS_SETS)

struct vbd_grant {
    void *page;                 /* NULL: the entry is free */
    uint32_t ref;
    uint16_t nr_users;          /* segments of requests in flight */
    bool recent;
};

struct vbd_grants {
    struct gnttab_host *table;
    struct vbd_grant *entry;    /* sets one after another; NULL: not persistent */
    uint64_t *kept;             /* the record of entries, xen_vbd_record.h; NULL: none */
    unsigned nr_held;           /* entries in use */
};

/* One page taken, to be given back. */
struct vbd_hold {
    uint32_t ref;
    int32_t entry;              /* in the table; or one of these */
#define VBD_HOLD_READ  (-1)
#define VBD_HOLD_WRITE (-2)
};

/* kept: of a record for persistent grants (VBD_GRANTS_MAX), or NULL.  0 or -ENOMEM. */
int vbd_grants_init(struct vbd_grants *g, struct gnttab_host *table, bool persistent,
                    uint64_t *kept);
/* Gives back what stays held; no request may be using any of it. */
void vbd_grants_free(struct vbd_grants *g);

/* Takes the page granted under ref; 0 or what gnttab_host_map() says.  *hold, and what stays
 * held, are written before any in-use bit. */
int vbd_grants_take(struct vbd_grants *g, uint32_t ref, bool write, void **page,
                    struct vbd_hold *hold);
void vbd_grants_give(struct vbd_grants *g, const struct vbd_hold *hold);

#endif
