/* SPDX-License-Identifier: MIT */
/* Several processes and one run-time directory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/registry.h"

static const uint8_t uuid[16] = { 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

struct world {
    char dir[64];
    struct registry r;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct err e = { 0 };

    strcpy(w->dir, "/tmp/xenolith-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(registry_open(&w->r, w->dir, &e), 0);
    *state = w;
    return 0;
}

/* Also shows that nothing but the registry's own three names is left. */
static int teardown(void **state)
{
    struct world *w = *state;
    struct registry_guest *g;
    struct err e = { 0 };
    unsigned nr;

    assert_int_equal(registry_list(&w->r, &g, &nr, &e), 0);
    assert_int_equal(nr, 0);
    unlinkat(w->r.dir_fd, "registry.lock", 0);
    unlinkat(w->r.dir_fd, "next-domid", 0);
    assert_int_equal(unlinkat(w->r.dir_fd, "guest", AT_REMOVEDIR), 0);
    assert_int_equal(rmdir(w->dir), 0);
    registry_close(&w->r);
    free(w);
    return 0;
}

static struct registry_entry take(struct world *w, const char *name)
{
    struct registry_entry en;
    struct err e = { 0 };

    if (registry_take(&w->r, name, uuid, &en, &e))
        fail_msg("%s", e.text);
    return en;
}

/* A child that takes name and sleeps for ever; returns once it has it. */
static pid_t take_in_child(struct world *w, const char *name)
{
    int fds[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    if (pid == 0) {
        struct registry_entry en;
        struct err e = { 0 };

        if (!registry_take(&w->r, name, uuid, &en, &e) && write(fds[1], "", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    assert_int_equal(read(fds[0], &byte, 1), 1);
    close(fds[0]);
    close(fds[1]);
    return pid;
}

static void numbers_count_up_from_1(void **state)
{
    struct world *w = *state;
    struct registry_entry a = take(w, "a"), b = take(w, "b"), c;

    assert_int_equal(a.guest.domid, 1);
    assert_int_equal(b.guest.domid, 2);
    registry_release(&w->r, &a);
    c = take(w, "c");
    assert_int_equal(c.guest.domid, 3);     /* a number is not given out again at once */
    registry_release(&w->r, &b);
    registry_release(&w->r, &c);
}

static void numbers_wrap_and_skip_those_in_use(void **state)
{
    struct world *w = *state;
    struct registry_entry a = take(w, "a"), b, c;
    int fd = openat(w->r.dir_fd, "next-domid", O_WRONLY | O_TRUNC);

    assert_int_equal(dprintf(fd, "%u\n", REGISTRY_DOMID_MAX), 6);
    close(fd);
    b = take(w, "b");
    assert_int_equal(b.guest.domid, REGISTRY_DOMID_MAX);
    c = take(w, "c");
    assert_int_equal(c.guest.domid, 2);
    registry_release(&w->r, &a);
    registry_release(&w->r, &b);
    registry_release(&w->r, &c);
}

static void a_spoilt_counter_is_no_obstacle(void **state)
{
    struct world *w = *state;
    struct registry_entry a = take(w, "a"), b;
    int fd = openat(w->r.dir_fd, "next-domid", O_WRONLY | O_TRUNC);

    assert_int_equal(write(fd, "99999999999999999999", 15), 15);
    close(fd);
    b = take(w, "b");
    assert_int_equal(b.guest.domid, 2);
    registry_release(&w->r, &a);
    registry_release(&w->r, &b);
}

static void a_name_is_taken_once(void **state)
{
    struct world *w = *state;
    struct registry_entry a = take(w, "web"), b;
    struct err e = { 0 };

    assert_int_equal(registry_take(&w->r, "web", uuid, &b, &e), -EEXIST);
    assert_string_equal(e.text, "a guest called 'web' exists already (domain 1)");
    registry_release(&w->r, &a);
    b = take(w, "web");
    registry_release(&w->r, &b);
}

static void names_are_judged(void **state)
{
    struct world *w = *state;
    char longest[REGISTRY_NAME_BYTES + 1];
    const char *bad[] = { "", "17", "a\nb", "\xff\xfe", longest };
    struct registry_entry en;

    memset(longest, 'n', REGISTRY_NAME_BYTES);
    longest[REGISTRY_NAME_BYTES] = '\0';
    for (size_t i = 0; i < array_size(bad); i++) {
        struct err e = { 0 };

        assert_int_equal(registry_take(&w->r, bad[i], uuid, &en, &e), -EINVAL);
        assert_true(e.text[0]);
    }
    longest[REGISTRY_NAME_BYTES - 1] = '\0';
    en = take(w, longest);
    registry_release(&w->r, &en);
}

static void guests_are_found_by_number_and_name(void **state)
{
    struct world *w = *state;
    struct registry_entry a = take(w, "alpha"), b = take(w, "beta/../x");
    struct registry_guest g;
    struct err e = { 0 };

    assert_int_equal(registry_find(&w->r, "2", &g, &e), 0);
    assert_string_equal(g.name, "beta/../x");
    assert_int_equal(registry_find(&w->r, "alpha", &g, &e), 0);
    assert_int_equal(g.domid, 1);
    assert_int_equal(g.pid, getpid());
    assert_memory_equal(g.uuid, uuid, 16);
    assert_int_equal(registry_find(&w->r, "3", &g, &e), -ENOENT);
    assert_int_equal(registry_find(&w->r, "alph", &g, &e), -ENOENT);
    assert_int_equal(registry_find(&w->r, "", &g, &e), -ENOENT);
    assert_int_equal(registry_find(&w->r, "99999999999999999999", &g, &e), -ENOENT);
    assert_int_equal(e.code, 0);
    registry_release(&w->r, &a);
    registry_release(&w->r, &b);
}

static void a_killed_process_leaves_no_guest(void **state)
{
    struct world *w = *state;
    pid_t pid = take_in_child(w, "victim");
    struct registry_guest g, *all;
    struct registry_entry en;
    struct err e = { 0 };
    unsigned nr;

    assert_int_equal(registry_find(&w->r, "victim", &g, &e), 0);
    assert_int_equal(g.pid, pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(registry_list(&w->r, &all, &nr, &e), 0);
    assert_int_equal(nr, 0);
    assert_int_equal(faccessat(w->r.dir_fd, "guest/1", F_OK, 0), -1);
    en = take(w, "victim");     /* the name is free */
    registry_release(&w->r, &en);
}

static void a_half_made_entry_is_swept_away(void **state)
{
    struct world *w = *state;
    struct registry_guest *all;
    struct err e = { 0 };
    unsigned nr;

    assert_int_equal(mkdirat(w->r.dir_fd, "guest/7", 0700), 0);
    assert_int_equal(registry_list(&w->r, &all, &nr, &e), 0);
    assert_int_equal(nr, 0);
    assert_int_equal(faccessat(w->r.dir_fd, "guest/7", F_OK, 0), -1);
}

static void a_guest_that_does_not_answer_can_be_killed(void **state)
{
    struct world *w = *state;
    pid_t pid = take_in_child(w, "stuck");
    struct registry_guest g;
    struct err e = { 0 };
    int status;

    assert_int_equal(registry_kill(&w->r, 1, &e), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(registry_find(&w->r, "stuck", &g, &e), -ENOENT);
}

static void a_reboot_keeps_the_name_and_changes_the_number(void **state)
{
    struct world *w = *state;
    struct registry_entry en = take(w, "vm");
    struct registry_guest *all;
    struct err e = { 0 };
    unsigned nr;

    assert_int_equal(registry_renew(&w->r, &en, &e), 0);
    assert_int_equal(en.guest.domid, 2);
    assert_int_equal(registry_list(&w->r, &all, &nr, &e), 0);
    assert_int_equal(nr, 1);
    assert_int_equal(all[0].domid, 2);
    assert_string_equal(all[0].name, "vm");
    free(all);
    registry_release(&w->r, &en);
}

static void a_rename_frees_the_old_name(void **state)
{
    struct world *w = *state;
    struct registry_entry en = take(w, "old"), other = take(w, "other"), again;
    struct err e = { 0 };

    assert_int_equal(registry_rename(&w->r, &en, "other", uuid, &e), -EEXIST);
    err_clear(&e);
    assert_int_equal(registry_rename(&w->r, &en, "new", uuid, &e), 0);
    again = take(w, "old");
    assert_int_equal(again.guest.domid, 3);
    registry_release(&w->r, &en);
    registry_release(&w->r, &other);
    registry_release(&w->r, &again);
}

#define NR_RACERS 12

/* All children wait for one byte, then take at once; each reports its number. */
static void race(struct world *w, bool same_name, unsigned got[NR_RACERS])
{
    int start[2], result[2], hold[2];
    char name[32], byte;

    assert_int_equal(pipe(start), 0);
    assert_int_equal(pipe(result), 0);
    assert_int_equal(pipe(hold), 0);
    for (unsigned i = 0; i < NR_RACERS; i++)
        if (fork() == 0) {
            struct registry_entry en;
            struct err e = { 0 };
            unsigned domid = 0;

            close(hold[1]);
            snprintf(name, sizeof(name), "racer%u", same_name ? 0 : i);
            if (read(start[0], &byte, 1) == 1
                && !registry_take(&w->r, name, uuid, &en, &e))
                domid = en.guest.domid;
            if (write(result[1], &domid, sizeof(domid)) != sizeof(domid))
                _exit(1);
            /* all hold what they have until all have tried */
            _exit(read(hold[0], &byte, 1) != 0);
        }
    assert_int_equal(write(start[1], "............", NR_RACERS), NR_RACERS);
    for (unsigned i = 0; i < NR_RACERS; i++)
        assert_int_equal(read(result[0], &got[i], sizeof(got[i])), sizeof(got[i]));
    close(hold[1]);
    for (unsigned i = 0; i < NR_RACERS; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    close(start[0]);
    close(start[1]);
    close(result[0]);
    close(result[1]);
    close(hold[0]);
}

static void numbers_taken_at_once_differ(void **state)
{
    unsigned got[NR_RACERS];
    uint32_t seen = 0;

    race(*state, false, got);
    for (unsigned i = 0; i < NR_RACERS; i++)
        seen |= 1u << got[i];
    assert_int_equal(seen, ((1u << NR_RACERS) - 1) << 1);   /* 1 .. NR_RACERS */
}

static void a_name_taken_at_once_has_one_winner(void **state)
{
    unsigned got[NR_RACERS], winners = 0;

    race(*state, true, got);
    for (unsigned i = 0; i < NR_RACERS; i++)
        winners += got[i] != 0;
    assert_int_equal(winners, 1);
}

static void sockets_connect_in_long_directories(void **state)
{
    struct world *w = *state;
    char deep[64 + 202];
    struct registry r;
    struct registry_entry en;
    struct err e = { 0 };
    int fd, client;

    memset(deep, 0, sizeof(deep));
    snprintf(deep, sizeof(deep), "%s/", w->dir);
    memset(deep + strlen(deep), 'd', 200);
    assert_int_equal(mkdir(deep, 0700), 0);
    assert_int_equal(registry_open(&r, deep, &e), 0);
    assert_int_equal(registry_take(&r, "a", uuid, &en, &e), 0);
    assert_int_equal(registry_connect(&r, 1), -ENOENT);     /* nobody listens yet */
    fd = registry_listen(&en, &e);
    assert_true(fd >= 0);
    client = registry_connect(&r, 1);
    assert_true(client >= 0);
    close(client);
    close(fd);
    registry_release(&r, &en);
    unlinkat(r.dir_fd, "registry.lock", 0);
    unlinkat(r.dir_fd, "next-domid", 0);
    unlinkat(r.dir_fd, "guest", AT_REMOVEDIR);
    registry_close(&r);
    assert_int_equal(rmdir(deep), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(numbers_count_up_from_1),
        T(numbers_wrap_and_skip_those_in_use),
        T(a_spoilt_counter_is_no_obstacle),
        T(a_name_is_taken_once),
        T(names_are_judged),
        T(guests_are_found_by_number_and_name),
        T(a_killed_process_leaves_no_guest),
        T(a_half_made_entry_is_swept_away),
        T(a_guest_that_does_not_answer_can_be_killed),
        T(a_reboot_keeps_the_name_and_changes_the_number),
        T(a_rename_frees_the_old_name),
        T(numbers_taken_at_once_differ),
        T(a_name_taken_at_once_has_one_winner),
        T(sockets_connect_in_long_directories),
    };

    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
