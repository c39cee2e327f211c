/* SPDX-License-Identifier: MIT */
/* The console against a ring in plain memory: the test is the guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <xen/io/console.h>

#include "base/types.h"
#include "dev/xen_console.h"

struct world {
    struct loop *loop;
    struct xencons_interface *ring;
    struct xen_hostlink link;
    struct xen_hostport port;
    struct xen_console *console;
    int log[2];             /* a pipe: the log's two ends */
    bool closed;
};

static int setup_at(void **state, uint32_t index)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    w->loop = loop_create();
    w->ring = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
    memset(w->ring, 0, PAGE_SIZE);
    w->ring->out_cons = w->ring->out_prod = w->ring->in_cons = w->ring->in_prod = index;
    w->port = (struct xen_hostport){
        .kick_fd = eventfd(0, EFD_NONBLOCK), .irq_fd = eventfd(0, EFD_NONBLOCK),
        .link = &w->link,
    };
    assert_int_equal(pipe2(w->log, O_NONBLOCK), 0);
    assert_int_equal(xen_console_create(w->loop, w->ring, &w->port, w->log[1], &w->console), 0);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return setup_at(state, 0);
}

/* 100 bytes before the 32-bit indices wrap */
static int setup_at_wrap(void **state)
{
    return setup_at(state, UINT32_MAX - 100);
}

static int teardown(void **state)
{
    struct world *w = *state;

    xen_console_free(w->console);
    close(w->port.kick_fd);
    close(w->port.irq_fd);
    close(w->log[0]);
    close(w->log[1]);
    loop_free(w->loop);
    free(w->ring);
    free(w);
    return 0;
}

static void run_loop(struct world *w)
{
    for (unsigned i = 0; i < 20; i++)
        loop_run_once(w->loop, 0);
}

static void kick(struct world *w)
{
    const uint64_t one = 1;

    assert_int_equal(write(w->port.kick_fd, &one, sizeof(one)), sizeof(one));
    run_loop(w);
}

static void guest_print(struct world *w, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        w->ring->out[MASK_XENCONS_IDX(w->ring->out_prod + i, w->ring->out)] = data[i];
    w->ring->out_prod += (uint32_t)len;
    kick(w);
}

static size_t guest_read(struct world *w, char *data, size_t size)
{
    size_t n = 0;

    while (n < size && w->ring->in_cons != w->ring->in_prod)
        data[n++] = w->ring->in[MASK_XENCONS_IDX(w->ring->in_cons++, w->ring->in)];
    return n;
}

static void on_closed(void *arg)
{
    struct world *w = arg;

    w->closed = true;
}

/* Attaches a client; its own end, non-blocking. */
static int attach(struct world *w)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(xen_console_attach(w->console, pair[0], pair[0], on_closed, w), 0);
    run_loop(w);
    return pair[1];
}

static void expect(int fd, const char *data, size_t len)
{
    char *got = malloc(len + 1);

    assert_int_equal(read(fd, got, len + 1), len);
    assert_memory_equal(got, data, len);
    free(got);
}

static bool notified(struct world *w)
{
    uint64_t n = 0;

    w->link.pending = 0;
    return read(w->port.irq_fd, &n, sizeof(n)) == sizeof(n);
}

static void output_reaches_log_and_client(void **state)
{
    struct world *w = *state;
    int fd = attach(w);

    guest_print(w, "hello\n", 6);
    expect(fd, "hello\n", 6);
    expect(w->log[0], "hello\n", 6);
    assert_int_equal(w->ring->out_cons, 6);
    assert_true(notified(w));
    close(fd);
}

static void output_survives_index_wrap(void **state)
{
    struct world *w = *state;
    int fd = attach(w);
    char data[1500];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)('a' + i % 26);
    guest_print(w, data, sizeof(data));
    expect(fd, data, sizeof(data));
    assert_int_equal(w->ring->out_cons, (uint32_t)(UINT32_MAX - 100 + sizeof(data)));
    guest_print(w, data, sizeof(data));     /* and the ring's own end */
    expect(fd, data, sizeof(data));
    close(fd);
}

static void a_full_ring_is_taken_whole(void **state)
{
    struct world *w = *state;
    char data[2048];

    memset(data, 'x', sizeof(data));
    guest_print(w, data, sizeof(data));
    expect(w->log[0], data, sizeof(data));
}

static void impossible_output_index_stops_the_ring(void **state)
{
    struct world *w = *state;
    char byte;

    w->ring->out_prod = 2049;
    kick(w);
    assert_int_equal(w->ring->out_cons, 0);
    w->ring->out_prod = 5;      /* sane again: too late */
    kick(w);
    assert_int_equal(read(w->log[0], &byte, 1), -1);
    assert_int_equal(w->ring->out_cons, 0);
}

static void guest_cannot_move_our_indices(void **state)
{
    struct world *w = *state;

    guest_print(w, "abc", 3);
    w->ring->out_cons = 1;      /* would show "bc" again */
    guest_print(w, "d", 1);
    expect(w->log[0], "abcd", 4);
    assert_int_equal(w->ring->out_cons, 4);
}

static void input_reaches_the_guest(void **state)
{
    struct world *w = *state;
    char got[16];
    int fd = attach(w);

    assert_int_equal(write(fd, "ls\n", 3), 3);
    run_loop(w);
    assert_true(notified(w));
    assert_int_equal(guest_read(w, got, sizeof(got)), 3);
    assert_memory_equal(got, "ls\n", 3);
    close(fd);
}

static void input_survives_index_wrap(void **state)
{
    struct world *w = *state;
    char data[300], got[300];
    int fd = attach(w);

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)('A' + i % 23);
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    run_loop(w);
    assert_int_equal(guest_read(w, got, sizeof(got)), sizeof(got));
    assert_memory_equal(got, data, sizeof(data));
    close(fd);
}

/* A paste larger than ring and buffer waits in the socket; nothing is lost. */
static void a_long_paste_arrives_whole(void **state)
{
    struct world *w = *state;
    static char data[60000], got[60000];
    size_t sent = 0, have = 0;
    int fd = attach(w);

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 7);
    while (have < sizeof(data)) {
        ssize_t n = sent < sizeof(data) ? write(fd, data + sent, sizeof(data) - sent) : 0;
        size_t before = have;

        sent += n > 0 ? (size_t)n : 0;
        run_loop(w);
        have += guest_read(w, got + have, sizeof(got) - have);
        assert_true(have > before);
        kick(w);
    }
    assert_memory_equal(got, data, sizeof(data));
    close(fd);
}

static void impossible_input_index_drops_input_only(void **state)
{
    struct world *w = *state;
    int fd = attach(w);

    w->ring->in_cons = 5000;
    assert_int_equal(write(fd, "x", 1), 1);
    run_loop(w);
    assert_int_equal(w->ring->in_prod, 0);
    for (unsigned i = 0; i < 100; i++) {    /* the client is read on, and stays */
        assert_int_equal(write(fd, "0123456789", 10), 10);
        run_loop(w);
    }
    assert_false(w->closed);
    xen_console_write(w->console, "still\n", 6);
    expect(fd, "still\n", 6);
    close(fd);
}

static void a_new_client_gets_the_last_8_kib(void **state)
{
    struct world *w = *state;
    char *data = malloc(10000), *got = malloc(20000);
    ssize_t n;
    int fd;

    for (size_t i = 0; i < 10000; i++)
        data[i] = (char)('a' + i % 26);
    xen_console_write(w->console, data, 10000);
    fd = attach(w);
    n = read(fd, got, 20000);
    assert_int_equal(n, 8192);
    assert_memory_equal(got, data + 10000 - 8192, 8192);
    free(data);
    free(got);
    close(fd);
}

static void a_client_that_does_not_read_stops_nobody(void **state)
{
    struct world *w = *state;
    char data[2048], drop[4096];
    int idle = attach(w), busy = attach(w);
    uint32_t total = 0;

    memset(data, 'y', sizeof(data));
    for (unsigned i = 0; i < 500; i++) {
        guest_print(w, data, sizeof(data));
        total += sizeof(data);
        assert_int_equal(w->ring->out_cons, total);
        expect(busy, data, sizeof(data));
        while (read(w->log[0], drop, sizeof(drop)) > 0)
            ;
    }
    close(idle);
    close(busy);
}

static void a_client_that_left_is_closed(void **state)
{
    struct world *w = *state;
    int fd = attach(w);

    close(fd);
    run_loop(w);
    assert_true(w->closed);
}

static void the_last_input_of_a_leaving_client_arrives(void **state)
{
    struct world *w = *state;
    char got[8];
    int fd = attach(w);

    assert_int_equal(write(fd, "halt\n", 5), 5);
    close(fd);
    run_loop(w);
    assert_int_equal(guest_read(w, got, sizeof(got)), 5);
    assert_true(w->closed);
}

static void input_may_end_before_output(void **state)
{
    struct world *w = *state;
    int in[2], out[2];

    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe2(out, O_NONBLOCK), 0);
    assert_int_equal(xen_console_attach(w->console, in[0], out[1], on_closed, w), 0);
    close(in[1]);
    run_loop(w);
    assert_false(w->closed);
    guest_print(w, "on\n", 3);
    expect(out[0], "on\n", 3);
    close(out[0]);
    guest_print(w, "off\n", 4);
    assert_true(w->closed);
}

static void a_full_log_loses_bytes_and_says_how_many(void **state)
{
    struct world *w = *state;
    static char data[2048], got[300000];
    static const char note[] = "\n[2048 bytes of console output lost]\n";
    ssize_t n;

    assert_true(fcntl(w->log[1], F_SETPIPE_SZ, 4096) == 4096);
    memset(data, 'z', sizeof(data));
    for (unsigned i = 0; i < 3; i++)    /* the third does not fit */
        guest_print(w, data, sizeof(data));
    assert_int_equal(w->ring->out_cons, 3 * sizeof(data));
    n = read(w->log[0], got, sizeof(got));
    assert_int_equal(n, 4096);
    guest_print(w, "back\n", 5);
    n = read(w->log[0], got, sizeof(got));
    assert_int_equal(n, sizeof(note) - 1 + 5);
    assert_memory_equal(got, note, sizeof(note) - 1);
    assert_memory_equal(got + sizeof(note) - 1, "back\n", 5);
}

static void a_regular_file_cannot_be_attached(void **state)
{
    struct world *w = *state;
    int fd = open("/proc/self/exe", O_RDONLY);

    assert_int_equal(xen_console_attach(w->console, fd, fd, on_closed, w), -EPERM);
    assert_int_equal(close(fd), 0);     /* still ours */
}

static void clients_are_limited(void **state)
{
    struct world *w = *state;
    int fds[XEN_CONSOLE_CLIENTS_MAX], pair[2];

    for (unsigned i = 0; i < XEN_CONSOLE_CLIENTS_MAX; i++)
        fds[i] = attach(w);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(xen_console_attach(w->console, pair[0], pair[0], NULL, NULL), -EBUSY);
    close(pair[0]);
    close(pair[1]);
    for (unsigned i = 0; i < XEN_CONSOLE_CLIENTS_MAX; i++)
        close(fds[i]);
}

static void drain_takes_what_no_kick_announced(void **state)
{
    struct world *w = *state;

    memcpy(w->ring->out, "panic", 5);
    w->ring->out_prod = 5;
    xen_console_drain(w->console);
    expect(w->log[0], "panic", 5);
}

static void held_clients_see_no_end(void **state)
{
    struct world *w = *state;
    int held[XEN_CONSOLE_CLIENTS_MAX], fd = attach(w);
    char byte;

    assert_int_equal(xen_console_clients_hold(w->console, held), 1);
    guest_print(w, "last", 4);
    xen_console_free(w->console);
    w->console = NULL;
    expect(fd, "last", 4);
    assert_int_equal(read(fd, &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    close(held[0]);
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T_WRAP(name) cmocka_unit_test_setup_teardown(name, setup_at_wrap, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(output_reaches_log_and_client),
        T_WRAP(output_survives_index_wrap),
        T(a_full_ring_is_taken_whole),
        T(impossible_output_index_stops_the_ring),
        T(guest_cannot_move_our_indices),
        T(input_reaches_the_guest),
        T_WRAP(input_survives_index_wrap),
        T_WRAP(a_long_paste_arrives_whole),
        T(impossible_input_index_drops_input_only),
        T(a_new_client_gets_the_last_8_kib),
        T(a_client_that_does_not_read_stops_nobody),
        T(a_client_that_left_is_closed),
        T(the_last_input_of_a_leaving_client_arrives),
        T(input_may_end_before_output),
        T(a_full_log_loses_bytes_and_says_how_many),
        T(a_regular_file_cannot_be_attached),
        T(clients_are_limited),
        T(drain_takes_what_no_kick_announced),
        T(held_clients_see_no_end),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("xen_console", tests, NULL, NULL);
}
