/* SPDX-License-Identifier: MIT */
/* The device's life, from its first connection to its last state, with frontends that
 * behave and that don't. */
#include "xen_vbd_fixture.h"

static void data_flows_over_every_shape_of_connection(void **state)
{
    static const struct { unsigned nr_queues, order; bool persistent; } shapes[] = {
        { 1, 0, false }, { 1, 4, true }, { 2, 0, true }, { 4, 2, false }, { 3, 4, true },
    };
    struct fixture *f = *state;

    /* one after the other on the same device: the guest re-probes */
    for (unsigned i = 0; i < array_size(shapes); i++) {
        struct xen_vbd_negotiated n;

        describe(f, shapes[i].nr_queues, shapes[i].order, shapes[i].persistent);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateConnected);
        set_state(f, XenbusStateConnected);
        xen_vbd_negotiated(f->vbd, &n);
        assert_true(n.connected);
        assert_int_equal(n.nr_queues, shapes[i].nr_queues);
        assert_int_equal(n.nr_ring_pages, 1u << shapes[i].order);
        assert_int_equal(n.nr_ring_requests, 32u << shapes[i].order);
        assert_int_equal(n.persistent, shapes[i].persistent);
        assert_int_equal(n.max_indirect_segments, 256);
        for (unsigned q = 0; q < shapes[i].nr_queues; q++)
            use_queue(f, q);
        set_state(f, XenbusStateClosing);
        expect_state(f, XenbusStateClosing);
        set_state(f, XenbusStateClosed);
        expect_state(f, XenbusStateClosed);
        assert_int_equal(f->nr_bound, 0);
        assert_int_equal(guest_grants_in_use(&f->guest), 0);
        xen_vbd_negotiated(f->vbd, &n);
        assert_false(n.connected);
        undescribe(f, shapes[i].nr_queues);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
    }
}

static void counters_outlive_the_connection(void **state)
{
    struct fixture *f = *state;
    struct vbd_queue_counters c;

    describe(f, 2, 0, true);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    use_queue(f, 0);
    use_queue(f, 1);
    assert_int_equal(xen_vbd_queue_counters(f->vbd, 1, &c), 0);
    assert_int_equal(c.ring.requests, 2);
    assert_int_equal(xen_vbd_queue_counters(f->vbd, 2, &c), -ENOENT);
    xen_vbd_counters(f->vbd, &c);
    assert_int_equal(c.ring.requests, 4);
    assert_int_equal(c.ring.grants_held, 2);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    xen_vbd_counters(f->vbd, &c);
    assert_int_equal(c.ring.requests, 4);
    assert_int_equal(c.ring.bytes, 4 * PAGE_SIZE);
    assert_int_equal(c.ring.grants_held, 0);
    undescribe(f, 2);
}

static void a_new_kernel_may_begin_without_closing(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        describe(f, 2, 1, true);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateConnected);
        use_queue(f, 1);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
        assert_int_equal(f->nr_bound, 0);
        undescribe(f, 2);
    }
}

static void rings_serve_until_the_frontend_is_closed(void **state)
{
    struct fixture *f = *state;

    describe(f, 1, 0, false);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    set_state(f, XenbusStateClosing);
    expect_state(f, XenbusStateClosing);
    use_queue(f, 0);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 1);
}

static void frontend_whose_directory_goes_is_disconnected(void **state)
{
    struct fixture *f = *state;

    describe(f, 1, 0, false);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    assert_int_equal(xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, FRONT), 0);
    expect_state(f, XenbusStateClosed);
    assert_int_equal(f->nr_bound, 0);
    undescribe(f, 1);
}

static void garbage_in_one_ring_is_told_and_stops_it_alone(void **state)
{
    struct fixture *f = *state;
    char *text = NULL;

    describe(f, 2, 0, false);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    store_release(&front_sring(&f->front[0])->req_prod, 0x80000000u);
    front_kick(&f->front[0]);
    for (unsigned i = 0; i < 20 && !text; i++) {
        loop_run_once(f->loop, 500);
        text = get(f, BACK, "error");
    }
    assert_non_null(text);
    assert_non_null(strstr(text, "queue 0"));
    assert_non_null(strstr(text, "producer index"));
    free(text);
    expect_no_change(f, XenbusStateConnected);
    use_queue(f, 1);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 2);
}

static void destroying_leaves_no_node_behind(void **state)
{
    struct fixture *f = *state;
    unsigned nr;

    describe(f, 2, 0, true);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    use_queue(f, 0);
    xen_vbd_destroy(f->vbd);
    f->vbd = NULL;
    assert_int_equal(f->nr_bound, 0);
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, FRONT));
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, BACK));
    assert_null(xs_client_directory(f->xs, XS_NO_TRANSACTION, "/local/domain/0/backend/vbd/7",
                                    &nr));
    for (unsigned q = 0; q < 2; q++)
        front_free(&f->front[q]);
}

static void devices_of_one_guest_do_not_disturb_each_other(void **state)
{
    struct fixture *f = *state;
    struct xen_vbd_params p = vbd_params(f);
    struct xen_vbd *other = NULL;
    struct err e = { 0 };

    p.disk = (struct blk_spec){ .driver = "null", .size_bytes = 1 * MIB };
    p.vdev = "xvdb";
    p.vdev_number = 51728;
    assert_int_equal(xen_vbd_create(&p, &other, &e), 0);
    expect(f, "/local/domain/0/backend/vbd/7/51728", "sectors", "2048");
    xen_vbd_destroy(other);
    expect(f, BACK, "state", "2");
}

static void failing_creation_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct xen_vbd_params p = vbd_params(f);
    struct err e = { 0 };

    p.disk.path = "/nowhere/disk.img";
    assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), -ENOENT);
    assert_string_equal(e.file, "/nowhere/disk.img");
    p = vbd_params(f);
    p.max_queues = XEN_VBD_QUEUES_MAX + 1;
    err_clear(&e);
    assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), -EINVAL);
    assert_null(f->vbd);
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, BACK));
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, FRONT));
}

int main(void)
{
#define with_vbd(test) cmocka_unit_test_setup_teardown(test, setup_vbd, teardown)
    static const struct CMUnitTest tests[] = {
        with_vbd(data_flows_over_every_shape_of_connection),
        with_vbd(counters_outlive_the_connection),
        with_vbd(a_new_kernel_may_begin_without_closing),
        with_vbd(rings_serve_until_the_frontend_is_closed),
        with_vbd(frontend_whose_directory_goes_is_disconnected),
        with_vbd(garbage_in_one_ring_is_told_and_stops_it_alone),
        with_vbd(destroying_leaves_no_node_behind),
        with_vbd(devices_of_one_guest_do_not_disturb_each_other),
        cmocka_unit_test_setup_teardown(failing_creation_leaves_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
