/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd_serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dev/xen_vbd.h"
#include "dev/xen_vbd_wire.h"

struct serve_queue {
    struct vbd_queue *queue;
    struct xen_hostport port;
    struct vbd_record record;
    void *page[VBD_RING_PAGES_MAX];
};

struct serve {
    int socket;
    const struct xen_vbd_serve_ops *ops;
    struct guest_mem mem;
    struct gnttab_host grants;
    struct blk_handed handed;
    struct blk_disk *disk;
    int fault_fd;
    char name[16];
    unsigned nr_queues;
    struct serve_queue queue[XEN_VBD_QUEUES_MAX];
};

/* NULL for what there is none of.  False: it is not where it is said to be. */
static bool address(const struct serve *s, uint64_t at, uint64_t bytes, void *out)
{
    void *ptr = at == VBD_WIRE_NONE ? NULL : guest_mem_ptr(&s->mem, gpa(at), bytes);

    memcpy(out, &ptr, sizeof(ptr));
    return ptr || at == VBD_WIRE_NONE;
}

static int memory_take(struct serve *s, const struct vbd_wire_disk *d, const int *fds,
                       struct err *e)
{
    struct gnttab_table t = { .nr_frames_max = d->grant_frames_max };
    int rc = 0;

    for (uint32_t i = 0; i < d->nr_regions && !rc; i++)
        rc = guest_mem_adopt(&s->mem, gpa(d->region[i].base), d->region[i].size_bytes, fds[i], e);
    if (rc)
        return rc;
    if (!address(s, d->grant_frames, d->grant_frames_max * PAGE_SIZE, &t.frames) ||
        !address(s, d->grant_status, GNTTAB_STATUS_FRAMES(d->grant_frames_max) * PAGE_SIZE,
                 &t.status) ||
        !address(s, d->grant_state, sizeof(*t.state), &t.state) || !t.frames || !t.state)
        return err_set(e, EPROTO, "the grant table is not in the guest's memory");
    rc = gnttab_host_init(&s->grants, &s->mem, &t);
    return rc ? err_set(e, -rc, "out of memory") : 0;
}

static int disk_take(struct serve *s, struct vbd_wire_disk *d, int *fds, unsigned *nr_fds,
                     struct vbd_wire_answer *a, struct err *e)
{
    unsigned at = 2 + d->nr_regions;
    char title[16];
    int rc;

    if (s->disk || d->nr_regions > GUEST_MEM_REGIONS_MAX || *nr_fds != at + (d->has_fd != 0))
        return err_set(e, EPROTO, "the disk makes no sense");
    d->name[sizeof(d->name) - 1] = d->driver[sizeof(d->driver) - 1] =
        d->filters[sizeof(d->filters) - 1] = 0;
    memcpy(s->name, d->name, sizeof(s->name));
    rc = memory_take(s, d, fds + 2, e);
    if (rc)
        return rc;
    s->handed = (struct blk_handed){ .fd = d->has_fd ? fds[at] : -1, .keep_fd = fds[0] };
    s->fault_fd = fds[1];
    for (unsigned i = 2; i < at; i++)
        close(fds[i]);
    *nr_fds = 0;    /* the others are ours for good */
    rc = blk_disk_open(&(struct blk_spec){
        .driver = d->driver, .filters = d->filters, .size_bytes = d->size_bytes,
        .readonly = d->readonly, .shared_write = d->shared_write, .no_discard = d->no_discard,
        .no_direct = d->no_direct, .handed = &s->handed,
    }, &s->disk, e);
    snprintf(title, sizeof(title), "disk-%.8s", s->name);
    prctl(PR_SET_NAME, title);      /* which its threads inherit */
    if (!rc)
        rc = s->ops->confine(s->ops->arg, a->text, sizeof(a->text), e);
    if (rc)
        return rc;
    /* After the last change of credentials, which undoes it.  The socket tells of a parent that
     * ends as well, but nobody looks at it while queues are begun or stopped. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == d->parent ? 0 : err_set(e, ESRCH, "the guest's process has gone");
}

static int record_map(struct serve_queue *q, uint32_t nr_entries, int fd, struct err *e)
{
    size_t bytes = vbd_record_bytes(nr_entries);
    struct stat st;
    void *base;

    if (fstat(fd, &st) || (uint64_t)st.st_size < bytes)
        return err_set(e, EPROTO, "the record is too small");
    base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return err_set(e, errno, "the record cannot be mapped: %s", strerror(errno));
    vbd_record_lay(&q->record, base, nr_entries);
    return 0;
}

static int port_make(const struct serve *s, const struct vbd_wire_queue *w, const int *fds,
                     struct xen_hostport *p, struct err *e)
{
    *p = (struct xen_hostport){ .kick_fd = fds[0], .irq_fd = fds[1], .nr_wakers = w->nr_wakers };
    if (!address(s, w->link, sizeof(*p->link), &p->link) || !p->link ||
        !address(s, w->links, sizeof(*p->links), &p->links) ||
        !address(s, w->load, sizeof(*p->load), &p->load) ||
        !address(s, w->wakers, w->nr_wakers * sizeof(*p->wakers), &p->wakers) ||
        (w->nr_wakers && !p->wakers))
        return err_set(e, EPROTO, "the event channel is not in the guest's memory");
    return 0;
}

static int queue_take(struct serve *s, struct vbd_wire_queue *w, int *fds, unsigned *nr_fds,
                      struct err *e)
{
    struct serve_queue *q = &s->queue[s->nr_queues];
    const struct vbd_abi *abi;
    char name[32];
    int rc;

    w->protocol[sizeof(w->protocol) - 1] = 0;
    abi = vbd_abi_find(w->protocol);
    if (!s->disk || s->nr_queues == XEN_VBD_QUEUES_MAX || *nr_fds != 3 || !abi || !w->nr_pages ||
        w->nr_pages > VBD_RING_PAGES_MAX || (w->nr_pages & (w->nr_pages - 1)))
        return err_set(e, EPROTO, "the queue makes no sense");
    for (uint32_t i = 0; i < w->nr_pages; i++)
        if (!address(s, w->page[i], PAGE_SIZE, &q->page[i]) || !q->page[i])
            return err_set(e, EPROTO, "the ring is not in the guest's memory");
    rc = port_make(s, w, fds, &q->port, e);
    if (!rc)
        rc = record_map(q, vbd_ring_nr_entries(abi, w->nr_pages), fds[2], e);
    if (rc)
        return rc;
    close(fds[2]);
    *nr_fds = 0;    /* the port's are ours for good */
    snprintf(name, sizeof(name), "%.8s-q%u", s->name, s->nr_queues);
    rc = vbd_queue_start(&(struct vbd_queue_params){
        .disk = s->disk,
        .ring = {
            .abi = abi, .pages = q->page, .nr_pages = w->nr_pages, .grants = &s->grants,
            .persistent = w->persistent, .record = &q->record,
        },
        .port = &q->port, .poll_max_ns = w->poll_max_ns, .fault_fd = s->fault_fd, .name = name,
    }, &q->queue, e);
    s->nr_queues += !rc;
    return rc;
}

static void queues_stop(struct serve *s)
{
    struct vbd_queue_counters last;

    while (s->nr_queues)
        vbd_queue_stop(s->queue[--s->nr_queues].queue, &last);
}

static void message_take(struct serve *s, struct vbd_wire *m, int *fds, unsigned *nr_fds,
                         struct vbd_wire_answer *a)
{
    struct err e = { 0 };

    switch (m->op) {
    case VBD_WIRE_DISK:
        a->rc = disk_take(s, &m->disk, fds, nr_fds, a, &e);
        break;
    case VBD_WIRE_QUEUE:
        a->rc = queue_take(s, &m->queue, fds, nr_fds, &e);
        break;
    case VBD_WIRE_SEALED:
        a->rc = s->ops->seal(s->ops->arg, &e);
        break;
    case VBD_WIRE_RESIZE:
        a->rc = s->disk ? blk_disk_resize(s->disk, m->size_bytes, &e)
                        : err_set(&e, EPROTO, "there is no disk yet");
        a->size_bytes = s->disk ? blk_props_size(blk_disk_props(s->disk)) : 0;
        break;
    case VBD_WIRE_STOP:
        queues_stop(s);
        break;
    default:
        a->rc = err_set(&e, EPROTO, "message %u is not known", m->op);
        break;
    }
    if (a->rc)
        snprintf(a->text, sizeof(a->text), "%s", e.text);
}

/* Everything else goes with the process: nothing is closed in the end. */
int xen_vbd_serve(int socket, const struct xen_vbd_serve_ops *ops)
{
    struct serve *s = calloc(1, sizeof(*s));
    struct vbd_wire *m = calloc(2, sizeof(*m)), *reply = m + 1;
    int fds[VBD_WIRE_FDS_MAX], rc = s && m ? 0 : -ENOMEM;
    unsigned nr_fds;
    bool stopped = false;

    if (rc)
        return rc;
    s->socket = socket;
    s->ops = ops;
    while (!rc && !stopped && !vbd_wire_receive(socket, m, fds, &nr_fds)) {
        memset(reply, 0, sizeof(*reply));
        reply->op = VBD_WIRE_ANSWER;
        message_take(s, m, fds, &nr_fds, &reply->answer);
        while (nr_fds)
            close(fds[--nr_fds]);
        /* a size that cannot be is the only thing that one can go on after */
        rc = m->op == VBD_WIRE_RESIZE ? 0 : reply->answer.rc;
        stopped = m->op == VBD_WIRE_STOP;
        if (vbd_wire_send(socket, reply, NULL, 0))
            break;
    }
    return rc;
}
