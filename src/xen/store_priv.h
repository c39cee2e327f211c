/* SPDX-License-Identifier: MIT */
/* What the files store_*.c share among themselves. */
#ifndef XENOLITH_XEN_STORE_PRIV_H
#define XENOLITH_XEN_STORE_PRIV_H

#include "xen/store_path.h"
#include "xen/store_tree.h"

#define STORE_DOMIDS   65536u
#define STORE_NO_DOMID STORE_DOMIDS

struct store_domain {
    unsigned domid;
    unsigned target;            /* STORE_NO_DOMID: none */
    unsigned nr_nodes, nr_watches, nr_txs;
};

struct store_point;

struct store {
    struct store_pool pool;
    struct store_limits limits;
    struct store_node *root;            /* the version everybody sees */
    struct store_node *special;         /* its children: @introduceDomain ... */
    struct store_point *points;         /* watches by path */
    size_t nr_watches, nr_txs;
    struct store_domain **domains[STORE_DOMIDS / 256];
};

/* Counts of nodes by owner, not yet made good: a transaction's. */
struct store_delta {
    unsigned nr, cap;
    struct store_delta_domain { unsigned domid; int nodes; } *v;
};

/* The record of a domain, made when needed.  NULL: no memory. */
struct store_domain *store_domain_get(struct store *s, unsigned domid);

/* What c may do with a node that has this data: STORE_READ | ... */
unsigned store_access(const struct store_client *c, const struct store_data *d);

/* A change of the tree: of a transaction's version (tx) or of everybody's. */
struct store_node **store_view_root(struct store *s, struct store_tx *tx);
/* After this, store_count_add() for domid cannot fail. */
int store_count_prepare(struct store *s, struct store_tx *tx, unsigned domid);
void store_count_add(struct store *s, struct store_tx *tx, unsigned domid, int nodes);
int store_count(struct store *s, struct store_tx *tx, unsigned domid);

/* Takes the node at path, which is not the root, out of *root.  Hands it over. */
int store_tree_take(struct store *s, struct store_node **root, const char *path,
                    struct store_node **taken);

/* What a transaction's fate depends on, and what it did. */
enum {
    STORE_TX_VALUE = 1, STORE_TX_PERMS = 2, STORE_TX_CHILDREN = 4, STORE_TX_TREE = 8,
    STORE_TX_CHANGED = 16,      /* the node is to be made or given new data */
    STORE_TX_REMOVED = 32,      /* what was there goes first */
    STORE_TX_EVENT = 64,        /* watches are to fire for it */
};
/* Records for the first len bytes of path.  0, -ENOMEM, -ENOSPC. */
int store_tx_note(struct store_tx *tx, const char *path, size_t len, unsigned what);
/* Accounts for bytes of values in tx's version.  0 or -ENOSPC. */
int store_tx_charge(struct store_tx *tx, size_t bytes);
struct store_node **store_tx_root(struct store_tx *tx);
struct store_delta *store_tx_delta(struct store_tx *tx);
void store_tx_free(struct store_tx *tx);

void store_watch_free(struct store_watch *w);
void store_points_free(struct store *s);
/* The node at path was made, changed or (removed) taken out with all below it.
 * node: as it is, or was; old: its data before, or NULL. */
void store_fire(struct store *s, const char *path, const struct store_node *node,
                const struct store_data *old, bool removed);

#endif
