/* SPDX-License-Identifier: MIT */
/* The daemon as a process, met by Xen's own tools (package xenstore-utils).  A
 * test whose tool is not installed is skipped.  Called with `xenstored` as its
 * first argument this program is the daemon: xs_daemon_ensure() runs it so. */
#include "daemon_fixture.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "xen/xs_domain.h"

extern char **environ;

#define OUTPUT_BYTES 65536

static char output[OUTPUT_BYTES];

static void need(const char *tool)
{
    char path[64];

    snprintf(path, sizeof(path), "/usr/bin/%s", tool);
    if (access(path, X_OK)) {
        print_message("%s is not installed\n", path);
        skip();
    }
}

/* Runs the words, what they print (both streams) in output; the exit status. */
static int run(const char *const words[])
{
    posix_spawn_file_actions_t actions;
    int fd[2], status;
    size_t len = 0;
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd[1], 1);
    posix_spawn_file_actions_adddup2(&actions, fd[1], 2);
    assert_int_equal(posix_spawnp(&pid, words[0], &actions, NULL, (char **)words, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(fd[1]);
    while ((n = read(fd[0], output + len, sizeof(output) - 1 - len)) > 0)
        len += (size_t)n;
    output[len] = 0;
    close(fd[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(...) run((const char *const[]){ __VA_ARGS__, NULL })

static void a_value_written_is_read_back(void **state)
{
    need("xenstore-write");
    need("xenstore-read");
    assert_int_equal(RUN("xenstore-write", "/t/a", "hello", "/t/b", "two words"), 0);
    assert_int_equal(RUN("xenstore-read", "/t/a", "/t/b"), 0);
    assert_string_equal(output, "hello\ntwo words\n");
}

static void a_missing_node_is_an_error(void **state)
{
    need("xenstore-read");
    assert_int_not_equal(RUN("xenstore-read", "/nowhere"), 0);
}

static void exists_tells_nodes_from_gaps(void **state)
{
    need("xenstore-exists");
    assert_int_equal(RUN("xenstore-write", "/e/x", ""), 0);
    assert_int_equal(RUN("xenstore-exists", "/e/x"), 0);
    assert_int_not_equal(RUN("xenstore-exists", "/e/y"), 0);
}

static void list_names_the_children(void **state)
{
    need("xenstore-list");
    assert_int_equal(RUN("xenstore-write", "/l/b", "", "/l/a", "", "/l/a/deep", ""), 0);
    assert_int_equal(RUN("xenstore-list", "/l"), 0);
    assert_string_equal(output, "a\nb\n");
}

static void ls_shows_a_tree_with_permissions(void **state)
{
    need("xenstore-ls");
    need("xenstore-chmod");
    assert_int_equal(RUN("xenstore-write", "/ls/x/y", "v"), 0);
    assert_int_equal(RUN("xenstore-chmod", "/ls/x", "n0", "r7"), 0);
    assert_int_equal(RUN("xenstore-ls", "-f", "-p", "/ls"), 0);
    assert_non_null(strstr(output, "/ls/x = \"\"   (n0,r7)\n"));
    assert_non_null(strstr(output, "/ls/x/y = \"v\"   (n0)\n"));
}

static void chmod_recurses(void **state)
{
    need("xenstore-chmod");
    assert_int_equal(RUN("xenstore-write", "/c/x/y", "v"), 0);
    assert_int_equal(RUN("xenstore-chmod", "-r", "/c", "n0", "b3"), 0);
    assert_int_equal(RUN("xenstore-ls", "-f", "-p", "/c"), 0);
    assert_non_null(strstr(output, "/c/x/y = \"v\"   (n0,b3)\n"));
}

static void rm_takes_all_below_with_it(void **state)
{
    need("xenstore-rm");
    assert_int_equal(RUN("xenstore-write", "/r/x/y", "v"), 0);
    assert_int_equal(RUN("xenstore-rm", "/r/x"), 0);
    assert_int_not_equal(RUN("xenstore-exists", "/r/x/y"), 0);
    assert_int_equal(RUN("xenstore-exists", "/r"), 0);
}

static void rm_t_prunes_empty_parents(void **state)
{
    need("xenstore-rm");
    assert_int_equal(RUN("xenstore-write", "/p/q/r", "v"), 0);
    assert_int_equal(RUN("xenstore-rm", "-t", "/p/q/r"), 0);
    assert_int_not_equal(RUN("xenstore-exists", "/p"), 0);
}

static void ls_follows_a_list_longer_than_a_message(void **state)
{
    struct fixture *f = *state;
    unsigned nr = 0;
    char path[64];

    need("xenstore-list");
    for (unsigned i = 0; i < 600; i++) {
        snprintf(path, sizeof(path), "/long/a-child-with-a-name-%03u", i);
        assert_int_equal(xs_client_write(f->client, XS_NO_TRANSACTION, path, "x"), 0);
    }
    assert_int_equal(RUN("xenstore-list", "/long"), 0);
    for (const char *at = output; (at = strchr(at, '\n')); at++)
        nr++;
    assert_int_equal(nr, 600);
}

static void watch_reports_a_change(void **state)
{
    struct fixture *f = *state;
    char buf[256] = "";
    size_t len = 0;
    int fd[2];
    pid_t pid;
    const char *const words[] = { "xenstore-watch", "-n", "2", "/w", NULL };
    posix_spawn_file_actions_t actions;

    need("xenstore-watch");
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd[1], 1);
    assert_int_equal(posix_spawnp(&pid, words[0], &actions, NULL, (char **)words, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(fd[1]);
    while (!strchr(buf, '\n')) {        /* the event by which a watch begins */
        ssize_t n = read(fd[0], buf + len, sizeof(buf) - 1 - len);

        assert_true(n > 0);
        len += (size_t)n;
        buf[len] = 0;
    }
    assert_int_equal(xs_client_write(f->client, XS_NO_TRANSACTION, "/w/x", "1"), 0);
    for (ssize_t n; (n = read(fd[0], buf + len, sizeof(buf) - 1 - len)) > 0;)
        len += (size_t)n;
    buf[len] = 0;
    close(fd[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_string_equal(buf, "/w\n/w/x\n");
}

static void ls_shows_a_filled_domain(void **state)
{
    struct fixture *f = *state;
    struct err e = { 0 };
    const struct xs_domain_values v = {
        .domid = 5, .name = "guest", .uuid = { 0xd8, 0x1e, 0xc5, 0xa9, [15] = 0x8f },
        .maxmem_bytes = 256 * MIB, .target_bytes = 128 * MIB, .nr_vcpus = 1, .nr_vcpus_max = 2,
        .kernel = "/boot/vmlinuz", .cmdline = "root=/dev/xvda", .store_gfn = 3, .console_gfn = 4,
        .store_port = 1, .console_port = 2, .start_time_ns = 1234567890120000000,
    };

    need("xenstore-ls");
    assert_int_equal(xs_domain_fill(f->client, &v, &e), 0);
    assert_int_equal(RUN("xenstore-ls", "-f", "-p"), 0);
    static const char *const expected[] = {
        "/local/domain/5 = \"\"   (n0,r5)\n",
        "/local/domain/5/name = \"guest\"   (n0,r5)\n",
        "/local/domain/5/vm = \"/vm/d81ec5a9-0000-0000-0000-00000000008f\"   (n0,r5)\n",
        "/local/domain/5/domid = \"5\"   (n0,r5)\n",
        "/local/domain/5/memory/static-max = \"262144\"   (n0,r5)\n",
        "/local/domain/5/memory/target = \"131072\"   (n0,r5)\n",
        "/local/domain/5/cpu/0/availability = \"online\"   (n0,r5)\n",
        "/local/domain/5/cpu/1/availability = \"offline\"   (n0,r5)\n",
        "/local/domain/5/device = \"\"   (n0,r5)\n",
        "/local/domain/5/control/shutdown = \"\"   (n5)\n",
        "/local/domain/5/control/platform-feature-xs_reset_watches = \"1\"   (n0,r5)\n",
        "/local/domain/5/data = \"\"   (n5)\n",
        "/local/domain/5/store/port = \"1\"   (n0,r5)\n",
        "/local/domain/5/store/ring-ref = \"3\"   (n0,r5)\n",
        "/local/domain/5/console/port = \"2\"   (n0,r5)\n",
        "/local/domain/5/console/ring-ref = \"4\"   (n0,r5)\n",
        "/local/domain/5/console/limit = \"1048576\"   (n0,r5)\n",
        "/local/domain/5/console/backend = \"/local/domain/0/backend/console/5/0\"   (n5,r0)\n",
        "/local/domain/0/backend/console/5/0/frontend = \"/local/domain/5/console\"   (n0,r5)\n",
        "/vm/d81ec5a9-0000-0000-0000-00000000008f/name = \"guest\"   (n0,r5)\n",
        "/vm/d81ec5a9-0000-0000-0000-00000000008f/image/kernel = \"/boot/vmlinuz\"   (n0,r5)\n",
        "/vm/d81ec5a9-0000-0000-0000-00000000008f/start_time = \"1234567890.12\"   (n0,r5)\n",
        "/libxl/5/type = \"pv\"   (n0)\n",
    };
    for (size_t i = 0; i < array_size(expected); i++) {
        if (!strstr(output, expected[i]))
            fail_msg("not in the listing: %s", expected[i]);
    }
    assert_int_equal(xs_domain_remove(f->client, 5, v.uuid), 0);
    assert_int_equal(RUN("xenstore-ls", "-f"), 0);
    assert_null(strstr(output, "/5"));
    assert_null(strstr(output, "d81ec5a9"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_value_written_is_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_node_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(exists_tells_nodes_from_gaps, setup, teardown),
        cmocka_unit_test_setup_teardown(list_names_the_children, setup, teardown),
        cmocka_unit_test_setup_teardown(ls_shows_a_tree_with_permissions, setup, teardown),
        cmocka_unit_test_setup_teardown(chmod_recurses, setup, teardown),
        cmocka_unit_test_setup_teardown(rm_takes_all_below_with_it, setup, teardown),
        cmocka_unit_test_setup_teardown(rm_t_prunes_empty_parents, setup, teardown),
        cmocka_unit_test_setup_teardown(ls_follows_a_list_longer_than_a_message, setup, teardown),
        cmocka_unit_test_setup_teardown(watch_reports_a_change, setup, teardown),
        cmocka_unit_test_setup_teardown(ls_shows_a_filled_domain, setup, teardown),
    };

    if (argc > 1 && !strcmp(argv[1], "xenstored"))
        return xs_daemon_main(argc - 1, argv + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
