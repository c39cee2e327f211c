/* SPDX-License-Identifier: MIT */
/* Transactions.
 *
 * A transaction starts with the current version of the tree as its base (one
 * reference, see store_node.c) and makes its changes to a private version that
 * grows out of it.  So it sees the store as it was at its start plus its own
 * changes (snapshot isolation), and nobody sees anything of it before its end.
 *
 * For every path it touches it keeps a note: which aspects of the node it
 * depends on, and their change numbers in the base:
 *   read        value, permissions          list        children, permissions
 *   write       value, permissions          mkdir       permissions
 *   get perms   permissions                 rm          everything at and below
 * and for a node that did not exist: that it did not, that the first node missing
 * on the way to it did not, and the permissions of the node above that.  Whoever
 * makes a node does not depend on the list of children he adds it to.
 *
 * At the end the notes are compared with the current version.  If all numbers are
 * equal, and all that did not exist is still absent, each operation would have
 * given the same answer had it been done now, so doing the changes now is a
 * serial execution.  Otherwise the answer is -EAGAIN.
 * Change numbers are never given twice, so a node that was removed and made again
 * is seen as changed.  Two transactions that touch different nodes, even two
 * that make different children of one node, do not conflict.
 *
 * The changes are then carried over to a new version made from the current one,
 * first all removals, then everything made or changed, taken as it finally is in
 * the private version (only a removal can make a node vanish, and whatever then
 * exists below it was made after it, by a noted path: so the order of the two
 * steps is enough).  If memory runs out the new version is dropped and nothing
 * has happened.  Watches fire after the new version has become current, one event
 * for each path that was named in a change, in the order in which the
 * transaction first touched them.
 *
 * The cost of everything is proportional to what the transaction touched. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xen/store_priv.h"

#define NOTE_BUCKETS_FIRST 16

enum { ASPECT_VALUE, ASPECT_PERMS, ASPECT_CHILDREN, ASPECT_TREE, NR_ASPECTS };

struct tx_note {
    struct tx_note *next_in_bucket;
    STAILQ_ENTRY(tx_note) in_order;
    uint32_t hash;
    unsigned what;                  /* STORE_TX_* */
    bool existed;
    uint64_t gen[NR_ASPECTS];       /* in the base */
    struct store_node *removed;     /* at the end: what was taken out */
    char path[];
};

struct store_tx {
    LIST_ENTRY(store_tx) in_client;
    struct store_client *client;
    uint32_t id;
    struct store_node *base, *root;
    struct store_delta delta;
    struct tx_note **buckets;
    unsigned nr_buckets, nr_notes;
    size_t held_bytes;
    STAILQ_HEAD(, tx_note) notes;
};

struct store_node **store_tx_root(struct store_tx *tx)
{
    return &tx->root;
}

struct store_delta *store_tx_delta(struct store_tx *tx)
{
    return &tx->delta;
}

struct store_node **store_view_root(struct store *s, struct store_tx *tx)
{
    return tx ? &tx->root : &s->root;
}

int store_tx_charge(struct store_tx *tx, size_t bytes)
{
    if (tx->client->domid &&
        tx->held_bytes + bytes > tx->client->store->limits.transaction_bytes)
        return -ENOSPC;
    tx->held_bytes += bytes;
    return 0;
}

static uint32_t path_hash(const char *path, size_t len)
{
    uint32_t h = 2166136261u;       /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)path[i]) * 16777619u;
    return h;
}

static struct tx_note *note_find(const struct store_tx *tx, const char *path, size_t len,
                                 uint32_t hash)
{
    struct tx_note *n = tx->nr_buckets ? tx->buckets[hash & (tx->nr_buckets - 1)] : NULL;

    while (n && (n->hash != hash || strncmp(n->path, path, len) || n->path[len]))
        n = n->next_in_bucket;
    return n;
}

static int buckets_grow(struct store_tx *tx)
{
    unsigned nr = tx->nr_buckets ? tx->nr_buckets * 2 : NOTE_BUCKETS_FIRST;
    struct tx_note **buckets = calloc(nr, sizeof(*buckets));
    struct tx_note *n;

    if (!buckets)
        return -ENOMEM;
    STAILQ_FOREACH(n, &tx->notes, in_order) {
        n->next_in_bucket = buckets[n->hash & (nr - 1)];
        buckets[n->hash & (nr - 1)] = n;
    }
    free(tx->buckets);
    tx->buckets = buckets;
    tx->nr_buckets = nr;
    return 0;
}

static void gens_of(const struct store_node *n, uint64_t gen[NR_ASPECTS])
{
    gen[ASPECT_VALUE] = n->gen_value;
    gen[ASPECT_PERMS] = n->gen_perms;
    gen[ASPECT_CHILDREN] = n->gen_children;
    gen[ASPECT_TREE] = n->gen_tree;
}

int store_tx_note(struct store_tx *tx, const char *path, size_t len, unsigned what)
{
    const struct store_limits *limits = &tx->client->store->limits;
    uint32_t hash = path_hash(path, len);
    struct tx_note *n = note_find(tx, path, len, hash);
    const struct store_node *base;
    int rc;

    if (n) {
        n->what |= what;
        return 0;
    }
    if (tx->client->domid && tx->nr_notes >= limits->transaction_nodes)
        return -ENOSPC;
    rc = store_tx_charge(tx, sizeof(*n) + len + 1);
    if (!rc && tx->nr_notes >= tx->nr_buckets)
        rc = buckets_grow(tx);
    if (rc)
        return rc;
    n = calloc(1, sizeof(*n) + len + 1);
    if (!n)
        return -ENOMEM;
    n->hash = hash;
    n->what = what;
    memcpy(n->path, path, len);
    base = store_node_find(tx->base, n->path, NULL, NULL);
    n->existed = base != NULL;
    if (base)
        gens_of(base, n->gen);
    n->next_in_bucket = tx->buckets[hash & (tx->nr_buckets - 1)];
    tx->buckets[hash & (tx->nr_buckets - 1)] = n;
    STAILQ_INSERT_TAIL(&tx->notes, n, in_order);
    tx->nr_notes++;
    return 0;
}

int store_tx_start(struct store_client *c, uint32_t *id)
{
    struct store *s = c->store;
    struct store_tx *tx;

    if (c->domid && c->domain->nr_txs >= s->limits.transactions)
        return -ENOSPC;
    tx = calloc(1, sizeof(*tx));
    if (!tx)
        return -ENOMEM;
    tx->client = c;
    do {
        tx->id = ++c->last_tx_id;
    } while (tx->id == 0 || store_tx_find(c, tx->id));
    STAILQ_INIT(&tx->notes);
    tx->base = store_node_get(s->root);
    tx->root = store_node_get(s->root);
    LIST_INSERT_HEAD(&c->txs, tx, in_client);
    c->domain->nr_txs++;
    s->nr_txs++;
    *id = tx->id;
    return 0;
}

struct store_tx *store_tx_find(struct store_client *c, uint32_t id)
{
    struct store_tx *tx;

    LIST_FOREACH(tx, &c->txs, in_client) {
        if (tx->id == id)
            return tx;
    }
    return NULL;
}

void store_tx_free(struct store_tx *tx)
{
    struct store_client *c = tx->client;
    struct store *s = c->store;

    while (!STAILQ_EMPTY(&tx->notes)) {
        struct tx_note *n = STAILQ_FIRST(&tx->notes);

        STAILQ_REMOVE_HEAD(&tx->notes, in_order);
        store_node_put(&s->pool, n->removed);
        free(n);
    }
    LIST_REMOVE(tx, in_client);
    c->domain->nr_txs--;
    s->nr_txs--;
    store_node_put(&s->pool, tx->base);
    store_node_put(&s->pool, tx->root);
    free(tx->buckets);
    free(tx->delta.v);
    free(tx);
}

static bool note_holds(const struct tx_note *note, const struct store_node *now)
{
    uint64_t gen[NR_ASPECTS];

    if (note->existed != (now != NULL))
        return false;
    if (!now)
        return true;
    gens_of(now, gen);
    for (unsigned i = 0; i < NR_ASPECTS; i++) {
        if ((note->what & (1u << i)) && gen[i] != note->gen[i])
            return false;
    }
    return true;
}

/* Others may have used up the quota since the transaction began. */
static int quota_judge(const struct store_tx *tx)
{
    const struct store_client *c = tx->client;
    unsigned limit = c->store->limits.nodes;

    for (unsigned i = 0; c->domid && i < tx->delta.nr; i++) {
        if (tx->delta.v[i].nodes > 0 && tx->delta.v[i].domid == c->domid &&
            (int)c->domain->nr_nodes + tx->delta.v[i].nodes > (int)limit)
            return -ENOSPC;
    }
    return 0;
}

/* Makes the node at path in *root what it is in the transaction's version, but
 * for its children; those above it that are missing come with it. */
static int put_node(struct store_tx *tx, struct store_node **root, const char *path)
{
    struct store_pool *p = &tx->client->store->pool;
    const struct store_node *mine = tx->root;
    const char *at = path, *name;
    struct store_node *n;
    size_t len;

    while (store_path_next(&at, &name, &len)) {
        size_t above = (size_t)(name - path) - 1;
        struct store_node *parent;

        mine = store_node_child(mine, name, len);
        if (!mine)
            return 0;       /* removed again; the removal is noted elsewhere */
        parent = store_node_own(p, root, path, above);
        if (!parent)
            return -ENOMEM;
        if (store_node_child(parent, name, len))
            continue;
        n = store_node_new(p, name, len, store_data_get(mine->data));
        if (!n || store_node_insert(p, parent, n)) {
            store_node_put(p, n);
            return -ENOMEM;
        }
    }
    n = store_node_own(p, root, path, strlen(path));
    if (!n)
        return -ENOMEM;
    if (n->data != mine->data)
        store_node_set_data(p, n, store_data_get(mine->data));
    return 0;
}

static int carry_over(struct store_tx *tx, struct store_node **root)
{
    struct store *s = tx->client->store;
    struct tx_note *n;
    int rc = 0;

    STAILQ_FOREACH(n, &tx->notes, in_order) {
        if (!(n->what & STORE_TX_REMOVED) || !store_node_find(*root, n->path, NULL, NULL))
            continue;
        rc = store_tree_take(s, root, n->path, &n->removed);
        if (rc)
            return rc;
    }
    STAILQ_FOREACH(n, &tx->notes, in_order) {
        if (n->what & STORE_TX_CHANGED)
            rc = put_node(tx, root, n->path);
        if (rc)
            return rc;
    }
    return 0;
}

static void fire_all(struct store_tx *tx, struct store_node *before)
{
    struct store *s = tx->client->store;
    struct tx_note *n;

    STAILQ_FOREACH(n, &tx->notes, in_order) {
        struct store_node *now, *old;

        if (!(n->what & STORE_TX_EVENT))
            continue;
        if (n->removed)
            store_fire(s, n->path, n->removed, NULL, true);
        now = store_node_find(s->root, n->path, NULL, NULL);
        old = store_node_find(before, n->path, NULL, NULL);
        if (now && (n->what & STORE_TX_CHANGED))
            store_fire(s, n->path, now, old ? old->data : NULL, false);
    }
}

static int commit(struct store_tx *tx)
{
    struct store *s = tx->client->store;
    struct store_node *root, *before;
    struct tx_note *n;
    int rc;

    STAILQ_FOREACH(n, &tx->notes, in_order) {
        if (!note_holds(n, store_node_find(s->root, n->path, NULL, NULL)))
            return -EAGAIN;
    }
    rc = quota_judge(tx);
    if (rc)
        return rc;
    root = store_node_get(s->root);
    rc = carry_over(tx, &root);
    if (rc) {
        store_node_put(&s->pool, root);
        return rc;
    }
    before = s->root;
    s->root = root;
    for (unsigned i = 0; i < tx->delta.nr; i++)
        store_count_add(s, NULL, tx->delta.v[i].domid, tx->delta.v[i].nodes);
    fire_all(tx, before);
    store_node_put(&s->pool, before);
    return 0;
}

int store_tx_end(struct store_tx *tx, bool do_commit)
{
    int rc = do_commit ? commit(tx) : 0;

    store_tx_free(tx);
    return rc;
}
