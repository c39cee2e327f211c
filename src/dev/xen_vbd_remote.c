/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd_remote.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/xen_vbd_wire.h"

#define ANSWER_S       10       /* to be begun, or resized */
#define STOP_S         20       /* to answer what is in flight */
#define DEATHS_MAX     32u      /* within DEATHS_NS */
#define DEATHS_NS      60000000000ull
#define DEATHS_AT_ONCE 4u       /* after more of them there is a pause, which doubles ... */
#define PAUSE_MIN_NS   10000000u
#define PAUSE_MAX_NS   250000000u       /* up to this */

enum remote_state { REMOTE_IDLE, REMOTE_RUNNING, REMOTE_DYING, REMOTE_PAUSED, REMOTE_GIVEN_UP };

struct remote_queue {
    struct vbd_queue_params params;
    int record_fd;
    void *record_base;
    struct vbd_record record;
    struct vbd_queue *local;    /* when given up */
};

struct vbd_remote {
    struct vbd_remote_params p;
    enum remote_state state;
    pid_t pid;
    int socket;
    struct loop_fd *socket_watch;
    int keep_fd;                /* blk_handed's other end: closed with the last request */
    struct loop_fd *keep_watch;
    struct loop_timer *pause;
    bool told_how;
    bool silent;                /* it did not answer what it was asked last */
    unsigned nr_deaths;         /* since vbd_remote_start() */
    uint64_t death_ns[DEATHS_MAX];      /* the last ones, nr_deaths % DEATHS_MAX the oldest */
    struct blk_disk *dead;      /* what is given up is served from it */
    struct vbd_wire message;
    unsigned nr_queues;
    struct remote_queue *queue;
};

int vbd_remote_create(const struct vbd_remote_params *p, struct vbd_remote **out, struct err *e)
{
    struct vbd_remote *r = calloc(1, sizeof(*r));

    if (!r)
        return err_set(e, ENOMEM, "out of memory");
    r->p = *p;
    r->socket = r->keep_fd = -1;
    *out = r;
    return 0;
}

void vbd_remote_free(struct vbd_remote *r)
{
    free(r);
}

/* ---- talking ---- */

/* What another process says, for a log that a terminal may show. */
static void text_clean(char *text, size_t size)
{
    text[size - 1] = 0;
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
}

static int answer_wait(struct vbd_remote *r, unsigned seconds, struct err *e)
{
    struct timeval tv = { .tv_sec = seconds };
    int fds[VBD_WIRE_FDS_MAX], rc;
    struct vbd_wire_answer *a = &r->message.answer;
    unsigned nr_fds;

    setsockopt(r->socket, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    rc = vbd_wire_receive(r->socket, &r->message, fds, &nr_fds);
    if (!rc && (nr_fds || r->message.op != VBD_WIRE_ANSWER))
        rc = -EPROTO;
    while (nr_fds)
        close(fds[--nr_fds]);
    r->silent = rc != 0;
    if (rc)
        return err_set(e, -rc, "%s", rc == -EPIPE ? "the process has died" :
                       rc == -EAGAIN ? "the process does not answer" : strerror(-rc));
    text_clean(a->text, sizeof(a->text));
    return a->rc > 0 ? err_set(e, EPROTO, "the process answers nonsense")
           : a->rc ? err_set(e, -a->rc, "%s", a->text) : 0;
}

/* Sends r->message, which becomes the answer. */
static int ask(struct vbd_remote *r, const int *fds, unsigned nr_fds, unsigned seconds,
               struct err *e)
{
    int rc = vbd_wire_send(r->socket, &r->message, fds, nr_fds);

    r->silent = rc != 0;
    return rc ? err_set(e, -rc, "the process cannot be told: %s", strerror(-rc))
              : answer_wait(r, seconds, e);
}

static struct vbd_wire *message(struct vbd_remote *r, enum vbd_wire_op op)
{
    memset(&r->message, 0, sizeof(r->message));
    r->message.op = op;
    return &r->message;
}

static int address(const struct vbd_remote *r, const void *host, uint64_t *out, struct err *e)
{
    gpa_t at = gpa(VBD_WIRE_NONE);

    if (host && guest_mem_find(r->p.grants->mem, host, &at))
        return err_set(e, EFAULT, "what the guest shares lies outside its memory");
    *out = at.v;
    return 0;
}

static int disk_tell(struct vbd_remote *r, int keep_fd, struct err *e)
{
    const struct guest_mem *mem = r->p.grants->mem;
    const struct gnttab_table *t = &r->p.grants->table;
    const struct blk_spec *spec = r->p.spec;
    struct vbd_wire_disk *d = &message(r, VBD_WIRE_DISK)->disk;
    int fds[VBD_WIRE_FDS_MAX], disk_fd = blk_disk_share(r->p.disk), rc;
    unsigned nr = 0;

    *d = (struct vbd_wire_disk){
        .size_bytes = blk_props_size(blk_disk_props(r->p.disk)), .readonly = spec->readonly,
        .shared_write = spec->shared_write, .no_discard = spec->no_discard,
        .no_direct = spec->no_direct, .has_fd = disk_fd >= 0, .nr_regions = mem->nr_regions,
        .grant_frames_max = t->nr_frames_max, .parent = getpid(),
    };
    snprintf(d->name, sizeof(d->name), "%s", r->p.name);
    if (snprintf(d->driver, sizeof(d->driver), "%s", spec->driver) >= (int)sizeof(d->driver) ||
        snprintf(d->filters, sizeof(d->filters), "%s", spec->filters ? spec->filters : "") >=
        (int)sizeof(d->filters))
        return err_set(e, E2BIG, "the filters take more than %zu bytes", sizeof(d->filters));
    rc = address(r, t->frames, &d->grant_frames, e);
    if (!rc)
        rc = address(r, t->status, &d->grant_status, e);
    if (!rc)
        rc = address(r, t->state, &d->grant_state, e);
    if (rc)
        return rc;
    fds[nr++] = keep_fd;
    fds[nr++] = r->p.fault_fd;
    for (unsigned i = 0; i < mem->nr_regions; i++) {
        d->region[i].base = mem->region[i].base.v;
        d->region[i].size_bytes = mem->region[i].size_bytes;
        fds[nr++] = mem->region[i].memfd;
    }
    if (disk_fd >= 0)
        fds[nr++] = disk_fd;
    return ask(r, fds, nr, ANSWER_S, e);
}

static int queue_tell(struct vbd_remote *r, const struct remote_queue *q, struct err *e)
{
    const struct vbd_queue_params *p = &q->params;
    const int fds[] = { p->port->kick_fd, p->port->irq_fd, q->record_fd };
    struct vbd_wire_queue *w = &message(r, VBD_WIRE_QUEUE)->queue;
    int rc = 0;

    snprintf(w->protocol, sizeof(w->protocol), "%s", p->ring.abi->protocol);
    w->nr_pages = p->ring.nr_pages;
    w->persistent = p->ring.persistent;
    w->poll_max_ns = p->poll_max_ns;
    w->nr_wakers = p->port->nr_wakers;
    for (unsigned i = 0; i < p->ring.nr_pages && !rc; i++)
        rc = address(r, p->ring.pages[i], &w->page[i], e);
    if (!rc)
        rc = address(r, p->port->link, &w->link, e);
    if (!rc)
        rc = address(r, p->port->links, &w->links, e);
    if (!rc)
        rc = address(r, p->port->load, &w->load, e);
    if (!rc)
        rc = address(r, p->port->wakers, &w->wakers, e);
    return rc ? rc : ask(r, fds, array_size(fds), ANSWER_S, e);
}

/* ---- a process ---- */

static void socket_ready(void *arg, uint32_t events);
static void keep_ended(void *arg, uint32_t events);

static void changed(struct vbd_remote *r, const char *given_up)
{
    r->p.changed(r->p.arg, r->state == REMOTE_RUNNING ? r->pid : 0, r->nr_deaths, given_up);
}

static void socket_close(struct vbd_remote *r)
{
    loop_fd_remove(r->socket_watch);
    r->socket_watch = NULL;
    if (r->socket >= 0)
        close(r->socket);
    r->socket = -1;
}

/* Returns when nothing of the process is left, nor of what it had the kernel do. */
static void remains_wait(struct vbd_remote *r)
{
    struct pollfd keep = { .fd = r->keep_fd, .events = POLLIN };
    int status = 0;

    loop_fd_remove(r->keep_watch);
    r->keep_watch = NULL;
    while (poll(&keep, 1, -1) < 0 && errno == EINTR)
        ;
    close(r->keep_fd);
    r->keep_fd = -1;
    while (r->pid > 0 && waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
        ;
    /* a system call that it should not make is one of them (SIGSYS) */
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        log_warning("%s: process %d was ended by signal %d (%s)", r->p.name, (int)r->pid,
                    WTERMSIG(status), strsignal(WTERMSIG(status)));
    r->pid = 0;
}

static int sockets_make(struct vbd_remote *r, int *theirs, int *keep_theirs, struct err *e)
{
    int pair[2], keep[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return err_set(e, errno, "socketpair: %s", strerror(errno));
    if (pipe2(keep, O_CLOEXEC)) {
        err_set(e, errno, "pipe: %s", strerror(errno));
        close(pair[0]);
        close(pair[1]);
        return -e->code;
    }
    r->socket = pair[0];
    *theirs = pair[1];
    r->keep_fd = keep[0];
    *keep_theirs = keep[1];
    return 0;
}

static int process_talk(struct vbd_remote *r, int keep_theirs, struct err *e)
{
    int rc = disk_tell(r, keep_theirs, e);

    if (!rc && !r->told_how)
        log_info("%s: served by process %d: %s", r->p.name, (int)r->pid, r->message.answer.text);
    for (unsigned i = 0; i < r->nr_queues && !rc; i++)
        rc = queue_tell(r, &r->queue[i], e);
    if (rc)
        return rc;
    r->told_how = true;
    message(r, VBD_WIRE_SEALED);
    return ask(r, NULL, 0, ANSWER_S, e);
}

/* 0, or -errno with a process that is DYING, or none. */
static int process_begin(struct vbd_remote *r, struct err *e)
{
    int theirs = -1, keep_theirs = -1, rc;

    r->silent = false;
    rc = sockets_make(r, &theirs, &keep_theirs, e);
    if (rc)
        return rc;
    rc = r->p.spawn.spawn(r->p.spawn.arg, theirs, &r->pid);
    if (rc) {
        r->pid = 0;
        err_set(e, -rc, "no process for the disk: %s", strerror(-rc));
    }
    close(theirs);
    if (!rc)
        rc = process_talk(r, keep_theirs, e);
    close(keep_theirs);
    r->state = REMOTE_DYING;
    if (!rc)
        r->socket_watch = loop_fd_add(r->p.loop, r->socket, EPOLLIN, socket_ready, r);
    r->keep_watch = loop_fd_add(r->p.loop, r->keep_fd, EPOLLIN, keep_ended, r);
    if (!rc && (!r->socket_watch || !r->keep_watch))
        rc = err_set(e, errno, "no event descriptor: %s", strerror(errno));
    if (rc) {
        socket_close(r);
        if (r->pid > 0)
            kill(r->pid, SIGKILL);
        return rc;
    }
    r->state = REMOTE_RUNNING;
    return 0;
}

/* ---- giving up ---- */

static int dead_open(struct vbd_remote *r, struct err *e)
{
    return r->dead ? 0 : blk_disk_open(&(struct blk_spec){
        .driver = "null", .filters = "fault:error=EIO",
        .size_bytes = blk_props_size(blk_disk_props(r->p.disk)),
        .readonly = r->p.spec->readonly,
    }, &r->dead, e);
}

/* This process answers what the other one left, and all that comes, with errors. */
static void give_up(struct vbd_remote *r)
{
    struct err e = { 0 };
    int rc = dead_open(r, &e);

    r->state = REMOTE_GIVEN_UP;
    for (unsigned i = 0; i < r->nr_queues && !rc; i++) {
        struct vbd_queue_params p = r->queue[i].params;

        p.disk = r->dead;
        p.ring.record = &r->queue[i].record;
        rc = vbd_queue_start(&p, &r->queue[i].local, &e);
    }
    if (rc)     /* the guest waits until it is ended */
        log_error("%s: requests cannot even be refused: %s", r->p.name, e.text);
}

static void locals_stop(struct vbd_remote *r)
{
    struct vbd_queue_counters last;

    for (unsigned i = 0; i < r->nr_queues; i++) {
        if (r->queue[i].local)
            vbd_queue_stop(r->queue[i].local, &last);
        r->queue[i].local = NULL;
    }
    blk_disk_close(r->dead);
    r->dead = NULL;
}

/* ---- deaths ---- */

/* How many there were within DEATHS_NS, up to DEATHS_MAX. */
static unsigned deaths_lately(const struct vbd_remote *r, uint64_t now)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < min_of(r->nr_deaths, DEATHS_MAX); i++)
        nr += now - r->death_ns[i] < DEATHS_NS;
    return nr;
}

static void pause_begin(struct vbd_remote *r)
{
    unsigned nr = deaths_lately(r, loop_now_ns());
    uint64_t pause_ns = 0;
    char text[128];

    r->state = REMOTE_PAUSED;
    if (nr == DEATHS_MAX) {
        give_up(r);
        snprintf(text, sizeof(text), "%s: its process died %u times within %u s: requests fail "
                 "until the guest connects anew", r->p.name, DEATHS_MAX,
                 (unsigned)(DEATHS_NS / 1000000000ull));
        changed(r, text);
        return;
    }
    for (unsigned i = DEATHS_AT_ONCE; i < nr && pause_ns < PAUSE_MAX_NS; i++)
        pause_ns = pause_ns ? 2 * pause_ns : PAUSE_MIN_NS;
    loop_timer_arm(r->pause, min_of(pause_ns, (uint64_t)PAUSE_MAX_NS));
}

static void death_note(struct vbd_remote *r)
{
    r->death_ns[r->nr_deaths++ % DEATHS_MAX] = loop_now_ns();
}

/* The process has died, or what it does makes no sense. */
static void process_died(struct vbd_remote *r, const char *why)
{
    r->state = REMOTE_DYING;
    kill(r->pid, SIGKILL);
    socket_close(r);
    death_note(r);
    log_warning("%s: process %d %s: the disk stands still until another one serves it",
                r->p.name, (int)r->pid, why);
    changed(r, NULL);
}

static void socket_ready(void *arg, uint32_t events)
{
    process_died(arg, "has died");
}

static void keep_ended(void *arg, uint32_t events)
{
    struct vbd_remote *r = arg;

    if (r->state == REMOTE_RUNNING)
        process_died(r, "has died");
    remains_wait(r);
    pause_begin(r);
}

static void pause_over(void *arg)
{
    struct vbd_remote *r = arg;
    struct err e = { 0 };

    if (r->state != REMOTE_PAUSED)
        return;
    if (!process_begin(r, &e)) {
        changed(r, NULL);
        return;
    }
    death_note(r);
    log_warning("%s: no process serves it yet: %s", r->p.name, e.text);
    if (r->state == REMOTE_PAUSED)      /* there was not even one to wait for */
        pause_begin(r);
}

/* ---- start and stop ---- */

static int record_make(struct remote_queue *q, struct err *e)
{
    const struct vbd_ring_params *p = &q->params.ring;
    uint32_t nr_entries = vbd_ring_nr_entries(p->abi, p->nr_pages);
    size_t bytes = vbd_record_bytes(nr_entries);

    q->record_fd = memfd_create("xenolith-disk-record", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (q->record_fd < 0 || ftruncate(q->record_fd, (off_t)bytes) ||
        fcntl(q->record_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return err_set(e, errno, "no record of the requests: %s", strerror(errno));
    q->record_base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, q->record_fd, 0);
    if (q->record_base == MAP_FAILED)
        return err_set(e, errno, "no record of the requests: %s", strerror(errno));
    vbd_record_lay(&q->record, q->record_base, nr_entries);
    return 0;
}

static void queues_free(struct vbd_remote *r)
{
    for (unsigned i = 0; i < r->nr_queues; i++) {
        struct remote_queue *q = &r->queue[i];

        if (q->record_base != MAP_FAILED)
            munmap(q->record_base, vbd_record_bytes(q->record.nr_entries));
        if (q->record_fd >= 0)
            close(q->record_fd);
    }
    free(r->queue);
    r->queue = NULL;
    r->nr_queues = 0;
    loop_timer_remove(r->pause);
    r->pause = NULL;
    r->state = REMOTE_IDLE;
}

static int queues_make(struct vbd_remote *r, const struct vbd_queue_params *queues, unsigned nr,
                       struct err *e)
{
    int rc = 0;

    r->queue = calloc(nr, sizeof(*r->queue));
    r->pause = r->queue ? loop_timer_add(r->p.loop, pause_over, r) : NULL;
    if (!r->pause) {
        free(r->queue);
        r->queue = NULL;
        return err_set(e, ENOMEM, "out of memory");
    }
    r->nr_queues = nr;
    for (unsigned i = 0; i < nr; i++) {
        r->queue[i].params = queues[i];
        r->queue[i].record_fd = -1;
        r->queue[i].record_base = MAP_FAILED;
    }
    for (unsigned i = 0; i < nr && !rc; i++)
        rc = record_make(&r->queue[i], e);
    return rc;
}

int vbd_remote_start(struct vbd_remote *r, const struct vbd_queue_params *queues, unsigned nr,
                     struct err *e)
{
    int rc = queues_make(r, queues, nr, e);

    r->silent = false;
    r->nr_deaths = 0;
    r->told_how = false;
    if (!rc)
        rc = process_begin(r, e);
    if (rc && r->silent) {      /* it has not refused, but died, as it may at any time */
        death_note(r);
        err_clear(e);
        rc = 0;
    }
    if (!rc) {
        changed(r, NULL);
        return 0;
    }
    if (r->state == REMOTE_DYING) {
        remains_wait(r);
        /* it may have begun with some queue, and hold pages of the guest's */
        give_up(r);
        locals_stop(r);
    }
    queues_free(r);
    return rc;
}

/* Ends the process, and is true when it has answered all that it had. */
static bool process_stop(struct vbd_remote *r)
{
    struct err e = { 0 };
    int rc;

    message(r, VBD_WIRE_STOP);
    rc = ask(r, NULL, 0, STOP_S, &e);
    if (rc) {
        log_warning("%s: process %d leaves requests to be refused: %s", r->p.name, (int)r->pid,
                    e.text);
        kill(r->pid, SIGKILL);
    }
    socket_close(r);    /* which is what it ends by */
    return !rc;
}

void vbd_remote_stop(struct vbd_remote *r, struct vbd_queue_counters *last)
{
    bool finished = false;

    if (r->state == REMOTE_RUNNING)
        finished = process_stop(r);
    if (r->state == REMOTE_RUNNING || r->state == REMOTE_DYING)
        remains_wait(r);
    if (!finished && r->state != REMOTE_GIVEN_UP)
        give_up(r);
    locals_stop(r);
    for (unsigned i = 0; i < r->nr_queues; i++)
        vbd_record_counters(&r->queue[i].record, &last[i]);
    queues_free(r);
    changed(r, NULL);
}

int vbd_remote_resize(struct vbd_remote *r, uint64_t size_bytes, bool *served, struct err *e)
{
    struct err why = { 0 };
    int rc;

    *served = r->state == REMOTE_RUNNING;
    if (!*served)
        return 0;
    message(r, VBD_WIRE_RESIZE)->size_bytes = size_bytes;
    rc = ask(r, NULL, 0, ANSWER_S, &why);
    if (rc && r->silent) {
        process_died(r, "does not answer");
        *served = false;
        return 0;
    }
    return rc ? err_set(e, -rc, "%s", why.text) : 0;
}

void vbd_remote_counters(const struct vbd_remote *r, unsigned queue,
                         struct vbd_queue_counters *out)
{
    vbd_record_counters(&r->queue[queue].record, out);
}

void vbd_remote_fault(const struct vbd_remote *r, unsigned queue,
                      char text[VBD_RECORD_FAULT_BYTES])
{
    vbd_record_fault(&r->queue[queue].record, text);
}
