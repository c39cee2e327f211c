/* SPDX-License-Identifier: MIT */
/* Nodes of the store, shared between versions of the tree.  See store_node.c for
 * the rules of sharing.  Callers outside the tree only read them. */
#ifndef XENOLITH_XEN_STORE_NODE_H
#define XENOLITH_XEN_STORE_NODE_H

#include "base/types.h"
#include "xen/store_names.h"

enum { STORE_READ = 1, STORE_WRITE = 2, STORE_OWNER = 4 };

/* perms[0] names the owner and what everybody not named may do; the others what
 * one domain may do. */
struct store_perm {
    uint16_t domid;
    uint16_t access;            /* STORE_READ | STORE_WRITE */
};

/* Value and permissions.  Never changes once made: a change makes another. */
struct store_data {
    unsigned refs;
    uint32_t value_len;         /* bytes */
    uint32_t nr_perms;          /* at least 1 */
    struct store_perm perms[];  /* the value follows */
};

struct store_node {
    unsigned refs;              /* parents (of all versions) and holders of a root */
    uint32_t names_bytes;       /* of the children's names, each with its 0 */
    struct store_names children;        /* of struct store_node */
    struct store_data *data;
    /* When it last changed, as a number no other change has; being created
     * counts as a change of value, permissions and children. */
    uint64_t gen_value, gen_perms, gen_children;
    uint64_t gen_tree;          /* anything at or below this node */
    char name[];
};

struct store_pool {
    uint64_t gen;               /* the last number given to a change */
    size_t nr_nodes;            /* alive, in all versions */
};

struct store_data *store_data_new(const struct store_perm *perms, unsigned nr_perms,
                                  const void *value, size_t len);
struct store_data *store_data_get(struct store_data *d);
void store_data_put(struct store_data *d);

static inline const char *store_data_value(const struct store_data *d)
{
    return (const char *)&d->perms[d->nr_perms];
}

static inline unsigned store_data_owner(const struct store_data *d)
{
    return d->perms[0].domid;
}

/* Takes over the caller's reference to data, also when it fails (NULL). */
struct store_node *store_node_new(struct store_pool *p, const char *name, size_t name_len,
                                  struct store_data *data);
struct store_node *store_node_get(struct store_node *n);
void store_node_put(struct store_pool *p, struct store_node *n);

static inline struct store_node *store_node_child(const struct store_node *n,
                                                  const char *name, size_t len)
{
    return store_names_find(&n->children, offsetof(struct store_node, name), name, len);
}
/* NULL when there is none; *nearest (may be NULL) is then the deepest node on
 * the way, and *rest what is missing below it. */
struct store_node *store_node_find(struct store_node *root, const char *path,
                                   struct store_node **nearest, const char **rest);

/* The node at path, which exists, made private to this version together with
 * all above it, each marked as changed below.  len: how much of path counts.
 * NULL: no memory; the tree then reads as before. */
struct store_node *store_node_own(struct store_pool *p, struct store_node **root,
                                  const char *path, size_t len);
/* The next three want a private node. */
/* Takes over the child's reference when it succeeds.  0 or -ENOMEM. */
int store_node_insert(struct store_pool *p, struct store_node *n, struct store_node *child);
/* Hands over the child. */
struct store_node *store_node_remove(struct store_pool *p, struct store_node *n,
                                     const char *name, size_t len);
/* Takes over the reference to data. */
void store_node_set_data(struct store_pool *p, struct store_node *n, struct store_data *data);

#endif
