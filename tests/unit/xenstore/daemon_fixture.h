/* SPDX-License-Identifier: MIT */
/* A daemon in a directory of its own, and a client of it, for each test.  The
 * program that includes this starts as the daemon too: see its main(). */
#ifndef XENOLITH_TESTS_XENSTORE_DAEMON_FIXTURE_H
#define XENOLITH_TESTS_XENSTORE_DAEMON_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/types.h"
#include "xen/xs_client.h"
#include "xen/xs_daemon.h"

struct fixture {
    char dir[64];               /* of a run-time directory */
    char socket[108];
    struct loop *loop;
    struct xs_client *client;
};

/* The daemon's process, from its socket. */
static inline pid_t daemon_pid(const struct fixture *f)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct ucred cred = { 0 };
    socklen_t len = sizeof(cred);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", f->socket);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len), 0);
    close(fd);
    return cred.pid;
}

static inline void pause_ms(unsigned ms)
{
    const struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };

    nanosleep(&ts, NULL);
}

/* Waits until the process, which is not a child, has ended. */
static inline void wait_gone(pid_t pid)
{
    char path[64], text[512];
    const char *state;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    for (;;) {
        FILE *f = fopen(path, "r");
        size_t n;

        if (!f)
            return;
        n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
        text[n] = 0;
        state = strrchr(text, ')');
        if (!state || state[2] == 'Z')  /* nobody may be there to reap it */
            return;
        pause_ms(10);
    }
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err e = { 0 };

    snprintf(f->dir, sizeof(f->dir), "/tmp/xenolith-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->loop = loop_create();
    assert_non_null(f->loop);
    if (xs_daemon_ensure(f->dir, f->socket, sizeof(f->socket), &e) ||
        xs_client_connect(f->loop, f->socket, &f->client, &e))
        fail_msg("%s", e.text);
    setenv("XENSTORED_PATH", f->socket, 1);
    *state = f;
    return 0;
}

static inline void dir_remove(const struct fixture *f)
{
    static const char *const names[] = { "socket", "lock", "start", "log" };
    char path[128];

    for (size_t i = 0; i < array_size(names); i++) {
        snprintf(path, sizeof(path), "%s/xenstored/%s", f->dir, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof(path), "%s/xenstored", f->dir);
    rmdir(path);
    assert_int_equal(rmdir(f->dir), 0);
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    pid_t pid = daemon_pid(f);

    xs_client_free(f->client);
    loop_free(f->loop);
    kill(pid, SIGTERM);
    wait_gone(pid);
    dir_remove(f);
    free(f);
    return 0;
}

#endif
