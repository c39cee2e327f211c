/* SPDX-License-Identifier: MIT */
/* Memory that runs out at each allocation in turn (the linker sends malloc and
 * its kin here): the operation must either have happened or have left the store
 * as it was, with nothing lost and all counts right. */
#include "store_fixture.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t nr, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t nr, size_t size);
void *__wrap_realloc(void *p, size_t size);

static unsigned allocations_left = ~0u;

static bool may_allocate(void)
{
    if (allocations_left == ~0u)
        return true;
    if (allocations_left == 0)
        return false;
    allocations_left--;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return may_allocate() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t nr, size_t size)
{
    return may_allocate() ? __real_calloc(nr, size) : NULL;
}

void *__wrap_realloc(void *p, size_t size)
{
    return may_allocate() ? __real_realloc(p, size) : NULL;
}

static void put(char **at, const struct store_node *n)
{
    *at += sprintf(*at, "%s=%.*s(%u,%u){", n->name, (int)n->data->value_len,
                   store_data_value(n->data), n->data->nr_perms, store_data_owner(n->data));
    for (uint32_t i = 0; i < n->children.nr; i++)
        put(at, n->children.v[i]);
    *at += sprintf(*at, "}");
}

/* Everything that can be seen, as text. */
static char *dump(struct fixture *f)
{
    const struct store_node *n;
    char *all = __real_malloc(65536), *at = all;

    assert_int_equal(store_list(&f->dom0, NULL, "/", &n), 0);
    put(&at, n);
    return all;
}

/* Runs act with memory for 0, 1, 2 ... allocations until it succeeds. */
static void with_ever_more_memory(struct fixture *f, int (*act)(struct fixture *f))
{
    int rc = -ENOMEM;

    for (unsigned n = 0; rc; n++) {
        char *before = dump(f), *after;

        assert_true(n < 1000);
        allocations_left = n;
        rc = act(f);
        allocations_left = ~0u;
        assert_sound(f);
        if (rc) {
            assert_int_equal(rc, -ENOMEM);
            after = dump(f);
            assert_string_equal(before, after);
            free(after);
        }
        free(before);
    }
}

static int act_write_new(struct fixture *f)
{
    return write_text(&f->guest, NULL, "/home/a/b/c", "value");
}

static int act_write_old(struct fixture *f)
{
    return write_text(&f->guest, NULL, "/home", "value");
}

static int act_rm(struct fixture *f)
{
    return store_rm(&f->guest, NULL, "/home/tree");
}

static int act_set_perms(struct fixture *f)
{
    return set_perms(&f->dom0, NULL, "/home/tree", 2, 700, 0, 2, STORE_READ);
}

static int act_watch(struct fixture *f)
{
    int rc = store_watch_add(&f->guest, "/home/w/x", "t", 0, STORE_DEPTH_ANY);

    if (!rc)
        assert_int_equal(store_watch_remove(&f->guest, "/home/w/x", "t"), 0);
    return rc;
}

static int act_transaction(struct fixture *f)
{
    struct store_client *c = &f->dom0;
    struct store_tx *tx;
    uint32_t id;
    int rc = store_tx_start(c, &id);

    if (rc)
        return rc;
    tx = store_tx_find(c, id);
    rc = write_text(c, tx, "/home/tree/new/er", "1");
    if (!rc)
        rc = store_rm(c, tx, "/home/tree/a");
    if (!rc)
        rc = write_text(c, tx, "/home/tree/a/again", "2");
    if (!rc)
        rc = set_perms(c, tx, "/home/tree/b", 1, 701, 0);
    if (!rc)
        return store_tx_end(tx, true);
    store_tx_end(tx, false);
    return rc;
}

static void fill(struct fixture *f)
{
    assert_int_equal(write_text(&f->guest, NULL, "/home/tree/a/x", "1"), 0);
    assert_int_equal(write_text(&f->guest, NULL, "/home/tree/b/y", "1"), 0);
    assert_int_equal(write_text(&f->other, NULL, "/home", "1"), -EACCES);
}

#define MEMORY_TEST(name, act)                                          \
    static void name##_survives_without_memory(void **state)            \
    {                                                                   \
        fill(*state);                                                   \
        with_ever_more_memory(*state, act);                             \
    }                                                                   \
    static void name##_survives_under_a_snapshot(void **state)          \
    {                                                                   \
        struct fixture *f = *state;                                     \
        struct store_tx *tx;                                            \
                                                                        \
        fill(f);                                                        \
        tx = tx_start(&f->dom0);                                        \
        with_ever_more_memory(f, act);                                  \
        store_tx_end(tx, false);                                        \
    }

MEMORY_TEST(a_new_node, act_write_new)
MEMORY_TEST(a_new_value, act_write_old)
MEMORY_TEST(a_removal, act_rm)
MEMORY_TEST(a_change_of_owner, act_set_perms)
MEMORY_TEST(a_watch, act_watch)
MEMORY_TEST(a_transaction, act_transaction)

/* May be done in part, as each part only takes rights away. */
static void forgetting_can_be_repeated_without_memory(void **state)
{
    struct fixture *f = *state;
    int rc = -ENOMEM;

    fill(f);
    for (unsigned n = 0; rc; n++) {
        allocations_left = n;
        rc = store_domain_forget(f->s, 2);
        allocations_left = ~0u;
        assert_sound(f);
    }
    assert_string_equal(text(&f->other, NULL, "/home"), "EACCES");
    assert_string_equal(text(&f->other, NULL, "/home/tree/a/x"), "EACCES");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T2(name) T(name##_survives_without_memory), T(name##_survives_under_a_snapshot)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T2(a_new_node), T2(a_new_value), T2(a_removal), T2(a_change_of_owner), T2(a_watch),
        T2(a_transaction), T(forgetting_can_be_repeated_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
