/* SPDX-License-Identifier: MIT */
#include "store_fixture.h"

static int watch(struct store_client *c, const char *path, const char *token)
{
    return store_watch_add(c, path, token, 0, STORE_DEPTH_ANY);
}

static void a_watch_hears_of_its_node_and_those_below(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->dom0, "/a/b", "t"), 0);
    write_text(&f->dom0, NULL, "/a", "1");
    write_text(&f->dom0, NULL, "/a/bc", "1");
    assert_string_equal(events(f), "");
    write_text(&f->dom0, NULL, "/a/b", "1");
    write_text(&f->dom0, NULL, "/a/b/c/d", "1");
    assert_string_equal(events(f), "0:t=/a/b 0:t=/a/b/c/d ");
}

static void the_root_can_be_watched(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->dom0, "/", "t"), 0);
    write_text(&f->dom0, NULL, "/a/b", "1");
    write_text(&f->dom0, NULL, "/", "1");
    assert_string_equal(events(f), "0:t=/a/b 0:t=/ ");
}

static void every_kind_of_change_fires(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->dom0, "/a", "t"), 0);
    store_mkdir(&f->dom0, NULL, "/a");
    assert_string_equal(events(f), "0:t=/a ");
    store_mkdir(&f->dom0, NULL, "/a");
    assert_string_equal(events(f), "");     /* nothing changed */
    set_perms(&f->dom0, NULL, "/a", 1, 0, STORE_READ);
    assert_string_equal(events(f), "0:t=/a ");
    write_text(&f->dom0, NULL, "/a", "");
    assert_string_equal(events(f), "0:t=/a ");
    store_rm(&f->dom0, NULL, "/a");
    assert_string_equal(events(f), "0:t=/a ");
    store_rm(&f->dom0, NULL, "/a");
    assert_string_equal(events(f), "");
}

static void a_removal_fires_watches_below_with_their_own_path(void **state)
{
    struct fixture *f = *state;

    write_text(&f->dom0, NULL, "/a/b/c", "1");
    assert_int_equal(watch(&f->dom0, "/a/b/c", "deep"), 0);
    assert_int_equal(watch(&f->dom0, "/a/b/c/none", "absent"), 0);
    assert_int_equal(watch(&f->dom0, "/a", "top"), 0);
    assert_int_equal(watch(&f->dom0, "/", "root"), 0);
    store_rm(&f->dom0, NULL, "/a");
    assert_string_equal(events(f), "0:root=/a 0:top=/a 0:deep=/a/b/c ");
}

static void a_watch_may_be_as_deep_as_it_asks(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(store_watch_add(&f->dom0, "/a", "0", 0, 0), 0);
    assert_int_equal(store_watch_add(&f->dom0, "/a", "1", 0, 1), 0);
    write_text(&f->dom0, NULL, "/a", "");
    write_text(&f->dom0, NULL, "/a/b", "");
    write_text(&f->dom0, NULL, "/a/b/c", "");
    assert_string_equal(events(f), "0:1=/a 0:0=/a 0:1=/a/b ");
}

static void a_relative_watch_gets_relative_paths(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(store_watch_add(&f->guest, "/home/x", "t", strlen("/home/"),
                                     STORE_DEPTH_ANY), 0);
    write_text(&f->guest, NULL, "/home/x/y", "");
    assert_string_equal(events(f), "1:t=x/y ");
}

static void who_may_not_read_hears_nothing(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->guest, "/secret", "t"), 0);
    write_text(&f->dom0, NULL, "/secret/x", "1");
    store_rm(&f->dom0, NULL, "/secret/x");
    assert_string_equal(events(f), "");
}

static void who_could_read_hears_of_the_end(void **state)
{
    struct fixture *f = *state;

    write_text(&f->dom0, NULL, "/secret/x", "1");
    set_perms(&f->dom0, NULL, "/secret/x", 2, 0, 0, 1, STORE_READ);
    assert_int_equal(watch(&f->guest, "/secret/x", "t"), 0);
    set_perms(&f->dom0, NULL, "/secret/x", 1, 0, 0);
    assert_string_equal(events(f), "1:t=/secret/x ");
    write_text(&f->dom0, NULL, "/secret/x", "2");
    assert_string_equal(events(f), "");
    set_perms(&f->dom0, NULL, "/secret/x", 2, 0, 0, 1, STORE_READ);
    assert_string_equal(events(f), "1:t=/secret/x ");
    store_rm(&f->dom0, NULL, "/secret");
    assert_string_equal(events(f), "1:t=/secret/x ");
}

static void who_may_list_the_node_above_hears(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->guest, "/home", "t"), 0);
    write_text(&f->dom0, NULL, "/home/x", "1");
    set_perms(&f->dom0, NULL, "/home/x", 1, 0, 0);
    events(f);
    write_text(&f->dom0, NULL, "/home/x", "2");
    assert_string_equal(events(f), "1:t=/home/x ");
}

static void special_watches_hear_special_events_only(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->dom0, "@releaseDomain", "r"), 0);
    assert_int_equal(watch(&f->guest, "@releaseDomain", "g"), 0);
    assert_int_equal(watch(&f->dom0, "/", "root"), 0);
    store_fire_special(f->s, "@introduceDomain");
    assert_string_equal(events(f), "");
    store_fire_special(f->s, "@releaseDomain");
    assert_string_equal(events(f), "0:r=@releaseDomain ");
    set_perms(&f->dom0, NULL, "@releaseDomain", 2, 0, 0, 1, STORE_READ);
    store_fire_special(f->s, "@releaseDomain");
    assert_string_equal(events(f), "1:g=@releaseDomain 0:r=@releaseDomain ");
}

static void the_same_watch_twice_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->dom0, "/a", "t"), 0);
    assert_int_equal(watch(&f->dom0, "/a", "t"), -EEXIST);
    assert_int_equal(watch(&f->dom0, "/a", "u"), 0);
    assert_int_equal(watch(&f->guest, "/a", "t"), 0);
}

static void a_watch_removed_hears_nothing(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(watch(&f->dom0, "/a/b", "t"), 0);
    assert_int_equal(store_watch_remove(&f->dom0, "/a", "t"), -ENOENT);
    assert_int_equal(store_watch_remove(&f->dom0, "/a/b", "u"), -ENOENT);
    assert_int_equal(store_watch_remove(&f->guest, "/a/b", "t"), -ENOENT);
    assert_int_equal(store_watch_remove(&f->dom0, "/a/b", "t"), 0);
    write_text(&f->dom0, NULL, "/a/b", "");
    assert_string_equal(events(f), "");
}

static void a_client_that_goes_takes_its_watches_along(void **state)
{
    struct fixture *f = *state;
    struct store_usage usage;

    assert_int_equal(watch(&f->guest, "/a/b/c", "t"), 0);
    assert_int_equal(watch(&f->guest, "/a/b", "t"), 0);
    store_client_reset(&f->guest);
    store_check(f->s, &usage);
    assert_int_equal(usage.nr_watches, 0);
    write_text(&f->dom0, NULL, "/a/b/c", "");
    assert_string_equal(events(f), "");
}

static void a_guest_has_so_many_watches(void **state)
{
    struct fixture *f = *state;
    char token[16];

    for (unsigned i = 0; i < 128; i++) {
        snprintf(token, sizeof(token), "%u", i);
        assert_int_equal(watch(&f->guest, "/a", token), 0);
    }
    assert_int_equal(watch(&f->guest, "/a", "more"), -E2BIG);
    assert_int_equal(watch(&f->dom0, "/a", "more"), 0);
    assert_int_equal(store_watch_remove(&f->guest, "/a", "7"), 0);
    assert_int_equal(watch(&f->guest, "/a", "more"), 0);
}

static void transactions_fire_at_their_end(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx = tx_start(&f->dom0);

    write_text(&f->dom0, NULL, "/b", "");
    assert_int_equal(watch(&f->dom0, "/", "t"), 0);
    write_text(&f->dom0, tx, "/a/x", "1");
    write_text(&f->dom0, tx, "/a/x", "2");
    write_text(&f->dom0, tx, "/a", "3");
    assert_string_equal(events(f), "");
    assert_int_equal(store_tx_end(tx, true), 0);
    assert_string_equal(events(f), "0:t=/a/x 0:t=/a ");
}

static void a_transaction_that_fails_fires_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx = tx_start(&f->dom0);

    assert_int_equal(watch(&f->dom0, "/a", "t"), 0);
    write_text(&f->dom0, tx, "/a/x", "1");
    write_text(&f->dom0, tx, "/b", "1");
    write_text(&f->dom0, NULL, "/b", "2");
    assert_int_equal(store_tx_end(tx, true), -EAGAIN);
    tx = tx_start(&f->dom0);
    write_text(&f->dom0, tx, "/a/x", "1");
    assert_int_equal(store_tx_end(tx, false), 0);
    assert_string_equal(events(f), "");
}

static void a_removal_in_a_transaction_fires_below_too(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx;

    write_text(&f->dom0, NULL, "/a/b/c", "");
    assert_int_equal(watch(&f->dom0, "/a/b/c", "t"), 0);
    tx = tx_start(&f->dom0);
    store_rm(&f->dom0, tx, "/a");
    assert_int_equal(store_tx_end(tx, true), 0);
    assert_string_equal(events(f), "0:t=/a/b/c ");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_watch_hears_of_its_node_and_those_below),
        T(the_root_can_be_watched),
        T(every_kind_of_change_fires),
        T(a_removal_fires_watches_below_with_their_own_path),
        T(a_watch_may_be_as_deep_as_it_asks),
        T(a_relative_watch_gets_relative_paths),
        T(who_may_not_read_hears_nothing),
        T(who_could_read_hears_of_the_end),
        T(who_may_list_the_node_above_hears),
        T(special_watches_hear_special_events_only),
        T(the_same_watch_twice_is_refused),
        T(a_watch_removed_hears_nothing),
        T(a_client_that_goes_takes_its_watches_along),
        T(a_guest_has_so_many_watches),
        T(transactions_fire_at_their_end),
        T(a_transaction_that_fails_fires_nothing),
        T(a_removal_in_a_transaction_fires_below_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
