/* SPDX-License-Identifier: MIT */
/* The pump between a guest's ring and a socket.  The test is the guest on one
 * side and the daemon on the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "xen/xs_proto.h"
#include "xen/xs_ring.h"

struct fixture {
    struct loop *loop;
    struct xenstore_domain_interface *page;
    struct xen_hostlink link;
    struct xen_hostport port;
    struct xs_ring *ring;
    int peer;                   /* the daemon's end of the last connection */
    unsigned nr_connects;
    bool refuse;
};

static int connect_pair(void *arg, struct err *e)
{
    struct fixture *f = arg;
    int fd[2];

    if (f->refuse)
        return err_set(e, ECONNREFUSED, "refused");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    if (f->peer >= 0)
        close(f->peer);
    f->peer = fd[1];
    f->nr_connects++;
    return fd[0];
}

static void kick(struct fixture *f)
{
    const uint64_t one = 1;

    assert_int_equal(write(f->port.kick_fd, &one, sizeof(one)), sizeof(one));
}

/* Lets the pump do what it can. */
static void turn(struct fixture *f)
{
    for (unsigned i = 0; i < 4; i++)
        loop_run_once(f->loop, 0);
}

/* Whether the guest got an event since the last call. */
static bool notified(struct fixture *f)
{
    return __atomic_exchange_n(&f->link.pending, 0, __ATOMIC_SEQ_CST);
}

static int setup_at(void **state, uint32_t req, uint32_t rsp)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err e = { 0 };

    f->peer = -1;
    f->loop = loop_create();
    f->page = calloc(1, PAGE_SIZE);
    f->page->req_cons = f->page->req_prod = req;
    f->page->rsp_cons = f->page->rsp_prod = rsp;
    f->port.kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    f->port.irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    f->port.link = &f->link;
    struct xs_ring_params p = {
        .loop = f->loop, .page = f->page, .port = &f->port, .domid = 3,
        .connect = connect_pair, .arg = f,
    };
    assert_int_equal(xs_ring_create(&p, &f->ring, &e), 0);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_at(state, 0, 0);
}

static int setup_before_wrap(void **state)
{
    return setup_at(state, 0xffffff9c, 0xfffffd01);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    xs_ring_free(f->ring);
    close(f->peer);
    close(f->port.kick_fd);
    close(f->port.irq_fd);
    loop_free(f->loop);
    free(f->page);
    free(f);
    return 0;
}

/* The guest's side of the rings, as a frontend does it. */
static uint32_t guest_send(struct fixture *f, const char *data, uint32_t len)
{
    struct xenstore_domain_interface *p = f->page;
    uint32_t n = 0;

    while (n < len && p->req_prod - load_acquire(&p->req_cons) < XENSTORE_RING_SIZE) {
        p->req[MASK_XENSTORE_IDX(p->req_prod)] = data[n++];
        store_release(&p->req_prod, p->req_prod + 1);
    }
    return n;
}

static uint32_t guest_receive(struct fixture *f, char *data, uint32_t len)
{
    struct xenstore_domain_interface *p = f->page;
    uint32_t n = 0;

    while (n < len && load_acquire(&p->rsp_prod) != p->rsp_cons) {
        data[n++] = p->rsp[MASK_XENSTORE_IDX(p->rsp_cons)];
        store_release(&p->rsp_cons, p->rsp_cons + 1);
    }
    return n;
}

static void features_are_offered(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->page->server_features,
                     XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR);
    assert_int_equal(f->page->connection, XENSTORE_CONNECTED);
    assert_int_equal(f->page->error, XENSTORE_ERROR_NONE);
}

static void requests_reach_the_daemon(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    assert_int_equal(guest_send(f, "hello", 5), 5);
    kick(f);
    turn(f);
    assert_int_equal(read(f->peer, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "hello", 5);
    assert_int_equal(f->page->req_cons, 5);
    assert_true(notified(f));
}

static void answers_reach_the_guest(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    assert_int_equal(write(f->peer, "world", 5), 5);
    turn(f);
    assert_true(notified(f));
    assert_int_equal(guest_receive(f, buf, sizeof(buf)), 5);
    assert_memory_equal(buf, "world", 5);
}

static void a_kick_for_nothing_is_not_answered(void **state)
{
    struct fixture *f = *state;

    kick(f);
    turn(f);
    assert_false(notified(f));
}

/* 40,000 bytes each way at once, in pieces of all sizes, begun so that all four
 * indices pass 2^32. */
static void nothing_is_lost_where_the_indices_wrap(void **state)
{
    struct fixture *f = *state;
    enum { TOTAL = 40000 };
    uint32_t sent = 0, arrived = 0, answered = 0, received = 0, x = 1;
    char buf[2048];

    while (arrived < TOTAL || received < TOTAL) {
        uint32_t piece;
        ssize_t n;

        x = x * 1664525 + 1013904223;
        piece = min_of((x >> 16) % 1500, TOTAL - sent);
        for (uint32_t i = 0; i < piece; i++)
            buf[i] = (char)((sent + i) * 7 % 251);
        sent += guest_send(f, buf, piece);
        kick(f);
        piece = min_of((x >> 8) % 1500, TOTAL - answered);
        for (uint32_t i = 0; i < piece; i++)
            buf[i] = (char)((answered + i) * 11 % 241);
        if (piece && (n = write(f->peer, buf, piece)) > 0)
            answered += (uint32_t)n;
        turn(f);
        while ((n = read(f->peer, buf, 1 + x % sizeof(buf))) > 0) {
            for (ssize_t i = 0; i < n; i++)
                assert_int_equal(buf[i], (char)((arrived + (uint32_t)i) * 7 % 251));
            arrived += (uint32_t)n;
        }
        n = guest_receive(f, buf, x % 700);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(buf[i], (char)((received + (uint32_t)i) * 11 % 241));
        received += (uint32_t)n;
        assert_int_equal(xs_ring_error(f->ring), XENSTORE_ERROR_NONE);
    }
    assert_true(f->page->req_prod < 0x80000000 && f->page->rsp_cons < 0x80000000);
}

static void a_full_ring_waits_for_the_guest(void **state)
{
    struct fixture *f = *state;
    static char data[3000], got[3000];

    memset(data, 'x', sizeof(data));
    assert_int_equal(write(f->peer, data, sizeof(data)), sizeof(data));
    turn(f);
    assert_int_equal(f->page->rsp_prod, XENSTORE_RING_SIZE);
    turn(f);
    assert_int_equal(f->page->rsp_prod, XENSTORE_RING_SIZE);
    assert_int_equal(guest_receive(f, got, 10), 10);
    kick(f);
    turn(f);
    assert_int_equal(f->page->rsp_prod, XENSTORE_RING_SIZE + 10);
    assert_int_equal(guest_receive(f, got, sizeof(got)), XENSTORE_RING_SIZE);
    kick(f);
    turn(f);
    assert_int_equal(guest_receive(f, got, sizeof(got)), XENSTORE_RING_SIZE);
    kick(f);
    turn(f);
    assert_int_equal(guest_receive(f, got, sizeof(got)),
                     sizeof(data) - 10 - 2 * XENSTORE_RING_SIZE);
}

static void a_daemon_that_does_not_read_stops_the_ring_only_so_long(void **state)
{
    struct fixture *f = *state;
    static char data[XENSTORE_RING_SIZE], got[65536];
    uint64_t sent = 0, arrived = 0;
    ssize_t n;

    for (;;) {
        uint32_t more = guest_send(f, data, sizeof(data));

        if (!more)
            break;
        sent += more;
        kick(f);
        turn(f);
        assert_true(sent < 64 * MIB);
    }
    assert_int_equal(f->page->req_prod - f->page->req_cons, XENSTORE_RING_SIZE);
    notified(f);
    while (arrived < sent) {
        n = read(f->peer, got, sizeof(got));
        if (n > 0)
            arrived += (uint64_t)n;
        turn(f);        /* no kick: the socket says when it goes on */
    }
    assert_true(notified(f));
    assert_int_equal(f->page->req_prod, f->page->req_cons);
}

static void assert_stopped(struct fixture *f, uint32_t error)
{
    char byte;

    assert_int_equal(xs_ring_error(f->ring), error);
    assert_int_equal(f->page->error, error);
    assert_true(notified(f));
    assert_int_equal(read(f->peer, &byte, 1), 0);       /* the daemon sees the end */
    f->page->req_prod++;
    kick(f);
    turn(f);
    assert_false(notified(f));
}

static void a_request_index_out_of_range_stops_the_ring(void **state)
{
    struct fixture *f = *state;

    f->page->req_prod += XENSTORE_RING_SIZE + 1;
    kick(f);
    turn(f);
    assert_stopped(f, XENSTORE_ERROR_RINGIDX);
}

static void a_response_index_out_of_range_stops_the_ring(void **state)
{
    struct fixture *f = *state;

    f->page->rsp_cons = f->page->rsp_prod + 1;
    kick(f);
    turn(f);
    assert_stopped(f, XENSTORE_ERROR_RINGIDX);
}

static void the_servers_own_indices_are_not_read_back(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    f->page->req_cons = 0x12345678;
    f->page->rsp_prod = 0x87654321;
    f->page->req[0] = 'q';
    f->page->req_prod = 1;
    assert_int_equal(write(f->peer, "r", 1), 1);
    kick(f);
    turn(f);
    assert_int_equal(read(f->peer, buf, sizeof(buf)), 1);
    assert_int_equal(f->page->req_cons, 1);
    assert_int_equal(f->page->rsp_prod, 1);
}

static void the_end_of_the_daemon_is_told(void **state)
{
    struct fixture *f = *state;

    close(f->peer);
    f->peer = eventfd(0, EFD_CLOEXEC);      /* for teardown to close */
    turn(f);
    assert_int_equal(f->page->error, XENSTORE_ERROR_COMM);
    assert_true(notified(f));
}

static void the_end_of_the_daemon_is_told_while_the_ring_is_full(void **state)
{
    struct fixture *f = *state;
    static const char data[3000];

    assert_int_equal(write(f->peer, data, sizeof(data)), sizeof(data));
    turn(f);
    close(f->peer);
    f->peer = eventfd(0, EFD_CLOEXEC);
    turn(f);
    assert_int_equal(f->page->error, XENSTORE_ERROR_COMM);
}

static void the_guest_can_reconnect(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    guest_send(f, "lost", 4);
    f->page->connection = XENSTORE_RECONNECT;
    kick(f);
    turn(f);
    assert_int_equal(f->nr_connects, 2);
    assert_int_equal(f->page->connection, XENSTORE_CONNECTED);
    assert_int_equal(f->page->req_cons | f->page->req_prod | f->page->rsp_cons |
                     f->page->rsp_prod, 0);
    assert_true(notified(f));
    assert_int_equal(read(f->peer, buf, sizeof(buf)), -1);
    guest_send(f, "new", 3);
    kick(f);
    turn(f);
    assert_int_equal(read(f->peer, buf, sizeof(buf)), 3);
}

static void reconnecting_mends_a_broken_ring(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    f->page->req_prod = 0x55555555;
    kick(f);
    turn(f);
    assert_int_equal(f->page->error, XENSTORE_ERROR_RINGIDX);
    f->page->connection = XENSTORE_RECONNECT;
    kick(f);
    turn(f);
    assert_int_equal(f->page->error, XENSTORE_ERROR_NONE);
    guest_send(f, "new", 3);
    kick(f);
    turn(f);
    assert_int_equal(read(f->peer, buf, sizeof(buf)), 3);
}

static void a_reconnection_refused_is_told(void **state)
{
    struct fixture *f = *state;

    f->refuse = true;
    f->page->connection = XENSTORE_RECONNECT;
    kick(f);
    turn(f);
    assert_int_equal(f->page->connection, XENSTORE_CONNECTED);
    assert_int_equal(f->page->error, XENSTORE_ERROR_COMM);
    f->refuse = false;
    f->page->connection = XENSTORE_RECONNECT;
    kick(f);
    turn(f);
    assert_int_equal(f->page->error, XENSTORE_ERROR_NONE);
}

static void a_ring_that_is_bad_from_the_start_stops(void **state)
{
    struct fixture *f = *state;
    struct xs_ring *second;
    struct xs_ring_params p = {
        .loop = f->loop, .page = f->page, .port = &f->port, .connect = connect_pair, .arg = f,
    };
    struct err e = { 0 };

    xs_ring_free(f->ring);
    f->page->req_prod = 5000;
    assert_int_equal(xs_ring_create(&p, &second, &e), 0);
    assert_int_equal(xs_ring_error(second), XENSTORE_ERROR_RINGIDX);
    f->ring = second;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(features_are_offered),
        T(requests_reach_the_daemon),
        T(answers_reach_the_guest),
        T(a_kick_for_nothing_is_not_answered),
        cmocka_unit_test_setup_teardown(nothing_is_lost_where_the_indices_wrap,
                                        setup_before_wrap, teardown),
        T(a_full_ring_waits_for_the_guest),
        T(a_daemon_that_does_not_read_stops_the_ring_only_so_long),
        T(a_request_index_out_of_range_stops_the_ring),
        T(a_response_index_out_of_range_stops_the_ring),
        T(the_servers_own_indices_are_not_read_back),
        T(the_end_of_the_daemon_is_told),
        T(the_end_of_the_daemon_is_told_while_the_ring_is_full),
        T(the_guest_can_reconnect),
        T(reconnecting_mends_a_broken_ring),
        T(a_reconnection_refused_is_told),
        T(a_ring_that_is_bad_from_the_start_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
