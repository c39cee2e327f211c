/* SPDX-License-Identifier: MIT */
/* Sessions without sockets, and what to say to them. */
#ifndef TESTS_UNIT_XENSTORE_WIRE_H
#define TESTS_UNIT_XENSTORE_WIRE_H

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
#include "xen/xs_session.h"

#define NR_SESSIONS 4

struct client {
    struct xs_session session;
    size_t len;
    char got[65536];            /* messages, back to back */
    const char *killed;
};

struct fixture {
    struct xs_core core;
    struct client *c[NR_SESSIONS];      /* [0] and [1]: domain 0's; [2]: domain 7's */
};

static inline void client_send(struct xs_session *s, const struct xsd_sockmsg *hdr,
                               const void *payload)
{
    struct client *c = container_of(s, struct client, session);

    assert_true(c->len + sizeof(*hdr) + hdr->len <= sizeof(c->got));
    assert_true(hdr->len <= XENSTORE_PAYLOAD_MAX);
    memcpy(c->got + c->len, hdr, sizeof(*hdr));
    memcpy(c->got + c->len + sizeof(*hdr), payload, hdr->len);
    c->len += sizeof(*hdr) + hdr->len;
}

static inline void client_kill(struct xs_session *s, const char *why)
{
    container_of(s, struct client, session)->killed = why;
}

static const struct xs_session_ops ops = { client_send, client_kill };

static inline struct client *client_new(struct fixture *f)
{
    struct client *c = calloc(1, sizeof(*c));

    assert_int_equal(xs_session_start(&f->core, &c->session, &ops), 0);
    return c;
}

/* The next message to the client, as "TYPE:payload" with | for 0; "" if none. */
static const char *next(struct client *c)
{
    static const char *const type_names[] = {
        [XS_CONTROL] = "CONTROL", [XS_DIRECTORY] = "DIRECTORY", [XS_READ] = "READ",
        [XS_GET_PERMS] = "GET_PERMS", [XS_WATCH] = "WATCH", [XS_UNWATCH] = "UNWATCH",
        [XS_TRANSACTION_START] = "START", [XS_TRANSACTION_END] = "END",
        [XS_INTRODUCE] = "INTRODUCE", [XS_RELEASE] = "RELEASE",
        [XS_GET_DOMAIN_PATH] = "PATH", [XS_WRITE] = "WRITE", [XS_MKDIR] = "MKDIR",
        [XS_RM] = "RM", [XS_SET_PERMS] = "SET_PERMS", [XS_WATCH_EVENT] = "EVENT",
        [XS_ERROR] = "ERROR", [XS_IS_DOMAIN_INTRODUCED] = "INTRODUCED",
        [XS_RESUME] = "RESUME", [XS_SET_TARGET] = "TARGET", [XS_RESET_WATCHES] = "RESET",
        [XS_DIRECTORY_PART] = "PART",
    };
    static char line[8192];
    struct xsd_sockmsg hdr;
    size_t bytes;
    int at;

    if (!c->len)
        return "";
    memcpy(&hdr, c->got, sizeof(hdr));
    at = snprintf(line, sizeof(line), "%s:", type_names[hdr.type]);
    for (uint32_t i = 0; i < hdr.len; i++)
        line[at++] = c->got[sizeof(hdr) + i] ? c->got[sizeof(hdr) + i] : '|';
    line[at] = 0;
    bytes = sizeof(hdr) + hdr.len;
    memmove(c->got, c->got + bytes, c->len - bytes);
    c->len -= bytes;
    return line;
}

static inline void feed(struct client *c, uint32_t type, uint32_t tx, const void *data, size_t len)
{
    struct xsd_sockmsg hdr = { .type = type, .req_id = 99, .tx_id = tx, .len = (uint32_t)len };

    xs_session_feed(&c->session, &hdr, sizeof(hdr));
    xs_session_feed(&c->session, data, len);
}

/* A request whose payload is text, | standing for 0; its answer. */
static const char *ask(struct client *c, uint32_t type, uint32_t tx, const char *text)
{
    char payload[XENSTORE_PAYLOAD_MAX];
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++)
        payload[i] = text[i] == '|' ? 0 : text[i];
    feed(c, type, tx, payload, len);
    return next(c);
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(xs_core_init(&f->core, NULL), 0);
    for (unsigned i = 0; i < 3; i++)
        f->c[i] = client_new(f);
    assert_string_equal(ask(f->c[0], XS_INTRODUCE, 0, "7|1234|1|"), "INTRODUCE:OK|");
    assert_string_equal(ask(f->c[2], XS_CONTROL, 0, XS_CONTROL_BECOME_DOMAIN "|7|"),
                        "CONTROL:OK|");
    assert_string_equal(ask(f->c[0], XS_MKDIR, 0, "/local/domain/7|"), "MKDIR:OK|");
    assert_string_equal(ask(f->c[0], XS_SET_PERMS, 0, "/local/domain/7|n7|"), "SET_PERMS:OK|");
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    struct store_usage usage;

    for (unsigned i = NR_SESSIONS; i-- > 0;) {
        if (f->c[i])
            xs_session_end(&f->c[i]->session);
        free(f->c[i]);
    }
    assert_null(store_check(f->core.store, &usage));
    assert_int_equal(usage.nr_watches + usage.nr_txs, 0);
    xs_core_free(&f->core);
    free(f);
    return 0;
}

#define DOM0  (((struct fixture *)*state)->c[0])
#define DOM0B (((struct fixture *)*state)->c[1])
#define GUEST (((struct fixture *)*state)->c[2])
#define ASK(c, type, text, answer) assert_string_equal(ask(c, type, 0, text), answer)
#define ASK_TX(c, type, tx, text, answer) assert_string_equal(ask(c, type, tx, text), answer)

#endif
