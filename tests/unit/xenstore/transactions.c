/* SPDX-License-Identifier: MIT */
#include "store_fixture.h"

static void changes_are_seen_inside_only_until_the_end(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx = tx_start(&f->dom0);

    assert_int_equal(write_text(&f->dom0, tx, "/a/b", "1"), 0);
    assert_string_equal(text(&f->dom0, tx, "/a/b"), "1");
    assert_string_equal(text(&f->dom0, NULL, "/a/b"), "ENOENT");
    assert_int_equal(store_tx_end(tx, true), 0);
    assert_string_equal(text(&f->dom0, NULL, "/a/b"), "1");
}

static void a_transaction_given_up_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx = tx_start(&f->dom0);
    struct store_usage before, after;

    store_check(f->s, &before);
    assert_int_equal(write_text(&f->dom0, tx, "/a/b", "1"), 0);
    assert_int_equal(store_rm(&f->dom0, tx, "/home"), 0);
    assert_int_equal(store_tx_end(tx, false), 0);
    assert_string_equal(text(&f->dom0, NULL, "/a/b"), "ENOENT");
    assert_string_equal(text(&f->dom0, NULL, "/home"), "");
    store_check(f->s, &after);
    assert_int_equal(after.nr_nodes_alive, before.nr_nodes_alive);
}

static void a_transaction_sees_the_store_of_its_start(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx;

    assert_int_equal(write_text(&f->dom0, NULL, "/a", "old"), 0);
    tx = tx_start(&f->dom0);
    assert_int_equal(write_text(&f->dom0, NULL, "/a", "new"), 0);
    assert_int_equal(write_text(&f->dom0, NULL, "/b", "new"), 0);
    assert_string_equal(text(&f->dom0, tx, "/a"), "old");
    assert_string_equal(text(&f->dom0, tx, "/b"), "ENOENT");
    assert_int_equal(store_tx_end(tx, true), -EAGAIN);
}

/* Runs two transactions side by side; the first ends first. */
struct pair {
    struct store_tx *one, *two;
};

static struct pair pair_start(struct fixture *f)
{
    assert_int_equal(write_text(&f->dom0, NULL, "/d/x", "x"), 0);
    assert_int_equal(write_text(&f->dom0, NULL, "/d/y", "y"), 0);
    return (struct pair){ tx_start(&f->dom0), tx_start(&f->dom0) };
}

static void assert_ends(struct fixture *f, struct pair p, int second)
{
    assert_int_equal(store_tx_end(p.one, true), 0);
    assert_int_equal(store_tx_end(p.two, true), second);
    assert_sound(f);
}

static void different_nodes_do_not_conflict(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d/x", "1"), 0);
    assert_int_equal(write_text(&f->dom0, p.two, "/d/y", "2"), 0);
    assert_ends(f, p, 0);
    assert_string_equal(text(&f->dom0, NULL, "/d/x"), "1");
    assert_string_equal(text(&f->dom0, NULL, "/d/y"), "2");
}

static void new_children_of_one_node_do_not_conflict(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d/new1/z", "1"), 0);
    assert_int_equal(write_text(&f->dom0, p.two, "/d/new2/z", "2"), 0);
    assert_ends(f, p, 0);
    assert_string_equal(names(&f->dom0, NULL, "/d"), "new1 new2 x y ");
}

static void a_child_made_and_a_value_written_do_not_conflict(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d", "value"), 0);
    assert_int_equal(write_text(&f->dom0, p.two, "/d/new", "2"), 0);
    assert_ends(f, p, 0);
    assert_string_equal(text(&f->dom0, NULL, "/d"), "value");
    assert_string_equal(text(&f->dom0, NULL, "/d/new"), "2");
}

static void readers_do_not_conflict(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_string_equal(text(&f->dom0, p.one, "/d/x"), "x");
    assert_string_equal(text(&f->dom0, p.two, "/d/x"), "x");
    assert_ends(f, p, 0);
}

static void a_value_read_and_written_by_another_conflicts(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d/x", "1"), 0);
    assert_string_equal(text(&f->dom0, p.two, "/d/x"), "x");
    assert_int_equal(write_text(&f->dom0, p.two, "/d/y", "2"), 0);
    assert_ends(f, p, -EAGAIN);
    assert_string_equal(text(&f->dom0, NULL, "/d/y"), "y");
}

static void one_node_written_by_both_conflicts(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d/x", "1"), 0);
    assert_int_equal(write_text(&f->dom0, p.two, "/d/x", "2"), 0);
    assert_ends(f, p, -EAGAIN);
    assert_string_equal(text(&f->dom0, NULL, "/d/x"), "1");
}

static void one_node_made_by_both_conflicts(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(store_mkdir(&f->dom0, p.one, "/d/new/a"), 0);
    assert_int_equal(store_mkdir(&f->dom0, p.two, "/d/new/b"), 0);
    assert_ends(f, p, -EAGAIN);
}

static void a_list_read_and_a_child_made_conflict(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d/new", "1"), 0);
    assert_string_equal(names(&f->dom0, p.two, "/d"), "x y ");
    assert_ends(f, p, -EAGAIN);
}

static void an_absent_node_looked_for_and_made_conflicts(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d/new", "1"), 0);
    assert_string_equal(text(&f->dom0, p.two, "/d/new"), "ENOENT");
    assert_ends(f, p, -EAGAIN);
}

static void a_subtree_removed_and_changed_conflicts(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(write_text(&f->dom0, p.one, "/d/x/deep/er", "1"), 0);
    assert_int_equal(store_rm(&f->dom0, p.two, "/d/x"), 0);
    assert_ends(f, p, -EAGAIN);
    assert_string_equal(text(&f->dom0, NULL, "/d/x/deep/er"), "1");
}

static void a_child_made_below_a_removed_node_conflicts(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_int_equal(store_rm(&f->dom0, p.one, "/d"), 0);
    assert_int_equal(write_text(&f->dom0, p.two, "/d/z", "2"), 0);
    assert_ends(f, p, -EAGAIN);
    assert_string_equal(text(&f->dom0, NULL, "/d/z"), "ENOENT");
}

static void a_node_removed_and_made_again_counts_as_changed(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_string_equal(text(&f->dom0, p.two, "/d/x"), "x");
    assert_int_equal(store_rm(&f->dom0, p.one, "/d/x"), 0);
    assert_int_equal(write_text(&f->dom0, p.one, "/d/x", "x"), 0);
    assert_ends(f, p, -EAGAIN);
}

static void a_change_of_permissions_conflicts_with_a_read(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_string_equal(text(&f->dom0, p.two, "/d/x"), "x");
    assert_int_equal(set_perms(&f->dom0, p.one, "/d/x", 1, 1, 0), 0);
    assert_ends(f, p, -EAGAIN);
}

static void a_change_without_transaction_conflicts_too(void **state)
{
    struct fixture *f = *state;
    struct pair p = pair_start(f);

    assert_string_equal(text(&f->dom0, p.one, "/d/x"), "x");
    assert_string_equal(text(&f->dom0, p.two, "/d/y"), "y");
    assert_int_equal(write_text(&f->dom0, NULL, "/d/y", "2"), 0);
    assert_ends(f, p, -EAGAIN);
}

static void what_is_removed_and_made_again_has_only_the_new_children(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx;

    assert_int_equal(write_text(&f->dom0, NULL, "/d/old", "1"), 0);
    tx = tx_start(&f->dom0);
    assert_int_equal(write_text(&f->dom0, tx, "/d/a", "before"), 0);
    assert_int_equal(store_rm(&f->dom0, tx, "/d"), 0);
    assert_int_equal(write_text(&f->dom0, tx, "/d/a", "after"), 0);
    assert_int_equal(write_text(&f->dom0, tx, "/d/b", "after"), 0);
    assert_int_equal(store_rm(&f->dom0, tx, "/d/b"), 0);
    assert_int_equal(store_tx_end(tx, true), 0);
    assert_string_equal(names(&f->dom0, NULL, "/d"), "a ");
    assert_string_equal(text(&f->dom0, NULL, "/d/a"), "after");
}

static void counts_are_right_after_the_end(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx = tx_start(&f->guest);

    assert_int_equal(write_text(&f->guest, tx, "/home/a/b", "1"), 0);
    assert_int_equal(write_text(&f->guest, tx, "/home/c", "1"), 0);
    assert_int_equal(store_rm(&f->guest, tx, "/home/a"), 0);
    assert_int_equal(store_tx_end(tx, true), 0);
    assert_sound(f);
}

static void a_guest_has_so_many_transactions(void **state)
{
    struct fixture *f = *state;
    uint32_t id;

    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(store_tx_start(&f->guest, &id), 0);
    assert_int_equal(store_tx_start(&f->guest, &id), -ENOSPC);
    assert_int_equal(store_tx_end(store_tx_find(&f->guest, id), false), 0);
    assert_int_equal(store_tx_start(&f->guest, &id), 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(store_tx_start(&f->dom0, &id), 0);
}

static void a_guest_touches_so_many_nodes_in_one(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx = tx_start(&f->guest);
    char path[64];

    for (unsigned i = 0; i < 1023; i++) {       /* and /home */
        snprintf(path, sizeof(path), "/home/%u", i);
        assert_string_equal(text(&f->guest, tx, path), "ENOENT");
    }
    assert_string_equal(text(&f->guest, tx, "/home/one-more"), "ENOSPC");
    assert_string_equal(text(&f->guest, tx, "/home/0"), "ENOENT");
    store_tx_end(tx, true);
}

static void a_guest_holds_so_much_in_one(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx = tx_start(&f->guest);
    static const char value[2000];
    unsigned nr = 0;

    while (!store_write(&f->guest, tx, "/home/x", value, sizeof(value)))
        assert_true(++nr < 1000);
    assert_int_equal(store_tx_end(tx, true), 0);
    assert_sound(f);
}

static void quotas_are_judged_again_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct store_tx *one = tx_start(&f->guest), *two = tx_start(&f->guest);
    char path[64];

    for (unsigned i = 0; i < 600; i++) {
        snprintf(path, sizeof(path), "/home/%c/%c%u", 'a' + i % 10, 'a' + i / 60, i);
        assert_int_equal(write_text(&f->dom0, NULL, "/home/z", ""), 0);
        assert_int_equal(write_text(&f->guest, one, path, ""), 0);
        path[6] = (char)('A' + i % 10);
        assert_int_equal(write_text(&f->guest, two, path, ""), 0);
    }
    assert_int_equal(store_tx_end(one, true), 0);
    assert_int_equal(store_tx_end(two, true), -ENOSPC);
    assert_sound(f);
}

/* --- many transactions at once, against the same ones run one after another --- */

#define NR_LIVE 6
#define NR_OPS  24

struct op {
    int kind;
    char path[32];
    char value[8];
    char result[256];       /* as text */
};

struct live {
    struct store_client *c;
    struct store_tx *tx;
    unsigned nr;
    struct op ops[NR_OPS];
};

static uint32_t random_next(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    *x ^= *x << 5;
    return *x;
}

static void op_run(struct store_client *c, struct store_tx *tx, const struct op *op, char *result)
{
    int rc = 0;

    switch (op->kind) {
    case 0: case 1: snprintf(result, 256, "%.255s", text(c, tx, op->path)); return;
    case 2: snprintf(result, 256, "%.255s", names(c, tx, op->path)); return;
    case 3: case 4: rc = write_text(c, tx, op->path, op->value); break;
    case 5: rc = store_mkdir(c, tx, op->path); break;
    case 6: rc = store_rm(c, tx, op->path); break;
    case 7: rc = set_perms(c, tx, op->path, 2, c->domid, op->value[0] & 3, 2, 1); break;
    }
    snprintf(result, 256, "%d", rc);
}

static void op_make(struct op *op, uint32_t *seed)
{
    uint32_t r = random_next(seed);
    int len = snprintf(op->path, sizeof(op->path), "/home");

    for (unsigned depth = r % 4; depth; depth--)
        len += snprintf(op->path + len, sizeof(op->path) - (size_t)len, "/%c",
                        'a' + (int)(random_next(seed) % 3));
    op->kind = (int)(random_next(seed) % 8);
    snprintf(op->value, sizeof(op->value), "%u", random_next(seed) % 1000);
}

static void assert_same_below(const struct store_node *a, const struct store_node *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->data->value_len, b->data->value_len);
    assert_memory_equal(store_data_value(a->data), store_data_value(b->data), a->data->value_len);
    assert_int_equal(a->data->nr_perms, b->data->nr_perms);
    assert_memory_equal(a->data->perms, b->data->perms,
                        a->data->nr_perms * sizeof(a->data->perms[0]));
    assert_int_equal(a->children.nr, b->children.nr);
    for (uint32_t i = 0; i < a->children.nr; i++)
        assert_same_below(a->children.v[i], b->children.v[i]);
}

/* Everything a transaction that was committed did and saw must be what it would
 * have done and seen had it run alone at the moment of its end. */
static void committed_transactions_are_serializable(void **state)
{
    struct fixture *f = *state, *one_by_one;
    struct store_client *clients[2] = { &f->dom0, &f->guest }, *shadow[2];
    static struct live live[NR_LIVE];
    uint32_t seed = 20260101;
    unsigned nr_done = 0, nr_again = 0;
    const struct store_node *a, *b;
    char result[256];

    setup((void **)&one_by_one);
    shadow[0] = &one_by_one->dom0;
    shadow[1] = &one_by_one->guest;
    memset(live, 0, sizeof(live));
    for (unsigned step = 0; step < 60000; step++) {
        struct live *l = &live[random_next(&seed) % NR_LIVE];

        if (!l->tx) {
            l->c = clients[random_next(&seed) % 2];
            l->tx = tx_start(l->c);
            l->nr = 0;
        } else if (l->nr < NR_OPS && random_next(&seed) % 6) {
            op_make(&l->ops[l->nr], &seed);
            op_run(l->c, l->tx, &l->ops[l->nr], l->ops[l->nr].result);
            l->nr++;
        } else {
            int rc = store_tx_end(l->tx, true);

            l->tx = NULL;
            if (rc) {
                assert_int_equal(rc, -EAGAIN);
                nr_again++;
                continue;
            }
            nr_done++;
            for (unsigned i = 0; i < l->nr; i++) {
                op_run(shadow[l->c->domid], NULL, &l->ops[i], result);
                if (strcmp(result, l->ops[i].result))
                    fail_msg("step %u: kind %d of %s gave %s, alone %s", step, l->ops[i].kind,
                             l->ops[i].path, l->ops[i].result, result);
            }
            store_list(&f->dom0, NULL, "/", &a);
            store_list(shadow[0], NULL, "/", &b);
            assert_same_below(a, b);
        }
        if (step % 512 == 0)
            assert_sound(f);
    }
    /* the test is worth something only if both happen, and often */
    assert_true(nr_done > 1000);
    assert_true(nr_again > 1000);
    fixture_now = f;
    teardown((void **)&one_by_one);
}

static void two_hundred_domains_start_at_once(void **state)
{
    struct fixture *f = *state;
    struct store_tx *tx[200];
    char path[64];

    assert_int_equal(store_mkdir(&f->dom0, NULL, "/local/domain"), 0);
    for (unsigned i = 0; i < 200; i++)
        tx[i] = tx_start(&f->dom0);
    for (unsigned k = 0; k < 30; k++) {
        for (unsigned i = 0; i < 200; i++) {
            snprintf(path, sizeof(path), "/local/domain/%u/dir%u/node%u", i, k % 5, k);
            assert_int_equal(write_text(&f->dom0, tx[i], path, "value"), 0);
        }
    }
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(store_tx_end(tx[i], true), 0);
    assert_sound(f);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(changes_are_seen_inside_only_until_the_end),
        T(a_transaction_given_up_leaves_nothing),
        T(a_transaction_sees_the_store_of_its_start),
        T(different_nodes_do_not_conflict),
        T(new_children_of_one_node_do_not_conflict),
        T(a_child_made_and_a_value_written_do_not_conflict),
        T(readers_do_not_conflict),
        T(a_value_read_and_written_by_another_conflicts),
        T(one_node_written_by_both_conflicts),
        T(one_node_made_by_both_conflicts),
        T(a_list_read_and_a_child_made_conflict),
        T(an_absent_node_looked_for_and_made_conflicts),
        T(a_subtree_removed_and_changed_conflicts),
        T(a_child_made_below_a_removed_node_conflicts),
        T(a_node_removed_and_made_again_counts_as_changed),
        T(a_change_of_permissions_conflicts_with_a_read),
        T(a_change_without_transaction_conflicts_too),
        T(what_is_removed_and_made_again_has_only_the_new_children),
        T(counts_are_right_after_the_end),
        T(a_guest_has_so_many_transactions),
        T(a_guest_touches_so_many_nodes_in_one),
        T(a_guest_holds_so_much_in_one),
        T(quotas_are_judged_again_at_the_end),
        T(committed_transactions_are_serializable),
        T(two_hundred_domains_start_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
