/* SPDX-License-Identifier: MIT */
/* The control socket: what it answers, and what hostile clients cannot do to it.
 * The guest is tests/unit/ctl/fake_guest.c's; one thread turns the loop by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ctl/protocol.h"
#include "ctl/server.h"
#include "dev/xen_console.h"
#include "fake_guest.h"

struct world {
    char dir[64];
    struct registry r;
    struct registry_entry entry;
    struct loop *loop;
    struct vm_config *config;
    struct vm_guest *guest;
    struct ctl_server *server;
    unsigned nr_destroys;
};

static void on_stopped(void *arg, enum vm_stop why, const char *text)
{
    struct world *w = arg;

    ctl_server_stopped(w->server, why, text);
}

static void on_disk_detached(void *arg, unsigned vdev_number)
{
    struct world *w = arg;

    ctl_server_disk_detached(w->server, vdev_number);
}

static void on_destroy(void *arg)
{
    struct world *w = arg;

    w->nr_destroys++;
}

static int setup(void **state)
{
    static const char text[] = "name=\"g\"\nkernel=\"/boot/k\"\nmemory=64\nvcpus=2\n";
    static const uint8_t uuid[16] = { 1 };
    struct world *w = calloc(1, sizeof(*w));
    struct vm_guest_params vp = { .console_log_fd = -1, .stopped = on_stopped,
                                  .disk_detached = on_disk_detached, .arg = w };
    struct ctl_server_params sp = { .destroy = on_destroy, .arg = w };
    struct err e = { 0 };

    strcpy(w->dir, "/tmp/xenolith-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(registry_open(&w->r, w->dir, &e), 0);
    assert_int_equal(registry_take(&w->r, "g", uuid, &w->entry, &e), 0);
    assert_int_equal(vm_config_parse(text, strlen(text), "test", NULL, 0, &w->config, &e), 0);
    w->loop = loop_create();
    vp.config = sp.config = w->config;
    vp.domid = w->entry.guest.domid;
    vp.loop = sp.loop = w->loop;
    assert_int_equal(vm_guest_create(&vp, &w->guest, &e), 0);
    sp.guest = w->guest;
    sp.who = &w->entry.guest;
    sp.listen_fd = registry_listen(&w->entry, &e);
    assert_true(sp.listen_fd >= 0);
    assert_int_equal(ctl_server_create(&sp, &w->server, &e), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    vm_guest_destroy(w->guest);
    registry_release(&w->r, &w->entry);
    ctl_server_free(w->server);
    loop_free(w->loop);
    vm_config_free(w->config);
    unlinkat(w->r.dir_fd, "registry.lock", 0);
    unlinkat(w->r.dir_fd, "next-domid", 0);
    assert_int_equal(unlinkat(w->r.dir_fd, "guest", AT_REMOVEDIR), 0);
    registry_close(&w->r);
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

/* Serves what has been sent. */
static void turn(struct world *w)
{
    for (unsigned i = 0; i < 10; i++)
        loop_run_once(w->loop, 0);
}

/* The same after a timer was armed, however short. */
static void turn_timer(struct world *w)
{
    loop_run_once(w->loop, -1);
    turn(w);
}

static int dial(struct world *w)
{
    int fd = registry_connect(&w->r, w->entry.guest.domid);

    assert_true(fd >= 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    turn(w);
    return fd;
}

static void say(struct world *w, int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(w);
}

/* What has come, without the newline; "" when nothing has. */
static const char *hear(int fd, char *buf, size_t size)
{
    ssize_t n = read(fd, buf, size - 1);

    buf[n > 0 ? n : 0] = '\0';
    buf[strcspn(buf, "\n")] = '\0';
    return buf;
}

static void hangs_up(int fd)
{
    char byte;
    ssize_t n = read(fd, &byte, 1);

    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
    close(fd);
}

static void expect_error(struct world *w, const char *request, const char *text)
{
    char buf[4096];
    int fd = dial(w);

    say(w, fd, request);
    hear(fd, buf, sizeof(buf));
    if (!strstr(buf, "\"error\"") || !strstr(buf, text))
        fail_msg("'%s' gave '%s', wanted an error with '%s'", request, buf, text);
    close(fd);
    turn(w);
}

/* The server still serves, which is what every hostile test ends with. */
static void still_serves(struct world *w)
{
    char buf[4096];
    int fd = dial(w);

    say(w, fd, "{\"version\":1,\"command\":\"help\"}\n");
    assert_non_null(strstr(hear(fd, buf, sizeof(buf)), "\"return\""));
    close(fd);
    turn(w);
}

#define REQUEST(name) "{\"version\": 1, \"command\": \"" name "\"}\n"

static void info_tells_the_state(void **state)
{
    struct world *w = *state;
    char buf[4096];
    json_t *j;
    int fd = dial(w), paused = 0;
    json_int_t memory = 0;

    say(w, fd, REQUEST("info"));
    j = json_loads(hear(fd, buf, sizeof(buf)), 0, NULL);
    assert_int_equal(json_unpack(j, "{s:{s:b, s:I}}", "return", "paused", &paused,
                                 "memory_bytes", &memory), 0);
    assert_int_equal(paused, 1);
    assert_int_equal(memory, 64 * MIB);
    json_decref(j);
    close(fd);
}

static void config_is_libxl_shaped(void **state)
{
    struct world *w = *state;
    char buf[8192];
    const char *name = "", *kernel = "", *type = "";
    json_t *j;
    int fd = dial(w);

    say(w, fd, REQUEST("config"));
    j = json_loads(hear(fd, buf, sizeof(buf)), 0, NULL);
    assert_int_equal(json_unpack(j, "{s:{s:{s:s, s:s}, s:{s:s}}}", "return", "c_info",
                                 "name", &name, "type", &type, "b_info", "kernel", &kernel), 0);
    assert_string_equal(name, "g");
    assert_string_equal(type, "pv");
    assert_string_equal(kernel, "/boot/k");
    json_decref(j);
    close(fd);
}

static void pause_and_unpause_reach_the_guest(void **state)
{
    struct world *w = *state;
    char buf[256];
    int fd = dial(w);

    say(w, fd, REQUEST("unpause") REQUEST("pause"));    /* pipelined */
    assert_string_equal(hear(fd, buf, sizeof(buf)), "{\"return\":{}}");
    assert_int_equal(fake_guest_seen(w->guest)->nr_unpaused, 1);
    assert_int_equal(fake_guest_seen(w->guest)->nr_paused, 1);
    close(fd);
}

static void ask_passes_known_words_only(void **state)
{
    struct world *w = *state;
    char buf[256];
    int fd = dial(w);

    say(w, fd, "{\"version\":1,\"command\":\"ask\",\"arguments\":{\"request\":\"reboot\"}}\n");
    assert_string_equal(hear(fd, buf, sizeof(buf)), "{\"return\":{}}");
    assert_string_equal(fake_guest_seen(w->guest)->asked, "reboot");
    close(fd);
    expect_error(w, "{\"version\":1,\"command\":\"ask\",\"arguments\":{\"request\":\"rm\"}}\n",
                 "cannot be 'rm'");
    expect_error(w, "{\"version\":1,\"command\":\"ask\",\"arguments\":{\"request\":5}}\n",
                 "needs the argument 'request'");
    expect_error(w, REQUEST("ask"), "needs the argument 'request'");
    assert_string_equal(fake_guest_seen(w->guest)->asked, "reboot");
}

static void wait_is_answered_when_the_guest_stops(void **state)
{
    struct world *w = *state;
    char buf[256];
    int before = dial(w), after;

    say(w, before, REQUEST("wait"));
    assert_string_equal(hear(before, buf, sizeof(buf)), "");
    fake_guest_stop(w->guest, VM_STOP_CRASH, "Oops \xff");
    turn_timer(w);
    assert_string_equal(hear(before, buf, sizeof(buf)), "{\"return\":{\"why\":3,\"text\":\"\"}}");
    after = dial(w);
    say(w, after, REQUEST("wait"));
    assert_non_null(strstr(hear(after, buf, sizeof(buf)), "\"why\":3"));
    expect_error(w, REQUEST("unpause"), "has stopped");
    close(before);
    close(after);
}

#define ATTACH "{\"version\":1,\"command\":\"disk-attach\"," \
               "\"arguments\":{\"disk\":\"/a,raw,xvdb,w\"}}\n"
#define DETACH(more) "{\"version\":1,\"command\":\"disk-detach\"," \
                     "\"arguments\":{\"device\":\"xvdb\"" more "}}\n"

/* One waits for the guest, with more requests in the pipe, one hangs up, one does not wait. */
static void who_waits_for_a_disk_hears_that_it_is_gone(void **state)
{
    struct world *w = *state;
    char buf[512];
    int waits = dial(w), leaves = dial(w), forces = dial(w);

    say(w, forces, ATTACH);
    assert_non_null(strstr(hear(forces, buf, sizeof(buf)), "\"vdev_number\":51728"));
    assert_int_equal(w->config->nr_disks, 1);
    say(w, waits, DETACH("") DETACH("") REQUEST("disk-list"));
    say(w, leaves, DETACH(""));
    assert_string_equal(hear(waits, buf, sizeof(buf)), "");
    close(leaves);
    turn(w);
    say(w, forces, DETACH(",\"force\":true"));
    /* the guest gets its moments, to let go and to see that it is gone */
    assert_string_equal(hear(forces, buf, sizeof(buf)), "");
    while (w->config->nr_disks)
        turn_timer(w);
    assert_string_equal(hear(forces, buf, sizeof(buf)), "");
    while (!hear(forces, buf, sizeof(buf))[0])
        loop_run_once(w->loop, 100);
    turn(w);
    assert_string_equal(buf, "{\"return\":{}}");
    assert_int_equal(read(waits, buf, sizeof(buf) - 1) > 0, 1);
    assert_non_null(strstr(buf, "{\"return\":{}}\n{\"error\""));
    assert_non_null(strstr(buf, "xvdb not connected"));
    assert_non_null(strstr(buf, "{\"return\":{\"disks\":[]}}\n"));
    assert_int_equal(fake_guest_seen(w->guest)->nr_disks, 0);
    close(waits);
    close(forces);
    turn(w);
    still_serves(w);
}

static void who_waits_for_a_disk_hears_of_the_guests_end(void **state)
{
    struct world *w = *state;
    char buf[512];
    int fd = dial(w);

    say(w, fd, ATTACH DETACH(""));
    hear(fd, buf, sizeof(buf));
    fake_guest_stop(w->guest, VM_STOP_POWEROFF, "");
    turn_timer(w);
    assert_non_null(strstr(hear(fd, buf, sizeof(buf)), "has stopped"));
    /* what it had, it has: the next guest of this configuration, too */
    assert_int_equal(w->config->nr_disks, 1);
    close(fd);
}

static void arguments_of_another_kind_are_refused(void **state)
{
    struct world *w = *state;

    expect_error(w, DETACH(",\"force\":1"), "needs the argument 'force', true or false");
    expect_error(w, DETACH(",\"size_bytes\":1"), "takes no argument 'size_bytes'");
    expect_error(w, REQUEST("disk-attach"), "needs the argument 'disk', a string");
    expect_error(w, "{\"version\":1,\"command\":\"disk-resize\",\"arguments\":"
                 "{\"device\":\"xvda\",\"size_bytes\":-512}}\n", "'size_bytes', a number");
    expect_error(w, "{\"version\":1,\"command\":\"disk-attach\",\"arguments\":"
                 "{\"disk\":\"\"}}\n", "no vdev specified");
    assert_int_equal(w->config->nr_disks, 0);
}

static void destroy_is_passed_on_once(void **state)
{
    struct world *w = *state;
    char buf[256];
    int a = dial(w), b = dial(w);

    say(w, a, REQUEST("destroy"));
    say(w, b, REQUEST("destroy"));
    while (!w->nr_destroys)
        loop_run_once(w->loop, -1);
    turn(w);
    assert_string_equal(hear(a, buf, sizeof(buf)), "{\"return\":{}}");
    assert_string_equal(hear(b, buf, sizeof(buf)), "{\"return\":{}}");
    assert_int_equal(w->nr_destroys, 1);
    close(a);
    close(b);
}

static void console_turns_into_bytes(void **state)
{
    struct world *w = *state;
    char buf[256];
    int fd = dial(w);

    say(w, fd, REQUEST("console"));
    assert_string_equal(hear(fd, buf, sizeof(buf)), "{\"return\":{}}");
    xen_console_write(vm_guest_console(w->guest), "login: ", 7);
    assert_string_equal(hear(fd, buf, sizeof(buf)), "login: ");
    close(fd);
    turn(w);
    still_serves(w);
}

static void console_input_before_the_reply_is_refused(void **state)
{
    expect_error(*state, REQUEST("console") "root\n", "comes after the reply");
}

static void garbage_is_answered_with_an_error(void **state)
{
    struct world *w = *state;

    expect_error(w, "\n", "not JSON");
    expect_error(w, "hello\n", "not JSON");
    expect_error(w, "[1]\n", "not a JSON object");
    expect_error(w, "{}\n", "no version");
    expect_error(w, "{\"version\":1}\n", "no command");
    expect_error(w, "{\"version\":1,\"command\":7}\n", "no command");
    expect_error(w, "{\"version\":2,\"command\":\"info\"}\n", "of version 2, expected 1");
    expect_error(w, "{\"version\":1,\"version\":1,\"command\":\"info\"}\n", "not JSON");
    expect_error(w, "{\"version\":1,\"command\":\"nonesuch\"}\n", "no command 'nonesuch'");
    expect_error(w, "{\"version\":1,\"command\":\"info\",\"arguments\":[]}\n", "not a JSON object");
    expect_error(w, "{\"version\":1,\"command\":\"info\",\"arguments\":{\"x\":1}}\n",
                 "takes no argument 'x'");
    expect_error(w, "{\"version\":1,\"command\":"
                 "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}\n", "longer than");
    still_serves(w);
}

static void binary_and_deep_nesting_are_garbage_too(void **state)
{
    struct world *w = *state;
    char buf[4096], deep[6000];
    int fd = dial(w);

    assert_int_equal(send(fd, "\0\xff\n\0\n", 5, MSG_NOSIGNAL), 5);
    turn(w);
    assert_non_null(strstr(hear(fd, buf, sizeof(buf)), "not JSON"));
    close(fd);
    memset(deep, '[', sizeof(deep));
    strcpy(deep + sizeof(deep) - 2, "\n");
    expect_error(w, deep, "not JSON");
    still_serves(w);
}

static void an_endless_line_ends_the_connection(void **state)
{
    struct world *w = *state;
    char line[CTL_REQUEST_BYTES_MAX], buf[4096];
    int fd = dial(w);

    memset(line, ' ', sizeof(line));
    assert_int_equal(send(fd, line, sizeof(line), MSG_NOSIGNAL), sizeof(line));
    turn(w);
    assert_non_null(strstr(hear(fd, buf, sizeof(buf)), "longer than"));
    hangs_up(fd);
    still_serves(w);
}

static void a_request_may_come_byte_by_byte(void **state)
{
    struct world *w = *state;
    const char *request = REQUEST("help");
    char buf[4096];
    int fd = dial(w);

    for (const char *p = request; *p; p++) {
        assert_int_equal(send(fd, p, 1, 0), 1);
        loop_run_once(w->loop, 100);
    }
    assert_non_null(strstr(hear(fd, buf, sizeof(buf)), "\"return\""));
    close(fd);
}

static void half_requests_do_not_lock_others_out(void **state)
{
    struct world *w = *state;
    int fds[3 * CTL_SERVER_CLIENTS_MAX];

    for (size_t i = 0; i < array_size(fds); i++) {
        fds[i] = dial(w);
        say(w, fds[i], "{\"version\"");
    }
    still_serves(w);
    hangs_up(fds[0]);   /* the most silent one made room */
    for (size_t i = 1; i < array_size(fds); i++)
        close(fds[i]);
}

static void waiting_clients_are_not_pushed_out(void **state)
{
    struct world *w = *state;
    char buf[256];
    int waiting = dial(w), fds[2 * CTL_SERVER_CLIENTS_MAX];

    say(w, waiting, REQUEST("wait"));
    for (size_t i = 0; i < array_size(fds); i++)
        fds[i] = dial(w);
    fake_guest_stop(w->guest, VM_STOP_POWEROFF, "");
    turn_timer(w);
    assert_non_null(strstr(hear(waiting, buf, sizeof(buf)), "\"why\":0"));
    close(waiting);
    for (size_t i = 0; i < array_size(fds); i++)
        close(fds[i]);
}

/* It sends requests for ever and reads nothing: the server stops reading it. */
static void a_client_that_never_reads_is_no_longer_read(void **state)
{
    struct world *w = *state;
    int fd = dial(w);
    size_t sent = 0;
    bool stuck = false;

    while (!stuck) {
        struct pollfd p = { .fd = fd, .events = POLLOUT };
        ssize_t n = send(fd, REQUEST("config"), strlen(REQUEST("config")), MSG_NOSIGNAL);

        sent += n > 0 ? (size_t)n : 0;
        turn(w);
        stuck = n < 0 && poll(&p, 1, 0) == 0;
        assert_true(sent < 64 * MIB);   /* bounded by the sockets' buffers */
    }
    still_serves(w);
    close(fd);
    turn(w);
    still_serves(w);
}

static unsigned nr_open_files(void)
{
    unsigned nr = 0;

    for (int fd = 0; fd < 1000; fd++)
        nr += fcntl(fd, F_GETFD) >= 0;
    return nr;
}

static void clients_that_vanish_leave_nothing(void **state)
{
    struct world *w = *state;
    unsigned before = nr_open_files();

    for (unsigned i = 0; i < 200; i++) {
        int fd = registry_connect(&w->r, 1);

        assert_true(fd >= 0);
        if (i % 2)
            assert_int_equal(send(fd, REQUEST("info"), strlen(REQUEST("info")), 0),
                             strlen(REQUEST("info")));
        close(fd);
        turn(w);
    }
    still_serves(w);
    assert_int_equal(nr_open_files(), before);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(info_tells_the_state),
        T(config_is_libxl_shaped),
        T(pause_and_unpause_reach_the_guest),
        T(ask_passes_known_words_only),
        T(wait_is_answered_when_the_guest_stops),
        T(who_waits_for_a_disk_hears_that_it_is_gone),
        T(who_waits_for_a_disk_hears_of_the_guests_end),
        T(arguments_of_another_kind_are_refused),
        T(destroy_is_passed_on_once),
        T(console_turns_into_bytes),
        T(console_input_before_the_reply_is_refused),
        T(garbage_is_answered_with_an_error),
        T(binary_and_deep_nesting_are_garbage_too),
        T(an_endless_line_ends_the_connection),
        T(a_request_may_come_byte_by_byte),
        T(half_requests_do_not_lock_others_out),
        T(waiting_clients_are_not_pushed_out),
        T(a_client_that_never_reads_is_no_longer_read),
        T(clients_that_vanish_leave_nothing),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
