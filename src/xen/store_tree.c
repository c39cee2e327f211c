/* SPDX-License-Identifier: MIT */
/* Operations on the tree.  Each is checked completely before the first change
 * and allocates before it links, so an operation that fails has done nothing.
 *
 * The same code works on the version everybody sees (tx NULL) and on the private
 * version of a transaction; the difference is where counts go, that a
 * transaction notes what it saw and did, and that only the former fires watches. */
#include "xen/store_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xen/store_priv.h"
#include "xen/xs_proto.h"

static const struct store_perm perms_domain_0 = { .domid = 0, .access = 0 };

struct store *store_create(const struct store_limits *limits)
{
    struct store *s = calloc(1, sizeof(*s));
    static const char *const special[] = { "@introduceDomain", "@releaseDomain" };
    bool ok;

    if (!s)
        return NULL;
    s->limits = limits ? *limits : store_limits_default;
    s->root = store_node_new(&s->pool, "", 0, store_data_new(&perms_domain_0, 1, "", 0));
    s->special = store_node_new(&s->pool, "", 0, store_data_new(&perms_domain_0, 1, "", 0));
    ok = s->root && s->special && !store_count_prepare(s, NULL, 0);
    for (unsigned i = 0; ok && i < array_size(special); i++) {
        struct store_node *n = store_node_new(&s->pool, special[i], strlen(special[i]),
                                              store_data_new(&perms_domain_0, 1, "", 0));

        ok = n && !store_node_insert(&s->pool, s->special, n);
        if (!ok)
            store_node_put(&s->pool, n);
    }
    if (!ok) {
        store_free(s);
        return NULL;
    }
    store_count_add(s, NULL, 0, 1);
    return s;
}

void store_free(struct store *s)
{
    if (!s)
        return;
    store_points_free(s);
    store_node_put(&s->pool, s->root);
    store_node_put(&s->pool, s->special);
    for (unsigned i = 0; i < array_size(s->domains); i++) {
        for (unsigned k = 0; s->domains[i] && k < 256; k++)
            free(s->domains[i][k]);
        free(s->domains[i]);
    }
    free(s);
}

int store_client_add(struct store *s, struct store_client *c, unsigned domid,
                     void (*fire)(struct store_client *c, const char *path,
                                  const char *token))
{
    memset(c, 0, sizeof(*c));
    c->store = s;
    c->domid = domid;
    c->domain = store_domain_get(s, domid);
    c->fire = fire;
    return c->domain ? 0 : -ENOMEM;
}

int store_client_move(struct store_client *c, unsigned domid)
{
    struct store_domain *d = store_domain_get(c->store, domid);

    if (!d)
        return -ENOMEM;
    c->domain = d;
    c->domid = domid;
    return 0;
}

void store_client_reset(struct store_client *c)
{
    while (!LIST_EMPTY(&c->watches))
        store_watch_free(LIST_FIRST(&c->watches));
    while (!LIST_EMPTY(&c->txs))
        store_tx_free(LIST_FIRST(&c->txs));
}

void store_client_remove(struct store_client *c)
{
    if (c->store)
        store_client_reset(c);
    c->store = NULL;
}

unsigned store_access(const struct store_client *c, const struct store_data *d)
{
    unsigned target = c->domain->target;

    if (c->domid == 0 || store_data_owner(d) == c->domid || store_data_owner(d) == target)
        return STORE_READ | STORE_WRITE | STORE_OWNER;
    for (unsigned i = 1; i < d->nr_perms; i++) {
        if (d->perms[i].domid == c->domid || d->perms[i].domid == target)
            return d->perms[i].access;
    }
    return d->perms[0].access;
}

/* Whether a node of such a size may be c's doing. */
static bool node_fits(const struct store_client *c, size_t value_len, size_t names_bytes,
                      unsigned nr_perms)
{
    return c->domid == 0 || value_len + names_bytes + nr_perms * sizeof(struct store_perm) <=
           c->store->limits.node_bytes;
}

/* That a node is missing shows in the answer together with what the node it would
 * hang under permits: notes both, and that the first node missing on the way is. */
static int note_missing(struct store_tx *tx, const char *path, const char *rest)
{
    int rc = store_tx_note(tx, path, (size_t)(rest - path), STORE_TX_PERMS);
    const char *at = rest, *name;
    size_t len;

    store_path_next(&at, &name, &len);
    return rc ? rc : store_tx_note(tx, path, (size_t)(at - path), 0);
}

/* The node, or -ENOENT; -EACCES when c lacks want on it, or on the nearest node
 * above it when there is none (so that nobody learns what exists where he may
 * not read). */
static int lookup(struct store_client *c, struct store_tx *tx, const char *path, unsigned want,
                  unsigned note, struct store_node **out)
{
    struct store_node *nearest = NULL, *n;
    const char *rest;
    int rc;

    if (!store_path_ok(path))
        return -EINVAL;
    rc = tx ? store_tx_note(tx, path, strlen(path), note) : 0;
    if (rc)
        return rc;
    n = store_node_find(*store_view_root(c->store, tx), path, &nearest, &rest);
    if (!n && tx)
        rc = note_missing(tx, path, rest);
    if (rc)
        return rc;
    *out = n;
    if ((store_access(c, (n ? n : nearest)->data) & want) != want)
        return -EACCES;
    return n ? 0 : -ENOENT;
}

static int look(struct store_client *c, struct store_tx *tx, const char *path, unsigned note,
                const struct store_node **out)
{
    struct store_node *n;
    int rc = lookup(c, tx, path, STORE_READ, note, &n);

    if (!rc)
        *out = n;
    return rc;
}

int store_read(struct store_client *c, struct store_tx *tx, const char *path,
               const struct store_node **out)
{
    return look(c, tx, path, STORE_TX_VALUE | STORE_TX_PERMS, out);
}

int store_list(struct store_client *c, struct store_tx *tx, const char *path,
               const struct store_node **out)
{
    return look(c, tx, path, STORE_TX_CHILDREN | STORE_TX_PERMS, out);
}

static struct store_node *special_find(struct store *s, const char *path)
{
    return store_node_child(s->special, path, strlen(path));
}

int store_get_perms(struct store_client *c, struct store_tx *tx, const char *path,
                    const struct store_node **out)
{
    if (store_path_is_special(path)) {
        const struct store_node *n = special_find(c->store, path);

        if (!n)
            return -ENOENT;
        if (!(store_access(c, n->data) & STORE_READ))
            return -EACCES;
        *out = n;
        return 0;
    }
    return look(c, tx, path, STORE_TX_PERMS, out);
}

/* Gives the node at path, which exists, new data; takes over the reference. */
static int replace(struct store_client *c, struct store_tx *tx, const char *path,
                   struct store_data *data)
{
    struct store *s = c->store;
    struct store_data *old = NULL;
    struct store_node *n;
    int rc = data ? 0 : -ENOMEM;

    if (!rc && tx)
        rc = store_tx_note(tx, path, strlen(path), STORE_TX_VALUE | STORE_TX_PERMS |
                           STORE_TX_CHANGED | STORE_TX_EVENT);
    if (!rc && tx)
        rc = store_tx_charge(tx, data->value_len);
    if (!rc) {
        n = store_node_own(&s->pool, store_view_root(s, tx), path, strlen(path));
        rc = n ? 0 : -ENOMEM;
    }
    if (rc) {
        store_data_put(data);
        return rc;
    }
    old = store_data_get(n->data);
    store_node_set_data(&s->pool, n, data);
    if (!tx)
        store_fire(s, path, n, old, false);
    store_data_put(old);
    return 0;
}

/* The nodes named by rest, one below the other, the last with this value.  NULL:
 * no memory. */
static struct store_node *chain_new(struct store_pool *p, const char *rest,
                                    const struct store_perm *perms, unsigned nr_perms,
                                    const void *value, size_t len)
{
    struct store_node *top = NULL, *last = NULL;
    const char *at = rest, *name;
    size_t name_len;

    while (store_path_next(&at, &name, &name_len)) {
        struct store_node *n = store_node_new(p, name, name_len,
            *at ? store_data_new(perms, nr_perms, "", 0)
                : store_data_new(perms, nr_perms, value, len));

        if (!n || (last && store_node_insert(p, last, n))) {
            store_node_put(p, n);
            store_node_put(p, top);
            return NULL;
        }
        top = top ? top : n;
        last = n;
    }
    return top;
}

/* Notes and judges the creation of everything in path behind rest, *nr nodes. */
static int create_judge(struct store_client *c, struct store_tx *tx, const char *path,
                        const char *rest, const struct store_node *nearest, size_t len,
                        int *nr)
{
    size_t names_bytes = nearest->names_bytes, value_len = nearest->data->value_len;
    unsigned nr_perms = nearest->data->nr_perms;
    const char *at = rest, *name;
    size_t name_len;
    int rc = 0;

    for (*nr = 0; !rc && store_path_next(&at, &name, &name_len); (*nr)++) {
        /* the node above gets one more name */
        if (!node_fits(c, value_len, names_bytes + name_len + 1, nr_perms))
            return -ENOSPC;
        names_bytes = value_len = 0;
        if (tx)
            rc = store_tx_note(tx, path, (size_t)(at - path),
                               STORE_TX_CHANGED | (*at ? 0 : STORE_TX_EVENT));
    }
    if (!rc && tx)
        rc = store_tx_charge(tx, len);
    if (!rc && !node_fits(c, len, 0, nr_perms))
        rc = -ENOSPC;
    if (!rc && c->domid &&
        store_count(c->store, tx, c->domid) + *nr > (int)c->store->limits.nodes)
        rc = -ENOSPC;
    return rc;
}

/* A new node has the permissions of the one above it, but belongs to the domain
 * that makes it; domain 0 leaves it to the owner of the one above. */
static int create(struct store_client *c, struct store_tx *tx, const char *path,
                  const void *value, size_t len)
{
    struct store *s = c->store;
    struct store_node **root = store_view_root(s, tx);
    struct store_node *nearest = NULL, *top, *parent;
    struct store_data *perms;
    const char *rest = path;
    unsigned owner;
    int nr, rc;

    store_node_find(*root, path, &nearest, &rest);
    rc = create_judge(c, tx, path, rest, nearest, len, &nr);
    if (rc)
        return rc;
    perms = store_data_new(nearest->data->perms, nearest->data->nr_perms, "", 0);
    if (!perms)
        return -ENOMEM;
    owner = c->domid ? c->domid : store_data_owner(perms);
    perms->perms[0].domid = (uint16_t)owner;
    top = chain_new(&s->pool, rest, perms->perms, perms->nr_perms, value, len);
    store_data_put(perms);
    rc = top ? store_count_prepare(s, tx, owner) : -ENOMEM;
    if (!rc) {
        parent = store_node_own(&s->pool, root, path, (size_t)(rest - path));
        rc = parent ? store_node_insert(&s->pool, parent, top) : -ENOMEM;
    }
    if (rc) {
        store_node_put(&s->pool, top);
        return rc;
    }
    store_count_add(s, tx, owner, nr);
    if (!tx)
        store_fire(s, path, store_node_find(*root, path, NULL, NULL), NULL, false);
    return 0;
}

int store_write(struct store_client *c, struct store_tx *tx, const char *path,
                const void *value, size_t len)
{
    struct store_node *n;
    int rc = lookup(c, tx, path, STORE_WRITE, STORE_TX_VALUE | STORE_TX_PERMS, &n);

    if (rc == -ENOENT)
        return create(c, tx, path, value, len);
    if (rc)
        return rc;
    if (!node_fits(c, len, n->names_bytes, n->data->nr_perms))
        return -ENOSPC;
    return replace(c, tx, path, store_data_new(n->data->perms, n->data->nr_perms, value, len));
}

int store_mkdir(struct store_client *c, struct store_tx *tx, const char *path)
{
    struct store_node *n;
    int rc = lookup(c, tx, path, STORE_WRITE, STORE_TX_PERMS, &n);

    if (rc == -ENOENT)
        return create(c, tx, path, "", 0);
    return rc;
}

static int count_prepare_below(struct store *s, struct store_tx *tx, const struct store_node *n)
{
    int rc = store_count_prepare(s, tx, store_data_owner(n->data));

    for (uint32_t i = 0; !rc && i < n->children.nr; i++)
        rc = count_prepare_below(s, tx, n->children.v[i]);
    return rc;
}

static void count_remove_below(struct store *s, struct store_tx *tx, const struct store_node *n)
{
    store_count_add(s, tx, store_data_owner(n->data), -1);
    for (uint32_t i = 0; i < n->children.nr; i++)
        count_remove_below(s, tx, n->children.v[i]);
}

int store_tree_take(struct store *s, struct store_node **root, const char *path,
                    struct store_node **taken)
{
    const char *name = strrchr(path, '/') + 1;
    struct store_node *parent = store_node_own(&s->pool, root, path, (size_t)(name - 1 - path));

    if (!parent)
        return -ENOMEM;
    *taken = store_node_remove(&s->pool, parent, name, strlen(name));
    return *taken ? 0 : -ENOENT;
}

/* Removing what is not there succeeds if the node above is. */
static int rm_absent(struct store_client *c, struct store_tx *tx, const char *path)
{
    struct store_node *nearest = NULL;
    const char *rest = path;
    size_t above = (size_t)(strrchr(path, '/') - path);

    store_node_find(*store_view_root(c->store, tx), path, &nearest, &rest);
    return (size_t)(rest - path) == above ? 0 : -ENOENT;
}

int store_rm(struct store_client *c, struct store_tx *tx, const char *path)
{
    struct store *s = c->store;
    struct store_node *n;
    int rc;

    if (!strcmp(path, "/"))
        return -EINVAL;
    rc = lookup(c, tx, path, STORE_WRITE, STORE_TX_PERMS, &n);
    if (rc == -ENOENT)
        return rm_absent(c, tx, path);
    if (!rc && tx)
        rc = store_tx_note(tx, path, strlen(path), STORE_TX_TREE);
    if (!rc)
        rc = count_prepare_below(s, tx, n);
    if (!rc)
        rc = store_tree_take(s, store_view_root(s, tx), path, &n);
    if (rc)
        return rc;
    count_remove_below(s, tx, n);
    if (tx)     /* the note exists already: this cannot fail */
        store_tx_note(tx, path, strlen(path), STORE_TX_REMOVED | STORE_TX_EVENT);
    else
        store_fire(s, path, n, NULL, true);
    store_node_put(&s->pool, n);
    return 0;
}

static int special_set_perms(struct store_client *c, const char *path,
                             const struct store_perm *perms, unsigned nr)
{
    struct store_node *n = special_find(c->store, path);
    struct store_data *data;

    if (!n)
        return -EINVAL;
    if (!(store_access(c, n->data) & STORE_OWNER))
        return -EACCES;
    data = store_data_new(perms, nr, "", 0);
    if (!data)
        return -ENOMEM;
    store_node_set_data(&c->store->pool, n, data);
    return 0;
}

int store_set_perms(struct store_client *c, struct store_tx *tx, const char *path,
                    const struct store_perm *perms, unsigned nr)
{
    struct store *s = c->store;
    unsigned before;
    struct store_node *n;
    int rc;

    if (nr == 0)
        return -EINVAL;
    if (c->domid && nr > s->limits.perms)
        return -ENOSPC;
    if (store_path_is_special(path))
        return special_set_perms(c, path, perms, nr);
    rc = lookup(c, tx, path, STORE_WRITE | STORE_OWNER, STORE_TX_VALUE | STORE_TX_PERMS, &n);
    if (rc)
        return rc;
    before = store_data_owner(n->data);
    if (c->domid && perms[0].domid != before)
        return -EPERM;
    if (!node_fits(c, n->data->value_len, n->names_bytes, nr))
        return -ENOSPC;
    rc = store_count_prepare(s, tx, before);
    if (!rc)
        rc = store_count_prepare(s, tx, perms[0].domid);
    if (!rc)
        rc = replace(c, tx, path, store_data_new(perms, nr, store_data_value(n->data),
                                                 n->data->value_len));
    if (rc)
        return rc;
    store_count_add(s, tx, before, -1);
    store_count_add(s, tx, perms[0].domid, 1);
    return 0;
}
