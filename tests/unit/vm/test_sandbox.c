/* SPDX-License-Identifier: MIT */
/* What a process can do yet that has confined itself: each attempt in a child of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/types.h"
#include "vm/sandbox.h"

#define ANYBODY 12345       /* a user that is not root, and not nobody */

enum how { ENTERED, SEALED };

/* attempt()'s result as an exit status, or -signal. */
static int tried(int (*attempt)(void), enum how how, bool as_root)
{
    pid_t pid = fork();
    int status;

    if (!pid) {
        struct err e = { 0 };
        char text[512];

        if (!as_root && !geteuid() && (setgid(ANYBODY) || setuid(ANYBODY)))
            _exit(90);
        if (sandbox_enter(text, sizeof(text), &e) || (how == SEALED && sandbox_seal(&e))) {
            dprintf(STDERR_FILENO, "%s\n", e.text);
            _exit(91);
        }
        _exit(attempt());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- attempts: 0 when it could ---- */

static void *thread_main(void *arg)
{
    *(int *)arg = 1;
    return NULL;
}

static int make_thread(void)
{
    pthread_t t;
    int ran = 0;

    return pthread_create(&t, NULL, thread_main, &ran) || pthread_join(t, NULL) || !ran;
}

static int make_ring(void)
{
    struct io_uring ring;

    return io_uring_queue_init(4, &ring, 0) != 0;
}

static int use_memory(void)
{
    size_t bytes = 64 * MIB;
    char *at = malloc(bytes);

    if (!at)
        return 1;
    memset(at, 1, bytes);
    free(at);
    return 0;
}

static int use_programs(void)
{
    return mmap(NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
           MAP_FAILED;
}

static int make_programs(void)
{
    void *at = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return mprotect(at, PAGE_SIZE, PROT_READ | PROT_EXEC);
}

static int open_file(void)
{
    return open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
}

static int open_file_by_another_name(void)
{
    return syscall(SYS_open, "/etc/passwd", O_RDONLY) < 0;
}

static int make_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static int make_process(void)
{
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0) < 0;
}

static int run_program(void)
{
    char *const none[] = { NULL };

    return execve("/bin/true", none, none);
}

static int signal_parent(void)
{
    return kill(getppid(), 0);
}

static int signal_a_thread_of_the_parent(void)
{
    return (int)syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static int be_root(void)
{
    return setuid(0);
}

static int do_nothing(void)
{
    return 0;
}

/* What is looked at must not need what is forbidden: it is looked at from outside. */
static int stay(void)
{
    char c;

    return (int)read(STDIN_FILENO, &c, 1);
}

static void serving_takes_no_more_than_this(void **state)
{
    static const struct { int (*attempt)(void); const char *what; int entered, sealed; } t[] = {
        { do_nothing, "nothing", 0, 0 },
        { use_memory, "memory", 0, 0 },
        { make_thread, "a thread", 0, -SIGSYS },
        { make_ring, "an io_uring", 0, -SIGSYS },
        { open_file, "a file", EACCES, EACCES },
        { open_file_by_another_name, "a file by the old call", -SIGSYS, -SIGSYS },
        { make_socket, "a socket", -SIGSYS, -SIGSYS },
        { make_process, "a process", -SIGSYS, -SIGSYS },
        { run_program, "another program", -SIGSYS, -SIGSYS },
        { use_programs, "memory that is run", -SIGSYS, -SIGSYS },
        { make_programs, "memory that is to be run", -SIGSYS, -SIGSYS },
        { signal_parent, "a signal", -SIGSYS, -SIGSYS },
        { signal_a_thread_of_the_parent, "a signal to a thread", -SIGSYS, -SIGSYS },
        { be_root, "root", -SIGSYS, -SIGSYS },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        for (unsigned how = ENTERED; how <= SEALED; how++) {
            for (unsigned root = 0; root <= !geteuid(); root++) {
                int want = how == SEALED ? t[i].sealed : t[i].entered;
                int got = tried(t[i].attempt, (enum how)how, root);

                if (got != want)
                    fail_msg("%s, %s, %s: %d, not %d", t[i].what, how ? "sealed" : "entered",
                             root ? "as root" : "as a user", got, want);
            }
        }
    }
}

static bool status_has(pid_t pid, const char *line)
{
    char path[64], text[8192];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    fd = open(path, O_RDONLY);
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return strstr(text, line);
}

/* Begun by root: what is left of that. */
static void root_is_nobody(void **state)
{
    int to[2], status;
    pid_t pid;

    if (geteuid())
        skip();
    assert_int_equal(pipe(to), 0);
    pid = fork();
    if (!pid) {
        struct err e = { 0 };
        char text[512];

        dup2(to[0], STDIN_FILENO);
        close(to[1]);
        if (sandbox_enter(text, sizeof(text), &e) || sandbox_seal(&e))
            _exit(1);
        _exit(stay());
    }
    for (unsigned i = 0; i < 1000 && !status_has(pid, "Seccomp_filters:\t2"); i++)
        usleep(5000);
    assert_true(status_has(pid, "Uid:\t65534\t65534\t65534\t65534"));
    assert_true(status_has(pid, "Gid:\t65534\t65534\t65534\t65534"));
    assert_true(status_has(pid, "Groups:\t \n") || status_has(pid, "Groups:\t\n"));
    assert_true(status_has(pid, "CapPrm:\t0000000000000000"));
    assert_true(status_has(pid, "CapEff:\t0000000000000000"));
    assert_true(status_has(pid, "NoNewPrivs:\t1"));
    assert_true(status_has(pid, "Seccomp:\t2"));
    close(to[1]);
    close(to[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serving_takes_no_more_than_this),
        cmocka_unit_test(root_is_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
