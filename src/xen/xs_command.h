/* SPDX-License-Identifier: MIT */
/* One request and its handler: what the files xs_command*.c and xs_session.c
 * share. */
#ifndef XENOLITH_XEN_XS_COMMAND_H
#define XENOLITH_XEN_XS_COMMAND_H

#include "xen/xs_session.h"

struct xs_domain {
    LIST_ENTRY(xs_domain) in_core;
    unsigned domid;
    uint64_t gfn;
    uint32_t port;
    struct xs_session *introducer;  /* lives at least as long as this */
    struct xs_session *guest;       /* the connection of its ring, or NULL */
    bool logged;                    /* that it did something wrong */
};

struct xs_request {
    struct xsd_sockmsg hdr;
    char *data;                     /* hdr.len bytes, then a 0 */
    size_t len;
    struct store_tx *tx;            /* NULL: none */
    /* The answer, "OK" unless the handler says otherwise. */
    const void *reply;
    size_t reply_len;
    bool replied;                   /* the handler has sent it */
    char buf[XENSTORE_PAYLOAD_MAX]; /* for the answer */
};

enum {
    XS_COMMAND_DOMAIN_0 = 1,        /* others get EACCES */
    XS_COMMAND_NO_TX = 2,           /* tx_id plays no role */
};

struct xs_command {
    /* 0 or the -errno to answer with */
    int (*handle)(struct xs_session *s, struct xs_request *r);
    unsigned flags;
};

/* By message type; a row without a handler is no request. */
extern const struct xs_command xs_commands[XS_TYPE_COUNT];

void xs_reply(struct xs_session *s, const struct xs_request *r, const void *data, size_t len);

/* The request's strings, each with its 0: first and *nr of them.  -EINVAL when
 * there are fewer than min or more than max, or the last has no 0. */
int xs_request_strings(const struct xs_request *r, unsigned min, unsigned max,
                       const char *v[], unsigned *nr);
int xs_parse_domid(const char *text, unsigned max, unsigned *domid);

struct xs_domain *xs_domain_find(const struct xs_core *core, unsigned domid);
/* The session ends: the domains it introduced go with it. */
void xs_domain_session_ended(struct xs_session *s);

int xs_do_control(struct xs_session *s, struct xs_request *r);
int xs_do_introduce(struct xs_session *s, struct xs_request *r);
int xs_do_release(struct xs_session *s, struct xs_request *r);
int xs_do_is_domain_introduced(struct xs_session *s, struct xs_request *r);
int xs_do_get_domain_path(struct xs_session *s, struct xs_request *r);
int xs_do_resume(struct xs_session *s, struct xs_request *r);
int xs_do_set_target(struct xs_session *s, struct xs_request *r);

#endif
