/* SPDX-License-Identifier: MIT */
/* The store: a tree of nodes with values and permissions, transactions, watches
 * and quotas, as docs/misc/xenstore.txt of Xen describes them.  Knows neither
 * sockets nor messages; one thread.  Functions return 0 or -errno, where errno
 * is the one the protocol names. */
#ifndef XENOLITH_XEN_STORE_TREE_H
#define XENOLITH_XEN_STORE_TREE_H

#include <sys/queue.h>

#include "xen/store_node.h"

/* What a domain other than 0 may use; the defaults are xenstored's. */
struct store_limits {
    unsigned nodes;             /* owned by the domain */
    unsigned node_bytes;        /* value, children's names and permissions of one */
    unsigned perms;             /* of one node */
    unsigned watches;
    unsigned transactions;      /* at a time */
    unsigned transaction_nodes; /* touched by one */
    unsigned transaction_bytes; /* values and paths held by one */
};

extern const struct store_limits store_limits_default;

struct store;
struct store_tx;
struct store_watch;
struct store_domain;

/* Somebody who uses the store: a connection.  Several may be of one domain and
 * then share its quotas.  The caller provides the memory; fields are the
 * store's. */
struct store_client {
    struct store *store;
    struct store_domain *domain;
    unsigned domid;
    /* A watch fired.  Must not call into the store; path is as the watch was
     * given (relative or not) and lives for the call only. */
    void (*fire)(struct store_client *c, const char *path, const char *token);
    LIST_HEAD(, store_watch) watches;
    LIST_HEAD(, store_tx) txs;
    uint32_t last_tx_id;
};

/* limits NULL: the defaults.  Holds "/" and the special nodes, no others. */
struct store *store_create(const struct store_limits *limits);
/* Every client must have been removed. */
void store_free(struct store *s);

int store_client_add(struct store *s, struct store_client *c, unsigned domid,
                     void (*fire)(struct store_client *c, const char *path,
                                  const char *token));
/* From now on of another domain; has neither watches nor transactions. */
int store_client_move(struct store_client *c, unsigned domid);
/* Its watches and transactions go, nothing fires. */
void store_client_reset(struct store_client *c);
void store_client_remove(struct store_client *c);

/* tx NULL: outside of any transaction.  *out is valid until the store is next
 * called. */
int store_read(struct store_client *c, struct store_tx *tx, const char *path,
               const struct store_node **out);
int store_list(struct store_client *c, struct store_tx *tx, const char *path,
               const struct store_node **out);
int store_get_perms(struct store_client *c, struct store_tx *tx, const char *path,
                    const struct store_node **out);
int store_write(struct store_client *c, struct store_tx *tx, const char *path,
                const void *value, size_t len);
int store_mkdir(struct store_client *c, struct store_tx *tx, const char *path);
int store_rm(struct store_client *c, struct store_tx *tx, const char *path);
/* nr at least 1; path may be special (then tx plays no role) */
int store_set_perms(struct store_client *c, struct store_tx *tx, const char *path,
                    const struct store_perm *perms, unsigned nr);

/* *id is never 0 */
int store_tx_start(struct store_client *c, uint32_t *id);
struct store_tx *store_tx_find(struct store_client *c, uint32_t id);
/* The transaction is gone afterwards, whatever is returned.  -EAGAIN: something
 * it saw or changed has been changed by others; nothing was done. */
int store_tx_end(struct store_tx *tx, bool commit);

#define STORE_DEPTH_ANY (~0u)

/* path is absolute or special.  skip: how many bytes of it (and of the path of
 * each event) the client did not give, being relative to its home.  depth: how
 * many components below path still count.  Does not fire. */
int store_watch_add(struct store_client *c, const char *path, const char *token,
                    size_t skip, unsigned depth);
int store_watch_remove(struct store_client *c, const char *path, const char *token);
/* Fires the watches on a special path for those who may read it. */
void store_fire_special(struct store *s, const char *path);

/* domid may from now on do what target may (XS_SET_TARGET). */
int store_domain_set_target(struct store *s, unsigned domid, unsigned target);
/* The domain is gone for good and its number may be given again: what it still
 * owns becomes domain 0's, entries that name it are dropped.  Walks the whole
 * tree: once in a domain's life. */
int store_domain_forget(struct store *s, unsigned domid);

struct store_usage {
    size_t nr_nodes;            /* of the tree everybody sees */
    size_t nr_nodes_alive;      /* with those only transactions see */
    size_t nr_watches, nr_txs;
};

/* Verifies what the implementation relies on (order of children, sums, counts
 * of each domain) by walking everything.  NULL, or what is wrong.  usage may be
 * NULL. */
const char *store_check(const struct store *s, struct store_usage *usage);

#endif
