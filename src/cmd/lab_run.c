/* SPDX-License-Identifier: MIT */
/* One poll loop.  What flows where:
 *
 *   standard input  -> in  -> data port
 *   data port       -> up  -> standard output or standard error
 *   control port    -> beats;     closed outputs -> control port
 *   console, QEMU's messages      -> tails, kept for a report
 *
 * Each way has one buffer, and its source is read only while that is empty: a
 * slow reader holds back COMMAND, not this loop.  Our standard streams may be
 * shared with other processes, so they are not made non-blocking: they are
 * written only when poll() says so and then at most PIPE_BUF bytes, which a
 * ready pipe takes without blocking.  poll() and not the event loop of base/,
 * because standard input may be a plain file, which epoll refuses.
 *
 * Silence is counted in ticks of the loop, none worth more than TICK_MAX_NS: if
 * the machine or this process was suspended, that is no evidence against L1. */
#include "cmd/lab_run.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "cmd/lab_wire.h"

#define NS_PER_S UINT64_C(1000000000)
#define TICK_MS 1000
#define TICK_MAX_NS (2 * NS_PER_S)

struct buffer {
    uint8_t data[sizeof(struct lab_frame) + LAB_FRAME_MAX_BYTES];
    size_t start, end;              /* data[start..end) waits */
};

struct attempt {
    struct lab_qemu qemu;
    struct lab_result *result;
    struct lab_evidence evidence;
    bool show_console;
    bool ready;                     /* COMMAND is about to start */
    bool qemu_gone;                 /* but what it sent before may still wait */
    bool input_closed;              /* no more is read from standard input */
    bool output_closed[3];          /* by file descriptor */
    struct buffer in;               /* a frame towards the data port */
    struct buffer up;               /* a frame, perhaps incomplete, from there */
    struct buffer beats;            /* the same from the control port */
    int out_fd;                     /* where the payload in up goes; -1: not yet known */
    uint64_t last_tick_ns;
    uint64_t cpu_at_beat_ns;        /* QEMU's processor time at the last beat */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* ---- tails ---- */

static int tail_init(struct lab_tail *t, size_t room_bytes)
{
    t->text = calloc(1, room_bytes + 1);
    t->room_bytes = room_bytes;
    t->used_bytes = 0;
    return t->text ? 0 : -ENOMEM;
}

static void tail_append(struct lab_tail *t, const char *text, size_t n)
{
    size_t drop;

    if (n > t->room_bytes) {
        text += n - t->room_bytes;
        n = t->room_bytes;
    }
    drop = t->used_bytes + n > t->room_bytes ? t->used_bytes + n - t->room_bytes : 0;
    memmove(t->text, t->text + drop, t->used_bytes - drop);
    t->used_bytes -= drop;
    memcpy(t->text + t->used_bytes, text, n);
    t->used_bytes += n;
    t->text[t->used_bytes] = '\0';
}

int lab_result_init(struct lab_result *r, struct err *err)
{
    memset(r, 0, sizeof(*r));
    if (tail_init(&r->console, LAB_CONSOLE_KEPT_BYTES) < 0 ||
        tail_init(&r->messages, LAB_MESSAGES_KEPT_BYTES) < 0 ||
        tail_init(&r->reset_log, LAB_CONSOLE_KEPT_BYTES) < 0) {
        lab_result_free(r);
        return err_set(err, ENOMEM, "%s", strerror(ENOMEM));
    }
    return 0;
}

void lab_result_free(struct lab_result *r)
{
    free(r->console.text);
    free(r->messages.text);
    free(r->reset_log.text);
    memset(r, 0, sizeof(*r));
}

/* Reads a non-blocking fd, or a file, into t; closes it at its end. */
static void tail_take(struct lab_tail *t, int *fd, bool show)
{
    char chunk[4096];
    ssize_t n;

    while (*fd >= 0 && (n = read(*fd, chunk, sizeof(chunk))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return;
        tail_append(t, chunk, n);
        if (show && write(STDERR_FILENO, chunk, n) < 0)
            show = false;
    }
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- input ---- */

static void in_flush(struct attempt *a)
{
    struct buffer *b = &a->in;

    while (b->start < b->end) {
        ssize_t n = write(a->qemu.data_fd, b->data + b->start, b->end - b->start);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return;         /* full, or QEMU is gone, which its pid_fd tells */
        b->start += n;
    }
    b->start = b->end = 0;
}

static void in_take(struct attempt *a)
{
    struct lab_frame f = { .type = LAB_FRAME_INPUT };
    struct buffer *b = &a->in;
    ssize_t n = read(STDIN_FILENO, b->data + sizeof(f), LAB_FRAME_MAX_BYTES);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        /* a standard input that cannot be read is an empty one */
        a->input_closed = true;
        n = 0;
    }
    a->result->input_taken |= n > 0;
    f.payload_bytes = n;
    memcpy(b->data, &f, sizeof(f));
    b->start = 0;
    b->end = sizeof(f) + n;
    in_flush(a);
}

/* ---- output ---- */

/* The reader of our output fd is gone: so shall be the reader in the lab. */
static void output_close(struct attempt *a, int fd)
{
    struct {
        struct lab_frame head;
        uint8_t fd;
    } __attribute__((packed)) f = { { LAB_FRAME_CLOSED, 1 }, fd };

    if (a->output_closed[fd])
        return;
    a->output_closed[fd] = true;
    /* The port is all but empty: only this and its twin are ever sent on it.  If
     * QEMU is gone, its pid_fd tells. */
    if (write(a->qemu.control_fd, &f, sizeof(f)) < 0)
        return;
}

/* Writes part of the payload in up to where it belongs, which poll() has found
 * ready. */
static void out_flush(struct attempt *a)
{
    struct buffer *b = &a->up;

    if (!a->output_closed[a->out_fd]) {
        size_t want = min_of(b->end - b->start, (size_t)PIPE_BUF);
        ssize_t n = write(a->out_fd, b->data + b->start, want);

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (n < 0)
            output_close(a, a->out_fd);
        b->start += max_of(n, 0);
        a->result->output_passed |= n > 0;
    }
    if (a->output_closed[a->out_fd])
        b->start = b->end;
    if (b->start == b->end) {
        b->start = b->end = 0;
        a->out_fd = -1;
    }
}

/* Fills b up to one whole frame; true when there is one. */
static bool frame_take(struct attempt *a, struct buffer *b, int fd, struct lab_frame *f)
{
    for (;;) {
        size_t want = sizeof(*f);
        ssize_t n;

        if (b->end >= sizeof(*f)) {
            memcpy(f, b->data, sizeof(*f));
            if (f->payload_bytes > LAB_FRAME_MAX_BYTES) {
                a->evidence.garbled = true;
                return false;
            }
            want += f->payload_bytes;
            if (b->end == want)
                return true;
        }
        n = read(fd, b->data + b->end, want - b->end);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        b->end += n;
    }
}

/* One frame from the data port.  Output stays in up until out_flush() is done
 * with it. */
static bool up_take(struct attempt *a)
{
    struct buffer *b = &a->up;
    struct lab_result *r = a->result;
    struct lab_frame f;
    struct lab_end end;

    if (!frame_take(a, b, a->qemu.data_fd, &f))
        return false;
    b->start = sizeof(f);
    switch (f.type) {
    case LAB_FRAME_OUTPUT:
    case LAB_FRAME_ERRORS:
        if (f.payload_bytes == 0)
            break;
        a->out_fd = f.type == LAB_FRAME_OUTPUT ? STDOUT_FILENO : STDERR_FILENO;
        return true;
    case LAB_FRAME_READY:
        a->ready = true;
        break;
    case LAB_FRAME_TROUBLE:
        memcpy(r->trouble, b->data + b->start,
               min_of((size_t)f.payload_bytes, sizeof(r->trouble) - 1));
        a->evidence.trouble_seen = true;
        break;
    case LAB_FRAME_END:
        if (f.payload_bytes == sizeof(end)) {
            memcpy(&end, b->data + b->start, sizeof(end));
            r->exit_status = end.exit_status & 0xff;
            a->evidence.end_seen = true;
            break;
        }
        /* fall through */
    default:
        a->evidence.garbled = true;
    }
    b->start = b->end = 0;
    return true;
}

/* ---- evidence ---- */

static void beats_take(struct attempt *a)
{
    struct lab_qemu_sample s;
    struct lab_frame f;
    bool beat = false;

    while (frame_take(a, &a->beats, a->qemu.control_fd, &f)) {
        a->beats.start = a->beats.end = 0;
        if (f.type == LAB_FRAME_BEAT)
            beat = true;
        else
            a->evidence.garbled = true;
    }
    if (!beat)
        return;
    a->evidence.beat_seen = true;
    a->evidence.since_beat_ns = 0;
    a->evidence.qemu_cpu_ns = 0;
    a->evidence.qemu_wanted_ns = 0;
    if (lab_qemu_sample(&a->qemu, &s) == 0)
        a->cpu_at_beat_ns = s.cpu_ns;
}

/* At least every TICK_MS. */
static void tick(struct attempt *a)
{
    struct lab_evidence *e = &a->evidence;
    uint64_t now = now_ns(), passed = now - a->last_tick_ns;
    struct lab_qemu_sample s;

    if (passed < TICK_MS * (NS_PER_S / 1000))
        return;
    a->last_tick_ns = now;
    passed = min_of(passed, TICK_MAX_NS);
    if (lab_qemu_sample(&a->qemu, &s) < 0 || s.held)
        return;
    e->since_beat_ns += passed;
    e->qemu_cpu_ns = s.cpu_ns - a->cpu_at_beat_ns;
    if (s.wants_cpu)
        e->qemu_wanted_ns += passed;
}

static void signal_take(struct attempt *a, int signal_fd)
{
    struct signalfd_siginfo info;

    if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    a->result->signal = info.ssi_signo;
    a->evidence.stopped_by_us = true;
}

/* ---- the loop ---- */

static void attempt_run(struct attempt *a, int signal_fd)
{
    enum { P_SIGNAL, P_QEMU, P_DATA, P_CONTROL, P_CONSOLE, P_MESSAGES, P_STDIN, P_OUT,
           NR_POLLED };
    struct lab_result *r = a->result;

    while (lab_fault_judge(&a->evidence) == LAB_RUNNING) {
        struct pollfd p[NR_POLLED];
        bool in_waits = a->in.start < a->in.end;
        bool take_input = a->ready && !in_waits && !a->input_closed;

        p[P_SIGNAL] = (struct pollfd){ signal_fd, POLLIN, 0 };
        p[P_QEMU] = (struct pollfd){ a->qemu.pid_fd, POLLIN, 0 };
        p[P_DATA] = (struct pollfd){ a->qemu.data_fd, 0, 0 };
        if (a->out_fd < 0)
            p[P_DATA].events |= POLLIN;
        if (in_waits)
            p[P_DATA].events |= POLLOUT;
        p[P_CONTROL] = (struct pollfd){ a->qemu.control_fd, POLLIN, 0 };
        p[P_CONSOLE] = (struct pollfd){ a->qemu.console_fd, POLLIN, 0 };
        p[P_MESSAGES] = (struct pollfd){ a->qemu.messages_fd, POLLIN, 0 };
        p[P_STDIN] = (struct pollfd){ take_input ? STDIN_FILENO : -1, POLLIN, 0 };
        p[P_OUT] = (struct pollfd){ a->out_fd, POLLOUT, 0 };
        /* Ends that hang up are ready for ever: while the last output waits for
         * its reader, only that is waited for. */
        if (a->qemu_gone)
            p[P_QEMU].fd = p[P_DATA].fd = p[P_CONTROL].fd = p[P_CONSOLE].fd =
                p[P_MESSAGES].fd = p[P_STDIN].fd = -1;
        if (poll(p, NR_POLLED, TICK_MS) < 0)
            continue;

        if (p[P_SIGNAL].revents)
            signal_take(a, signal_fd);
        if (p[P_CONTROL].revents)
            beats_take(a);
        if (p[P_CONSOLE].revents)
            tail_take(&r->console, &a->qemu.console_fd, a->show_console);
        if (p[P_MESSAGES].revents)
            tail_take(&r->messages, &a->qemu.messages_fd, false);
        if (p[P_DATA].revents & POLLOUT)
            in_flush(a);
        if (p[P_STDIN].revents)
            in_take(a);
        if (p[P_OUT].revents)
            out_flush(a);
        /* noticed before the port is read, so that what QEMU sent before it went is
         * read to its end, and counts */
        if (p[P_QEMU].revents)
            a->qemu_gone = true;
        while (a->out_fd < 0 && !a->evidence.end_seen && up_take(a))
            continue;
        if (a->qemu_gone && a->out_fd < 0)
            a->evidence.qemu_exited = true;
        tick(a);
    }
}

/* The last words: what QEMU leaves in its pipes and its log. */
static void last_words_take(struct attempt *a)
{
    struct lab_result *r = a->result;

    tail_take(&r->console, &a->qemu.console_fd, a->show_console);
    tail_take(&r->messages, &a->qemu.messages_fd, false);
    if (lseek(a->qemu.reset_log_fd, 0, SEEK_SET) == 0)
        tail_take(&r->reset_log, &a->qemu.reset_log_fd, false);
    a->evidence.triple_fault = strstr(r->reset_log.text, "Triple fault") != NULL;
    a->evidence.panic = strstr(r->console.text, LAB_PANIC_MARK) != NULL;
}

/* QEMU's first line, or the last of L1, for a lab that cannot work. */
static void trouble_find(struct lab_result *r)
{
    size_t n = strcspn(r->messages.text, "\n");

    if (r->trouble[0] == '\0' && n > 0) {
        n = min_of(n, sizeof(r->trouble) - 1);
        memcpy(r->trouble, r->messages.text, n);
        r->trouble[n] = '\0';
    }
}

int lab_run(const struct lab_machine *m, const struct lab_kernel *k,
            const struct lab_cpio *initramfs, int signal_fd, bool show_console,
            struct lab_result *r, struct err *err)
{
    struct attempt *a = calloc(1, sizeof(*a));
    int ret;

    if (!a)
        return err_set(err, ENOMEM, "%s", strerror(ENOMEM));
    a->result = r;
    a->show_console = show_console;
    a->out_fd = -1;
    a->last_tick_ns = now_ns();
    ret = lab_qemu_start(&a->qemu, m, k, initramfs, err);
    if (ret < 0) {
        free(a);
        return ret;
    }
    attempt_run(a, signal_fd);
    a->evidence.qemu_wait_status = lab_qemu_end(&a->qemu);
    last_words_take(a);
    r->verdict = lab_fault_judge(&a->evidence);
    if (r->verdict == LAB_BROKEN)
        trouble_find(r);
    lab_qemu_close(&a->qemu);
    free(a);
    return 0;
}
