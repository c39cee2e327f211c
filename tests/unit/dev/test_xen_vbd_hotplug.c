/* SPDX-License-Identifier: MIT */
/* A device that is to go, and one whose size changes, while the guest uses it. */
#include <sys/file.h>

#include "xen_vbd_fixture.h"

static void be_connected(struct fixture *f, unsigned nr_queues)
{
    describe(f, nr_queues, 0, true);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    set_state(f, XenbusStateConnected);
}

static void front_end(struct fixture *f, unsigned nr_queues)
{
    for (unsigned q = 0; q < nr_queues; q++)
        front_free(&f->front[q]);
}

/* No node, no channel, no grant, no claim. */
static void expect_nothing_left(struct fixture *f)
{
    unsigned nr;
    int fd;

    assert_null(f->vbd);
    assert_int_equal(f->nr_bound, 0);
    assert_int_equal(guest_grants_in_use(&f->guest), 0);
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, FRONT));
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, BACK));
    assert_null(xs_client_directory(f->xs, XS_NO_TRANSACTION, "/local/domain/7/device/vbd", &nr));
    assert_null(xs_client_directory(f->xs, XS_NO_TRANSACTION, "/local/domain/0/backend/vbd/7",
                                    &nr));
    fd = open(f->disk, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
}

static void turn_until_closed(struct fixture *f)
{
    for (unsigned i = 0; i < 20 && !f->nr_closed; i++)
        loop_run_once(f->loop, 500);
    assert_int_equal(f->nr_closed, 1);
}

/* As Linux does when its device is lost. */
static void channels_close(struct fixture *f, unsigned nr_queues)
{
    for (unsigned q = 0; q < nr_queues; q++)
        store_release(&f->front[q].link.state, XEN_HOSTLINK_CLOSED);
}

static void device_goes_when_the_frontend_is_closed(void **state)
{
    struct fixture *f = *state;

    be_connected(f, 2);
    use_queue(f, 0);
    assert_false(xen_vbd_close(f->vbd));
    expect(f, BACK, "online", "0");
    expect(f, BACK, "state", "5");
    /* the guest works on until it has closed, however often it is asked */
    use_queue(f, 1);
    assert_false(xen_vbd_close(f->vbd));
    set_state(f, XenbusStateClosing);
    expect_no_change(f, XenbusStateClosing);
    use_queue(f, 0);
    assert_int_equal(f->nr_closed, 0);
    channels_close(f, 2);
    set_state(f, XenbusStateClosed);
    turn_until_closed(f);
    expect_nothing_left(f);
    front_end(f, 2);
}

/* Lets the device work until its directories have gone. */
static void turn_until_gone(struct fixture *f)
{
    char *v = NULL;

    for (unsigned i = 0; i < 20 && (v = get(f, FRONT, "state")); i++) {
        free(v);
        loop_run_once(f->loop, 500);
    }
    assert_null(v);
}

/* Linux's blkfront: its queues are stopped when it says Closed, whatever they hold, and go on
 * when an event comes; the device's end waits for what they hold. */
static void requests_that_come_after_the_frontend_said_closed_are_answered(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };

    be_connected(f, 2);
    use_queue(f, 0);
    use_queue(f, 1);
    assert_false(xen_vbd_close(f->vbd));
    for (unsigned q = 0; q < 2; q++)
        swap_acq_rel(&f->front[q].link.pending, 0);
    set_state(f, XenbusStateClosed);
    turn_until_gone(f);
    /* nothing was asked for: this is the event that queues wait for */
    for (unsigned q = 0; q < 2; q++)
        assert_int_equal(load_acquire(&f->front[q].link.pending), 1);
    for (unsigned i = 0; i < 3; i++)
        loop_run_once(f->loop, 500);
    use_queue(f, 1);
    use_queue(f, 0);
    /* its nodes stay away, whatever is done to it */
    assert_false(xen_vbd_close(f->vbd));
    assert_int_equal(xen_vbd_resize(f->vbd, 2 * DISK_BYTES, &e), 0);
    set_state(f, XenbusStateInitialising);
    assert_null(get(f, BACK, "state"));
    channels_close(f, 1);
    loop_run_once(f->loop, 500);
    loop_run_once(f->loop, 500);
    assert_int_equal(f->nr_closed, 0);
    use_queue(f, 1);
    channels_close(f, 2);
    turn_until_closed(f);
    expect_nothing_left(f);
    front_end(f, 2);
}

static void frontend_that_never_closes_its_channels_loses_the_device_in_the_end(void **state)
{
    struct fixture *f = *state;
    uint64_t began_ns = loop_now_ns();

    be_connected(f, 1);
    assert_false(xen_vbd_close(f->vbd));
    set_state(f, XenbusStateClosed);
    while (!f->nr_closed && loop_now_ns() - began_ns < 60000000000ull)
        loop_run_once(f->loop, 500);
    assert_int_equal(f->nr_closed, 1);
    expect_nothing_left(f);
    front_end(f, 1);
}

static void device_can_be_taken_away_while_last_requests_may_come(void **state)
{
    struct fixture *f = *state;

    be_connected(f, 1);
    assert_false(xen_vbd_close(f->vbd));
    set_state(f, XenbusStateClosed);
    turn_until_gone(f);
    xen_vbd_destroy(f->vbd);
    f->vbd = NULL;
    assert_int_equal(f->nr_closed, 0);
    expect_nothing_left(f);
    front_end(f, 1);
}

static void device_that_nobody_uses_can_go_at_once(void **state)
{
    struct fixture *f = *state;

    assert_true(xen_vbd_close(f->vbd));
    expect(f, BACK, "online", "0");
    xen_vbd_destroy(f->vbd);
    f->vbd = NULL;
    expect_nothing_left(f);
    assert_int_equal(f->nr_closed, 0);
}

static void device_that_was_used_and_closed_can_go_at_once(void **state)
{
    struct fixture *f = *state;

    be_connected(f, 1);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    assert_true(xen_vbd_close(f->vbd));
    expect(f, BACK, "state", "6");
    undescribe(f, 1);
}

static void frontend_that_begins_anew_or_vanishes_has_let_go(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        struct xen_vbd_params p = vbd_params(f);
        struct err e = { 0 };

        if (!f->vbd)
            assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), 0);
        be_connected(f, 1);
        assert_false(xen_vbd_close(f->vbd));
        if (i)
            set_state(f, XenbusStateInitialising);
        else
            assert_int_equal(xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, FRONT), 0);
        turn_until_closed(f);
        expect_nothing_left(f);
        front_end(f, 1);
        f->nr_closed = 0;
    }
}

static void frontend_cannot_come_back_to_a_device_that_is_to_go(void **state)
{
    struct fixture *f = *state;

    describe(f, 1, 0, false);
    set_state(f, XenbusStateInitialised);
    assert_true(xen_vbd_close(f->vbd));
    expect_no_change(f, XenbusStateClosing);
    assert_int_equal(f->nr_bound, 0);
    undescribe(f, 1);
}

static void device_can_be_taken_away_from_who_uses_it(void **state)
{
    struct fixture *f = *state;

    be_connected(f, 4);
    for (unsigned q = 0; q < 4; q++)
        use_queue(f, q);
    xen_vbd_close(f->vbd);
    xen_vbd_destroy(f->vbd);
    f->vbd = NULL;
    expect_nothing_left(f);
    front_end(f, 4);
}

static void devices_come_and_go_many_times(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 50; i++) {
        struct xen_vbd_params p = vbd_params(f);
        struct err e = { 0 };

        if (!f->vbd)
            assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), 0);
        be_connected(f, 2);
        use_queue(f, i % 2);
        xen_vbd_close(f->vbd);
        channels_close(f, 2);
        set_state(f, XenbusStateClosed);
        turn_until_closed(f);
        expect_nothing_left(f);
        front_end(f, 2);
        f->nr_closed = 0;
    }
}

/* ---- sizes ---- */

/* One request of a page at a sector.  The response's status. */
static int16_t request_at(struct fixture *f, uint8_t op, uint64_t sector)
{
    struct front *front = &f->front[0];
    struct blkif_request r = front_request(front, op, 77, sector, DATA_PAGE, 1);
    struct blkif_response rsp;

    front_put(front, &r);
    if (front_publish(front))
        front_kick(front);
    while (!front_get(front, &rsp))
        if (!front_arm(front))
            front_sleep(front);
    return rsp.status;
}

/* Watches the backend's state as a frontend does; how often it has fired. */
static void state_fired(void *arg, const char *path)
{
    unsigned *nr = arg;

    (*nr)++;
}

static void guest_is_told_of_a_size(void **state)
{
    struct fixture *f = *state;
    struct xs_watch *watch = NULL;
    unsigned nr_fired = 0;
    struct err e = { 0 };

    be_connected(f, 1);
    assert_int_equal(xs_client_watch(f->guest_xs, BACK "/state", state_fired, &nr_fired, &watch),
                     0);
    for (unsigned i = 0; i < 20 && !nr_fired; i++)
        loop_run_once(f->loop, 500);
    assert_int_equal(nr_fired, 1);
    assert_int_equal(request_at(f, BLKIF_OP_READ, DISK_BYTES / 512), BLKIF_RSP_ERROR);
    assert_int_equal(truncate(f->disk, 2 * DISK_BYTES), 0);
    assert_int_equal(xen_vbd_resize(f->vbd, 0, &e), 0);
    expect(f, BACK, "sectors", "16384");
    expect(f, BACK, "state", "4");
    for (unsigned i = 0; i < 20 && nr_fired < 2; i++)
        loop_run_once(f->loop, 500);
    assert_int_equal(nr_fired, 2);
    assert_int_equal(request_at(f, BLKIF_OP_WRITE, 2 * DISK_BYTES / 512 - 8), BLKIF_RSP_OKAY);
    /* and back: what is behind the end is nobody's */
    assert_int_equal(xen_vbd_resize(f->vbd, DISK_BYTES + 512, &e), 0);
    expect(f, BACK, "sectors", "8193");
    expect(f, BACK, "physical-sector-size", "512");
    assert_int_equal(request_at(f, BLKIF_OP_WRITE, DISK_BYTES / 512), BLKIF_RSP_ERROR);
    assert_int_equal(request_at(f, BLKIF_OP_READ, DISK_BYTES / 512 - 8), BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < 20 && nr_fired < 3; i++)
        loop_run_once(f->loop, 500);
    assert_int_equal(nr_fired, 3);
    /* the same again is no news */
    assert_int_equal(xen_vbd_resize(f->vbd, 0, &e), 0);
    loop_run_once(f->loop, 50);
    assert_int_equal(nr_fired, 3);
    xs_client_unwatch(f->guest_xs, watch);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 1);
}

static void size_of_a_device_nobody_uses_waits_in_its_node(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };

    assert_int_equal(xen_vbd_resize(f->vbd, 3 * DISK_BYTES, &e), 0);
    expect(f, BACK, "sectors", "24576");
    expect(f, BACK, "state", "2");
    assert_int_equal(xen_vbd_resize(f->vbd, 1000, &e), -EINVAL);
    expect(f, BACK, "sectors", "24576");
    be_connected(f, 1);
    assert_int_equal(request_at(f, BLKIF_OP_READ, 3 * DISK_BYTES / 512 - 8), BLKIF_RSP_OKAY);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 1);
}

static void listing_shows_what_the_guest_wrote(void **state)
{
    struct fixture *f = *state;
    struct xen_vbd_front front;

    xen_vbd_front(f->vbd, &front);
    assert_int_equal(front.state, XenbusStateInitialising);
    assert_int_equal(front.event_channel, -1);
    assert_int_equal(front.ring_ref, -1);
    assert_string_equal(front.backend, BACK);
    be_connected(f, 1);
    xen_vbd_front(f->vbd, &front);
    assert_int_equal(front.state, XenbusStateConnected);
    assert_int_equal(front.event_channel, PORT_BASE);
    assert_int_equal(front.ring_ref, 4);
    put(f, "event-channel", "99999999999");
    put(f, "state", "garbage");
    xen_vbd_front(f->vbd, &front);
    assert_int_equal(front.state, -1);
    assert_int_equal(front.event_channel, -1);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 1);
    be_connected(f, 2);
    xen_vbd_front(f->vbd, &front);
    assert_int_equal(front.event_channel, PORT_BASE);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 2);
}

int main(void)
{
#define with_vbd(test) cmocka_unit_test_setup_teardown(test, setup_vbd, teardown)
    static const struct CMUnitTest tests[] = {
        with_vbd(device_goes_when_the_frontend_is_closed),
        with_vbd(requests_that_come_after_the_frontend_said_closed_are_answered),
        with_vbd(frontend_that_never_closes_its_channels_loses_the_device_in_the_end),
        with_vbd(device_can_be_taken_away_while_last_requests_may_come),
        with_vbd(device_that_nobody_uses_can_go_at_once),
        with_vbd(device_that_was_used_and_closed_can_go_at_once),
        with_vbd(frontend_that_begins_anew_or_vanishes_has_let_go),
        with_vbd(frontend_cannot_come_back_to_a_device_that_is_to_go),
        with_vbd(device_can_be_taken_away_from_who_uses_it),
        with_vbd(devices_come_and_go_many_times),
        with_vbd(guest_is_told_of_a_size),
        with_vbd(size_of_a_device_nobody_uses_waits_in_its_node),
        with_vbd(listing_shows_what_the_guest_wrote),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
