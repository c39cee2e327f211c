/* SPDX-License-Identifier: MIT */
/* The protocol, byte for byte, against sessions without sockets. */
#include "wire.h"

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
        T(garbage_breaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
