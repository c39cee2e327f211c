/* SPDX-License-Identifier: MIT */
/* Nodes, permissions and quotas, without transactions and watches. */
#include "store_fixture.h"

#include <xen/io/xs_wire.h>

static void a_write_makes_the_nodes_above(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->dom0, NULL, "/a/b/c", "v"), 0);
    assert_string_equal(text(&f->dom0, NULL, "/a/b/c"), "v");
    assert_string_equal(text(&f->dom0, NULL, "/a/b"), "");
    assert_string_equal(names(&f->dom0, NULL, "/a"), "b ");
}

static void a_write_keeps_the_children(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->dom0, NULL, "/a/b", "1"), 0);
    assert_int_equal(write_text(&f->dom0, NULL, "/a", "2"), 0);
    assert_string_equal(text(&f->dom0, NULL, "/a"), "2");
    assert_string_equal(names(&f->dom0, NULL, "/a"), "b ");
}

static void a_value_may_hold_any_bytes(void **state)
{
    struct fixture *f = *state;
    const struct store_node *n;

    assert_int_equal(store_write(&f->dom0, NULL, "/a", "x\0y\xff", 4), 0);
    assert_int_equal(store_read(&f->dom0, NULL, "/a", &n), 0);
    assert_int_equal(n->data->value_len, 4);
    assert_memory_equal(store_data_value(n->data), "x\0y\xff", 4);
}

static void mkdir_leaves_a_value_alone(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->dom0, NULL, "/a", "v"), 0);
    assert_int_equal(store_mkdir(&f->dom0, NULL, "/a"), 0);
    assert_string_equal(text(&f->dom0, NULL, "/a"), "v");
    assert_int_equal(store_mkdir(&f->dom0, NULL, "/b/c"), 0);
    assert_string_equal(text(&f->dom0, NULL, "/b/c"), "");
}

static void rm_takes_everything_below(void **state)
{
    struct fixture *f = *state;
    struct store_usage before, after;

    store_check(f->s, &before);
    assert_int_equal(write_text(&f->dom0, NULL, "/a/b/c", "v"), 0);
    assert_int_equal(store_rm(&f->dom0, NULL, "/a"), 0);
    assert_string_equal(text(&f->dom0, NULL, "/a/b/c"), "ENOENT");
    store_check(f->s, &after);
    assert_int_equal(after.nr_nodes, before.nr_nodes);
    assert_int_equal(after.nr_nodes_alive, before.nr_nodes_alive);
}

static void rm_of_what_is_not_there_needs_the_node_above(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(store_mkdir(&f->dom0, NULL, "/a"), 0);
    assert_int_equal(store_rm(&f->dom0, NULL, "/a/x"), 0);
    assert_int_equal(store_rm(&f->dom0, NULL, "/a/x/y"), -ENOENT);
    assert_int_equal(store_rm(&f->dom0, NULL, "/"), -EINVAL);
}

static void names_that_begin_alike_are_different(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->dom0, NULL, "/a/ab", "2"), 0);
    assert_int_equal(write_text(&f->dom0, NULL, "/a/a", "1"), 0);
    assert_int_equal(write_text(&f->dom0, NULL, "/a/abc", "3"), 0);
    assert_string_equal(names(&f->dom0, NULL, "/a"), "a ab abc ");
    assert_string_equal(text(&f->dom0, NULL, "/a/ab"), "2");
    assert_int_equal(store_rm(&f->dom0, NULL, "/a/ab"), 0);
    assert_string_equal(text(&f->dom0, NULL, "/a/abc"), "3");
}

static void bad_paths_are_refused(void **state)
{
    static const char *const bad[] = {
        "", "a", "//", "/a//b", "/a/", "/a b", "/a.b", "/a\n", "/\xc3\xa9", "@x",
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < array_size(bad); i++) {
        if (write_text(&f->dom0, NULL, bad[i], "") != -EINVAL)
            fail_msg("accepted: %s", bad[i]);
        assert_string_equal(text(&f->dom0, NULL, bad[i]), "EINVAL");
    }
}

static void the_longest_path_is_accepted_and_no_longer_one(void **state)
{
    struct fixture *f = *state;
    char path[XENSTORE_ABS_PATH_MAX + 2];

    for (size_t i = 0; i < sizeof(path); i += 2) {
        path[i] = '/';
        path[i + 1] = 'a';
    }
    path[XENSTORE_ABS_PATH_MAX] = 0;
    assert_int_equal(write_text(&f->dom0, NULL, path, "deep"), 0);
    assert_string_equal(text(&f->dom0, NULL, path), "deep");
    memcpy(path + XENSTORE_ABS_PATH_MAX - 2, "/bc", 4);
    assert_int_equal(write_text(&f->dom0, NULL, path, ""), -EINVAL);
    assert_int_equal(store_rm(&f->dom0, NULL, "/a"), 0);
}

static void the_owner_may_do_everything(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->guest, NULL, "/home/x", "1"), 0);
    assert_string_equal(text(&f->guest, NULL, "/home/x"), "1");
    assert_int_equal(set_perms(&f->guest, NULL, "/home/x", 1, 1, STORE_READ), 0);
    assert_int_equal(store_rm(&f->guest, NULL, "/home/x"), 0);
}

static void others_may_do_what_they_are_named_for(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->guest, NULL, "/home/x", "1"), 0);
    assert_string_equal(text(&f->other, NULL, "/home/x"), "1");     /* r2, from /home */
    assert_int_equal(write_text(&f->other, NULL, "/home/x", "2"), -EACCES);
    assert_int_equal(set_perms(&f->guest, NULL, "/home/x", 2, 1, 0, 2, STORE_WRITE), 0);
    assert_string_equal(text(&f->other, NULL, "/home/x"), "EACCES");
    assert_int_equal(write_text(&f->other, NULL, "/home/x", "2"), 0);
    assert_int_equal(set_perms(&f->other, NULL, "/home/x", 1, 2, 0), -EACCES);
}

static void the_first_entry_is_the_rule_for_the_rest(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->dom0, NULL, "/x", "1"), 0);
    assert_string_equal(text(&f->guest, NULL, "/x"), "EACCES");
    assert_int_equal(set_perms(&f->dom0, NULL, "/x", 2, 0, STORE_READ, 2, 0), 0);
    assert_string_equal(text(&f->guest, NULL, "/x"), "1");
    assert_string_equal(text(&f->other, NULL, "/x"), "EACCES");
}

static void what_may_not_be_read_does_not_show_whether_it_exists(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->dom0, NULL, "/secret/x", "1"), 0);
    assert_string_equal(text(&f->guest, NULL, "/secret/x"), "EACCES");
    assert_string_equal(text(&f->guest, NULL, "/secret/y"), "EACCES");
    assert_string_equal(text(&f->guest, NULL, "/home/y"), "ENOENT");
}

static void a_guest_cannot_give_its_nodes_away(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->guest, NULL, "/home/x", "1"), 0);
    assert_int_equal(set_perms(&f->guest, NULL, "/home/x", 1, 2, 0), -EPERM);
    assert_int_equal(set_perms(&f->dom0, NULL, "/home/x", 1, 2, 0), 0);
    assert_string_equal(text(&f->guest, NULL, "/home/x"), "EACCES");
}

static void a_new_node_belongs_to_its_maker(void **state)
{
    struct fixture *f = *state;
    const struct store_node *n;

    assert_int_equal(write_text(&f->guest, NULL, "/home/x", ""), 0);
    assert_int_equal(store_get_perms(&f->guest, NULL, "/home/x", &n), 0);
    assert_int_equal(n->data->nr_perms, 2);
    assert_int_equal(n->data->perms[0].domid, 1);
    assert_int_equal(n->data->perms[1].domid, 2);
    /* domain 0 leaves it to the owner of the node above */
    assert_int_equal(write_text(&f->dom0, NULL, "/home/y", ""), 0);
    assert_int_equal(store_get_perms(&f->dom0, NULL, "/home/y", &n), 0);
    assert_int_equal(n->data->perms[0].domid, 1);
}

static void a_domain_may_do_what_its_target_may(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->guest, NULL, "/home/x", "1"), 0);
    assert_int_equal(write_text(&f->other, NULL, "/home/x", "2"), -EACCES);
    assert_int_equal(store_domain_set_target(f->s, 2, 1), 0);
    assert_int_equal(write_text(&f->other, NULL, "/home/x", "2"), 0);
    assert_int_equal(store_domain_forget(f->s, 1), 0);
    assert_int_equal(write_text(&f->other, NULL, "/home/x", "3"), -EACCES);
}

static void a_forgotten_domain_leaves_no_rights(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->guest, NULL, "/home/x", "1"), 0);
    assert_int_equal(write_text(&f->dom0, NULL, "/d/e", "2"), 0);
    assert_int_equal(set_perms(&f->dom0, NULL, "/d/e", 3, 0, 0, 1, STORE_READ, 2, STORE_READ), 0);
    assert_int_equal(set_perms(&f->dom0, NULL, "@releaseDomain", 2, 0, 0, 1, STORE_READ), 0);
    assert_int_equal(store_domain_forget(f->s, 1), 0);
    assert_string_equal(text(&f->guest, NULL, "/home/x"), "EACCES");
    assert_string_equal(text(&f->guest, NULL, "/d/e"), "EACCES");
    assert_string_equal(text(&f->other, NULL, "/d/e"), "2");
    assert_string_equal(text(&f->dom0, NULL, "/home/x"), "1");
    assert_sound(f);
}

static void special_nodes_have_permissions_only(void **state)
{
    struct fixture *f = *state;
    const struct store_node *n;

    assert_int_equal(store_get_perms(&f->guest, NULL, "@releaseDomain", &n), -EACCES);
    assert_int_equal(set_perms(&f->guest, NULL, "@releaseDomain", 1, 1, 0), -EACCES);
    assert_int_equal(set_perms(&f->dom0, NULL, "@releaseDomain", 2, 0, 0, 1, STORE_READ), 0);
    assert_int_equal(store_get_perms(&f->guest, NULL, "@releaseDomain", &n), 0);
    assert_int_equal(set_perms(&f->dom0, NULL, "@nothing", 1, 0, 0), -EINVAL);
    assert_string_equal(text(&f->dom0, NULL, "@releaseDomain"), "EINVAL");
}

static void a_guest_has_so_many_nodes(void **state)
{
    struct fixture *f = *state;
    char path[64];
    int rc = 0;
    unsigned nr;

    /* /home is one of them; spread, lest a directory grow too long */
    for (nr = 1; nr <= 1000 && !rc; nr++) {
        snprintf(path, sizeof(path), "/home/%u", nr % 50);
        if (nr >= 50)
            snprintf(path, sizeof(path), "/home/%u/%u", nr % 50, nr / 50);
        rc = write_text(&f->guest, NULL, path, "");
    }
    assert_int_equal(rc, -ENOSPC);
    assert_sound(f);
    /* domain 0 may still, and what goes makes room */
    assert_int_equal(write_text(&f->dom0, NULL, "/home/0/more", ""), 0);
    assert_int_equal(write_text(&f->guest, NULL, "/home/0/yet-more", ""), -ENOSPC);
    assert_int_equal(store_rm(&f->guest, NULL, "/home/7"), 0);
    assert_int_equal(write_text(&f->guest, NULL, "/home/0/yet-more", ""), 0);
}

static void a_guest_has_nodes_of_bounded_size(void **state)
{
    struct fixture *f = *state;
    static char value[4000];
    char path[64];
    int rc = 0;

    assert_int_equal(store_write(&f->guest, NULL, "/home/x", value, 2041), -ENOSPC);
    assert_int_equal(store_write(&f->guest, NULL, "/home/x", value, 2040), 0);
    assert_int_equal(store_write(&f->guest, NULL, "/home/x", value, 2041), -ENOSPC);
    assert_int_equal(store_write(&f->guest, NULL, "/home/x/y", "", 0), -ENOSPC);
    for (unsigned i = 0; !rc && i < 400; i++) {
        snprintf(path, sizeof(path), "/home/names/%06u", i);
        rc = write_text(&f->guest, NULL, path, "");
    }
    assert_int_equal(rc, -ENOSPC);
    assert_int_equal(store_write(&f->dom0, NULL, "/home/x", value, sizeof(value)), 0);
}

static void a_guest_names_so_many_domains(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(set_perms(&f->guest, NULL, "/home", 5, 1, 0, 2, 1, 3, 1, 4, 1, 5, 1), 0);
    assert_int_equal(set_perms(&f->guest, NULL, "/home", 6, 1, 0, 2, 1, 3, 1, 4, 1, 5, 1, 6, 1),
                     -ENOSPC);
}

static void counts_follow_a_change_of_owner(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(write_text(&f->guest, NULL, "/home/x/y", ""), 0);
    assert_int_equal(set_perms(&f->dom0, NULL, "/home/x", 1, 2, 0), 0);
    assert_sound(f);
    assert_int_equal(store_rm(&f->dom0, NULL, "/home"), 0);
    assert_sound(f);
}

static void ten_thousand_children_stay_in_order(void **state)
{
    struct fixture *f = *state;
    char path[64];

    for (unsigned i = 0; i < 10000; i++) {
        snprintf(path, sizeof(path), "/many/%u", i * 7919 % 10000);
        assert_int_equal(write_text(&f->dom0, NULL, path, path), 0);
    }
    assert_sound(f);
    assert_string_equal(text(&f->dom0, NULL, "/many/4242"), "/many/4242");
    for (unsigned i = 0; i < 10000; i += 2) {
        snprintf(path, sizeof(path), "/many/%u", i);
        assert_int_equal(store_rm(&f->dom0, NULL, path), 0);
    }
    assert_sound(f);
    assert_string_equal(text(&f->dom0, NULL, "/many/4242"), "ENOENT");
    assert_string_equal(text(&f->dom0, NULL, "/many/4243"), "/many/4243");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_write_makes_the_nodes_above),
        T(a_write_keeps_the_children),
        T(a_value_may_hold_any_bytes),
        T(mkdir_leaves_a_value_alone),
        T(rm_takes_everything_below),
        T(rm_of_what_is_not_there_needs_the_node_above),
        T(names_that_begin_alike_are_different),
        T(bad_paths_are_refused),
        T(the_longest_path_is_accepted_and_no_longer_one),
        T(the_owner_may_do_everything),
        T(others_may_do_what_they_are_named_for),
        T(the_first_entry_is_the_rule_for_the_rest),
        T(what_may_not_be_read_does_not_show_whether_it_exists),
        T(a_guest_cannot_give_its_nodes_away),
        T(a_new_node_belongs_to_its_maker),
        T(a_domain_may_do_what_its_target_may),
        T(a_forgotten_domain_leaves_no_rights),
        T(special_nodes_have_permissions_only),
        T(a_guest_has_so_many_nodes),
        T(a_guest_has_nodes_of_bounded_size),
        T(a_guest_names_so_many_domains),
        T(counts_follow_a_change_of_owner),
        T(ten_thousand_children_stay_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
