/* SPDX-License-Identifier: MIT */
/* What the store knows of each domain: its target, and how much it uses.  The
 * records hang in a two-level table by domain number and live as long as the
 * store: a guest that comes back finds its number's record. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xen/store_priv.h"
#include "xen/xs_proto.h"

const struct store_limits store_limits_default = {
    .nodes = 1000,
    .node_bytes = 2048,
    .perms = 5,
    .watches = 128,
    .transactions = 10,
    .transaction_nodes = 1024,
    .transaction_bytes = 512 * KIB,
};

struct store_domain *store_domain_get(struct store *s, unsigned domid)
{
    struct store_domain ***page = &s->domains[(domid & 0xffff) >> 8];
    struct store_domain **slot;

    if (!*page)
        *page = calloc(256, sizeof(**page));
    if (!*page)
        return NULL;
    slot = &(*page)[domid & 0xff];
    if (!*slot) {
        *slot = calloc(1, sizeof(**slot));
        if (*slot) {
            (*slot)->domid = domid;
            (*slot)->target = STORE_NO_DOMID;
        }
    }
    return *slot;
}

static struct store_delta_domain *delta_find(const struct store_delta *d, unsigned domid)
{
    for (unsigned i = 0; i < d->nr; i++) {
        if (d->v[i].domid == domid)
            return &d->v[i];
    }
    return NULL;
}

int store_count_prepare(struct store *s, struct store_tx *tx, unsigned domid)
{
    struct store_delta *d;

    if (!store_domain_get(s, domid))
        return -ENOMEM;
    if (!tx)
        return 0;
    d = store_tx_delta(tx);
    if (delta_find(d, domid))
        return 0;
    if (d->nr == d->cap) {
        unsigned cap = d->cap ? d->cap * 2 : 4;
        struct store_delta_domain *grown = realloc(d->v, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        d->v = grown;
        d->cap = cap;
    }
    d->v[d->nr++] = (struct store_delta_domain){ .domid = domid };
    return 0;
}

void store_count_add(struct store *s, struct store_tx *tx, unsigned domid, int nodes)
{
    if (tx)
        delta_find(store_tx_delta(tx), domid)->nodes += nodes;
    else
        store_domain_get(s, domid)->nr_nodes += (unsigned)nodes;
}

int store_count(struct store *s, struct store_tx *tx, unsigned domid)
{
    const struct store_domain *domain = store_domain_get(s, domid);
    const struct store_delta_domain *d = tx ? delta_find(store_tx_delta(tx), domid) : NULL;

    return (domain ? (int)domain->nr_nodes : 0) + (d ? d->nodes : 0);
}

int store_domain_set_target(struct store *s, unsigned domid, unsigned target)
{
    struct store_domain *d = store_domain_get(s, domid);

    if (!d)
        return -ENOMEM;
    d->target = target;
    return 0;
}

/* The paths that store_domain_forget() has to change. */
struct path_list {
    char *buf;              /* each 0-terminated */
    size_t used, cap;
};

static int path_list_add(struct path_list *l, const char *path, size_t len)
{
    if (l->used + len + 1 > l->cap) {
        size_t cap = max_of(l->cap * 2, l->used + len + 1 + 1024);
        char *grown = realloc(l->buf, cap);

        if (!grown)
            return -ENOMEM;
        l->buf = grown;
        l->cap = cap;
    }
    memcpy(l->buf + l->used, path, len);
    l->buf[l->used + len] = 0;
    l->used += len + 1;
    return 0;
}

static bool data_names(const struct store_data *d, unsigned domid)
{
    for (unsigned i = 0; i < d->nr_perms; i++) {
        if (d->perms[i].domid == domid)
            return true;
    }
    return false;
}

/* path has room for XENSTORE_ABS_PATH_MAX bytes; its first len are n's. */
static int collect(struct path_list *l, const struct store_node *n, unsigned domid,
                   char *path, size_t len)
{
    int rc = data_names(n->data, domid) ? path_list_add(l, path, len) : 0;

    path[len] = '/';
    for (uint32_t i = 0; !rc && i < n->children.nr; i++) {
        const struct store_node *child = n->children.v[i];
        size_t name_len = strlen(child->name);

        memcpy(path + len + 1, child->name, name_len);
        rc = collect(l, child, domid, path, len + 1 + name_len);
    }
    return rc;
}

/* Data without a word of domid.  The node's owner becomes domain 0, its other
 * rules stay. */
static struct store_data *data_without(const struct store_data *d, unsigned domid)
{
    struct store_data *changed = store_data_new(d->perms, d->nr_perms,
                                                store_data_value(d), d->value_len);
    unsigned kept = 1;

    if (!changed)
        return NULL;
    if (changed->perms[0].domid == domid)
        changed->perms[0].domid = 0;
    for (unsigned i = 1; i < d->nr_perms; i++) {
        if (d->perms[i].domid != domid)
            changed->perms[kept++] = d->perms[i];
    }
    memmove(&changed->perms[kept], store_data_value(d), d->value_len);
    changed->nr_perms = kept;
    return changed;
}

static int forget_at(struct store *s, struct store_node **root, const char *path, unsigned domid)
{
    struct store_node *n = store_node_own(&s->pool, root, path, strlen(path));
    struct store_data *data = n ? data_without(n->data, domid) : NULL;

    if (!data)
        return -ENOMEM;
    if (root == &s->root && store_data_owner(n->data) == domid) {
        store_count_add(s, NULL, domid, -1);
        store_count_add(s, NULL, 0, 1);
    }
    store_node_set_data(&s->pool, n, data);
    return 0;
}

int store_domain_forget(struct store *s, unsigned domid)
{
    struct store_node **const roots[] = { &s->root, &s->special };
    struct store_domain *d = store_domain_get(s, domid);
    char path[XENSTORE_ABS_PATH_MAX + 2];
    int rc = d ? 0 : -ENOMEM;

    for (unsigned r = 0; !rc && r < array_size(roots); r++) {
        struct path_list l = { 0 };

        rc = collect(&l, *roots[r], domid, path, 0);
        for (size_t at = 0; !rc && at < l.used; at += strlen(l.buf + at) + 1)
            rc = forget_at(s, roots[r], l.buf + at, domid);
        free(l.buf);
    }
    if (d)
        d->target = STORE_NO_DOMID;
    for (unsigned i = 0; i < array_size(s->domains); i++) {
        for (unsigned k = 0; s->domains[i] && k < 256; k++) {
            if (s->domains[i][k] && s->domains[i][k]->target == domid)
                s->domains[i][k]->target = STORE_NO_DOMID;
        }
    }
    return rc;
}
