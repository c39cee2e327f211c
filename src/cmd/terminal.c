/* SPDX-License-Identifier: MIT */
/* One poll() over three descriptors: standard input, the console's socket, the
 * signals.  Input that the console does not take yet waits in a fixed buffer; a
 * pipe is then not read, but a terminal is, so that the escape always works, and
 * what does not fit is dropped. */
#include "cmd/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

struct terminal {
    int fd;
    bool tty;
    bool input_open, over, output_failed;
    size_t nr_waiting;
    char waiting[4096];
    bool (*event)(void *arg, enum terminal_event what);
    void *arg;
};

static void output(struct terminal *t)
{
    char data[4096];
    ssize_t n = read(t->fd, data, sizeof(data));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        t->over = true;
        return;
    }
    for (ssize_t done = 0; done < n; ) {
        ssize_t w = write(STDOUT_FILENO, data + done, (size_t)(n - done));

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0 && errno == EAGAIN) {     /* someone made the terminal non-blocking */
            struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };

            poll(&p, 1, -1);
            continue;
        }
        if (w < 0) {
            t->over = t->output_failed = true;
            return;
        }
        done += w;
    }
}

static void send_waiting(struct terminal *t)
{
    ssize_t n = write(t->fd, t->waiting, t->nr_waiting);

    if (n <= 0)
        return;     /* a closed console shows when it is read */
    t->nr_waiting -= (size_t)n;
    memmove(t->waiting, t->waiting + n, t->nr_waiting);
}

static void input(struct terminal *t)
{
    char data[1024];
    size_t room = sizeof(t->waiting) - t->nr_waiting;
    ssize_t n = read(STDIN_FILENO, data, t->tty ? sizeof(data) : min_of(room, sizeof(data)));
    size_t len;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        t->input_open = false;
        return;
    }
    len = (size_t)n;
    for (size_t from = 0; from < len && !t->over; ) {
        char *escape = memchr(data + from, TERMINAL_ESCAPE, len - from);
        size_t part = escape ? (size_t)(escape - data) - from : len - from;
        size_t take = min_of(part, sizeof(t->waiting) - t->nr_waiting);

        memcpy(t->waiting + t->nr_waiting, data + from, take);
        t->nr_waiting += take;
        if (escape && !t->event(t->arg, TERMINAL_ESCAPED))
            t->over = true;
        from += part + (escape ? 1 : 0);
    }
    if (t->nr_waiting)
        send_waiting(t);
}

static void signals(struct terminal *t, int signal_fd)
{
    struct signalfd_siginfo si;

    if (read(signal_fd, &si, sizeof(si)) == sizeof(si)
        && !t->event(t->arg, TERMINAL_SIGNALLED))
        t->over = true;
}

static void copy(struct terminal *t, int signal_fd)
{
    while (!t->over) {
        bool full = t->nr_waiting == sizeof(t->waiting);
        struct pollfd p[] = {
            { .fd = t->input_open && (t->tty || !full) ? STDIN_FILENO : -1, .events = POLLIN },
            { .fd = t->fd, .events = (short)(POLLIN | (t->nr_waiting ? POLLOUT : 0)) },
            { .fd = signal_fd, .events = POLLIN },
        };

        if (poll(p, array_size(p), -1) < 0 && errno != EINTR)
            return;
        if (p[2].revents)
            signals(t, signal_fd);
        if (p[1].revents & POLLOUT)
            send_waiting(t);
        if (p[1].revents & (POLLIN | POLLHUP | POLLERR))
            output(t);
        if (p[0].revents && !t->over)
            input(t);
    }
}

/* Raw but for output processing, which the guest's "\r\n" survives and the
 * messages of other processes on this terminal need. */
static void raw(struct termios *t)
{
    cfmakeraw(t);
    t->c_oflag |= OPOST | ONLCR;
}

bool terminal_run(int fd, const char *announce,
                  bool (*event)(void *arg, enum terminal_event what), void *arg)
{
    struct terminal t = { .fd = fd, .input_open = true, .event = event, .arg = arg };
    struct termios before, during;
    struct sigaction ignore = { .sa_handler = SIG_IGN }, old_pipe;
    sigset_t set, old_set;
    int signal_fd, flags = fcntl(fd, F_GETFL);

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &old_set);
    sigaction(SIGPIPE, &ignore, &old_pipe);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    t.tty = isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &before);
    if (t.tty && announce)
        fprintf(stderr, "%s\n", announce);
    if (t.tty) {
        during = before;
        raw(&during);
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &during);
    }
    if (signal_fd >= 0)
        copy(&t, signal_fd);
    if (t.tty)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    if (signal_fd >= 0)
        close(signal_fd);
    sigaction(SIGPIPE, &old_pipe, NULL);
    sigprocmask(SIG_SETMASK, &old_set, NULL);
    return !t.output_failed;
}
