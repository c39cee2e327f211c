/* SPDX-License-Identifier: MIT */
/* The server's side of the protocol (docs/misc/xenstore.txt), without sockets: a
 * session takes the bytes one client sends and gives the messages it is to get.
 *
 * A domain exists from INTRODUCE until RELEASE, or until the session that
 * introduced it ends: there is no hypervisor to tell of a domain's death, but the
 * process that runs a guest holds that session for the guest's life.  If it
 * dies, the nodes toolstacks keep for a domain are removed as well. */
#ifndef XENOLITH_XEN_XS_SESSION_H
#define XENOLITH_XEN_XS_SESSION_H

#include "xen/store_tree.h"
#include "xen/xs_proto.h"

struct xs_session;
struct xs_domain;

/* What all sessions share. */
struct xs_core {
    struct store *store;
    LIST_HEAD(, xs_domain) domains;
};

struct xs_session_ops {
    /* A message for the client: copies it.  Events are those with type
     * XS_WATCH_EVENT.  Must not call into the session. */
    void (*send)(struct xs_session *s, const struct xsd_sockmsg *hdr, const void *payload);
    /* The session has to end: its client broke the protocol, or its domain was
     * released.  xs_session_end() is to follow, but not from within. */
    void (*kill)(struct xs_session *s, const char *why);
};

/* In memory the caller provides; fields are the session's. */
struct xs_session {
    struct xs_core *core;
    const struct xs_session_ops *ops;
    struct store_client client;
    bool became;                    /* CONTROL_BECOME_DOMAIN was done */
    bool killed;
    bool paused;                    /* the caller's: take no further request now */
    size_t got_bytes;               /* of header and payload */
    struct xsd_sockmsg hdr;
    char *payload;                  /* hdr.len bytes and a 0 */
};

int xs_core_init(struct xs_core *core, const struct store_limits *limits);
/* Every session has ended. */
void xs_core_free(struct xs_core *core);

/* Starts as one of domain 0.  0 or -ENOMEM. */
int xs_session_start(struct xs_core *core, struct xs_session *s,
                     const struct xs_session_ops *ops);
/* Takes what the client sent, in whatever pieces; answers each message that is
 * complete.  How much it took: less than len when `paused` was set meanwhile
 * (after some message; the caller offers the rest again later). */
size_t xs_session_feed(struct xs_session *s, const void *data, size_t len);
void xs_session_end(struct xs_session *s);

/* Whether to log what this session's client did wrong: for a guest once in its
 * domain's life, lest it fill the log. */
bool xs_session_may_log(struct xs_session *s);

#endif
