/* SPDX-License-Identifier: MIT */
/* The backend's half of a Xen device in xenstore: its two directories, and the
 * states both ends walk through (xen/io/xenbus.h).  What a device does when its
 * frontend comes or goes is its own affair: ops.  Everything runs on the thread
 * of the xenstore client's loop. */
#ifndef XENOLITH_DEV_XENBUS_H
#define XENOLITH_DEV_XENBUS_H

#include "base/err.h"
#include "xen/xs_client.h"

struct xenbus_back;

struct xenbus_back_ops {
    /* The frontend has published how it wants to be served.  0, or -errno with e
     * saying which node is wrong; then the connection is refused. */
    int (*connect)(void *arg, struct err *e);
    /* The frontend has gone, or is to be taken as gone.  Called at any time after
     * a connect() that succeeded, once. */
    void (*disconnect)(void *arg);
    /* The frontend has done what xenbus_back_close() asked for, and the directories have gone.
     * Where the frontend still has what connect() took, that is not disconnected yet: not all of
     * them let go before they say so, Linux's blkfront only when its directory has gone.
     * Called once; xenbus_back_destroy() is to follow, perhaps from within. */
    void (*closed)(void *arg);
};

struct xenbus_node {
    const char *key;
    char value[256];
};

struct xenbus_back_params {
    struct xs_client *xs;
    unsigned domid;             /* the frontend's */
    const char *type;           /* "vbd", "vif" ... */
    unsigned device;            /* its number in both paths */
    const struct xenbus_node *front;    /* beside the nodes every device has */
    unsigned nr_front;
    const struct xenbus_node *back;
    unsigned nr_back;
    const struct xenbus_back_ops *ops;
    void *arg;
};

/* Creates both directories as libxl does (the frontend's owned by the guest and
 * readable by domain 0, the backend's the other way round) in one transaction,
 * the backend waiting for the frontend.  0 or -errno. */
int xenbus_back_create(const struct xenbus_back_params *p, struct xenbus_back **out,
                       struct err *e);
/* Asks the frontend to let go of the device, as libxl does: "online" becomes 0, the state
 * Closing.  True: it holds nothing, so that nobody need wait; else closed() will come, should
 * the frontend ever answer.  May be called again. */
bool xenbus_back_close(struct xenbus_back *b);
/* Writes nodes of the backend's anew and, with them in one transaction, the state as it is,
 * whereupon a connected frontend looks at them (blkif.h, "sectors").  0 or -errno. */
int xenbus_back_update(struct xenbus_back *b, const struct xenbus_node *node, unsigned nr,
                       struct err *e);
/* Disconnects, and removes both directories. */
void xenbus_back_destroy(struct xenbus_back *b);

/* The backend's directory. */
const char *xenbus_back_path(const struct xenbus_back *b);

/* A node of the frontend's directory, for the caller to free; NULL: none. */
char *xenbus_front_read(struct xenbus_back *b, const char *key);
/* The same as a number: 0, -ENOENT (e untouched), or -EINVAL with e saying that
 * it is no number from min to max. */
int xenbus_front_read_u32(struct xenbus_back *b, const char *key, uint32_t min, uint32_t max,
                          uint32_t *out, struct err *e);

/* A node of the backend's directory for operators to read, outside any transaction. */
void xenbus_back_note(struct xenbus_back *b, const char *key, const char *value);

/* Says what is wrong in the backend's "error" node and, the first few times, in
 * the log.  What is not printable ASCII becomes '?'. */
void xenbus_back_error(struct xenbus_back *b, const char *text);

#endif
