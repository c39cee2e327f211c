/* SPDX-License-Identifier: MIT */
/* The daemon's life, its connections, and the client, over real sockets.  Called
 * with `xenstored` as its first argument this program is the daemon. */
#include "daemon_fixture.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "xen/xs_proto.h"
#include "xen/xs_server.h"

#define NONE XS_NO_TRANSACTION

static void assert_value(struct xs_client *c, uint32_t tx, const char *path, const char *value)
{
    char *got = xs_client_read(c, tx, path);

    assert_non_null(got);
    assert_string_equal(got, value);
    free(got);
}

static struct xs_client *connect_more(struct fixture *f)
{
    struct xs_client *c = NULL;
    struct err e = { 0 };

    assert_int_equal(xs_client_connect(f->loop, f->socket, &c, &e), 0);
    return c;
}

/* Waits in the loop until what is wanted has come. */
static void loop_until(struct fixture *f, const bool *done)
{
    while (!*done)
        loop_run_once(f->loop, -1);
}

static void the_client_reads_and_writes(void **state)
{
    struct fixture *f = *state;
    char *list;
    unsigned nr;

    assert_int_equal(xs_client_write(f->client, NONE, "/a/b", "v"), 0);
    assert_int_equal(xs_client_writef(f->client, NONE, "/a/c", "%d-%s", 7, "x"), 0);
    assert_int_equal(xs_client_mkdir(f->client, NONE, "/a/d"), 0);
    assert_value(f->client, NONE, "/a/c", "7-x");
    list = xs_client_directory(f->client, NONE, "/a", &nr);
    assert_int_equal(nr, 3);
    assert_memory_equal(list, "b\0c\0d", 6);
    free(list);
    assert_int_equal(xs_client_rm(f->client, NONE, "/a/b"), 0);
    assert_null(xs_client_read(f->client, NONE, "/a/b"));
    assert_int_equal(errno, ENOENT);
    assert_int_equal(xs_client_mkdir(f->client, NONE, "//"), -EINVAL);
}

static void the_client_reads_a_long_list(void **state)
{
    struct fixture *f = *state;
    char path[64], *list;
    unsigned nr;

    for (unsigned i = 0; i < 1500; i++) {
        snprintf(path, sizeof(path), "/long/%06u", i);
        assert_int_equal(xs_client_write(f->client, NONE, path, ""), 0);
    }
    list = xs_client_directory(f->client, NONE, "/long", &nr);
    assert_non_null(list);
    assert_int_equal(nr, 1500);
    for (unsigned i = 0; i < nr; i++) {
        snprintf(path, sizeof(path), "%06u", i);
        assert_string_equal(list + 7 * i, path);
    }
    free(list);
}

static void transactions_conflict_across_connections(void **state)
{
    struct fixture *f = *state;
    struct xs_client *other = connect_more(f);
    uint32_t one, two;

    assert_int_equal(xs_client_tx_start(f->client, &one), 0);
    assert_int_equal(xs_client_tx_start(other, &two), 0);
    assert_int_equal(xs_client_write(f->client, one, "/t/x", "1"), 0);
    assert_int_equal(xs_client_write(other, two, "/t/x", "2"), 0);
    assert_int_equal(xs_client_tx_end(f->client, one, true), 0);
    assert_int_equal(xs_client_tx_end(other, two, true), -EAGAIN);
    assert_value(other, NONE, "/t/x", "1");
    xs_client_free(other);
}

struct heard {
    unsigned nr;
    bool done;
    char last[256];
};

static void hear(void *arg, const char *path)
{
    struct heard *h = arg;

    h->nr++;
    h->done = true;
    snprintf(h->last, sizeof(h->last), "%s", path);
}

static void watches_fire_from_the_loop_only(void **state)
{
    struct fixture *f = *state;
    struct heard h = { 0 };
    struct xs_watch *w;

    assert_int_equal(xs_client_watch(f->client, "/w", hear, &h, &w), 0);
    assert_int_equal(xs_client_write(f->client, NONE, "/w/x", "1"), 0);
    assert_int_equal(h.nr, 0);
    loop_until(f, &h.done);
    while (h.nr < 2)
        loop_run_once(f->loop, -1);
    assert_string_equal(h.last, "/w/x");
    xs_client_unwatch(f->client, w);
}

static void a_watch_removed_is_not_called_with_what_was_on_the_way(void **state)
{
    struct fixture *f = *state;
    struct heard gone = { 0 }, stays = { 0 };
    struct xs_watch *w, *v;

    assert_int_equal(xs_client_watch(f->client, "/w", hear, &gone, &w), 0);
    assert_int_equal(xs_client_watch(f->client, "/w", hear, &stays, &v), 0);
    xs_client_unwatch(f->client, w);
    loop_until(f, &stays.done);
    loop_run_once(f->loop, 0);
    assert_int_equal(gone.nr, 0);
    xs_client_unwatch(f->client, v);
}

static void free_in_callback(void *arg, const char *path)
{
    struct fixture *f = arg;

    xs_client_free(f->client);
    f->client = NULL;
}

static void a_callback_may_free_the_client(void **state)
{
    struct fixture *f = *state;
    struct xs_watch *w;

    assert_int_equal(xs_client_watch(f->client, "/w", free_in_callback, f, &w), 0);
    while (f->client)
        loop_run_once(f->loop, -1);
    f->client = connect_more(f);
}

static void set_done(void *arg)
{
    *(bool *)arg = true;
}

static void the_daemons_death_is_told_once(void **state)
{
    struct fixture *f = *state;
    pid_t pid = daemon_pid(f);
    bool told = false;
    struct err e = { 0 };

    xs_client_on_death(f->client, set_done, &told);
    kill(pid, SIGKILL);
    wait_gone(pid);
    loop_until(f, &told);
    told = false;
    assert_int_equal(xs_client_write(f->client, NONE, "/a", ""), -ENOTCONN);
    loop_run_once(f->loop, 0);
    assert_false(told);
    xs_client_free(f->client);
    /* its socket file is still there, and in nobody's way */
    assert_int_equal(access(f->socket, F_OK), 0);
    assert_int_equal(xs_daemon_ensure(f->dir, f->socket, sizeof(f->socket), &e), 0);
    f->client = connect_more(f);
    assert_null(xs_client_read(f->client, NONE, "/a"));
    assert_int_equal(errno, ENOENT);
}

static void death_in_a_request_is_told_from_the_loop(void **state)
{
    struct fixture *f = *state;
    pid_t pid = daemon_pid(f);
    bool told = false;
    struct err e = { 0 };

    xs_client_on_death(f->client, set_done, &told);
    kill(pid, SIGKILL);
    wait_gone(pid);
    assert_true(xs_client_write(f->client, NONE, "/a", "") < 0);
    assert_false(told);
    loop_until(f, &told);
    xs_client_free(f->client);
    assert_int_equal(xs_daemon_ensure(f->dir, f->socket, sizeof(f->socket), &e), 0);
    f->client = connect_more(f);
}

static void one_daemon_serves_all_who_ensure(void **state)
{
    struct fixture *f = *state;
    pid_t pid = daemon_pid(f), child[8];
    char path[128];
    struct err e = { 0 };
    int status;

    kill(pid, SIGTERM);
    wait_gone(pid);
    xs_client_free(f->client);
    for (unsigned i = 0; i < array_size(child); i++) {
        child[i] = fork();
        if (child[i] == 0) {
            struct loop *l = loop_create();
            struct xs_client *c = NULL;
            int rc = xs_daemon_ensure(f->dir, path, sizeof(path), &e);

            if (!rc)
                rc = xs_client_connect(l, path, &c, &e);
            if (!rc)
                rc = xs_client_writef(c, NONE, "/ensured", "%u", i);
            if (!rc)
                rc = xs_client_writef(c, NONE, "/by", "x");
            if (!rc)
                snprintf(path, sizeof(path), "/by/%u", i);
            _exit(rc || xs_client_write(c, NONE, path, ""));
        }
    }
    for (unsigned i = 0; i < array_size(child); i++) {
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_int_equal(status, 0);
    }
    f->client = connect_more(f);
    for (unsigned i = 0; i < array_size(child); i++) {
        snprintf(path, sizeof(path), "/by/%u", i);
        assert_value(f->client, NONE, path, "");
    }
}

static void the_daemon_is_out_of_its_starters_session(void **state)
{
    struct fixture *f = *state;
    pid_t pid = daemon_pid(f);

    assert_int_not_equal(getsid(pid), getsid(0));
}

static void only_the_owner_can_connect(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    assert_int_equal(stat(f->socket, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* Runs the daemon with a short grace, as a child of this test. */
static void an_idle_daemon_ends_and_takes_its_socket_along(void **state)
{
    struct fixture *f = *state;
    pid_t pid = daemon_pid(f), child;
    char *argv[] = { "xenstored", "--run-dir", f->dir, "--grace-ms", "100", NULL };
    struct err e = { 0 };
    struct xs_client *c = NULL;
    int status;

    xs_client_free(f->client);
    kill(pid, SIGTERM);
    wait_gone(pid);
    child = fork();
    if (child == 0)
        _exit(xs_daemon_main(5, argv));
    while (xs_client_connect(f->loop, f->socket, &c, &e)) {
        err_clear(&e);
        pause_ms(1);
    }
    pause_ms(300);      /* thrice the grace */
    assert_int_equal(waitpid(child, &status, WNOHANG), 0);
    xs_client_free(c);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(access(f->socket, F_OK), -1);
    assert_int_equal(xs_daemon_ensure(f->dir, f->socket, sizeof(f->socket), &e), 0);
    f->client = connect_more(f);
}

static void a_second_daemon_leaves_the_first_alone(void **state)
{
    struct fixture *f = *state;
    char *argv[] = { "xenstored", "--run-dir", f->dir, NULL };

    assert_int_equal(xs_client_write(f->client, NONE, "/a", "1"), 0);
    assert_int_equal(xs_daemon_main(3, argv), 0);
    assert_value(f->client, NONE, "/a", "1");
}

static void a_directory_that_is_not_there_is_named(void **state)
{
    struct err e = { 0 };
    char path[128], text[1024];

    assert_int_equal(xs_daemon_ensure("/nonexistent/run", path, sizeof(path), &e), -ENOENT);
    assert_non_null(strstr(err_str(&e, text, sizeof(text)), "/nonexistent/run"));
}

static void a_guests_connection_is_the_guests(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };
    struct { struct xsd_sockmsg hdr; char path[8]; } req = {
        .hdr = { .type = XS_READ, .req_id = 1, .len = 6 }, .path = "/only",
    };
    struct { struct xsd_sockmsg hdr; char text[64]; } answer = { 0 };
    int fd;

    assert_int_equal(xs_client_write(f->client, NONE, "/only", "0"), 0);
    assert_int_equal(xs_client_connect_domain_fd(f->socket, 5, &e), -ENOENT);
    err_clear(&e);
    assert_int_equal(xs_client_introduce(f->client, 5, 1, 1), 0);
    fd = xs_client_connect_domain_fd(f->socket, 5, &e);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, &req, sizeof(req.hdr) + 6), sizeof(req.hdr) + 6);
    while (read(fd, &answer, sizeof(answer)) < 0)
        pause_ms(1);
    assert_int_equal(answer.hdr.type, XS_ERROR);
    assert_string_equal(answer.text, "EACCES");
    assert_int_equal(xs_client_release(f->client, 5), 0);
    while (read(fd, &answer, sizeof(answer)) < 0)
        pause_ms(1);
    close(fd);
}

static void a_client_that_reads_no_events_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct xs_client *deaf = connect_more(f);
    struct heard h = { 0 };
    struct xs_watch *w;
    bool told = false;
    char path[3000];

    assert_int_equal(xs_client_watch(deaf, "/", hear, &h, &w), 0);
    xs_client_on_death(deaf, set_done, &told);
    memset(path, 'a', sizeof(path));
    memcpy(path, "/d/", 3);
    path[2900] = 0;
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(path + 2900, 20, "%u", i);
        assert_int_equal(xs_client_write(f->client, NONE, path, ""), 0);
    }
    /* now it reads: some of the events, then the end */
    loop_until(f, &told);
    assert_true(h.nr < 1000);
    assert_value(f->client, NONE, path, "");
    xs_client_free(deaf);
}

static void an_event_that_waits_already_is_not_queued_again(void **state)
{
    struct fixture *f = *state;
    struct xs_client *slow = connect_more(f);
    struct heard h = { 0 };
    struct xs_watch *w;

    assert_int_equal(xs_client_watch(slow, "/w", hear, &h, &w), 0);
    /* far more bytes of events than a queue and a socket could hold */
    for (unsigned i = 0; i < 50000; i++)
        assert_int_equal(xs_client_write(f->client, NONE, "/w/same/node", ""), 0);
    assert_int_equal(xs_client_write(slow, NONE, "/alive", ""), 0);
    loop_until(f, &h.done);
    xs_client_free(slow);
}

/* Many small requests with large answers, none of which is read at first. */
static void requests_wait_for_a_client_that_does_not_read_answers(void **state)
{
    enum { NR = 20000 };
    struct { struct xsd_sockmsg hdr; char path[4]; } req = {
        .hdr = { .type = XS_READ, .len = 4 }, .path = "/xy",
    };
    static char value[3000], got[65536];
    struct loop *loop = loop_create();
    struct xs_server *s;
    uint64_t sent = 0, received = 0, want = (uint64_t)NR * (sizeof(req.hdr) + sizeof(value));
    int fd[2];

    assert_int_equal(xs_server_create(loop, NULL, &s), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(xs_server_connect(s, fd[0]), 0);
    struct { struct xsd_sockmsg hdr; char text[4 + sizeof(value)]; } first = {
        .hdr = { .type = XS_WRITE, .len = sizeof(first.text) }, .text = "/xy",
    };
    assert_int_equal(write(fd[1], &first, sizeof(first)), sizeof(first));
    want += sizeof(req.hdr) + sizeof("OK");
    for (unsigned full = 0; full < 10;) {
        ssize_t n = sent < NR * sizeof(req) ? write(fd[1], (char *)&req + sent % sizeof(req),
                                                    sizeof(req) - sent % sizeof(req)) : -1;

        full = n < 0 ? full + 1 : 0;
        sent += n > 0 ? (uint64_t)n : 0;
        loop_run_once(loop, 0);
    }
    assert_true(sent < NR * sizeof(req));       /* it was not let go on */
    while (received < want) {
        ssize_t n = read(fd[1], got, sizeof(got));

        received += n > 0 ? (uint64_t)n : 0;
        n = sent < NR * sizeof(req) ? write(fd[1], (char *)&req + sent % sizeof(req),
                                            sizeof(req) - sent % sizeof(req)) : -1;
        sent += n > 0 ? (uint64_t)n : 0;
        loop_run_once(loop, 0);
        assert_int_equal(xs_server_nr_connections(s), 1);
    }
    assert_int_equal(received, want);
    close(fd[1]);
    xs_server_free(s);
    loop_free(loop);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(the_client_reads_and_writes),
        T(the_client_reads_a_long_list),
        T(transactions_conflict_across_connections),
        T(watches_fire_from_the_loop_only),
        T(a_watch_removed_is_not_called_with_what_was_on_the_way),
        T(a_callback_may_free_the_client),
        T(the_daemons_death_is_told_once),
        T(death_in_a_request_is_told_from_the_loop),
        T(one_daemon_serves_all_who_ensure),
        T(the_daemon_is_out_of_its_starters_session),
        T(only_the_owner_can_connect),
        T(an_idle_daemon_ends_and_takes_its_socket_along),
        T(a_second_daemon_leaves_the_first_alone),
        T(a_directory_that_is_not_there_is_named),
        T(a_guests_connection_is_the_guests),
        T(a_client_that_reads_no_events_is_cut_off),
        T(an_event_that_waits_already_is_not_queued_again),
        cmocka_unit_test(requests_wait_for_a_client_that_does_not_read_answers),
    };

    if (argc > 1 && !strcmp(argv[1], "xenstored"))
        return xs_daemon_main(argc - 1, argv + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
