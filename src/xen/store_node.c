/* SPDX-License-Identifier: MIT */
/* Versions of one tree.
 *
 * A version is a root.  Two versions share every node below which they do not
 * differ; a node's reference count is the number of parents it has in all
 * versions, plus one for each holder of it as a root.  A node may be changed in
 * place by a version only if that version alone can reach it, that is, if the
 * count of the node and of every node above it is 1.  store_node_own() walks
 * from the root and copies each node of which that is not true: a copy takes a
 * reference to each child, which makes the children shared, so the walk goes on
 * copying down to the node wanted.  Hence:
 *  - taking a snapshot costs one increment, whatever the size of the tree;
 *  - a change with no snapshot around copies nothing;
 *  - a change under a snapshot copies the path to it once.
 *
 * A failed allocation can leave copied nodes behind in the version being
 * changed; they equal what they replace, so the version reads as before (their
 * gen_tree may be newer, which at worst makes a transaction run again).
 *
 * Recursion is as deep as a path has components, at most XENSTORE_ABS_PATH_MAX / 2. */
#include "xen/store_node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xen/store_path.h"

#define NAME_AT offsetof(struct store_node, name)

struct store_data *store_data_new(const struct store_perm *perms, unsigned nr_perms,
                                  const void *value, size_t len)
{
    size_t perms_bytes = nr_perms * sizeof(*perms);
    struct store_data *d = malloc(sizeof(*d) + perms_bytes + len);

    if (!d)
        return NULL;
    d->refs = 1;
    d->value_len = (uint32_t)len;
    d->nr_perms = nr_perms;
    memcpy(d->perms, perms, perms_bytes);
    if (len)
        memcpy((char *)d->perms + perms_bytes, value, len);
    return d;
}

struct store_data *store_data_get(struct store_data *d)
{
    d->refs++;
    return d;
}

void store_data_put(struct store_data *d)
{
    if (d && --d->refs == 0)
        free(d);
}

struct store_node *store_node_new(struct store_pool *p, const char *name, size_t name_len,
                                  struct store_data *data)
{
    struct store_node *n = data ? calloc(1, sizeof(*n) + name_len + 1) : NULL;

    if (!n) {
        store_data_put(data);
        return NULL;
    }
    n->refs = 1;
    n->data = data;
    n->gen_value = n->gen_perms = n->gen_children = n->gen_tree = ++p->gen;
    memcpy(n->name, name, name_len);
    p->nr_nodes++;
    return n;
}

struct store_node *store_node_get(struct store_node *n)
{
    n->refs++;
    return n;
}

void store_node_put(struct store_pool *p, struct store_node *n)
{
    if (!n || --n->refs)
        return;
    for (uint32_t i = 0; i < n->children.nr; i++)
        store_node_put(p, n->children.v[i]);
    store_data_put(n->data);
    free(n->children.v);
    free(n);
    p->nr_nodes--;
}

struct store_node *store_node_find(struct store_node *root, const char *path,
                                   struct store_node **nearest, const char **rest)
{
    const char *at = path, *before = path, *name;
    struct store_node *n = root;
    size_t len;

    while (store_path_next(&at, &name, &len)) {
        struct store_node *child = store_node_child(n, name, len);

        if (!child) {
            if (nearest) {
                *nearest = n;
                *rest = before;
            }
            return NULL;
        }
        n = child;
        before = at;
    }
    return n;
}

static struct store_node *node_copy(struct store_pool *p, const struct store_node *from)
{
    size_t size_bytes = sizeof(*from) + strlen(from->name) + 1;
    struct store_node *n = malloc(size_bytes);
    void **children = NULL;

    if (n && from->children.nr)
        children = malloc(from->children.cap * sizeof(*children));
    if (!n || (from->children.nr && !children)) {
        free(n);
        return NULL;
    }
    memcpy(n, from, size_bytes);
    n->refs = 1;
    n->children.v = children;
    if (!children)
        n->children.cap = 0;
    for (uint32_t i = 0; i < n->children.nr; i++)
        children[i] = store_node_get(from->children.v[i]);
    store_data_get(n->data);
    p->nr_nodes++;
    return n;
}

static struct store_node *node_own(struct store_pool *p, struct store_node *n)
{
    if (n->refs > 1) {
        struct store_node *copy = node_copy(p, n);

        if (!copy)
            return NULL;
        store_node_put(p, n);
        n = copy;
    }
    n->gen_tree = p->gen;
    return n;
}

struct store_node *store_node_own(struct store_pool *p, struct store_node **root,
                                  const char *path, size_t len)
{
    const char *at = path, *name;
    struct store_node *n, *child;
    size_t name_len;

    p->gen++;
    n = node_own(p, *root);
    if (!n)
        return NULL;
    *root = n;
    while (at < path + len && store_path_next(&at, &name, &name_len)) {
        uint32_t slot;

        if (!store_names_slot(&n->children, NAME_AT, name, name_len, &slot))
            return NULL;
        child = node_own(p, n->children.v[slot]);
        if (!child)
            return NULL;
        n->children.v[slot] = child;
        n = child;
    }
    return n;
}

int store_node_insert(struct store_pool *p, struct store_node *n, struct store_node *child)
{
    int rc = store_names_insert(&n->children, NAME_AT, child);

    if (rc)
        return rc;
    n->names_bytes += (uint32_t)strlen(child->name) + 1;
    n->gen_children = ++p->gen;
    return 0;
}

struct store_node *store_node_remove(struct store_pool *p, struct store_node *n,
                                     const char *name, size_t len)
{
    struct store_node *child = store_names_remove(&n->children, NAME_AT, name, len);

    if (child) {
        n->names_bytes -= (uint32_t)len + 1;
        n->gen_children = ++p->gen;
    }
    return child;
}

void store_node_set_data(struct store_pool *p, struct store_node *n, struct store_data *data)
{
    const struct store_data *old = n->data;

    if (old->nr_perms != data->nr_perms ||
        memcmp(old->perms, data->perms, old->nr_perms * sizeof(old->perms[0])))
        n->gen_perms = p->gen + 1;
    n->gen_value = ++p->gen;
    store_data_put(n->data);
    n->data = data;
}
