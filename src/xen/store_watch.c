/* SPDX-License-Identifier: MIT */
/* Watches, and which of them an event concerns.
 *
 * Watches hang on points, a second tree with a point for each path somebody
 * watches and for all paths above; it does not matter whether such a node
 * exists.  (Special paths, being @..., are children of its root like others.)  An
 * event walks the points from the root along its path and ends where they end,
 * so it meets only watches that match.  The removal of a node concerns also the
 * watches on nodes below it: then points and removed nodes are walked side by
 * side, where both are.
 *
 * A watcher hears of a node if he may read it, or the node above it, or might
 * have read it before the change (docs/misc/xenstore.txt: he must learn of the
 * removal of what he could read). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xen/store_priv.h"
#include "xen/xs_proto.h"

struct store_point {
    struct store_point *above;
    struct store_names below;           /* of struct store_point */
    LIST_HEAD(, store_watch) watches;
    char name[];
};

#define NAME_AT offsetof(struct store_point, name)

struct store_watch {
    LIST_ENTRY(store_watch) in_client, in_point;
    struct store_client *client;
    struct store_point *point;
    size_t skip;
    unsigned depth;
    const char *token;
    char path[];                        /* then the token */
};

static struct store_point *point_new(struct store_point *above, const char *name, size_t len)
{
    struct store_point *p = calloc(1, sizeof(*p) + len + 1);

    if (!p)
        return NULL;
    memcpy(p->name, name, len);
    p->above = above;
    LIST_INIT(&p->watches);
    if (above && store_names_insert(&above->below, NAME_AT, p)) {
        free(p);
        return NULL;
    }
    return p;
}

/* Frees p and those above it that serve nobody any more. */
static void point_prune(struct store *s, struct store_point *p)
{
    while (p && LIST_EMPTY(&p->watches) && p->below.nr == 0) {
        struct store_point *above = p->above;

        if (above)
            store_names_remove(&above->below, NAME_AT, p->name, strlen(p->name));
        else
            s->points = NULL;
        free(p->below.v);
        free(p);
        p = above;
    }
}

/* The point at path, with make: made if need be.  NULL: none, or no memory. */
static struct store_point *point_get(struct store *s, const char *path, bool make)
{
    const char *at = path, *name;
    struct store_point *p;
    size_t len;

    if (!s->points && make)
        s->points = point_new(NULL, "", 0);
    p = s->points;
    while (p && store_path_next(&at, &name, &len)) {
        struct store_point *next = store_names_find(&p->below, NAME_AT, name, len);

        if (!next && make) {
            next = point_new(p, name, len);
            if (!next)
                point_prune(s, p);
        }
        p = next;
    }
    return p;
}

void store_points_free(struct store *s)
{
    /* Watches went with their clients, and points with their watches; only a
     * failed allocation can have left a bare root. */
    point_prune(s, s->points);
}

static struct store_watch *watch_find(struct store_client *c, const struct store_point *p,
                                      const char *path, const char *token)
{
    struct store_watch *w;

    if (!p)
        return NULL;
    LIST_FOREACH(w, &p->watches, in_point) {
        if (w->client == c && !strcmp(w->token, token) && !strcmp(w->path, path))
            return w;
    }
    return NULL;
}

int store_watch_add(struct store_client *c, const char *path, const char *token,
                    size_t skip, unsigned depth)
{
    size_t path_bytes = strlen(path) + 1, token_bytes = strlen(token) + 1;
    struct store *s = c->store;
    struct store_point *p;
    struct store_watch *w;

    if (!store_path_is_special(path) && !store_path_ok(path))
        return -EINVAL;
    if (watch_find(c, point_get(s, path, false), path, token))
        return -EEXIST;
    if (c->domid && c->domain->nr_watches >= s->limits.watches)
        return -E2BIG;
    p = point_get(s, path, true);
    w = p ? malloc(sizeof(*w) + path_bytes + token_bytes) : NULL;
    if (!w) {
        point_prune(s, p);
        return -ENOMEM;
    }
    *w = (struct store_watch){
        .client = c, .point = p, .skip = skip, .depth = depth, .token = w->path + path_bytes,
    };
    memcpy(w->path, path, path_bytes);
    memcpy(w->path + path_bytes, token, token_bytes);
    LIST_INSERT_HEAD(&p->watches, w, in_point);
    LIST_INSERT_HEAD(&c->watches, w, in_client);
    c->domain->nr_watches++;
    s->nr_watches++;
    return 0;
}

void store_watch_free(struct store_watch *w)
{
    struct store *s = w->client->store;

    LIST_REMOVE(w, in_point);
    LIST_REMOVE(w, in_client);
    w->client->domain->nr_watches--;
    s->nr_watches--;
    point_prune(s, w->point);
    free(w);
}

int store_watch_remove(struct store_client *c, const char *path, const char *token)
{
    struct store_watch *w = watch_find(c, point_get(c->store, path, false), path, token);

    if (!w)
        return -ENOENT;
    store_watch_free(w);
    return 0;
}

/* An event as the watches along its path see it. */
struct event {
    const char *path;
    const struct store_data *now, *old, *above;     /* old and above may be NULL */
};

static bool event_readable(const struct event *e, const struct store_client *c)
{
    return (store_access(c, e->now) & STORE_READ) ||
           (e->old && (store_access(c, e->old) & STORE_READ)) ||
           (e->above && (store_access(c, e->above) & STORE_READ));
}

/* distance: components from the point to the event's node */
static void point_fire(const struct store_point *p, const struct event *e, unsigned distance)
{
    struct store_watch *w;

    LIST_FOREACH(w, &p->watches, in_point) {
        if (distance <= w->depth && event_readable(e, w->client))
            w->client->fire(w->client, e->path + w->skip, w->token);
    }
}

/* path holds the first len bytes, n's, and has room for the rest. */
static void fire_below(const struct store_point *p, const struct store_node *n,
                       char *path, size_t len)
{
    for (uint32_t i = 0; i < p->below.nr; i++) {
        const struct store_point *point = p->below.v[i];
        size_t name_len = strlen(point->name);
        const struct store_node *child = store_node_child(n, point->name, name_len);
        struct event e = { .path = path, .above = n->data };

        if (!child)
            continue;
        path[len] = '/';
        memcpy(path + len + 1, point->name, name_len + 1);
        e.now = child->data;
        point_fire(point, &e, 0);
        fire_below(point, child, path, len + 1 + name_len);
    }
}

static unsigned components(const char *path)
{
    const char *at = path, *name;
    unsigned nr = 0;
    size_t len;

    while (store_path_next(&at, &name, &len))
        nr++;
    return nr;
}

void store_fire(struct store *s, const char *path, const struct store_node *node,
                const struct store_data *old, bool removed)
{
    struct event e = { .path = path, .now = node->data, .old = old };
    const struct store_point *p = s->points;
    const struct store_node *n = s->root;
    const char *at = path, *name;
    unsigned distance = components(path);
    char below[XENSTORE_ABS_PATH_MAX + 2];
    size_t len;

    if (!p)
        return;
    for (const char *q = path; n && store_path_next(&q, &name, &len);) {
        e.above = n->data;
        n = store_node_child(n, name, len);
    }
    while (p) {
        point_fire(p, &e, distance);
        if (!distance)
            break;
        store_path_next(&at, &name, &len);
        p = store_names_find(&p->below, NAME_AT, name, len);
        distance--;
    }
    if (p && removed) {
        len = strlen(path);
        memcpy(below, path, len + 1);
        fire_below(p, node, below, len);
    }
}

void store_fire_special(struct store *s, const char *path)
{
    const struct store_node *n = store_node_child(s->special, path, strlen(path));
    const struct store_point *p = point_get(s, path, false);
    struct event e = { .path = path };

    if (!n || !p)
        return;
    e.now = n->data;
    point_fire(p, &e, 0);
}
