/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/xen_vbd_nodes.h"
#include "dev/xenbus.h"

/* event channel ports of a guest, FIFO ABI */
#define GUEST_PORT_MAX ((1u << 17) - 1)
#define LAST_LOOK_NS 5000000ull         /* see vbd_closed() */
#define LAST_MAX_NS  5000000000ull

struct vbd_connection {
    struct vbd_queue *queue;
    struct xen_hostport port;
    bool bound;
    uint32_t ring_ref[VBD_RING_PAGES_MAX];
    void *page[VBD_RING_PAGES_MAX];
    unsigned nr_pages;          /* mapped */
    bool fault_told;
};

struct xen_vbd {
    struct xen_vbd_params params;
    char vdev[16];
    char *driver, *filters;     /* of a disk that another process opens as well */
    struct blk_disk *disk;
    bool remote_started;
    struct vbd_remote *remote;  /* NULL: queues are served here */
    struct xenbus_back *bus;
    int fault_fd;
    struct loop_fd *fault_watch;
    struct xen_vbd_negotiated agreed;
    unsigned nr_connections;            /* of connection[], also while connecting */
    struct vbd_connection connection[XEN_VBD_QUEUES_MAX];
    struct vbd_queue_counters past;     /* of queues that have ended */
    struct loop_timer *last_timer;      /* the guest's last requests may come */
    uint64_t last_until_ns;
};

/* ---- connecting ---- */

static void queue_disconnect(struct xen_vbd *v, struct vbd_connection *c)
{
    if (c->bound)
        v->params.port_ops->unbind(v->params.port_owner, &c->port);
    for (unsigned i = 0; i < c->nr_pages; i++)
        gnttab_host_unmap(v->params.grants, c->ring_ref[i], true);
    memset(c, 0, sizeof(*c));
}

static void queues_stop(struct xen_vbd *v)
{
    struct vbd_queue_counters last[XEN_VBD_QUEUES_MAX];
    unsigned nr = v->nr_connections;

    memset(last, 0, sizeof(last));
    if (v->remote && v->remote_started)
        vbd_remote_stop(v->remote, last);
    v->remote_started = false;
    for (unsigned i = 0; i < nr; i++) {
        if (v->connection[i].queue)
            vbd_queue_stop(v->connection[i].queue, &last[i]);
        last[i].ring.grants_held = 0;
        vbd_counters_add(&v->past, &last[i]);
    }
}

static void vbd_disconnect(void *arg)
{
    struct xen_vbd *v = arg;

    queues_stop(v);
    for (unsigned i = 0; i < v->nr_connections; i++)
        queue_disconnect(v, &v->connection[i]);
    v->nr_connections = 0;
    v->agreed.connected = false;
}

static int node_missing(struct err *e, const char *key)
{
    err_at(e, NULL, 0, key);
    return err_set(e, ENOENT, "the frontend did not write it");
}

/* ring-ref for a single page (blkif.h, note 6), ring-ref0 ... when the frontend
 * gave an order; some write ring-ref with order 0. */
static int ring_ref_read(struct xen_vbd *v, const char *dir, unsigned page, bool has_order,
                         unsigned nr_pages, uint32_t *ref, struct err *e)
{
    char key[64];
    int rc = -ENOENT;

    if (has_order) {
        snprintf(key, sizeof(key), "%sring-ref%u", dir, page);
        rc = xenbus_front_read_u32(v->bus, key, 0, UINT32_MAX, ref, e);
    }
    if (rc == -ENOENT && nr_pages == 1) {
        snprintf(key, sizeof(key), "%sring-ref", dir);
        rc = xenbus_front_read_u32(v->bus, key, 0, UINT32_MAX, ref, e);
    }
    return rc == -ENOENT ? node_missing(e, key) : rc;
}

static int ring_map(struct xen_vbd *v, struct vbd_connection *c, const char *dir, bool has_order,
                    struct err *e)
{
    for (unsigned i = 0; i < v->agreed.nr_ring_pages; i++) {
        int rc = ring_ref_read(v, dir, i, has_order, v->agreed.nr_ring_pages, &c->ring_ref[i], e);

        if (rc)
            return rc;
        rc = gnttab_host_map(v->params.grants, c->ring_ref[i], true, &c->page[i]);
        if (rc)
            return err_set(e, -rc, "ring page %u cannot be mapped: grant reference %u: %s", i,
                           c->ring_ref[i], strerror(-rc));
        c->nr_pages++;
    }
    return 0;
}

/* Takes what the guest gives for one queue, and fills *q but for the name. */
static int queue_connect(struct xen_vbd *v, unsigned index, const struct vbd_abi *abi,
                         bool has_order, struct vbd_queue_params *q, struct err *e)
{
    struct vbd_connection *c = &v->connection[index];
    char dir[32] = "", key[64];
    uint32_t port;
    int rc;

    if (v->agreed.nr_queues > 1)
        snprintf(dir, sizeof(dir), "queue-%u/", index);
    rc = ring_map(v, c, dir, has_order, e);
    if (rc)
        return rc;
    snprintf(key, sizeof(key), "%sevent-channel", dir);
    rc = xenbus_front_read_u32(v->bus, key, 1, GUEST_PORT_MAX, &port, e);
    if (rc)
        return rc == -ENOENT ? node_missing(e, key) : rc;
    rc = v->params.port_ops->bind(v->params.port_owner, port, &c->port, e);
    if (rc)
        return rc;
    c->bound = true;
    *q = (struct vbd_queue_params){
        .disk = v->disk,
        .ring = {
            .abi = abi, .pages = c->page, .nr_pages = c->nr_pages,
            .grants = v->params.grants, .persistent = v->agreed.persistent,
        },
        .port = &c->port,
        .poll_max_ns = v->params.poll_max_ns,
        .fault_fd = v->fault_fd,
        .name = v->vdev,
    };
    return 0;
}

static int queues_start(struct xen_vbd *v, struct vbd_queue_params *q, unsigned nr, struct err *e)
{
    char name[32];
    int rc = 0;

    if (v->remote) {
        rc = vbd_remote_start(v->remote, q, nr, e);
        v->remote_started = !rc;
        return rc;
    }
    for (unsigned i = 0; i < nr && !rc; i++) {
        snprintf(name, sizeof(name), "%.8s-q%u", v->vdev, i);
        q[i].name = name;
        rc = vbd_queue_start(&q[i], &v->connection[i].queue, e);
    }
    return rc;
}

/* A number the frontend may leave out. */
static int front_number(struct xen_vbd *v, const char *key, uint32_t min, uint32_t max,
                        uint32_t otherwise, uint32_t *out, struct err *e)
{
    int rc = xenbus_front_read_u32(v->bus, key, min, max, out, e);

    if (rc != -ENOENT)
        return rc;
    *out = otherwise;
    return 0;
}

static int abi_read(struct xen_vbd *v, const struct vbd_abi **abi, struct err *e)
{
    char *protocol = xenbus_front_read(v->bus, "protocol");

    *abi = vbd_abi_find(protocol);
    if (!*abi) {
        err_at(e, NULL, 0, "protocol");
        err_set(e, EOPNOTSUPP, "the frontend wants '%.32s': only %s is served", protocol,
                vbd_abi_find(NULL)->protocol);
    }
    free(protocol);
    return *abi ? 0 : -EOPNOTSUPP;
}

static int vbd_connect(void *arg, struct err *e)
{
    struct xen_vbd *v = arg;
    struct vbd_queue_params q[XEN_VBD_QUEUES_MAX];
    uint32_t nr_queues, order = 0, persistent;
    const struct vbd_abi *abi;
    int rc, has_order;

    has_order = xenbus_front_read_u32(v->bus, "ring-page-order", 0, VBD_RING_ORDER_MAX, &order, e);
    if (has_order && has_order != -ENOENT)
        return has_order;
    rc = abi_read(v, &abi, e);
    if (!rc)
        rc = front_number(v, "multi-queue-num-queues", 1, v->params.max_queues, 1, &nr_queues, e);
    if (!rc)
        rc = front_number(v, "feature-persistent", 0, 1, 0, &persistent, e);
    if (rc)
        return rc;
    v->agreed.nr_queues = nr_queues;
    v->agreed.nr_ring_pages = 1u << order;
    v->agreed.nr_ring_requests = vbd_ring_nr_entries(abi, v->agreed.nr_ring_pages);
    v->agreed.persistent = persistent && v->params.persistent;
    for (unsigned i = 0; i < nr_queues && !rc; i++) {
        v->nr_connections = i + 1;
        rc = queue_connect(v, i, abi, !has_order, &q[i], e);
    }
    if (!rc)
        rc = queues_start(v, q, nr_queues, e);
    if (rc) {
        vbd_disconnect(v);
        return rc;
    }
    v->agreed.connected = true;
    log_info("%s: connected, queues %u, ring pages %u each, persistent grants %s, indirect "
             "segments %u", v->vdev, v->agreed.nr_queues, v->agreed.nr_ring_pages,
             v->agreed.persistent ? "yes" : "no", v->agreed.max_indirect_segments);
    return 0;
}

/* ---- leaving ---- */

static bool channels_are_closed(const struct xen_vbd *v)
{
    for (unsigned i = 0; i < v->nr_connections; i++)
        if (!xen_hostport_closed(&v->connection[i].port))
            return false;
    return true;
}

static void last_look(void *arg)
{
    struct xen_vbd *v = arg;

    if (channels_are_closed(v) || loop_now_ns() > v->last_until_ns)
        v->params.closed(v->params.arg, v);
    else
        loop_timer_arm(v->last_timer, LAST_LOOK_NS);
}

/* Linux (5.15 and later) says Closed with requests still in its queues, which it has stopped,
 * and starts them again at the next event.  It waits for all of them when the device's directory
 * has gone, for ever and in the thread that serves all of xenstore.  So the rings are served,
 * after one more event, until the guest has closed their channels: there it is done with them.
 * One that never closes them has had time enough in the end. */
static void vbd_closed(void *arg)
{
    struct xen_vbd *v = arg;

    v->last_until_ns = loop_now_ns() + LAST_MAX_NS;
    v->last_timer = loop_timer_add(v->params.loop, last_look, v);
    if (!v->last_timer)
        v->last_until_ns = 0;
    for (unsigned i = 0; i < v->nr_connections; i++)
        xen_hostport_notify(&v->connection[i].port);
    last_look(v);
}

static const struct xenbus_back_ops vbd_bus_ops = {
    .connect = vbd_connect,
    .disconnect = vbd_disconnect,
    .closed = vbd_closed,
};

/* A queue has stopped its ring: says so once. */
static void fault_seen(void *arg, uint32_t events)
{
    struct xen_vbd *v = arg;
    uint64_t n;

    if (read(v->fault_fd, &n, sizeof(n)) != sizeof(n))
        return;
    for (unsigned i = 0; i < v->nr_connections; i++) {
        struct vbd_connection *c = &v->connection[i];
        char fault[VBD_RECORD_FAULT_BYTES] = "", text[256];

        if (v->remote_started)
            vbd_remote_fault(v->remote, i, fault);
        else if (c->queue && vbd_queue_fault(c->queue))
            snprintf(fault, sizeof(fault), "%s", vbd_queue_fault(c->queue));
        if (!fault[0] || c->fault_told)
            continue;
        c->fault_told = true;
        snprintf(text, sizeof(text), "%s: queue %u stopped: %s", v->vdev, i, fault);
        xenbus_back_error(v->bus, text);
    }
}

/* ---- a process of its own ---- */

static void remote_changed(void *arg, pid_t pid, unsigned nr_deaths, const char *given_up)
{
    struct xen_vbd *v = arg;
    char text[16];

    snprintf(text, sizeof(text), "%d", (int)pid);
    xenbus_back_note(v->bus, "process", text);
    snprintf(text, sizeof(text), "%u", nr_deaths);
    xenbus_back_note(v->bus, "process-deaths", text);
    if (given_up)
        xenbus_back_error(v->bus, given_up);
}

/* The disk is opened here to be claimed, described and shared; the filters are the other
 * process's alone. */
static int disk_open(struct xen_vbd *v, struct err *e)
{
    struct blk_spec *spec = &v->params.disk, bare;

    if (!v->params.apart.spawn)
        return blk_disk_open(spec, &v->disk, e);
    v->driver = strdup(spec->driver);
    v->filters = strdup(spec->filters ? spec->filters : "");
    if (!v->driver || !v->filters)
        return err_set(e, ENOMEM, "out of memory");
    spec->driver = v->driver;
    spec->filters = v->filters;
    bare = *spec;
    bare.filters = NULL;
    bare.to_share = true;
    if (blk_disk_judge_apart(spec, e) || blk_disk_open(&bare, &v->disk, e))
        return -e->code;
    return vbd_remote_create(&(struct vbd_remote_params){
        .loop = v->params.loop, .name = v->vdev, .spec = spec, .disk = v->disk,
        .grants = v->params.grants, .fault_fd = v->fault_fd, .spawn = v->params.apart,
        .changed = remote_changed, .arg = v,
    }, &v->remote, e);
}

/* ---- creation ---- */

static int bus_create(struct xen_vbd *v, struct err *e)
{
    struct xenbus_node front[] = { { "virtual-device", "" }, { "device-type", "" } };
    struct vbd_nodes back = { .nr = 0 };

    snprintf(front[0].value, sizeof(front[0].value), "%u", v->params.vdev_number);
    snprintf(front[1].value, sizeof(front[1].value), "%s", v->params.cdrom ? "cdrom" : "disk");
    vbd_nodes_fill(&back, &v->params, v->vdev, blk_disk_props(v->disk));
    return xenbus_back_create(&(struct xenbus_back_params){
        .xs = v->params.xs,
        .domid = v->params.domid,
        .type = "vbd",
        .device = v->params.vdev_number,
        .front = front,
        .nr_front = array_size(front),
        .back = back.node,
        .nr_back = back.nr,
        .ops = &vbd_bus_ops,
        .arg = v,
    }, &v->bus, e);
}

int xen_vbd_create(const struct xen_vbd_params *p, struct xen_vbd **out, struct err *e)
{
    struct xen_vbd *v;
    int rc;

    if (p->max_queues < 1 || p->max_queues > XEN_VBD_QUEUES_MAX)
        return err_set(e, EINVAL, "%u queues for a disk: expected 1 to %u", p->max_queues,
                       XEN_VBD_QUEUES_MAX);
    v = calloc(1, sizeof(*v));
    if (!v)
        return err_set(e, ENOMEM, "out of memory");
    v->params = *p;
    v->agreed.max_indirect_segments = VBD_SEGMENTS_MAX;
    v->fault_fd = -1;
    snprintf(v->vdev, sizeof(v->vdev), "%s", p->vdev);
    v->fault_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->fault_fd >= 0)
        v->fault_watch = loop_fd_add(p->loop, v->fault_fd, EPOLLIN, fault_seen, v);
    if (!v->fault_watch) {
        rc = err_set(e, errno, "%s: no event descriptor: %s", v->vdev, strerror(errno));
        goto fail;
    }
    rc = disk_open(v, e);
    if (rc)
        goto fail;
    if (blk_disk_props(v->disk)->max_queues)
        v->params.max_queues = min_of(p->max_queues, blk_disk_props(v->disk)->max_queues);
    rc = bus_create(v, e);
    if (rc)
        goto fail;
    *out = v;
    return 0;
fail:
    xen_vbd_destroy(v);
    return rc;
}

bool xen_vbd_close(struct xen_vbd *v)
{
    return xenbus_back_close(v->bus);
}

/* By whoever serves it, so that no request is judged by a size that is no more. */
static int disk_resize(struct xen_vbd *v, uint64_t size_bytes, struct err *e)
{
    bool served = false;
    int rc = v->remote ? vbd_remote_resize(v->remote, size_bytes, &served, e) : 0;

    if (rc)
        return rc;
    /* where it has a size of its own, it is the same thing again; else the medium's is taken */
    return blk_disk_resize(v->disk, served && blk_disk_share(v->disk) >= 0 ? 0 : size_bytes, e);
}

int xen_vbd_resize(struct xen_vbd *v, uint64_t size_bytes, struct err *e)
{
    const struct blk_props *d = blk_disk_props(v->disk);
    uint64_t before = blk_props_nr_sectors(d);
    struct vbd_nodes l = { .nr = 0 };
    int rc = disk_resize(v, size_bytes, e);

    if (rc || blk_props_nr_sectors(d) == before)
        return rc;
    vbd_nodes_size(&l, d);
    log_info("%s: resized from %llu sectors to %llu", v->vdev, (unsigned long long)before,
             (unsigned long long)blk_props_nr_sectors(d));
    return xenbus_back_update(v->bus, l.node, l.nr, e);
}

void xen_vbd_destroy(struct xen_vbd *v)
{
    if (!v)
        return;
    loop_timer_remove(v->last_timer);
    xenbus_back_destroy(v->bus);
    if (v->fault_watch)
        loop_fd_remove(v->fault_watch);
    if (v->fault_fd >= 0)
        close(v->fault_fd);
    vbd_remote_free(v->remote);
    blk_disk_close(v->disk);
    free(v->driver);
    free(v->filters);
    free(v);
}

/* ---- looking ---- */

void xen_vbd_negotiated(const struct xen_vbd *v, struct xen_vbd_negotiated *out)
{
    *out = v->agreed;
}

const struct blk_props *xen_vbd_disk_props(const struct xen_vbd *v)
{
    return blk_disk_props(v->disk);
}

const char *xen_vbd_name(const struct xen_vbd *v)
{
    return v->vdev;
}

unsigned xen_vbd_number(const struct xen_vbd *v)
{
    return v->params.vdev_number;
}

/* The first of these that is a number. */
static int front_int(const struct xen_vbd *v, const char *const key[], unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        struct err e = { 0 };
        uint32_t n;

        if (!xenbus_front_read_u32(v->bus, key[i], 0, INT32_MAX, &n, &e))
            return (int)n;
    }
    return -1;
}

void xen_vbd_front(const struct xen_vbd *v, struct xen_vbd_front *out)
{
    static const char *const state[] = { "state" };
    static const char *const port[] = { "event-channel", "queue-0/event-channel" };
    static const char *const ring[] = { "ring-ref", "ring-ref0", "queue-0/ring-ref",
                                        "queue-0/ring-ref0" };

    *out = (struct xen_vbd_front){
        .state = front_int(v, state, array_size(state)),
        .event_channel = front_int(v, port, array_size(port)),
        .ring_ref = front_int(v, ring, array_size(ring)),
        .backend = xenbus_back_path(v->bus),
    };
}

void xen_vbd_counters(const struct xen_vbd *v, struct vbd_queue_counters *total)
{
    *total = v->past;
    for (unsigned i = 0; i < v->nr_connections; i++) {
        struct vbd_queue_counters c;

        if (!xen_vbd_queue_counters(v, i, &c))
            vbd_counters_add(total, &c);
    }
}

int xen_vbd_queue_counters(const struct xen_vbd *v, unsigned queue,
                           struct vbd_queue_counters *out)
{
    if (queue >= v->nr_connections || !(v->connection[queue].queue || v->remote_started))
        return -ENOENT;
    if (v->remote_started)
        vbd_remote_counters(v->remote, queue, out);
    else
        vbd_queue_counters(v->connection[queue].queue, out);
    return 0;
}
