/* SPDX-License-Identifier: MIT */
/* States.  The frontend's is read afresh whenever its watch fires: watches may
 * be late and may be merged, and the guest may write anything.
 *
 *   frontend is        backend was                     backend does -> becomes
 *   Initialising       Connected                       disconnect -> InitWait (*)
 *                      Closing, Closed                 -> InitWait
 *   Initialised,       InitWait, Closed                connect -> Connected,
 *   Connected                                          or "error" -> Closing
 *   Closing            any but Closed                  -> Closing
 *   Closed, no node    any                             disconnect -> Closed
 *   anything else      any                             nothing
 *
 * (*) a new kernel (kexec) or a new driver began without closing.
 *
 * The frontend's rings may be in use until it says Closed, so Closing alone does
 * not disconnect; a guest that powers off waits for no more than our Closing.
 *
 * A device that is to go (xenbus_back_close()) is Closing until the frontend is Closed, or
 * begins anew, or its node has gone; then it is Closed, its directories go, and it connects no
 * more.  One whose frontend says Closed is still connected then: ops->closed(). */
#include "dev/xenbus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xen/xen.h>
#include <xen/io/xenbus.h>

#include "base/log.h"
#include "base/num.h"

#define PATH_BYTES   128
#define TX_TRIES_MAX 16
/* Errors of one device that go to the log; a guest can make any number. */
#define ERRORS_LOGGED_MAX 16

struct xenbus_back {
    struct xs_client *xs;
    struct xs_watch *watch;
    const struct xenbus_back_ops *ops;
    void *arg;
    enum xenbus_state state;
    bool connected;
    bool leaving;               /* xenbus_back_close() */
    bool gone;                  /* the directories are: nothing is written any more */
    unsigned nr_errors;
    char front[PATH_BYTES], front_parent[PATH_BYTES], back[PATH_BYTES], back_parent[PATH_BYTES];
};

static void path_join(char *buf, size_t size, const char *dir, const char *key)
{
    snprintf(buf, size, "%s/%s", dir, key);
}

static int node_write(struct xenbus_back *b, uint32_t tx, const char *dir, const char *key,
                      const char *value)
{
    char path[2 * PATH_BYTES];

    if (b->gone)
        return 0;
    path_join(path, sizeof(path), dir, key);
    return xs_client_write(b->xs, tx, path, value);
}

static void back_state_set(struct xenbus_back *b, enum xenbus_state state)
{
    char value[16];
    int rc;

    if (b->state == state)
        return;
    snprintf(value, sizeof(value), "%d", state);
    rc = node_write(b, XS_NO_TRANSACTION, b->back, "state", value);
    if (rc)
        log_error("%s/state cannot be written: %s", b->back, strerror(-rc));
    b->state = state;
}

static void back_disconnect(struct xenbus_back *b)
{
    if (b->connected) {
        b->connected = false;
        b->ops->disconnect(b->arg);
    }
}

void xenbus_back_error(struct xenbus_back *b, const char *text)
{
    char clean[512];

    snprintf(clean, sizeof(clean), "%s", text);
    /* it may quote the guest, and terminals obey control characters */
    for (char *c = clean; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    if (b->nr_errors < ERRORS_LOGGED_MAX)
        log_error("%s: %s", b->back, clean);
    else if (b->nr_errors == ERRORS_LOGGED_MAX)
        log_error("%s: further errors of this device are not logged", b->back);
    b->nr_errors += b->nr_errors <= ERRORS_LOGGED_MAX;
    node_write(b, XS_NO_TRANSACTION, b->back, "error", clean);
}

void xenbus_back_note(struct xenbus_back *b, const char *key, const char *value)
{
    int rc = node_write(b, XS_NO_TRANSACTION, b->back, key, value);

    if (rc)
        log_error("%s/%s cannot be written: %s", b->back, key, strerror(-rc));
}

static void back_connect(struct xenbus_back *b)
{
    struct err e = { 0 };
    char text[1024];

    if (!b->ops->connect(b->arg, &e)) {
        b->connected = true;
        back_state_set(b, XenbusStateConnected);
        return;
    }
    xenbus_back_error(b, err_str(&e, text, sizeof(text)));
    back_state_set(b, XenbusStateClosing);
}

/* XenbusStateUnknown when there is none, or nonsense. */
static enum xenbus_state front_state(struct xenbus_back *b)
{
    struct err e = { 0 };
    uint32_t state;

    if (xenbus_front_read_u32(b, "state", XenbusStateUnknown, XenbusStateReconfigured, &state, &e))
        return e.code ? XenbusStateReconfigured : XenbusStateUnknown;
    return (enum xenbus_state)state;
}

static void directories_remove(struct xenbus_back *b);

/* The frontend has let go of the device, or (says_so) says that it has. */
static void front_gone(struct xenbus_back *b, bool says_so)
{
    if (!b->leaving || !says_so)
        back_disconnect(b);
    back_state_set(b, XenbusStateClosed);
    if (!b->leaving)
        return;
    directories_remove(b);
    b->gone = true;
    b->ops->closed(b->arg);
}

static void front_changed(void *arg, const char *path)
{
    struct xenbus_back *b = arg;

    if (b->gone)
        return;
    switch (front_state(b)) {
    case XenbusStateInitialising:
        if (b->leaving)
            front_gone(b, false);
        else if (b->state != XenbusStateInitWait) {
            back_disconnect(b);
            back_state_set(b, XenbusStateInitWait);
        }
        break;
    case XenbusStateInitialised:
    case XenbusStateConnected:
        if (!b->leaving &&
            (b->state == XenbusStateInitWait || b->state == XenbusStateClosed))
            back_connect(b);
        break;
    case XenbusStateClosing:
        if (b->state != XenbusStateClosed)
            back_state_set(b, XenbusStateClosing);
        break;
    case XenbusStateClosed:
        front_gone(b, true);
        break;
    case XenbusStateUnknown:
        front_gone(b, false);
        break;
    default:
        break;
    }
}

char *xenbus_front_read(struct xenbus_back *b, const char *key)
{
    char path[2 * PATH_BYTES];

    path_join(path, sizeof(path), b->front, key);
    return xs_client_read(b->xs, XS_NO_TRANSACTION, path);
}

int xenbus_front_read_u32(struct xenbus_back *b, const char *key, uint32_t min, uint32_t max,
                          uint32_t *out, struct err *e)
{
    char *text = xenbus_front_read(b, key);
    uint64_t v;
    int rc;

    if (!text)
        return -ENOENT;
    rc = num_parse_u64(text, min, max, &v);
    if (rc) {
        err_at(e, NULL, 0, key);
        rc = err_set(e, EINVAL, "the frontend wrote '%.32s': expected a number from %u to %u",
                     text, min, max);
    } else {
        *out = (uint32_t)v;
    }
    free(text);
    return rc;
}

/* ---- directories ---- */

/* Runs write(b, arg, tx) in a transaction, again while others interfere. */
static int in_transaction(struct xenbus_back *b,
                          int (*write)(struct xenbus_back *b, const void *arg, uint32_t tx),
                          const void *arg)
{
    int rc = -EAGAIN;

    for (unsigned tries = 0; rc == -EAGAIN && tries < TX_TRIES_MAX; tries++) {
        uint32_t tx;
        int written;

        rc = xs_client_tx_start(b->xs, &tx);
        if (rc)
            return rc;
        written = write(b, arg, tx);
        rc = xs_client_tx_end(b->xs, tx, !written);
        if (written)
            return written;
    }
    return rc;
}

/* One directory with its nodes; owner and reader are domain numbers. */
static int directory_create(struct xenbus_back *b, uint32_t tx, const char *dir, unsigned owner,
                            unsigned reader, const struct xenbus_node *node, unsigned nr)
{
    char perm[2][16];
    const char *const perms[] = { perm[0], perm[1] };
    int rc;

    snprintf(perm[0], sizeof(perm[0]), "n%u", owner);
    snprintf(perm[1], sizeof(perm[1]), "r%u", reader);
    /* nodes get the permissions of the directory they are made in */
    rc = xs_client_mkdir(b->xs, tx, dir);
    if (!rc)
        rc = xs_client_set_perms(b->xs, tx, dir, perms, array_size(perms));
    for (unsigned i = 0; !rc && i < nr; i++)
        rc = node_write(b, tx, dir, node[i].key, node[i].value);
    return rc;
}

static int directories_create(struct xenbus_back *b, const void *arg, uint32_t tx)
{
    const struct xenbus_back_params *p = arg;
    struct xenbus_node front[] = { { "backend", "" }, { "backend-id", "0" }, { "state", "1" } };
    struct xenbus_node back[] = {
        { "frontend", "" }, { "frontend-id", "" }, { "online", "1" }, { "state", "2" },
    };
    int rc;

    _Static_assert(XenbusStateInitialising == 1 && XenbusStateInitWait == 2, "the states above");
    snprintf(front[0].value, sizeof(front[0].value), "%s", b->back);
    snprintf(back[0].value, sizeof(back[0].value), "%s", b->front);
    snprintf(back[1].value, sizeof(back[1].value), "%u", p->domid);
    /* left over from a guest that had this number before */
    xs_client_rm(b->xs, tx, b->front);
    xs_client_rm(b->xs, tx, b->back);
    rc = directory_create(b, tx, b->back, 0, p->domid, p->back, p->nr_back);
    if (!rc)
        rc = directory_create(b, tx, b->back, 0, p->domid, back, array_size(back));
    if (!rc)
        rc = directory_create(b, tx, b->front, p->domid, 0, p->front, p->nr_front);
    if (!rc)
        rc = directory_create(b, tx, b->front, p->domid, 0, front, array_size(front));
    return rc;
}

/* The guest's last device of this type takes their common parent along. */
static void parent_remove(struct xenbus_back *b, const char *dir)
{
    unsigned nr = 0;
    char *children = xs_client_directory(b->xs, XS_NO_TRANSACTION, dir, &nr);

    if (children && !nr)
        xs_client_rm(b->xs, XS_NO_TRANSACTION, dir);
    free(children);
}

static void directories_remove(struct xenbus_back *b)
{
    xs_client_rm(b->xs, XS_NO_TRANSACTION, b->front);
    xs_client_rm(b->xs, XS_NO_TRANSACTION, b->back);
    parent_remove(b, b->front_parent);
    parent_remove(b, b->back_parent);
}

struct update {
    const struct xenbus_node *node;
    unsigned nr;
};

static int update_write(struct xenbus_back *b, const void *arg, uint32_t tx)
{
    const struct update *u = arg;
    char state[16];
    int rc = 0;

    for (unsigned i = 0; !rc && i < u->nr; i++)
        rc = node_write(b, tx, b->back, u->node[i].key, u->node[i].value);
    snprintf(state, sizeof(state), "%d", b->state);
    return rc ? rc : node_write(b, tx, b->back, "state", state);
}

int xenbus_back_update(struct xenbus_back *b, const struct xenbus_node *node, unsigned nr,
                       struct err *e)
{
    int rc = in_transaction(b, update_write, &(struct update){ node, nr });

    return rc ? err_set(e, -rc, "%s cannot be written in xenstore: %s", b->back, strerror(-rc))
              : 0;
}

/* ---- life ---- */

bool xenbus_back_close(struct xenbus_back *b)
{
    const struct xenbus_node online = { "online", "0" };
    struct err e = { 0 };

    b->leaving = true;
    if (b->state != XenbusStateClosed)
        b->state = XenbusStateClosing;
    if (xenbus_back_update(b, &online, 1, &e))
        log_error("%s", e.text);
    return !b->connected;
}

const char *xenbus_back_path(const struct xenbus_back *b)
{
    return b->back;
}

int xenbus_back_create(const struct xenbus_back_params *p, struct xenbus_back **out,
                       struct err *e)
{
    struct xenbus_back *b = calloc(1, sizeof(*b));
    char path[2 * PATH_BYTES];
    int rc;

    if (!b)
        return err_set(e, ENOMEM, "out of memory");
    b->xs = p->xs;
    b->ops = p->ops;
    b->arg = p->arg;
    b->state = XenbusStateInitWait;
    snprintf(b->front_parent, sizeof(b->front_parent), "/local/domain/%u/device/%s", p->domid,
             p->type);
    snprintf(b->front, sizeof(b->front), "/local/domain/%u/device/%s/%u", p->domid, p->type,
             p->device);
    snprintf(b->back_parent, sizeof(b->back_parent), "/local/domain/0/backend/%s/%u", p->type,
             p->domid);
    snprintf(b->back, sizeof(b->back), "/local/domain/0/backend/%s/%u/%u", p->type, p->domid,
             p->device);
    rc = in_transaction(b, directories_create, p);
    if (rc) {
        err_set(e, -rc, "%s cannot be created in xenstore: %s", b->back, strerror(-rc));
        free(b);
        return rc;
    }
    path_join(path, sizeof(path), b->front, "state");
    rc = xs_client_watch(b->xs, path, front_changed, b, &b->watch);
    if (rc) {
        err_set(e, -rc, "%s cannot be watched in xenstore: %s", path, strerror(-rc));
        directories_remove(b);
        free(b);
        return rc;
    }
    *out = b;
    return 0;
}

void xenbus_back_destroy(struct xenbus_back *b)
{
    if (!b)
        return;
    xs_client_unwatch(b->xs, b->watch);
    back_disconnect(b);
    directories_remove(b);
    free(b);
}
