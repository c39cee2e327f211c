/* SPDX-License-Identifier: MIT */
/* The store's view of itself, verified: for tests, for the fuzzer and for the
 * protocol's CONTROL check. */
#include <string.h>

#include "xen/store_priv.h"
#include "xen/xs_proto.h"

struct check {
    const struct store *s;
    size_t nr_nodes;
    unsigned owned[STORE_DOMIDS / 256];     /* by the domains of one table page */
    unsigned page;
};

static const char *check_node(struct check *c, const struct store_node *n, size_t path_len)
{
    uint32_t names_bytes = 0;
    const char *wrong = NULL;

    c->nr_nodes++;
    if (n->refs == 0 || n->data->refs == 0)
        return "a node in the tree without a reference";
    if (n->data->nr_perms == 0)
        return "a node without an owner";
    if (path_len > XENSTORE_ABS_PATH_MAX)
        return "a path longer than allowed";
    if (max_of(n->gen_value, n->gen_tree) > c->s->pool.gen)
        return "a change number from the future";
    if (store_data_owner(n->data) >> 8 == c->page)
        c->owned[store_data_owner(n->data) & 0xff]++;
    for (uint32_t i = 0; i < n->children.nr && !wrong; i++) {
        const struct store_node *child = n->children.v[i];
        size_t len = strlen(child->name);

        if (len == 0)
            return "a node without a name";
        for (size_t k = 0; k < len; k++) {
            if (!store_path_char_ok(child->name[k]) || child->name[k] == '/')
                return "a node with a name that is none";
        }
        if (i && strcmp(((struct store_node *)n->children.v[i - 1])->name, child->name) >= 0)
            return "children out of order";
        names_bytes += (uint32_t)len + 1;
        wrong = check_node(c, child, path_len + 1 + len);
    }
    if (!wrong && names_bytes != n->names_bytes)
        wrong = "the sum of the children's names is wrong";
    return wrong;
}

const char *store_check(const struct store *s, struct store_usage *usage)
{
    struct check c = { .s = s };
    size_t nr_watches = 0, nr_txs = 0;
    const char *wrong;

    for (unsigned page = 0; page < array_size(s->domains); page++) {
        struct store_domain *const *domains = s->domains[page];

        if (!domains)
            continue;
        c.page = page;
        c.nr_nodes = 0;
        memset(c.owned, 0, sizeof(c.owned));
        wrong = check_node(&c, s->root, 0);
        if (wrong)
            return wrong;
        for (unsigned k = 0; k < 256; k++) {
            if (c.owned[k] != (domains[k] ? domains[k]->nr_nodes : 0))
                return "a domain's count of nodes is wrong";
            if (domains[k]) {
                nr_watches += domains[k]->nr_watches;
                nr_txs += domains[k]->nr_txs;
            }
        }
    }
    if (nr_watches != s->nr_watches || nr_txs != s->nr_txs)
        return "the domains' watches or transactions do not add up";
    if (nr_txs == 0 && s->pool.nr_nodes != c.nr_nodes + s->special->children.nr + 1)
        return "nodes alive that are in no tree";
    if (usage)
        *usage = (struct store_usage){ c.nr_nodes, s->pool.nr_nodes, nr_watches, nr_txs };
    return NULL;
}
