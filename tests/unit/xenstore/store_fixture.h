/* SPDX-License-Identifier: MIT */
/* A store without server: domain 0 and two guests, and what their watches said. */
#ifndef XENOLITH_TESTS_XENSTORE_STORE_FIXTURE_H
#define XENOLITH_TESTS_XENSTORE_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "base/types.h"
#include "xen/store_tree.h"

struct fixture {
    struct store *s;
    struct store_client dom0, guest, other;     /* domains 0, 1, 2 */
    char events[4096];                          /* "domid:token=path " ... */
};

static struct fixture *fixture_now;

static inline void note_event(struct store_client *c, const char *path, const char *token)
{
    char *events = fixture_now->events;
    size_t len = strlen(events);

    snprintf(events + len, sizeof(fixture_now->events) - len, "%u:%s=%s ", c->domid, token, path);
}

/* What has fired since the last call. */
static inline const char *events(struct fixture *f)
{
    static char copy[sizeof(f->events)];

    memcpy(copy, f->events, sizeof(copy));
    f->events[0] = 0;
    return copy;
}

static inline int write_text(struct store_client *c, struct store_tx *tx, const char *path,
                             const char *value)
{
    return store_write(c, tx, path, value, strlen(value));
}

/* The value, or the error's name. */
static inline const char *text(struct store_client *c, struct store_tx *tx, const char *path)
{
    const struct store_node *n;
    static char value[4096];
    int rc = store_read(c, tx, path, &n);

    if (rc)
        return strerrorname_np(-rc);
    memcpy(value, store_data_value(n->data), n->data->value_len);
    value[n->data->value_len] = 0;
    return value;
}

/* The children's names, each followed by a space, or the error's name. */
static inline const char *names(struct store_client *c, struct store_tx *tx, const char *path)
{
    const struct store_node *n;
    static char list[8192];
    int rc = store_list(c, tx, path, &n);
    size_t len = 0;

    if (rc)
        return strerrorname_np(-rc);
    list[0] = 0;
    for (uint32_t i = 0; i < n->children.nr; i++)
        len += (size_t)snprintf(list + len, sizeof(list) - len, "%s ",
                                ((struct store_node *)n->children.v[i])->name);
    return list;
}

/* perms: domid, access, domid, access ... */
static inline int set_perms(struct store_client *c, struct store_tx *tx, const char *path,
                            unsigned nr, ...)
{
    struct store_perm perms[16];
    va_list ap;

    va_start(ap, nr);
    for (unsigned i = 0; i < nr; i++) {
        perms[i].domid = (uint16_t)va_arg(ap, int);
        perms[i].access = (uint16_t)va_arg(ap, int);
    }
    va_end(ap);
    return store_set_perms(c, tx, path, perms, nr);
}

static inline struct store_tx *tx_start(struct store_client *c)
{
    uint32_t id;

    assert_int_equal(store_tx_start(c, &id), 0);
    return store_tx_find(c, id);
}

static inline void assert_sound(struct fixture *f)
{
    const char *wrong = store_check(f->s, NULL);

    if (wrong)
        fail_msg("%s", wrong);
}

static inline int setup_limits(void **state, const struct store_limits *limits)
{
    struct fixture *f = calloc(1, sizeof(*f));

    fixture_now = f;
    f->s = store_create(limits);
    assert_non_null(f->s);
    assert_int_equal(store_client_add(f->s, &f->dom0, 0, note_event), 0);
    assert_int_equal(store_client_add(f->s, &f->guest, 1, note_event), 0);
    assert_int_equal(store_client_add(f->s, &f->other, 2, note_event), 0);
    assert_int_equal(write_text(&f->dom0, NULL, "/home", ""), 0);
    assert_int_equal(set_perms(&f->dom0, NULL, "/home", 2, 1, 0, 2, STORE_READ), 0);
    *state = f;
    return 0;
}

static inline int setup(void **state)
{
    return setup_limits(state, NULL);
}

/* Every test ends with a sound store in which no node is left over. */
static inline int teardown(void **state)
{
    struct fixture *f = *state;
    struct store_usage usage;

    store_client_remove(&f->guest);
    store_client_remove(&f->other);
    store_client_remove(&f->dom0);
    assert_sound(f);
    store_check(f->s, &usage);
    assert_int_equal(usage.nr_txs, 0);
    assert_int_equal(usage.nr_watches, 0);
    store_free(f->s);
    free(f);
    return 0;
}

#endif
