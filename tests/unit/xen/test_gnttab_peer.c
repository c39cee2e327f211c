/* SPDX-License-Identifier: MIT */
/* Other guests' grants, as the core deals with them: handles, what is asked of the
 * surroundings and given back, and copies with ends on either side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gnttab_guest.h"

#define PEER     3
#define PEER_MFN 0x900
#define HOST     GNTMAP_host_map
#define BUS      GNTMAP_device_map
#define NR_HOLDS 4

/* A guest with one other, which grants whatever it is asked for. */
struct pair {
    struct guest *g;
    int16_t answer;             /* to map and hold */
    unsigned nr_mapped, nr_held;
    struct gnttab_grant grant;
    bool write;                 /* as was last asked */
    bool held[NR_HOLDS];
    struct gnttab_peer_end from, to;
    unsigned nr_copies;
};

static void unlocked(struct pair *x)
{
    /* would not return if the lock were held */
    spin_lock(&x->g->t.lock);
    spin_unlock(&x->g->t.lock);
}

static bool exists(void *ctx, domid_t domid)
{
    unlocked(ctx);
    return domid == PEER;
}

static int16_t map(void *ctx, domid_t domid, grant_ref_t ref, bool write, uint64_t *mfn)
{
    struct pair *x = ctx;

    unlocked(x);
    assert_int_equal(domid, PEER);
    x->write = write;
    if (x->answer == GNTST_okay)
        x->nr_mapped++;
    *mfn = PEER_MFN + ref;
    return x->answer;
}

static void unmap(void *ctx, uint64_t mfn)
{
    struct pair *x = ctx;

    unlocked(x);
    assert_true(x->nr_mapped && mfn >= PEER_MFN);
    x->nr_mapped--;
}

static int16_t hold(void *ctx, domid_t domid, grant_ref_t ref, bool write,
                    struct gnttab_grant *grant, uint32_t *number)
{
    struct pair *x = ctx;
    uint32_t i = 0;

    unlocked(x);
    assert_int_equal(domid, PEER);
    x->write = write;
    *number = 12345;
    if (x->answer != GNTST_okay)
        return x->answer;
    while (x->held[i])
        i++;
    assert_true(i < NR_HOLDS);
    x->held[i] = true;
    *number = i;
    *grant = x->grant;
    return GNTST_okay;
}

static void drop(void *ctx, uint32_t number)
{
    struct pair *x = ctx;

    unlocked(x);
    assert_true(number < NR_HOLDS && x->held[number]);
    x->held[number] = false;
}

static int16_t copy(void *ctx, const struct gnttab_peer_end *from,
                    const struct gnttab_peer_end *to, uint32_t bytes)
{
    struct pair *x = ctx;

    unlocked(x);
    x->from = *from;
    x->to = *to;
    x->nr_copies++;
    return bytes ? GNTST_okay : GNTST_general_error;
}

static int setup(void **state)
{
    static const struct gnttab_peers peers = { .exists = exists, .map = map, .unmap = unmap,
                                               .hold = hold, .drop = drop, .copy = copy };
    struct pair *x = calloc(1, sizeof(*x));

    guest_setup((void **)&x->g);
    x->grant.length = PAGE_SIZE;
    gnttab_peers_set(&x->g->t, &peers, x);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct pair *x = *state;

    assert_int_equal(x->nr_mapped, 0);
    for (unsigned i = 0; i < NR_HOLDS; i++)
        assert_false(x->held[i]);
    guest_teardown((void **)&x->g);
    free(x);
    return 0;
}

static struct gnttab_map_grant_ref op;

static int do_map(struct pair *x, uint32_t flags, grant_ref_t ref, domid_t dom)
{
    op = (struct gnttab_map_grant_ref){ .host_addr = 0x5000, .flags = flags, .ref = ref,
                                        .dom = dom };
    assert_int_equal(gnttab_map_grant_ref(&x->g->t, &op), 0);
    return op.status;
}

static int do_unmap(struct pair *x, uint64_t host, uint64_t bus, grant_handle_t handle)
{
    struct gnttab_unmap_grant_ref u = { host, bus, handle, 0 };

    assert_int_equal(gnttab_unmap_grant_ref(&x->g->t, &u), 0);
    return u.status;
}

static void test_map(void **state)
{
    struct pair *x = *state;
    grant_handle_t first;

    assert_int_equal(do_map(x, HOST | BUS, 8, PEER), GNTST_okay);
    first = op.handle;
    assert_true(x->write);
    assert_int_equal(op.dev_bus_addr, (uint64_t)(PEER_MFN + 8) << PAGE_SHIFT);
    assert_int_equal(x->g->mfn, PEER_MFN + 8);
    assert_int_equal(do_map(x, HOST | GNTMAP_readonly, 8, PEER), GNTST_okay);
    assert_false(x->write);
    assert_int_not_equal(op.handle, first);
    assert_int_equal(do_unmap(x, 0x5000, 0, op.handle), GNTST_okay);
    assert_int_equal(do_unmap(x, 0x5000, 0, op.handle), GNTST_bad_handle);
    /* the one that was mapped twice goes with its second */
    assert_int_equal(do_unmap(x, 0x5000, 0, first), GNTST_okay);
    assert_int_equal(x->nr_mapped, 1);
    assert_int_equal(do_unmap(x, 0, 0x1000, first), GNTST_general_error);
    assert_int_equal(do_unmap(x, 0, (uint64_t)(PEER_MFN + 8) << PAGE_SHIFT, first), GNTST_okay);
    assert_int_equal(x->nr_mapped, 0);
    assert_int_equal(x->g->t.nr_handles, 0);
}

static void test_refused(void **state)
{
    struct pair *x = *state;

    assert_int_equal(do_map(x, HOST, 8, OTHER), GNTST_bad_domain);
    assert_int_equal(do_map(x, HOST, 8, DOMID_SELF), GNTST_bad_domain);
    assert_int_equal(do_map(x, HOST, 8, DOMID_IO), GNTST_bad_domain);
    assert_int_equal(do_map(x, GNTMAP_readonly, 8, PEER), GNTST_bad_gntref);
    x->answer = GNTST_bad_page;
    assert_int_equal(do_map(x, HOST, 8, PEER), GNTST_bad_page);
    x->answer = GNTST_okay;
    x->g->answer = GNTST_general_error;     /* no such page table entry */
    assert_int_equal(do_map(x, HOST, 8, PEER), GNTST_general_error);
    assert_int_equal(x->nr_mapped, 0);
    x->g->answer = GNTST_okay;
    assert_int_equal(do_map(x, HOST, 8, PEER), GNTST_okay);
    x->g->answer = GNTST_general_error;     /* it is not as it was mapped */
    assert_int_equal(do_unmap(x, 0x5000, 0, op.handle), GNTST_general_error);
    assert_int_equal(x->nr_mapped, 1);
    x->g->answer = GNTST_okay;
    assert_int_equal(do_unmap(x, 0x5000, 0, op.handle), GNTST_okay);
    assert_int_equal(do_unmap(x, 0x5000, 0, UINT32_MAX), GNTST_bad_handle);
}

static void test_all_handles(void **state)
{
    struct pair *x = *state;

    for (unsigned i = 0; i < GNTTAB_PEER_HANDLES_MAX; i++)
        assert_int_equal(do_map(x, HOST, 8, PEER), GNTST_okay);
    assert_int_equal(do_map(x, HOST, 8, PEER), GNTST_no_device_space);
    assert_int_equal(x->nr_mapped, GNTTAB_PEER_HANDLES_MAX);
    for (unsigned i = 0; i < GNTTAB_PEER_HANDLES_MAX; i++)
        assert_int_equal(do_unmap(x, 0x5000, 0, GNTTAB_HANDLES_MAX + i), GNTST_okay);
    assert_int_equal(do_unmap(x, 0x5000, 0, GNTTAB_HANDLES_MAX + GNTTAB_PEER_HANDLES_MAX),
                     GNTST_bad_handle);
}

static void test_replace(void **state)
{
    struct pair *x = *state;
    struct gnttab_unmap_and_replace u = { .host_addr = 0x5000, .new_addr = 0x6000 };

    assert_int_equal(do_map(x, HOST, 8, PEER), GNTST_okay);
    u.handle = op.handle;
    assert_int_equal(gnttab_unmap_and_replace(&x->g->t, &u), 0);
    assert_int_equal(u.status, GNTST_okay);
    assert_int_equal(x->g->new_addr, 0x6000);
    assert_int_equal(x->nr_mapped, 0);
}

static struct gnttab_copy c;

static int do_copy(struct pair *x)
{
    assert_int_equal(gnttab_copy(&x->g->t, &c), 0);
    return c.status;
}

static void test_copy_in(void **state)
{
    struct pair *x = *state;

    c = (struct gnttab_copy){ .source = { .domid = PEER, .u.ref = 8, .offset = 100 },
                              .dest = { .domid = DOMID_SELF, .u.gmfn = RAM_MFN, .offset = 200 },
                              .len = 50, .flags = GNTCOPY_source_gref };
    assert_int_equal(do_copy(x), GNTST_okay);
    assert_false(x->write);
    assert_int_equal(x->from.hold, 0);
    assert_int_equal(x->from.offset, 100);
    assert_int_equal(x->to.hold, GNTTAB_NO_HOLD);
    assert_int_equal(x->to.mfn, RAM_MFN);
    assert_int_equal(x->to.offset, 200);
    c.dest.u.gmfn = RAM_MFN + TABLE_PAGE;
    assert_int_equal(do_copy(x), GNTST_general_error);
    c.dest.u.gmfn = RAM_MFN + RAM_PAGES;
    assert_int_equal(do_copy(x), GNTST_bad_page);
    c.dest.u.gmfn = RAM_MFN;
    c.len = 4000;
    assert_int_equal(do_copy(x), GNTST_bad_copy_arg);
    c.len = 50;
    x->grant = (struct gnttab_grant){ .offset = 101, .length = 200 };
    assert_int_equal(do_copy(x), GNTST_general_error);
    x->grant = (struct gnttab_grant){ .offset = 90, .length = 59 };
    assert_int_equal(do_copy(x), GNTST_general_error);
    x->grant = (struct gnttab_grant){ .transitive = true, .trans_domid = 0 };
    assert_int_equal(do_copy(x), GNTST_general_error);
    x->answer = GNTST_bad_gntref;
    assert_int_equal(do_copy(x), GNTST_bad_gntref);
    /* both domains are looked for before either is looked at */
    c.dest = (struct gnttab_copy_ptr){ .domid = OTHER };
    c.flags |= GNTCOPY_dest_gref;
    assert_int_equal(do_copy(x), GNTST_bad_domain);
    c.flags = 0;
    assert_int_equal(do_copy(x), GNTST_permission_denied);
    assert_int_equal(x->nr_copies, 1);
}

/* From what the domain grants itself to what the other grants it. */
static void test_copy_out(void **state)
{
    struct pair *x = *state;

    guest_give(x->g, 9, GTF_permit_access | GTF_readonly, SELF, RAM_MFN + 2);
    c = (struct gnttab_copy){ .source = { .domid = SELF, .u.ref = 9 },
                              .dest = { .domid = PEER, .u.ref = 8 }, .len = 50,
                              .flags = GNTCOPY_source_gref | GNTCOPY_dest_gref };
    assert_int_equal(do_copy(x), GNTST_okay);
    assert_true(x->write);
    assert_int_equal(x->from.hold, GNTTAB_NO_HOLD);
    assert_int_equal(x->from.mfn, RAM_MFN + 2);
    assert_int_equal(x->to.hold, 0);
    assert_int_equal(guest_use(x->g, 9), 0);
    x->answer = GNTST_general_error;
    assert_int_equal(do_copy(x), GNTST_general_error);
    assert_int_equal(guest_use(x->g, 9), 0);
    x->answer = GNTST_okay;
    c.source.u.ref = 10;
    assert_int_equal(do_copy(x), GNTST_general_error);
    c.source = (struct gnttab_copy_ptr){ .domid = PEER, .u.ref = 11 };
    assert_int_equal(do_copy(x), GNTST_okay);
    assert_int_not_equal(x->from.hold, x->to.hold);
    assert_int_equal(x->g->t.nr_handles, 0);
}

static void test_whose(void **state)
{
    struct pair *x = *state;
    struct gnttab_query_size q = { .dom = PEER };
    struct gnttab_transfer t = { .mfn = RAM_MFN, .domid = PEER };

    gnttab_query_size(&x->g->t, &q);
    assert_int_equal(q.status, GNTST_permission_denied);
    q.dom = OTHER;
    gnttab_query_size(&x->g->t, &q);
    assert_int_equal(q.status, GNTST_bad_domain);
    gnttab_transfer(&x->g->t, &t);
    assert_int_equal(t.status, GNTST_general_error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_handles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replace, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_in, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whose, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
