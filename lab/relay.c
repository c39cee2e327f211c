/* SPDX-License-Identifier: MIT */
/* One poll loop over the ports, COMMAND's pipes and SIGCHLD.  The rules:
 *
 *   - A pipe of COMMAND is read only while the buffer towards the host is empty,
 *     and the data port only while the buffer towards COMMAND is empty.  So each
 *     side is held back by the other, and memory is bounded.
 *   - A closed output (the host's reader is gone) closes our end of the pipe, so
 *     that COMMAND gets SIGPIPE as it would have on the host.
 *   - When COMMAND has ended, what its pipes still hold is carried, and no more:
 *     reading stops when a pipe is empty, whoever still has its other end open.
 *
 * The ports of virtio take a write whole or in part, and never block here. */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static bool buffer_is_empty(const struct relay_buffer *b)
{
    return b->start == b->end;
}

void relay_init(struct relay *r)
{
    sigset_t set;

    memset(r, 0, sizeof(*r));
    r->data_fd = r->control_fd = -1;
    r->stdin_fd = r->stdout_fd = r->stderr_fd = -1;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    r->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void relay_attach(struct relay *r, int stdin_fd, int stdout_fd, int stderr_fd)
{
    r->stdin_fd = stdin_fd;
    r->stdout_fd = stdout_fd;
    r->stderr_fd = stderr_fd;
    fcntl(stdin_fd, F_SETFL, O_NONBLOCK);
    fcntl(stdout_fd, F_SETFL, O_NONBLOCK);
    fcntl(stderr_fd, F_SETFL, O_NONBLOCK);
}

/* ---- to the host ---- */

static void up_flush(struct relay *r)
{
    struct relay_buffer *b = &r->up;

    while (!buffer_is_empty(b)) {
        ssize_t n = write(r->data_fd, b->data + b->start, b->end - b->start);

        if (n < 0)
            return;
        b->start += n;
    }
    b->start = b->end = 0;
}

static void up_flush_all(struct relay *r)
{
    for (;;) {
        struct pollfd p = { .fd = r->data_fd, .events = POLLOUT };

        up_flush(r);
        if (buffer_is_empty(&r->up))
            return;
        poll(&p, 1, -1);
    }
}

void relay_send(struct relay *r, enum lab_frame_type type, const void *payload,
                size_t payload_bytes)
{
    const struct lab_frame f = { .type = type, .payload_bytes = payload_bytes };

    up_flush_all(r);
    memcpy(r->up.data, &f, sizeof(f));
    if (payload_bytes)
        memcpy(r->up.data + sizeof(f), payload, payload_bytes);
    r->up.start = 0;
    r->up.end = sizeof(f) + payload_bytes;
    up_flush(r);
}

void relay_send_last(struct relay *r, enum lab_frame_type type, const void *payload,
                     size_t payload_bytes)
{
    relay_send(r, type, payload, payload_bytes);
    up_flush_all(r);
}

void relay_send_end(struct relay *r)
{
    const struct lab_end end = { .exit_status = r->exit_status };

    relay_send_last(r, LAB_FRAME_END, &end, sizeof(end));
}

/* Takes what one pipe of COMMAND holds, at most a frame.  False when it held
 * nothing for now or was closed. */
static bool output_take(struct relay *r, int *fd, enum lab_frame_type type)
{
    struct relay_buffer *b = &r->up;
    struct lab_frame f = { .type = type };
    ssize_t n = read(*fd, b->data + sizeof(f), LAB_FRAME_MAX_BYTES);

    if (n < 0)
        return false;
    if (n == 0) {
        fd_close(fd);
        return false;
    }
    f.payload_bytes = n;
    memcpy(b->data, &f, sizeof(f));
    b->start = 0;
    b->end = sizeof(f) + n;
    up_flush(r);
    return true;
}

static void output_drain(struct relay *r, int *fd, enum lab_frame_type type)
{
    up_flush_all(r);
    while (*fd >= 0 && output_take(r, fd, type))
        up_flush_all(r);
    fd_close(fd);
}

/* ---- from the host ---- */

/* Fills b with what the port holds; a complete frame at its start is returned,
 * NULL while there is none. */
static const struct lab_frame *frame_peek(struct relay_buffer *b, int fd)
{
    struct lab_frame *f = (struct lab_frame *)b->data;
    size_t want = sizeof(*f);

    for (;;) {
        ssize_t n;

        if (b->end >= sizeof(*f))
            want = sizeof(*f) + min_of(f->payload_bytes, LAB_FRAME_MAX_BYTES);
        if (b->end >= want && b->end >= sizeof(*f))
            return f;
        n = read(fd, b->data + b->end, want - b->end);
        if (n <= 0)
            return NULL;
        b->end += n;
    }
}

/* The payload of the frame at the start of "down" goes to COMMAND.  down.start
 * counts from the start of the frame. */
static void input_flush(struct relay *r)
{
    struct relay_buffer *b = &r->down;

    while (!buffer_is_empty(b)) {
        ssize_t n;

        if (r->stdin_fd < 0) {
            b->start = b->end;          /* nobody reads it: dropped */
            break;
        }
        n = write(r->stdin_fd, b->data + b->start, b->end - b->start);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            fd_close(&r->stdin_fd);
            continue;
        }
        b->start += n;
    }
    b->start = b->end = 0;
}

static bool input_waits(const struct relay *r)
{
    return r->down.start > 0;
}

static void input_take(struct relay *r)
{
    while (!input_waits(r)) {
        const struct lab_frame *f = frame_peek(&r->down, r->data_fd);

        if (!f)
            return;
        if (f->type == LAB_FRAME_INPUT && f->payload_bytes == 0) {
            r->input_at_end = true;
            fd_close(&r->stdin_fd);
        }
        r->down.start = sizeof(*f);
        input_flush(r);
    }
}

static void control_take(struct relay *r)
{
    const struct lab_frame *f;

    while ((f = frame_peek(&r->control, r->control_fd))) {
        if (f->type == LAB_FRAME_CLOSED && f->payload_bytes == 1) {
            if (r->control.data[sizeof(*f)] == STDOUT_FILENO)
                fd_close(&r->stdout_fd);
            else
                fd_close(&r->stderr_fd);
        }
        r->control.start = r->control.end = 0;
    }
}

/* ---- COMMAND ---- */

static void children_reap(struct relay *r)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(r->signal_fd, &info, sizeof(info)) > 0)
        continue;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != r->command_pid)
            continue;
        r->command_ended = true;
        r->exit_status = WEXITSTATUS(status);
        if (WIFSIGNALED(status))
            r->exit_status = 128 + WTERMSIG(status);
    }
}

void relay_run(struct relay *r)
{
    enum { P_SIGNAL, P_DATA, P_CONTROL, P_STDIN, P_STDOUT, P_STDERR, NR_POLLED };

    while (!r->command_ended) {
        struct pollfd p[NR_POLLED];
        bool up_empty = buffer_is_empty(&r->up);
        bool in_waits = input_waits(r);

        p[P_SIGNAL] = (struct pollfd){ r->signal_fd, POLLIN, 0 };
        p[P_DATA] = (struct pollfd){ r->data_fd, 0, 0 };
        if (!in_waits && !r->input_at_end)
            p[P_DATA].events |= POLLIN;
        if (!up_empty)
            p[P_DATA].events |= POLLOUT;
        p[P_CONTROL] = (struct pollfd){ r->control_fd, POLLIN, 0 };
        p[P_STDIN] = (struct pollfd){ in_waits ? r->stdin_fd : -1, POLLOUT, 0 };
        p[P_STDOUT] = (struct pollfd){ up_empty ? r->stdout_fd : -1, POLLIN, 0 };
        p[P_STDERR] = (struct pollfd){ up_empty ? r->stderr_fd : -1, POLLIN, 0 };
        if (poll(p, NR_POLLED, -1) < 0)
            continue;

        if (p[P_SIGNAL].revents)
            children_reap(r);
        if (p[P_CONTROL].revents & POLLIN)
            control_take(r);
        if (p[P_DATA].revents & POLLOUT)
            up_flush(r);
        if (p[P_STDIN].revents)
            input_flush(r);
        if (p[P_DATA].revents & POLLIN)
            input_take(r);
        if (p[P_STDOUT].revents && r->stdout_fd >= 0 && buffer_is_empty(&r->up))
            output_take(r, &r->stdout_fd, LAB_FRAME_OUTPUT);
        if (p[P_STDERR].revents && r->stderr_fd >= 0 && buffer_is_empty(&r->up))
            output_take(r, &r->stderr_fd, LAB_FRAME_ERRORS);
    }
    output_drain(r, &r->stdout_fd, LAB_FRAME_OUTPUT);
    output_drain(r, &r->stderr_fd, LAB_FRAME_ERRORS);
    up_flush_all(r);
}
