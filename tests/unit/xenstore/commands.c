/* SPDX-License-Identifier: MIT */
/* What each command does, through the protocol. */
#include "wire.h"

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

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
