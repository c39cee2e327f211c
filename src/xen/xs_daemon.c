/* SPDX-License-Identifier: MIT */
/* Who is the daemon of a run-time directory is decided by a lock: it holds
 * RUN_DIR/xenstored/lock (flock) for its life, so two can never serve at once,
 * and a socket file without a holder of the lock is a dead daemon's and may be
 * replaced.  The kernel gives up the lock however the daemon ends.
 *
 * A starter runs under a second lock, RUN_DIR/xenstored/start: first it tries to
 * connect; if nobody answers it starts a daemon and waits for the byte that the
 * daemon writes to a pipe once it listens.  The daemon is a fresh image of this
 * program, not a fork of the caller, whose memory (a guest's) it would hold.
 *
 * A daemon about to end removes its socket before it gives up the lock, and
 * looks for connections once more after the removal: one that came in between
 * keeps it serving, and the socket file is made again. */
#include "xen/xs_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "base/num.h"
#include "xen/xs_server.h"

#define START_TIMEOUT_MS 10000
#define START_POLL_MS    10
#define READY_FD         3

struct daemon {
    struct loop *loop;
    struct xs_server *server;
    struct loop_timer *grace;
    uint64_t grace_ns;
    char dir[PATH_MAX];
    struct sockaddr_un address;
};

static int socket_address(const char *run_dir, struct sockaddr_un *sa, struct err *e)
{
    sa->sun_family = AF_UNIX;
    if (snprintf(sa->sun_path, sizeof(sa->sun_path), "%s/xenstored/socket", run_dir) >=
        (int)sizeof(sa->sun_path))
        return err_set(e, ENAMETOOLONG, "%s: too long for the path of a socket below it", run_dir);
    return 0;
}

/* Opens (and locks, unless op is 0) a file of the daemon's directory. */
static int file_open(const char *dir, const char *name, int flags, int op, struct err *e)
{
    char path[PATH_MAX + 16];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, flags | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(e, errno, "cannot open %s: %s", path, strerror(errno));
    if (op && flock(fd, op)) {
        int code = errno;

        close(fd);
        return err_set(e, code, "cannot lock %s: %s", path, strerror(code));
    }
    return fd;
}

static bool answers(const struct sockaddr_un *sa)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && !connect(fd, (const struct sockaddr *)sa, sizeof(*sa));

    if (fd >= 0)
        close(fd);
    return ok;
}

static int listen_open(const struct sockaddr_un *sa, struct err *e)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask;
    int rc;

    if (fd < 0)
        return err_set(e, errno, "cannot make a socket: %s", strerror(errno));
    unlink(sa->sun_path);       /* a dead daemon's, if any: we hold the lock */
    mask = umask(0177);
    rc = bind(fd, (const struct sockaddr *)sa, sizeof(*sa));
    umask(mask);
    if (rc || listen(fd, 128)) {
        rc = errno;
        close(fd);
        return err_set(e, rc, "cannot listen at %s: %s", sa->sun_path, strerror(rc));
    }
    return fd;
}

static void grace_over(void *arg)
{
    struct daemon *d = arg;

    if (xs_server_nr_connections(d->server) == 0)
        loop_stop(d->loop);
}

static void idle_changed(void *arg, bool idle)
{
    struct daemon *d = arg;

    if (idle)
        loop_timer_arm(d->grace, d->grace_ns);
    else
        loop_timer_disarm(d->grace);
}

static void signal_came(void *arg, uint32_t events)
{
    struct daemon *d = arg;

    d->grace_ns = 0;
    loop_stop(d->loop);
}

/* Serves until the end; true when the end came by itself and a last look found
 * somebody who had connected meanwhile. */
static bool serve(struct daemon *d)
{
    loop_timer_arm(d->grace, d->grace_ns);
    loop_run(d->loop);
    unlink(d->address.sun_path);
    if (d->grace_ns == 0)
        return false;
    loop_run_once(d->loop, 0);
    return xs_server_nr_connections(d->server) > 0;
}

static int daemon_run(struct daemon *d, int ready_fd, struct err *e)
{
    struct loop_fd *sig_watch = NULL;
    sigset_t signals;
    int sig_fd = -1, fd, rc;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    sig_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    d->loop = loop_create();
    if (d->loop && sig_fd >= 0)
        sig_watch = loop_fd_add(d->loop, sig_fd, EPOLLIN, signal_came, d);
    d->grace = d->loop ? loop_timer_add(d->loop, grace_over, d) : NULL;
    rc = sig_watch && d->grace ? xs_server_create(d->loop, NULL, &d->server) : -errno;
    if (rc)
        err_set(e, -rc, "cannot set up the event loop: %s", strerror(-rc));
    if (!rc)
        xs_server_on_idle(d->server, idle_changed, d);
    while (!rc) {
        fd = listen_open(&d->address, e);
        rc = fd < 0 ? fd : xs_server_listen(d->server, fd);
        if (rc)
            err_set(e, -rc, "cannot listen: %s", strerror(-rc));
        if (!rc && ready_fd >= 0) {
            if (write(ready_fd, "", 1) < 0)
                log_warning("xenstored: whoever started it is gone");
            close(ready_fd);
            ready_fd = -1;
        }
        if (!rc && !serve(d))
            break;
    }
    xs_server_free(d->server);
    loop_timer_remove(d->grace);
    loop_fd_remove(sig_watch);
    loop_free(d->loop);
    if (sig_fd >= 0)
        close(sig_fd);
    if (ready_fd >= 0)
        close(ready_fd);
    return rc;
}

static int arguments(int argc, char **argv, const char **run_dir, uint64_t *grace_ms,
                     bool *started, struct err *e)
{
    static const struct option options[] = {
        { "run-dir", required_argument, NULL, 'r' },
        { "grace-ms", required_argument, NULL, 'g' },
        { "started", no_argument, NULL, 's' },
        { 0 },
    };
    int opt;

    optind = 0;     /* the caller may have used getopt already */
    while ((opt = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (opt == 'r')
            *run_dir = optarg;
        else if (opt == 's')
            *started = true;
        else if (opt != 'g' || num_parse_u64(optarg, 1, 86400000, grace_ms))
            return err_set(e, EINVAL, "usage: xenstored --run-dir DIR [--grace-ms N]");
    }
    if (!*run_dir || optind != argc)
        return err_set(e, EINVAL, "usage: xenstored --run-dir DIR [--grace-ms N]");
    return 0;
}

/* The lock of a daemon's life.  A daemon that was started because nobody answered
 * may meet one that is about to end, or that thinks better of it. */
static int lock_take(const struct daemon *d, bool started, struct err *e)
{
    const struct timespec pause = { .tv_nsec = START_POLL_MS * 1000000 };
    unsigned tries = started ? START_TIMEOUT_MS / START_POLL_MS : 1;
    int fd;

    do {
        err_clear(e);
        fd = file_open(d->dir, "lock", O_RDWR, LOCK_EX | LOCK_NB, e);
        if (fd != -EWOULDBLOCK || answers(&d->address))
            break;
        nanosleep(&pause, NULL);
    } while (--tries);
    return fd;
}

int xs_daemon_main(int argc, char **argv)
{
    struct daemon d = { 0 };
    struct err e = { 0 };
    const char *run_dir = NULL;
    uint64_t grace_ms = XS_DAEMON_GRACE_MS;
    bool started = false;
    char text[1024];
    int lock_fd = -1;
    int rc = arguments(argc, argv, &run_dir, &grace_ms, &started, &e);

    if (!rc)
        rc = socket_address(run_dir, &d.address, &e);
    if (!rc) {
        d.grace_ns = grace_ms * 1000000;
        snprintf(d.dir, sizeof(d.dir), "%s/xenstored", run_dir);
        if (mkdir(d.dir, 0700) && errno != EEXIST)
            rc = err_set(&e, errno, "cannot make %s: %s", d.dir, strerror(errno));
    }
    if (!rc) {
        lock_fd = lock_take(&d, started, &e);
        if (lock_fd == -EWOULDBLOCK) {
            log_info("xenstored: another one already serves %s", run_dir);
            return 0;
        }
        rc = lock_fd < 0 ? lock_fd : 0;
    }
    if (!rc)
        rc = daemon_run(&d, started ? READY_FD : -1, &e);
    if (lock_fd >= 0)
        close(lock_fd);
    if (rc)
        log_error("xenstored: %s", err_str(&e, text, sizeof(text)));
    return rc ? 1 : 0;
}

/* In the child: becomes the daemon, in a session of its own (the second fork
 * makes init its parent), with nothing of the caller's but the pipe.  Only calls
 * that are safe after a fork in a process with threads. */
static void become_daemon(const char *run_dir, int log_fd, int ready_fd)
{
    char *const argv[] = {
        "xenolith", "xenstored", "--started", "--run-dir", (char *)run_dir, NULL,
    };
    int null_fd = open("/dev/null", O_RDWR);
    sigset_t none;

    setsid();
    if (fork() > 0)
        _exit(0);
    /* first out of the way of the numbers they are to get */
    null_fd = fcntl(null_fd, F_DUPFD, READY_FD + 1);
    log_fd = fcntl(log_fd, F_DUPFD, READY_FD + 1);
    ready_fd = fcntl(ready_fd, F_DUPFD, READY_FD + 1);
    if (dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(log_fd, 2) < 0 ||
        dup2(ready_fd, READY_FD) < 0)
        _exit(1);
    close_range(READY_FD + 1, ~0u, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (chdir("/"))
        _exit(1);
    execv("/proc/self/exe", argv);
    _exit(127);
}

static int ready_wait(int fd, const struct sockaddr_un *sa, const char *dir, struct err *e)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char byte;
    int n;

    do
        n = poll(&p, 1, START_TIMEOUT_MS);
    while (n < 0 && errno == EINTR);
    /* without a byte: the new daemon may have left the field to another */
    if ((n > 0 && read(fd, &byte, 1) == 1) || answers(sa))
        return 0;
    return err_set(e, n ? EIO : ETIMEDOUT, "the xenstore daemon did not start: see %s/log", dir);
}

static int start(const char *run_dir, const struct sockaddr_un *sa, const char *dir,
                 struct err *e)
{
    int log_fd = file_open(dir, "log", O_WRONLY | O_APPEND, 0, e);
    int pipe_fd[2] = { -1, -1 };
    pid_t pid = -1;
    int rc = log_fd < 0 ? log_fd : 0;

    if (!rc && pipe2(pipe_fd, O_CLOEXEC))
        rc = err_set(e, errno, "cannot make a pipe: %s", strerror(errno));
    if (!rc) {
        pid = fork();
        if (pid == 0)
            become_daemon(run_dir, log_fd, pipe_fd[1]);
        if (pid < 0)
            rc = err_set(e, errno, "cannot start the xenstore daemon: %s", strerror(errno));
    }
    if (pipe_fd[1] >= 0)
        close(pipe_fd[1]);
    if (!rc) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        rc = ready_wait(pipe_fd[0], sa, dir, e);
    }
    if (pipe_fd[0] >= 0)
        close(pipe_fd[0]);
    if (log_fd >= 0)
        close(log_fd);
    return rc;
}

int xs_daemon_ensure(const char *run_dir, char *socket_path, size_t size, struct err *e)
{
    struct sockaddr_un sa;
    char full[PATH_MAX], dir[PATH_MAX + 16];
    int lock_fd, rc;

    if (!realpath(run_dir, full))
        return err_set(e, errno, "%s: %s", run_dir, strerror(errno));
    rc = socket_address(full, &sa, e);
    if (rc)
        return rc;
    if (strlen(sa.sun_path) >= size)
        return err_set(e, ENAMETOOLONG, "%s: no room for the path", sa.sun_path);
    snprintf(dir, sizeof(dir), "%s/xenstored", full);
    if (mkdir(dir, 0700) && errno != EEXIST)
        return err_set(e, errno, "cannot make %s: %s", dir, strerror(errno));
    lock_fd = file_open(dir, "start", O_RDWR, LOCK_EX, e);
    if (lock_fd < 0)
        return lock_fd;
    rc = answers(&sa) ? 0 : start(full, &sa, dir, e);
    close(lock_fd);
    if (!rc)
        strcpy(socket_path, sa.sun_path);
    return rc;
}
