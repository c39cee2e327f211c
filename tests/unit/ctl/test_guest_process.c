/* SPDX-License-Identifier: MIT */
/* Whole lives of guests, in processes of their own, with fake_guest.c's guest:
 * what a stop leads to, what is reported, and that nothing is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/client.h"
#include "ctl/dirs.h"
#include "ctl/launch.h"

struct world {
    char dir[64];
    struct registry r;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct err e = { 0 };
    char path[256];

    strcpy(w->dir, "/tmp/xenolith-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(path, sizeof(path), "%s/run", w->dir);
    setenv("XENOLITH_RUN_DIR", path, 1);
    assert_int_equal(ctl_run_dir(path, sizeof(path), &e), 0);
    assert_int_equal(registry_open(&w->r, path, &e), 0);
    snprintf(path, sizeof(path), "%s/log", w->dir);
    setenv("XENOLITH_LOG_DIR", path, 1);
    *state = w;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static unsigned nr_guests(struct world *w)
{
    struct registry_guest *g;
    struct err e = { 0 };
    unsigned nr;

    assert_int_equal(registry_list(&w->r, &g, &nr, &e), 0);
    free(g);
    return nr;
}

static int teardown(void **state)
{
    struct world *w = *state;
    struct registry_guest *g;
    struct err e = { 0 };
    unsigned nr;

    /* a test that failed half-way leaves no process behind either */
    assert_int_equal(registry_list(&w->r, &g, &nr, &e), 0);
    for (unsigned i = 0; i < nr; i++)
        registry_kill(&w->r, g[i].domid, &e);
    free(g);
    assert_int_equal(nr, 0);
    registry_close(&w->r);
    assert_int_equal(nftw(w->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(w);
    return 0;
}

/* script: the fake guest's; more: lines of configuration */
static struct guest_config config(const char *script, const char *more)
{
    static char words[3][256];
    static char *const argv[] = { words[0], words[1], words[2] };
    enum guest_config_fault fault;
    struct guest_config gc;
    struct err e = { 0 };

    snprintf(words[0], sizeof(words[0]), "name=\"g\"\nkernel=\"/k\"\nmemory=64");
    snprintf(words[1], sizeof(words[1]), "cmdline=\"%s\"", script);
    snprintf(words[2], sizeof(words[2]), "%s", more);
    if (guest_config_read(NULL, argv, more[0] ? 3 : 2, &gc, &fault, &e))
        fail_msg("%s", e.text);
    return gc;
}

static int start(const char *script, const char *more, struct err *e)
{
    struct guest_config gc = config(script, more);
    struct launch l = { .config = &gc };
    unsigned domid = 0;
    int rc = launch_daemon(&l, &domid, e);

    guest_config_free(&gc);
    return rc ? rc : (int)domid;
}

static int start_or_fail(const char *script, const char *more)
{
    struct err e = { 0 };
    int domid = start(script, more, &e);

    if (domid < 0)
        fail_msg("%s", e.text);
    return domid;
}

static void ask(struct world *w, unsigned domid, const char *request)
{
    struct err e = { 0 };

    if (ctl_call(&w->r, domid, "ask", json_pack("{s:s}", "request", request), CTL_TIMEOUT_MS,
                 NULL, &e))
        fail_msg("%s", e.text);
}

/* Until the guest has gone, by the closing of its control connection. */
static void wait_gone(struct world *w, unsigned domid)
{
    int fd = registry_connect(&w->r, domid);

    if (fd >= 0) {
        ctl_wait_closed(fd, CTL_FOREVER);
        close(fd);
    }
}

static void destroy(struct world *w, unsigned domid)
{
    struct err e = { 0 };

    if (ctl_guest_destroy(&w->r, domid, &e))
        fail_msg("%s", e.text);
}

static void log_has(struct world *w, const char *text)
{
    char path[256], buf[16384];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%s/log/g.log", w->dir);
    fd = open(path, O_RDONLY);
    n = read(fd, buf, sizeof(buf) - 1);
    close(fd);
    buf[n > 0 ? n : 0] = '\0';
    if (!strstr(buf, text))
        fail_msg("no '%s' in the log:\n%s", text, buf);
}

static void a_guest_lives_until_destroyed(void **state)
{
    struct world *w = *state;
    struct registry_guest g;
    struct ctl_guest_state s;
    struct err e = { 0 };

    assert_int_equal(start_or_fail("", ""), 1);
    assert_int_equal(registry_find(&w->r, "g", &g, &e), 0);
    assert_true(g.pid != getpid());
    assert_int_equal(ctl_guest_state_get(&w->r, &g, &s, &e), 0);
    assert_true(s.answers && s.running);
    assert_int_equal(s.memory_bytes, 64 * MIB);
    destroy(w, 1);
    assert_int_equal(nr_guests(w), 0);
    assert_int_equal(faccessat(w->r.dir_fd, "guest/1", F_OK, 0), -1);
}

static void a_failed_start_is_reported_and_leaves_nothing(void **state)
{
    struct world *w = *state;
    char text[1024];
    struct err e = { 0 };

    assert_int_equal(start("fail", "", &e), -ENOEXEC);
    assert_string_equal(err_str(&e, text, sizeof(text)),
                        "command line: kernel: the fake guest was told to fail");
    assert_int_equal(nr_guests(w), 0);
    assert_int_equal(faccessat(w->r.dir_fd, "guest/1", F_OK, 0), -1);
    log_has(w, "told to fail");
}

static void a_second_guest_of_that_name_is_refused(void **state)
{
    struct world *w = *state;
    struct err e = { 0 };

    start_or_fail("", "");
    assert_int_equal(start("", "", &e), -EEXIST);
    assert_int_equal(nr_guests(w), 1);
    destroy(w, 1);
}

static void a_killed_process_is_forgotten(void **state)
{
    struct world *w = *state;
    struct registry_guest g;
    struct err e = { 0 };
    int fd;

    start_or_fail("", "");
    assert_int_equal(registry_find(&w->r, "g", &g, &e), 0);
    fd = registry_connect(&w->r, 1);
    kill(g.pid, SIGKILL);
    ctl_wait_closed(fd, CTL_FOREVER);
    close(fd);
    /* its lock goes a moment after its sockets */
    while (nr_guests(w))
        usleep(1000);
    assert_int_equal(start_or_fail("", ""), 2);
    destroy(w, 2);
}

static void a_stopped_process_can_be_destroyed(void **state)
{
    struct world *w = *state;
    struct registry_guest g;
    struct err e = { 0 };

    start_or_fail("", "");
    assert_int_equal(registry_find(&w->r, "g", &g, &e), 0);
    kill(g.pid, SIGSTOP);
    assert_int_equal(registry_kill(&w->r, 1, &e), 0);
}

static void poweroff_destroys_by_default(void **state)
{
    struct world *w = *state;

    start_or_fail("obey", "");
    ask(w, 1, "poweroff");
    wait_gone(w, 1);
    assert_int_equal(nr_guests(w), 0);
    log_has(w, "Domain 1 has shut down, reason code 0 0x0");
    log_has(w, "Action for shutdown reason code 0 is destroy");
}

static void reboot_gives_the_same_name_a_new_number(void **state)
{
    struct world *w = *state;
    struct registry_guest g;
    struct err e = { 0 };

    start_or_fail("obey", "");
    ask(w, 1, "reboot");
    wait_gone(w, 1);
    assert_int_equal(registry_find(&w->r, "g", &g, &e), 0);
    assert_int_equal(g.domid, 2);
    destroy(w, 2);
}

static void reboot_may_destroy(void **state)
{
    struct world *w = *state;

    start_or_fail("obey", "on_reboot=\"destroy\"");
    ask(w, 1, "reboot");
    wait_gone(w, 1);
    assert_int_equal(nr_guests(w), 0);
}

static void a_preserved_crash_stays_until_destroyed(void **state)
{
    struct world *w = *state;
    struct registry_guest g;
    struct ctl_guest_state s;
    struct err e = { 0 };
    json_t *j = NULL;

    start_or_fail("crash", "on_crash=\"preserve\"");
    assert_int_equal(ctl_call(&w->r, 1, "wait", NULL, CTL_FOREVER, &j, &e), 0);
    assert_string_equal(json_string_value(json_object_get(j, "text")), "fake panic");
    json_decref(j);
    assert_int_equal(registry_find(&w->r, "g", &g, &e), 0);
    assert_int_equal(ctl_guest_state_get(&w->r, &g, &s, &e), 0);
    assert_true(s.shutdown && s.crashed);
    assert_int_equal(s.why, 3);
    destroy(w, 1);
    log_has(w, "Domain 1: fake panic");
}

static void coredump_destroy_says_there_is_no_core(void **state)
{
    struct world *w = *state;

    start_or_fail("crash", "on_crash=\"coredump-destroy\"");
    wait_gone(w, 1);
    assert_int_equal(nr_guests(w), 0);
    log_has(w, "no core was written");
}

static void rename_restart_keeps_the_old_one(void **state)
{
    struct world *w = *state;
    struct registry_guest *g;
    struct err e = { 0 };
    const uint8_t uuid[16] = { 0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33,
                               0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55 };
    unsigned nr;

    start_or_fail("crash-first", "on_crash=\"rename-restart\"\n"
                                 "uuid=\"11111111-2222-3333-4444-555555555555\"");
    while (nr_guests(w) != 2)
        usleep(1000);
    assert_int_equal(registry_list(&w->r, &g, &nr, &e), 0);
    assert_int_equal(strncmp(g[0].name, "g-20", 4), 0);
    assert_string_equal(g[1].name, "g");
    assert_memory_equal(g[1].uuid, uuid, sizeof(uuid));     /* the new one is the same guest */
    assert_memory_not_equal(g[0].uuid, uuid, sizeof(uuid));
    free(g);
    destroy(w, 1);
    destroy(w, 2);
}

static int child_start(const char *script, const char *more, int *console_fd, pid_t *pid)
{
    struct guest_config gc = config(script, more);
    struct launch l = { .config = &gc };
    struct err e = { 0 };
    unsigned domid;

    if (launch_child(&l, console_fd, pid, &domid, &e))
        fail_msg("%s", e.text);
    guest_config_free(&gc);
    return (int)domid;
}

static void a_childs_status_says_how_it_ended(void **state)
{
    static const struct { const char *script, *more; int status; } cases[] = {
        { "off", "", GUEST_EXIT_CLEAN },
        { "crash", "on_crash=\"destroy\"", GUEST_EXIT_CRASHED },
        { "off-later", "on_reboot=\"destroy\"", GUEST_EXIT_CLEAN },
    };
    struct world *w = *state;
    pid_t pid;

    for (size_t i = 0; i < array_size(cases); i++) {
        /* numbers 1 and 2 reboot in the script "off-later": start afresh */
        unlinkat(w->r.dir_fd, "next-domid", 0);
        child_start(cases[i].script, cases[i].more, NULL, &pid);
        assert_int_equal(launch_wait(pid), cases[i].status);
    }
}

static void destroying_a_child_shows_in_its_status(void **state)
{
    pid_t pid;
    int domid = child_start("", "", NULL, &pid);

    destroy(*state, (unsigned)domid);
    assert_int_equal(launch_wait(pid), GUEST_EXIT_DESTROYED);
}

static void the_first_signal_asks(void **state)
{
    pid_t pid;

    /* a guest asked to end does not restart, whatever it makes of it */
    child_start("obey", "on_poweroff=\"restart\"", NULL, &pid);
    kill(pid, SIGTERM);
    assert_int_equal(launch_wait(pid), GUEST_EXIT_CLEAN);
}

static void the_second_signal_destroys(void **state)
{
    pid_t pid;

    child_start("", "", NULL, &pid);
    kill(pid, SIGTERM);
    kill(pid, SIGINT);
    assert_int_equal(launch_wait(pid), GUEST_EXIT_DESTROYED);
}

static void the_console_follows_a_reboot(void **state)
{
    static const char once[] = "fake guest boots\r\n";
    char buf[256] = "";
    size_t have = 0;
    ssize_t n = 1;
    pid_t pid;
    int fd;

    child_start("off-later", "", &fd, &pid);    /* 1 and 2 reboot, 3 powers off */
    while (n) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        assert_int_equal(poll(&p, 1, -1), 1);
        n = read(fd, buf + have, sizeof(buf) - 1 - have);
        assert_true(n >= 0);
        have += (size_t)n;
    }
    assert_int_equal(have, 3 * strlen(once));
    assert_int_equal(launch_wait(pid), GUEST_EXIT_CLEAN);
    close(fd);
}

static void the_console_log_is_kept(void **state)
{
    struct world *w = *state;
    char path[256], buf[256] = "";
    pid_t pid;
    int fd;

    child_start("off", "", NULL, &pid);
    launch_wait(pid);
    snprintf(path, sizeof(path), "%s/log/console-g.log", w->dir);
    fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, buf, sizeof(buf)), 18);
    assert_string_equal(buf, "fake guest boots\r\n");
    close(fd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* What guest_respawn() runs: `create -q -f FILE WORDS...`. */
static int create(int argc, char **argv)
{
    enum guest_config_fault fault;
    struct guest_config gc;
    struct launch l = { .config = &gc };
    struct err e = { 0 };
    unsigned domid;

    if (argc < 5 || guest_config_read(argv[4], argv + 5, (unsigned)argc - 5, &gc, &fault, &e))
        return 1;
    return launch_daemon(&l, &domid, &e) ? 1 : 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(a_guest_lives_until_destroyed),
        T(a_failed_start_is_reported_and_leaves_nothing),
        T(a_second_guest_of_that_name_is_refused),
        T(a_killed_process_is_forgotten),
        T(a_stopped_process_can_be_destroyed),
        T(poweroff_destroys_by_default),
        T(reboot_gives_the_same_name_a_new_number),
        T(reboot_may_destroy),
        T(a_preserved_crash_stays_until_destroyed),
        T(coredump_destroy_says_there_is_no_core),
        T(rename_restart_keeps_the_old_one),
        T(a_childs_status_says_how_it_ended),
        T(destroying_a_child_shows_in_its_status),
        T(the_first_signal_asks),
        T(the_second_signal_destroys),
        T(the_console_follows_a_reboot),
        T(the_console_log_is_kept),
    };

    if (argc > 1 && !strcmp(argv[1], "create"))
        return create(argc, argv);
    return cmocka_run_group_tests_name("guest_process", tests, NULL, NULL);
}
