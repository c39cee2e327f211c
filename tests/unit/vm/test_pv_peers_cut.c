/* SPDX-License-Identifier: MIT */
/* Ends that cross with something else: of a guest that still runs, of a connection while a
 * channel is made. */
#include <time.h>

#include "pv_peers_world.h"

/* A guest that is about to end runs on for a moment: what it sees is in use until it is gone. */
static void test_cut(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct shim_peer_call a;

    give(one, 8, GTF_permit_access, TWO, 3);
    a = map(two, ONE, 8, true);
    pv_peers_cut(two->peers);
    usleep(100000);
    assert_int_equal(use(one, 8), GTF_IN_USE);
    assert_int_equal(map(two, ONE, 9, true).result, GNTST_bad_domain);
    unmap(two, a.mfn);
    usleep(100000);
    assert_int_equal(use(one, 8), GTF_IN_USE);
    assert_false(can(false, page_at(two, a.mfn)));
    guest_end(w, TWO);
    eventually(!use(one, 8));
}

static void *map_of_seven(void *two)
{
    struct shim_peer_call a = map(two, 7, 8, true);

    return a.result == GNTST_bad_domain ? two : NULL;
}

/* Nobody waits any longer than until the cut. */
static void test_cut_silence(void **state)
{
    struct world *w = *state;
    int listen_fd = listen_as(w, 7, 0), fd;
    struct guest *two = &w->guest[TWO];
    struct timespec from, to;
    struct sockaddr_un un;
    struct peer_msg m;
    pthread_t thread;
    void *cut;

    assert_false(pthread_create(&thread, NULL, map_of_seven, two));
    fd = accept(listen_fd, NULL, NULL);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(recv(fd, &m, sizeof(m), 0), sizeof(m));
    clock_gettime(CLOCK_MONOTONIC, &from);
    pv_peers_cut(two->peers);
    pthread_join(thread, &cut);
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_ptr_equal(cut, two);
    assert_in_range((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000, 0,
                    500);
    address(w, 7, &un);
    unlink(un.sun_path);
    close(fd);
    close(listen_fd);
}

/* Guest 7's process, whose own connection ends between what it is asked and its answer. */
struct seven {
    struct world *w;
    int listen_fd, event_fd;
    struct peer_msg last;
};

static bool seven_hangs_up(struct seven *s)
{
    struct peer_msg m = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = 7 };
    int fd = connect_to(&s->w->guest[ONE], TWO);
    bool ok = send(fd, &m, sizeof(m), 0) == sizeof(m);

    m.op = PEER_DROP;
    ok = ok && send(fd, &m, sizeof(m), 0) == sizeof(m) && recv(fd, &m, sizeof(m), 0) == sizeof(m);
    close(fd);
    usleep(100000);
    return ok;
}

static void *seven_serve(void *arg)
{
    struct seven *s = arg;
    int fd = accept(s->listen_fd, NULL, NULL);
    struct peer_msg m;
    bool ok = recv(fd, &m, sizeof(m), 0) == sizeof(m) && recv(fd, &m, sizeof(m), 0) == sizeof(m) &&
              m.op == PEER_BIND && seven_hangs_up(s);

    m.result = 0;
    ok = ok && send_with(fd, &m, &s->event_fd, 1) &&
         recv(fd, &s->last, sizeof(m), 0) == sizeof(m) &&
         send(fd, &s->last, sizeof(m), 0) == sizeof(m);
    return ok && !recv(fd, &m, sizeof(m), 0) && !close(fd) ? s : NULL;
}

/* The other side is told that nobody is there: else it would be connected alone. */
static void test_crossing(void **state)
{
    struct world *w = *state;
    struct guest *two = &w->guest[TWO];
    struct seven s = { .w = w, .listen_fd = listen_as(w, 7, 0), .event_fd = eventfd(0, 0) };
    struct shim_peer_call b;
    struct sockaddr_un un;
    pthread_t thread;
    void *served;

    assert_false(pthread_create(&thread, NULL, seven_serve, &s));
    b = bind_to(two, 4, 7, 3);
    assert_int_equal(b.result, 0);
    assert_int_equal(two->links[b.link].peer_port, 0);
    guest_end(w, TWO);
    pthread_join(thread, &served);
    assert_ptr_equal(served, &s);
    assert_int_equal(s.last.op, PEER_CLOSE);
    assert_int_equal(s.last.port, 3);
    assert_int_equal(s.last.peer_port, 4);
    address(w, 7, &un);
    unlink(un.sun_path);
    close(s.event_fd);
    close(s.listen_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crossing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
