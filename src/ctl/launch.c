/* SPDX-License-Identifier: MIT */
/* The new process says once, over a pipe, that its guest runs or why not: a
 * struct report, smaller than PIPE_BUF and so written in one piece.  The end of
 * the pipe without one means that it died first. */
#include "ctl/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/dirs.h"

struct report {
    unsigned domid;
    struct err e;
};

/* ---- the new process ---- */

struct reporter {
    int fd;
    bool log;       /* into the log as well: standard error is not the caller's */
};

static void report_write(void *arg, unsigned domid, const struct err *e)
{
    struct reporter *to = arg;
    struct report r = { .domid = domid };
    char text[1024];

    if (e) {
        r.e = *e;
        if (to->log)
            log_error("%s", err_str(e, text, sizeof(text)));
    }
    if (write(to->fd, &r, sizeof(r)) != sizeof(r))
        log_warning("nobody waits for this guest's start");
    close(to->fd);
}

static void move_fd(int *fd, int to)
{
    if (*fd < 0 || *fd == to)
        return;
    dup2(*fd, to);
    *fd = to;
}

/* Keeps standard error (or log_fd in its place), the pipe and the console, and
 * nothing that whoever called this command had open. */
static void fds_settle(int log_fd, int *pipe_fd, int *console_fd)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int high = fcntl(*pipe_fd, F_DUPFD_CLOEXEC, 16);
    int console_high = *console_fd < 0 ? -1 : fcntl(*console_fd, F_DUPFD_CLOEXEC, 16);

    dup2(null_fd, STDIN_FILENO);
    dup2(log_fd >= 0 ? log_fd : null_fd, STDOUT_FILENO);
    if (log_fd >= 0)
        dup2(log_fd, STDERR_FILENO);
    move_fd(&high, 3);
    move_fd(&console_high, 4);
    syscall(SYS_close_range, console_high < 0 ? 4u : 5u, ~0u, 0);
    fcntl(high, F_SETFD, FD_CLOEXEC);
    if (console_high >= 0)
        fcntl(console_high, F_SETFD, FD_CLOEXEC);
    *pipe_fd = high;
    *console_fd = console_high;
}

static void child_run(const struct launch *l, int log_fd, int pipe_fd, int console_fd)
{
    struct reporter reporter = { .fd = pipe_fd, .log = log_fd >= 0 };
    struct guest_process_params p = {
        .config = l->config, .paused = l->paused, .preserve = l->preserve,
        .console_fd = console_fd, .started = report_write, .arg = &reporter,
    };

    /* a process group of its own must be able to write to its terminal */
    signal(SIGTTOU, SIG_IGN);
    fds_settle(log_fd, &reporter.fd, &p.console_fd);
    _exit(guest_process_run(&p));
}

/* ---- the caller ---- */

static int report_read(int fd, const char *log, unsigned *domid, struct err *e)
{
    struct report r;
    ssize_t n;

    do
        n = read(fd, &r, sizeof(r));
    while (n < 0 && errno == EINTR);
    if (n != sizeof(r))
        return err_set(e, ECHILD, "the guest's process died while it started%s%s",
                       log ? "; see " : "", log ? log : "");
    if (r.e.code) {
        *e = r.e;
        return -e->code;
    }
    *domid = r.domid;
    return 0;
}

static int wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

int launch_daemon(const struct launch *l, unsigned *domid, struct err *e)
{
    const char *name = guest_config_name(l->config);
    char log[4096];
    int pipe_fd[2], log_fd, rc = ctl_log_path("", name, log, sizeof(log), e);
    pid_t pid;

    log_fd = rc ? rc : ctl_log_open("", name, e);
    if (log_fd < 0)
        return log_fd;
    if (pipe2(pipe_fd, O_CLOEXEC)) {
        rc = err_set(e, errno, "pipe: %s", strerror(errno));
        close(log_fd);
        return rc;
    }
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        setsid();
        pid = fork();
        if (pid == 0)
            child_run(l, log_fd, pipe_fd[1], -1);
        _exit(pid < 0);
    }
    rc = pid < 0 ? err_set(e, errno, "fork: %s", strerror(errno)) : 0;
    close(pipe_fd[1]);
    close(log_fd);
    if (!rc) {
        wait_for(pid);
        rc = report_read(pipe_fd[0], log, domid, e);
    }
    close(pipe_fd[0]);
    return rc;
}

int launch_child(const struct launch *l, int *console_fd, pid_t *pid, unsigned *domid,
                 struct err *e)
{
    int pipe_fd[2], pair[2] = { -1, -1 }, rc = 0;
    pid_t parent = getpid();

    if (pipe2(pipe_fd, O_CLOEXEC))
        return err_set(e, errno, "pipe: %s", strerror(errno));
    if (console_fd
        && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
        rc = err_set(e, errno, "socketpair: %s", strerror(errno));
        close(pipe_fd[0]);
        close(pipe_fd[1]);
        return rc;
    }
    fflush(NULL);
    *pid = fork();
    if (*pid == 0) {
        /* the terminal's signals are for the caller, which passes them on */
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(GUEST_EXIT_NOT_STARTED);
        child_run(l, -1, pipe_fd[1], pair[1]);
    }
    if (*pid < 0)
        rc = err_set(e, errno, "fork: %s", strerror(errno));
    close(pipe_fd[1]);
    if (pair[1] >= 0)
        close(pair[1]);
    if (!rc) {
        rc = report_read(pipe_fd[0], NULL, domid, e);
        if (rc)
            wait_for(*pid);
    }
    close(pipe_fd[0]);
    if (rc && pair[0] >= 0)
        close(pair[0]);
    else if (console_fd)
        *console_fd = pair[0];
    return rc;
}

int launch_wait(pid_t pid)
{
    int status = wait_for(pid);

    if (status >= 0 && WIFEXITED(status))
        return WEXITSTATUS(status);
    if (status >= 0)
        log_error("the guest's process was ended by signal %d", WTERMSIG(status));
    return GUEST_EXIT_HOST;
}
