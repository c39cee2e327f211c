/* SPDX-License-Identifier: MIT */
/* The ring is xen/io/console.h's: free-running 32-bit indices, the guest owns
 * out_prod and in_cons, we own out_cons and in_prod.  Ours are kept here and
 * only published there, so that a guest that scribbles on them changes nothing.
 * The guest's are read once per step and judged: a distance greater than the
 * ring's size can come from no correct guest, and stops the ring for good
 * (`broken`): output is no longer read, input is thrown away, clients stay.
 *
 * Input waits in `input` while the guest's in-ring is full.  While that buffer
 * is full too, no client is read (client_watch()), so a paste is held up in the
 * client's socket instead of in our memory.
 *
 * A client's output waits in its own buffer; what does not fit is lost to it. */
#include "dev/xen_console.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <xen/io/console.h>

#include "base/atomic.h"
#include "base/log.h"

#define HISTORY_BYTES     (8 * KIB)
#define INPUT_BYTES       (4 * KIB)
#define CLIENT_OUT_BYTES  (16 * KIB)
/* Ring-fulls taken per event before the loop's other users get their turn. */
#define DRAIN_ROUNDS_MAX  16

struct client {
    struct client *next;
    struct xen_console *console;
    int in_fd, out_fd;
    struct loop_fd *in_watch;       /* NULL once input has ended */
    struct loop_fd *out_watch;      /* == in_watch when one descriptor serves both */
    bool in_ended;
    void (*closed)(void *arg);
    void *arg;
    size_t out_bytes;
    char out[CLIENT_OUT_BYTES];
};

struct xen_console {
    struct loop *loop;
    struct xencons_interface *ring;
    struct xen_hostport *port;
    struct loop_fd *kick_watch;
    int log_fd;
    bool broken;
    uint32_t out_cons, in_prod;     /* our indices */
    uint64_t log_lost_bytes;        /* since the last write that worked */
    struct client *clients;
    unsigned nr_clients;
    size_t input_bytes;
    char input[INPUT_BYTES];
    uint64_t history_bytes;         /* ever written; the last HISTORY_BYTES are kept */
    char history[HISTORY_BYTES];
};

/* ---- log ---- */

/* Bytes of data that reached the file. */
static size_t log_put(int fd, const char *data, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = write(fd, data + done, len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

/* A full disk costs log bytes, never the guest: they are counted, and the log
 * says how many are missing as soon as it can be written again. */
static void log_output(struct xen_console *c, const char *data, size_t len)
{
    if (c->log_fd < 0)
        return;
    if (c->log_lost_bytes) {
        char note[80];
        int n = snprintf(note, sizeof(note), "\n[%llu bytes of console output lost]\n",
                         (unsigned long long)c->log_lost_bytes);

        if (log_put(c->log_fd, note, (size_t)n) == (size_t)n)
            c->log_lost_bytes = 0;
    }
    if (c->log_lost_bytes)
        c->log_lost_bytes += len;
    else
        c->log_lost_bytes = len - log_put(c->log_fd, data, len);
}

/* ---- clients ---- */

/* Tells the loop what this client is good for now. */
static void client_watch(struct client *cl)
{
    uint32_t in = cl->console->input_bytes < INPUT_BYTES && !cl->in_ended ? EPOLLIN : 0;
    uint32_t out = cl->out_bytes ? EPOLLOUT : 0;

    if (cl->in_watch == cl->out_watch) {
        loop_fd_modify(cl->out_watch, in | out);
        return;
    }
    if (cl->in_watch)
        loop_fd_modify(cl->in_watch, in);
    loop_fd_modify(cl->out_watch, out);
}

static void client_close(struct client *cl)
{
    struct xen_console *c = cl->console;
    struct client **at = &c->clients;

    while (*at != cl)
        at = &(*at)->next;
    *at = cl->next;
    c->nr_clients--;
    if (cl->in_watch != cl->out_watch)
        loop_fd_remove(cl->in_watch);
    loop_fd_remove(cl->out_watch);
    if (cl->in_fd >= 0 && cl->in_fd != cl->out_fd)
        close(cl->in_fd);
    close(cl->out_fd);
    if (cl->closed)
        cl->closed(cl->arg);
    free(cl);
}

/* Writes what waits; false when the client has gone. */
static bool client_flush(struct client *cl)
{
    size_t done = 0;

    while (done < cl->out_bytes) {
        ssize_t n = write(cl->out_fd, cl->out + done, cl->out_bytes - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    cl->out_bytes -= done;
    memmove(cl->out, cl->out + done, cl->out_bytes);
    return true;
}

static void client_queue(struct client *cl, const char *data, size_t len)
{
    size_t n = min_of(len, sizeof(cl->out) - cl->out_bytes);

    memcpy(cl->out + cl->out_bytes, data, n);
    cl->out_bytes += n;
}

static void output(struct xen_console *c, const char *data, size_t len)
{
    struct client *next;

    log_output(c, data, len);
    for (size_t done = 0; done < len; ) {
        size_t at = c->history_bytes % HISTORY_BYTES;
        size_t n = min_of(len - done, HISTORY_BYTES - at);

        memcpy(c->history + at, data + done, n);
        c->history_bytes += n;
        done += n;
    }
    for (struct client *cl = c->clients; cl; cl = next) {
        next = cl->next;
        client_queue(cl, data, len);
        if (client_flush(cl))
            client_watch(cl);
        else
            client_close(cl);
    }
}

/* ---- ring ---- */

static void ring_break(struct xen_console *c, const char *which, uint32_t prod, uint32_t cons)
{
    c->broken = true;
    c->input_bytes = 0;
    log_warning("console: the guest's %s ring is inconsistent (producer %u, consumer %u); "
                "it is no longer served", which, prod, cons);
}

/* One look at the out-ring: bytes taken, 0 when empty or broken. */
static uint32_t ring_read(struct xen_console *c)
{
    char data[sizeof(c->ring->out)];
    /* pairs with the guest's write barrier between the data and out_prod */
    uint32_t prod = load_acquire(&c->ring->out_prod);
    uint32_t len = prod - c->out_cons;
    uint32_t at = MASK_XENCONS_IDX(c->out_cons, c->ring->out);
    uint32_t head;

    if (c->broken || !len)
        return 0;
    if (len > sizeof(data)) {
        ring_break(c, "output", prod, c->out_cons);
        return 0;
    }
    head = min_of(len, (uint32_t)sizeof(data) - at);
    memcpy(data, c->ring->out + at, head);
    memcpy(data + head, c->ring->out, len - head);
    c->out_cons = prod;
    /* pairs with the guest's full barrier between reading out_cons and reusing
     * the space */
    store_release(&c->ring->out_cons, prod);
    output(c, data, len);
    return len;
}

/* Moves waiting input into the in-ring: true when some went. */
static bool ring_feed(struct xen_console *c)
{
    /* pairs with the guest's barrier between taking the data and in_cons */
    uint32_t cons = load_acquire(&c->ring->in_cons);
    uint32_t used = c->in_prod - cons;
    uint32_t len;

    if (c->broken) {
        c->input_bytes = 0;
        return false;
    }
    if (used > sizeof(c->ring->in)) {
        ring_break(c, "input", c->in_prod, cons);
        return false;
    }
    len = (uint32_t)min_of(c->input_bytes, sizeof(c->ring->in) - used);
    if (!len)
        return false;
    for (uint32_t i = 0; i < len; i++)
        c->ring->in[MASK_XENCONS_IDX(c->in_prod + i, c->ring->in)] = c->input[i];
    c->in_prod += len;
    /* pairs with the guest's read barrier between in_prod and the data */
    store_release(&c->ring->in_prod, c->in_prod);
    c->input_bytes -= len;
    memmove(c->input, c->input + len, c->input_bytes);
    return true;
}

static void input_resume(struct xen_console *c)
{
    for (struct client *cl = c->clients; cl; cl = cl->next)
        client_watch(cl);
}

static void kicked(void *arg, uint32_t events)
{
    struct xen_console *c = arg;
    bool was_full = c->input_bytes == INPUT_BYTES;
    bool progress = false;
    unsigned rounds = 0;
    uint64_t n;

    /* before the ring is read: a send that comes later makes the descriptor
     * readable again */
    if (read(c->port->kick_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
        return;
    while (rounds < DRAIN_ROUNDS_MAX && ring_read(c)) {
        progress = true;
        rounds++;
    }
    if (rounds == DRAIN_ROUNDS_MAX) {
        const uint64_t again = 1;

        if (write(c->port->kick_fd, &again, sizeof(again)) < 0)
            log_warning("console: %s", strerror(errno));
    }
    if (ring_feed(c))
        progress = true;
    if (was_full && c->input_bytes < INPUT_BYTES)
        input_resume(c);
    if (progress)
        xen_hostport_notify(c->port);
}

/* ---- input ---- */

/* Reads the client once; false when it has gone. */
static bool client_read(struct client *cl)
{
    struct xen_console *c = cl->console;
    ssize_t n = read(cl->in_fd, c->input + c->input_bytes, INPUT_BYTES - c->input_bytes);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0) {
        cl->in_ended = true;
        if (cl->in_watch != cl->out_watch) {
            loop_fd_remove(cl->in_watch);
            cl->in_watch = NULL;
            close(cl->in_fd);
            cl->in_fd = -1;
        }
        return true;
    }
    c->input_bytes += (size_t)n;
    if (ring_feed(c))
        xen_hostport_notify(c->port);
    return true;
}

static void client_event(struct client *cl, bool readable, bool writable, bool gone)
{
    struct xen_console *c = cl->console;
    bool alive = true;

    if (readable && c->input_bytes < INPUT_BYTES && !cl->in_ended)
        alive = client_read(cl);
    if (alive && writable)
        alive = client_flush(cl);
    if (!alive || gone)
        client_close(cl);
    input_resume(c);
}

static void in_ready(void *arg, uint32_t events)
{
    struct client *cl = arg;

    /* a hang-up of the input alone reads as its end */
    client_event(cl, events & (EPOLLIN | EPOLLHUP | EPOLLERR), false, false);
}

static void out_ready(void *arg, uint32_t events)
{
    client_event(arg, false, events & EPOLLOUT, events & (EPOLLHUP | EPOLLERR));
}

static void both_ready(void *arg, uint32_t events)
{
    client_event(arg, events & EPOLLIN, events & EPOLLOUT, events & (EPOLLHUP | EPOLLERR));
}

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

int xen_console_attach(struct xen_console *c, int in_fd, int out_fd,
                       void (*closed)(void *arg), void *arg)
{
    struct client *cl;
    bool one = in_fd == out_fd;
    uint64_t first = c->history_bytes - min_of(c->history_bytes, (uint64_t)HISTORY_BYTES);
    int rc;

    if (c->nr_clients == XEN_CONSOLE_CLIENTS_MAX)
        return -EBUSY;
    rc = set_nonblocking(in_fd);
    if (!rc)
        rc = set_nonblocking(out_fd);
    if (rc)
        return rc;
    cl = calloc(1, sizeof(*cl));
    if (!cl)
        return -ENOMEM;
    cl->console = c;
    cl->in_fd = in_fd;
    cl->out_fd = out_fd;
    cl->out_watch = loop_fd_add(c->loop, out_fd, 0, one ? both_ready : out_ready, cl);
    if (cl->out_watch)
        cl->in_watch = one ? cl->out_watch : loop_fd_add(c->loop, in_fd, 0, in_ready, cl);
    if (!cl->in_watch) {
        rc = -errno;
        loop_fd_remove(cl->out_watch);
        free(cl);
        return rc;
    }
    cl->closed = closed;
    cl->arg = arg;
    cl->next = c->clients;
    c->clients = cl;
    c->nr_clients++;
    while (first < c->history_bytes) {
        size_t at = first % HISTORY_BYTES;
        size_t n = min_of(c->history_bytes - first, HISTORY_BYTES - at);

        client_queue(cl, c->history + at, n);
        first += n;
    }
    client_watch(cl);
    return 0;
}

unsigned xen_console_clients_hold(const struct xen_console *c, int fds[XEN_CONSOLE_CLIENTS_MAX])
{
    unsigned n = 0;

    for (const struct client *cl = c->clients; cl; cl = cl->next) {
        fds[n] = fcntl(cl->out_fd, F_DUPFD_CLOEXEC, 0);
        n += fds[n] >= 0;
    }
    return n;
}

/* ---- life ---- */

int xen_console_create(struct loop *loop, void *ring, struct xen_hostport *port,
                       int log_fd, struct xen_console **out)
{
    struct xen_console *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->loop = loop;
    c->ring = ring;
    c->port = port;
    c->log_fd = log_fd;
    c->out_cons = load_relaxed(&c->ring->out_cons);
    c->in_prod = load_relaxed(&c->ring->in_prod);
    c->kick_watch = loop_fd_add(loop, port->kick_fd, EPOLLIN, kicked, c);
    if (!c->kick_watch) {
        int rc = -errno;

        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void xen_console_free(struct xen_console *c)
{
    if (!c)
        return;
    while (c->clients) {
        client_flush(c->clients);   /* what it can still take */
        client_close(c->clients);
    }
    loop_fd_remove(c->kick_watch);
    if (c->log_lost_bytes)
        log_warning("console: %llu bytes of output are missing from the log",
                    (unsigned long long)c->log_lost_bytes);
    free(c);
}

void xen_console_write(struct xen_console *c, const void *data, size_t len)
{
    output(c, data, len);
}

void xen_console_drain(struct xen_console *c)
{
    /* the guest may still run: what it adds while we read is bounded */
    for (unsigned i = 0; i < DRAIN_ROUNDS_MAX && ring_read(c); i++)
        ;
}
