/* SPDX-License-Identifier: MIT */
/* The protocol, byte for byte, against sessions without sockets. */
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

static void client_send(struct xs_session *s, const struct xsd_sockmsg *hdr, const void *payload)
{
    struct client *c = container_of(s, struct client, session);

    assert_true(c->len + sizeof(*hdr) + hdr->len <= sizeof(c->got));
    assert_true(hdr->len <= XENSTORE_PAYLOAD_MAX);
    memcpy(c->got + c->len, hdr, sizeof(*hdr));
    memcpy(c->got + c->len + sizeof(*hdr), payload, hdr->len);
    c->len += sizeof(*hdr) + hdr->len;
}

static void client_kill(struct xs_session *s, const char *why)
{
    container_of(s, struct client, session)->killed = why;
}

static const struct xs_session_ops ops = { client_send, client_kill };

static struct client *client_new(struct fixture *f)
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

static void feed(struct client *c, uint32_t type, uint32_t tx, const void *data, size_t len)
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

static int setup(void **state)
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

static int teardown(void **state)
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

static void read_and_write(void **state)
{
    ASK(DOM0, XS_WRITE, "/a/b|value", "WRITE:OK|");
    ASK(DOM0, XS_READ, "/a/b|", "READ:value");
    ASK(DOM0, XS_WRITE, "/a/b|", "WRITE:OK|");
    ASK(DOM0, XS_READ, "/a/b|", "READ:");
    ASK(DOM0, XS_WRITE, "/a/b|x|y", "WRITE:OK|");
    ASK(DOM0, XS_READ, "/a/b|", "READ:x|y");
}

static void the_answer_carries_the_requests_ids(void **state)
{
    struct xsd_sockmsg hdr = { .type = XS_READ, .req_id = 0xdeadbeef, .tx_id = 5, .len = 2 };

    xs_session_feed(&DOM0->session, &hdr, sizeof(hdr));
    xs_session_feed(&DOM0->session, "/", 2);
    memcpy(&hdr, DOM0->got, sizeof(hdr));
    assert_int_equal(hdr.type, XS_ERROR);
    assert_int_equal(hdr.req_id, 0xdeadbeef);
    assert_int_equal(hdr.tx_id, 5);
    next(DOM0);
}

static void malformed_payloads_are_refused(void **state)
{
    static const struct { uint32_t type; const char *text; } bad[] = {
        { XS_READ, "" }, { XS_READ, "/a" }, { XS_READ, "|" }, { XS_READ, "/a|/b|" },
        { XS_READ, "/a|b" }, { XS_READ, "/a//b|" },
        { XS_DIRECTORY, "" }, { XS_DIRECTORY, "/" },
        { XS_DIRECTORY_PART, "/|" }, { XS_DIRECTORY_PART, "/|x|" }, { XS_DIRECTORY_PART, "/|-1|" },
        { XS_GET_PERMS, "/" }, { XS_WRITE, "" }, { XS_WRITE, "/a" }, { XS_WRITE, "|v" },
        { XS_MKDIR, "/a" }, { XS_MKDIR, "/a/|" }, { XS_RM, "/" }, { XS_RM, "/|" },
        { XS_SET_PERMS, "/|" }, { XS_SET_PERMS, "/|n0" }, { XS_SET_PERMS, "/|x0|" },
        { XS_SET_PERMS, "/|n|" }, { XS_SET_PERMS, "/|n65536|" }, { XS_SET_PERMS, "/|n-1|" },
        { XS_SET_PERMS, "/|n0||" },
        { XS_WATCH, "/|" }, { XS_WATCH, "/|t" }, { XS_WATCH, "/a/|t|" }, { XS_WATCH, "|t|" },
        { XS_WATCH, "/|t|x|" }, { XS_WATCH, "/|t|1|2|" },
        { XS_UNWATCH, "/|" }, { XS_TRANSACTION_END, "" }, { XS_TRANSACTION_END, "X|" },
        { XS_TRANSACTION_END, "TT|" }, { XS_INTRODUCE, "1|2|" }, { XS_INTRODUCE, "0|2|3|" },
        { XS_INTRODUCE, "x|2|3|" }, { XS_INTRODUCE, "32752|2|3|" }, { XS_INTRODUCE, "1|2|0|" },
        { XS_RELEASE, "" }, { XS_RELEASE, "x|" }, { XS_RELEASE, "0|" },
        { XS_GET_DOMAIN_PATH, "" }, { XS_GET_DOMAIN_PATH, "65536|" },
        { XS_IS_DOMAIN_INTRODUCED, "1" }, { XS_RESUME, "0|" }, { XS_SET_TARGET, "1|" },
        { XS_SET_TARGET, "x|1|" }, { XS_CONTROL, "" }, { XS_CONTROL, "print|x|" },
        { XS_CONTROL, "log|on|" }, { XS_CONTROL, XS_CONTROL_BECOME_DOMAIN "|" },
        { XS_CONTROL, XS_CONTROL_BECOME_DOMAIN "|x|" },
    };

    for (size_t i = 0; i < array_size(bad); i++) {
        const char *answer = ask(DOM0, bad[i].type, 0, bad[i].text);

        if (strcmp(answer, "ERROR:EINVAL|"))
            fail_msg("type %u, \"%s\": %s", bad[i].type, bad[i].text, answer);
    }
    assert_null(DOM0->killed);
}

static void types_that_are_no_requests_are_refused(void **state)
{
    static const uint32_t types[] = {
        XS_WATCH_EVENT, XS_ERROR, XS_SET_TARGET + 1, XS_TYPE_COUNT, XS_INVALID, 0xffffffff,
    };

    for (size_t i = 0; i < array_size(types); i++)
        ASK(DOM0, types[i], "/|", "ERROR:ENOSYS|");
}

static void a_message_too_long_ends_the_session(void **state)
{
    struct xsd_sockmsg hdr = { .type = XS_READ, .len = XENSTORE_PAYLOAD_MAX + 1 };

    xs_session_feed(&GUEST->session, &hdr, sizeof(hdr));
    assert_non_null(GUEST->killed);
    hdr = (struct xsd_sockmsg){ .type = XS_READ, .len = 2 };
    xs_session_feed(&GUEST->session, &hdr, sizeof(hdr));
    xs_session_feed(&GUEST->session, "/", 2);
    assert_string_equal(next(GUEST), "");
}

static void the_longest_message_is_taken(void **state)
{
    static char payload[XENSTORE_PAYLOAD_MAX];

    memset(payload, 'v', sizeof(payload));
    memcpy(payload, "/a", 3);
    feed(DOM0, XS_WRITE, 0, payload, sizeof(payload));
    assert_string_equal(next(DOM0), "WRITE:OK|");
    feed(DOM0, XS_READ, 0, "/a", 3);
    assert_int_equal(DOM0->len, sizeof(struct xsd_sockmsg) + sizeof(payload) - 3);
    next(DOM0);
}

static void messages_may_come_in_any_pieces(void **state)
{
    char stream[512];
    size_t len = 0;

    for (unsigned i = 0; i < 8; i++) {
        struct xsd_sockmsg hdr = { .type = XS_WRITE, .len = 7 };

        memcpy(stream + len, &hdr, sizeof(hdr));
        memcpy(stream + len + sizeof(hdr), "/p/x\0v", 6);
        stream[len + sizeof(hdr) + 3] = (char)('0' + i);
        stream[len + sizeof(hdr) + 6] = (char)('0' + i);
        len += sizeof(hdr) + hdr.len;
    }
    for (size_t piece = 1; piece < 64; piece++) {
        for (size_t at = 0; at < len; at += piece)
            xs_session_feed(&DOM0->session, stream + at, min_of(piece, len - at));
        for (unsigned i = 0; i < 8; i++)
            assert_string_equal(next(DOM0), "WRITE:OK|");
    }
    ASK(DOM0, XS_DIRECTORY, "/p|", "DIRECTORY:0|1|2|3|4|5|6|7|");
    ASK(DOM0, XS_READ, "/p/5|", "READ:v5");
}

static void a_message_cut_short_does_nothing(void **state)
{
    struct xsd_sockmsg hdr = { .type = XS_WRITE, .len = 10 };

    xs_session_feed(&DOM0B->session, &hdr, sizeof(hdr));
    xs_session_feed(&DOM0B->session, "/cut\0v", 6);
    xs_session_end(&DOM0B->session);
    free(DOM0B);
    ((struct fixture *)*state)->c[1] = NULL;
    ASK(DOM0, XS_READ, "/cut|", "ERROR:ENOENT|");
}

static void directories(void **state)
{
    ASK(DOM0, XS_WRITE, "/d/b|", "WRITE:OK|");
    ASK(DOM0, XS_WRITE, "/d/a|", "WRITE:OK|");
    ASK(DOM0, XS_DIRECTORY, "/d|", "DIRECTORY:a|b|");
    ASK(DOM0, XS_DIRECTORY, "/d/a|", "DIRECTORY:");
    ASK(DOM0, XS_DIRECTORY, "/none|", "ERROR:ENOENT|");
}

static void a_long_directory_comes_in_parts(void **state)
{
    char text[64], list[32768], first_gen[32] = "";
    size_t len = 0;
    bool complete = false;

    for (unsigned i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "/long/node-%04u|", i);
        ASK(DOM0, XS_WRITE, text, "WRITE:OK|");
    }
    ASK(DOM0, XS_DIRECTORY, "/long|", "ERROR:E2BIG|");
    while (!complete) {
        const char *answer, *gen, *part;

        snprintf(text, sizeof(text), "/long|%zu|", len);
        answer = ask(DOM0, XS_DIRECTORY_PART, 0, text);
        assert_memory_equal(answer, "PART:", 5);
        gen = answer + 5;
        part = strchr(gen, '|') + 1;
        if (!len)
            snprintf(first_gen, sizeof(first_gen), "%.*s", (int)(part - gen), gen);
        assert_memory_equal(gen, first_gen, strlen(first_gen));
        complete = !strcmp(part + strlen(part) - 2, "||");
        memcpy(list + len, part, strlen(part) - complete);
        len += strlen(part) - complete;
    }
    assert_int_equal(len, 10 * 1000);
    assert_memory_equal(list, "node-0000|node-0001|", 20);
    assert_memory_equal(list + len - 10, "node-0999|", 10);
    ASK(DOM0, XS_WRITE, "/long/another|", "WRITE:OK|");
    assert_memory_not_equal(ask(DOM0, XS_DIRECTORY_PART, 0, "/long|0|") + 5, first_gen,
                            strlen(first_gen));
    /* behind the end: an empty list */
    assert_string_equal(strchr(ask(DOM0, XS_DIRECTORY_PART, 0, "/long|999999|"), '|'), "||");
}

static void permissions(void **state)
{
    ASK(DOM0, XS_WRITE, "/p|", "WRITE:OK|");
    ASK(DOM0, XS_GET_PERMS, "/p|", "GET_PERMS:n0|");
    ASK(DOM0, XS_SET_PERMS, "/p|r0|w1|b7|n65535|", "SET_PERMS:OK|");
    ASK(DOM0, XS_GET_PERMS, "/p|", "GET_PERMS:r0|w1|b7|n65535|");
    ASK(GUEST, XS_WRITE, "/p|x", "WRITE:OK|");
    ASK(GUEST, XS_SET_PERMS, "/p|n7|", "ERROR:EACCES|");
    ASK(GUEST, XS_SET_PERMS, "/local/domain/7|n0|", "ERROR:EPERM|");
    ASK(GUEST, XS_GET_PERMS, "@releaseDomain|", "ERROR:EACCES|");
    ASK(DOM0, XS_SET_PERMS, "@releaseDomain|n0|r7|", "SET_PERMS:OK|");
    ASK(GUEST, XS_GET_PERMS, "@releaseDomain|", "GET_PERMS:n0|r7|");
}

static void relative_paths_begin_at_the_domains_home(void **state)
{
    ASK(GUEST, XS_WRITE, "data/x|1", "WRITE:OK|");
    ASK(DOM0, XS_READ, "/local/domain/7/data/x|", "READ:1");
    ASK(DOM0, XS_WRITE, "tool|2", "WRITE:OK|");
    ASK(DOM0, XS_READ, "/local/domain/0/tool|", "READ:2");
    ASK(GUEST, XS_RM, "data|", "RM:OK|");
    ASK(GUEST, XS_DIRECTORY, "/local/domain/7|", "DIRECTORY:");
}

static void a_relative_path_has_a_length_of_its_own(void **state)
{
    static char payload[XENSTORE_REL_PATH_MAX + 4];

    memset(payload, 'a', sizeof(payload));
    payload[XENSTORE_REL_PATH_MAX] = 0;
    feed(DOM0, XS_MKDIR, 0, payload, XENSTORE_REL_PATH_MAX + 1);
    assert_string_equal(next(DOM0), "MKDIR:OK|");
    payload[XENSTORE_REL_PATH_MAX] = 'a';
    payload[XENSTORE_REL_PATH_MAX + 1] = 0;
    feed(DOM0, XS_MKDIR, 0, payload, XENSTORE_REL_PATH_MAX + 2);
    assert_string_equal(next(DOM0), "ERROR:EINVAL|");
}

static void a_watch_is_answered_and_then_fires(void **state)
{
    ASK(DOM0, XS_WATCH, "/w|token|", "WATCH:OK|");
    assert_string_equal(next(DOM0), "EVENT:/w|token|");
    ASK(GUEST, XS_WATCH, "w|t|", "WATCH:OK|");
    assert_string_equal(next(GUEST), "EVENT:w|t|");
    ASK(GUEST, XS_WRITE, "w/x|1", "EVENT:w/x|t|");
    assert_string_equal(next(GUEST), "WRITE:OK|");
    assert_string_equal(next(DOM0), "");
    ASK(GUEST, XS_UNWATCH, "w|t|", "UNWATCH:OK|");
    ASK(GUEST, XS_UNWATCH, "w|t|", "ERROR:ENOENT|");
    ASK(DOM0, XS_WATCH, "/w|token|", "ERROR:EEXIST|");
}

static void a_watch_takes_a_depth(void **state)
{
    ASK(DOM0, XS_WATCH, "/w|t|1|", "WATCH:OK|");
    next(DOM0);
    ASK(DOM0B, XS_WRITE, "/w/x/y|", "WRITE:OK|");
    assert_string_equal(next(DOM0), "");
    ASK(DOM0B, XS_WRITE, "/w/x|", "WRITE:OK|");
    assert_string_equal(next(DOM0), "EVENT:/w/x|t|");
}

static void a_token_leaves_room_for_the_longest_path(void **state)
{
    static char payload[XENSTORE_PAYLOAD_MAX];

    memset(payload, 't', sizeof(payload));
    memcpy(payload, "/", 2);
    payload[2 + XS_TOKEN_MAX + 1] = 0;
    feed(DOM0, XS_WATCH, 0, payload, 2 + XS_TOKEN_MAX + 2);
    assert_string_equal(next(DOM0), "ERROR:E2BIG|");
    payload[2 + XS_TOKEN_MAX] = 0;
    feed(DOM0, XS_WATCH, 0, payload, 2 + XS_TOKEN_MAX + 1);
    assert_string_equal(next(DOM0), "WATCH:OK|");
    next(DOM0);
    memset(payload, 'a', XENSTORE_ABS_PATH_MAX);
    payload[0] = '/';
    payload[XENSTORE_ABS_PATH_MAX] = 0;
    feed(DOM0B, XS_MKDIR, 0, payload, XENSTORE_ABS_PATH_MAX + 1);
    assert_string_equal(next(DOM0B), "MKDIR:OK|");
    assert_int_equal(DOM0->len, sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX);
}

static void reset_watches_ends_watches_and_transactions(void **state)
{
    ASK(GUEST, XS_WATCH, "w|t|", "WATCH:OK|");
    next(GUEST);
    ASK(GUEST, XS_TRANSACTION_START, "|", "START:1|");
    ASK(GUEST, XS_RESET_WATCHES, "|", "RESET:OK|");
    ASK(DOM0, XS_WRITE, "/local/domain/7/w|", "WRITE:OK|");
    assert_string_equal(next(GUEST), "");
    ASK_TX(GUEST, XS_TRANSACTION_END, 1, "T|", "ERROR:ENOENT|");
}

static void transactions(void **state)
{
    ASK(DOM0, XS_TRANSACTION_START, "|", "START:1|");
    ASK_TX(DOM0, XS_WRITE, 1, "/t|1", "WRITE:OK|");
    ASK(DOM0, XS_READ, "/t|", "ERROR:ENOENT|");
    ASK_TX(DOM0, XS_READ, 1, "/t|", "READ:1");
    ASK_TX(DOM0, XS_TRANSACTION_START, 1, "|", "ERROR:EBUSY|");
    ASK_TX(DOM0B, XS_READ, 1, "/t|", "ERROR:ENOENT|");      /* not its own */
    ASK_TX(DOM0, XS_TRANSACTION_END, 1, "T|", "END:OK|");
    ASK_TX(DOM0, XS_READ, 1, "/t|", "ERROR:ENOENT|");
    ASK(DOM0, XS_READ, "/t|", "READ:1");
    ASK(DOM0, XS_TRANSACTION_END, "T|", "ERROR:ENOENT|");
}

static void a_conflict_says_eagain(void **state)
{
    ASK(DOM0, XS_TRANSACTION_START, "|", "START:1|");
    ASK_TX(DOM0, XS_READ, 1, "/t|", "ERROR:ENOENT|");
    ASK(DOM0B, XS_WRITE, "/t|", "WRITE:OK|");
    ASK_TX(DOM0, XS_TRANSACTION_END, 1, "T|", "ERROR:EAGAIN|");
    ASK(DOM0, XS_TRANSACTION_START, "|", "START:2|");
    ASK_TX(DOM0, XS_WRITE, 2, "/t|2", "WRITE:OK|");
    ASK_TX(DOM0, XS_TRANSACTION_END, 2, "F|", "END:OK|");
    ASK(DOM0, XS_READ, "/t|", "READ:");
}

static void a_watch_ignores_the_transaction(void **state)
{
    ASK_TX(DOM0, XS_WATCH, 77, "/w|t|", "WATCH:OK|");
    next(DOM0);
    ASK_TX(DOM0, XS_UNWATCH, 77, "/w|t|", "UNWATCH:OK|");
}

static void domains_come_and_go(void **state)
{
    ASK(DOM0, XS_WATCH, "@introduceDomain|i|", "WATCH:OK|");
    next(DOM0);
    ASK(DOM0, XS_WATCH, "@releaseDomain|r|", "WATCH:OK|");
    next(DOM0);
    ASK(DOM0, XS_IS_DOMAIN_INTRODUCED, "8|", "INTRODUCED:F|");
    ASK(DOM0B, XS_INTRODUCE, "8|5|6|", "INTRODUCE:OK|");
    assert_string_equal(next(DOM0), "EVENT:@introduceDomain|i|");
    ASK(DOM0B, XS_INTRODUCE, "8|5|6|", "INTRODUCE:OK|");
    assert_string_equal(next(DOM0), "");
    ASK(DOM0, XS_INTRODUCE, "8|5|6|", "ERROR:EBUSY|");
    ASK(GUEST, XS_IS_DOMAIN_INTRODUCED, "8|", "INTRODUCED:T|");
    ASK(GUEST, XS_IS_DOMAIN_INTRODUCED, "0|", "INTRODUCED:T|");
    ASK(DOM0, XS_RESUME, "8|", "RESUME:OK|");
    ASK(DOM0, XS_RELEASE, "8|", "EVENT:@releaseDomain|r|");
    assert_string_equal(next(DOM0), "RELEASE:OK|");
    ASK(DOM0, XS_RELEASE, "8|", "ERROR:ENOENT|");
    ASK(DOM0, XS_RESUME, "8|", "ERROR:ENOENT|");
    ASK(GUEST, XS_GET_DOMAIN_PATH, "8|", "PATH:/local/domain/8|");
}

static void release_ends_the_guests_connection(void **state)
{
    ASK(DOM0, XS_RELEASE, "7|", "RELEASE:OK|");
    assert_non_null(GUEST->killed);
}

static void a_new_connection_takes_the_old_ones_place(void **state)
{
    ASK(DOM0B, XS_CONTROL, XS_CONTROL_BECOME_DOMAIN "|7|", "CONTROL:OK|");
    assert_non_null(GUEST->killed);
    ASK(DOM0B, XS_WRITE, "x|", "WRITE:OK|");
    ASK(DOM0B, XS_RELEASE, "7|", "ERROR:EACCES|");
}

static void who_becomes_a_domain_brings_nothing_along(void **state)
{
    ASK(DOM0B, XS_CONTROL, XS_CONTROL_BECOME_DOMAIN "|9|", "ERROR:ENOENT|");
    ASK(DOM0, XS_CONTROL, XS_CONTROL_BECOME_DOMAIN "|7|", "ERROR:EBUSY|");    /* introduced it */
    ASK(DOM0B, XS_WATCH, "/w|t|", "WATCH:OK|");
    next(DOM0B);
    ASK(DOM0B, XS_CONTROL, XS_CONTROL_BECOME_DOMAIN "|7|", "ERROR:EBUSY|");
    ASK(GUEST, XS_CONTROL, XS_CONTROL_BECOME_DOMAIN "|7|", "ERROR:EACCES|");
}

static void a_guest_has_not_domain_0s_commands(void **state)
{
    ASK(GUEST, XS_INTRODUCE, "8|1|1|", "ERROR:EACCES|");
    ASK(GUEST, XS_RELEASE, "7|", "ERROR:EACCES|");
    ASK(GUEST, XS_RESUME, "7|", "ERROR:EACCES|");
    ASK(GUEST, XS_SET_TARGET, "7|0|", "ERROR:EACCES|");
    ASK(GUEST, XS_CONTROL, "help|", "ERROR:EACCES|");
}

static void a_target_lends_its_rights(void **state)
{
    ASK(DOM0B, XS_INTRODUCE, "8|5|6|", "INTRODUCE:OK|");
    ASK(DOM0, XS_WRITE, "/local/domain/8/x|1", "WRITE:OK|");
    ASK(DOM0, XS_SET_PERMS, "/local/domain/8/x|n8|", "SET_PERMS:OK|");
    ASK(GUEST, XS_READ, "/local/domain/8/x|", "ERROR:EACCES|");
    ASK(DOM0, XS_SET_TARGET, "7|8|", "TARGET:OK|");
    ASK(GUEST, XS_READ, "/local/domain/8/x|", "READ:1");
    ASK(DOM0, XS_SET_TARGET, "7|9|", "ERROR:ENOENT|");
}

static void control_says_what_it_can(void **state)
{
    ASK(DOM0, XS_CONTROL, "help|",
        "CONTROL:check\nhelp\n" XS_CONTROL_BECOME_DOMAIN " <domid>\n|");
    ASK(DOM0, XS_CONTROL, "check|", "CONTROL:OK|");
}

static void a_domain_whose_process_died_is_cleaned_away(void **state)
{
    struct fixture *f = *state;

    ASK(DOM0B, XS_INTRODUCE, "8|5|6|", "INTRODUCE:OK|");
    ASK(DOM0, XS_WRITE, "/vm/some-uuid/name|g", "WRITE:OK|");
    ASK(DOM0, XS_WRITE, "/local/domain/8/vm|/vm/some-uuid", "WRITE:OK|");
    ASK(DOM0, XS_WRITE, "/libxl/8/type|pv", "WRITE:OK|");
    ASK(DOM0, XS_WRITE, "/local/domain/0/backend/vbd/8/51712/state|4", "WRITE:OK|");
    ASK(DOM0, XS_WRITE, "/local/domain/0/backend/vbd/7/51712/state|4", "WRITE:OK|");
    ASK(DOM0, XS_WRITE, "/local/domain/0/backend/vif/8/0/state|4", "WRITE:OK|");
    ASK(DOM0, XS_WATCH, "@releaseDomain|r|", "WATCH:OK|");
    next(DOM0);
    xs_session_end(&DOM0B->session);
    free(DOM0B);
    f->c[1] = NULL;
    assert_string_equal(next(DOM0), "EVENT:@releaseDomain|r|");
    ASK(DOM0, XS_IS_DOMAIN_INTRODUCED, "8|", "INTRODUCED:F|");
    ASK(DOM0, XS_DIRECTORY, "/local/domain|", "DIRECTORY:0|7|");
    ASK(DOM0, XS_DIRECTORY, "/vm|", "DIRECTORY:");
    ASK(DOM0, XS_DIRECTORY, "/libxl|", "DIRECTORY:");
    ASK(DOM0, XS_DIRECTORY, "/local/domain/0/backend/vbd|", "DIRECTORY:7|");
    ASK(DOM0, XS_DIRECTORY, "/local/domain/0/backend/vif|", "DIRECTORY:");
}

static void garbage_breaks_nothing(void **state)
{
    struct fixture *f = *state;
    uint32_t x = 12345;

    for (unsigned round = 0; round < 200; round++) {
        f->c[3] = client_new(f);
        for (unsigned i = 0; i < 300 && !f->c[3]->killed; i++) {
            unsigned char byte;

            x = x * 1664525 + 1013904223;
            byte = (unsigned char)(x >> 24);
            /* short messages of known types, or none would ever be complete */
            if (f->c[3]->session.got_bytes % 4 || f->c[3]->session.got_bytes >= 16)
                byte = f->c[3]->session.got_bytes < 16 ? 0 : byte;
            else
                byte %= 24;
            xs_session_feed(&f->c[3]->session, &byte, 1);
            f->c[3]->len = 0;
        }
        xs_session_end(&f->c[3]->session);
        free(f->c[3]);
        f->c[3] = NULL;
        assert_null(store_check(f->core.store, NULL));
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(read_and_write),
        T(the_answer_carries_the_requests_ids),
        T(malformed_payloads_are_refused),
        T(types_that_are_no_requests_are_refused),
        T(a_message_too_long_ends_the_session),
        T(the_longest_message_is_taken),
        T(messages_may_come_in_any_pieces),
        T(a_message_cut_short_does_nothing),
        T(directories),
        T(a_long_directory_comes_in_parts),
        T(permissions),
        T(relative_paths_begin_at_the_domains_home),
        T(a_relative_path_has_a_length_of_its_own),
        T(a_watch_is_answered_and_then_fires),
        T(a_watch_takes_a_depth),
        T(a_token_leaves_room_for_the_longest_path),
        T(reset_watches_ends_watches_and_transactions),
        T(transactions),
        T(a_conflict_says_eagain),
        T(a_watch_ignores_the_transaction),
        T(domains_come_and_go),
        T(release_ends_the_guests_connection),
        T(a_new_connection_takes_the_old_ones_place),
        T(who_becomes_a_domain_brings_nothing_along),
        T(a_guest_has_not_domain_0s_commands),
        T(a_target_lends_its_rights),
        T(control_says_what_it_can),
        T(a_domain_whose_process_died_is_cleaned_away),
        T(garbage_breaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
